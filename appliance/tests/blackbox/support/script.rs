//! Script of the upstream: its reaction to a question for a name.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use xdnsd_lab::scripted::{self, Asked, Make, Sender, Stray};

use super::TIMEOUT;
use super::message::{address, name, wire};
use super::text::record;

/// TTL of the SOA in negative answers, and its MINIMUM (RFC 2308 section 5).
pub const NEGATIVE_TTL_SECS: u32 = 60;
/// Address in spoofed answers. No client may ever get it.
pub const POISON: &str = "203.0.113.66";
/// UDP size that the upstream advertises.
const SIZE: u16 = 1232;

/// Reaction to questions for one name.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Number of questions that are not answered first.
    pub drop_first: usize,
    /// Answers sent before the real one, all at once.
    pub faults: Vec<Fault>,
    /// Delay of the answer.
    pub delay: Duration,
    /// `None`: silence.
    pub answer: Option<Answer>,
    /// Sets TC in datagrams, and sends this over TCP.
    pub stream_fault: Option<Fault>,
    /// Never answers over TCP, and ignores further questions on the same connection.
    pub is_stuck_over_tcp: bool,
}

/// The records of an answer.
#[derive(Clone, Debug)]
pub struct Answer {
    code: ResponseCode,
    /// Owner (`None`: the QNAME), TTL, data. Of those owned by the QNAME only records of the QTYPE and CNAME are sent.
    records: Vec<(Option<Name>, u32, RData)>,
    has_soa: bool,
    truncated: bool,
    edns: EdnsManner,
    /// Makes the answer by itself.
    maker: Option<Maker>,
}

/// Completes the reply to a query, which has the query's ID and question, RA, OPT if the query has one, and no records.
#[derive(Clone)]
struct Maker(Arc<MakeReply>);

type MakeReply = dyn Fn(&Message, &mut Message) + Send + Sync;

impl fmt::Debug for Maker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Maker")
    }
}

/// Support of EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EdnsManner {
    /// OPT if the query has one.
    Spoken,
    /// Never an OPT, as if the query's had not been seen.
    Ignored,
    /// FORMERR without OPT if the query has one (RFC 6891 section 7).
    Refused,
    /// Silence if the query has OPT: a middlebox that takes it for an attack.
    Dropped,
    /// These bytes if the query has OPT: additional records, all of them malformed.
    Broken(&'static [&'static [u8]]),
}

/// A forged or wrong answer. Each has [`POISON`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another ID.
    Id,
    /// A question for another name.
    Name,
    /// A question for another type.
    Type,
    /// QR is not set.
    Query,
    /// From another port of the asked address.
    Port,
    /// From another address.
    Address,
    /// From the asked server with the right ID, but with a truncated record.
    Garbage,
}

impl Fault {
    /// Those that an off-path attacker can send.
    pub const FORGED: [Self; 6] = [
        Self::Id,
        Self::Name,
        Self::Type,
        Self::Query,
        Self::Port,
        Self::Address,
    ];
}

impl Rule {
    /// NOERROR with these records for the QNAME.
    pub fn answer(ttl: u32, data: &[RData]) -> Self {
        let records = data.iter().map(|data| (None, ttl, data.clone()));
        Self::of(Answer {
            records: records.collect(),
            ..Answer::code(ResponseCode::NoError)
        })
    }

    /// A and AAAA records, for the type in question.
    pub fn addresses(ttl: u32, texts: &[&str]) -> Self {
        let data: Vec<RData> = texts.iter().map(|text| address(text)).collect();
        Self::answer(ttl, &data)
    }

    /// Another code and no records, except a SOA with NXDOMAIN.
    pub fn code(code: ResponseCode) -> Self {
        Self::of(Answer::code(code))
    }

    /// NOERROR, a SOA and nothing else.
    pub fn nodata() -> Self {
        Self::answer(0, &[])
    }

    /// No answer.
    pub fn silence() -> Self {
        Self {
            drop_first: 0,
            faults: Vec::new(),
            delay: Duration::ZERO,
            answer: None,
            stream_fault: None,
            is_stuck_over_tcp: false,
        }
    }

    fn of(answer: Answer) -> Self {
        Self {
            answer: Some(answer),
            ..Self::silence()
        }
    }

    /// With more records of another owner: the end of a CNAME chain.
    pub fn and(mut self, owner: &str, ttl: u32, data: &[RData]) -> Self {
        let more = data
            .iter()
            .map(|data| (Some(name(owner)), ttl, data.clone()));
        if let Some(answer) = &mut self.answer {
            answer.records.extend(more);
        }
        self
    }

