//! Policy's files: what people write, compiled to the images that `xdnsd_core::policy` looks into.

pub mod acl;
pub mod hosts;
pub mod list_file;
pub mod lists;
pub mod local;
mod map;
pub mod name;
pub mod prefix;
pub mod problem;
pub mod rdata;
pub mod routes;
pub mod rules;
pub mod svcb;
pub mod table;
#[cfg(test)]
mod testing;
pub mod words;

pub use problem::{Notes, Problem};
