//! Compares two answers to one question, and checks that each difference is known and right.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};

use super::question::Question;

/// Tolerance for TTLs, in seconds: the two may have fetched a record at different times.
const TTL_TOLERANCE: u32 = 60;

/// RRsets of a section: `owner type data` in lower case, and the TTL. In no order.
type Section = BTreeMap<String, u32>;

/// The compared part of an answer: neither the ID nor the order of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub rcode: u16,
    /// Flags that are set, of AA, TC, RD, RA, AD, CD.
    pub flags: Vec<&'static str>,
    /// The question, byte for byte.
    pub question: Vec<u8>,
    pub answer: Section,
    pub authority: Section,
    pub additional: Section,
    /// Length of the message.
    pub len: usize,
    /// Version, DO and size of the OPT record.
    pub edns: Option<(u8, bool, u16)>,
}

impl Answer {
    pub fn read(question: &Question, wire: &[u8]) -> Result<Self> {
        let message = Message::from_vec(wire).with_context(|| format!("{wire:02x?}"))?;
        let flags = [
            ("AA", message.authoritative()),
            ("TC", message.truncated()),
            ("RD", message.recursion_desired()),
            ("RA", message.recursion_available()),
            ("AD", message.authentic_data()),
            ("CD", message.checking_disabled()),
        ];
        let question_end = question.wire.len() - if question.edns.is_some() { 11 } else { 0 };
        let edns = message.extensions().as_ref();
        Ok(Self {
            rcode: message.response_code().into(),
            flags: flags
                .into_iter()
                .filter_map(|(name, is_set)| is_set.then_some(name))
                .collect(),
            question: wire.get(12..question_end).unwrap_or_default().to_vec(),
            len: wire.len(),
            answer: section(message.answers()),
            authority: section(message.name_servers()),
            additional: section(message.additionals()),
            edns: edns.map(|edns| (edns.version(), edns.flags().dnssec_ok, edns.max_payload())),
        })
    }

    /// True if TC is set.
    pub fn is_truncated(&self) -> bool {
        self.has("TC")
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    /// True if it has no records.
    fn is_empty(&self) -> bool {
        self.answer.is_empty() && self.authority.is_empty() && self.additional.is_empty()
    }

    /// Removes everything below the header.
    fn clear(&mut self) {
        self.answer.clear();
        self.authority.clear();
        self.additional.clear();
    }
}

fn section(records: &[Record]) -> Section {
    let line = |record: &Record| {
        let kind = record.record_type();
        let data = if kind == RecordType::TXT {
            record.data().to_string()
        } else {
            format!("{:?}", record.data()).to_lowercase()
        };
        let owner = record.name().to_lowercase();
        (format!("{owner} {kind} {data}"), record.ttl())
    };
    records.iter().map(line).collect()
}

/// True if a line of a section is a record of that type.
fn is_type(line: &str, kind: &str) -> bool {
    line.split(' ').nth(1) == Some(kind)
}

fn has_type(section: &Section, kind: &str) -> bool {
    section.keys().any(|line| is_type(line, kind))
}

/// Differences in words; empty if there are none.
pub fn differences(ours: &Answer, theirs: &Answer) -> String {
    let mut text = String::new();
    let mut say = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            writeln!(text, "  {what}: {ours}, theirs {theirs}").expect("a String takes any text");
        }
    };
    say("rcode", ours.rcode.to_string(), theirs.rcode.to_string());
    say("flags", ours.flags.join(" "), theirs.flags.join(" "));
    say(
        "question",
        format!("{:?}", ours.question),
        format!("{:?}", theirs.question),
    );
    say(
        "EDNS",
        format!("{:?}", ours.edns),
        format!("{:?}", theirs.edns),
    );
    for (what, ours, theirs) in [
        ("answer", &ours.answer, &theirs.answer),
        ("authority", &ours.authority, &theirs.authority),
        ("additional", &ours.additional, &theirs.additional),
    ] {
        let only = |of: &Section, not: &Section| -> Vec<String> {
            of.keys()
                .filter(|line| !not.contains_key(*line))
                .cloned()
                .collect()
        };
        say(
            what,
            only(ours, theirs).join("\n    "),
            only(theirs, ours).join("\n    "),
        );
        for (line, ttl) in ours {
            let other = theirs.get(line).copied().unwrap_or(*ttl);
            if ttl.abs_diff(other) > TTL_TOLERANCE {
                say(
                    &format!("TTL of {line}"),
                    ttl.to_string(),
                    other.to_string(),
                );
            }
        }
    }
    text
}

/// A difference that is known and right.
pub struct Explanation {
    /// The difference and its reason, with the RFC.
    pub why: &'static str,
    /// True if it may be the difference at hand.
    pub applies: fn(&Question, &Answer, &Answer) -> bool,
    /// Removes the difference. The rest is not explained by it.
    pub forgive: fn(&mut Answer, &mut Answer),
}

const ANY: u16 = 255;
const NS: u16 = 2;
const MX: u16 = 15;
const SRV: u16 = 33;
const DNAME: u16 = 39;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;
const SERVFAIL: u16 = 2;
const REFUSED: u16 = 5;

