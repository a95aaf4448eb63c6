//! The cache of answers: fixed capacity, in statics, without allocation.
//!
//! A shard is what one lock guards. It is a set-associative table: names that meet in one set evict each other and no
//! others, and the hash is keyed, so nobody outside knows which do. Time and randomness come from the caller.
//!
//! ```text
//!  hash  63            32 31        16 15        4 3     0
//!        | set           | tag        | unused    | shard |
//! ```

mod admission;
mod shard;
pub mod snapshot;
mod table;
#[cfg(test)]
mod tests;

pub use shard::{Inserted, Shard, shard_of};
