//! What `cargo xtask` is made of, and what the black-box tests borrow from it.
//!
//! [`lab`] makes a client, a router and an upstream out of network namespaces; [`nsd`] starts a real upstream
//! server in it with the zone of [`zone`]. Nothing here is part of the appliance.

pub mod arguments;
pub mod bench;
pub mod bpf;
pub mod dist;
pub mod dnsperf;
pub mod ebpf;
pub mod frames;
pub mod image;
pub mod lab;
pub mod netns;
pub mod nsd;
pub mod peer;
pub mod privilege;
pub mod process;
pub mod progress;
pub mod qemu;
pub mod run;
pub mod setup;
pub mod sign;
pub mod signals;
pub mod test;
pub mod tidy;
pub mod wait;
pub mod workspace;
pub mod zone;
