//! Definitions that the XDP programs and user space share.
//!
//! The crate has no dependencies, no features, no std and no unsafe, because one of the two sides is compiled for the
//! kernel. It holds the *contract* on which both sides must agree: maps, keys, values, limits, and the reasons by which the
//! program counts. And it holds what both sides must know about a frame: the formats of its headers ([`headers`]), its
//! checksums ([`checksum`]) and the hash of names ([`hash`]).
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
