//! State that all workers share: answers, in memory and, over a restart, on disk; accounts of clients; tap rings.
//!
//! Here belongs the one cache of the process behind its locks (`shared`), its answers for the program in the kernel (`hot`), the
//! snapshot files (`snapshot`), the thread that reads and writes them (`writer`), the accounts of clients for rate limits
//! (`rates`), and the rings in which readers get queries as they arrive (`tap`).
//!
//! What does not: which answers are kept and for how long (`xdnsd_core::cache` and the engine), and how an answer is shown to
//! people (`control::dump`).
//!
//! It uses `os` and `text`.

pub mod hot;
pub mod rates;
pub mod shared;
pub mod snapshot;
pub mod tap;
pub mod writer;

pub use hot::{BOOKS_BYTES, HOT, HotAnswers, HotQuestion};
pub use shared::{CACHE, STEP, SharedCache, Walk, bytes_for as cache_bytes};
pub use snapshot::{BUFFER, Store};
pub use tap::TAP;
pub use writer::{SnapshotHandle, SnapshotWriter};
