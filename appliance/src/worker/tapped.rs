//! What a worker writes for readers of the tap (`store::tap`), of the queries that it serves.
//!
//! Nobody reads: one load for each query. The engine knows nothing of it: why it has answered as it did is what it has counted.

use std::net::SocketAddr;
use std::ops::Range;

use xdnsd_core::counters::Counters;
use xdnsd_core::engine::Outcome;
use xdnsd_core::respond::Path;

use crate::os::clock;
use crate::store::TAP;
use crate::store::tap::TapRings;
use crate::store::tap::entry::{AnswerReason, Marks, QueryPath, TapEntry, TapKind, wanted};

/// Who asks, and by which way.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub client: SocketAddr,
    pub via: QueryPath,
}

/// A query that somebody reads of.
#[derive(Clone, Copy, Debug)]
pub struct TappedQuery {
    asker: Asker,
    since_ns: u64,
    len: usize,
}

/// A worker's way to the readers.
pub struct Tapped<'a> {
    rings: &'a TapRings,
    counters: &'a Counters,
    marks: Marks,
    /// Whose message is looked at.
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

    /// A query is about to be answered. `None`: nobody reads.
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

    /// What became of it; `buffer` has the answer, or the query still.
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
            // A microsecond is more than some answers take.
            micros: u32::try_from(micros.max(1)).unwrap_or(u32::MAX),
            why: self.marks.moved(self.counters).unwrap_or(AnswerReason::Own),
            ..entry(kind, seen.asker, time_ns)
        };
        self.rings
            .write(&entry, buffer.get(..len).unwrap_or(buffer));
    }

    /// Something else is about to be done than to answer a query: a message of `upstream` is looked at, or time is over.
    pub fn turns_to(&mut self, upstream: Option<SocketAddr>) {
        if TAP.wanted() != 0 {
            self.marks.set(self.counters);
            self.upstream = upstream;
        }
    }

    /// An answer is given to somebody who has waited.
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
            // What the cache counts of the question was counted before.
            why: why
                .filter(|why| *why != AnswerReason::Waiting)
                .unwrap_or(by_upstream),
            upstream: self.upstream,
            ..entry(TapKind::Late, asker, clock::monotonic_ns())
        };
        self.rings.write(&entry, message);
    }

    /// The same of a query whose message stands in a frame.
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

    /// A frame goes to the AF_XDP socket.
    pub fn frame_out(&self, frame: &[u8]) {
        self.frame(TapKind::FrameOut, frame);
    }

    fn frame(&self, kind: TapKind, frame: &[u8]) {
        if TAP.wanted() & wanted::FRAMES != 0 {
            // It says itself whose it is.
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
