//! The shield: whom the XDP programs deny, and SYN cookies given by them: when, where, and what of the kernel has to be set for
//! them.
//!
//! ```text
//!  programs' counters ─► guard: do answers arrive? ─┐
//!            │                                      ├─► tcp_syncookies is 2 ─┬─► programs: answer
//!            └─► meter: does somebody flood? ───────┘   tcp_timestamps is 2 ─┴─► programs: with options
//! ```
//! Looked at once a second by the thread that looks after interfaces. Whatever is missing, the programs pass SYNs to the
//! kernel, which answers them as it always did: only that is the fall-back.

mod guard;
mod meter;
mod prefixes;
mod setting;

use std::path::PathBuf;

use log::{info, warn};
use xdnsd_abi::{Kept, Orders};
use xdnsd_core::time::Instant;

use super::retry::Retry;
use crate::config::{Shield as Section, SynCookiesWord};
use crate::os::sysctl;

pub use guard::{Decision, Guard, State, Wanted};
use meter::{Meter, Turn};
pub use prefixes::{Follower, Prefixes};
use setting::Setting;

/// A setting of the kernel that could not be had is tried again after this time, in milliseconds, and later each time.
const SETTING_MS: u64 = 60_000;
/// The longest of these pauses.
const SETTING_MAX_MS: u64 = 3_600_000;

/// What is common to all interfaces.
#[derive(Debug)]
pub struct Shield {
    prefixes: Prefixes,
    mode: SynCookiesWord,
    meter: Meter,
    cookies: Needed,
    verified_secs: u16,
    /// `None`: the config wants no options kept.
    timestamps: Option<Needed>,
    /// Cookies were given in the last round: those that are on their way back need the settings for a moment.
    was_given: bool,
}

/// A setting that somebody may refuse.
#[derive(Debug)]
struct Needed {
    setting: Setting,
    /// What follows, in the log.
    without: &'static str,
    retry: Retry,
    /// The last trouble that was logged.
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

    /// Whether the kernel's setting is what it has to be.
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

impl Shield {
    /// As the config wants it. What a process that was killed has left of it is put back.
    #[must_use]
    pub fn new(section: &Section, prefixes: Prefixes) -> Self {
        let place = sysctl::here();
        // Without a name for this boot nothing is believed of another one, and so nothing is written down.
        let memory = section.state_file.as_deref().filter(|_| place.is_ok());
        let place = place.unwrap_or_default();
        let beside = memory.map(|path| {
            let mut path = path.as_os_str().to_owned();
            path.push(".timestamps");
            PathBuf::from(path)
        });
        let memory = memory.map(PathBuf::from);
        let cookies = Setting::new("net.ipv4.tcp_syncookies", memory, place.clone());
        let timestamps = Setting::new("net.ipv4.tcp_timestamps", beside, place);
        Self {
            prefixes,
            mode: section.syn_cookies,
            verified_secs: section.verified_secs,
            meter: Meter::new(section.syn_threshold, section.calm_secs),
            cookies: Needed::new(cookies, "no SYN cookies, the kernel answers SYNs"),
            timestamps: section
                .tcp_options
                .then(|| Needed::new(timestamps, "SYN cookies keep an MSS and no other option")),
            was_given: false,
        }
    }

    /// Whom the programs deny.
    #[must_use]
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Whether programs are to see SYNs at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.mode != SynCookiesWord::Off
    }

    /// Looks once: `syns` have come to guarded ports since the last time. `can_give`: on an interface cookies can be given.
    /// Gives what each of those is told.
    pub fn look(&mut self, now: Instant, syns: u64, can_give: bool) -> Decision {
        let is_wanted = match self.mode {
            SynCookiesWord::Off => return Decision::default(),
            SynCookiesWord::Always => true,
            SynCookiesWord::Auto => self.measure(now, syns),
        };
        let state = match is_wanted {
            false => State::Calm,
            true if !can_give => State::NoWayOut,
            true if self.cookies.take(now) => State::Given,
            true => State::NoSetting,
        };
        let is_given = state == State::Given;
        let orders = match is_given {
            true => self.orders(now),
            false => Orders::REST,
        };
        let was_given = std::mem::replace(&mut self.was_given, is_given);
        if !is_given && !was_given {
            self.put_back();
        }
        Decision { state, orders }
    }

    /// The programs are gone: the kernel has its settings back.
    pub fn stop(&mut self) {
        self.was_given = false;
        self.put_back();
    }

    fn put_back(&mut self) {
        self.cookies.setting.put_back();
        if let Some(timestamps) = &mut self.timestamps {
            timestamps.setting.put_back();
        }
    }

    fn orders(&mut self, now: Instant) -> Orders {
        let orders = Orders::give(self.kept(now)).verified_for(self.verified_secs);
        // With it the kernel binds a connection to the device of its VRF, where no program finds it: its segments would be strays.
        let are_bound = sysctl::Setting::named("net.ipv4.tcp_l3mdev_accept").read();
        match are_bound {
            Ok(1..) => orders,
            Ok(0) | Err(_) => orders.without_strays(),
        }
    }

    /// Which options are kept. None without timestamps: they travel there. Where somebody wants none, the kernel's own cookies
    /// keep nothing either.
    fn kept(&mut self, now: Instant) -> Option<Kept> {
        let timestamps = self.timestamps.as_mut()?;
        if timestamps.setting.is_zero() {
            timestamps.setting.put_back();
            return None;
        }
        timestamps.take(now).then(sysctl::kept_options)
    }

    /// Whether somebody floods.
    fn measure(&mut self, now: Instant, syns: u64) -> bool {
        // A kernel that does not say has no connections: then every SYN counts.
        let accepted = sysctl::connections_accepted().unwrap_or(0);
        match self.meter.look(now, syns, accepted) {
            Some(Turn::Flood(rate)) => {
                info!("SYN cookies: on, {rate} SYNs a second that nobody completes");
            }
            Some(Turn::Calm) => info!("SYN cookies: off, it is calm again"),
            None => {}
        }
        self.meter.is_flood()
    }
}
