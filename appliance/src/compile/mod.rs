//! The compiler of policy: compiles the files and settings of the user to the images that `xdnsd_core::policy` looks into.
//!
//! ```text
//! config ──────────────► PolicyInput ─┐
//! hosts, leases, lists ──► rules, hosts ├─► PolicySet: immutable images ──► view() per policy ──► the engine
//! compiled list ────────► copy ────────┘        ▲
//! inotify ──► Watcher ──► PolicyReloader: waits, reads anew, keeps the old set where the new one is wrong
//! ```
//!
//! Here belongs the syntax of names, records, hosts files, leases, lists and prefixes, what is made of them, their precedence
//! when they differ (`claims`, `trust`), and which line of which file decided (`why`).
//!
//! What does not: the handling of a query (`xdnsd_core::policy`), and the thread that reads the files (`daemon::reload`).
//!
//! It uses `os` for files and memory, and `text`.

pub mod acl;
pub mod claims;
pub mod client;
pub mod hosts;
pub mod links;
pub mod list_file;
pub mod lists;
pub mod local;
pub mod name;
pub mod prefix;
pub mod prefix_list;
pub mod problem;
mod punycode;
mod ranges;
pub mod rdata;
pub mod reloader;
mod room;
pub mod routes;
pub mod rpz;
pub mod rules;
pub mod set;
mod shape;
pub mod svcb;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod trust;
pub mod watch;
pub mod why;
pub mod zonefile;

pub use acl::AclInput;
pub use hosts::LeaseFormat;
pub use local::{LeaseFile, LocalInput};
pub use prefix::Prefix;
pub use problem::{Notes, Problem};
pub use reloader::PolicyReloader;
pub use routes::RouteInput;
pub use set::{ListsInput, PolicyInput, PolicySet, RebindInput};
