//! Forwarding: which upstream is asked, when the next one is, and who waits for what.

mod letter_case;
pub mod pending;
pub mod slab;
pub mod upstreams;
pub mod via;