    /// An answer from `make`, which gets the query and the reply, complete except for its records.
    pub fn made(make: impl Fn(&Message, &mut Message) + Send + Sync + 'static) -> Self {
        Self::of(Answer {
            maker: Some(Maker(Arc::new(make))),
            ..Answer::code(ResponseCode::NoError)
        })
    }

    /// This code and these sections, whatever the type: answer, authority, additional.
    pub fn sections(code: ResponseCode, sections: [&[&str]; 3]) -> Self {
        let [answers, authorities, additionals] =
            sections.map(|texts| texts.iter().map(|text| record(text)).collect::<Vec<_>>());
        Self::made(move |_, reply| {
            reply.set_response_code(code);
            reply.add_answers(answers.clone());
            reply.add_name_servers(authorities.clone());
            reply.add_additionals(additionals.clone());
        })
    }

    /// NOERROR with these records as they are.
    pub fn records(texts: &[&str]) -> Self {
        Self::sections(ResponseCode::NoError, [texts, &[], &[]])
    }

    /// With a delay.
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Unanswered before question number `count + 1`.
    pub fn drop_first(self, count: usize) -> Self {
        Self {
            drop_first: count,
            ..self
        }
    }

    /// Preceded by forged answers.
    pub fn behind(self, faults: &[Fault]) -> Self {
        Self {
            faults: faults.to_vec(),
            ..self
        }
    }

    /// Truncated in a datagram, and wrong over TCP.
    pub fn wrong_over_tcp(self, fault: Fault) -> Self {
        let wrong = Self {
            stream_fault: Some(fault),
            ..self
        };
        wrong.with(|answer| answer.truncated = true)
    }

    /// Truncated in a datagram. Over TCP it is never answered, nor are later questions on the same connection.
    pub fn stuck_over_tcp(self) -> Self {
        let stuck = Self {
            is_stuck_over_tcp: true,
            ..self
        };
        stuck.with(|answer| answer.truncated = true)
    }

    /// Without OPT.
    pub fn without_edns(self) -> Self {
        self.with(|answer| answer.edns = EdnsManner::Ignored)
    }

    /// FORMERR if the question has OPT.
    pub fn refusing_edns(self) -> Self {
        self.with(|answer| answer.edns = EdnsManner::Refused)
    }

    /// Silent if the question has OPT.
    pub fn dropping_edns(self) -> Self {
        self.with(|answer| answer.edns = EdnsManner::Dropped)
    }

    /// With these additional records, byte by byte, if the question has OPT.
    pub fn with_broken_opts(self, records: &'static [&'static [u8]]) -> Self {
        self.with(|answer| answer.edns = EdnsManner::Broken(records))
    }

    fn with(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        if let Some(answer) = &mut self.answer {
            change(answer);
        }
        self
    }
}

/// Parses the query by an independent implementation.
pub fn read(asked: &Asked) -> Message {
    let query = Message::from_vec(&asked.query);
    query.unwrap_or_else(|error| panic!("{error}: {asked:?}"))
}

impl From<Rule> for scripted::Rule {
    fn from(rule: Rule) -> Self {
        let strays = rule.faults.into_iter().map(|fault| Stray {
            sender: fault.sender(),
            message: Make::new(move |asked| fault.bytes(&read(asked))),
        });
        let stream_fault = rule.stream_fault;
        let is_stuck = rule.is_stuck_over_tcp;
        let answer = rule.answer.map(|answer| {
            Make::new(move |asked| match stream_fault {
                _ if asked.is_tcp && is_stuck => {
                    thread::sleep(TIMEOUT);
                    Vec::new()
                }
                Some(fault) if asked.is_tcp => fault.bytes(&read(asked)),
                _ => answer.fitting(asked),
            })
        });
        Self {
            drop_first: rule.drop_first,
            before: strays.collect(),
            delay: rule.delay,
            answer,
        }
    }
}

impl Answer {
    fn code(code: ResponseCode) -> Self {
        Self {
            code,
            records: Vec::new(),
            has_soa: code == ResponseCode::NXDomain,
            truncated: false,
            edns: EdnsManner::Spoken,
            maker: None,
        }
    }

