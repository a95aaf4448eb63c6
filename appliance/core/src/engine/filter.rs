//! What policy says of answers from upstream: names to which they lead, private addresses, and those that are not passed on.
//! Of an address that DNS64 has made, or is to make, the IPv4 address counts.

use super::dns64::is_translated_alike;
use super::local::Replacement;
use super::sets;
use super::{CacheAccess, Call, Effects, Engine, Notice, group_of};
use crate::answer::{Answer, HashedKey, Kept, Key, Response};
use crate::cache::Shard;
use crate::counters::{Counter, ViewCounter};
use crate::dns::edns::ede;
use crate::dns::record::{Record, Records};
use crate::dns::{Name, rtype};
use crate::policy::rebind::Finding;
use crate::policy::{BlockRecord, Blocked, Labels, Policy, TranslationPrefix};

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Replaces an answer that leads to a blocked name, or to an address that is not to be given, by one that does not. Returns
    /// true if it did.
    pub(super) fn filter<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        response: &mut Response<'_>,
    ) -> bool {
        let Some(question) = self.tables.pending.get(index) else {
            return false;
        };
        let policy = call.context.of_view(question.view).policy;
        let (name, qtype) = (question.name.as_wire(), question.qtype);
        let inspected = Inspected {
            qname: name,
            qtype,
            asked: question.asked_type(),
            made: None,
            records: response.records(),
            message: response.message(),
        };
        let record = match inspected.inspect(policy) {
            Inspection::Harmless => return false,
            Inspection::Blocked { blocked, is_alias } => {
                self.counters.count(Counter::Blocked);
                self.counters.count_for(policy.view, ViewCounter::Blocked);
                let record = policy.block_record(blocked, qtype);
                if record == BlockRecord::Nxdomain && !is_alias {
                    // The name has other records, which lead elsewhere.
                    BlockRecord::Nodata
                } else {
                    record
                }
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
        let made = Replacement {
            name,
            qtype,
            record,
            ttl_secs: policy.block_ttl_secs,
            ede: ede::BLOCKED,
        };
        made.write(response);
        true
    }
}

/// Check of a cached answer that was stored under another policy.
pub(super) struct Revalidation<'a, G> {
    pub policy: &'a Policy<'a>,
    /// Finds the group of upstreams that this policy asks.
    pub group: G,
    /// True if this policy forwards the question: an answer that stays gets its generation.
    pub is_decided: bool,
}

impl<G: FnOnce() -> u8> Revalidation<'_, G> {
    /// Removes the answer if this policy withholds it, asks another group for the name or for the target of an alias, or
    /// has something of its own to say of one; or if the earlier policy had withheld it. Else the answer stays.
    #[cold]
    pub(super) fn run(self, shard: &mut Shard, key: &HashedKey<'_>) {
        let policy = self.policy;
        let Some(found) = shard.find(key) else {
            return;
        };
        let head = found.head;
        let generation = sets::generation(policy, key.key().name, head);
        if head.generation == generation {
            return;
        }
        // Routes exist because another group of upstreams may give another answer.
        let is_of_others = head.group != (self.group)();
        let was_withheld = head.ede == ede::BLOCKED;
        if is_of_others || was_withheld || !is_allowed(policy, key.key(), &found) {
            shard.remove(key);
        } else if self.is_decided {
            shard.amend(key, |head| head.generation = generation);
        }
    }
}

/// True if policy withholds nothing in a cached answer.
fn is_allowed(policy: &Policy<'_>, key: &Key<'_>, answer: &Answer<'_>) -> bool {
    let Some(kept) = Kept::new(key.name, answer.body) else {
        return false;
    };
    let answers = usize::from(answer.head.answers);
    if !is_translated_alike(policy, key, answer.head, &kept) {
        return false;
    }
    let made = policy.translation(key.into());
    let made = made.filter(|_| answer.head.translated);
    let inspected = Inspected {
        qname: key.name,
        qtype: key.qtype,
        asked: made.map_or(key.qtype, |_| rtype::A),
        made,
        message: kept.message(),
        records: Records::new(kept.message(), kept.body().start, answers),
    };
    inspected.leads_into(policy, answer.head.group)
        && matches!(inspected.inspect(policy), Inspection::Harmless)
}

/// Verdict of policy on an answer from upstream.
enum Inspection {
    Harmless,
    /// A name to which it leads is blocked.
    Blocked {
        blocked: Blocked,
        /// True if that is the target of an alias, false if it is that of a service.
        is_alias: bool,
    },
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
    /// Type that upstream was asked for.
    asked: u16,
    /// Prefix of addresses in it that were made of IPv4 ones.
    made: Option<TranslationPrefix>,
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
            let v4 = self.v4_in(record.rtype, rdata);
            let (rtype, rdata) = match &v4 {
                Some(v4) => (rtype::A, &v4[..]),
                None => (record.rtype, rdata),
            };
            if let Some(screen) = screen {
                if screen.is_bogus(rtype, rdata) {
                    return Inspection::Bogus;
                }
                // An A record of which an AAAA record is to be made reaches no client.
                is_of_family |= record.rtype == self.qtype && screen.withholds(record.rtype);
            }
            if rebind {
                match policy.rebind.inspect(rtype, rdata, policy.dns64.prefix) {
                    Finding::Harmless => {}
                    Finding::Rebind(_) | Finding::Malformed => return Inspection::Rebind,
                }
            }
            let led_to = leads_to(self.message, &record).filter(|_| lists);
            let blocked = led_to.and_then(|target| {
                let name = Labels::new(target.as_wire())?;
                let blocked = policy.lists.blocked(&name, self.qtype);
                blocked.or_else(|| policy.lists.blocked(&name, self.asked))
            });
            if let Some(blocked) = blocked {
                return Inspection::Blocked {
                    blocked,
                    is_alias: record.rtype == rtype::CNAME,
                };
            }
        }
        if is_of_family {
            Inspection::Family
        } else {
            Inspection::Harmless
        }
    }

    /// True if policy asks this group for the target of every alias.
    fn leads_into(&self, policy: &Policy<'_>, group: u8) -> bool {
        let aliases = self.records.clone().flatten();
        let mut aliases = aliases.filter(|record| record.rtype == rtype::CNAME);
        aliases.all(|alias| {
            let target = leads_to(self.message, &alias);
            target.is_some_and(|name| group_of(policy, &name, self.asked) == Some(group))
        })
    }

    /// The IPv4 address of which this record was made.
    fn v4_in(&self, rtype: u16, rdata: &[u8]) -> Option<[u8; 4]> {
        let prefix = self.made.filter(|_| rtype == rtype::AAAA)?;
        prefix.extract(rdata.try_into().ok()?)
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
