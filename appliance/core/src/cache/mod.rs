//! Cache of answers: fixed capacity, in statics, without allocation.
//!
//! A shard is the part behind one lock. It is a set-associative table: names of one set evict each other and no others, and
//! the hash is keyed, so nobody outside knows which names share a set. Time and randomness come from the caller.
//!
//! ```text
//!  hash  63            32 31        16 15        7 6     0
//!        | set           | tag        | unused    | shard |
//! ```

mod admission;
mod shard;
pub mod snapshot;
mod table;
#[cfg(test)]
mod tests;

pub use shard::{Inserted, Shard, shard_of, shards_for};
