//! The daemon: effects around the engine of `xdnsd_core`.

pub mod config;
