//! Content of each name, and verdict on an answer: a function of name, type and time alone, so that each answer is judged by
//! itself, whatever happened before.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use xdnsd_lab::scripted::{A, Asked, Record, TXT};

/// QTYPE of an IPv6 address.
pub const AAAA: u16 = 28;
/// Interval at which the content of names changes.
const VERSION: Duration = Duration::from_secs(4);
/// Longest time that a stale answer is served: `cache.stale_max_ttl` of the config.
pub const STALE_MAX: Duration = Duration::from_secs(60);
/// TTL of a stale answer, for which a client may keep it.
const SLACK: Duration = Duration::from_secs(12);
/// Longest TTL of the servers' answers.
const TTL_MAX_SECS: u32 = 30;
/// Bytes of a long text, which exceeds any datagram.
const TEXT_LEN: usize = 3_000;
/// Longest character string.
const STRING_LEN: usize = 255;
/// Bytes of a header.
const HEADER_LEN: usize = 12;
/// Bytes of an answer's record before its RDATA: pointer to the question, type, class, TTL, length.
const RECORD_HEAD: usize = 12;
/// Most steps of a walk over one name.
const LABELS_MAX: usize = 128;

/// Clock of versions.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    fn version(self, at: Instant) -> u16 {
        ((at - self.0).as_secs() / VERSION.as_secs()) as u16
    }

    /// True if content of `version` may be served at `now`.
    fn is_possible(self, version: u16, now: Instant) -> bool {
        let newest = self.version(now);
        let oldest = Duration::from_secs(u64::from(TTL_MAX_SECS)) + STALE_MAX + SLACK;
        let oldest = oldest.as_secs().div_ceil(VERSION.as_secs()) as u16;
        version <= newest && newest - version <= oldest
    }
}

/// A question and its expected answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Name in wire format.
    pub name: Vec<u8>,
    /// QTYPE.
    pub kind: u16,
    /// Source of the expected answer.
    pub source: Source,
}

/// Source of a name's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The servers.
    Upstream,
    /// The config, with this address.
    Local(Ipv4Addr),
    /// A blocklist: NXDOMAIN.
    Blocked,
    /// A list that is swapped: NXDOMAIN, or the servers' answer.
    MaybeBlocked,
}

/// Verdict on an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The right answer.
    Right,
    /// SERVFAIL.
    Failed,
    /// Truncated: to be retried over TCP.
    Truncated,
    /// Wrong, with a description.
    Wrong(String),
}

/// FNV-1a (Fowler, Noll, Vo) of a name in lower case.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    })
}

fn ttl_secs(name: &[u8]) -> u32 {
    1 + hash(name) % TTL_MAX_SECS
}

/// RDATA of a name; the version is at the end of addresses.
fn data(name: &[u8], kind: u16, version: u16) -> Vec<u8> {
    let [a, b, c, d] = hash(name).to_be_bytes();
    let [e, f] = version.to_be_bytes();
    match kind {
        A => vec![20 + a % 80, b, e, f],
        AAAA => [&[0x20, 1, 0xd, 0xb8, a, b, c, d][..], &[0; 6], &[e, f]].concat(),
        _ => {
            let text: Vec<u8> = (0..TEXT_LEN).map(|at| b'a' + (at as u8 ^ d) % 26).collect();
            let strings = text.chunks(STRING_LEN);
            strings
                .flat_map(|string| [&[string.len() as u8][..], string].concat())
                .collect()
        }
    }
}

/// Response of a server.
#[must_use]
pub fn response(asked: &Asked, clock: Clock) -> Vec<u8> {
    let name = asked.wire_name();
    let kind = asked.kind();
    if ![A, AAAA, TXT].contains(&kind) {
        return asked.response(&[]);
    }
    let version = clock.version(Instant::now());
    asked.response(&[Record {
        kind,
        ttl_secs: ttl_secs(name),
        data: data(name, kind, version),
    }])
}

