//! Counters of the engine and of a worker. One enum is the index, the match arm and the metric name.

pub mod answers;
pub mod latency;

use core::sync::atomic::{AtomicU64, Ordering};

use crate::limits::VIEWS_MAX;
use answers::AnswerCounts;
use latency::{Histogram, Tier};

xdnsd_abi::counters! {
    /// Events that are counted.
    pub enum Counter: usize {
        /// Queries that arrived over AF_XDP.
        QueriesXdp = "queries_xdp",
        /// Queries that arrived over the kernel's UDP sockets, by the interface that received them. lo: of this machine
        /// itself, by their source address. other: by an interface that is gone, or beyond those that are told apart.
        QueriesUdp = "queries_udp",
        /// Queries that arrived over TCP, by the interface that received the connection.
        QueriesTcp = "queries_tcp",
        /// Answers given over AF_XDP.
        AnswersXdp = "answers_xdp",
        /// Answers given over the kernel's UDP sockets, by the interface that received their queries.
        AnswersUdp = "answers_udp",
        /// Answers given over TCP, by the interface that received the connection.
        AnswersTcp = "answers_tcp",
        /// Queries answered from the cache within the TTL.
        CacheHits = "cache_hits",
        /// Queries answered from the cache past the TTL (RFC 8767).
        CacheStale = "cache_stale",
        /// Queries that the cache could not answer.
        CacheMisses = "cache_misses",
        /// Answers stored in the cache.
        CacheInserts = "cache_inserts",
        /// Answers evicted from the cache to make room for another.
        CacheEvictions = "cache_evictions",
        /// Questions sent to upstreams.
        UpstreamQueries = "upstream_queries",
        /// Answers of upstreams that were accepted.
        UpstreamAnswers = "upstream_answers",
        /// Questions that an upstream did not answer in time.
        UpstreamTimeouts = "upstream_timeouts",
        /// Questions sent to the next upstream after a timeout or a failure.
        UpstreamRetries = "upstream_retries",
        /// Questions that could not be sent upstream: socket error.
        UpstreamSendErrors = "upstream_send_errors",
        /// Questions that did not reach an upstream: ICMP reported it unreachable, or no route leads there. The next one
        /// was asked at once.
        UpstreamUnreachable = "upstream_unreachable",
        /// Messages from the asked upstream to the port that asked it, but with another ID, another question or another
        /// letter case.
        UpstreamForged = "upstream_forged",
        /// Answers to a question that had ended: another upstream was faster, or it was given up. Dropped.
        UpstreamLate = "upstream_late",
        /// Messages to a port of ours from a host that was not asked through it, or to a port without a question.
        UpstreamUnmatched = "upstream_unmatched",
        /// Malformed answers of the asked upstream.
        UpstreamMalformed = "upstream_malformed",
        /// Queries that joined a question in flight.
        Coalesced = "coalesced",
        /// Questions that another worker asked already: its answer was waited for.
        AskedElsewhere = "asked_elsewhere",
        /// No room for another question in flight: an earlier one ended for it.
        PendingFull = "pending_full",
        /// No room for another waiting client: an earlier question ended for it.
        WaitersFull = "waiters_full",
        /// No room for another client that waits for the target of a local alias: SERVFAIL.
        AliasesFull = "aliases_full",
        /// No room for another client to wait, as it has its share of the places: SERVFAIL.
        ShareFull = "share_full",
        /// Queries for a new name under a domain with as many questions in flight as allowed: SERVFAIL, and upstream was
        /// not asked.
        ZoneFull = "zone_full",
        /// Queries for a new name whose group of servers had as many questions in flight as allowed: the oldest question of
        /// the client with the most of them ended.
        GroupFull = "group_full",
        /// SERVFAIL given because no upstream answered.
        ServfailGiven = "servfail_given",
        /// Messages that are no queries: shorter than a header, or responses.
        IgnoredMessages = "ignored_messages",
        /// Queries left unanswered for their source: port 0 or one of access.reflector_ports, our own address, a broadcast
        /// address.
        IgnoredSources = "ignored_sources",
        /// Queries answered with FORMERR.
        FormerrGiven = "formerr_given",
        /// Queries answered with NOTIMP.
        NotimpGiven = "notimp_given",
        /// Queries answered with REFUSED.
        RefusedGiven = "refused_given",
        /// Queries answered with TC set: the answer exceeds what the client may get over UDP.
        TruncatedGiven = "truncated_given",
        /// Queries dropped by access control, and TCP connections closed by it.
        AclDropped = "acl_dropped",
        /// Queries answered from local data or as special-use names.
        LocalAnswers = "local_answers",
        /// Queries for names that a list blocks, directly or through a CNAME.
        Blocked = "blocked",
        /// Answers withheld because they contain a private address.
        RebindWithheld = "rebind_withheld",
        /// Answers with an address of `forward.bogus_nxdomain`, which became NXDOMAIN.
        BogusNxdomain = "bogus_nxdomain",
        /// Answers with addresses of a family that clients are not to get, which became NODATA.
        FamilyWithheld = "family_withheld",
        /// Answers whose IPv6 addresses were made of IPv4 ones (DNS64).
        Dns64Answers = "dns64_answers",
        /// Questions asked upstream over TCP.
        UpstreamTcp = "upstream_tcp",
        /// Queries without a valid DNS cookie that were answered with a request for one.
        BadCookies = "bad_cookies",
        /// Queries over `rate_limit.queries`, answered with TC so that the client comes back over TCP.
        RateQueriesSlipped = "rate_queries_slipped",
        /// Queries over `rate_limit.queries`, dropped.
        RateQueriesDropped = "rate_queries_dropped",
        /// Questions over `rate_limit.misses`, answered with TC so that the client comes back over TCP.
        RateMissesSlipped = "rate_misses_slipped",
        /// Questions over `rate_limit.misses`, dropped.
        RateMissesDropped = "rate_misses_dropped",
        /// Frames from AF_XDP that user space cannot parse although the program could.
        FramesRejected = "frames_rejected",
        /// Frames for which no TX slot or chunk was free.
        TxFull = "tx_full",
    }
}

