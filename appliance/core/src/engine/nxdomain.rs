//! Denials of a name: NXDOMAIN for type A holds for all types (RFC 2308 section 5, RFC 8020 section 2), unless there is
//! evidence of the name.
//!
//! Some servers deny a name because they do not know the type (RFC 4074 section 4.2). So NXDOMAIN for a type other than A,
//! which all servers know, holds for that type alone; and once a name has been seen to exist, each type is believed by
//! itself. Evidence of a name is an answer for any of its types, with any flags, that is in the cache or comes later. An
//! answer with TTL 0 is not cached, and leaves a mark.
//!
//! Denial and mark are stored under [`HashedKey::any_type`], the mark under the key without flags.

use super::request::Request;
use crate::answer::{Answer, HashedKey, Head};
use crate::cache::Shard;
use crate::dns::edns::ede;
use crate::dns::{rcode, rtype};
use crate::time::Instant;

/// Types beside A whose cached answers, of any age, show that the name exists.
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

/// True if the answer denies the name itself: not the target of an alias, and not by our own policy.
fn denies_name(head: &Head) -> bool {
    head.rcode == rcode::NXDOMAIN && head.answers == 0 && head.ede != ede::BLOCKED
}

/// True if the shard, which is that of the name, holds a NOERROR answer for `key` with any flags.
fn shows_name(shard: &Shard, key: &HashedKey<'_>) -> bool {
    key.with_any_flags().any(|key| {
        let head = shard.head(&key);
        head.is_some_and(|head| head.rcode == rcode::NOERROR)
    })
}

/// Key of a name's mark.
const fn mark_of<'a>(key: &HashedKey<'a>) -> HashedKey<'a> {
    key.any_type().without_flags()
}

/// True if the name was seen to exist recently enough that an earlier denial would still be valid.
fn is_marked(shard: &Shard, key: &HashedKey<'_>, now: Instant) -> bool {
    let head = shard.head(&mark_of(key));
    head.is_some_and(|head| head.rcode == rcode::NOERROR && now < head.expires())
}

/// Stores NXDOMAIN for all types of the name, or removes such a denial if the answer shows that the name exists. The shard
/// is that of the name. A mark lasts for `mark_secs`, as long as the longest denial.
pub(super) fn note_existence(
    shard: &mut Shard,
    key: &HashedKey<'_>,
    answer: &Answer<'_>,
    mark_secs: u32,
) {
    let head = answer.head;
    if denies_name(head) {
        let other = |qtype| shows_name(shard, &key.with_qtype(qtype));
        // Believed only for A, which every server knows, and without evidence to the contrary: see above. A denial that is
        // not cached for A is not cached for other types either.
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

/// The denial for all types of the request's name, unless an answer shows that the name exists. DS is excluded: it is asked
/// of the parent zone's servers (RFC 4035 section 3.1.4.1), which have not denied the name.
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
