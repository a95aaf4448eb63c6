//! What policy says of answers from upstream: names to which they lead, and private addresses.

use super::local::Draft;
use super::{CacheAccess, Call, Effects, Engine, Notice};
use crate::answer::{Answer, Head, Key};
use crate::cache::{Found, Shard};
use crate::counters::Counter;
use crate::dns::build::Writer;
use crate::dns::edns::ede;
use crate::dns::record::{Record, Records};
use crate::dns::{Name, class, rtype};
use crate::policy::rebind::Finding;
use crate::policy::{BlockRecord, Blocked, Labels, Policy};

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Replaces an answer that leads to a blocked name, or to a private address, by one that does not.
    pub(super) fn filter<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        answer: &mut Answer,
    ) {
        let Some(question) = self.tables.pending.get(index) else {
            return;
        };
        let policy = call.context.policy;
        let (name, qtype) = (question.name.as_wire(), question.qtype);
        let inspected = Inspected {
            qname: name,
            qtype,
            message: &self.tables.scratch[..answer.body_end],
            body_at: answer.body_at,
            answers: answer.head.answers,
        };
        let record = match inspected.verdict(policy) {
            Verdict::Pass => return,
            Verdict::Blocked(blocked) => {
                self.counters.count(Counter::Blocked);
                policy.block_record(blocked, qtype)
            }
            Verdict::Rebind => {
                self.counters.count(Counter::RebindWithheld);
                call.effects.notice(Notice::Rebind, &question.name);
                BlockRecord::Nodata
            }
        };
        let ttl_secs = policy.block_ttl_secs;
        let scratch = &mut self.tables.scratch;
        let drafted = Draft::new(scratch, name, qtype, class::IN).and_then(|mut draft| {
            draft.blocked(name, record, ttl_secs)?;
            Ok((draft.head, draft.writer.position()))
        });
        let (head, body_end) = drafted.expect("the buffer holds a name and one record");
        answer.body_end = body_end;
        answer.truncated = false;
        answer.head = Head {
            stored: answer.head.stored,
            authoritative: false,
            ttl_secs,
            ede: ede::BLOCKED,
            ..head
        };
    }
}

/// A second look at an answer that was kept under another policy.
pub(super) struct Revalidation<'a> {
    pub policy: &'a Policy<'a>,
    /// Whom this policy asks.
    pub group: u8,
    /// This policy has let the question through, so the answer is one of its own from now on.
    pub is_decided: bool,
    pub scratch: &'a mut [u8],
}

impl Revalidation<'_> {
    /// The answer stays where this policy would keep it, too, and is forgotten where it withholds it, or would have asked
    /// somebody else, or where the other one had withheld it.
    #[cold]
    pub(super) fn run(self, shard: &mut Shard, hash: u64, key: &Key<'_>) {
        let policy = self.policy;
        let Some(found) = shard.find(hash, key) else {
            return;
        };
        let head = found.head;
        if head.generation == policy.generation {
            return;
        }
        let is_of_group = head.group == self.group || head.group == Head::ANY_GROUP;
        let was_withheld = head.ede == ede::BLOCKED;
        if !is_of_group || was_withheld || !is_allowed(policy, key, &found, self.scratch) {
            shard.remove(hash, key);
        } else if self.is_decided {
            shard.amend(hash, key, |head| head.generation = policy.generation);
        }
    }
}

/// Whether policy finds nothing to withhold in a kept answer.
fn is_allowed(policy: &Policy<'_>, key: &Key<'_>, found: &Found<'_>, scratch: &mut [u8]) -> bool {
    let mut writer = Writer::new(scratch);
    if writer.question(key.name, key.qtype, class::IN).is_err() {
        return false;
    }
    let body_at = writer.position();
    let Some(place) = scratch.get_mut(body_at..body_at + found.body.len()) else {
        return false;
    };
    place.copy_from_slice(found.body);
    let inspected = Inspected {
        qname: key.name,
        qtype: key.qtype,
        message: scratch,
        body_at,
        answers: found.head.answers,
    };
    matches!(inspected.verdict(policy), Verdict::Pass)
}

/// What policy says of an answer from upstream.
enum Verdict {
    Pass,
    Blocked(Blocked),
    Rebind,
}

/// A sanitized answer to a question.
struct Inspected<'m> {
    qname: &'m [u8],
    qtype: u16,
    message: &'m [u8],
    body_at: usize,
    answers: u16,
}

impl Inspected<'_> {
    /// Looks at every record of the answer section: where it leads, and its addresses.
    fn verdict(&self, policy: &Policy<'_>) -> Verdict {
        let Some(qname) = Labels::new(self.qname) else {
            return Verdict::Pass;
        };
        let lists = is_listed(policy, &qname, self.qtype);
        let rebind = policy.rebind.guards(&qname);
        if !lists && !rebind {
            return Verdict::Pass;
        }
        let records = Records::new(self.message, self.body_at, usize::from(self.answers));
        for record in records.flatten() {
            if rebind {
                let rdata = &self.message[record.rdata()];
                match policy.rebind.inspect(record.rtype, rdata) {
                    Finding::Harmless => {}
                    Finding::Rebind(_) | Finding::Malformed => return Verdict::Rebind,
                }
            }
            let led_to = leads_to(self.message, &record).filter(|_| lists);
            let blocked = led_to.and_then(|target| {
                let name = Labels::new(target.as_wire())?;
                policy.lists.blocked(&name, self.qtype)
            });
            if let Some(blocked) = blocked {
                return Verdict::Blocked(blocked);
            }
        }
        Verdict::Pass
    }
}

/// Whether the names in an answer are looked up in the lists: not where a list allows the name that was asked for.
fn is_listed(policy: &Policy<'_>, qname: &Labels<'_>, qtype: u16) -> bool {
    !policy.lists.as_slice().is_empty() && !policy.lists.allows(qname, qtype)
}

/// The name to which a client goes on from this record, in lower case: an alias's, or that of a service (RFC 9460
/// section 2.1: AliasMode or not). The root is no name to go to.
fn leads_to(message: &[u8], record: &Record) -> Option<Name> {
    let at = match record.rtype {
        rtype::CNAME => record.rdata_at,
        rtype::SVCB | rtype::HTTPS => record.rdata_at + 2,
        _ => return None,
    };
    Some(Name::parse(message, at).ok()?.0.to_lower())
}