    /// The answer if it fits the client's size, else TC without records.
    fn fitting(&self, asked: &Asked) -> Vec<u8> {
        let query = read(asked);
        let mut whole = wire(&self.message(&query));
        match self.edns {
            EdnsManner::Dropped if query.extensions().is_some() => return Vec::new(),
            EdnsManner::Broken(records) if query.extensions().is_some() => {
                // ARCOUNT (RFC 1035 section 4.1.1).
                whole[11] += records.len() as u8;
                whole.extend(records.concat());
            }
            EdnsManner::Spoken
            | EdnsManner::Ignored
            | EdnsManner::Refused
            | EdnsManner::Dropped
            | EdnsManner::Broken(_) => {}
        }
        if whole.len() <= asked.room() {
            return whole;
        }
        let truncated = Self {
            truncated: true,
            ..self.clone()
        };
        wire(&truncated.message(&query))
    }

    /// The answer to `query`.
    fn message(&self, query: &Message) -> Message {
        let mut reply = empty_reply(query);
        let Some(question) = query.queries().first() else {
            reply.set_response_code(ResponseCode::FormErr);
            return reply;
        };
        let has_edns = query.extensions().is_some();
        if has_edns && self.edns == EdnsManner::Refused {
            reply.set_response_code(ResponseCode::FormErr);
            return reply;
        }
        if has_edns && self.edns == EdnsManner::Spoken {
            let mut edns = Edns::new();
            edns.set_max_payload(SIZE);
            reply.set_edns(edns);
        }
        reply.set_response_code(self.code);
        reply.set_truncated(self.truncated);
        if self.truncated {
            return reply;
        }
        if let Some(Maker(make)) = &self.maker {
            make(query, &mut reply);
            return reply;
        }
        for (owner, ttl, data) in &self.records {
            let owner = owner.as_ref().unwrap_or(question.name());
            if is_wanted(question, owner, data) {
                reply.add_answer(Record::from_rdata(owner.clone(), *ttl, data.clone()));
            }
        }
        let is_nodata = self.code == ResponseCode::NoError && reply.answers().is_empty();
        if self.has_soa || is_nodata {
            reply.add_name_server(soa(&question.name().to_lowercase()));
        }
        reply
    }
}

/// True for the QNAME's records of the QTYPE, and CNAME.
fn is_wanted(question: &Query, owner: &Name, data: &RData) -> bool {
    let kind = data.record_type();
    owner != question.name() || kind == question.query_type() || kind == RecordType::CNAME
}

/// The SOA of the name's top-level domain.
fn soa(name: &Name) -> Record {
    let zone = name.trim_to(1);
    let host = |label: &str| {
        Name::from_ascii(label)
            .and_then(|host| host.append_domain(&zone))
            .expect("a short name")
    };
    let data = SOA::new(
        host("ns"),
        host("hostmaster"),
        1,
        3600,
        600,
        86400,
        NEGATIVE_TTL_SECS,
    );
    Record::from_rdata(zone, NEGATIVE_TTL_SECS, RData::SOA(data))
}

fn empty_reply(query: &Message) -> Message {
    let mut reply = Message::new();
    reply
        .set_id(query.id())
        .set_message_type(MessageType::Response)
        .set_op_code(query.op_code())
        .set_recursion_desired(query.recursion_desired())
        .set_recursion_available(true)
        .add_queries(query.queries().to_vec());
    reply
}

impl Fault {
    fn sender(self) -> Sender {
        match self {
            Self::Port => Sender::OtherPort,
            Self::Address => Sender::OtherAddress,
            Self::Id | Self::Name | Self::Type | Self::Query | Self::Garbage => Sender::Server,
        }
    }

    /// The bytes of the false answer to `query`.
    fn bytes(self, query: &Message) -> Vec<u8> {
        let mut bytes = wire(&self.message(query));
        if self == Self::Garbage {
            bytes.truncate(bytes.len() - 3);
        }
        bytes
    }

    fn message(self, query: &Message) -> Message {
        let mut reply = empty_reply(query);
        let Some(question) = reply.queries_mut().first_mut() else {
            return reply;
        };
        let owner = question.name().clone();
        match self {
            Self::Name => {
                question.set_name(name("another.test."));
            }
            Self::Type => {
                question.set_query_type(RecordType::TXT);
            }
            Self::Id => {
                reply.set_id(query.id() ^ 1);
            }
            Self::Query => {
                reply.set_message_type(MessageType::Query);
            }
            Self::Port | Self::Address | Self::Garbage => (),
        }
        reply.add_answer(Record::from_rdata(owner, 3600, address(POISON)));
        reply
    }
}
