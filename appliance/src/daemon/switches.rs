//! Switches of an operator: the XDP programs of interfaces, and the keys of cookies, both for hosts behind them and for DNS.
//!
//! ```text
//!  control's thread: says what is wanted, wakes ─► thread for interfaces: does it in its next round ─► control's thread: sees it
//! ```
//! A switch keeps its state until it is set again or the process ends; a reload does not change it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::interfaces::Waker;
use super::program::{SharedProgram, lock};
use crate::control::shield::Operator;
use crate::store::rates::{self, SecretTurn};

/// Time that a request waits for the thread: a driver may be slow, and the control socket has other clients.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Whether a program is to be attached. A clone refers to the same switch.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<AtomicBool>);

impl Switch {
    /// True if it is to be detached.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set_off(&self, is_off: bool) {
        self.0.store(is_off, Ordering::Release);
    }
}

/// Number of requests for another key, and the number that is fulfilled. A clone refers to the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    wanted: Arc<AtomicU32>,
    done: Arc<AtomicU32>,
}

impl Keys {
    /// `Some` if another key is wanted. To be called before a key is made: a later request wants the next one.
    pub fn take(&self) -> Option<u32> {
        let wanted = self.wanted.load(Ordering::Acquire);
        (wanted != self.done.load(Ordering::Acquire)).then_some(wanted)
    }

    /// Notes that the requests up to `wanted` are fulfilled.
    pub fn done(&self, wanted: u32) {
        self.done.store(wanted, Ordering::Release);
    }

    fn want(&self) -> u32 {
        self.wanted.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// True if the request with this number is fulfilled.
    fn is_done(&self, wanted: u32) -> bool {
        // Serial number arithmetic: later requests may be fulfilled as well.
        self.done.load(Ordering::Acquire).wrapping_sub(wanted) as i32 >= 0
    }
}

/// An interface that may have a program.
#[derive(Clone)]
pub struct Switched {
    /// Name of the interface.
    pub interface: String,
    /// Its program, or those of its ports.
    pub programs: Vec<SharedProgram>,
    /// Its switch.
    pub switch: Switch,
}

/// All that can be switched.
#[derive(Clone)]
pub struct Switches {
    /// Switches by interface.
    pub interfaces: Vec<Switched>,
    /// Keys for cookies of hosts behind this one.
    pub keys: Keys,
}

/// The switches, and a waker of the thread that follows them.
#[derive(Clone)]
pub struct Operation {
    switches: Switches,
    waker: Waker,
}

impl Operation {
    /// `waker` wakes the thread that follows `switches`.
    #[must_use]
    pub fn new(switches: Switches, waker: Waker) -> Self {
        Self { switches, waker }
    }

    /// Waits until `is_so`, up to [`WAIT_MAX`]. True if it is.
    fn wait(&self, is_so: impl Fn() -> bool) -> bool {
        self.waker.look_again();
        let start = Instant::now();
        while !is_so() {
            if start.elapsed() > WAIT_MAX {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }

    fn named(&self, interface: &str) -> Result<&Switched, String> {
        let mut all = self.switches.interfaces.iter();
        let found = all.find(|switched| switched.interface == interface);
        found.ok_or_else(|| {
            let all = self.switches.interfaces.iter();
            let names: Vec<&str> = all.map(|switched| switched.interface.as_str()).collect();
            format!(
                "`{interface}` is not an interface of the config that may have an XDP program; allowed: {}",
                names.join(", ")
            )
        })
    }
}

fn is_there(program: &SharedProgram) -> bool {
    lock(program).is_some()
}

impl Operator for Operation {
    fn attach(&self, interface: &str) -> Result<(), String> {
        let Switched {
            programs, switch, ..
        } = self.named(interface)?;
        switch.set_off(false);
        match self.wait(|| programs.iter().any(is_there)) {
            true => Ok(()),
            false => Err(format!(
                "{interface} has no XDP program yet, it is tried on; the log says what stands in its way"
            )),
        }
    }

    fn detach(&self, interface: &str) -> Result<(), String> {
        let Switched {
            programs, switch, ..
        } = self.named(interface)?;
        switch.set_off(true);
        match self.wait(|| !programs.iter().any(is_there)) {
            true => Ok(()),
            false => Err(format!(
                "{interface}: its driver takes long, the XDP program goes when it answers"
            )),
        }
    }

    fn rotate(&self) -> Result<SecretTurn, String> {
        // Needs no driver.
        let turned = rates::turn_cookies();
        let wanted = self.switches.keys.want();
        match self.wait(|| self.switches.keys.is_done(wanted)) {
            true => Ok(turned),
            false => Err("a driver takes long, the secret is changed when it answers".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_wanted_while_one_is_made_is_the_next() {
        let keys = Keys::default();
        assert_eq!(keys.take(), None);
        let first = keys.want();
        assert!(!keys.is_done(first));
        let taken = keys.take();
        assert_eq!(taken, Some(first));
        let second = keys.want();
        keys.done(first);
        assert!(keys.is_done(first) && !keys.is_done(second));
        assert_eq!(keys.take(), Some(second));
        keys.done(second);
        assert!(keys.is_done(first) && keys.is_done(second));
        assert_eq!(keys.take(), None);
    }
}
