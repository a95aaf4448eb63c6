//! Rate limits per client: queries, and questions that go upstream for them.
//!
//! Hits are never limited before misses: a miss is a query as well, and the config allows at least as many queries as
//! misses.

use super::query::render_bare;
use super::request::{Request, reply_to};
use super::{CacheAccess, Client, Context, Engine, Outcome, Transport};
use crate::answer::{Head, Ttl};
use crate::counters::Counter;
use crate::dns::edns::ede;
use crate::dns::header::flag;
use crate::rate::{Limit, RateKind, unit};
use xdnsd_abi::rate::ClientPrefix;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Charges a query, or a question that is to be taken on, to its client. `Some`: over the limit.
    #[inline(always)]
    pub(super) fn limit(
        &self,
        context: &Context<'_>,
        request: &mut Request<'_, R>,
        kind: RateKind,
    ) -> Option<Outcome> {
        if !self.is_limited(kind) || request.is_proven {
            return None;
        }
        match self.charge(context, request.client, kind) {
            Limit::Within => None,
            Limit::Slip => Some(slip(request)),
            Limit::Drop => Some(Outcome::Silence),
        }
    }

    /// Charges a long answer that was given at once: it counts as several queries, since it is worth more to who forges
    /// addresses. Answers that come later are limited as misses.
    #[inline(always)]
    pub(super) fn charge_size(
        &self,
        context: &Context<'_>,
        request: &Request<'_, R>,
        outcome: Outcome,
    ) {
        let Outcome::Reply(len) = outcome else {
            return;
        };
        let rates = &self.settings.rates;
        let further = rates.further_queries(len);
        if further == 0 || request.is_proven || !self.is_limited(RateKind::Query) {
            return;
        }
        if let Some(unit) = unit_of(context, request.client) {
            (self.accounts)().charge_answered(unit, further, rates, context.now);
        }
    }

    /// Charges an unreadable message to its client. Returns true if that is over the limit.
    pub(super) fn is_too_much(&self, context: &Context<'_>, client: &Client<R>) -> bool {
        self.is_limited(RateKind::Query)
            && client.transport == Transport::Udp
            && self.charge(context, client, RateKind::Query) != Limit::Within
    }

    #[inline(always)]
    const fn is_limited(&self, kind: RateKind) -> bool {
        match kind {
            RateKind::Query => self.settings.rates.queries.is_on(),
            RateKind::Miss => self.settings.rates.misses.is_on(),
        }
    }

    #[cold]
    fn charge(&self, context: &Context<'_>, client: &Client<R>, kind: RateKind) -> Limit {
        let Some(unit) = unit_of(context, client) else {
            return Limit::Within;
        };
        let accounts = (self.accounts)();
        let limit = accounts.charge(unit, kind, &self.settings.rates, context.now);
        match (kind, limit) {
            (_, Limit::Within) => {}
            (RateKind::Query, Limit::Slip) => self.counters.count(Counter::RateQueriesSlipped),
            (RateKind::Query, Limit::Drop) => self.counters.count(Counter::RateQueriesDropped),
            (RateKind::Miss, Limit::Slip) => self.counters.count(Counter::RateMissesSlipped),
            (RateKind::Miss, Limit::Drop) => self.counters.count(Counter::RateMissesDropped),
        }
        limit
    }
}

/// Account of a client; `None` for this machine itself, which is not limited.
fn unit_of<R>(context: &Context<'_>, client: &Client<R>) -> Option<ClientPrefix> {
    let policy = context.policy;
    let address = client.address.to_canonical();
    let is_own = policy.is_own(address);
    (!is_own).then(|| unit(address, policy.on_link.contains(address)))
}

/// Answers with TC, so that the client comes back over TCP. A client with cookies gets a valid one as well.
fn slip<R>(request: &mut Request<'_, R>) -> Outcome {
    let head = Head::EMPTY;
    let mut reply = reply_to(request, &head, Ttl::Aged(0), ede::NONE);
    reply.flags |= flag::TC;
    render_bare(request, &head, &reply)
}
