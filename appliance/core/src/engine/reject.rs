//! Replies to malformed messages, and to kinds of queries that are neither cached nor forwarded.

use super::request::{Request, count_refusal, opt_reply};
use super::{CacheAccess, Client, Context, Engine, Outcome};
use crate::counters::Counter;
use crate::dns::edns::{Edns, OptReply, ede};
use crate::dns::header::{HEADER_LEN, Header, flag};
use crate::dns::query::{QueryError, rejected_opt};
use crate::dns::{class, rcode, rtype};
use crate::forward::pending::ClientEdns;
use crate::policy::Action;

/// A message in a buffer that has room for its reply.
pub(super) struct MessageBuffer<'m> {
    pub message: &'m mut [u8],
    /// Length of the message in bytes.
    pub len: usize,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Answers queries that go neither to policy nor to cache or upstreams; `None` for all others.
    pub(super) fn refuse_kind(&mut self, request: &mut Request<'_, R>) -> Option<Outcome> {
        let query = request.query;
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return Some(self.refuse(request, rcode::BADVERS, ede::NONE));
        }
        // RFC 7873 section 5.2.2. With cookies off the option is ignored like an unknown one.
        if query.edns.is_some_and(|edns| edns.cookie_is_malformed)
            && self.settings.cookies.is_some()
        {
            return Some(self.refuse(request, rcode::FORMERR.into(), ede::NONE));
        }
        match query.qclass {
            class::IN => {}
            class::CH => return Some(self.answer_chaos(request)),
            _ => {
                return Some(self.refuse(request, rcode::REFUSED.into(), ede::NOT_SUPPORTED));
            }
        }
        // Zone transfers and the retired mailbox meta types (RFC 1035 section 3.2.3), which a forwarder does not serve.
        if (rtype::IXFR..rtype::ANY).contains(&query.qtype) {
            return Some(self.refuse(request, rcode::REFUSED.into(), ede::NOT_SUPPORTED));
        }
        None
    }

    /// Answers a message that is not a well-formed query, in place.
    #[cold]
    pub(super) fn reject(
        &mut self,
        context: &Context<'_>,
        client: &Client<R>,
        received: MessageBuffer<'_>,
        error: QueryError,
    ) -> Outcome {
        let MessageBuffer { message, len } = received;
        let (code, keep, cookie_only) = match error {
            QueryError::Ignore => {
                self.counters.count(Counter::IgnoredMessages);
                return Outcome::Silence;
            }
            QueryError::Reject { rcode, keep } => (rcode, keep, None),
            QueryError::CookieOnly(edns) => (rcode::FORMERR, HEADER_LEN, Some(edns)),
        };
        // A client without access learns nothing from a malformed message either.
        match context.policy.admit(client.address) {
            Action::Drop | Action::Local => {
                self.counters.count(Counter::AclDropped);
                return Outcome::Silence;
            }
            Action::Allow if self.is_too_much(context, client) => return Outcome::Silence,
            Action::Allow => {
                let given = cookie_only.and_then(|edns| self.give_cookie(context, client, &edns));
                if let Some((code, opt)) = given {
                    return write(message, HEADER_LEN, code, Some(&opt));
                }
            }
            Action::Refuse => {}
        }
        count_refusal(self.counters, code);
        let opt = rejected_opt(&message[..len]).map(|dnssec_ok| OptReply {
            dnssec_ok,
            ..OptReply::default()
        });
        write(message, keep, code, opt.as_ref())
    }

    /// Reply to a query for a cookie alone: NOERROR, or BADCOOKIE if the client's server cookie is not valid (RFC 7873
    /// section 5.4). `None` if cookies are off.
    fn give_cookie(
        &self,
        context: &Context<'_>,
        client: &Client<R>,
        edns: &Edns,
    ) -> Option<(u8, OptReply)> {
        let cookie = edns.cookie?;
        let checked = self.check_cookie(context, client, &cookie)?;
        let mut opt = opt_reply(
            &ClientEdns {
                dnssec_ok: edns.dnssec_ok,
                cookie: Some(checked.reply),
                keepalive: None,
            },
            ede::NONE,
        );
        if cookie.server_len == 0 || checked.is_valid {
            return Some((rcode::NOERROR, opt));
        }
        self.counters.count(Counter::BadCookies);
        opt.extended_rcode = (rcode::BADCOOKIE >> 4) as u8;
        Some(((rcode::BADCOOKIE & 0xf) as u8, opt))
    }
}

/// Writes the reply: the header, then the first `keep` bytes as they came, then OPT.
fn write(message: &mut [u8], keep: usize, code: u8, opt: Option<&OptReply>) -> Outcome {
    let Some(received) = Header::parse(message) else {
        return Outcome::Silence;
    };
    let end = opt.and_then(|opt| opt.emit(message, keep));
    let kept = flag::OPCODE_MASK | flag::RD | flag::CD;
    let header = Header {
        id: received.id,
        flags: flag::QR | flag::RA | received.flags & kept | u16::from(code),
        counts: [u16::from(keep > HEADER_LEN), 0, 0, u16::from(end.is_some())],
    };
    header
        .emit(message)
        .map_or(Outcome::Silence, |()| Outcome::Reply(end.unwrap_or(keep)))
}
