//! Limits on the memory of the process. An allocation beyond them aborts it, often without a message, so a start checks them.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Checks that this process may have `budget` bytes of writable memory, besides its code. Raises the soft limits as far as the hard
/// ones permit.
///
/// # Errors
/// A limit is lower: a sentence with the limit, and what is needed.
pub fn check(budget: u64) -> Result<(), String> {
    // Unknown without /proc.
    let code = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| code_bytes(&statm));
    let data = ResourceNeed {
        resource: Resource::RLIMIT_DATA,
        bytes: budget,
        what: "data",
        how: "`ulimit -d`, LimitDATA",
    };
    let address_space = code.map(|code| ResourceNeed {
        resource: Resource::RLIMIT_AS,
        bytes: code + budget,
        what: "address space",
        how: "`ulimit -v`, LimitAS",
    });
    [Some(data), address_space]
        .into_iter()
        .flatten()
        .try_for_each(|need| need.raise())
}

/// Amount of a resource that the process needs.
struct ResourceNeed {
    resource: Resource,
    bytes: u64,
    /// Its name, and how its limit is set.
    what: &'static str,
    how: &'static str,
}

impl ResourceNeed {
    fn raise(&self) -> Result<(), String> {
        let Ok((soft, hard)) = getrlimit(self.resource) else {
            return Ok(());
        };
        if soft < self.bytes && soft < hard {
            // A failure is reported below.
            let _ = setrlimit(self.resource, hard, hard);
        }
        self.too_little(hard.max(soft)).map_or(Ok(()), Err)
    }

    fn too_little(&self, limit: u64) -> Option<String> {
        let Self { what, how, .. } = self;
        let (has, needed) = (limit / 1024, self.bytes.div_ceil(1024));
        (limit < self.bytes).then(|| {
            format!("the process may have {has} KiB of {what}: {needed} are needed ({how}), and more for lists")
        })
    }
}

/// Bytes of the address space that are not data, from the numbers of pages in /proc/PID/statm (proc(5)).
fn code_bytes(statm: &str) -> Option<u64> {
    let pages: Vec<u64> = statm
        .split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let (whole, data) = (*pages.first()?, *pages.get(5)?);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page.ok().flatten()?;
    Some(whole.saturating_sub(data) * page as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_told_with_what_is_needed() {
        let need = ResourceNeed {
            resource: Resource::RLIMIT_AS,
            bytes: 24 << 20,
            what: "address space",
            how: "`ulimit -v`, LimitAS",
        };
        assert_eq!(need.too_little(24 << 20), None);
        assert_eq!(
            need.too_little((24 << 20) - 1).as_deref(),
            Some(
                "the process may have 24575 KiB of address space: 24576 are needed (`ulimit -v`, LimitAS), and more for lists"
            )
        );
        assert_eq!(check(0), Ok(()), "this process has what it has");
    }

    #[test]
    fn what_code_takes_is_the_rest() {
        let page = code_bytes("2 1 1 1 0 1 0\n").expect("seven numbers");
        assert!(page >= 4096, "{page}");
        assert_eq!(
            code_bytes("5300 2200 1100 1050 0 3600 0\n"),
            Some(1700 * page)
        );
        for broken in ["", "5300 2200", "x y"] {
            assert_eq!(code_bytes(broken), None);
        }
    }
}