/// The question as a client sends it.
#[must_use]
pub fn query(expected: &Expected, id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend(&expected.name);
    query.extend(expected.kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// Judges a reply whose ID and QR are right.
#[must_use]
pub fn judge(expected: &Expected, query: &[u8], reply: &[u8], clock: Clock) -> Verdict {
    let wrong = |what: &str| Verdict::Wrong(format!("{what}: {expected:?}: {reply:02x?}"));
    if reply.len() < query.len() || reply[HEADER_LEN..query.len()] != query[HEADER_LEN..] {
        return wrong("another question");
    }
    let (code, answers) = (reply[3] & 0x0f, u16::from_be_bytes([reply[6], reply[7]]));
    match (code, expected.source) {
        (2, _) => Verdict::Failed,
        (3, Source::Blocked | Source::MaybeBlocked) if answers == 0 => Verdict::Right,
        (0, Source::Blocked) => wrong("a listed name is answered"),
        (0, _) if reply[2] & 2 != 0 => Verdict::Truncated,
        (0, source) if answers == 1 => match record(reply, query.len()) {
            Some((kind, rdata)) if kind == expected.kind => {
                if is_right(expected, source, rdata, clock) {
                    Verdict::Right
                } else {
                    wrong("other data")
                }
            }
            _ => wrong("no such record"),
        },
        _ => wrong("another code, or another number of records"),
    }
}

fn is_right(expected: &Expected, source: Source, rdata: &[u8], clock: Clock) -> bool {
    if let Source::Local(address) = source {
        return rdata == address.octets();
    }
    let version = match (expected.kind, rdata) {
        (A, [.., e, f]) | (AAAA, [.., e, f]) => u16::from_be_bytes([*e, *f]),
        _ => 0,
    };
    let is_possible = expected.kind == TXT || clock.is_possible(version, Instant::now());
    is_possible && rdata == data(&expected.name, expected.kind, version)
}

/// Type and RDATA of the record at `at`, whose owner is the question's name.
fn record(reply: &[u8], at: usize) -> Option<(u16, &[u8])> {
    // The owner may be compressed or spelled out.
    let mut owner = at;
    for _ in 0..LABELS_MAX {
        match *reply.get(owner)? {
            0 => {
                owner += 1;
                break;
            }
            0xc0.. => {
                owner += 2;
                break;
            }
            len => owner += 1 + usize::from(len),
        }
    }
    let head = reply.get(owner..owner + RECORD_HEAD - 2)?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let len = usize::from(u16::from_be_bytes([head[8], head[9]]));
    let rdata = reply.get(owner + head.len()..)?.get(..len)?;
    Some((kind, rdata))
}

/// Wire format of a name with plain labels.
#[must_use]
pub fn wire(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        name.push(label.len() as u8);
        name.extend(label.bytes());
    }
    name.push(0);
    name
}

/// Records with an address that no right answer has, for forged answers.
#[must_use]
pub fn forged() -> [Record; 1] {
    let data = Ipv4Addr::new(203, 0, 113, 66).octets().to_vec();
    [Record {
        kind: A,
        ttl_secs: 300,
        data,
    }]
}

/// [`forged`] for IPv6.
#[must_use]
pub fn forged_v6() -> [Record; 1] {
    let data = Ipv6Addr::new(0x2001, 0xdb8, 0x66, 0, 0, 0, 0, 0x66)
        .octets()
        .to_vec();
    [Record {
        kind: AAAA,
        ttl_secs: 300,
        data,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(kind: u16, source: Source) -> Expected {
        Expected {
            name: wire("www.example"),
            kind,
            source,
        }
    }

    fn reply_to(query: &[u8], clock: Clock) -> Vec<u8> {
        let server = "192.0.2.53:53".parse().expect("an address");
        let asked = Asked::over_tcp(query, server, server).expect("a query");
        response(&asked, clock)
    }

    #[test]
    fn what_the_servers_say_is_right_and_anything_else_is_not() {
        let clock = Clock::start();
        for kind in [A, AAAA, TXT] {
            let expected = expected(kind, Source::Upstream);
            let query = query(&expected, 7);
            let reply = reply_to(&query, clock);
            let judged = |reply: &[u8]| judge(&expected, &query, reply, clock);
            assert_eq!(judged(&reply), Verdict::Right);
            let data_at = query.len() + RECORD_HEAD;
            for at in [
                query.len() - 6,
                query.len() + 3,
                data_at,
                data_at + 3,
                reply.len() - 1,
            ] {
                let mut other = reply.clone();
                other[at] ^= 0x55;
                assert!(
                    matches!(judged(&other), Verdict::Wrong(_)),
                    "{kind}: byte {at}"
                );
            }
            for (at, to, verdict) in [(3, 0x82, Verdict::Failed), (2, 0x83, Verdict::Truncated)] {
                let mut other = reply.clone();
                other[at] = to;
                assert_eq!(judged(&other), verdict);
            }
            let mut denied = reply.clone();
            (denied[3], denied[7]) = (0x83, 0);
            assert!(matches!(judged(&denied), Verdict::Wrong(_)));
        }
    }

    #[test]
    fn an_answer_has_an_age_that_it_may_not_exceed() {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(4_000));
        let clock = Clock(long_ago.expect("the machine has run for an hour"));
        let expected = expected(A, Source::Upstream);
        let query = query(&expected, 7);
        let reply = reply_to(&query, clock);
        let last = reply.len() - 1;
        for (versions, is_right) in [(0, true), (20, true), (30, false), (100, false)] {
            let mut older = reply.clone();
            let version = u16::from_be_bytes([reply[last - 1], reply[last]]) - versions;
            older[last - 1..].copy_from_slice(&version.to_be_bytes());
            let verdict = judge(&expected, &query, &older, clock);
            assert_eq!(verdict == Verdict::Right, is_right, "{versions} versions");
        }
    }

    #[test]
    fn lists_and_local_records_are_held_to_what_they_say() {
        let clock = Clock::start();
        let address = Ipv4Addr::new(192, 168, 1, 1);
        let upstream = expected(A, Source::Upstream);
        let query = query(&upstream, 7);
        let answered = reply_to(&query, clock);
        let mut denied = query.clone();
        (denied[2], denied[3]) = (0x81, 0x83);
        let mut local = answered.clone();
        let at = local.len() - 4;
        local[at..].copy_from_slice(&address.octets());
        for (source, rights) in [
            (Source::Upstream, [true, false, false]),
            (Source::Blocked, [false, true, false]),
            (Source::MaybeBlocked, [true, true, false]),
            (Source::Local(address), [false, false, true]),
        ] {
            let expected = expected(A, source);
            let replies = [&answered, &denied, &local];
            let judged = replies.map(|reply| judge(&expected, &query, reply, clock));
            assert_eq!(
                judged.map(|verdict| verdict == Verdict::Right),
                rights,
                "{source:?}"
            );
        }
    }
}
