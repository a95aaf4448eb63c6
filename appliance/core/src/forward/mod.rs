//! Forwarding: which upstream is asked, when the next one is asked, and which clients wait for a question.
//!
//! ```text
//!  pending ──► question ──► upstreams ──► tries ──► via
//! ```

pub mod in_flight;
mod letter_case;
pub mod pending;
pub mod question;
pub mod slab;
pub mod tries;
pub mod upstreams;
pub mod via;
pub mod zone;
