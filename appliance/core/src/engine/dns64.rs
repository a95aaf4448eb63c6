//! DNS64 (RFC 6147): where a name has no AAAA records, A records are asked for, and AAAA records are made of them.
//!
//! ```text
//!  AAAA ──► records ──────────────────────────────────► given, but for excluded addresses
//!       └─► none, or a failure ──► A ──► records ─────► AAAA records made of them
//!                                    └─► none, failure ► given
//! ```
//! Both questions are one in the table and for the client. The name of an address that was made leads to that of the IPv4
//! address, by an alias.

use super::local::{Draft, Replacement};
use super::{CacheAccess, Call, Effects, Engine, Live, group_of};
use crate::answer::{CHAIN_PREFIX_BYTES, ChainPrefix, Head, Kept, Key, Response};
use crate::counters::Counter;
use crate::dns::build::{WriteError, Writer};
use crate::dns::edns::ede;
use crate::dns::header::flag;
use crate::dns::query::Query;
use crate::dns::record::{Record, Records};
use crate::dns::{Name, class, rcode, read_u16, rtype};
use crate::forward::pending::{SubKind, SubQuestion};
use crate::forward::question::{Failure, NoAaaa, Question};
use crate::policy::dns64::TTL_SECS;
use crate::policy::{BlockRecord, Dns64, Labels, Policy, Translated, TranslationPrefix};
use heapless::Vec;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Lets DNS64 have its part in an answer. Returns true if the question goes on, for A records, or has failed; if false, the
    /// answer is to be given.
    pub(super) fn translate<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        response: &mut Response<'_>,
    ) -> bool {
        // Of a truncated answer nobody gets a record.
        if response.truncated {
            return false;
        }
        let Some(question) = self.tables.pending.get(index) else {
            return false;
        };
        let policy = call.context.of_view(question.view).policy;
        let prefix = policy.translation(question.into());
        match (question.no_aaaa, prefix) {
            (Some(no_aaaa), prefix) => {
                self.make_aaaa(index, prefix, no_aaaa, response);
                false
            }
            (None, Some(_)) => self.look_for_a(call, index, response),
            (None, None) => false,
        }
    }

    /// Asks for A records if the answer has no AAAA record that counts. Returns true if so; if false, the answer is left with
    /// those that count.
    fn look_for_a<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        response: &mut Response<'_>,
    ) -> bool {
        let Live { pending, reply } = &mut *self.tables;
        let Some(question) = pending.get(index) else {
            return false;
        };
        let dns64 = &call.context.of_view(question.view).policy.dns64;
        let aaaa = Tally::of(dns64, response);
        if aaaa.counting > 0 {
            if aaaa.excluded > 0 && leave_out(response, question, reply, dns64).is_err() {
                self.give_none(index, TTL_SECS, response);
            }
            return false;
        }
        let is_empty = response.head.rcode == rcode::NOERROR;
        // An alias whose target policy withholds leads nowhere for A either.
        let is_withheld = response.head.ede == ede::BLOCKED;
        if aaaa.excluded == 0 && (!is_empty || is_withheld) {
            return false;
        }
        let no_aaaa = NoAaaa {
            ttl_secs: denial_ttl_secs(response),
            authentic_data: response.head.authentic_data,
        };
        if self.turns_to_a(call, index, no_aaaa) {
            self.begin(call, index);
            return true;
        }
        if aaaa.excluded > 0 {
            self.give_none(index, no_aaaa.ttl_secs, response);
        }
        false
    }

    /// Makes a question for AAAA one for A, where DNS64 applies and policy forwards that. Returns true if so.
    fn turns_to_a<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        no_aaaa: NoAaaa,
    ) -> bool {
        let pending = &self.tables.pending;
        let (Some(question), Some(asked)) = (pending.get(index), pending.asked_name(index)) else {
            return false;
        };
        let policy = call.context.of_view(question.view).policy;
        if question.no_aaaa.is_some() || policy.translation(question.into()).is_none() {
            return false;
        }
        // A name that is blocked for A alone is not to be reached by its addresses.
        let is_forwarded = group_of(policy, &question.name, rtype::A).is_some();
        let group = group_of(policy, asked, rtype::A).filter(|_| is_forwarded);
        let Some(group) = group else {
            return false;
        };
        self.let_go(call.context.now, index, call.effects);
        self.tables.pending.turn_to_a(index, no_aaaa, group);
        true
    }

    /// The same after a failure, which counts as an answer without records (RFC 6147 sections 5.1.2 and 5.1.3). Where the
    /// servers were silent about AAAA alone, they have as long again. A name whose denial a server does not believe gets no
    /// addresses (section 5.5).
    pub(super) fn turns_to_a_after<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        failure: Failure,
    ) -> bool {
        let Some(question) = self.tables.pending.get(index) else {
            return false;
        };
        let now = call.context.now;
        let is_late = question.deadlines.give_up <= now;
        let is_dead = is_late && self.upstreams.is_unreachable(question.group);
        if is_dead || failure.ede == ede::NOT_READY || ede::is_of_validation(failure.ede) {
            return false;
        }
        let no_aaaa = NoAaaa {
            ttl_secs: TTL_SECS,
            authentic_data: false,
        };
        let turns = self.turns_to_a(call, index, no_aaaa);
        if turns
            && is_late
            && let Some((question, _)) = self.tables.pending.get_mut(index)
        {
            question.deadlines.give_up = now + self.settings.give_up_ms;
        }
        turns
    }

    /// Makes AAAA records of the A records of an answer, with the shorter of their TTL and that of the denial (RFC 6147 section
    /// 5.1.7). An answer without A records is given as it is (section 5.1.6).
    fn make_aaaa(
        &mut self,
        index: u16,
        prefix: Option<TranslationPrefix>,
        no_aaaa: NoAaaa,
        response: &mut Response<'_>,
    ) {
        let Live { pending, reply } = &mut *self.tables;
        let Some(question) = pending.get(index) else {
            return;
        };
        response.head.authentic_data &= no_aaaa.authentic_data;
        if !response
            .records()
            .flatten()
            .any(|record| record.rtype == rtype::A)
        {
            return;
        }
        let made = |rdata: &[u8]| prefix?.make(rdata.try_into().ok()?);
        let rewritten = rewrite(response, question, reply, |record, rdata| {
            match record.rtype {
                rtype::A => made(rdata).map_or(Change::LeaveOut, |address| Change::Aaaa {
                    address,
                    ttl_secs: record.ttl_secs.min(no_aaaa.ttl_secs),
                }),
                _ if covers(record, rdata, rtype::A) => Change::LeaveOut,
                _ => Change::Keep,
            }
        });
        let has_aaaa = |record: Record| record.rtype == rtype::AAAA;
        if rewritten.is_ok() && response.records().flatten().any(has_aaaa) {
            response.head.ttl_secs = response.head.ttl_secs.min(no_aaaa.ttl_secs);
            self.counters.count(Counter::Dns64Answers);
        } else {
            // None of them can be reached by the NAT64, the prefix is gone, or they are too many for a message.
            self.give_none(index, no_aaaa.ttl_secs, response);
        }
    }

    /// Replaces an answer by one without records.
    fn give_none(&self, index: u16, ttl_secs: u32, response: &mut Response<'_>) {
        let Some(question) = self.tables.pending.get(index) else {
            return;
        };
        let none = Replacement {
            name: question.name.as_wire(),
            qtype: question.qtype,
            record: BlockRecord::Nodata,
            ttl_secs: ttl_secs.min(response.head.ttl_secs),
            ede: ede::NONE,
        };
        none.write(response);
    }

    /// Asks for the name of the IPv4 address in place of that of an address that DNS64 has made. Returns true if so.
    pub(super) fn ask_for_v4_name<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
    ) -> bool {
        let Some((question, None)) = self.tables.pending.get_mut(index) else {
            return false;
        };
        if question.qtype != rtype::PTR {
            return false;
        }
        let policy = call.context.of_view(question.view).policy;
        let Some((name, group)) = v4_name(policy, question) else {
            return false;
        };
        let Some(prefix) = alias_to(&question.name, &name) else {
            return false;
        };
        question.translated = true;
        let sub = SubQuestion {
            name,
            steps: 1,
            kind: SubKind::Alias(prefix),
        };
        self.ask_sub(call, index, &sub, group);
        true
    }
}

