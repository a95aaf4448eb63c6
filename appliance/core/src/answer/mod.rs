//! The answer to a question, apart from where it is kept and who asks: its key, what is known of it besides its records,
//! and how it is read from an upstream, checked, and written for a client.
//!
//! ```text
//!  upstream's response ── sanitize ──► Head + body ── render ──► client's reply
//!                                        │    ▲
//!                                        ▼    │ check, where they come from a file
//!                                       cache under a Key
//! ```
//!
//! The *body* is everything behind the question. Its compression pointers count from the message's first byte, so it fits
//! behind any client's question of the same name, in whatever letter case.

mod check;
mod head;
mod kept;
mod key;
mod owned;
mod received;
mod render;
mod sanitize;

pub use check::{body_is_well_formed, is_key_name};
pub use head::Head;
pub use kept::Kept;
pub use key::{Key, NAME_MASK, NO_NAME, name_hash};
pub(crate) use key::{bit, field};
pub use received::Answer;
pub use render::{Reply, Ttl, render, render_in_place};
pub use sanitize::{
    Asked, CHAIN_MAX, CHASE_BYTES, ChainStart, Led, ResponseError, TtlBounds, sanitize,
};
