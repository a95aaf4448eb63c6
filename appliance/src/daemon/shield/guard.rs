//! The shield on one interface: what its program is told; the one that gives SYN cookies, and whether its answers arrive.
//!
//! A frame that a program sends back may go nowhere without anybody saying so: at the other end of a veth pair there has to be
//! an XDP program as well, and a zero-copy queue has no room for it. Where the driver counts what it lost, that is looked at.

use log::{info, warn};
use xdnsd_abi::{Orders, Reason};
use xdnsd_core::time::Instant;

use super::Prefixes;
use crate::config::{Shield as Section, SynCookiesWord};
use crate::daemon::retry::Retry;
use crate::daemon::shared::Shared;
use crate::os::ethtool;
use crate::os::xdp::{Error, Program};

/// Answers that did not arrive are tried again after this time, in milliseconds, and later each time.
const LOST_MS: u64 = 60_000;
/// The longest of these pauses.
const LOST_MAX_MS: u64 = 3_600_000;

/// The key of cookies for hosts behind this one is changed after this time, in milliseconds: a client has that long to bring one
/// back, and at most twice as long.
const KEY_MS: u64 = 60_000;

/// What is sent back by a program of the shield.
const ANSWERS: [Reason; 3] = [
    Reason::SynCookie,
    Reason::ForwardCookie,
    Reason::ForwardProof,
];

/// A SYN to a guarded port of ours, whole and sound: what the program counts such a one by.
const SYNS: [Reason; 5] = [
    Reason::SynCookie,
    Reason::PassSyn,
    Reason::PassNoCookie,
    Reason::PassNoRoom,
    Reason::PassVerified,
];

/// What becomes of SYNs to guarded ports of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The config wants no cookies, or there is no program.
    #[default]
    Off,
    /// They are answered with cookies.
    Given,
    /// Nobody floods.
    Calm,
    /// Answers do not arrive.
    NoWayOut,
    /// The kernel's setting is not what it has to be.
    NoSetting,
    /// The kernel takes no program for it.
    NoProgram,
}

impl State {
    /// Why none are given, in a word. Empty: they are.
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

/// Whether the shield stands in front of hosts behind an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// No XDP program is attached there.
    #[default]
    NoProgram,
    /// It does.
    InForce,
    /// Answers do not arrive.
    NoWayOut,
    /// The kernel takes no program for it.
    Refused,
}

impl Protection {
    /// Why it does not, in a word. Empty: it does.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoProgram => "no_program",
            Self::InForce => "",
            Self::NoWayOut => "answers_lost",
            Self::Refused => "kernel",
        }
    }
}

/// What interfaces are told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decision {
    /// In a word.
    pub state: State,
    /// To the programs.
    pub orders: Orders,
}

/// What has come to guarded ports since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// SYNs.
    pub syns: u64,
    /// Those that were answered with a cookie of the kernel's.
    pub cookies: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Self) {
        self.syns += more.syns;
        self.cookies += more.cookies;
    }
}

/// What was counted at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    syns: u64,
    /// Answers to them.
    kernels: u64,
    /// All that was sent.
    cookies: u64,
    /// Frames that the driver lost, of those that the program sent.
    lost: u64,
}

/// What a program is to do for the shield.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// It sees SYNs.
    syn_cookies: bool,
    /// It drops what can only be an attack.
    drop_garbage: bool,
    /// It drops what these deny.
    prefixes: &'a Prefixes,
    /// It stands in front of hosts behind this one.
    protect: bool,
}

impl<'a> Wanted<'a> {
    /// As the config has it. On the loopback device everything comes from an address of ours.
    #[must_use]
    pub fn of(section: &Section, prefixes: &'a Prefixes, is_loopback: bool) -> Self {
        Self {
            syn_cookies: section.syn_cookies != SynCookiesWord::Off,
            drop_garbage: section.drop_garbage && !is_loopback,
            prefixes,
            protect: false,
        }
    }

    /// Whether it stands in front of hosts behind this one.
    #[must_use]
    pub fn protects(&self) -> bool {
        self.protect
    }

    /// The same, in front of hosts behind this one or not.
    #[must_use]
    pub fn protecting(self, protect: bool) -> Self {
        Self { protect, ..self }
    }
}

/// The shield on one interface.
#[derive(Debug, Default)]
pub struct Guard {
    /// The program sees SYNs.
    has_program: bool,
    /// The program stands in front of hosts behind this one.
    has_protection: bool,
    /// It answers SYNs to them.
    is_protecting: bool,
    /// When the key of its cookies was changed.
    key_changed: Option<Instant>,
    /// What the program was told.
    orders: Orders,
    counted: Counted,
    /// Where the driver says what it lost.
    lost: ethtool::LostByXdpTx,
    /// When answers that did not arrive are tried again.
    retry: Retry,
    state: Shared<State>,
    protection: Shared<Protection>,
}

impl Guard {
    /// The state, for others to read.
    #[must_use]
    pub fn state(&self) -> Shared<State> {
        self.state.clone()
    }

    /// What becomes of segments to hosts behind the interface, for others to read.
    #[must_use]
    pub fn protection(&self) -> Shared<Protection> {
        self.protection.clone()
    }

