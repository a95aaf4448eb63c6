//! Names that do not exist: what was said for type A holds for all types (RFC 2308 section 5, RFC 8020 section 2), unless
//! something contradicts.
//!
//! Some servers deny a name for want of a type that they do not know (RFC 4074 section 4.2). So what is said for another
//! type than A, which all of them know, holds for that type alone; and of a name that has been seen to exist, each type is
//! believed by itself. What shows that a name exists: an answer for any of its types, with any flags, that is in the cache
//! or comes later; and one with TTL 0, which is not kept, leaves a mark.
//!
//! Denial and mark are kept under [`HashedKey::any_type`]; the mark under the one without flags.

use super::request::Request;
use crate::answer::{Answer, HashedKey, Head};
use crate::cache::Shard;
use crate::dns::edns::ede;
use crate::dns::{rcode, rtype};
use crate::time::Instant;

/// Types that names have beside A. An answer for one of them, however old, shows that the name exists.
const OTHER_TYPES: [u16; 9] = [
    rtype::AAAA,
    rtype::HTTPS,
    rtype::MX,
    rtype::TXT,
    rtype::NS,
    rtype::SOA,
    rtype::SRV,
    rtype::SVCB,
    rtype::CNAME,
];

/// Whether the answer says of the name itself that it does not exist, and not of an alias's target, nor by our own policy.
fn denies_name(head: &Head) -> bool {
    head.rcode == rcode::NXDOMAIN && head.answers == 0 && head.ede != ede::BLOCKED
}

/// Whether the shard, which is that of the name, has an answer for `key` with any flags that shows that the name exists.
fn shows_name(shard: &Shard, key: &HashedKey<'_>) -> bool {
    key.with_any_flags().any(|key| {
        let head = shard.head(&key);
        head.is_some_and(|head| head.rcode == rcode::NOERROR)
    })
}

/// The key of the mark of a name that exists.
const fn mark_of<'a>(key: &HashedKey<'a>) -> HashedKey<'a> {
    key.any_type().without_flags()
}

/// Whether the name was seen to exist so lately that a denial from before would still hold.
fn is_marked(shard: &Shard, key: &HashedKey<'_>, now: Instant) -> bool {
    let head = shard.head(&mark_of(key));
    head.is_some_and(|head| head.rcode == rcode::NOERROR && now < head.expires())
}

/// Keeps for all types that the name does not exist, or ends that where the answer shows that it does. The shard is that
/// of the name. A mark holds as long as the longest denial, for `mark_secs`.
pub(super) fn note_existence(
    shard: &mut Shard,
    key: &HashedKey<'_>,
    answer: &Answer<'_>,
    mark_secs: u32,
) {
    let head = answer.head;
    if denies_name(head) {
        let other = |qtype| shows_name(shard, &key.with_qtype(qtype));
        // Only for A, which every server knows, and against no evidence: see above. What is not kept for A is for no other
        // type, either.
        let is_believed = key.key().qtype == rtype::A
            && head.ttl_secs > 0
            && !is_marked(shard, key, head.stored)
            && !OTHER_TYPES.into_iter().any(other);
        if is_believed {
            shard.insert(&key.any_type(), answer);
        }
        return;
    }
    for denial in key.any_type().with_any_flags() {
        if shard
            .head(&denial)
            .is_some_and(|head| head.rcode == rcode::NXDOMAIN)
        {
            shard.remove(&denial);
        }
    }
    if head.ttl_secs == 0 {
        let head = Head {
            ttl_secs: mark_secs,
            stored: head.stored,
            ..Head::EMPTY
        };
        shard.insert(&mark_of(key), &Answer::bare(&head));
    }
}

/// What is kept for all types of the name in question, where it says that the name does not exist, and nothing shows that it
/// does. A DS is asked of somebody else than the other types (RFC 4035 section 3.1.4.1), who has not denied it.
pub(super) fn denial_of<'s, R>(
    shard: &'s mut Shard,
    name_hash: u64,
    request: &Request<'_, R>,
) -> Option<Answer<'s>> {
    if request.query.qtype == rtype::DS || request.target.is_some() {
        return None;
    }
    let key = request.key(name_hash);
    if shows_name(shard, &key) {
        return None;
    }
    let found = shard.find(&key.any_type())?;
    denies_name(found.head).then_some(found)
}
