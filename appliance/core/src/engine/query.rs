//! From a client's query to an answer at once, or to a question in flight.

use super::{CacheAccess, Client, Effects, Engine, Outcome, STALE_TTL_SECS, Transport};
use crate::cache::{Found, Head, Key};
use crate::counters::Counter;
use crate::dns::edns::{OptReply, ede};
use crate::dns::header::{HEADER_LEN, Header, flag};
use crate::dns::query::{Query, QueryError};
use crate::dns::render::{Reply, Ttl, render};
use crate::dns::{class, rcode, rtype};
use crate::forward::pending::{ClientEdns, LetterCase, Pending, PendingFull, Waiter};
use crate::limits::{TCP_MESSAGE_MAX, UDP_MESSAGE_MAX};
use crate::time::Instant;
use core::net::IpAddr;
use heapless::Vec;

/// Shortest UDP answer that every client takes (RFC 1035 section 4.2.1).
const UDP_WITHOUT_EDNS: usize = 512;
/// An answer is asked for again when less than one part in this many of its TTL is left.
const PREFETCH_PART: u32 = 10;

/// How well a cached answer serves now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    /// Within its TTL; `aging`: in the last tenth.
    Fresh { age_secs: u32, aging: bool },
    /// Past its TTL, or of unknown age from before a restart.
    Stale { at_once: bool },
    /// Too old for anything.
    Expired,
}

/// What the cache had for a query.
enum Lookup {
    Reply {
        len: usize,
        truncated: bool,
        refresh: bool,
        stale: bool,
    },
    /// There is a stale answer, to be used if no upstream answers in time.
    Stale,
    Nothing,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Takes the query that stands in `message[..len]`. An answer that can be given at once is written over it; the
    /// buffer should hold [`UDP_MESSAGE_MAX`] bytes (TCP: 65,535), or answers are truncated to what it holds.
    pub fn query(
        &mut self,
        now: Instant,
        client: &Client<R>,
        message: &mut [u8],
        len: usize,
        effects: &mut impl Effects<R>,
    ) -> Outcome {
        let query = match Query::parse(&message[..len]) {
            Ok(query) => query,
            Err(error) => return self.reject(message, error),
        };
        if let Some((code, extended)) = refusal(&query) {
            return self.refuse(message, &query, client, code, extended);
        }
        let hash = query.key().hash(&self.cache.seed());
        match self.look_up(now, hash, &query, client, message) {
            Lookup::Reply {
                len,
                truncated,
                refresh,
                stale,
            } => {
                self.counters.count(if stale {
                    Counter::CacheStale
                } else {
                    Counter::CacheHits
                });
                if truncated {
                    self.counters.count(Counter::TruncatedGiven);
                }
                if refresh {
                    self.refresh(now, hash, &query, client, effects);
                }
                Outcome::Reply(len)
            }
            Lookup::Stale => self.miss(now, hash, &query, client, message, true, effects),
            Lookup::Nothing => self.miss(now, hash, &query, client, message, false, effects),
        }
    }

    /// Answers from the cache into `message` if that can be done at once.
    fn look_up(
        &mut self,
        now: Instant,
        hash: u64,
        query: &Query,
        client: &Client<R>,
        message: &mut [u8],
    ) -> Lookup {
        let settings = self.settings;
        let unreachable = self.upstreams.is_unreachable(0, now);
        let limit = reply_limit(query, client.transport).min(message.len());
        self.turn = self.turn.wrapping_add(1);
        let turn = if settings.rotate { self.turn } else { 0 };
        self.cache.with_shard(hash, |shard| {
            let Some(Found { head, body }) = shard.find(hash, &query.key()) else {
                return Lookup::Nothing;
            };
            let (ttl, refresh, stale) = match freshness(&head, now, settings.stale_max_secs) {
                Freshness::Fresh { age_secs, aging } => {
                    (Ttl::Aged(age_secs), aging && settings.prefetch, false)
                }
                Freshness::Stale { at_once } if at_once || unreachable && settings.serve_stale => {
                    (Ttl::Fixed(STALE_TTL_SECS), true, true)
                }
                Freshness::Stale { .. } if settings.serve_stale => return Lookup::Stale,
                Freshness::Stale { .. } | Freshness::Expired => return Lookup::Nothing,
            };
            let code = if stale {
                stale_ede(head.rcode)
            } else {
                head.ede
            };
            let reply = Reply {
                id: query.header.id,
                flags: reply_flags(query, &head),
                ttl,
                limit,
                opt: query.edns.map(|_| opt_reply(&client_edns(query), code)),
                rotate: turn,
            };
            let (len, truncated) = render(message, query.question_end, &head, body, &reply);
            Lookup::Reply {
                len,
                truncated,
                refresh,
                stale,
            }
        })
    }

