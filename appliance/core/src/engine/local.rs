//! Answers that are made here: local data, special-use names, blocked names, ANY, and what a server says of itself.

use super::query::{Asking, reply_to};
use super::{CacheAccess, Engine, Outcome, Turn};
use crate::cache::Head;
use crate::counters::Counter;
use crate::dns::build::{WriteError, Writer};
use crate::dns::edns::ede;
use crate::dns::query::Query;
use crate::dns::render::{Ttl, render};
use crate::dns::{class, rcode, rtype};
use crate::policy::local::End;
use crate::policy::special::{self, Answer, Special};
use crate::policy::{Action, BlockRecord, Blocked, Decision, Labels, Policy};

/// RFC 8482 section 4.2: the CPU field names the document, the OS field is empty.
const ANY_RDATA: &[u8] = b"\x07RFC8482\x00";
/// TTL of the answer to ANY in seconds, as the RFC's example has it.
const ANY_TTL_SECS: u32 = 3_789;
/// TTL of the SOA of a local negative answer in seconds: local data changes.
const LOCAL_NEGATIVE_TTL_SECS: u32 = 60;
/// Longest CHAOS TXT string.
const TXT_MAX: usize = 255;

/// The sections of an answer that is being made.
struct Draft<'a> {
    writer: Writer<'a>,
    head: Head,
}

impl<'a> Draft<'a> {
    fn new(template: &'a mut [u8], query: &Query) -> Result<Self, WriteError> {
        let mut writer = Writer::new(template);
        writer.question(query.name.as_wire(), query.qtype, query.qclass)?;
        Ok(Self {
            writer,
            head: Head {
                authoritative: true,
                ..Head::EMPTY
            },
        })
    }

    fn answer(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl_secs: u32,
        rdata: &[u8],
    ) -> Result<(), WriteError> {
        self.head.answers += 1;
        self.writer.record(owner, rtype, ttl_secs, rdata)
    }

    /// The SOA that says for how long a negative answer holds (RFC 2308 section 3).
    fn negative(&mut self, zone: &[u8], ttl_secs: u32) -> Result<(), WriteError> {
        self.head.authorities += 1;
        self.writer.soa(zone, ttl_secs, special::SOA_TAIL)
    }
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Whether the client is answered at all: `None`, it is.
    pub(super) fn admit(
        &mut self,
        turn: &Turn<'_>,
        asking: &Asking<'_, R>,
        message: &mut [u8],
    ) -> Option<Outcome> {
        match turn.policy.admit(asking.client.address) {
            Action::Allow => None,
            Action::Drop => {
                self.counters.count(Counter::AclDropped);
                Some(Outcome::Silence)
            }
            Action::Refuse => {
                Some(self.refuse(message, asking, rcode::REFUSED.into(), ede::PROHIBITED))
            }
        }
    }

    /// Answers in class CHAOS: who we are, if the config says so.
    pub(super) fn answer_chaos(&mut self, asking: &Asking<'_, R>, message: &mut [u8]) -> Outcome {
        let text = match asking.query.name.as_wire() {
            b"\x07version\x04bind\0" | b"\x07version\x06server\0" => self.settings.version,
            b"\x02id\x06server\0" | b"\x08hostname\x04bind\0" => self.settings.identity,
            _ => None,
        };
        let wanted = matches!(asking.query.qtype, rtype::TXT | rtype::ANY);
        let Some(text) = text.filter(|text| wanted && text.len() <= TXT_MAX) else {
            return self.refuse(message, asking, rcode::REFUSED.into(), ede::NOT_SUPPORTED);
        };
        self.make(asking, message, |draft, query| {
            draft.head.answers = 1;
            let name = query.name.as_wire();
            draft
                .writer
                .text_record(name, rtype::TXT, class::CH, text.as_bytes())
        })
    }

    /// Answers ANY with as little as can be (RFC 8482).
    pub(super) fn answer_any(&mut self, asking: &Asking<'_, R>, message: &mut [u8]) -> Outcome {
        self.make(asking, message, |draft, query| {
            draft.head.authoritative = false;
            draft.answer(query.name.as_wire(), rtype::HINFO, ANY_TTL_SECS, ANY_RDATA)
        })
    }

