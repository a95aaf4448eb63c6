//! Which files the config is made of.

use super::{optional, section};
use crate::config::types::IncludedFile;

/// Most files of a config.
pub const FILES_MAX: usize = 64;

section! {
    /// Further files of the config. Sections of one name in several files are one section, and those in double brackets stand
    /// behind each other: those of this file first, then those of the others, in the order in which they are named. A key that
    /// stands in two files is an error. A reload reads all of them again.
    Include = "include", many: false {
        /// Files, folders (the files in them that end in `.toml`), or a path with one `*` in its last part. A folder's files are
        /// taken in the order of their names, without hidden ones. A path that does not begin with `/` begins at the folder of the
        /// file that names it. What is included may include more, up to eight files deep; all together have at most 1 MiB.
        files: Vec<IncludedFile> = Vec::new(), 0..=FILES_MAX as u64;
    }
}
