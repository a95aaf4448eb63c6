//! Scenarios with fake time, by theme. Messages are built and read by an independent implementation (hickory-proto).
#![expect(clippy::unwrap_used, reason = "tests")]

mod answers;
mod caching;
mod chains;
mod contradiction;
mod crowd;
mod dname;
mod dns64;
mod edns;
mod edns_upstream;
mod elsewhere;
mod flood;
mod harness;
mod hit;
mod hostile;
mod image;
mod large;
mod messages;
mod policy;
mod rates;
mod recursion;
mod screen;
mod sets;
mod stale;
mod upstreams;
mod views;
