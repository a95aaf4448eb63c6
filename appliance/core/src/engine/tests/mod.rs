//! Scenarios with fake time, by theme. Messages are built and read by an independent implementation (hickory-proto).
#![expect(clippy::unwrap_used, reason = "tests")]

mod answers;
mod caching;
mod chains;
mod crowd;
mod edns;
mod harness;
mod hostile;
mod image;
mod known;
mod large;
mod messages;
mod policy;
mod stale;
mod upstreams;
