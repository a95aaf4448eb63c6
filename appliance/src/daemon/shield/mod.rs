//! The shield: prefixes that the XDP programs deny, and SYN cookies: when and where programs give them, and which settings of
//! the kernel they need.
//!
//! ```text
//!  programs' counters ─► guard: do answers arrive? ─┐
//!            │                                      ├─► tcp_syncookies is 2 ─┬─► programs: answer
//!            └─► meter: does somebody flood? ───────┘   tcp_timestamps is 2 ─┴─► programs: with options
//! ```
//! Runs once a second on the thread for interfaces. If anything is missing, the programs pass SYNs to the kernel, which answers
//! them as usual.

mod events;
mod guard;
mod kernel;
mod meter;
mod prefixes;
mod setting;

use log::info;
use xdnsd_abi::Orders;
use xdnsd_core::time::Instant;

use crate::config::{Shield as Section, SynCookiesWord};
use crate::os::sysctl;

pub use events::Events;
pub use guard::{CookieDecision, CookieState, Guard, Protection, ShieldSettings, SynCounts};
pub use kernel::{CookieSettings, state_obstacle};
use meter::{FloodEdge, Meter};
pub use prefixes::{Follower, Prefixes};

/// State that all interfaces share.
#[derive(Debug)]
pub struct Shield {
    prefixes: Prefixes,
    mode: SynCookiesWord,
    meter: Meter,
    verified_secs: u16,
    kernel: CookieSettings,
    /// True if cookies were given in the last round.
    was_given: bool,
}

impl Shield {
    /// Shield by the config. Restores settings that a killed process has left.
    #[must_use]
    pub fn new(section: &Section, prefixes: Prefixes) -> Self {
        Self {
            prefixes,
            mode: section.syn_cookies,
            verified_secs: section.verified_secs,
            meter: Meter::new(section.syn_threshold, section.calm_secs),
            kernel: CookieSettings::new(section),
            was_given: false,
        }
    }

    /// Settings of the kernel, for the end of the process.
    #[must_use]
    pub fn kernel(&self) -> CookieSettings {
        self.kernel.clone()
    }

    /// Prefixes that the programs deny.
    #[must_use]
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// True if programs are to see SYNs at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.mode != SynCookiesWord::Off
    }

    /// Decides once for all interfaces. `seen` has come to guarded ports since the last look; `can_give` is true if cookies can
    /// be given on any interface.
    pub fn look(&mut self, now: Instant, seen: SynCounts, can_give: bool) -> CookieDecision {
        self.saw(now, seen);
        let is_wanted = match self.mode {
            SynCookiesWord::Off => return CookieDecision::default(),
            SynCookiesWord::Always => true,
            SynCookiesWord::Auto => self.measure(now, seen.syns),
        };
        let state = match is_wanted {
            false => CookieState::Calm,
            true if !can_give => CookieState::NoWayOut,
            true if self.kernel.take(now) => CookieState::Given,
            true => CookieState::NoSetting,
        };
        let is_given = state == CookieState::Given;
        let orders = match is_given {
            true => self.orders(now),
            false => Orders::REST,
        };
        // The programs are told after this, and may have given one up to now.
        if std::mem::replace(&mut self.was_given, is_given) && !is_given {
            self.kernel.given(now);
        }
        if !is_given {
            self.kernel.rest(now);
        }
        CookieDecision { state, orders }
    }

    /// Notes that cookies given since the last look may be on their way.
    pub fn saw(&self, now: Instant, seen: SynCounts) {
        if seen.cookies > 0 {
            self.kernel.given(now);
        }
    }

    fn orders(&self, now: Instant) -> Orders {
        let orders = Orders::give(self.kernel.kept(now)).verified_for(self.verified_secs);
        // With this setting the kernel binds a connection to the device of its VRF, where the program does not find it: its
        // segments would be strays.
        let are_bound = sysctl::Sysctl::named("net.ipv4.tcp_l3mdev_accept").read();
        match are_bound {
            Ok(1..) => orders,
            Ok(0) | Err(_) => orders.without_strays(),
        }
    }

    /// True in a flood.
    fn measure(&mut self, now: Instant, syns: u64) -> bool {
        // Without this counter every SYN counts as uncompleted.
        let accepted = sysctl::connections_accepted().unwrap_or(0);
        match self.meter.look(now, syns, accepted) {
            Some(FloodEdge::Flood(rate)) => {
                info!("SYN cookies: on, {rate} uncompleted SYNs a second");
            }
            Some(FloodEdge::Calm) => info!("SYN cookies: off, it is calm again"),
            None => {}
        }
        self.meter.is_flood()
    }
}