    /// A program was attached. `Err`: it cannot do all that is wanted, and what it cannot passes.
    pub fn begin(
        &mut self,
        interface: &str,
        program: &mut Program,
        wanted: &Wanted<'_>,
    ) -> Result<(), String> {
        self.end();
        let told = program.set_drop_garbage(wanted.drop_garbage);
        told.map_err(|error| error.to_string())?;
        wanted.prefixes.begin(program)?;
        if !wanted.syn_cookies && !wanted.protect {
            return Ok(());
        }
        self.lost = ethtool::LostByXdpTx::default();
        self.counted.lost = self.lost(interface);
        if wanted.protect {
            if let Err(error) = program.protect() {
                self.protection.set(Protection::Refused);
                return Err(format!(
                    "hosts behind it are not protected, all to them passes: {error}"
                ));
            }
            self.has_protection = true;
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
                self.state.set(State::NoProgram);
                Err(format!("no SYN cookies: {error}"))
            }
        }
    }

    /// The program is gone, and its counters with it.
    pub fn end(&mut self) {
        self.has_program = false;
        self.has_protection = false;
        self.is_protecting = false;
        self.key_changed = None;
        self.orders = Orders::REST;
        self.counted = Counted::default();
        self.state.set(State::Off);
        self.protection.set(Protection::NoProgram);
    }

    /// What has come since the last look. Looks whether answers arrive, too.
    pub fn look(&mut self, now: Instant, interface: &str, program: &Program) -> Seen {
        if !self.has_program && !self.has_protection {
            return Seen::default();
        }
        let count = |reason| program.counter(reason).unwrap_or(0);
        let before = self.counted;
        self.counted.cookies = ANSWERS.into_iter().map(count).sum();
        self.counted.syns = SYNS.into_iter().map(count).sum();
        self.counted.kernels = count(Reason::SynCookie);
        if self.orders.are_given() || self.is_protecting {
            self.counted.lost = self.lost(interface);
            self.judge(now, interface, before);
        }
        Seen {
            syns: self.counted.syns.saturating_sub(before.syns),
            cookies: self.counted.kernels.saturating_sub(before.kernels),
        }
    }

    /// Has SYNs to protected hosts answered as long as answers arrive, by a key that changes.
    fn protect(&mut self, now: Instant, program: &mut Program) -> Result<(), Error> {
        if !self.has_protection {
            return Ok(());
        }
        if self.is_key_old(now) {
            self.change_key(now, program)?;
        }
        let is_protecting = self.retry.may_try(now);
        if is_protecting != self.is_protecting {
            program.set_protecting(is_protecting)?;
            self.is_protecting = is_protecting;
        }
        self.protection.set(match is_protecting {
            true => Protection::InForce,
            false => Protection::NoWayOut,
        });
        Ok(())
    }

    /// Cookies for hosts behind this one are made by another key from here on; those by the one before are good as long as ever.
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

    /// What the driver lost so far of frames that a program sent; 0 where it does not say.
    fn lost(&mut self, interface: &str) -> u64 {
        self.lost.read(interface).unwrap_or(0)
    }

    /// Answers were sent and not one of them arrived.
    fn judge(&mut self, now: Instant, interface: &str, before: Counted) {
        let sent = self.counted.cookies.saturating_sub(before.cookies);
        let lost = self.counted.lost.saturating_sub(before.lost);
        if sent > 0 && lost >= sent {
            self.retry.fail(now, LOST_MS, LOST_MAX_MS);
            warn!(
                "{interface}: answers to SYNs do not leave: the driver lost {lost} of {sent} (a veth pair needs an XDP program \
                 at its other end); the kernel answers SYNs, and this is tried again later"
            );
        } else if sent > 0 && self.retry != Retry::default() {
            self.retry.succeed();
            info!("{interface}: answers to SYNs leave again");
        }
    }

    /// Whether cookies could be given here.
    #[must_use]
    pub fn can_give(&self, now: Instant) -> bool {
        self.has_program && self.retry.may_try(now)
    }

    /// Tells the program what becomes of SYNs from here on.
    ///
    /// # Errors
    /// It could not be told: a sentence.
    pub fn tell(
        &mut self,
        now: Instant,
        decision: Decision,
        program: &mut Program,
    ) -> Result<(), String> {
        self.protect(now, program)
            .map_err(|error| error.to_string())?;
        if !self.has_program {
            return Ok(());
        }
        let is_lost = decision.state == State::Given && !self.can_give(now);
        let (state, orders) = match is_lost {
            true => (State::NoWayOut, Orders::REST),
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

    fn guard() -> Guard {
        Guard {
            has_program: true,
            orders: Orders::give(None),
            ..Guard::default()
        }
    }

    #[test]
    fn a_key_is_old_after_its_time() {
        let mut guard = guard();
        let at = Instant::from_millis;
        assert!(guard.is_key_old(at(1_000)), "there was none");
        guard.key_changed = Some(at(1_000));
        assert!(!guard.is_key_old(at(60_999)));
        assert!(guard.is_key_old(at(61_000)));
        guard.end();
        assert!(guard.is_key_old(at(1_001)), "the next program has none");
    }

    fn counted(cookies: u64, lost: u64) -> Counted {
        Counted {
            cookies,
            lost,
            ..Counted::default()
        }
    }

    #[test]
    fn answers_of_which_none_arrive_stop_for_a_while_and_some_that_arrive_do_not() {
        let now = Instant::from_millis(1_000);
        let mut guard = guard();
        for (before, after, can_give) in [
            (counted(5, 2), counted(5, 9), true),
            (counted(5, 2), counted(9, 5), true),
            (counted(5, 2), counted(9, 6), false),
            (counted(0, 0), counted(1, 4), false),
        ] {
            guard.retry = Retry::default();
            guard.counted = after;
            guard.judge(now, "lan0", before);
            assert_eq!(guard.can_give(now), can_give, "{before:?} {after:?}");
            assert!(guard.can_give(now + LOST_MS), "tried again");
        }
        guard.counted = counted(9, 4);
        guard.judge(now + LOST_MS, "lan0", counted(7, 4));
        assert_eq!(guard.retry, Retry::default(), "they arrive");
    }
}
