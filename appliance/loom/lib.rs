//! The table of questions in flight, as the server compiles it, with loom's atomics.
#![cfg(all(loom, test))]

#[path = "../core/src/forward/in_flight.rs"]
mod in_flight;

/// As small as can be: every question has the same place.
mod limits {
    pub const PENDING: usize = 0;
}

use in_flight::InFlight;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

const HASH: u64 = 0x0123_4567_89ab_cdef;
/// Another question, which has the same place.
const NEIGHBOUR: u64 = HASH ^ 1 << 40;

/// What the engines have in common.
struct Shared {
    table: InFlight,
    /// The answer in the cache, behind its lock.
    cached: Mutex<Option<u32>>,
    /// What wakes each engine.
    woken: [AtomicBool; 3],
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            table: InFlight::new(),
            cached: Mutex::new(None),
            woken: [0; 3].map(|_| AtomicBool::new(false)),
        })
    }

    /// What an engine does for a client. True if it sleeps until another engine wakes it.
    fn serve(&self, engine: u8) -> bool {
        if self.cached.lock().expect("nobody panics").is_some() {
            return false;
        }
        let is_own = self.table.take(HASH, engine);
        if !is_own && self.table.wait(HASH, engine) {
            return true;
        }
        *self.cached.lock().expect("nobody panics") = Some(7);
        if is_own {
            let waiting = self.table.release(HASH, engine);
            let told = (0..3).filter(|other| waiting.has(*other));
            told.for_each(|other| self.woken[usize::from(other)].store(true, Ordering::Release));
        }
        false
    }
}

/// Two engines in every order; three in all orders in which three steps at most come in between others, as the rest takes hours.
#[test]
fn who_sleeps_is_woken_and_finds_the_answer() {
    for (others, interruptions) in [(&[1][..], None), (&[1, 2], Some(3))] {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = interruptions;
        model.check(move || serve_together(others));
    }
}

fn serve_together(others: &[u8]) {
    let shared = Shared::new();
    let others: Vec<_> = others
        .iter()
        .map(|&engine| {
            let shared = shared.clone();
            thread::spawn(move || shared.serve(engine))
        })
        .collect();
    let mut asleep = vec![shared.serve(0)];
    asleep.extend(
        others
            .into_iter()
            .map(|other| other.join().expect("no panic")),
    );
    for (woken, _) in shared
        .woken
        .iter()
        .zip(asleep)
        .filter(|(_, sleeps)| *sleeps)
    {
        assert!(woken.load(Ordering::Acquire));
        assert_eq!(*shared.cached.lock().expect("nobody panics"), Some(7));
    }
    assert!(shared.table.take(HASH, 0), "the place is free again");
}

#[test]
fn an_engine_that_is_woken_sees_the_answer_without_a_lock() {
    loom::model(|| {
        let (shared, answer) = (Shared::new(), Arc::new(AtomicBool::new(false)));
        assert!(shared.table.take(HASH, 0));
        let owner = {
            let (shared, answer) = (shared.clone(), answer.clone());
            thread::spawn(move || {
                answer.store(true, Ordering::Relaxed);
                shared.table.release(HASH, 0)
            })
        };
        if !shared.table.wait(HASH, 1) {
            assert!(answer.load(Ordering::Relaxed), "released after the answer");
            assert!(shared.table.take(HASH, 1));
        }
        drop(owner.join());
    });
}

#[test]
fn questions_of_one_place_leave_each_other_alone() {
    loom::model(|| {
        let shared = Shared::new();
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let is_own = shared.table.take(NEIGHBOUR, 1);
                is_own && shared.table.release(NEIGHBOUR, 1).is_empty()
            })
        };
        let is_own = shared.table.take(HASH, 0);
        assert!(!is_own || !shared.table.is_asked(NEIGHBOUR, 2));
        assert!(!is_own || shared.table.release(HASH, 0).is_empty());
        drop(other.join());
        assert!(shared.table.take(HASH, 0), "free in the end");
    });
}
