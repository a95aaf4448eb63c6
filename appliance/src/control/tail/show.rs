//! Queries and their outcome as lines of text or JSON.

use std::net::IpAddr;

use serde_json::{Value, json};
use xdnsd_core::dns::header::{HEADER_LEN, Header, flag};
use xdnsd_core::dns::name::is_within;
use xdnsd_core::dns::{Name, read_u16};

use super::reader::SeenEntry;
use crate::compile::name;
use crate::compile::prefix::Prefix;
use crate::control::presentation::{rcode_text, type_text};
use crate::os::device;
use crate::store::tap::entry::{AnswerReason, TapKind};
use crate::text::json;

/// Filter of entries.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Clients with an address in this prefix.
    pub client: Option<Prefix>,
    /// This name and those below it, in wire form and lower case.
    pub name: Option<Vec<u8>>,
    /// Only queries that a list blocked.
    pub is_blocked: bool,
}

impl Filter {
    /// True if the entry is shown. A waiting query has no outcome yet.
    #[must_use]
    pub fn lets_through(&self, seen: &SeenEntry) -> bool {
        let entry = &seen.entry;
        let client = |prefix: &Prefix| {
            let address = entry.client.ip();
            address.is_ipv4() == prefix.address().is_ipv4()
                && Prefix::masked(address, prefix.length()) == *prefix
        };
        let is_named = |suffix: &Vec<u8>| {
            let asked = ShownQuestion::of(&seen.bytes);
            asked.is_some_and(|asked| is_within(asked.name.to_lower().as_wire(), suffix))
        };
        let is_open = matches!(entry.kind, TapKind::Query | TapKind::Waiting);
        self.client.as_ref().is_none_or(client)
            && self.name.as_ref().is_none_or(is_named)
            && (!self.is_blocked || is_open || entry.why == AnswerReason::Blocked)
    }
}

/// Question of a message.
#[derive(Clone, Debug)]
pub struct ShownQuestion {
    /// QNAME in the client's letter case.
    pub name: Name,
    /// QTYPE.
    pub qtype: u16,
}

impl ShownQuestion {
    /// `None` if there is none, or it is malformed.
    #[must_use]
    pub fn of(message: &[u8]) -> Option<Self> {
        let (name, end) = Name::parse(message, HEADER_LEN).ok()?;
        let qtype = read_u16(message, end)?;
        Some(Self { name, qtype })
    }
}

/// Fields of a line.
struct Shown {
    ms: u128,
    client: IpAddr,
    name: Option<String>,
    qtype: Option<String>,
    rcode: Option<String>,
    micros: Option<u128>,
}

impl Shown {
    /// `None` if there is no outcome yet.
    fn of(seen: &SeenEntry) -> Option<Self> {
        let entry = &seen.entry;
        let has_answer = match entry.kind {
            TapKind::Answer | TapKind::Late => true,
            TapKind::Silence => false,
            TapKind::Query | TapKind::Waiting | TapKind::FrameIn | TapKind::FrameOut => {
                return None;
            }
        };
        let asked = ShownQuestion::of(&seen.bytes);
        let header = Header::parse(&seen.bytes).filter(|_| has_answer);
        Some(Self {
            ms: seen.wall.as_millis(),
            client: entry.client.ip(),
            qtype: asked.as_ref().map(|asked| type_text(asked.qtype)),
            name: asked.map(|asked| name::display(asked.name.as_wire())),
            rcode: header.map(|header| rcode_text((header.flags & flag::RCODE_MASK) as u8)),
            micros: seen.waited.map(|waited| waited.as_micros()),
        })
    }
}

/// RCODE of the answer, `-` without one.
#[must_use]
pub fn rcode(seen: &SeenEntry) -> String {
    let shown = Shown::of(seen).and_then(|shown| shown.rcode);
    shown.unwrap_or_else(|| "-".into())
}

/// A line of text; `None` if there is no outcome yet.
#[must_use]
pub fn line(seen: &SeenEntry) -> Option<String> {
    let Shown {
        ms,
        client,
        name,
        qtype,
        rcode,
        micros,
    } = Shown::of(seen)?;
    let or = |word: Option<String>, other: &str| word.unwrap_or_else(|| other.to_owned());
    let mut line = format!(
        "{}.{:03} {} {client} {} {} {} {}",
        ms / 1_000,
        ms % 1_000,
        seen.entry.via.word(),
        or(name, "?"),
        or(qtype, "?"),
        or(rcode, "-"),
        seen.entry.why.word(),
    );
    if let Some(micros) = micros {
        line += &format!(" {micros} us");
    }
    if let Some(upstream) = seen.entry.upstream {
        line += &format!(" from {}", device::written(upstream));
    }
    Some(line)
}

