//! Waiting for a condition instead of sleeping for a guess.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two checks of the condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `predicate` holds. The error says `what` did not happen, and in which time.
///
/// The predicate is checked once more after the deadline: on a loaded machine a process may not have run in between.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut predicate: impl FnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let is_late = Instant::now() >= deadline;
        if predicate() {
            return Ok(());
        }
        if is_late {
            bail!("waited {timeout:?} in vain until {what}");
        }
        sleep(POLL_INTERVAL);
    }
}
