//! Limit of open descriptors of the process.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors wanted: sockets of clients and of questions, files, maps.
const DESCRIPTORS: u64 = 4096;

/// Below this, listeners take nearly all descriptors, and questions fail for want of a socket.
const LEAST: u64 = 256;

/// Raises the soft limit of open descriptors towards [`DESCRIPTORS`], as far as the hard limit allows. Fewer descriptors mean
/// fewer ports for questions at once. Returns a warning if the limit is too low.
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

/// Descriptors that must remain once all listeners are open: for questions to upstreams, clients over TCP, files.
const SPARE: u64 = 24;

/// Checks that [`SPARE`] descriptors remain once all listeners are open: without them every query would fail.
///
/// # Errors
/// Too few: a sentence with the limit and the number needed.
pub fn check_spare() -> Result<(), String> {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    let used = match std::fs::read_dir("/proc/self/fd") {
        // One is the descriptor of read_dir itself.
        Ok(descriptors) => descriptors.count() as u64 - 1,
        Err(error) if error.raw_os_error() == Some(Errno::EMFILE as i32) => limit,
        // Without /proc the number is unknown.
        Err(_) => return Ok(()),
    };
    none_left(limit, used).map_or(Ok(()), Err)
}

fn none_left(limit: u64, used: u64) -> Option<String> {
    let needed = used + SPARE;
    (limit < needed).then(|| {
        format!(
            "only {limit} descriptors may be open, and what serves has {used} of them: no question could be asked; at least {needed} \
             are needed, more with XDP, which takes its own first; better {DESCRIPTORS} (`ulimit -n`, LimitNOFILE)"
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

    #[test]
    fn a_limit_that_leaves_nothing_is_told_with_what_is_needed() {
        assert_eq!(
            none_left(40, 32).as_deref(),
            Some(
                "only 40 descriptors may be open, and what serves has 32 of them: no question could be asked; at least 56 are \
                 needed, more with XDP, which takes its own first; better 4096 (`ulimit -n`, LimitNOFILE)"
            )
        );
        assert_eq!(none_left(56, 32), None);
        assert_eq!(check_spare(), Ok(()), "this process has some");
    }
}
