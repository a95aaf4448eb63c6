//! The image in a virtual machine: for interactive use ([`run`]) and for tests ([`tests`]).
//!
//! A guest is reached in three ways: its serial console, UDP and TCP ports that QEMU forwards without root, and, for
//! frames as they are on a cable, a tap device in a network namespace.

pub mod cable;
pub mod guest;
pub mod machine;
pub mod report;
pub mod run;
pub mod tests;
pub mod upstream;
