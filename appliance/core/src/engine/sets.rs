//! Addresses of answers that go into sets of the packet filter. They are handed on before the answer is, and each time that it is given,
//! because whoever fills the sets may have emptied them since.
//!
//! So an answer with such a name is kept under a generation with [`Head::OF_SETS`] in it: its hits pass policy, and none is noted for
//! the program for hot names, which fills no sets.

use super::Effects;
use super::request::Request;
use crate::answer::Head;
use crate::dns::edns::ede;
use crate::dns::header::Header;
use crate::dns::record::Records;
use crate::dns::rtype;
use crate::policy::Policy;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Number of the sets for the addresses in an answer to this name. `None`: none, or the answer is policy's own.
pub(super) fn sets_of(policy: &Policy<'_>, name: &[u8], head: &Head) -> Option<u16> {
    let is_upstreams = head.answers > 0 && head.ede != ede::BLOCKED;
    is_upstreams.then(|| policy.address_sets.of(name)).flatten()
}

/// Generation under which this policy keeps an answer to this name.
pub(super) fn generation(policy: &Policy<'_>, name: &[u8], head: &Head) -> u32 {
    marked(policy.generation, sets_of(policy, name, head).is_some())
}

/// A generation, marked if the answer's addresses go into sets.
pub(super) const fn marked(generation: u32, has_sets: bool) -> u32 {
    if has_sets {
        generation ^ Head::OF_SETS
    } else {
        generation
    }
}

/// Hands on each address in these records.
pub(super) fn hand_on<R>(
    effects: &mut impl Effects<R>,
    sets: u16,
    message: &[u8],
    records: Records<'_>,
) {
    for record in records.flatten() {
        if let Some(address) = address(record.rtype, &message[record.rdata()]) {
            effects.add_to_sets(sets, address);
        }
    }
}

/// Hands on each address in the reply that was written over the request.
pub(super) fn hand_on_reply<R>(
    effects: &mut impl Effects<R>,
    sets: u16,
    request: &Request<'_, R>,
    len: usize,
) {
    let message = &request.message[..len];
    if let Some(header) = Header::parse(message) {
        let answers = usize::from(header.counts[1]);
        let records = Records::new(message, request.query.question_end, answers);
        hand_on(effects, sets, message, records);
    }
}

fn address(rtype: u16, rdata: &[u8]) -> Option<IpAddr> {
    match rtype {
        rtype::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(rdata).ok()?).into()),
        rtype::AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(rdata).ok()?).into()),
        _ => None,
    }
}
