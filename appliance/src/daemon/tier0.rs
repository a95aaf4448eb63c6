//! Hot names answered by the XDP programs: the one program for it, and on each interface whether its answers leave.
//!
//! A frame that a program sends back may go nowhere: see `shield/guard.rs`. Where the driver says that none has left, user space
//! answers alone, and it is tried again later, since what is at the other end may change.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{info, warn};
use xdnsd_abi::Reason;
use xdnsd_abi::hot::Outcome;
use xdnsd_core::time::Instant;

use super::retry::Retry;
use super::shared::Shared;
use crate::compile::set::PolicySet;
use crate::config::Tier0Word;
use crate::os::ethtool::LostByXdpTx;
use crate::os::xdp::{Attached, Error, HotProgram, OBJECT, Program};
use crate::os::{clock, random};
use crate::store::HOT;
use crate::worker::PolicySource as _;

/// Answers that did not leave are tried again after this time, in milliseconds, and later each time.
const LOST_MS: u64 = 60_000;
/// The longest of these pauses.
const LOST_MAX_MS: u64 = 3_600_000;

/// Whether hot names of an interface are answered by its program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The config does not want it, or there is no XDP program.
    #[default]
    Off,
    /// They are.
    Answered,
    /// The kernel takes no such program.
    NoProgram,
    /// Nobody could tell whether answers leave: the device is none of its own, such as one end of a veth pair.
    Unproven,
    /// Answers do not leave.
    NoWayOut,
}

impl State {
    /// Why they are not, in a word. Empty: they are.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Answered => "",
            Self::NoProgram => "kernel",
            Self::Unproven => "device",
            Self::NoWayOut => "answers_lost",
        }
    }
}

/// The program, for all interfaces.
#[derive(Clone)]
pub struct Tier0 {
    wanted: Tier0Word,
    hot: Arc<Mutex<Hot>>,
}

/// It is loaded when the first interface needs it.
enum Hot {
    NotYet,
    Loaded(Box<HotProgram>),
    /// The kernel has refused it, and would again.
    Refused,
}

impl Tier0 {
    /// As the config wants it.
    #[must_use]
    pub fn new(wanted: Tier0Word) -> Self {
        Self {
            wanted,
            hot: Arc::new(Mutex::new(Hot::NotYet)),
        }
    }

    /// What became of queries that the program was asked about; `None`: there is no program.
    #[must_use]
    pub fn outcomes(&self) -> Option<[u64; Outcome::COUNT as usize]> {
        match &*self.hot() {
            Hot::Loaded(program) => program.outcomes().ok(),
            Hot::NotYet | Hot::Refused => None,
        }
    }

    /// Loads the program of an interface, which asks the one for hot names where there can be one.
    ///
    /// # Errors
    /// As [`Program::load`].
    pub fn load_program(&self) -> Result<Program, Error> {
        if self.wanted == Tier0Word::Off || !self.is_loaded() {
            return Program::load();
        }
        Program::load_for_hot(OBJECT).or_else(|error| {
            warn!("tier0: user space answers alone: {error}");
            *self.hot() = Hot::Refused;
            Program::load()
        })
    }

    /// Whether the program for hot names is there, which is loaded now if it was not tried before.
    fn is_loaded(&self) -> bool {
        let mut hot = self.hot();
        if let Hot::NotYet = *hot {
            *hot = match load() {
                Ok(program) => Hot::Loaded(Box::new(program)),
                Err(problem) => {
                    warn!("tier0: user space answers alone: {problem}");
                    Hot::Refused
                }
            };
        }
        matches!(*hot, Hot::Loaded(_))
    }

    /// Once a second: makes room.
    pub fn look(&self) {
        if self.wanted != Tier0Word::Off {
            HOT.sweep(clock::monotonic_ns());
        }
    }

    fn hot(&self) -> MutexGuard<'_, Hot> {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load() -> Result<HotProgram, String> {
    let (program, maps) = HotProgram::load().map_err(|error| error.to_string())?;
    let key = random::bytes().map_err(|error| format!("getrandom: {error}"))?;
    HOT.open(maps, u64::from_ne_bytes(key));
    Ok(program)
}

/// Has the program give what holds under this policy from now on, and nothing else.
pub fn show_policy(set: &PolicySet) {
    let policy = set.policy();
    HOT.set_policy(policy.generation, policy.reflector_ports);
}