impl From<&Query> for Translated {
    fn from(query: &Query) -> Self {
        Self {
            qtype: query.qtype,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.header.has(flag::CD),
        }
    }
}

impl From<&Question> for Translated {
    fn from(question: &Question) -> Self {
        Self {
            qtype: question.qtype,
            dnssec_ok: question.dnssec_ok,
            checking_disabled: question.checking_disabled,
        }
    }
}

impl From<&Key<'_>> for Translated {
    fn from(key: &Key<'_>) -> Self {
        Self {
            qtype: key.qtype,
            dnssec_ok: key.dnssec_ok,
            checking_disabled: key.checking_disabled,
        }
    }
}

/// Name that is asked for in place of the question's, and the group of servers for it.
fn v4_name(policy: &Policy<'_>, question: &Question) -> Option<(Name, u8)> {
    let labels = Labels::new(question.name.as_wire())?;
    let name = policy.translated_name(&labels, question.into())?;
    let group = group_of(policy, &name, question.qtype)?;
    Some((name, group))
}

/// The alias that leads from the name of an IPv6 address to that of its IPv4 address.
fn alias_to(owner: &Name, target: &Name) -> Option<ChainPrefix> {
    let mut message = [0; CHAIN_PREFIX_BYTES];
    let mut draft = Draft::new(&mut message, owner.as_wire(), rtype::PTR, class::IN).ok()?;
    let start = draft.writer.position();
    draft.v4_alias(owner, target).ok()?;
    let end = draft.writer.position();
    Some(ChainPrefix {
        answers: 1,
        ttl_secs: TTL_SECS,
        authentic_data: false,
        body: Vec::from_slice(message.get(start..end)?).ok()?,
    })
}

