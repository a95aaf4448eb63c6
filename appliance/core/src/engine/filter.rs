//! What policy says of answers from upstream: names to which they lead, private addresses, and those that are not passed on.

use super::local::Draft;
use super::{CacheAccess, Call, Effects, Engine, Notice};
use crate::answer::{Answer, HashedKey, Head, Kept, Key, Response};
use crate::cache::Shard;
use crate::counters::Counter;
use crate::dns::build::WriteError;
use crate::dns::edns::ede;
use crate::dns::record::{Record, Records};
use crate::dns::{Name, class, rtype};
use crate::policy::rebind::Finding;
use crate::policy::{BlockRecord, Blocked, Labels, Policy};

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Replaces an answer that leads to a blocked name, or to an address that is not to be given, by one that does not.
    pub(super) fn filter<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        response: &mut Response<'_>,
    ) {
        let Some(question) = self.tables.pending.get(index) else {
            return;
        };
        let policy = call.context.of_view(question.view).policy;
        let (name, qtype) = (question.name.as_wire(), question.qtype);
        let inspected = Inspected {
            qname: name,
            qtype,
            records: response.records(),
            message: response.message(),
        };
        let record = match inspected.inspect(policy) {
            Inspection::Harmless => return,
            Inspection::Blocked(blocked) => {
                self.counters.count(Counter::Blocked);
                policy.block_record(blocked, qtype)
            }
            Inspection::Rebind => {
                self.counters.count(Counter::RebindWithheld);
                call.effects.notice(Notice::Rebind, &question.name);
                BlockRecord::Nodata
            }
            Inspection::Bogus => {
                self.counters.count(Counter::BogusNxdomain);
                BlockRecord::Nxdomain
            }
            Inspection::Family => {
                self.counters.count(Counter::FamilyWithheld);
                BlockRecord::Nodata
            }
        };
        let ttl_secs = policy.block_ttl_secs;
        let stored = response.head.stored;
        let replaced = response.replace(|scratch| {
            let mut draft = Draft::new(scratch, name, qtype, class::IN)?;
            draft.blocked(name, record, ttl_secs)?;
            let head = Head {
                stored,
                authoritative: false,
                ttl_secs,
                ede: ede::BLOCKED,
                ..draft.head
            };
            Ok::<_, WriteError>((head, draft.writer.position()))
        });
        replaced.expect("the buffer holds a name and one record");
    }
}

/// Check of a cached answer that was stored under another policy.
pub(super) struct Revalidation<'a> {
    pub policy: &'a Policy<'a>,
    /// Group of upstreams that this policy asks.
    pub group: u8,
    /// True if this policy forwards the question: an answer that stays gets its generation.
    pub is_decided: bool,
}

impl Revalidation<'_> {
    /// Removes the answer if this policy withholds it or asks another group, or if the earlier policy had withheld it. Else
    /// the answer stays.
    #[cold]
    pub(super) fn run(self, shard: &mut Shard, key: &HashedKey<'_>) {
        let policy = self.policy;
        let Some(found) = shard.find(key) else {
            return;
        };
        let head = found.head;
        if head.generation == policy.generation {
            return;
        }
        // Routes exist because another group of upstreams may give another answer.
        let is_of_group = head.group == self.group || head.group == Head::ANY_GROUP;
        let was_withheld = head.ede == ede::BLOCKED;
        if !is_of_group || was_withheld || !is_allowed(policy, key.key(), &found) {
            shard.remove(key);
        } else if self.is_decided {
            shard.amend(key, |head| head.generation = policy.generation);
        }
    }
}

/// True if policy withholds nothing in a cached answer.
fn is_allowed(policy: &Policy<'_>, key: &Key<'_>, answer: &Answer<'_>) -> bool {
    let Some(kept) = Kept::new(key.name, answer.body) else {
        return false;
    };
    let answers = usize::from(answer.head.answers);
    let inspected = Inspected {
        qname: key.name,
        qtype: key.qtype,
        message: kept.message(),
        records: Records::new(kept.message(), kept.body().start, answers),
    };
    matches!(inspected.inspect(policy), Inspection::Harmless)
}

/// Verdict of policy on an answer from upstream.
enum Inspection {
    Harmless,
    Blocked(Blocked),
    Rebind,
    /// An address by which upstream says that the name does not exist.
    Bogus,
    /// Addresses of a family that is not given.
    Family,
}

/// A sanitized answer to a question.
struct Inspected<'m> {
    qname: &'m [u8],
    qtype: u16,
    message: &'m [u8],
    /// Records of the answer section.
    records: Records<'m>,
}

impl Inspected<'_> {
    /// Inspects every record of the answer section: the name it leads to, and its addresses.
    fn inspect(&self, policy: &Policy<'_>) -> Inspection {
        let Some(qname) = Labels::new(self.qname) else {
            return Inspection::Harmless;
        };
        let lists = is_listed(policy, &qname, self.qtype);
        let rebind = policy.rebind.guards(&qname);
        let screen = Some(&policy.screen).filter(|screen| screen.looks_at(self.qtype));
        if !lists && !rebind && screen.is_none() {
            return Inspection::Harmless;
        }
        let mut is_of_family = false;
        for record in self.records.clone().flatten() {
            let rdata = &self.message[record.rdata()];
            if let Some(screen) = screen {
                if screen.is_bogus(record.rtype, rdata) {
                    return Inspection::Bogus;
                }
                is_of_family |= screen.withholds(record.rtype);
            }
            if rebind {
                match policy.rebind.inspect(record.rtype, rdata) {
                    Finding::Harmless => {}
                    Finding::Rebind(_) | Finding::Malformed => return Inspection::Rebind,
                }
            }
            let led_to = leads_to(self.message, &record).filter(|_| lists);
            let blocked = led_to.and_then(|target| {
                let name = Labels::new(target.as_wire())?;
                policy.lists.blocked(&name, self.qtype)
            });
            if let Some(blocked) = blocked {
                return Inspection::Blocked(blocked);
            }
        }
        if is_of_family {
            Inspection::Family
        } else {
            Inspection::Harmless
        }
    }
}

/// True if the names in an answer are looked up in the lists: there are lists, and none allows QNAME.
fn is_listed(policy: &Policy<'_>, qname: &Labels<'_>, qtype: u16) -> bool {
    !policy.lists.as_slice().is_empty() && !policy.lists.allows(qname, qtype)
}

/// Name to which a client goes on from this record, in lower case: the target of an alias or of a service (RFC 9460 section
/// 2.1, AliasMode or not). The root names no service.
fn leads_to(message: &[u8], record: &Record) -> Option<Name> {
    let at = match record.rtype {
        rtype::CNAME => record.rdata_at,
        rtype::SVCB | rtype::HTTPS => record.rdata_at + 2,
        _ => return None,
    };
    Some(Name::parse(message, at).ok()?.0.to_lower())
}
