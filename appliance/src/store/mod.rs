//! Answers that are kept: in memory, for all workers, and on disk, over a restart.
//!
//! Here belongs the one cache of the process behind its locks (`shared`), what of it the program in the kernel gives (`hot`), the
//! files of its snapshot (`snapshot`), and the thread that reads and writes them (`writer`).
//!
//! What does not: which answers are kept and for how long (`xdnsd_core::cache` and the engine), and how an answer is shown to
//! people (`control::dump`).
//!
//! It uses `os` and `text`.

pub mod hot;
pub mod shared;
pub mod snapshot;
pub mod writer;

pub use hot::{BOOKS_BYTES, HOT, HotAnswers};
pub use shared::{CACHE, STEP, SharedCache, Walk};
pub use snapshot::{BUFFER, Store};
pub use writer::{SnapshotHandle, SnapshotWriter};