/// A line of JSON; `None` if there is no outcome yet.
#[must_use]
pub fn json_line(seen: &SeenEntry) -> Option<String> {
    let shown = Shown::of(seen)?;
    let value: Value = json!({
        "time_ms": shown.ms as u64,
        "via": seen.entry.via.word(),
        "client": shown.client.to_string(),
        "port": seen.entry.client.port(),
        "name": shown.name,
        "type": shown.qtype,
        "rcode": shown.rcode,
        "why": seen.entry.why.word(),
        "us": shown.micros.map(|micros| micros as u64),
        "upstream": seen.entry.upstream.map(device::written),
    });
    Some(json::line(&value))
}

/// A line about lost entries.
#[must_use]
pub fn lost(lost: u64, is_json: bool) -> String {
    if is_json {
        json::line(&json!({ "lost": lost }))
    } else {
        format!("{lost} more had no room")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::tap::entry::{QueryPath, TapEntry};

    /// A reply to `www.Example. AAAA`: NXDOMAIN.
    pub const MESSAGE: &[u8] =
        b"\x12\x34\x81\x83\0\x01\0\0\0\0\0\0\x03www\x07Example\0\0\x1c\0\x01";

    pub fn seen(kind: TapKind, why: AnswerReason) -> SeenEntry {
        SeenEntry {
            entry: TapEntry {
                time_ns: 0,
                micros: 12,
                len: MESSAGE.len() as u32,
                kept: MESSAGE.len() as u16,
                kind,
                via: QueryPath::Xdp,
                why,
                client: "10.0.0.7:4711".parse().expect("an address"),
                upstream: "192.0.2.53:53".parse().ok(),
            },
            bytes: MESSAGE.to_vec(),
            wall: Duration::from_millis(1_700_000_000_005),
            waited: Some(Duration::from_micros(345)),
        }
    }

    #[test]
    fn a_line_says_all_of_it() {
        let late = seen(TapKind::Late, AnswerReason::Upstream);
        assert_eq!(
            line(&late).as_deref(),
            Some(
                "1700000000.005 xdp 10.0.0.7 www.Example. AAAA NXDOMAIN upstream 345 us from 192.0.2.53:53"
            )
        );
        let value: Value = serde_json::from_str(&json_line(&late).expect("a line")).expect("JSON");
        assert_eq!(
            value,
            json!({"time_ms": 1_700_000_000_005_u64, "via": "xdp", "client": "10.0.0.7", "port": 4711,
                "name": "www.Example.", "type": "AAAA", "rcode": "NXDOMAIN", "why": "upstream", "us": 345,
                "upstream": "192.0.2.53:53"})
        );
        let silence = SeenEntry {
            waited: None,
            ..seen(TapKind::Silence, AnswerReason::Access)
        };
        let said = line(&silence).expect("a line");
        assert!(said.contains(" AAAA - access"), "{said}");
        assert_eq!(line(&seen(TapKind::Waiting, AnswerReason::Waiting)), None);
        let broken = SeenEntry {
            bytes: b"\x12".to_vec(),
            ..late
        };
        assert!(line(&broken).is_some_and(|line| line.contains(" ? ? - ")));
    }

    #[test]
    fn a_filter_lets_through_what_it_names() {
        let blocked = seen(TapKind::Answer, AnswerReason::Blocked);
        let cached = seen(TapKind::Answer, AnswerReason::Cache);
        let filter = |client: &str, name: &[u8], is_blocked| Filter {
            client: client.parse().ok(),
            name: (!name.is_empty()).then(|| name.to_vec()),
            is_blocked,
        };
        for (filter, lets) in [
            (filter("", b"", false), [true, true]),
            (filter("", b"", true), [true, false]),
            (filter("10.0.0.0/24", b"", false), [true, true]),
            (filter("10.0.1.0/24", b"", false), [false, false]),
            (filter("::/0", b"", false), [false, false]),
            (filter("", b"\x07example\0", false), [true, true]),
            (filter("", b"\x06xample\0", false), [false, false]),
        ] {
            let through = [&blocked, &cached].map(|seen| filter.lets_through(seen));
            assert_eq!(through, lets, "{filter:?}");
        }
    }
}
