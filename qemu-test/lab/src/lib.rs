//! Infrastructure of xdnsd's tests and benchmarks: namespaces, frames, servers, processes.
//!
//! [`lab`] makes a client, a router and an upstream out of network namespaces; [`nsd`] starts a real upstream server in it with
//! the zone of [`zone`], [`scripted`] one that follows a test's script; [`peer`] starts another forwarder in the router's place,
//! [`knot`] an authoritative server over XDP, both from a newer [`suite`] on request. [`frames`] and [`bpf`] are for tests that
//! write frames or load their own programs, [`query`] for clients that ask plainly, [`live`] and [`flood`] for those that need millions of frames a second. Nothing here
//! is part of the appliance.

pub mod bpf;
pub mod dnsperf;
pub mod family;
pub mod flood;
pub mod frames;
pub mod knot;
pub mod lab;
pub mod live;
pub mod netns;
pub mod nsd;
pub mod peer;
pub mod privilege;
pub mod process;
pub mod programs;
pub mod query;
pub mod scripted;
pub mod sign;
pub mod suite;
pub mod wait;
pub mod workspace;
pub mod zone;
