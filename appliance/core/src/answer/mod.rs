//! Answers, independent of storage and clients: their keys and heads, and how they are read from an upstream, checked, and
//! rendered for a client.
//!
//! ```text
//!  upstream's response ── sanitize ──► Head + body ── render ──► client's reply
//!                                        │    ▲
//!                                        ▼    │ check, where they come from a file
//!                                       cache under a Key
//! ```
//!
//! The *body* is everything behind the question. Its compression pointers count from the message's first byte, so it fits
//! behind any client's question of the same name, in any letter case.

mod check;
mod distinct;
mod head;
mod hot;
mod kept;
mod key;
mod owned;
mod render;
mod response;
mod sanitize;

pub use check::{body_is_well_formed, is_key_name};
pub use head::{Answer, Head};
pub use hot::{Fresh, hot_name, hot_words};
pub use kept::Kept;
pub use key::{ANY_TYPE, HashedKey, Key, NAME_MASK, name_hash};
pub(crate) use key::{bit, field};
pub use render::{Rendered, Reply, Ttl};
pub use response::Response;
pub use sanitize::{
    CHAIN_MAX, CHAIN_PREFIX_BYTES, ChainPrefix, Expected, Original, ResponseError, TtlBounds,
    sanitize,
};