xdnsd_abi::counters! {
    /// Events that are counted for each view, while there are any.
    pub enum ViewCounter: usize {
        /// Well-formed queries of clients that are answered, by view. Hot names are answered in the XDP program, to clients in none
        /// alone, and are not among them.
        Queries = "view_queries",
        /// Of these, answered from the cache, past the TTL as well.
        Cached = "view_cached",
        /// Of these, for names that a list blocks, directly or through a CNAME.
        Blocked = "view_blocked",
    }
}

/// A set of counters. One worker writes it, any thread may read it.
#[derive(Debug)]
pub struct Counters {
    values: [AtomicU64; Counter::COUNT],
    /// Answers by RCODE.
    pub answers: AnswerCounts,
    latencies: [Histogram; Tier::COUNT],
    views: [[AtomicU64; ViewCounter::COUNT]; VIEWS_MAX],
}

impl Counters {
    /// Counters at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; Counter::COUNT],
            answers: AnswerCounts::new(),
            latencies: [const { Histogram::new() }; Tier::COUNT],
            views: [const { [const { AtomicU64::new(0) }; ViewCounter::COUNT] }; VIEWS_MAX],
        }
    }

    /// Adds one to a counter.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds `n` to a counter.
    pub fn add(&self, counter: Counter, n: u64) {
        add(&self.values[counter as usize], n);
    }

    /// Adds one to a counter of a view, by the number of one of its policies.
    pub fn count_for(&self, view: u8, counter: ViewCounter) {
        add(
            &self.views[usize::from(view) % VIEWS_MAX][counter as usize],
            1,
        );
    }

    /// Present value of a counter of the view with this number.
    #[must_use]
    pub fn get_for(&self, view: usize, counter: ViewCounter) -> u64 {
        let of_view = self.views.get(view);
        of_view.map_or(0, |counts| counts[counter as usize].load(Ordering::Relaxed))
    }

    /// Begins anew for all views, because numbers change their meaning.
    pub fn forget_views(&self) {
        let values = self.views.iter().flatten();
        values.for_each(|value| value.store(0, Ordering::Relaxed));
    }

    /// How long answers of this tier took.
    #[must_use]
    pub const fn latency(&self, tier: Tier) -> &Histogram {
        &self.latencies[tier as usize]
    }

    /// Present value of a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Ordering::Relaxed)
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds to a value that has one writer: a plain load and store are enough, and cheaper than a locked add.
#[inline]
pub fn add(value: &AtomicU64, more: u64) {
    let sum = value.load(Ordering::Relaxed).wrapping_add(more);
    value.store(sum, Ordering::Relaxed);
}
