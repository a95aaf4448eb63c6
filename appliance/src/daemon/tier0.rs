//! Hot names answered by the XDP programs: the one program for them, and for each interface whether it is called.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::warn;
use xdnsd_abi::hot::HotOutcome;

use super::shared::SharedState;
use super::way_out::WayOutState;
use crate::compile::set::PolicySet;
use crate::config::Tier0Word;
use crate::os::xdp::{Error, HotProgram, OBJECT, Program};
use crate::os::{clock, random};
use crate::store::HOT;
use crate::worker::PolicySource as _;

/// Whether hot names of an interface are answered by its program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier0State {
    /// The config does not want it, or there is no XDP program.
    #[default]
    Off,
    /// They are answered.
    Answered,
    /// The kernel refuses such a program.
    NoProgram,
    /// Whether answers leave is unknown: the other end of this veth pair cannot be asked.
    Unproven,
    /// Answers do not leave.
    NoWayOut,
}

impl Tier0State {
    /// Why they are not answered, in a word. Empty if they are.
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

/// The program for hot names, shared by all interfaces.
#[derive(Clone)]
pub struct Tier0 {
    wanted: Tier0Word,
    /// Room for addresses of each interface's program.
    addresses: u32,
    hot: Arc<Mutex<Hot>>,
}

/// The program, loaded when the first interface needs it.
enum Hot {
    NotYet,
    Loaded(Box<HotProgram>),
    /// The kernel has refused it, and would again.
    Refused,
}

impl Tier0 {
    /// Settings from the config: `cache.tier0` and `memory.addresses`.
    #[must_use]
    pub fn new(wanted: Tier0Word, addresses: u16) -> Self {
        Self {
            wanted,
            addresses: addresses.into(),
            hot: Arc::new(Mutex::new(Hot::NotYet)),
        }
    }

    /// True if the config wants it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted != Tier0Word::Off
    }

    /// Outcomes of queries that the program was asked about; `None` if it is not loaded.
    #[must_use]
    pub fn outcomes(&self) -> Option<[u64; HotOutcome::COUNT as usize]> {
        match &*self.hot() {
            Hot::Loaded(program) => program.outcomes().ok(),
            Hot::NotYet | Hot::Refused => None,
        }
    }

    /// Loads the program of an interface, which calls the one for hot names if it is available.
    ///
    /// # Errors
    /// As [`Program::load`].
    pub fn load_program(&self) -> Result<Program, Error> {
        if !self.is_wanted() || !self.is_loaded() {
            return Program::load(self.addresses);
        }
        Program::load_for_hot(OBJECT, self.addresses).or_else(|error| {
            warn!("tier0: user space answers alone: {error}");
            *self.hot() = Hot::Refused;
            Program::load(self.addresses)
        })
    }

    /// True if the program for hot names is loaded; loads it at the first call.
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
        if self.is_wanted() {
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

/// Limits the program to answers of this policy.
pub fn show_policy(set: &PolicySet) {
    let policy = set.policy();
    // The program knows clients by their address and answers none that are in a view. It ignores the device that a query came
    // in by: if a view depends on that, user space answers alone.
    let generation = if set.has_views_by_device() {
        0
    } else {
        policy.generation
    };
    HOT.set_policy(generation, policy.reflector_ports);
}

/// Hot names on one interface.
#[derive(Default)]
pub struct InterfaceTier0 {
    /// `Some` if the interface's program can call the one for hot names, whether its answers leave or not.
    tier0: Option<Tier0>,
    state: SharedState<Tier0State>,
}

impl InterfaceTier0 {
    /// State, for other threads.
    #[must_use]
    pub fn state(&self) -> SharedState<Tier0State> {
        self.state.clone()
    }

    /// Sets up a program that was just attached.
    pub fn begin(&mut self, tier0: &Tier0, program: &Program) {
        self.end();
        if !tier0.is_wanted() {
            return;
        }
        if !program.asks_for_hot() {
            return self.be(Tier0State::NoProgram);
        }
        self.tier0 = Some(tier0.clone());
    }

    /// The program was detached.
    pub fn end(&mut self) {
        self.tier0 = None;
        self.be(Tier0State::Off);
    }

    /// Switches the calls on or off, by what is known of the way out.
    pub fn look(&mut self, way_out: WayOutState, program: &mut Program) {
        let Some(tier0) = &self.tier0 else { return };
        let wanted = tier0.state(way_out);
        if self.state.get() == wanted {
            return;
        }
        let told = match &mut *tier0.hot() {
            Hot::Loaded(hot) if wanted == Tier0State::Answered => program.set_hot(Some(hot)),
            Hot::Loaded(_) | Hot::NotYet | Hot::Refused => program.set_hot(None),
        };
        self.be(told.map_or(Tier0State::NoProgram, |()| wanted));
    }

    fn be(&self, state: Tier0State) {
        match [self.state.get(), state].map(|state| state == Tier0State::Answered) {
            [false, true] => HOT.begin_asking(),
            [true, false] => HOT.end_asking(),
            [false, false] | [true, true] => {}
        }
        self.state.set(state);
    }
}

impl Drop for InterfaceTier0 {
    fn drop(&mut self) {
        self.end();
    }
}

impl Tier0 {
    /// State for this knowledge of the way out.
    fn state(&self, way_out: WayOutState) -> Tier0State {
        match (way_out, self.wanted) {
            (_, Tier0Word::Off) => Tier0State::Off,
            (WayOutState::Open, Tier0Word::On | Tier0Word::Auto)
            | (WayOutState::Hidden, Tier0Word::On) => Tier0State::Answered,
            (WayOutState::Hidden, Tier0Word::Auto) => Tier0State::Unproven,
            (WayOutState::Closed, Tier0Word::On | Tier0Word::Auto) => Tier0State::NoWayOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_tell_is_tried_where_the_config_insists() {
        for (word, [open, hidden, closed]) in [
            (Tier0Word::Off, ["off", "off", "off"]),
            (Tier0Word::Auto, ["", "device", "answers_lost"]),
            (Tier0Word::On, ["", "", "answers_lost"]),
        ] {
            let tier0 = Tier0::new(word, 1);
            for (way_out, reason) in [
                (WayOutState::Open, open),
                (WayOutState::Hidden, hidden),
                (WayOutState::Closed, closed),
            ] {
                assert_eq!(
                    tier0.state(way_out).reason(),
                    reason,
                    "{word:?} {way_out:?}"
                );
            }
        }
    }
}
