//! Writes entries for readers of the tap (`store::tap`) about the queries that a worker serves.
//!
//! Without a reader it costs one load per query. The engine is unaware of it: the reason of an answer is derived from its
//! counters.

use std::net::SocketAddr;
use std::ops::Range;

use xdnsd_core::counters::Counters;
use xdnsd_core::engine::Outcome;
use xdnsd_core::respond::Path;

use crate::os::clock;
use crate::store::TAP;
use crate::store::tap::TapRings;
use crate::store::tap::entry::{AnswerReason, Marks, QueryPath, TapEntry, TapKind, wanted};

/// Client of a query, and the path that the query took.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub client: SocketAddr,
    pub via: QueryPath,
}

/// A query of which an entry is to be written.
#[derive(Clone, Copy, Debug)]
pub struct TappedQuery {
    asker: Asker,
    since_ns: u64,
    len: usize,
}

/// Tap of one worker.
pub struct Tapped<'a> {
    rings: &'a TapRings,
    counters: &'a Counters,
    marks: Marks,
    /// Upstream whose message is being processed.
    upstream: Option<SocketAddr>,
}

impl<'a> Tapped<'a> {
    pub fn new(rings: &'a TapRings, counters: &'a Counters) -> Self {
        Self {
            rings,
            counters,
            marks: Marks::default(),
            upstream: None,
        }
    }

    /// Notes that a query is about to be answered. `None` without a reader.
    pub fn asked(&mut self, asker: Asker, query: &[u8]) -> Option<TappedQuery> {
        let kinds = TAP.wanted();
        if kinds == 0 {
            return None;
        }
        Some(self.begin(kinds, asker, query))
    }

    #[cold]
    fn begin(&mut self, kinds: u8, asker: Asker, query: &[u8]) -> TappedQuery {
        self.marks.set(self.counters);
        self.upstream = None;
        let seen = TappedQuery {
            asker,
            since_ns: clock::monotonic_ns(),
            len: query.len(),
        };
        if kinds & wanted::QUERIES != 0 {
            let entry = entry(TapKind::Query, asker, seen.since_ns);
            self.rings.write(&entry, query);
        }
        seen
    }

    /// Writes the outcome; `buffer` has the answer, or still the query.
    #[cold]
    pub fn became(&mut self, seen: &TappedQuery, outcome: Outcome, buffer: &[u8]) {
        let time_ns = clock::monotonic_ns();
        let (kind, len) = match outcome {
            Outcome::Reply(len) => (TapKind::Answer, len),
            Outcome::Pending => (TapKind::Waiting, seen.len),
            Outcome::Silence => (TapKind::Silence, seen.len),
        };
        let micros = time_ns.saturating_sub(seen.since_ns) / 1_000;
        let entry = TapEntry {
            // Some answers take less than a microsecond.
            micros: u32::try_from(micros.max(1)).unwrap_or(u32::MAX),
            why: self.marks.moved(self.counters).unwrap_or(AnswerReason::Own),
            ..entry(kind, seen.asker, time_ns)
        };
        self.rings
            .write(&entry, buffer.get(..len).unwrap_or(buffer));
    }

    /// Notes that the worker turns to other work: to a message of `upstream`, or, with `None`, to timeouts.
    pub fn turns_to(&mut self, upstream: Option<SocketAddr>) {
        if TAP.wanted() != 0 {
            self.marks.set(self.counters);
            self.upstream = upstream;
        }
    }

    /// Writes an answer to a client that has waited.
    pub fn answered(&mut self, asker: impl FnOnce() -> Option<Asker>, message: &[u8]) {
        if TAP.wanted() != 0
            && let Some(asker) = asker()
        {
            self.late(asker, message);
        }
    }

    #[cold]
    fn late(&mut self, asker: Asker, message: &[u8]) {
        let why = self.marks.moved(self.counters);
        let by_upstream = if self.upstream.is_some() {
            AnswerReason::Upstream
        } else {
            AnswerReason::Failed
        };
        let entry = TapEntry {
            // Counts by the cache belong to when the question was asked.
            why: why
                .filter(|why| *why != AnswerReason::Waiting)
                .unwrap_or(by_upstream),
            upstream: self.upstream,
            ..entry(TapKind::Late, asker, clock::monotonic_ns())
        };
        self.rings.write(&entry, message);
    }

    /// [`Self::asked`] for a query in a frame.
    pub fn asked_in_frame(
        &mut self,
        path: &Path,
        frame: &[u8],
        message: &Range<usize>,
    ) -> Option<TappedQuery> {
        let kinds = TAP.wanted();
        if kinds == 0 {
            return None;
        }
        Some(self.begin_in_frame(kinds, path, frame, message))
    }

    #[cold]
    fn begin_in_frame(
        &mut self,
        kinds: u8,
        path: &Path,
        frame: &[u8],
        message: &Range<usize>,
    ) -> TappedQuery {
        self.frame(TapKind::FrameIn, frame);
        let asker = Asker {
            client: path.client(),
            via: QueryPath::Xdp,
        };
        let query = frame.get(message.clone()).unwrap_or_default();
        self.begin(kinds, asker, query)
    }

    /// Writes a frame that goes to the AF_XDP socket.
    pub fn frame_out(&self, frame: &[u8]) {
        self.frame(TapKind::FrameOut, frame);
    }

    fn frame(&self, kind: TapKind, frame: &[u8]) {
        if TAP.wanted() & wanted::FRAMES != 0 {
            // The frame itself has the addresses.
            let asker = Asker {
                client: SocketAddr::from(([0, 0, 0, 0], 0)),
                via: QueryPath::Xdp,
            };
            let entry = entry(kind, asker, clock::monotonic_ns());
            self.rings.write(&entry, frame);
        }
    }
}

const fn entry(kind: TapKind, asker: Asker, time_ns: u64) -> TapEntry {
    TapEntry {
        time_ns,
        micros: 0,
        len: 0,
        kept: 0,
        kind,
        via: asker.via,
        why: AnswerReason::Own,
        client: asker.client,
        upstream: None,
    }
}
