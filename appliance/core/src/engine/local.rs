//! Answers made here: local data, special-use names, blocked names, ANY, and CHAOS queries about the server.

use super::alias::leads_to;
use super::request::{Request, reply_to};
use super::{CacheAccess, Context, Engine, Outcome};
use crate::answer::{Answer, Head, Response, Ttl};
use crate::counters::{Counter, ViewCounter};
use crate::dns::build::{LOCAL_ANSWER_MAX, WriteError, Writer};
use crate::dns::edns::ede;
use crate::dns::query::Query;
use crate::dns::{Name, class, rcode, rtype};
use crate::policy::local::{End, Local};
use crate::policy::special::{self, Special, ZoneAnswer};
use crate::policy::{
    Action, BlockRecord, Blocked, Decision, Labels, Policy, TranslationPrefix, dns64,
};

/// RFC 8482 section 4.2: the CPU field names the document, the OS field is empty.
const ANY_RDATA: &[u8] = b"\x07RFC8482\x00";
/// TTL of the answer to ANY in seconds, as in the RFC's example.
const ANY_TTL_SECS: u32 = 3_789;
/// TTL of the SOA of a local negative answer in seconds, unless policy sets one.
const LOCAL_NEGATIVE_TTL_SECS: u32 = 60;
/// Longest CHAOS TXT string in bytes.
const TXT_MAX: usize = 255;

/// An answer under construction.
pub(super) struct Draft<'a> {
    pub writer: Writer<'a>,
    pub head: Head,
}

impl<'a> Draft<'a> {
    pub fn new(
        scratch: &'a mut [u8],
        name: &[u8],
        qtype: u16,
        qclass: u16,
    ) -> Result<Self, WriteError> {
        let mut writer = Writer::new(scratch);
        writer.question(name, qtype, qclass)?;
        Ok(Self {
            writer,
            head: Head {
                authoritative: true,
                ..Head::EMPTY
            },
        })
    }

    pub fn answer(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl_secs: u32,
        rdata: &[u8],
    ) -> Result<(), WriteError> {
        self.head.answers += 1;
        self.writer.record(owner, rtype, ttl_secs, rdata)
    }

    /// Writes the answer for a blocked name.
    pub fn blocked(
        &mut self,
        name: &[u8],
        record: BlockRecord,
        ttl_secs: u32,
    ) -> Result<(), WriteError> {
        match record {
            BlockRecord::A(address) => self.answer(name, rtype::A, ttl_secs, &address),
            BlockRecord::Aaaa(address) => self.answer(name, rtype::AAAA, ttl_secs, &address),
            BlockRecord::Nodata => self.negative(name, ttl_secs),
            BlockRecord::Nxdomain => {
                self.head.rcode = rcode::NXDOMAIN;
                self.negative(name, ttl_secs)
            }
        }
    }

    /// Writes the SOA that gives a negative answer its TTL (RFC 2308 section 3).
    fn negative(&mut self, zone: &[u8], ttl_secs: u32) -> Result<(), WriteError> {
        self.head.authorities += 1;
        self.writer.soa(zone, ttl_secs, special::SOA_TAIL)
    }
}

/// An answer of one record, or none, in place of one of upstream.
pub(super) struct Replacement<'n> {
    pub name: &'n [u8],
    pub qtype: u16,
    pub record: BlockRecord,
    pub ttl_secs: u32,
    /// Extended error.
    pub ede: u16,
}

