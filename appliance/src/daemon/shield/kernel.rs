//! The kernel's settings for SYN cookies: set while cookies are given, and restored when the last ones can have come back.
//!
//! ```text
//!  given: set ─► none is given any more ─► the last one has had its time ─► put back
//!                                   ▲                   │
//!                                   └── the end waits ──┘
//! ```
//! A cookie that comes back after the setting was restored opens no connection, or one with timestamps that the client takes
//! for old. So the thread for interfaces restores the settings later, and the end of the process waits for that.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::{info, warn};
use xdnsd_abi::RestoredOptions;
use xdnsd_core::time::Instant;

use super::setting::{self, Setting};
use crate::config::Shield as Section;
use crate::daemon::retry::Retry;
use crate::os::files::place::Obstacle;
use crate::os::{clock, sysctl};

/// Time that a cookie may take to come back, in milliseconds: a round trip of the slowest paths; or the ACK was lost, and comes
/// again with the client's first data.
const WAY_MS: u64 = 3_000;
/// First pause before a refused setting is tried again, in milliseconds.
const SETTING_MS: u64 = 60_000;
/// Longest pause, in milliseconds.
const SETTING_MAX_MS: u64 = 3_600_000;

/// The settings, shared by the thread that has cookies given and the one that ends the process.
#[derive(Clone, Debug)]
pub struct CookieSettings(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    cookies: Needed,
    /// `None` if the config wants no TCP options kept.
    timestamps: Option<Needed>,
    way: LastCookie,
}

/// File that keeps the previous value of the second setting.
fn beside(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".timestamps");
    PathBuf::from(path)
}

/// Obstacle to writing the kernel's original settings at `path`.
pub fn state_obstacle(path: &Path, tcp_options: bool) -> Option<Obstacle> {
    let timestamps = || setting::obstacle(&beside(path));
    setting::obstacle(path).or_else(|| tcp_options.then(timestamps)?)
}

impl CookieSettings {
    /// Settings from the config. Restores what a killed process has left.
    #[must_use]
    pub fn new(section: &Section) -> Self {
        let place = sysctl::here();
        // Without an identifier of this boot the file could be of another one, so none is written.
        let memory = section.state_file.as_deref().filter(|_| place.is_ok());
        let place = place.unwrap_or_default();
        let beside = memory.map(beside);
        let memory = memory.map(PathBuf::from);
        let cookies = Setting::new("net.ipv4.tcp_syncookies", memory, place.clone());
        let timestamps = Setting::new("net.ipv4.tcp_timestamps", beside, place);
        let state = State {
            cookies: Needed::new(cookies, "no SYN cookies, the kernel answers SYNs"),
            timestamps: section
                .tcp_options
                .then(|| Needed::new(timestamps, "SYN cookies keep an MSS and no other option")),
            way: LastCookie::default(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Locks even if a thread panicked while it held the lock: the state is valid at every moment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if cookies can be given: their setting has the right value.
    pub fn take(&self, now: Instant) -> bool {
        self.state().cookies.take(now)
    }

    /// TCP options that cookies keep. `None` without timestamps, which carry them. If somebody has set timestamps to 0, the
    /// kernel's own cookies keep none either.
    pub fn kept(&self, now: Instant) -> Option<RestoredOptions> {
        let mut state = self.state();
        let timestamps = state.timestamps.as_mut()?;
        if timestamps.setting.is_zero() {
            timestamps.setting.put_back();
            return None;
        }
        timestamps.take(now).then(sysctl::kept_options)
    }

    /// Notes that a cookie may have been given up to this moment.
    pub fn given(&self, now: Instant) {
        self.state().way.begin(now);
    }

    /// Restores the settings, unless a cookie is still on its way.
    pub fn rest(&self, now: Instant) {
        let mut state = self.state();
        if state.way.left_ms(now) == 0 {
            state.put_back();
        }
    }

    /// Restores the settings at the end of the process, when cookies are no longer given; waits for those on their way.
    pub fn stop(&self) {
        let left_ms = {
            let state = self.state();
            match state.is_taken() {
                true => state.way.left_ms(clock::now()),
                false => 0,
            }
        };
        if left_ms > 0 {
            info!(
                "SYN cookies may be on their way: the kernel's settings are put back in {:.1} s",
                left_ms as f64 / 1_000.0
            );
            thread::sleep(Duration::from_millis(left_ms));
        }
        self.state().put_back();
    }
}

impl State {
    fn put_back(&mut self) {
        self.cookies.setting.put_back();
        if let Some(timestamps) = &mut self.timestamps {
            timestamps.setting.put_back();
        }
    }

    /// True if there is anything to restore.
    fn is_taken(&self) -> bool {
        let timestamps = self.timestamps.iter();
        let mut all = timestamps.chain([&self.cookies]);
        all.any(|needed| needed.setting.is_taken())
    }
}

/// Time of the last cookie.
#[derive(Debug, Default)]
struct LastCookie {
    /// When the last one may have been given. `None` if none was, or its time is over.
    since: Option<Instant>,
}

impl LastCookie {
    fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Time left for it to come back, in milliseconds.
    fn left_ms(&self, now: Instant) -> u64 {
        let gone_ms = |since: Instant| now.millis().saturating_sub(since.millis());
        self.since
            .map_or(0, |since| WAY_MS.saturating_sub(gone_ms(since)))
    }
}

/// A setting that the kernel may refuse.
#[derive(Debug)]
struct Needed {
    setting: Setting,
    /// Consequence of a refusal, for the log.
    without: &'static str,
    retry: Retry,
    /// Last problem that was logged.
    trouble: String,
}

impl Needed {
    fn new(setting: Setting, without: &'static str) -> Self {
        Self {
            setting,
            without,
            retry: Retry::default(),
            trouble: String::new(),
        }
    }

    /// Sets it. True if the kernel's setting has the right value.
    fn take(&mut self, now: Instant) -> bool {
        if !self.retry.may_try(now) {
            return false;
        }
        match self.setting.take() {
            Ok(()) => {
                self.retry.succeed();
                self.trouble.clear();
                true
            }
            Err(problem) => {
                self.retry.fail(now, SETTING_MS, SETTING_MAX_MS);
                if self.trouble != problem {
                    warn!("{}: {problem}", self.without);
                    self.trouble = problem;
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_has_its_time_to_come_back_and_the_next_one_too() {
        let mut way = LastCookie::default();
        let start = Instant::from_millis(50_000);
        assert_eq!(way.left_ms(start), 0, "none was given");
        way.begin(start);
        for (after_ms, left_ms) in [(0, 3_000), (1, 2_999), (2_999, 1), (3_000, 0), (90_000, 0)] {
            assert_eq!(way.left_ms(start + after_ms), left_ms, "{after_ms}");
        }
        way.begin(start + 2_000);
        assert_eq!(way.left_ms(start + 4_999), 1);
        // A clock that stands still ends nothing.
        assert_eq!(way.left_ms(start), WAY_MS);
    }
}
