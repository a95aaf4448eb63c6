//! The kernel's side: everything that this package asks of the operating system itself, as safe functions and types.
//!
//! Here belongs
//! - every `unsafe` of this package, behind a type or a function that cannot be misused. `cargo xtask tidy` finds one elsewhere;
//! - code that knows a system call, a file of /proc or /sys, or a socket option by number: AF_XDP (`xsk`), the XDP loader
//!   (`xdp`), ethtool and rtnetlink, clocks, the random generator, capabilities, seccomp, Landlock, mapped memory.
//!
//! What does not: DNS, and decisions. A module here reports what the kernel said. Calls that std or nix wrap safely may stand
//! where they are needed.
//!
//! It uses `text`, for names out of /proc, and nothing else of this package.

pub mod account;
pub mod bpf_array;
mod bpf_link;
pub mod bridge;
pub mod capabilities;
pub mod clock;
pub mod datagrams;
pub mod descriptors;
pub mod device;
pub mod ethtool;
pub mod files;
pub mod grace;
pub mod holder;
pub mod keeper;
pub mod landlock;
pub mod memory_limits;
pub mod netlink;
pub mod nf_tables;
pub mod notify;
pub mod peer;
pub mod random;
pub mod reuseport;
pub mod seal;
pub mod sealed_memory;
pub mod set_info;
pub mod shared_memory;
pub mod socket;
pub mod sysctl;
pub mod system_calls;
pub mod threads;
pub mod xdp;
pub mod xsk;
pub mod zeroed;
