//! Source ports by the sk_lookup program: loads it, and gives each worker its part.
//!
//! Runs on the thread for interfaces, so that no other thread waits for the kernel. Before the program is loaded, if it cannot
//! be, and for a worker that has no part of it, each question has a connected socket of its own.

use log::{Level, info, log};
use xdnsd_core::time::Instant;

use super::retry::Retry;
use crate::config::UpstreamPorts;
use crate::text::Sentence;
use crate::worker::engines::ENGINES;
use crate::worker::{Inbox, LookupPorts, LookupProgram, WorkerCommand};

/// First pause before another attempt, in milliseconds.
const RETRY_MS: u64 = 60_000;
/// Longest pause, in milliseconds: a kernel without such programs will not get them.
const RETRY_MAX_MS: u64 = 3_600_000;

/// The loaded program, as a source of the workers' parts.
pub trait PortProgram {
    /// Makes the command that gives `worker` its part.
    ///
    /// # Errors
    /// The part cannot be made.
    fn part(&mut self, worker: u8) -> Result<WorkerCommand, Sentence>;
}

impl PortProgram for LookupProgram {
    fn part(&mut self, worker: u8) -> Result<WorkerCommand, Sentence> {
        LookupPorts::new(self, worker).map(|lookup| WorkerCommand::Ports(Box::new(lookup)))
    }
}

/// The program and who uses it. It stays loaded while any worker has its part; the failure of one worker does not affect the
/// others.
pub struct SourcePorts<P> {
    wanted: UpstreamPorts,
    load: fn() -> Result<P, Sentence>,
    program: Option<P>,
    /// True for each worker that has its part.
    handed: [bool; ENGINES],
    retry: Retry,
    /// Last problem that was logged.
    trouble: Sentence,
}

impl<P: PortProgram> SourcePorts<P> {
    /// Nothing is loaded yet: [`Self::poll`] calls `load`.
    pub fn new(wanted: UpstreamPorts, load: fn() -> Result<P, Sentence>) -> Self {
        Self {
            wanted,
            load,
            program: None,
            handed: [false; ENGINES],
            retry: Retry::default(),
            trouble: Sentence::new(),
        }
    }

    /// Gives every worker behind `inboxes`, which need not run yet, its part of the program if it is wanted. Failures are tried
    /// again, with growing pauses.
    pub fn poll(&mut self, inboxes: &[Inbox], now: Instant) {
        let is_done = self.wanted == UpstreamPorts::Connected || self.handed == [true; ENGINES];
        if is_done || !self.retry.may_try(now) {
            return;
        }
        match self.hand_out(inboxes) {
            Ok(()) => {
                self.retry.succeed();
                if !std::mem::take(&mut self.trouble).is_empty() {
                    info!("upstream_ports: sk_lookup by now");
                }
            }
            Err(trouble) => {
                self.retry.fail(now, RETRY_MS, RETRY_MAX_MS);
                let level = match self.wanted {
                    UpstreamPorts::Auto => Level::Info,
                    UpstreamPorts::Lookup | UpstreamPorts::Connected => Level::Warn,
                };
                if self.trouble != trouble {
                    log!(level, "upstream_ports: {trouble}");
                    self.trouble = trouble;
                }
            }
        }
    }

    fn hand_out(&mut self, inboxes: &[Inbox]) -> Result<(), Sentence> {
        let program = match &mut self.program {
            Some(program) => program,
            None => {
                let loaded = (self.load)().map_err(|problem| {
                    format!("a connected socket for each question, without sk_lookup: {problem}")
                })?;
                self.program.insert(loaded)
            }
        };
        let mut trouble = Ok(());
        for ((worker, inbox), has_part) in (0..).zip(inboxes).zip(&mut self.handed) {
            if *has_part {
                continue;
            }
            let sent = program.part(worker).and_then(|part| {
                let sent = inbox.send(part);
                sent.map_err(|_| "it is not responding".into())
            });
            *has_part = sent.is_ok();
            if let Err(problem) = sent {
                trouble = Err(format!(
                    "a connected socket for each question of worker {worker}: {problem}"
                ));
            }
        }
        trouble
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Workers whose part fails, and how often the program was loaded and dropped.
    static WORLD: Mutex<(Vec<u8>, u32, u32)> = Mutex::new((Vec::new(), 0, 0));

    struct Loaded;

    impl Drop for Loaded {
        fn drop(&mut self) {
            WORLD.lock().expect("no panic").2 += 1;
        }
    }

    impl PortProgram for Loaded {
        fn part(&mut self, worker: u8) -> Result<WorkerCommand, Sentence> {
            let world = WORLD.lock().expect("no panic");
            if world.0.contains(&worker) {
                return Err("no descriptors".into());
            }
            Ok(WorkerCommand::Detach(0))
        }
    }

    fn load() -> Result<Loaded, Sentence> {
        let mut world = WORLD.lock().expect("no panic");
        world.1 += 1;
        if world.1 == 1 {
            return Err("not permitted".into());
        }
        Ok(Loaded)
    }

    fn parts(inboxes: &[Inbox]) -> usize {
        let taken = inboxes.iter().filter(|inbox| inbox.take().is_some());
        taken.count()
    }

    /// Workers that have their part rely on the attached program: if it were dropped, their questions would stay without an
    /// answer.
    #[test]
    fn what_one_worker_cannot_have_takes_nothing_from_the_others_and_is_tried_again() {
        let inboxes: Result<Vec<Inbox>, _> = (0..ENGINES).map(|_| Inbox::new()).collect();
        let inboxes = inboxes.expect("eventfd");
        let mut ports = SourcePorts::new(UpstreamPorts::Auto, load);
        let now = Instant::from_millis(5);
        ports.poll(&inboxes, now);
        assert_eq!(parts(&inboxes), 0, "not loaded");
        assert_eq!(ports.trouble.matches("not permitted").count(), 1);
        WORLD.lock().expect("no panic").0 = vec![1];
        ports.poll(&inboxes, now + (RETRY_MS - 1));
        assert_eq!(parts(&inboxes), 0, "it waits");
        let now = now + RETRY_MS;
        ports.poll(&inboxes, now);
        assert_eq!(parts(&inboxes), ENGINES - 1, "all but worker 1");
        assert!(ports.trouble.contains("worker 1: no descriptors"));
        WORLD.lock().expect("no panic").0.clear();
        let now = now + 2 * RETRY_MS;
        ports.poll(&inboxes, now);
        assert!(inboxes[1].take().is_some(), "worker 1 by now");
        assert_eq!(parts(&inboxes), 0, "the others once");
        assert!(ports.trouble.is_empty());
        ports.poll(&inboxes, now + 2 * RETRY_MAX_MS);
        let (_, loaded, dropped) = *WORLD.lock().expect("no panic");
        assert_eq!((loaded, dropped), (2, 0), "the same program all the time");
    }

    #[test]
    fn a_config_that_wants_sockets_loads_nothing() {
        let mut ports = SourcePorts::<Loaded>::new(UpstreamPorts::Connected, || {
            panic!("it is not wanted");
        });
        ports.poll(&[], Instant::from_millis(5));
        assert!(ports.program.is_none());
    }
}
