//! A query with what is known of its reply before there is an answer, and the reply's shape once there is.

use super::alias::{AliasQuestion, AnswerMessage};
use super::cookie::{Checked, Moment, SecretRotations};
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

/// Where a question belongs: its name's hash says where in the cache and among those in flight, its group who is asked.
pub(super) struct Placement {
    /// Keyed hash of the name.
    pub name_hash: u64,
    /// Group of upstreams.
    pub group: u8,
}

/// A well-formed query with what is decided about its reply before it is answered.
pub(super) struct Request<'q, R> {
    /// The query.
    pub query: &'q Query,
    /// Who asks.
    pub client: &'q Client<R>,
    /// The query as it came. Its answer is written over it.
    pub message: &'q mut [u8],
    /// What its EDNS asks for; `None`: no EDNS.
    pub edns: Option<ClientEdns>,
    /// The longest reply that it may get.
    pub limit: usize,
    /// Whether its client is where it says: it has a valid cookie, or a connection.
    pub is_proven: bool,
    /// Whether longer replies than `Settings::nocookie_udp_size` are for clients with a cookie, and it has none.
    pub lacks_cookie: bool,
    /// The view of its client.
    pub view: u8,
    /// The name to which local aliases lead, and whose records are to be found.
    pub target: Option<Name>,
}

impl<R> Request<'_, R> {
    /// The name whose records are to be found.
    pub(super) fn name(&self) -> &Name {
        self.target.as_ref().unwrap_or(&self.query.name)
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.client.transport == Transport::Tcp
    }

    /// Whether the client wants upstream to be asked for it (RFC 1035 section 4.1.1, RD).
    pub(super) fn wants_recursion(&self) -> bool {
        self.query.header.has(flag::RD)
    }

    /// The key under which they are kept; `name_hash` is that of [`name`](Self::name).
    pub(super) fn key(&self, name_hash: u64) -> HashedKey<'_> {
        let key = Key {
            name: self.name().as_wire(),
            ..Key::of(self.query, self.view)
        };
        key.with_name_hash(name_hash)
    }
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// What can be said of the reply before the answer is known.
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
    /// What a client's cookie says now. `None`: we give no cookies.
    #[inline(always)]
    pub(super) fn check_cookie(
        &self,
        context: &Context<'_>,
        client: &Client<R>,
        cookie: &Cookie,
    ) -> Option<Checked> {
        let secret = self.settings.cookies?;
        let moment = Moment {
            secs: context.unix_secs,
            turns: SecretRotations::of_word((self.accounts)().control(control::TURNS)),
        };
        Some(secret.check(cookie, client.address, moment))
    }
}

/// Counts an answer with this code and nothing else.
pub(super) fn count_refusal(counters: &Counters, code: u8) {
    match code {
        rcode::FORMERR => counters.count(Counter::FormerrGiven),
        rcode::NOTIMP => counters.count(Counter::NotimpGiven),
        rcode::REFUSED => counters.count(Counter::RefusedGiven),
        rcode::SERVFAIL => counters.count(Counter::ServfailGiven),
        _ => {}
    }
}

/// Flags of the query that its reply repeats, and AD where the client understands it (RFC 6840 section 5.7).
pub(super) fn query_flags(query: &Query) -> u16 {
    let authentic = if query.dnssec_ok() {
        flag::AD
    } else {
        query.header.flags & flag::AD
    };
    query.header.flags & (flag::RD | flag::CD) | authentic
}

/// What the client gets for an answer with this head. `code` is an extended error or [`ede::NONE`].
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
    /// Answers an alias from the cached records of its target.
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
