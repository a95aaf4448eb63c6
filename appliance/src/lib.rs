//! The daemon: effects around the engine of `xdnsd_core`.

pub mod account;
pub mod cache;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod daemon;
pub mod ethtool;
pub mod files;
pub mod listening;
pub mod logging;
pub mod memory;
pub mod policy;
pub mod presentation;
pub mod reload;
pub mod seal;
pub mod store;
pub mod supervisor;
pub mod sys;
pub mod telemetry;
pub mod text;
pub mod worker;
pub mod xdp;
pub mod xsk;