impl Draft<'_> {
    /// Writes that alias.
    pub(super) fn v4_alias(&mut self, owner: &Name, target: &Name) -> Result<(), WriteError> {
        self.answer(owner.as_wire(), rtype::CNAME, TTL_SECS, target.as_wire())
    }
}

/// TTL of the SOA record that came with a denial, in seconds; that of a denial without one.
fn denial_ttl_secs(response: &Response<'_>) -> u32 {
    let soa = records(response).find(|record| record.rtype == rtype::SOA);
    soa.map_or(TTL_SECS, |soa| soa.ttl_secs)
}

/// Records of all sections.
fn records<'r>(response: &'r Response<'_>) -> impl Iterator<Item = Record> + use<'r> {
    let count = usize::from(response.head.answers) + usize::from(response.head.authorities);
    Records::new(response.message(), response.body().start, count).flatten()
}

/// Numbers of AAAA records in an answer.
struct Tally {
    counting: usize,
    excluded: usize,
}

impl Tally {
    fn of(dns64: &Dns64<'_>, response: &Response<'_>) -> Self {
        Self::of_records(dns64, response.message(), response.records())
    }

    fn of_records(dns64: &Dns64<'_>, message: &[u8], records: Records<'_>) -> Self {
        let aaaa = || {
            records
                .clone()
                .flatten()
                .filter(|record| record.rtype == rtype::AAAA)
        };
        let excluded = aaaa().filter(|record| dns64.is_excluded(&message[record.rdata()]));
        let excluded = excluded.count();
        Self {
            counting: aaaa().count() - excluded,
            excluded,
        }
    }
}

