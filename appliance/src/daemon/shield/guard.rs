//! The shield on one interface: orders to its program, and whether it may give SYN cookies.

use log::info;
use xdnsd_abi::{Orders, Reason, protect};
use xdnsd_core::time::Instant;

use super::Prefixes;
use super::meter::{FloodEdge, Meter};
use crate::config::{Shield as Section, SynCookiesWord};
use crate::daemon::shared::SharedState;
use crate::daemon::way_out::WayOutState;
use crate::os::xdp::{Error, Program};

/// Lifetime of the key for cookies of hosts behind this one, in milliseconds. A client has this time to return a cookie, and at
/// most twice as long.
const KEY_MS: u64 = 60_000;

/// Reasons by which the program counts valid SYNs to our guarded ports.
const SYNS: [Reason; 5] = [
    Reason::SynCookie,
    Reason::PassSyn,
    Reason::PassNoCookie,
    Reason::PassNoRoom,
    Reason::PassVerified,
];

/// What becomes of SYNs to guarded ports of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookieState {
    /// The config wants no cookies, or there is no program.
    #[default]
    Off,
    /// They are answered with cookies.
    Given,
    /// There is no flood.
    Calm,
    /// Answers do not arrive.
    NoWayOut,
    /// The kernel's setting lacks the value that cookies need.
    NoSetting,
    /// The kernel refuses the program.
    NoProgram,
}

impl CookieState {
    /// Why no cookies are given, in a word. Empty if they are.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Given => "",
            Self::Calm => "calm",
            Self::NoWayOut => "answers_lost",
            Self::NoSetting => "sysctl",
            Self::NoProgram => "kernel",
        }
    }
}

/// State of the shield for hosts behind an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// No XDP program is attached there.
    #[default]
    NoProgram,
    /// It is in force.
    InForce,
    /// There is no flood: hosts that are protected only in a flood are not; others are.
    Calm,
    /// Answers do not arrive.
    NoWayOut,
    /// The kernel refuses the program.
    Refused,
}

impl Protection {
    /// Why it is not in force, in a word. Empty if it is. `is_auto`: some hosts are protected only in a flood.
    #[must_use]
    pub const fn reason(self, is_auto: bool) -> &'static str {
        match self {
            Self::NoProgram => "no_program",
            Self::Calm if is_auto => "calm",
            Self::InForce | Self::Calm => "",
            Self::NoWayOut => "answers_lost",
            Self::Refused => "kernel",
        }
    }
}

/// Decision about cookies, for all interfaces.
#[derive(Clone, Copy, Debug, Default)]
pub struct CookieDecision {
    /// State of SYN cookies.
    pub state: CookieState,
    /// Orders to the programs.
    pub orders: Orders,
}

/// Counts at guarded ports since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct SynCounts {
    /// SYNs.
    pub syns: u64,
    /// SYNs that were answered with a kernel cookie.
    pub cookies: u64,
}

impl std::ops::AddAssign for SynCounts {
    fn add_assign(&mut self, more: Self) {
        self.syns += more.syns;
        self.cookies += more.cookies;
    }
}

/// What a program is to do for the shield.
#[derive(Debug)]
pub struct ShieldSettings<'a> {
    /// It sees SYNs.
    syn_cookies: bool,
    /// It drops frames that can only be an attack.
    drop_garbage: bool,
    /// Prefixes that it denies.
    prefixes: &'a Prefixes,
    /// It protects hosts behind this one.
    protect: bool,
    /// It protects some of them only in a flood.
    is_auto: bool,
    section: &'a Section,
}

impl<'a> ShieldSettings<'a> {
    /// Settings from the config. Garbage is not dropped on the loopback device: all its packets come from our own addresses.
    #[must_use]
    pub fn of(section: &'a Section, prefixes: &'a Prefixes, is_loopback: bool) -> Self {
        Self {
            syn_cookies: section.syn_cookies != SynCookiesWord::Off,
            drop_garbage: section.drop_garbage && !is_loopback,
            prefixes,
            protect: false,
            is_auto: false,
            section,
        }
    }

