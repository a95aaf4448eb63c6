//! A query with the properties of its reply that are known before the answer, and the reply itself.

use super::alias::{AliasQuestion, AnswerMessage};
use super::cookie::{Checked, CookieTime, SecretRotations};
use super::{CacheAccess, Client, Context, Engine, Live, Transport};
use crate::answer::{Answer, HashedKey, Head, Kept, Key, Rendered, Reply, Ttl};
use crate::counters::{Counter, Counters};
use crate::dns::edns::{Cookie, OptReply, ede};
use crate::dns::header::flag;
use crate::dns::query::Query;
use crate::dns::{Name, rcode};
use crate::forward::pending::ClientEdns;
use crate::limits::{TCP_MESSAGE_MAX, UDP_MESSAGE_MAX};
use crate::policy::Policy;
use xdnsd_abi::rate::control;

/// Shortest UDP answer that every client takes (RFC 1035 section 4.2.1).
const UDP_WITHOUT_EDNS: usize = 512;

/// Place of a question: the hash of its name finds it in the cache and among those in flight; its group has the servers.
pub(super) struct Placement {
    /// Keyed hash of the name.
    pub name_hash: u64,
    /// Group of upstreams.
    pub group: u8,
}

/// A well-formed query with the decisions about its reply.
pub(super) struct Request<'q, R> {
    /// The query.
    pub query: &'q Query,
    /// Source of the query.
    pub client: &'q Client<R>,
    /// The message of the query. The answer is written over it.
    pub message: &'q mut [u8],
    /// EDNS properties of the reply; `None` if the query has no EDNS.
    pub edns: Option<ClientEdns>,
    /// Longest reply that the client may get, in bytes.
    pub limit: usize,
    /// True if the client's address is proven, by a valid cookie or a TCP connection.
    pub is_proven: bool,
    /// True if cookies are on and the query came over UDP without a valid one: `Settings::nocookie_udp_size` applies.
    pub lacks_cookie: bool,
    /// Number of the client's view.
    pub view: u8,
    /// Target of local aliases, whose records are looked up in place of QNAME's.
    pub target: Option<Name>,
}

impl<R> Request<'_, R> {
    /// Name whose records are looked up.
    pub(super) fn name(&self) -> &Name {
        self.target.as_ref().unwrap_or(&self.query.name)
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.client.transport == Transport::Tcp
    }

    /// True if the query has RD set, so that upstreams may be asked (RFC 1035 section 4.1.1).
    pub(super) fn wants_recursion(&self) -> bool {
        self.query.header.has(flag::RD)
    }

    /// Cache key of the question; `name_hash` is the hash of [`name`](Self::name).
    pub(super) fn key(&self, name_hash: u64) -> HashedKey<'_> {
        let key = Key {
            name: self.name().as_wire(),
            ..Key::of(self.query, self.view)
        };
        key.with_name_hash(name_hash)
    }
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Builds the request: all of the reply that is known before the answer.
    #[inline(always)]
    pub(super) fn request<'q>(
        &self,
        context: &Context<'_>,
        query: &'q Query,
        client: &'q Client<R>,
        message: &'q mut [u8],
    ) -> Request<'q, R> {
        let tcp = client.transport == Transport::Tcp;
        let mut has_cookie = false;
        let edns = query.edns.map(|edns| ClientEdns {
            dnssec_ok: edns.dnssec_ok,
            cookie: edns
                .cookie
                .and_then(|cookie| self.check_cookie(context, client, &cookie))
                .map(|checked| {
                    has_cookie = checked.is_valid;
                    checked.reply
                }),
            keepalive: (tcp && edns.keepalive).then_some(self.settings.tcp_idle_100ms),
        });
        Request {
            query,
            client,
            message,
            edns,
            limit: reply_limit(query, client.transport),
            is_proven: tcp || has_cookie,
            lacks_cookie: self.settings.cookies.is_some() && !tcp && !has_cookie,
            view: context.policy.view,
            target: None,
        }
    }
}

impl<R, C> Engine<'_, R, C> {
    /// Checks a client's cookie at the present time; `None` if cookies are off.
    #[inline(always)]
    pub(super) fn check_cookie(
        &self,
        context: &Context<'_>,
        client: &Client<R>,
        cookie: &Cookie,
    ) -> Option<Checked> {
        let secret = self.settings.cookies?;
        let moment = CookieTime {
            secs: context.unix_secs,
            turns: SecretRotations::of_word((self.accounts)().control(control::TURNS)),
        };
        Some(secret.check(cookie, client.address, moment))
    }
}

/// Counts a reply that has an RCODE and no records.
pub(super) fn count_refusal(counters: &Counters, code: u8) {
    match code {
        rcode::FORMERR => counters.count(Counter::FormerrGiven),
        rcode::NOTIMP => counters.count(Counter::NotimpGiven),
        rcode::REFUSED => counters.count(Counter::RefusedGiven),
        rcode::SERVFAIL => counters.count(Counter::ServfailGiven),
        _ => {}
    }
}

/// Flags that the reply copies from the query, and AD if the client understands it (RFC 6840 section 5.7).
pub(super) fn query_flags(query: &Query) -> u16 {
    let authentic = if query.dnssec_ok() {
        flag::AD
    } else {
        query.header.flags & flag::AD
    };
    query.header.flags & (flag::RD | flag::CD) | authentic
}

/// The reply to the request for an answer with this head. `code` is an extended error or [`ede::NONE`].
pub(super) fn reply_to<R>(request: &Request<'_, R>, head: &Head, ttl: Ttl, code: u16) -> Reply {
    let flags = query_flags(request.query);
    Reply {
        id: request.query.header.id,
        flags: if head.authentic_data {
            flags
        } else {
            flags & !flag::AD
        },
        ttl,
        limit: request.limit.min(request.message.len()),
        opt: request.edns.map(|edns| opt_reply(&edns, code)),
        rotate: 0,
    }
}

impl<R: Copy + PartialEq> Live<R> {
    /// Renders the answer to an alias from the cached records of its target.
    pub(super) fn render_alias(
        &mut self,
        policy: &Policy<'_>,
        request: &mut Request<'_, R>,
        answer: &Answer<'_>,
        reply: &Reply,
    ) -> Rendered {
        let kept = Kept::new(request.name().as_wire(), answer.body);
        let kept = kept.expect("what the cache holds fits a slot");
        let source = AnswerMessage {
            head: answer.head,
            message: kept.message(),
            body: kept.body(),
        };
        let question_end = request.query.question_end;
        self.reply[..question_end].copy_from_slice(&request.message[..question_end]);
        let alias = AliasQuestion {
            name: &request.query.name,
            qtype: request.query.qtype,
            policy,
        };
        let rendered = alias.render(&mut self.reply, &source, reply);
        request.message[..rendered.len].copy_from_slice(&self.reply[..rendered.len]);
        rendered
    }
}

/// Longest reply to the client in bytes.
fn reply_limit(query: &Query, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => TCP_MESSAGE_MAX,
        Transport::Udp => query
            .edns
            .map_or(UDP_WITHOUT_EDNS, |edns| edns.udp_limit())
            .min(UDP_MESSAGE_MAX),
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
