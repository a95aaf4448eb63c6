//! How many descriptors the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are wanted: sockets of clients and of questions, files, maps.
const DESCRIPTORS: u64 = 4096;

/// With fewer, what serves takes nearly all of them, and questions fail for want of a socket.
const LEAST: u64 = 256;

/// Raises the soft limit of open descriptors as far as is wanted and the hard limit lets it. Without more of them questions
/// have fewer ports at once. What is to be said of a limit that is too low.
#[must_use]
pub fn raise_limit() -> Option<String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let wanted = DESCRIPTORS.min(hard);
    if soft < wanted {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
    too_few(hard)
}

fn too_few(hard: u64) -> Option<String> {
    (hard < LEAST).then(|| {
        format!(
            "only {hard} descriptors may be open: questions fail where none is left for them; at least {LEAST} are wanted, better \
             {DESCRIPTORS} (`ulimit -Hn`, LimitNOFILE)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_said_with_what_is_wanted() {
        assert_eq!(
            too_few(64).as_deref(),
            Some(
                "only 64 descriptors may be open: questions fail where none is left for them; at least 256 are wanted, better 4096 \
                 (`ulimit -Hn`, LimitNOFILE)"
            )
        );
        assert!(too_few(255).is_some());
        assert_eq!(too_few(256), None);
        assert_eq!(too_few(u64::MAX), None);
    }
}
