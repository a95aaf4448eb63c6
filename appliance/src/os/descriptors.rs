//! How many descriptors the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are wanted: sockets of clients and of questions, files, maps.
const DESCRIPTORS: u64 = 4096;

/// Raises the soft limit of open descriptors as far as is wanted and the hard limit lets it. Without more of them questions
/// have fewer ports at once.
pub fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = DESCRIPTORS.min(hard);
        if soft < wanted {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
        }
    }
}