/// True for a signature over records of this type (RFC 4034 section 3.1.1).
fn covers(record: &Record, rdata: &[u8], rtype: u16) -> bool {
    record.rtype == rtype::RRSIG && read_u16(rdata, 0) == Some(rtype)
}

/// What becomes of a record when an answer is written anew.
enum Change {
    Keep,
    LeaveOut,
    /// It becomes an AAAA record.
    Aaaa {
        address: [u8; 16],
        ttl_secs: u32,
    },
}

/// Writes an answer to `question` anew, each record as `change` says of it and its RDATA. The answer is copied to `copy` for
/// that.
fn rewrite(
    response: &mut Response<'_>,
    question: &Question,
    copy: &mut [u8],
    change: impl Fn(&Record, &[u8]) -> Change,
) -> Result<(), WriteError> {
    let (head, body) = (response.head, response.body());
    let message = &mut copy[..body.end];
    message.copy_from_slice(response.message());
    let name = question.name.as_wire();
    response.replace(|scratch| {
        let mut writer = Writer::new(scratch);
        writer.question(name, question.qtype, class::IN)?;
        let [mut answers, mut authorities] = [0; 2];
        let count = usize::from(head.answers) + usize::from(head.authorities);
        for (nth, record) in Records::new(message, body.start, count).enumerate() {
            let record = record.map_err(|_| WriteError::Malformed)?;
            match change(&record, &message[record.rdata()]) {
                Change::Keep => writer.copy_record(message, &record, record.ttl_secs)?,
                Change::LeaveOut => continue,
                Change::Aaaa { address, ttl_secs } => {
                    let owner = Name::parse(message, record.owner);
                    let (owner, _) = owner.map_err(|_| WriteError::Malformed)?;
                    writer.record(owner.as_wire(), rtype::AAAA, ttl_secs, &address)?;
                }
            }
            if nth < usize::from(head.answers) {
                answers += 1;
            } else {
                authorities += 1;
            }
        }
        let head = Head {
            answers,
            authorities,
            ..head
        };
        Ok((head, writer.position()))
    })
}

/// Leaves excluded addresses out of an answer, and the signature, which is over all of them.
fn leave_out(
    response: &mut Response<'_>,
    question: &Question,
    copy: &mut [u8],
    dns64: &Dns64<'_>,
) -> Result<(), WriteError> {
    response.head.authentic_data = false;
    rewrite(response, question, copy, |record, rdata| {
        let is_excluded = record.rtype == rtype::AAAA && dns64.is_excluded(rdata);
        if is_excluded || covers(record, rdata, rtype::AAAA) {
            Change::LeaveOut
        } else {
            Change::Keep
        }
    })
}

/// True if this policy's DNS64 would give the cached answer as it is, or has no part in it.
pub(super) fn is_translated_alike(
    policy: &Policy<'_>,
    key: &Key<'_>,
    head: &Head,
    kept: &Kept,
) -> bool {
    if key.qtype == rtype::PTR {
        let labels = Labels::new(key.name);
        let name = labels.and_then(|labels| policy.translated_name(&labels, key.into()));
        // Such names are seldom asked for, so they are not compared.
        return !head.translated && name.is_none();
    }
    let Some(prefix) = policy.translation(key.into()) else {
        return !head.translated;
    };
    let answers = Records::new(kept.message(), kept.body().start, head.answers.into());
    if head.translated {
        let is_made = |rdata: &[u8]| {
            rdata
                .try_into()
                .is_ok_and(|rdata| prefix.extract(rdata).is_some())
        };
        let mut aaaa = answers
            .flatten()
            .filter(|record| record.rtype == rtype::AAAA);
        return aaaa.all(|record| is_made(&kept.message()[record.rdata()]));
    }
    let aaaa = Tally::of_records(&policy.dns64, kept.message(), answers);
    head.rcode != rcode::NOERROR || aaaa.counting > 0 && aaaa.excluded == 0
}
