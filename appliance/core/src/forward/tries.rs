//! What was sent upstream for one question, and what became of it.

use super::via::Via;
use crate::limits::UPSTREAMS;
use crate::time::Instant;
use heapless::Vec;

/// Times that one question is sent upstream at most.
pub const ATTEMPTS: usize = 6;
/// Forged answers on one port after which that port is given up: somebody knows it, and tries its IDs. So an attacker who finds a
/// port has this many of 65,536 guesses.
pub const FORGED_MAX: u8 = 8;

/// Servers, a bit each.
pub type ServerSet = u32;
const _: () = assert!(UPSTREAMS <= ServerSet::BITS as usize);

/// Whether `server` is one of `set`.
#[must_use]
pub const fn has(set: ServerSet, server: u8) -> bool {
    set & (1 << server) != 0
}

/// A transaction with an upstream: this message by this way, which is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the server among the upstreams.
    pub upstream: u8,
    /// The way that it went. `None`: no port could be had, and it never was sent.
    pub via: Option<Via>,
    /// The message ID.
    pub id: u16,
    /// When it was sent.
    pub sent: Instant,
    /// Whether an answer is still expected.
    pub live: bool,
    /// Whether the query carried EDNS.
    pub edns: bool,
    /// Whether the name was sent in random letter case, which has to come back.
    pub random_case: bool,
    /// It took longer than usual, or ICMP refused it, and was counted as a timeout of its upstream.
    pub overdue: bool,
    /// What came to its port from its upstream and was not its answer, so many times.
    pub forged: u8,
}

impl Attempt {
    /// Its source port, if it is a datagram's.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.via.and_then(Via::port)
    }

    /// Whether it was asked in a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.via.is_some_and(Via::is_stream)
    }

    fn is(&self, other: &Self) -> bool {
        self.via == other.via && self.id == other.id
    }
}

/// The attempts at one question, the oldest first, and what they showed of servers. Full: nobody else is asked, and those
/// attempts that are live are waited for.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    attempts: Vec<Attempt, ATTEMPTS>,
    /// Who was asked.
    asked: ServerSet,
    /// Who did not understand this question with EDNS.
    pub without_edns: ServerSet,
    /// Who lost the letter case of this question.
    pub without_case: ServerSet,
}

impl Tries {
    /// Nobody was asked yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            attempts: Vec::new(),
            asked: 0,
            without_edns: 0,
            without_case: 0,
        }
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The servers that were asked.
    #[must_use]
    pub const fn asked(&self) -> ServerSet {
        self.asked
    }

    /// Whether there can be no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.attempts.is_full()
    }

    /// Whether any may still be answered.
    #[must_use]
    pub fn has_live(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.live)
    }

    /// Whether a stream is asked.
    #[must_use]
    pub fn has_live_stream(&self) -> bool {
        self.live_streams() > 0
    }

    /// How many streams are asked.
    #[must_use]
    pub fn live_streams(&self) -> usize {
        let attempts = self.attempts.iter();
        attempts
            .filter(|attempt| attempt.live && attempt.is_stream())
            .count()
    }

    /// How often `server` was asked.
    #[must_use]
    pub fn times(&self, server: u8) -> usize {
        self.of(server).count()
    }

    /// Attempts at `server`.
    pub fn of(&self, server: u8) -> impl Iterator<Item = &Attempt> {
        let attempts = self.attempts.iter();
        attempts.filter(move |attempt| attempt.upstream == server)
    }

    /// The latest attempt that went this way.
    #[must_use]
    pub fn by(&self, via: Via) -> Option<&Attempt> {
        let mut attempts = self.attempts.iter().rev();
        attempts.find(|attempt| attempt.via == Some(via))
    }

    /// Notes one more. Full: it is not sent either, see [`is_full`](Self::is_full).
    pub fn push(&mut self, attempt: Attempt) {
        if self.attempts.push(attempt).is_ok() {
            self.asked |= 1 << attempt.upstream;
        }
    }

    /// Takes no answer of `attempt` any more. The port to be closed.
    pub fn end(&mut self, attempt: &Attempt) -> Option<u16> {
        let mut port = None;
        for ended in self.attempts.iter_mut().filter(|one| one.is(attempt)) {
            if ended.live {
                port = ended.port();
            }
            ended.live = false;
        }
        port
    }

    /// Takes no answer any more. Those attempts that were live.
    pub fn take_live(&mut self) -> Vec<Attempt, ATTEMPTS> {
        let mut taken = Vec::new();
        for attempt in self.attempts.iter_mut().filter(|one| one.live) {
            // Cannot be full: it holds as many.
            let _ = taken.push(*attempt);
            attempt.live = false;
        }
        taken
    }

    /// Counts `attempt` as overdue.
    pub fn set_overdue(&mut self, attempt: &Attempt) {
        for one in self.attempts.iter_mut().filter(|one| one.is(attempt)) {
            one.overdue = true;
        }
    }

    /// Counts a forged answer to `attempt`. Whether its port is to be given up: somebody guesses at its ID, and there can be
    /// another attempt.
    pub fn note_forged(&mut self, attempt: &Attempt) -> bool {
        let is_full = self.attempts.is_full();
        let mut attempts = self.attempts.iter_mut().rev();
        attempts
            .find(|one| one.via == attempt.via)
            .is_some_and(|one| {
                one.forged = one.forged.saturating_add(1);
                one.forged >= FORGED_MAX && !is_full
            })
    }
}