    /// True if it protects hosts behind this one.
    #[must_use]
    pub fn protects(&self) -> bool {
        self.protect
    }

    /// True if the program may be told to answer something.
    #[must_use]
    pub fn may_answer(&self) -> bool {
        self.syn_cookies || self.protect
    }

    /// The same settings with other protection of hosts behind this one.
    #[must_use]
    pub fn protecting(self, protect: bool, is_auto: bool) -> Self {
        Self {
            protect,
            is_auto,
            ..self
        }
    }
}

/// The shield on one interface.
#[derive(Debug, Default)]
pub struct Guard {
    /// True if the program sees SYNs.
    has_program: bool,
    /// True if the program protects hosts behind this one.
    has_protection: bool,
    /// Mode of protection that the program was told, of [`xdnsd_abi::protect`].
    protecting: u32,
    /// Detects floods of hosts behind this one.
    meter: Option<Meter>,
    /// When the key of its cookies was changed.
    key_changed: Option<Instant>,
    /// Orders that the program was told.
    orders: Orders,
    /// Counters at the last look.
    counted: SynCounts,
    /// SYNs to hosts behind this one, at the last look.
    forwarded: u64,
    /// Whether answers leave.
    way_out: WayOutState,
    state: SharedState<CookieState>,
    protection: SharedState<Protection>,
}

impl Guard {
    /// State of SYN cookies, for other threads.
    #[must_use]
    pub fn state(&self) -> SharedState<CookieState> {
        self.state.clone()
    }

    /// State of the protection of hosts behind the interface, for other threads.
    #[must_use]
    pub fn protection(&self) -> SharedState<Protection> {
        self.protection.clone()
    }

    /// Sets up a program that was just attached. `Err`: part of it is not available, and the program passes those frames.
    pub fn begin(
        &mut self,
        program: &mut Program,
        wanted: &ShieldSettings<'_>,
    ) -> Result<(), String> {
        self.end();
        let told = program.set_drop_garbage(wanted.drop_garbage);
        told.map_err(|error| error.to_string())?;
        wanted.prefixes.begin(program)?;
        if wanted.protect {
            if let Err(error) = program.protect() {
                self.protection.set(Protection::Refused);
                return Err(format!(
                    "hosts behind it are not protected, all to them passes: {error}"
                ));
            }
            self.has_protection = true;
            let Section {
                syn_threshold,
                calm_secs,
                ..
            } = *wanted.section;
            self.meter = wanted.is_auto.then(|| Meter::new(syn_threshold, calm_secs));
        }
        if !wanted.syn_cookies {
            return Ok(());
        }
        match program.guard() {
            Ok(()) => {
                self.has_program = true;
                Ok(())
            }
            Err(error) => {
                self.state.set(CookieState::NoProgram);
                Err(format!("no SYN cookies: {error}"))
            }
        }
    }

    /// The program was detached; its counters are gone.
    pub fn end(&mut self) {
        self.has_program = false;
        self.has_protection = false;
        self.protecting = protect::OFF;
        self.meter = None;
        self.key_changed = None;
        self.orders = Orders::REST;
        self.counted = SynCounts::default();
        self.forwarded = 0;
        self.state.set(CookieState::Off);
        self.protection.set(Protection::NoProgram);
    }

    /// Sets whether answers leave.
    pub fn set_way_out(&mut self, state: WayOutState) {
        self.way_out = state;
    }

    /// Counts since the last look.
    pub fn look(&mut self, program: &Program) -> SynCounts {
        if !self.has_program {
            return SynCounts::default();
        }
        let count = |reason| program.counter(reason).unwrap_or(0);
        let now = SynCounts {
            syns: SYNS.into_iter().map(count).sum(),
            cookies: count(Reason::SynCookie),
        };
        let before = std::mem::replace(&mut self.counted, now);
        SynCounts {
            syns: now.syns.saturating_sub(before.syns),
            cookies: now.cookies.saturating_sub(before.cookies),
        }
    }