/// All known ones.
pub const EXPLANATIONS: &[Explanation] = &[
    Explanation {
        why: "RD is copied from the query (RFC 1035 section 4.1.1); unbound, told to recurse anyway, sets it",
        applies: |question, _, _| !question.rd,
        forgive: |_, theirs| theirs.flags.retain(|flag| *flag != "RD"),
    },
    Explanation {
        why: "RD=0 for what is not kept is REFUSED, and nobody is asked; unbound is told to recurse anyway",
        applies: |question, ours, _| !question.rd && ours.rcode == REFUSED && ours.is_empty(),
        forgive: |ours, theirs| {
            theirs.clear();
            theirs.rcode = ours.rcode;
            theirs.flags.clone_from(&ours.flags);
        },
    },
    Explanation {
        why: "both are truncated: what else a truncated answer has is ignored (RFC 2181 section 9)",
        applies: |_, ours, theirs| ours.has("TC") && theirs.has("TC"),
        forgive: |ours, theirs| {
            ours.clear();
            theirs.clear();
        },
    },
    Explanation {
        why: "ANY: one HINFO record instead of what the upstream has (RFC 8482 section 4.2)",
        applies: |question, ours, _| {
            question.qtype == ANY
                && ours.rcode == 0
                && ours.answer.len() == 1
                && has_type(&ours.answer, "HINFO")
        },
        forgive: |ours, theirs| {
            ours.clear();
            theirs.clear();
            theirs.rcode = ours.rcode;
            theirs.flags.retain(|flag| *flag != "TC");
        },
    },
    Explanation {
        why: "an upstream that refuses: its code is passed on (RFC 5625 section 3), unbound says SERVFAIL",
        applies: |_, ours, theirs| ours.rcode == REFUSED && theirs.rcode == SERVFAIL,
        forgive: |ours, theirs| theirs.rcode = ours.rcode,
    },
    Explanation {
        why: "a referral is no answer, whoever sends it is no resolver for the name (RFC 2308 section 2.2); \
              unbound passes it on",
        applies: |_, ours, theirs| {
            ours.rcode == SERVFAIL
                && theirs.answer.is_empty()
                && has_type(&theirs.authority, "NS")
                && !has_type(&theirs.authority, "SOA")
        },
        forgive: |ours, theirs| {
            theirs.rcode = ours.rcode;
            theirs.clear();
        },
    },
    Explanation {
        why: "types of DNSSEC stand beside an alias, and the upstream gives them (RFC 4035 section 2.5); \
              unbound follows the alias",
        applies: |question, _, _| {
            question.is_alias && [RRSIG, NSEC, NSEC3].contains(&question.qtype)
        },
        forgive: |ours, theirs| {
            ours.clear();
            theirs.clear();
            theirs.rcode = ours.rcode;
            theirs.flags.clone_from(&ours.flags);
        },
    },
    Explanation {
        why: "a DNAME above a name is no answer to a question for its DNAME: the SOA says that there is none \
              (RFC 2308 section 2.2); unbound may leave it out",
        applies: |question, _, theirs| {
            question.qtype == DNAME
                && has_type(&theirs.answer, "CNAME")
                && theirs.authority.is_empty()
        },
        forgive: |ours, _| ours.authority.clear(),
    },
    Explanation {
        why: "the upstream leaves a proof out behind a DNAME; unbound asks for the target by itself, and gets it \
              (RFC 4035 section 3.1.3.2)",
        applies: |question, ours, theirs| {
            question.dnssec_ok()
                && question.name.starts_with("missing.dname")
                && ours
                    .authority
                    .keys()
                    .all(|line| theirs.authority.contains_key(line))
        },
        forgive: |ours, theirs| theirs.authority.clone_from(&ours.authority),
    },
    Explanation {
        why: "addresses of mail servers, services and name servers are optional (RFC 1034 section 4.3.2, step 6), and \
              left out; unbound gives some",
        applies: |question, ours, theirs| {
            let is_address = |line: &String| {
                ["A", "AAAA", "RRSIG"]
                    .iter()
                    .any(|kind| is_type(line, kind))
            };
            [NS, MX, SRV].contains(&question.qtype)
                && ours.additional.is_empty()
                && theirs.additional.keys().all(is_address)
        },
        forgive: |_, theirs| theirs.additional.clear(),
    },
    Explanation {
        why: "the CNAME made from a DNAME has its TTL (RFC 6672 section 3.1); unbound says 0",
        applies: |question, _, _| question.name.contains("dname"),
        forgive: |ours, theirs| {
            for (line, ttl) in &mut theirs.answer {
                if is_type(line, "CNAME") && *ttl == 0 {
                    *ttl = ours.answer.get(line).copied().unwrap_or(0);
                }
            }
        },
    },
];

/// Indices of the explanations that make the two equal; an error with the rest.
pub fn judge(question: &Question, ours: &Answer, theirs: &Answer) -> Result<Vec<usize>, String> {
    let (mut left, mut right) = (ours.clone(), theirs.clone());
    let mut used = Vec::new();
    for (index, explanation) in EXPLANATIONS.iter().enumerate() {
        let before = differences(&left, &right);
        if before.is_empty() {
            break;
        }
        if (explanation.applies)(question, ours, theirs) {
            (explanation.forgive)(&mut left, &mut right);
            if differences(&left, &right) != before {
                used.push(index);
            }
        }
    }
    let rest = differences(&left, &right);
    if rest.is_empty() { Ok(used) } else { Err(rest) }
}
