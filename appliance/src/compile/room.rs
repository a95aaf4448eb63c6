//! Memory that a list may take.

use std::io;

/// Memory that a list leaves to the rest of the machine, in bytes.
pub const LEFT_FREE: u64 = 4 << 20;

/// Checks that the machine keeps [`LEFT_FREE`] bytes of its `available` memory: a missing list is a smaller harm than a server
/// that the kernel kills.
///
/// # Errors
/// Too little would be left.
pub fn check(bytes: u64, available: Option<u64>) -> io::Result<()> {
    match available {
        Some(available) if bytes + LEFT_FREE > available => {
            let what = format!("{bytes} bytes are too many: {available} bytes of memory are free");
            Err(io::Error::new(io::ErrorKind::OutOfMemory, what))
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks against the memory that is free now. Small sizes pass without a check.
///
/// # Errors
/// As [`check`].
pub fn check_now(bytes: u64) -> io::Result<()> {
    if bytes < LEFT_FREE / 4 {
        return Ok(());
    }
    check(bytes, available())
}

/// Memory that the kernel could give without swapping, in bytes; `None` without /proc.
#[must_use]
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_no_memory_is_too_much() {
        let free = 20 << 20;
        assert!(check(16 << 20, Some(free)).is_ok());
        let error = check((16 << 20) + 1, Some(free))
            .expect_err("too large")
            .to_string();
        assert_eq!(
            error,
            "16777217 bytes are too many: 20971520 bytes of memory are free"
        );
        assert!(check(u64::MAX >> 1, None).is_ok(), "where nothing is known");
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
        assert!(check_now(u64::MAX >> 1).is_err());
    }
}