    /// Puts the client among those who wait, and asks an upstream if nobody has yet.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one query, borrowed apart"
    )]
    fn miss(
        &mut self,
        now: Instant,
        hash: u64,
        query: &Query,
        client: &Client<R>,
        message: &mut [u8],
        has_stale: bool,
        effects: &mut impl Effects<R>,
    ) -> Outcome {
        self.counters.count(Counter::CacheMisses);
        let waiter = Waiter {
            route: client.route,
            id: query.header.id,
            flags: query_flags(query),
            limit: reply_limit(query, client.transport) as u16,
            edns: query.edns.map(|_| client_edns(query)),
            case: LetterCase::of(&message[HEADER_LEN..query.question_end - 4]),
            next: None,
        };
        if let Some(index) = self.tables.pending.find(hash, &query.key()) {
            self.counters.count(Counter::Coalesced);
            return self.wait(index, waiter, message, query, client);
        }
        match self.begin(now, hash, query, client, has_stale, effects) {
            Ok(index) => {
                let outcome = self.wait(index, waiter, message, query, client);
                self.ask_next(now, index, effects);
                outcome
            }
            Err(_) => {
                self.counters.count(Counter::PendingFull);
                self.refuse(
                    message,
                    query,
                    client,
                    rcode::SERVFAIL.into(),
                    ede::NOT_READY,
                )
            }
        }
    }

    fn wait(
        &mut self,
        index: u16,
        waiter: Waiter<R>,
        message: &mut [u8],
        query: &Query,
        client: &Client<R>,
    ) -> Outcome {
        match self.tables.pending.join(index, waiter) {
            Ok(()) => Outcome::Pending,
            Err(_) => {
                self.counters.count(Counter::WaitersFull);
                self.refuse(
                    message,
                    query,
                    client,
                    rcode::SERVFAIL.into(),
                    ede::NOT_READY,
                )
            }
        }
    }

    /// Asks upstream although nobody waits, unless somebody asks already.
    fn refresh(
        &mut self,
        now: Instant,
        hash: u64,
        query: &Query,
        client: &Client<R>,
        effects: &mut impl Effects<R>,
    ) {
        if self.tables.pending.find(hash, &query.key()).is_some() {
            return;
        }
        if let Ok(index) = self.begin(now, hash, query, client, false, effects) {
            self.ask_next(now, index, effects);
        }
    }

    /// Takes a question on. The table is full: the question that has been in flight for the longest time ends first.
    fn begin(
        &mut self,
        now: Instant,
        hash: u64,
        query: &Query,
        client: &Client<R>,
        has_stale: bool,
        effects: &mut impl Effects<R>,
    ) -> Result<u16, PendingFull> {
        let pending = Pending {
            name: query.name,
            qtype: query.qtype,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.header.has(flag::CD),
            hash,
            group: 0,
            started: now,
            next_try: now,
            give_up: now + self.settings.give_up_ms,
            stale_at: if has_stale {
                now + self.settings.stale_after_ms
            } else {
                Instant::FAR_FUTURE
            },
            attempts: Vec::new(),
            tried: 0,
            first_waiter: None,
            failure: None,
            bucket: bucket(client.address, &self.cache.seed()),
        };
        match self.tables.pending.insert(pending.clone()) {
            Err(PendingFull::Questions) => {
                self.counters.count(Counter::PendingFull);
                if let Some(oldest) = self.tables.pending.oldest() {
                    self.fail(now, oldest, ede::NOT_READY, effects);
                }
                self.tables.pending.insert(pending)
            }
            result => result,
        }
    }

    /// Answers a message that is no well-formed query, in place.
    fn reject(&mut self, message: &mut [u8], error: QueryError) -> Outcome {
        let QueryError::Reject { rcode: code, keep } = error else {
            self.counters.count(Counter::IgnoredMessages);
            return Outcome::Silence;
        };
        self.count_refusal(code);
        let Some(received) = Header::parse(message) else {
            return Outcome::Silence;
        };
        let kept = flag::OPCODE_MASK | flag::RD | flag::CD;
        let header = Header {
            id: received.id,
            flags: flag::QR | flag::RA | received.flags & kept | u16::from(code),
            counts: [u16::from(keep > HEADER_LEN), 0, 0, 0],
        };
        header
            .emit(message)
            .map_or(Outcome::Silence, |()| Outcome::Reply(keep))
    }

    /// Answers a well-formed query with a code and nothing else, in place.
    pub(super) fn refuse(
        &mut self,
        message: &mut [u8],
        query: &Query,
        client: &Client<R>,
        code: u16,
        extended: u16,
    ) -> Outcome {
        self.count_refusal((code & 0xf) as u8);
        let head = Head {
            rcode: (code & 0xf) as u8,
            ..Head::EMPTY
        };
        let mut opt = query.edns.map(|_| opt_reply(&client_edns(query), extended));
        if let Some(opt) = &mut opt {
            opt.extended_rcode = (code >> 4) as u8;
        }
        let reply = Reply {
            id: query.header.id,
            flags: query.header.flags & (flag::RD | flag::CD),
            ttl: Ttl::Aged(0),
            limit: reply_limit(query, client.transport).min(message.len()),
            opt,
            rotate: 0,
        };
        Outcome::Reply(render(message, query.question_end, &head, &[], &reply).0)
    }

    fn count_refusal(&self, code: u8) {
        match code {
            rcode::FORMERR => self.counters.count(Counter::FormerrGiven),
            rcode::NOTIMP => self.counters.count(Counter::NotimpGiven),
            rcode::REFUSED => self.counters.count(Counter::RefusedGiven),
            rcode::SERVFAIL => self.counters.count(Counter::ServfailGiven),
            _ => {}
        }
    }
}