impl Replacement<'_> {
    /// Writes it over that one.
    pub fn write(self, response: &mut Response<'_>) {
        let Self { name, ttl_secs, .. } = self;
        let stored = response.head.stored;
        let replaced = response.replace(|scratch| {
            let mut draft = Draft::new(scratch, name, self.qtype, class::IN)?;
            draft.blocked(name, self.record, ttl_secs)?;
            let head = Head {
                stored,
                authoritative: false,
                ttl_secs,
                ede: self.ede,
                ..draft.head
            };
            Ok::<_, WriteError>((head, draft.writer.position()))
        });
        replaced.expect("the buffer holds a name and one record");
    }
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Applies access control; `None` if the client is allowed.
    pub(super) fn admit(
        &mut self,
        context: &Context<'_>,
        request: &mut Request<'_, R>,
    ) -> Option<Outcome> {
        match context.policy.admit(request.client.address) {
            Action::Allow => None,
            Action::Drop | Action::Local => {
                self.counters.count(Counter::AclDropped);
                Some(Outcome::Silence)
            }
            Action::Refuse => Some(self.refuse(request, rcode::REFUSED.into(), ede::PROHIBITED)),
        }
    }

    /// Answers a query of class CHAOS with version or identity, if the config sets them.
    pub(super) fn answer_chaos(&mut self, request: &mut Request<'_, R>) -> Outcome {
        let text = match request.query.name.as_wire() {
            b"\x07version\x04bind\0" | b"\x07version\x06server\0" => self.settings.version,
            b"\x02id\x06server\0" | b"\x08hostname\x04bind\0" => self.settings.identity,
            _ => None,
        };
        let wanted = matches!(request.query.qtype, rtype::TXT | rtype::ANY);
        let Some(text) = text.filter(|text| wanted && text.len() <= TXT_MAX) else {
            return self.refuse(request, rcode::REFUSED.into(), ede::NOT_SUPPORTED);
        };
        self.make(request, |draft, query| {
            draft.head.answers = 1;
            let name = query.name.as_wire();
            draft
                .writer
                .text_record(name, rtype::TXT, class::CH, text.as_bytes())
        })
    }

    /// Answers ANY with a minimal HINFO record (RFC 8482).
    pub(super) fn answer_any(&mut self, request: &mut Request<'_, R>) -> Outcome {
        self.make(request, |draft, query| {
            draft.head.authoritative = false;
            draft.answer(query.name.as_wire(), rtype::HINFO, ANY_TTL_SECS, ANY_RDATA)
        })
    }

    /// Answers what policy decides without an upstream. `Err`: the group of upstreams to ask, for `request.target` if it is
    /// set.
    pub(super) fn answer_by_policy(
        &mut self,
        context: &Context<'_>,
        request: &mut Request<'_, R>,
    ) -> Result<Outcome, u8> {
        let policy = context.policy;
        let query = request.query;
        let Some(labels) = Labels::new(query.name.as_wire()) else {
            return Err(0);
        };
        let asked = LocalQuestion {
            policy,
            labels: &labels,
            qtype: query.qtype,
        };
        let decision = policy.decide(&labels, query.qtype);
        if decision.may_be_translated()
            && let Some(answered) = self.answer_by_dns64(&asked, request)
        {
            return answered;
        }
        match decision {
            Decision::Forward { group } => Err(group as u8),
            // All types: an alias is what the name has (RFC 1034 section 4.3.2, step 3a).
            Decision::Local(Local::Alias(_)) if query.qtype == rtype::ANY => {
                let asked = LocalQuestion {
                    qtype: rtype::CNAME,
                    ..asked
                };
                Ok(self.answer_local(&asked, request))
            }
            Decision::Local(Local::Alias(_)) => match leads_to(policy, &labels, query.qtype) {
                Some(target) => self.answer_alias(&asked, request, &target),
                None => Ok(self.answer_local(&asked, request)),
            },
            // The name exists with other types; no record has type 255 itself.
            Decision::Local(Local::Nodata { .. }) if query.qtype == rtype::ANY => {
                Ok(self.answer_any(request))
            }
            Decision::Local(_) => Ok(self.answer_local(&asked, request)),
            Decision::Special(special) => {
                self.counters.count(Counter::LocalAnswers);
                Ok(self.make(request, |draft, _| asked.write_special(draft, &special)))
            }
            Decision::Blocked(blocked) => Ok(self.answer_blocked(policy, request, blocked)),
            Decision::PlainName => {
                self.counters.count(Counter::LocalAnswers);
                Ok(self.make(request, |draft, _| write_plain_name(draft, policy)))
            }
        }
    }

    /// Answers an alias whose target is outside of local data. `Err`: as for [`answer_by_policy`](Self::answer_by_policy).
    fn answer_alias(
        &mut self,
        asked: &LocalQuestion<'_, '_>,
        request: &mut Request<'_, R>,
        target: &Labels<'_>,
    ) -> Result<Outcome, u8> {
        let policy = asked.policy;
        let decision = policy.decide(target, request.query.qtype);
        match decision {
            Decision::Forward { group } => {
                request.target = Name::from_wire(target.name());
                return Err(group as u8);
            }
            Decision::Blocked(blocked) => {
                return Ok(self.answer_blocked(policy, request, blocked));
            }
            Decision::Local(_) | Decision::Special(_) | Decision::PlainName => {}
        }
        self.counters.count(Counter::LocalAnswers);
        Ok(self.make(request, |draft, _| {
            asked.write_local(draft)?;
            match decision {
                Decision::Special(special) => {
                    let asked = LocalQuestion {
                        labels: target,
                        ..*asked
                    };
                    asked.write_special(draft, &special)
                }
                Decision::PlainName => write_plain_name(draft, policy),
                Decision::Forward { .. } | Decision::Local(_) | Decision::Blocked(_) => Ok(()),
            }
        }))
    }

    /// Lets DNS64 answer a question; `None` if it has nothing to say of it before upstream is asked.
    fn answer_by_dns64(
        &mut self,
        asked: &LocalQuestion<'_, '_>,
        request: &mut Request<'_, R>,
    ) -> Option<Result<Outcome, u8>> {
        let LocalQuestion { policy, labels, .. } = asked;
        if let Some(prefix) = policy.discovered(labels, request.query.into()) {
            return Some(Ok(self.answer_discovery(request, prefix)));
        }
        let name = policy.translated_name(labels, request.query.into())?;
        Some(self.answer_v4_name(asked, request, &name))
    }

    /// Tells a client the prefix of DNS64, without a question upstream, whose servers may have another one (RFC 8880 section 7.1).
    fn answer_discovery(
        &mut self,
        request: &mut Request<'_, R>,
        prefix: TranslationPrefix,
    ) -> Outcome {
        self.counters.count(Counter::LocalAnswers);
        self.make(request, |draft, query| {
            let mut addresses = dns64::DISCOVERY_ADDRESSES.into_iter();
            addresses.try_for_each(|v4| {
                let address = prefix.embed(v4);
                draft.answer(query.name.as_wire(), rtype::AAAA, dns64::TTL_SECS, &address)
            })
        })
    }

    /// Answers a question for the name of an address that DNS64 has made, if `name`, which it leads to, is answered here. `Err`:
    /// as for [`answer_by_policy`](Self::answer_by_policy), but QNAME is looked up.
    fn answer_v4_name(
        &mut self,
        asked: &LocalQuestion<'_, '_>,
        request: &mut Request<'_, R>,
        name: &Name,
    ) -> Result<Outcome, u8> {
        let policy = asked.policy;
        let Some(labels) = Labels::new(name.as_wire()) else {
            return Err(0);
        };
        let decision = policy.decide(&labels, asked.qtype);
        match decision {
            Decision::Forward { group } => return Err(group as u8),
            Decision::Blocked(blocked) => {
                return Ok(self.answer_blocked(policy, request, blocked));
            }
            Decision::Local(_) | Decision::Special(_) | Decision::PlainName => {}
        }
        self.counters.count(Counter::LocalAnswers);
        let asked = LocalQuestion {
            policy,
            labels: &labels,
            qtype: asked.qtype,
        };
        Ok(self.make(request, |draft, query| {
            draft.v4_alias(&query.name, name)?;
            match decision {
                Decision::Special(special) => asked.write_special(draft, &special),
                Decision::PlainName => write_plain_name(draft, policy),
                Decision::Local(_) => asked.write_local(draft),
                Decision::Forward { .. } | Decision::Blocked(_) => Ok(()),
            }
        }))
    }

    fn answer_local(
        &mut self,
        asked: &LocalQuestion<'_, '_>,
        request: &mut Request<'_, R>,
    ) -> Outcome {
        self.counters.count(Counter::LocalAnswers);
        self.make(request, |draft, _| asked.write_local(draft))
    }

    fn answer_blocked(
        &mut self,
        policy: &Policy<'_>,
        request: &mut Request<'_, R>,
        blocked: Blocked,
    ) -> Outcome {
        self.counters.count(Counter::Blocked);
        self.counters.count_for(policy.view, ViewCounter::Blocked);
        self.make(request, |draft, query| {
            draft.head.authoritative = false;
            draft.head.ede = ede::BLOCKED;
            let record = policy.block_record(blocked, query.qtype);
            draft.blocked(query.name.as_wire(), record, policy.block_ttl_secs)
        })
    }

    /// Writes an answer into a buffer and renders it into the client's message. If it cannot be written, the reply is
    /// SERVFAIL with the draft's extended error.
    fn make(
        &mut self,
        request: &mut Request<'_, R>,
        write: impl FnOnce(&mut Draft<'_>, &Query) -> Result<(), WriteError>,
    ) -> Outcome {
        let query = request.query;
        let (name, buffer) = (
            query.name.as_wire(),
            &mut self.tables.reply[..LOCAL_ANSWER_MAX],
        );
        let draft = Draft::new(buffer, name, query.qtype, query.qclass);
        let drafted =
            draft
                .map_err(|_| ede::NONE)
                .and_then(|mut draft| match write(&mut draft, query) {
                    Ok(()) => Ok((draft.head, draft.writer.position())),
                    Err(_) => Err(draft.head.ede),
                });
        let (head, end) = match drafted {
            Ok(drafted) => drafted,
            Err(code) => return self.refuse(request, rcode::SERVFAIL.into(), code),
        };
        let mut reply = reply_to(request, &head, Ttl::Aged(0), head.ede);
        reply.rotate = self.next_rotation();
        let answer = Answer {
            head: &head,
            body: &self.tables.reply[query.question_end..end],
        };
        let rendered = reply.render(request.message, query.question_end, &answer);
        if rendered.truncated {
            self.counters.count(Counter::TruncatedGiven);
        }
        Outcome::Reply(rendered.len)
    }
}

