//! What all workers share and keep: answers, in memory and on disk, over a restart; and accounts of clients.
//!
//! Here belongs the one cache of the process behind its locks (`shared`), what of it the program in the kernel gives (`hot`), the
//! files of its snapshot (`snapshot`), the thread that reads and writes them (`writer`), what clients have had of what they may
//! have (`rates`), and who reads of queries as they come (`tap`).
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
pub use shared::{CACHE, STEP, SharedCache, Walk};
pub use snapshot::{BUFFER, Store};
pub use tap::TAP;
pub use writer::{SnapshotHandle, SnapshotWriter};