    /// Switches the protection of hosts by flood and way out, and changes the key when it is old.
    fn protect(&mut self, now: Instant, program: &mut Program) -> Result<(), Error> {
        if !self.has_protection {
            return Ok(());
        }
        if self.is_key_old(now) {
            self.change_key(now, program)?;
        }
        let is_flooded = self.measure(now, program);
        let (protecting, state) = match (self.way_out, is_flooded) {
            (WayOutState::Closed, _) => (protect::OFF, Protection::NoWayOut),
            (_, false) => (protect::CALM, Protection::Calm),
            (_, true) => (protect::FLOOD, Protection::InForce),
        };
        if protecting != self.protecting {
            program.set_protecting(protecting)?;
            self.protecting = protecting;
        }
        self.protection.set(state);
        Ok(())
    }

    /// True in a flood of hosts behind this one: SYNs without an answer while it is calm, or with a cookie that is not
    /// returned.
    fn measure(&mut self, now: Instant, program: &Program) -> bool {
        let Some(meter) = &mut self.meter else {
            return false;
        };
        let count = |reason| program.counter(reason).unwrap_or(0);
        let syns = count(Reason::ForwardCalm) + count(Reason::ForwardCookie);
        let more = syns.saturating_sub(std::mem::replace(&mut self.forwarded, syns));
        match meter.look(now, more, count(Reason::ForwardProof)) {
            Some(FloodEdge::Flood(rate)) => {
                info!("protect: {rate} uncompleted SYNs a second, clients are asked")
            }
            Some(FloodEdge::Calm) => info!("protect: it is calm again, clients are not asked"),
            None => {}
        }
        meter.is_flood()
    }

    /// Changes the key for cookies of hosts behind this one; cookies by the previous key stay valid for their full time.
    ///
    /// # Errors
    /// There is no randomness, or the map refuses.
    pub fn change_key(&mut self, now: Instant, program: &mut Program) -> Result<(), Error> {
        if !self.has_protection {
            return Ok(());
        }
        program.change_cookie_key()?;
        self.key_changed = Some(now);
        Ok(())
    }

    fn is_key_old(&self, now: Instant) -> bool {
        let is_old = |changed: Instant| now.millis().saturating_sub(changed.millis()) >= KEY_MS;
        self.key_changed.is_none_or(is_old)
    }

    /// True if cookies could be given on this interface.
    #[must_use]
    pub fn can_give(&self) -> bool {
        self.has_program && self.way_out != WayOutState::Closed
    }

    /// Tells the program what to do with SYNs from here on.
    ///
    /// # Errors
    /// The program could not be told: a sentence.
    pub fn tell(
        &mut self,
        now: Instant,
        decision: CookieDecision,
        program: &mut Program,
    ) -> Result<(), String> {
        self.protect(now, program)
            .map_err(|error| error.to_string())?;
        if !self.has_program {
            return Ok(());
        }
        let is_lost = decision.state == CookieState::Given && !self.can_give();
        let (state, orders) = match is_lost {
            true => (CookieState::NoWayOut, Orders::REST),
            false => (decision.state, decision.orders),
        };
        self.state.set(state);
        if orders != self.orders {
            let told = program.set_syn_cookies(orders);
            told.map_err(|error| error.to_string())?;
            self.orders = orders;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_old_after_its_time() {
        let mut guard = Guard::default();
        let at = Instant::from_millis;
        assert!(guard.is_key_old(at(1_000)), "there was none");
        guard.key_changed = Some(at(1_000));
        assert!(!guard.is_key_old(at(60_999)));
        assert!(guard.is_key_old(at(61_000)));
        guard.end();
        assert!(guard.is_key_old(at(1_001)), "the next program has none");
    }

    #[test]
    fn cookies_are_given_where_they_may_leave() {
        let mut guard = Guard::default();
        assert!(!guard.can_give(), "nobody would");
        guard.has_program = true;
        for (state, wanted) in [
            (WayOutState::Open, true),
            (WayOutState::Closed, false),
            (WayOutState::Hidden, true),
        ] {
            guard.set_way_out(state);
            assert_eq!(guard.can_give(), wanted, "{state:?}");
        }
    }
}