/// A question answered by local data or as a special-use name.
struct LocalQuestion<'a, 'q> {
    policy: &'a Policy<'q>,
    labels: &'a Labels<'q>,
    qtype: u16,
}

impl LocalQuestion<'_, '_> {
    fn write_local(&self, draft: &mut Draft<'_>) -> Result<(), WriteError> {
        let mut written = Ok(());
        let mut is_full = false;
        let end = self
            .policy
            .resolve(self.labels, self.qtype, |owner, record| {
                if written.is_err() || is_full {
                    return;
                }
                let before = (draft.writer.position(), draft.head.answers);
                written = draft.answer(owner, record.rtype, record.ttl_secs, record.rdata);
                // Of too many records as many are given as fit.
                if written == Err(WriteError::Full) && before.1 > 0 {
                    draft.writer.rewind(before.0);
                    draft.head.answers = before.1;
                    (written, is_full) = (Ok(()), true);
                }
            });
        written?;
        let ttl_secs = negative_ttl_secs(self.policy);
        match end {
            End::Records | End::Upstream(_) => Ok(()),
            // A query for the SOA of a zone's apex gets that very record as answer, not as denial.
            End::Nodata(Some(zone)) if self.qtype == rtype::SOA && zone == self.labels.name() => {
                draft.head.answers += 1;
                draft.writer.soa(zone, ttl_secs, special::SOA_TAIL)
            }
            End::Nodata(zone) => {
                draft.negative(zone.unwrap_or_else(|| self.labels.name()), ttl_secs)
            }
            End::Nxdomain(zone) => {
                draft.head.rcode = rcode::NXDOMAIN;
                draft.negative(zone, ttl_secs)
            }
            End::Endless => {
                draft.head.ede = ede::OTHER;
                Err(WriteError::Malformed)
            }
        }
    }