/// The code and extended error for a well-formed query that is not answered.
fn refusal(query: &Query) -> Option<(u16, u16)> {
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Some((rcode::BADVERS, ede::NONE));
    }
    if query.qclass != class::IN {
        return Some((rcode::REFUSED.into(), ede::NOT_SUPPORTED));
    }
    // Zone transfers and the retired mailbox meta types (RFC 1035 section 3.2.3): nothing that a forwarder has.
    let meta = (rtype::IXFR..rtype::ANY).contains(&query.qtype);
    meta.then_some((rcode::REFUSED.into(), ede::NOT_SUPPORTED))
}

/// How well the answer serves.
fn freshness(head: &Head, now: Instant, stale_max_secs: u32) -> Freshness {
    let age_secs = now.secs_since(head.stored);
    if head.restored {
        return Freshness::Stale { at_once: true };
    }
    if age_secs < head.ttl_secs {
        let left = head.ttl_secs - age_secs;
        return Freshness::Fresh {
            age_secs,
            aging: left <= head.ttl_secs / PREFETCH_PART,
        };
    }
    if age_secs - head.ttl_secs <= stale_max_secs && head.rcode != rcode::SERVFAIL {
        return Freshness::Stale { at_once: false };
    }
    Freshness::Expired
}

/// The extended error of a stale answer (RFC 8914 sections 4.4 and 4.20).
pub(super) const fn stale_ede(code: u8) -> u16 {
    if code == rcode::NXDOMAIN {
        ede::STALE_NXDOMAIN
    } else {
        ede::STALE
    }
}

/// Flags of the query that its reply repeats, and AD where the client understands it (RFC 6840 section 5.7).
fn query_flags(query: &Query) -> u16 {
    let authentic = if query.dnssec_ok() {
        flag::AD
    } else {
        query.header.flags & flag::AD
    };
    query.header.flags & (flag::RD | flag::CD) | authentic
}

fn reply_flags(query: &Query, head: &Head) -> u16 {
    let flags = query_flags(query);
    if head.authentic_data {
        flags
    } else {
        flags & !flag::AD
    }
}

/// The longest reply in bytes that the client may get.
fn reply_limit(query: &Query, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => TCP_MESSAGE_MAX,
        Transport::Udp => query
            .edns
            .map_or(UDP_WITHOUT_EDNS, |edns| edns.udp_limit())
            .min(UDP_MESSAGE_MAX),
    }
}

fn client_edns(query: &Query) -> ClientEdns {
    ClientEdns {
        dnssec_ok: query.dnssec_ok(),
        cookie: None,
        keepalive: None,
    }
}

/// The OPT record of a reply.
pub(super) fn opt_reply(edns: &ClientEdns, code: u16) -> OptReply {
    OptReply {
        extended_rcode: 0,
        dnssec_ok: edns.dnssec_ok,
        ede: (code != ede::NONE).then_some(code),
        cookie: edns.cookie,
        keepalive: edns.keepalive,
    }
}

/// The fair share bucket of a client: keyed, so that nobody can choose to share another's.
fn bucket(address: IpAddr, seed: &[u8; 16]) -> u8 {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        // One household or host has a whole /64.
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            octets
        }
    };
    Key {
        name: &octets,
        qtype: 0,
        dnssec_ok: false,
        checking_disabled: false,
    }
    .hash(seed) as u8
}
