//! The daemon: effects around the engine of `xdnsd_core`.

pub mod cache;
pub mod clock;
pub mod config;
pub mod control;
pub mod ethtool;
pub mod memory;
pub mod presentation;
pub mod seal;
pub mod telemetry;
pub mod xdp;
pub mod xsk;
