//! Text and JSON of the cache, for `xdnsd cache dump`.

use std::io::Write;

use serde_json::{Value, json};
use xdnsd_abi::hot::kind;
use xdnsd_core::answer::{ANY_TYPE, Head, Kept, Key, hot_name};
use xdnsd_core::dns::Name;
use xdnsd_core::dns::edns::ede;
use xdnsd_core::dns::name::is_within;
use xdnsd_core::dns::record::Records;
use xdnsd_core::policy::special::SOA_TAIL;
use xdnsd_core::time::Instant;

use super::presentation::{rcode_text, type_text};
use super::rdata::record_text;
use super::socket::CommandError;
use crate::os::clock;
use crate::store::{HOT, HotQuestion, SharedCache, Walk};
use crate::text::json;

/// Writes a line for each answer to `below` and the names below it, followed by one for each of its records.
///
/// # Errors
/// Writing to `out` fails.
pub fn dump(cache: &SharedCache, below: &Name, out: &mut dyn Write) -> Result<(), CommandError> {
    dump_where(cache, out, "", |key| is_within(key.name, below.as_wire()))?;
    Ok(())
}

/// Writes the answers that are `wanted`, with `lead` before each of them. True if policy made one of them.
///
/// # Errors
/// Writing to `out` fails.
pub fn dump_where(
    cache: &SharedCache,
    out: &mut dyn Write,
    lead: &str,
    mut is_wanted: impl FnMut(&Key<'_>) -> bool,
) -> Result<bool, CommandError> {
    let now = clock::now();
    let hits = Hits::now();
    let mut is_of_policy = false;
    let mut walk = Walk::new(cache);
    while walk.step() {
        for (key, head, body) in walk.entries().filter(|(key, ..)| is_wanted(key)) {
            let (entry, hits) = (entry_text(&key, &head, body, now), hits.text(&key));
            writeln!(out, "{lead}{entry}{hits}")?;
            is_of_policy |= EntryOrigin::of(&head, body) == EntryOrigin::Policy;
            for record in record_texts(&key, &head, body, now) {
                writeln!(out, "{:1$}  {record}", "", lead.len())?;
            }
        }
    }
    Ok(is_of_policy)
}

/// Writes a line of JSON for each answer to `below` and the names below it.
///
/// # Errors
/// Writing to `out` fails.
pub fn dump_json(
    cache: &SharedCache,
    below: &Name,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let now = clock::now();
    let hits = Hits::now();
    let mut walk = Walk::new(cache);
    while walk.step() {
        for (key, head, body) in walk.entries() {
            if is_within(key.name, below.as_wire()) {
                let entry = hits.with_json(&key, entry_json(&key, &head, body, now));
                writeln!(out, "{}", json::line(&entry))?;
            }
        }
    }
    Ok(())
}

/// The answers that are `wanted`, as JSON.
pub fn entries_json(cache: &SharedCache, is_wanted: impl Fn(&Key<'_>) -> bool) -> Vec<Value> {
    let now = clock::now();
    let hits = Hits::now();
    let mut entries = Vec::new();
    let mut walk = Walk::new(cache);
    while walk.step() {
        let wanted = walk.entries().filter(|(key, ..)| is_wanted(key));
        entries.extend(
            wanted
                .map(|(key, head, body)| hits.with_json(&key, entry_json(&key, &head, body, now))),
        );
    }
    entries
}

/// Counts of answers given by the XDP program.
struct Hits(Vec<HotQuestion>);

impl Hits {
    fn now() -> Self {
        Self(HOT.asked())
    }

    /// Answers to this entry's questions, with EDNS and without; `None` if the program has it not.
    fn of(&self, key: &Key<'_>) -> Option<u64> {
        // The program does not answer clients in another view.
        if self.0.is_empty() || key.view != 0 {
            return None;
        }
        let name = hot_name(key.name)?;
        let wanted = [
            (key.dnssec_ok, kind::DNSSEC_OK),
            (key.checking_disabled, kind::CHECKING_DISABLED),
        ];
        let is_same = |asked: &&HotQuestion| {
            asked.name == name
                && [asked.kind as u16, ANY_TYPE].contains(&key.qtype)
                && wanted
                    .iter()
                    .all(|(set, bit)| (asked.kind & bit != 0) == *set)
        };
        let given = self.0.iter().filter(is_same).map(|asked| asked.hits);
        given.reduce(u64::saturating_add)
    }

    fn text(&self, key: &Key<'_>) -> String {
        let hits = self.of(key);
        hits.map_or_else(String::new, |hits| format!(", hot, {hits} by XDP"))
    }

    fn with_json(&self, key: &Key<'_>, mut entry: Value) -> Value {
        entry["hot_hits"] = self.of(key).into();
        entry
    }
}

fn entry_json(key: &Key<'_>, head: &Head, body: &[u8], now: Instant) -> Value {
    let (state, ttl_secs, stale_secs) = match age_of(head, now) {
        Age::Unknown => ("restored", None, None),
        Age::Fresh { ttl_secs } => ("fresh", Some(ttl_secs), None),
        Age::Stale { secs } => ("stale", None, Some(secs)),
    };
    let mut answers = record_texts(key, head, body, now);
    let authorities = answers.split_off(answers.len().min(head.answers.into()));
    json!({
        "name": name_text(key),
        "type": qtype_text(key),
        "dnssec_ok": key.dnssec_ok,
        "checking_disabled": key.checking_disabled,
        "view": key.view,
        "authentic_data": head.authentic_data,
        "dns64": head.translated,
        "rcode": rcode_text(head.rcode),
        "state": state,
        "origin": EntryOrigin::of(head, body).word(),
        "ttl_secs": ttl_secs,
        "stale_secs": stale_secs,
        "answers": answers,
        "authorities": authorities,
        "bytes": body.len(),
        "mark": mark_of(key, head).map(EntryMark::word),
    })
}

/// Age of an answer.
enum Age {
    Fresh {
        /// TTL that a client would get.
        ttl_secs: u32,
    },
    Stale {
        /// Seconds since it expired.
        secs: u32,
    },
    /// It was restored from a snapshot.
    Unknown,
}

fn age_of(head: &Head, now: Instant) -> Age {
    let expires = head.expires();
    if head.restored {
        Age::Unknown
    } else if now < expires {
        let age_secs = now.secs_since(head.stored);
        Age::Fresh {
            ttl_secs: head.ttl_secs - age_secs.min(head.ttl_secs),
        }
    } else {
        Age::Stale {
            secs: now.secs_since(expires),
        }
    }
}

/// Who made an answer in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryOrigin {
    /// A server.
    Upstream,
    /// The policy of this forwarder, in place of a server's answer that it withholds.
    Policy,
    /// An earlier process.
    Snapshot,
}

impl EntryOrigin {
    /// An upstream that blocks says so by the same extended error, but its denials have other SOA records. Addresses in place of
    /// a blocked name count as policy's, whoever of the two gave them.
    fn of(head: &Head, body: &[u8]) -> Self {
        let is_denial_of_others = head.answers == 0 && !body.ends_with(SOA_TAIL);
        if head.restored {
            Self::Snapshot
        } else if head.ede == ede::BLOCKED && !is_denial_of_others {
            Self::Policy
        } else {
            Self::Upstream
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Policy => "policy",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Meaning of an entry without records.
#[derive(Clone, Copy)]
enum EntryMark {
    /// The name is known to exist, so that a denial of one type holds for no other.
    Exists,
    /// The answer is too long for the cache.
    TooLong,
}

impl EntryMark {
    const fn word(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::TooLong => "too long",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Exists => "a mark: the name exists, so each type is believed by itself",
            Self::TooLong => "a mark: the answer is too long to be kept",
        }
    }
}

fn mark_of(key: &Key<'_>, head: &Head) -> Option<EntryMark> {
    let kind = match key.qtype {
        ANY_TYPE => EntryMark::Exists,
        _ => EntryMark::TooLong,
    };
    head.is_mark().then_some(kind)
}

fn name_text(key: &Key<'_>) -> String {
    Name::from_wire(key.name).map_or_else(|| "?".to_owned(), |name| name.to_string())
}

fn qtype_text(key: &Key<'_>) -> String {
    match key.qtype {
        ANY_TYPE => "*".into(),
        qtype => type_text(qtype),
    }
}

/// One entry as `xdnsd cache dump` shows it: `www.example.org. AAAA do+ad NOERROR ttl 287 upstream 1/0 44 bytes`. A denial for
/// A that holds for every type is an entry of its own, of type `*`.
fn entry_text(key: &Key<'_>, head: &Head, body: &[u8], now: Instant) -> String {
    let (name, rtype) = (name_text(key), qtype_text(key));
    let flags = [
        (key.dnssec_ok, "do"),
        (key.checking_disabled, "cd"),
        (head.authentic_data, "ad"),
    ];
    let flags: Vec<&str> = flags
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, word)| *word)
        .collect();
    let flags = if flags.is_empty() {
        "-".to_owned()
    } else {
        flags.join("+")
    };
    let view = match key.view {
        0 => String::new(),
        number => format!(" view {number}"),
    };
    let freshness = match age_of(head, now) {
        Age::Unknown => "stale of unknown age".to_owned(),
        Age::Fresh { ttl_secs } => format!("ttl {ttl_secs}"),
        Age::Stale { secs } => format!("stale for {secs}"),
    };
    let origin = EntryOrigin::of(head, body).word();
    let rcode = rcode_text(head.rcode);
    let (answers, authorities) = (head.answers, head.authorities);
    let len = body.len();
    let what = match (mark_of(key, head), key.qtype) {
        (Some(mark), _) => format!(", {}", mark.text()),
        (None, ANY_TYPE) => ", for every type, as A was denied".to_owned(),
        (None, _) if head.translated => ", by DNS64".to_owned(),
        (None, _) => String::new(),
    };
    format!(
        "{name} {rtype}{view} {flags} {rcode} {freshness} {origin} {answers}/{authorities} {len} bytes{what}"
    )
}

/// Records of an entry with the TTLs that a client would get: answers, then authorities.
fn record_texts(key: &Key<'_>, head: &Head, body: &[u8], now: Instant) -> Vec<String> {
    let Some(kept) = Kept::new(key.name, body) else {
        return Vec::new();
    };
    let age_secs = if head.restored {
        0
    } else {
        now.secs_since(head.stored)
    };
    let count = usize::from(head.answers) + usize::from(head.authorities);
    Records::new(kept.message(), kept.body().start, count)
        .filter_map(Result::ok)
        .map(|record| {
            let ttl_secs = record.ttl_secs.saturating_sub(age_secs);
            record_text(kept.message(), &record, ttl_secs)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::shared::tests::{BODY, head};

    #[test]
    fn hits_of_the_program_are_those_of_the_entrys_questions() {
        let name = b"\x03www\x07example\0";
        let asked = |kind, hits| HotQuestion {
            name: hot_name(name).expect("short"),
            kind,
            hits,
        };
        let hits = Hits(vec![
            asked(28, 1),
            asked(28 | kind::EDNS, 20),
            asked(28 | kind::EDNS | kind::DNSSEC_OK, 300),
            asked(28 | kind::CHECKING_DISABLED, 4_000),
            asked(1, 50_000),
            HotQuestion {
                name: [7; 8],
                ..asked(28, 600_000)
            },
        ]);
        let of = |name, qtype, dnssec_ok, checking_disabled| {
            hits.of(&Key {
                name,
                qtype,
                dnssec_ok,
                checking_disabled,
                view: 0,
            })
        };
        assert_eq!(of(name, 28, false, false), Some(21));
        assert_eq!(of(name, 28, true, false), Some(300));
        assert_eq!(of(name, 28, false, true), Some(4_000));
        assert_eq!(of(name, ANY_TYPE, false, false), Some(50_021));
        assert_eq!(of(name, 15, false, false), None);
        assert_eq!(of(b"\x03wwx\0", 28, false, false), None);
    }

    #[test]
    fn an_entry_is_shown_with_its_age_and_origin() {
        let key = Key {
            name: b"\x03www\x07example\0",
            qtype: 28,
            dnssec_ok: true,
            checking_disabled: false,
            view: 0,
        };
        let at = |secs| Instant::from_millis(10_000).add_secs(secs);
        let fresh = Head {
            authentic_data: true,
            ..head(300)
        };
        assert_eq!(
            entry_text(&key, &fresh, BODY, at(13)),
            "www.example. AAAA do+ad NOERROR ttl 287 upstream 1/0 16 bytes"
        );
        assert!(entry_text(&key, &fresh, BODY, at(335)).contains("stale for 35 upstream"));
        // In half seconds: the entry's TTL is that of its records, as a client gets it.
        let half = at(13) + 500;
        assert!(entry_text(&key, &fresh, BODY, half).contains(" ttl 287 "));
        assert_eq!(entry_json(&key, &fresh, BODY, half)["ttl_secs"], 287);
        let line = |ttl| [format!("www.example. {ttl} IN A 192.0.2.1")];
        assert_eq!(record_texts(&key, &fresh, BODY, half), line(287));
        let records = |head: &Head, secs| record_texts(&key, head, BODY, at(secs));
        assert_eq!(records(&fresh, 13), line(287));
        assert_eq!(records(&fresh, 335), line(0));
        let told = |secs| entry_json(&key, &fresh, BODY, at(secs));
        let mut is = json!({
            "name": "www.example.", "type": "AAAA", "dnssec_ok": true, "checking_disabled": false, "view": 0,
            "authentic_data": true, "dns64": false, "rcode": "NOERROR", "state": "fresh", "origin": "upstream",
            "ttl_secs": 287, "stale_secs": null, "answers": line(287), "authorities": [], "bytes": 16, "mark": null,
        });
        assert_eq!(told(13), is);
        is["state"] = "stale".into();
        is["ttl_secs"] = Value::Null;
        is["stale_secs"] = 35.into();
        is["answers"] = json!(line(0));
        assert_eq!(told(335), is);
        let restored = Head {
            restored: true,
            rcode: 3,
            answers: 0,
            authorities: 1,
            ..head(300)
        };
        assert_eq!(records(&restored, 13), line(300));
        let translated = Head {
            translated: true,
            ..fresh
        };
        assert_eq!(
            entry_text(&key, &translated, BODY, at(13)),
            "www.example. AAAA do+ad NOERROR ttl 287 upstream 1/0 16 bytes, by DNS64"
        );
        assert_eq!(entry_json(&key, &translated, BODY, at(13))["dns64"], true);
        assert_eq!(
            entry_text(
                &Key {
                    dnssec_ok: false,
                    ..key
                },
                &restored,
                BODY,
                at(13)
            ),
            "www.example. AAAA - NXDOMAIN stale of unknown age snapshot 0/1 16 bytes"
        );
    }

    /// Policy keeps its own answer in place of one of upstream. An upstream that blocks a name says the same by itself.
    #[test]
    fn an_answer_that_policy_made_is_not_said_to_be_upstreams() {
        let key = Key {
            name: b"\x03www\x07example\0",
            qtype: 1,
            dnssec_ok: false,
            checking_disabled: false,
            view: 0,
        };
        let at = Instant::from_millis(10_000);
        let address = Head {
            ede: ede::BLOCKED,
            ..head(60)
        };
        let denial = Head {
            rcode: 3,
            answers: 0,
            authorities: 1,
            ..address
        };
        let own = [
            &b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x26\xc0\x0c"[..],
            SOA_TAIL,
        ]
        .concat();
        let restored = Head {
            restored: true,
            ..denial
        };
        for (head, body, origin) in [
            (denial, &own[..], "policy"),
            (denial, BODY, "upstream"),
            (address, BODY, "policy"),
            (restored, &own[..], "snapshot"),
            (
                Head {
                    ede: ede::NONE,
                    ..denial
                },
                &own[..],
                "upstream",
            ),
        ] {
            let line = entry_text(&key, &head, body, at);
            assert!(line.contains(&format!(" {origin} ")), "{origin}: {line}");
            assert_eq!(entry_json(&key, &head, body, at)["origin"], origin);
        }
    }

    /// One denial is two entries, and a mark is no answer: both are labelled, or they would look like a fault.
    #[test]
    fn what_an_entry_without_a_type_or_without_records_stands_for_is_said() {
        let key = |qtype| Key {
            name: b"\x03www\x07example\0",
            qtype,
            dnssec_ok: false,
            checking_disabled: false,
            view: 0,
        };
        let at = Instant::from_millis(10_000);
        let denial = Head {
            rcode: 3,
            answers: 0,
            authorities: 1,
            ..head(300)
        };
        let mark = Head {
            answers: 0,
            ..head(300)
        };
        let nothing: &[u8] = &[];
        for (qtype, head, body, text, json) in [
            (
                1,
                denial,
                BODY,
                "A - NXDOMAIN ttl 300 upstream 0/1 16 bytes",
                Value::Null,
            ),
            (
                ANY_TYPE,
                denial,
                BODY,
                "* - NXDOMAIN ttl 300 upstream 0/1 16 bytes, for every type, as A was denied",
                Value::Null,
            ),
            (
                ANY_TYPE,
                mark,
                nothing,
                "* - NOERROR ttl 300 upstream 0/0 0 bytes, a mark: the name exists, so each type is believed by itself",
                "exists".into(),
            ),
            (
                16,
                mark,
                nothing,
                "TXT - NOERROR ttl 300 upstream 0/0 0 bytes, a mark: the answer is too long to be kept",
                "too long".into(),
            ),
        ] {
            let shown = entry_text(&key(qtype), &head, body, at);
            assert_eq!(shown, format!("www.example. {text}"));
            assert_eq!(entry_json(&key(qtype), &head, body, at)["mark"], json);
        }
    }
}
