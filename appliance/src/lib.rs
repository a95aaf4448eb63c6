//! The daemon: effects around the engine of `xdnsd_core`.
//!
//! Each wing's `mod.rs` begins with what belongs there and what does not. ARCHITECTURE.md has the drawing of which wing uses
//! which; `cargo xtask tidy` checks it against the `use` lines.
#![deny(clippy::self_named_module_files)]

pub mod cli;
pub mod compile;
pub mod config;
pub mod control;
pub mod daemon;
pub mod logging;
pub mod os;
pub mod store;
#[cfg(test)]
mod testing;
pub mod text;
pub mod worker;
