//! What the XDP program and user space share, written once.
//!
//! It has no dependencies, no features, no std and no unsafe, because one of the two sides is compiled for the kernel. What
//! both sides must agree on is the *contract*: maps, keys, values, limits, and the reasons that the program counts by. What
//! both sides must know is what a frame looks like ([`headers`]), how it is summed up ([`checksum`]) and how a name is hashed
//! ([`hash`]).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod bridge;
pub mod checksum;
mod contract;
mod counters;
pub mod event;
pub mod hash;
pub mod headers;
pub mod hot;
mod orders;
pub mod ports;
pub mod rate;
mod reason;

pub use contract::*;
pub use orders::{Orders, RestoredOptions};
pub use reason::Reason;