    /// Answers what policy decides here. `Err`: the upstream group to be asked.
    pub(super) fn answer_by_policy(
        &mut self,
        turn: &Turn<'_>,
        asking: &Asking<'_, R>,
        message: &mut [u8],
    ) -> Result<Outcome, u8> {
        let policy = turn.policy;
        let Some(labels) = Labels::new(asking.query.name.as_wire()) else {
            return Err(0);
        };
        match policy.decide(&labels, asking.query.qtype) {
            Decision::Forward { group } => Err(group as u8),
            Decision::Local(_) => {
                self.counters.count(Counter::LocalAnswers);
                Ok(self.make(asking, message, |draft, query| {
                    write_local(draft, policy, &labels, query.qtype)
                }))
            }
            Decision::Special(special) => {
                self.counters.count(Counter::LocalAnswers);
                Ok(self.make(asking, message, |draft, query| {
                    write_special(draft, &labels, query.qtype, &special)
                }))
            }
            Decision::Blocked(blocked) => {
                self.counters.count(Counter::Blocked);
                Ok(self.make(asking, message, |draft, query| {
                    write_blocked(draft, policy, query, blocked)
                }))
            }
            Decision::PlainName => {
                self.counters.count(Counter::LocalAnswers);
                Ok(self.make(asking, message, |draft, _| {
                    draft.head.rcode = rcode::NXDOMAIN;
                    draft.negative(b"\0", LOCAL_NEGATIVE_TTL_SECS)
                }))
            }
        }
    }

    /// Writes an answer into the template, then the client's message from it.
    fn make(
        &mut self,
        asking: &Asking<'_, R>,
        message: &mut [u8],
        write: impl FnOnce(&mut Draft<'_>, &Query) -> Result<(), WriteError>,
    ) -> Outcome {
        let query = asking.query;
        let drafted = Draft::new(&mut self.tables.template, query).and_then(|mut draft| {
            write(&mut draft, query)?;
            Ok((draft.head, draft.writer.position()))
        });
        let Ok((head, end)) = drafted else {
            return self.refuse(message, asking, rcode::SERVFAIL.into(), ede::NONE);
        };
        let body = &self.tables.template[query.question_end..end];
        let mut reply = reply_to(asking, &head, Ttl::Aged(0), head.ede, message.len());
        if self.settings.rotate {
            self.turn = self.turn.wrapping_add(1);
            reply.rotate = self.turn;
        }
        let (len, truncated) = render(message, query.question_end, &head, body, &reply);
        if truncated {
            self.counters.count(Counter::TruncatedGiven);
        }
        Outcome::Reply(len)
    }
}

fn write_local(
    draft: &mut Draft<'_>,
    policy: &Policy<'_>,
    labels: &Labels<'_>,
    qtype: u16,
) -> Result<(), WriteError> {
    let mut written = Ok(());
    let end = policy.local.resolve(labels, qtype, |owner, record| {
        if written.is_ok() {
            written = draft.answer(owner, record.rtype, record.ttl_secs, record.rdata);
        }
    });
    written?;
    match end {
        End::Records | End::Upstream(_) => Ok(()),
        End::Nodata(zone) => draft.negative(
            zone.unwrap_or_else(|| labels.name()),
            LOCAL_NEGATIVE_TTL_SECS,
        ),
        End::Nxdomain(zone) => {
            draft.head.rcode = rcode::NXDOMAIN;
            draft.negative(zone, LOCAL_NEGATIVE_TTL_SECS)
        }
        End::Endless => {
            draft.head.rcode = rcode::SERVFAIL;
            Ok(())
        }
    }
}

fn write_special(
    draft: &mut Draft<'_>,
    labels: &Labels<'_>,
    qtype: u16,
    special: &Special,
) -> Result<(), WriteError> {
    let zone = labels.suffix(special.zone_depth);
    match special.answer {
        Answer::Record(rdata) => draft.answer(labels.name(), qtype, special::TTL_SECS, rdata),
        Answer::Soa => {
            draft.head.answers += 1;
            draft.writer.soa(zone, special::TTL_SECS, special::SOA_TAIL)
        }
        Answer::Ns => draft.answer(zone, rtype::NS, special::TTL_SECS, zone),
        Answer::Nodata => draft.negative(zone, special::TTL_SECS),
        Answer::Nxdomain => {
            draft.head.rcode = rcode::NXDOMAIN;
            draft.negative(zone, special::TTL_SECS)
        }
    }
}

fn write_blocked(
    draft: &mut Draft<'_>,
    policy: &Policy<'_>,
    query: &Query,
    _blocked: Blocked,
) -> Result<(), WriteError> {
    draft.head.authoritative = false;
    draft.head.ede = ede::BLOCKED;
    let (name, ttl_secs) = (query.name.as_wire(), policy.block_ttl_secs);
    match policy.block_answer.record(query.qtype) {
        BlockRecord::A(address) => draft.answer(name, rtype::A, ttl_secs, &address),
        BlockRecord::Aaaa(address) => draft.answer(name, rtype::AAAA, ttl_secs, &address),
        BlockRecord::Nodata => draft.negative(name, ttl_secs),
        BlockRecord::Nxdomain => {
            draft.head.rcode = rcode::NXDOMAIN;
            draft.negative(name, ttl_secs)
        }
    }
}
