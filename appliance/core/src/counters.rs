//! Counters of the engine and of a worker: one enum, which is the index, the match arm and the metric name.

use core::sync::atomic::{AtomicU64, Ordering};

xdnsd_abi::counters! {
    /// What is counted.
    pub enum Counter: usize {
        /// Queries that arrived over AF_XDP.
        QueriesXdp = "queries_xdp",
        /// Queries that arrived over the kernel's UDP sockets, by the interface that they came in by; lo: of this machine itself,
        /// which is told by its source address; other: by one of more interfaces than are told apart, or one that is gone.
        QueriesUdp = "queries_udp",
        /// Queries that arrived over TCP, by the interface that the connection came in by.
        QueriesTcp = "queries_tcp",
        /// Answers given over AF_XDP.
        AnswersXdp = "answers_xdp",
        /// Answers given over the kernel's UDP sockets, by the interface that their queries came in by.
        AnswersUdp = "answers_udp",
        /// Answers given over TCP, by the interface that the connection came in by.
        AnswersTcp = "answers_tcp",
        /// Answered from the cache, fresh.
        CacheHits = "cache_hits",
        /// Answered from the cache past the TTL (RFC 8767).
        CacheStale = "cache_stale",
        /// Not in the cache.
        CacheMisses = "cache_misses",
        /// Stored in the cache.
        CacheInserts = "cache_inserts",
        /// Evicted from the cache to make room for another answer.
        CacheEvictions = "cache_evictions",
        /// Asked upstream.
        UpstreamQueries = "upstream_queries",
        /// Answered by an upstream and accepted.
        UpstreamAnswers = "upstream_answers",
        /// No answer within the deadline.
        UpstreamTimeouts = "upstream_timeouts",
        /// Asked the next upstream after a timeout or a failure.
        UpstreamRetries = "upstream_retries",
        /// Could not be sent upstream: socket error.
        UpstreamSendErrors = "upstream_send_errors",
        /// ICMP said that an upstream, its port or the way to it is not there, or no route leads there: the next one was asked at once.
        UpstreamUnreachable = "upstream_unreachable",
        /// From the asked upstream to the port that asked it, but with another ID, another question or another letter case.
        UpstreamForged = "upstream_forged",
        /// The answer to a question that had ended: another upstream was faster, or it was given up. Dropped.
        UpstreamLate = "upstream_late",
        /// To a port of ours from somebody who was not asked through it, or through which nobody is asked.
        UpstreamUnmatched = "upstream_unmatched",
        /// From the asked upstream, but not a well-formed answer.
        UpstreamMalformed = "upstream_malformed",
        /// Joined a question already in flight.
        Coalesced = "coalesced",
        /// No room for another question in flight.
        PendingFull = "pending_full",
        /// No room for another waiting client.
        WaitersFull = "waiters_full",
        /// A new name under a domain that has as many questions in flight as it may have: SERVFAIL, and upstream is not asked.
        ZoneFull = "zone_full",
        /// A new name for a group of servers that has as many: the oldest question of the client with the most of them ended.
        GroupFull = "group_full",
        /// SERVFAIL given because no upstream answered.
        ServfailGiven = "servfail_given",
        /// Not a query that can be answered: shorter than a header, or a response.
        IgnoredMessages = "ignored_messages",
        /// Not answered for where they came from: port 0 or one of access.reflector_ports, our own address, a broadcast address.
        IgnoredSources = "ignored_sources",
        /// Answered FORMERR.
        FormerrGiven = "formerr_given",
        /// Answered NOTIMP.
        NotimpGiven = "notimp_given",
        /// Answered REFUSED.
        RefusedGiven = "refused_given",
        /// Answered with TC set: more than the client may get over UDP.
        TruncatedGiven = "truncated_given",
        /// Clients that the ACL leaves without an answer: queries, and TCP connections that are closed at once.
        AclDropped = "acl_dropped",
        /// Answered from local data or by a special-use name.
        LocalAnswers = "local_answers",
        /// Names that a list blocks, asked for or reached through a CNAME.
        Blocked = "blocked",
        /// Answers withheld because they had a private address.
        RebindWithheld = "rebind_withheld",
        /// Questions asked upstream over TCP.
        UpstreamTcp = "upstream_tcp",
        /// Queries without a valid DNS cookie that were told to come back with one.
        BadCookies = "bad_cookies",
        /// Queries beyond `rate_limit.queries`, answered with TC: their client is to come back over TCP.
        RateQueriesSlipped = "rate_queries_slipped",
        /// Queries beyond `rate_limit.queries` without an answer.
        RateQueriesDropped = "rate_queries_dropped",
        /// Questions beyond `rate_limit.misses`, answered with TC: their client is to come back over TCP.
        RateMissesSlipped = "rate_misses_slipped",
        /// Questions beyond `rate_limit.misses` without an answer.
        RateMissesDropped = "rate_misses_dropped",
        /// Frames from AF_XDP that user space does not understand although the program did.
        FramesRejected = "frames_rejected",
        /// Frames that found no free TX slot or chunk.
        TxFull = "tx_full",
    }
}

/// One set of counters. A worker owns it, everyone may read it.
#[derive(Debug)]
pub struct Counters {
    values: [AtomicU64; Counter::COUNT],
}

impl Counters {
    /// Where nothing has been counted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; Counter::COUNT],
        }
    }

    /// Counts one more.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n` more.
    pub fn add(&self, counter: Counter, n: u64) {
        // One writer per set: a plain load and store is enough, and cheaper than a locked add.
        let value = &self.values[counter as usize];
        value.store(
            value.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// The present value.
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
