//! Path of a query: to an answer at once, or to a question in flight.

use super::hit::Known;
use super::lookup::Lookup;
use super::reject::MessageBuffer;
use super::request::{Placement, Request, count_refusal, reply_to};
use super::sets::hand_on_reply;
use super::{CacheAccess, Call, Client, Context, Effects, Engine, Outcome};
use crate::answer::{Answer, Head, Rendered, Reply, Ttl, name_hash};
use crate::counters::{Counter, ViewCounter};
use crate::dns::edns::ede;
use crate::dns::header::flag;
use crate::dns::query::Query;
use crate::dns::{rcode, rtype};
use crate::rate::RateKind;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Answers the query in `message[..len]`. An immediate answer is written over it. The buffer should hold
    /// [`UDP_MESSAGE_MAX`] bytes (TCP: 65,535); a longer answer is truncated to the buffer.
    ///
    /// [`UDP_MESSAGE_MAX`]: crate::limits::UDP_MESSAGE_MAX
    pub fn query<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        client: &Client<R>,
        message: &mut [u8],
        len: usize,
    ) -> Outcome {
        let context = &call.context.of_client(client);
        let call = &mut context.call(&mut *call.effects);
        self.noted = None;
        // Borrowed, because a copy of the name would cost every hit.
        let parsed = Query::parse(&message[..len]);
        let query = match &parsed {
            Ok(query) => query,
            Err(error) => {
                let received = MessageBuffer { message, len };
                return self.reject(context, client, received, *error);
            }
        };
        let mut request = self.request(context, query, client, message);
        if let Some(outcome) = self.admit(context, &mut request) {
            return outcome;
        }
        if let Some(outcome) = self.limit(context, &mut request, RateKind::Query) {
            return outcome;
        }
        // Before cache and policy, which know class IN and plain types alone.
        let outcome = match self.refuse_kind(&mut request) {
            Some(outcome) => outcome,
            None => self.answer(call, &mut request),
        };
        let is_long =
            matches!(outcome, Outcome::Reply(len) if len > self.settings.nocookie_udp_size);
        if request.lacks_cookie && is_long {
            return self.ask_for_cookie(&mut request);
        }
        self.charge_size(context, &request, outcome);
        outcome
    }

    /// Answers a question of class IN.
    fn answer<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        request: &mut Request<'_, R>,
    ) -> Outcome {
        let context = call.context;
        context.count(self.counters, ViewCounter::Queries);
        // One hash of the name serves every look-up below: types and flags are mixed in afterwards.
        let mut hash_of_name = name_hash(request.query.name.as_wire(), &self.cache.seed());
        let known = self.answer_from_same_policy(context, hash_of_name, request);
        if let Known::Answered(outcome) = known {
            return outcome;
        }
        let group = match self.answer_by_policy(context, request) {
            Ok(outcome) => return outcome,
            Err(_) if request.query.qtype == rtype::ANY => return self.answer_any(request),
            Err(group) => group,
        };
        // From here on the question is about the target of a local alias, if there is one. The look-up above was for
        // QNAME.
        let has_alias = request.target.is_some();
        if has_alias {
            hash_of_name = name_hash(request.name().as_wire(), &self.cache.seed());
        }
        let placement = Placement {
            name_hash: hash_of_name,
            group,
        };
        let found = if known == Known::Nothing && !has_alias {
            // An answer that another worker has stored since costs one more question upstream at most.
            Lookup::Miss
        } else {
            self.look_up(context, &placement, request)
        };
        let (Rendered { len, truncated }, stale) = match found {
            Lookup::Hit {
                rendered,
                refresh,
                stale,
                sets,
            } => {
                if let Some(sets) = sets {
                    hand_on_reply(call.effects, sets, request, rendered.len);
                }
                if refresh && request.wants_recursion() {
                    self.refresh(call, &placement, request);
                }
                (rendered, stale)
            }
            Lookup::Denied(rendered) => (rendered, false),
            missed @ (Lookup::Stale | Lookup::Mark | Lookup::Miss) => {
                return self.miss(call, &placement, request, missed);
            }
        };
        self.count_hit(context, stale, truncated);
        Outcome::Reply(len)
    }

    /// Counts an answer from the cache.
    fn count_hit(&self, context: &Context<'_>, stale: bool, truncated: bool) {
        context.count(self.counters, ViewCounter::Cached);
        self.counters.count(if stale {
            Counter::CacheStale
        } else {
            Counter::CacheHits
        });
        if truncated {
            self.counters.count(Counter::TruncatedGiven);
        }
    }

    /// Withholds a long answer from a client whose address is not proven: BADCOOKIE if it speaks cookies (RFC 7873
    /// section 5.2.3), TC if it does not.
    fn ask_for_cookie(&mut self, request: &mut Request<'_, R>) -> Outcome {
        self.counters.count(Counter::BadCookies);
        if request.edns.is_some_and(|edns| edns.cookie.is_some()) {
            return self.refuse(request, rcode::BADCOOKIE, ede::NONE);
        }
        let head = Head::EMPTY;
        let mut reply = reply_to(request, &head, Ttl::Aged(0), ede::NONE);
        reply.flags |= flag::TC;
        render_bare(request, &head, &reply)
    }

    /// Answers a well-formed query with an RCODE and no records, in place.
    pub(super) fn refuse(
        &mut self,
        request: &mut Request<'_, R>,
        code: u16,
        extended: u16,
    ) -> Outcome {
        count_refusal(self.counters, (code & 0xf) as u8);
        let head = Head {
            rcode: (code & 0xf) as u8,
            ..Head::EMPTY
        };
        let mut reply = reply_to(request, &head, Ttl::Aged(0), extended);
        if let Some(opt) = &mut reply.opt {
            opt.extended_rcode = (code >> 4) as u8;
        }
        render_bare(request, &head, &reply)
    }
}

/// Answers with header, question and OPT, without records, in place.
pub(super) fn render_bare<R>(request: &mut Request<'_, R>, head: &Head, reply: &Reply) -> Outcome {
    let end = request.query.question_end;
    let rendered = reply.render(request.message, end, &Answer::bare(head));
    Outcome::Reply(rendered.len)
}
