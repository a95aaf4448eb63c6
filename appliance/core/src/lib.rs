//! DNS forwarder without I/O: messages, cache, forwarding and policy over borrowed buffers.
//!
//! No allocation, clock, sockets or randomness: the caller supplies them. So time can be faked, and scenarios, fuzzing and
//! replay need no network.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;
// The tests' images are those of the cost example, which sees this crate from outside.
#[cfg(test)]
extern crate self as xdnsd_core;

pub mod answer;
pub mod cache;
pub mod counters;
pub mod dns;
pub mod engine;
pub mod forward;
pub mod limits;
pub mod policy;
pub mod rate;
pub mod respond;
#[cfg(test)]
mod testing;
pub mod time;
pub mod wire;