    fn write_special(&self, draft: &mut Draft<'_>, special: &Special) -> Result<(), WriteError> {
        let zone = self.labels.suffix(special.zone_depth);
        // A machine of this network may get the name soon.
        let denial_ttl_secs = self.policy.denial_ttl_secs;
        let denial_ttl_secs = denial_ttl_secs.filter(|_| special.kind.is_for_private_use());
        let denial_ttl_secs = denial_ttl_secs.unwrap_or(special::TTL_SECS);
        match special.answer {
            ZoneAnswer::Record(rdata) => {
                draft.answer(self.labels.name(), self.qtype, special::TTL_SECS, rdata)
            }
            ZoneAnswer::Soa => {
                draft.head.answers += 1;
                draft.writer.soa(zone, special::TTL_SECS, special::SOA_TAIL)
            }
            ZoneAnswer::Ns => draft.answer(zone, rtype::NS, special::TTL_SECS, zone),
            ZoneAnswer::Nodata => draft.negative(zone, denial_ttl_secs),
            ZoneAnswer::Nxdomain => {
                draft.head.rcode = rcode::NXDOMAIN;
                draft.negative(zone, denial_ttl_secs)
            }
        }
    }
}

/// TTL of a denial by local data, in seconds.
fn negative_ttl_secs(policy: &Policy<'_>) -> u32 {
    policy.denial_ttl_secs.unwrap_or(LOCAL_NEGATIVE_TTL_SECS)
}

/// Writes NXDOMAIN for a name of one label that local data lacks and policy does not forward.
fn write_plain_name(draft: &mut Draft<'_>, policy: &Policy<'_>) -> Result<(), WriteError> {
    draft.head.rcode = rcode::NXDOMAIN;
    draft.negative(b"\0", negative_ttl_secs(policy))
}
