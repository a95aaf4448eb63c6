//! Attempts at upstreams for one question.

use super::via::Via;
use crate::limits::UPSTREAMS;
use crate::time::Instant;
use heapless::Vec;

/// Most attempts for one question.
pub const ATTEMPTS: usize = 6;
/// Number of forged answers after which a port is given up: somebody has found it, and guesses IDs. So an attacker who
/// finds a port has this many of 65,536 guesses.
pub const FORGED_MAX: u8 = 8;

/// Set of servers, one bit each.
pub type ServerSet = u32;
const _: () = assert!(UPSTREAMS <= ServerSet::BITS as usize);

/// True if `server` is in `set`.
#[must_use]
pub const fn has(set: ServerSet, server: u8) -> bool {
    set & (1 << server) != 0
}

/// An attempt at an upstream: a message with an ID of its own, sent one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the server.
    pub upstream: u8,
    /// Port or stream. `None` if no port could be had, so that it was not sent.
    pub via: Option<Via>,
    /// Message ID.
    pub id: u16,
    /// Time of sending.
    pub sent: Instant,
    /// True while an answer is accepted.
    pub live: bool,
    /// True if the query has an OPT record.
    pub edns: bool,
    /// True if the name was sent in random letter case, which has to come back.
    pub random_case: bool,
    /// True if it was counted as a timeout: it took longer than usual, or ICMP refused it.
    pub overdue: bool,
    /// Number of messages from the upstream to its port that were not its answer.
    pub forged: u8,
}

impl Attempt {
    /// Source port, if it was sent in a datagram.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.via.and_then(Via::port)
    }

    /// True if it was sent over a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.via.is_some_and(Via::is_stream)
    }

    fn is(&self, other: &Self) -> bool {
        self.via == other.via && self.id == other.id
    }
}

/// Attempts for one question, the oldest first, and what they showed of servers. When full, no further server is asked, and
/// the live attempts are waited for.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    attempts: Vec<Attempt, ATTEMPTS>,
    /// Servers that were asked.
    asked: ServerSet,
    /// Servers that did not understand this question with EDNS.
    pub without_edns: ServerSet,
    /// Servers that did not return the letter case of this question.
    pub without_case: ServerSet,
}

impl Tries {
    /// No attempts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            attempts: Vec::new(),
            asked: 0,
            without_edns: 0,
            without_case: 0,
        }
    }

    /// All attempts, the oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Servers that were asked.
    #[must_use]
    pub const fn asked(&self) -> ServerSet {
        self.asked
    }

    /// True if there is no room for a further attempt.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.attempts.is_full()
    }

    /// True if an attempt may still be answered.
    #[must_use]
    pub fn has_live(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.live)
    }

    /// True if an attempt over a stream may still be answered.
    #[must_use]
    pub fn has_live_stream(&self) -> bool {
        self.live_streams() > 0
    }

    /// Number of attempts over streams that may still be answered.
    #[must_use]
    pub fn live_streams(&self) -> usize {
        let attempts = self.attempts.iter();
        attempts
            .filter(|attempt| attempt.live && attempt.is_stream())
            .count()
    }

    /// Number of attempts at `server`.
    #[must_use]
    pub fn times(&self, server: u8) -> usize {
        self.of(server).count()
    }

    /// Attempts at `server`.
    pub fn of(&self, server: u8) -> impl Iterator<Item = &Attempt> {
        let attempts = self.attempts.iter();
        attempts.filter(move |attempt| attempt.upstream == server)
    }

    /// Latest attempt by this port or stream.
    #[must_use]
    pub fn by(&self, via: Via) -> Option<&Attempt> {
        let mut attempts = self.attempts.iter().rev();
        attempts.find(|attempt| attempt.via == Some(via))
    }

    /// Adds an attempt. When full, it is left out; see [`is_full`](Self::is_full).
    pub fn push(&mut self, attempt: Attempt) {
        if self.attempts.push(attempt).is_ok() {
            self.asked |= 1 << attempt.upstream;
        }
    }

    /// Ends `attempt`: no further answer is accepted. Returns the port to close.
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

    /// Ends all live attempts, and returns them.
    pub fn take_live(&mut self) -> Vec<Attempt, ATTEMPTS> {
        let mut taken = Vec::new();
        for attempt in self.attempts.iter_mut().filter(|one| one.live) {
            // Has room: both have the same capacity.
            let _ = taken.push(*attempt);
            attempt.live = false;
        }
        taken
    }

    /// Marks `attempt` as overdue.
    pub fn set_overdue(&mut self, attempt: &Attempt) {
        for one in self.attempts.iter_mut().filter(|one| one.is(attempt)) {
            one.overdue = true;
        }
    }

    /// Counts a forged answer to `attempt`. Returns true if its port is to be given up: somebody guesses its ID, and there
    /// is room for another attempt.
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
