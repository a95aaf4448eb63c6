//! Policy's files: what people write, compiled to the images that `xdnsd_core::policy` looks into.
//!
//! ```text
//! config ──────────────► PolicyInput ─┐
//! hosts, leases, lists ──► rules, hosts ├─► PolicySet: immutable images ──► view() per batch ──► the engine
//! compiled list ────────► copy ────────┘        ▲
//! inotify ──► Watcher ──► Keeper: waits, reads anew, keeps the old set where the new one is wrong
//! ```

pub mod acl;
pub mod claims;
pub mod hosts;
pub mod keeper;
pub mod list_file;
pub mod lists;
pub mod local;
mod map;
pub mod name;
pub mod prefix;
pub mod problem;
mod punycode;
pub mod rdata;
pub mod routes;
pub mod rules;
pub mod set;
pub mod svcb;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod trust;
pub mod watch;
pub mod words;

pub use acl::AclInput;
pub use hosts::LeaseFormat;
pub use keeper::Keeper;
pub use local::{LeaseFile, LocalInput};
pub use prefix::Prefix;
pub use problem::{Notes, Problem};
pub use routes::RouteInput;
pub use set::{ListsInput, PolicyInput, PolicySet, RebindInput};