/// Hot names on one interface.
#[derive(Default)]
pub struct Way {
    /// The program that is asked for hot names: it is there, whether its answers leave or not.
    tier0: Option<Tier0>,
    /// What was counted at the last look: answers, and frames that the driver lost.
    answered: u64,
    lost: u64,
    counters: LostByXdpTx,
    /// When answers that did not leave are tried again.
    retry: Retry,
    state: Shared<State>,
}

impl Way {
    /// The state, for others to read.
    #[must_use]
    pub fn state(&self) -> Shared<State> {
        self.state.clone()
    }

    /// A program was attached.
    pub fn begin(
        &mut self,
        interface: &str,
        tier0: &Tier0,
        program: &mut Program,
        attached: &Attached,
    ) {
        self.end();
        if tier0.wanted == Tier0Word::Off {
            return;
        }
        if !program.asks_for_hot() {
            return self.state.set(State::NoProgram);
        }
        let is_native = matches!(attached, Attached::Native);
        if tier0.wanted == Tier0Word::Auto && is_native && !is_of_its_own(interface) {
            info!(
                "{interface}: tier0: nothing says whether its answers would leave, user space answers alone"
            );
            return self.state.set(State::Unproven);
        }
        self.counters = LostByXdpTx::default();
        self.lost = self.read_lost(interface);
        self.tier0 = Some(tier0.clone());
        self.tell(true, program);
    }

    /// The program is gone, and its counters with it.
    pub fn end(&mut self) {
        self.tier0 = None;
        self.answered = 0;
        self.state.set(State::Off);
    }

    /// Looks whether answers leave: once a second.
    pub fn look(&mut self, now: Instant, interface: &str, program: &mut Program) {
        if self.tier0.is_none() {
            return;
        }
        if self.state.get() == State::NoWayOut {
            if self.retry.may_try(now) {
                self.lost = self.read_lost(interface);
                self.tell(true, program);
            }
            return;
        }
        let answered = program.counter(Reason::Answered).unwrap_or(0);
        let sent = answered.saturating_sub(std::mem::replace(&mut self.answered, answered));
        if sent == 0 {
            return;
        }
        let lost = self.read_lost(interface);
        let lost = lost.saturating_sub(std::mem::replace(&mut self.lost, lost));
        if self.judge(now, interface, [sent, lost]) {
            self.tell(false, program);
        }
    }

    /// Whether none of the answers that were sent has left.
    fn judge(&mut self, now: Instant, interface: &str, [sent, lost]: [u64; 2]) -> bool {
        if lost >= sent {
            self.retry.fail(now, LOST_MS, LOST_MAX_MS);
            warn!(
                "{interface}: tier0: answers do not leave: the driver lost {lost} of {sent} (a veth pair needs an XDP program at its \
                 other end); user space answers, and this is tried again later"
            );
            return true;
        }
        if self.retry != Retry::default() {
            self.retry.succeed();
            info!("{interface}: tier0: answers leave again");
        }
        false
    }

    /// What the driver lost so far of frames that a program sent; 0 where it does not say.
    fn read_lost(&mut self, interface: &str) -> u64 {
        self.counters.read(interface).unwrap_or(0)
    }

    fn tell(&mut self, is_asked: bool, program: &mut Program) {
        let Some(tier0) = &self.tier0 else { return };
        let told = match &mut *tier0.hot() {
            Hot::Loaded(hot) if is_asked => program.set_hot(Some(hot)),
            Hot::Loaded(_) | Hot::NotYet | Hot::Refused => program.set_hot(None),
        };
        self.state.set(match (told, is_asked) {
            (Ok(()), true) => State::Answered,
            (Ok(()), false) => State::NoWayOut,
            (Err(_), _) => State::NoProgram,
        });
    }
}

/// Whether the device stands for hardware, or for what a hypervisor shows as hardware.
fn is_of_its_own(interface: &str) -> bool {
    Path::new(&format!("/sys/class/net/{interface}/device")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_lost_where_none_has_left() {
        let mut way = Way::default();
        let now = Instant::from_millis(1_000_000);
        assert!(!way.judge(now, "lan0", [5, 4]), "one has left");
        assert!(way.judge(now, "lan0", [5, 5]));
        assert!(!way.retry.may_try(now + (LOST_MS - 1)));
        assert!(way.retry.may_try(now + LOST_MS));
        assert!(
            way.judge(now + LOST_MS, "lan0", [1, 9]),
            "the driver lost others' as well"
        );
        assert!(
            !way.retry.may_try(now + 2 * LOST_MS),
            "later than the first time"
        );
        assert!(!way.judge(now + 10 * LOST_MS, "lan0", [5, 0]));
        assert!(way.retry == Retry::default());
    }
}
