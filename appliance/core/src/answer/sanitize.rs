//! Sanitizing of an upstream's response, which is untrusted: only records that answer the question's own chain are kept.
//!
//! The result stands in a scratch buffer: header, question as we asked it, then the kept records, compressed anew. The
//! cache stores the part behind the question, the *body*.

use super::Head;
use super::distinct::{COMPARISONS_MAX, Distinct};
use super::owned::Owned;
use super::response::Response;
use crate::dns::build::{WriteError, Writer};
use crate::dns::edns::{Edns, ede};
use crate::dns::header::{HEADER_LEN, Header, flag};
use crate::dns::name::{self, Name};
use crate::dns::record::{self, Record, Records};
use crate::dns::{QUESTION_FIXED_LEN, class, rcode, read_u16, read_u32, rtype};
use crate::limits::{NAME_MAX, TCP_MESSAGE_MAX};
use crate::time::Instant;
use heapless::Vec;

/// Longest prefix of aliases in bytes. An alias at the end of a longer chain is not followed.
pub const CHAIN_PREFIX_BYTES: usize = 384;
/// Most CNAME and DNAME steps of one answer. A longer chain is a failure, whichever server gives it.
pub const CHAIN_MAX: usize = 16;
/// A TTL with the high bit set counts as 0 (RFC 2181 section 8).
const TTL_SIGN: u32 = 0x8000_0000;

/// Bounds of cached TTLs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlBounds {
    /// Shorter TTLs are raised to this.
    pub min_secs: u32,
    /// Longer TTLs are lowered to this.
    pub max_secs: u32,
    /// Longest TTL of NXDOMAIN and NODATA (RFC 2308 section 5).
    pub negative_max_secs: u32,
}

impl TtlBounds {
    /// TTL for the cache. 0 stays 0, because such an answer is never cached (RFC 1035 section 3.2.1).
    fn clamp(&self, ttl_secs: u32) -> u32 {
        if ttl_secs == 0 {
            0
        } else {
            ttl_secs.clamp(self.min_secs, self.max_secs)
        }
    }
}

/// TTL of a record in seconds, with the rule for the high bit applied.
const fn meant_ttl_secs(record: &Record) -> u32 {
    if record.ttl_secs & TTL_SIGN == 0 {
        record.ttl_secs
    } else {
        0
    }
}

/// Reason why a response is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// Not a response, or not to our question: it may be spoofed.
    Foreign,
    /// A malformed response to our question.
    Malformed,
}

/// Question that a response has to answer, and rules for its records.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// QNAME in lower case.
    pub name: &'a Name,
    /// QTYPE of the question.
    pub qtype: u16,
    /// True if DO was set.
    pub dnssec_ok: bool,
    /// QNAME in the random letter case in which it was sent; `None` if it was not sent so.
    pub sent: Option<&'a Name>,
    /// Bounds of the TTLs.
    pub bounds: &'a TtlBounds,
    /// The client's question, if aliases lead from it to this one; else `None`.
    pub original: Option<Original<'a>>,
}

/// A question whose answer begins with aliases from other responses.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// QNAME in lower case.
    pub qname: &'a Name,
    /// Aliases from the other responses.
    pub prefix: &'a ChainPrefix,
}

/// Aliases at the beginning of an answer, in the form in which they stand behind the question.
#[derive(Clone, Debug)]
pub struct ChainPrefix {
    /// Number of records.
    pub answers: u16,
    /// Shortest TTL of the records, in seconds.
    pub ttl_secs: u32,
    /// True if all of them came with AD from a trusted server.
    pub authentic_data: bool,
    /// Records in wire form.
    pub body: Vec<u8, CHAIN_PREFIX_BYTES>,
}

/// Checks `response` against the question, and writes the records to keep into `scratch`.
///
/// # Errors
/// [`ResponseError`] if the response is refused.
pub fn sanitize<'t>(
    response: &[u8],
    expected: &Expected<'_>,
    now: Instant,
    scratch: &'t mut [u8],
) -> Result<Response<'t>, ResponseError> {
    if response.len() > TCP_MESSAGE_MAX {
        return Err(ResponseError::Malformed);
    }
    let (header, question_end) = check_question(response, expected)?;
    let truncated = header.has(flag::TC);
    let sections = match Sections::locate(response, &header, question_end) {
        Some(sections) => sections,
        // A truncated message may end anywhere; the whole answer is asked for over TCP.
        None if truncated => Sections::empty(question_end),
        None => return Err(ResponseError::Malformed),
    };
    let mut sanitizer = Sanitizer::begin(response, expected, sections, &mut *scratch)?;
    let chain = sanitizer.answers()?;
    let rcode = whole_rcode(&header, sections.edns.as_ref(), &chain);
    let useful = matches!(rcode, rcode::NOERROR | rcode::NXDOMAIN | rcode::YXDOMAIN);
    let negative = !chain.answered && !chain.is_too_long && !chain.is_endless && useful;
    sanitizer.authorities(&chain, negative)?;
    // A truncated answer would be given as a whole one for the rest of its TTL.
    let keepable = !truncated && useful && !chain.is_endless;
    let is_open = keepable && rcode == rcode::NOERROR && !chain.answered && !sanitizer.has_soa;
    // NOERROR without data or SOA says nothing about the type: an alias is followed; anything else may be a referral.
    let is_alias = chain.target != *expected.name;
    let is_referral = is_open && !is_alias && !header.has(flag::AA) && sanitizer.has_referral();
    // A chain is authentic if all of its parts are.
    let original = expected.original;
    let prefix_is_authentic = original.is_none_or(|original| original.prefix.authentic_data);
    let head = Head {
        rcode,
        authentic_data: header.has(flag::AD) && prefix_is_authentic,
        answers: sanitizer.kept[0],
        authorities: sanitizer.kept[1],
        ttl_secs: if keepable {
            sanitizer.ttl_secs(negative)
        } else {
            0
        },
        stored: now,
        ede: sections.edns.and_then(|edns| edns.ede).unwrap_or(ede::NONE),
        ..Head::EMPTY
    };
    Ok(Response {
        head,
        body: sanitizer.body_at..sanitizer.writer.position(),
        scratch,
        truncated,
        has_edns: sections.edns.is_some(),
        ends_in_alias: is_open && is_alias,
        is_endless: chain.is_endless,
        is_referral,
    })
}

/// RCODE with EDNS's extension. BADVERS counts as FORMERR: the server does not understand our EDNS. YXDOMAIN stands for a
/// DNAME that makes too long a name (RFC 6672 section 2.2), and for nothing else here. All other codes are failures.
fn whole_rcode(header: &Header, edns: Option<&Edns>, chain: &Chain) -> u8 {
    match (edns.map_or(0, |edns| edns.extended_rcode), header.rcode()) {
        (0, rcode::NOERROR | rcode::NXDOMAIN | rcode::YXDOMAIN) if chain.is_too_long => {
            rcode::YXDOMAIN
        }
        (0, rcode::YXDOMAIN) => rcode::SERVFAIL,
        (0, code) => code,
        (1, 0) => rcode::FORMERR,
        _ => rcode::SERVFAIL,
    }
}

/// Header of the response and end of its question, if it is a response to the expected question.
fn check_question(
    response: &[u8],
    expected: &Expected<'_>,
) -> Result<(Header, usize), ResponseError> {
    let header = Header::parse(response).ok_or(ResponseError::Foreign)?;
    if !header.has(flag::QR) || header.opcode() != 0 {
        return Err(ResponseError::Foreign);
    }
    let sent_name = expected.name.as_wire();
    // Some servers omit the question in a response without records (RFC 6891 section 7 mentions FORMERR).
    let says_nothing = !matches!(header.rcode(), rcode::NOERROR | rcode::NXDOMAIN);
    if header.counts[..3] == [0; 3] && says_nothing {
        return Ok((header, HEADER_LEN));
    }
    let name_end = HEADER_LEN + sent_name.len();
    let same_name = response
        .get(HEADER_LEN..name_end)
        .is_some_and(|name| name.eq_ignore_ascii_case(sent_name));
    let same = header.counts[0] == 1
        && same_name
        && read_u16(response, name_end) == Some(expected.qtype)
        && read_u16(response, name_end + 2) == Some(class::IN);
    if same {
        Ok((header, name_end + QUESTION_FIXED_LEN))
    } else {
        Err(ResponseError::Foreign)
    }
}

/// Owner and type of an OPT record.
const OPT_START: [u8; 3] = [0, 0, rtype::OPT as u8];

/// Positions of the sections.
#[derive(Clone, Copy, Debug)]
struct Sections {
    answers_at: usize,
    answers: usize,
    authorities_at: usize,
    authorities: usize,
    edns: Option<Edns>,
}

impl Sections {
    const fn empty(at: usize) -> Self {
        Self {
            answers_at: at,
            answers: 0,
            authorities_at: at,
            authorities: 0,
            edns: None,
        }
    }

    /// Walks the whole message once; `None` if a record is malformed. A malformed OPT record, even one that runs past the
    /// message's end, is ignored if there is an answer.
    fn locate(response: &[u8], header: &Header, question_end: usize) -> Option<Self> {
        let [_, answers, authorities, additionals] = header.counts.map(usize::from);
        let authorities_at = section_end(response, question_end, answers)?;
        let additionals_at = section_end(response, authorities_at, authorities)?;
        let (mut at, mut edns, mut opts) = (additionals_at, None, 0);
        for record in Records::new(response, additionals_at, additionals) {
            let Ok(record) = record else {
                let is_opt = response.get(at..at + OPT_START.len()) == Some(&OPT_START);
                // A message with no other record may owe its meaning to the OPT record's extended RCODE.
                if !is_opt || answers + authorities == 0 {
                    return None;
                }
                edns = None;
                break;
            };
            at = record.end;
            if record.rtype == rtype::OPT {
                opts += 1;
                edns = read_opt(response, &record);
            }
        }
        Some(Self {
            answers_at: question_end,
            answers,
            authorities_at,
            authorities,
            // Of several OPT records none is used.
            edns: edns.filter(|_| opts == 1),
        })
    }
}

/// Reads an upstream's OPT record. If its options are malformed, only a nonzero extended RCODE counts, which says that the
/// message is no answer; else `None`, and the answer is used as if there were no OPT.
fn read_opt(response: &[u8], record: &Record) -> Option<Edns> {
    if let Ok(edns) = Edns::parse(response, record) {
        return Some(edns);
    }
    let is_at_root = response.get(record.owner) == Some(&0);
    let extended_rcode = (record.ttl_secs >> 24) as u8;
    (is_at_root && extended_rcode != 0).then(|| Edns {
        extended_rcode,
        ..Edns::default()
    })
}

/// End of the section of `count` records from `at` on; `None` if a record is malformed. An unreadable owner name counts as
/// malformed, because it might be QNAME, and the answer would be incomplete.
fn section_end(response: &[u8], at: usize, count: usize) -> Option<usize> {
    let mut end = at;
    for record in Records::new(response, at, count) {
        let record = record.ok()?;
        record::owner(response, &record).ok()?;
        end = record.end;
    }
    Some(end)
}

/// End of a chain of aliases.
struct Chain {
    /// Last name of the chain.
    target: Name,
    /// True if records of the asked type stand there.
    answered: bool,
    /// True if a DNAME makes a name that exceeds 255 bytes.
    is_too_long: bool,
    /// True if the chain is a loop or exceeds [`CHAIN_MAX`].
    is_endless: bool,
}

/// Next step of a chain.
#[expect(
    clippy::large_enum_variant,
    reason = "there is no heap for a box, and one is alive at a time"
)]
enum Step {
    /// There is no alias.
    End,
    /// The alias leads to this name, in the response's letter case.
    To(Name),
    /// The DNAME makes a name that is too long.
    TooLong,
}

/// State of sanitizing a response.
struct Sanitizer<'a> {
    response: &'a [u8],
    expected: &'a Expected<'a>,
    sections: Sections,
    writer: Writer<'a>,
    body_at: usize,
    /// Numbers of kept records: answers, authorities.
    kept: [u16; 2],
    min_ttl_secs: u32,
    /// True if the SOA of a negative answer was kept.
    has_soa: bool,
    /// Comparisons of records that are left for this response.
    comparisons_left: u32,
}

impl<'a> Sanitizer<'a> {
    fn begin(
        response: &'a [u8],
        expected: &'a Expected<'a>,
        sections: Sections,
        scratch: &'a mut [u8],
    ) -> Result<Self, ResponseError> {
        let mut writer = Writer::new(scratch);
        let qname = expected
            .original
            .map_or(expected.name, |original| original.qname);
        writer
            .question(qname.as_wire(), expected.qtype, class::IN)
            .map_err(|_| ResponseError::Malformed)?;
        let body_at = writer.position();
        let prefix = expected.original.map(|original| original.prefix);
        // The prefix was cut from behind the same question, so its pointers are right.
        prefix
            .map_or(Ok(()), |prefix| writer.put(&prefix.body))
            .map_err(|_| ResponseError::Malformed)?;
        Ok(Self {
            response,
            expected,
            sections,
            writer,
            body_at,
            kept: [prefix.map_or(0, |prefix| prefix.answers), 0],
            min_ttl_secs: prefix.map_or(u32::MAX, |prefix| prefix.ttl_secs),
            has_soa: false,
            comparisons_left: COMPARISONS_MAX,
        })
    }

    fn answer_records(&self) -> impl Iterator<Item = Record> + use<'a> {
        Records::new(
            self.response,
            self.sections.answers_at,
            self.sections.answers,
        )
        .flatten()
    }

    fn authority_records(&self) -> impl Iterator<Item = Record> + use<'a> {
        Records::new(
            self.response,
            self.sections.authorities_at,
            self.sections.authorities,
        )
        .flatten()
    }

    /// Keeps the chain from QNAME on, and the records at its end.
    fn answers(&mut self) -> Result<Chain, ResponseError> {
        let mut chain = Chain {
            target: *self.expected.name,
            answered: false,
            is_too_long: false,
            is_endless: false,
        };
        // Target in the response's letter case.
        let mut written = chain.target;
        let wants_alias = self.expected.qtype == rtype::CNAME;
        for _ in 0..CHAIN_MAX {
            // Data at a name takes precedence over an alias there: a server that sends both is believed about the type that
            // was asked.
            if !wants_alias && self.keep_rrset(&chain.target, self.expected.qtype)? {
                chain.answered = true;
                return Ok(chain);
            }
            match self.follow(&chain.target, &written)? {
                Step::End => return Ok(chain),
                Step::TooLong => {
                    chain.is_too_long = true;
                    return Ok(chain);
                }
                Step::To(_) if wants_alias => {
                    chain.answered = true;
                    return Ok(chain);
                }
                Step::To(next) => {
                    written = next;
                    chain.target = next.to_lower();
                }
            }
        }
        chain.is_endless = true;
        Ok(chain)
    }

    /// Keeps the alias at `owner`, whose form in the response is `written`: its CNAME, and the DNAME that made it, because
    /// the CNAME has no signature. A CNAME that is missing, or is not the one that the DNAME makes, is synthesized (RFC
    /// 6672 section 3.4) with the TTL of the DNAME (section 3.1). So is one that contains labels of our question in random
    /// letter case.
    fn follow(&mut self, owner: &Name, written: &Name) -> Result<Step, ResponseError> {
        let found = self.cname_at(owner)?;
        let cname = found.as_ref().map(|(_, target)| target);
        let Some((dname, parent, made)) = self.maker_of(owner, written, cname)? else {
            let Some((_, target)) = found else {
                return Ok(Step::End);
            };
            self.keep_rrset(owner, rtype::CNAME)?;
            return Ok(Step::To(target));
        };
        self.keep_rrset(&parent, rtype::DNAME)?;
        let Some(made) = made else {
            return Ok(Step::TooLong);
        };
        let found = found.filter(|(_, cname)| cname.to_lower() == made.to_lower());
        let copied = owner.as_wire().len() - parent.as_wire().len();
        match found {
            Some((_, cname)) if !self.has_sent_case(&cname, copied) => {
                self.keep_rrset(owner, rtype::CNAME)?;
                Ok(Step::To(cname))
            }
            found => {
                let source = found.map_or(dname, |(record, _)| record);
                let ttl_secs = self.expected.bounds.clamp(meant_ttl_secs(&source));
                self.writer
                    .record(owner.as_wire(), rtype::CNAME, ttl_secs, made.as_wire())
                    .map_err(|_| ResponseError::Malformed)?;
                self.count(0, ttl_secs);
                Ok(Step::To(made))
            }
        }
    }

    /// True if the first `len` bytes of `cname` equal our question in random letter case.
    fn has_sent_case(&self, cname: &Name, len: usize) -> bool {
        self.expected
            .sent
            .is_some_and(|sent| cname.as_wire().get(..len) == sent.as_wire().get(..len))
    }

    /// The CNAME at `owner`, and its target.
    fn cname_at(&self, owner: &Name) -> Result<Option<(Record, Name)>, ResponseError> {
        let set = Owned::by(owner, self.response, self.expected.name);
        let is_cname = |record: &Record| set.has(record, rtype::CNAME);
        let Some(cname) = self.answer_records().find(is_cname) else {
            return Ok(None);
        };
        let target = self.target_of(&cname)?;
        Ok(Some((cname, target)))
    }

    /// The name that makes up the whole RDATA of `record`.
    fn target_of(&self, record: &Record) -> Result<Name, ResponseError> {
        match Name::parse(self.response, record.rdata_at) {
            Ok((target, end)) if end == record.end => Ok(target),
            Ok(_) | Err(_) => Err(ResponseError::Malformed),
        }
    }

    /// The DNAME above `owner` that made `cname`, or else the first DNAME above it; its owner; and the name that it makes
    /// of `written`, or `None` if that is too long.
    fn maker_of(
        &self,
        owner: &Name,
        written: &Name,
        cname: Option<&Name>,
    ) -> Result<Option<(Record, Name, Option<Name>)>, ResponseError> {
        let mut first = None;
        let is_dname = |record: &Record| record.rtype == rtype::DNAME && record.class == class::IN;
        // Bound: an honest answer has at most one DNAME for each step of its chain, and reading names is expensive.
        for dname in self.answer_records().filter(is_dname).take(CHAIN_MAX) {
            let parent = record::owner(self.response, &dname);
            let parent = parent.map_err(|_| ResponseError::Malformed)?.to_lower();
            if parent == *owner || !name::is_within(owner.as_wire(), parent.as_wire()) {
                continue;
            }
            let made = substitute(written, &parent, &self.target_of(&dname)?);
            let is_its_own = cname
                .zip(made.as_ref())
                .is_some_and(|(cname, made)| cname.to_lower() == made.to_lower());
            if is_its_own {
                return Ok(Some((dname, parent, made)));
            }
            first = first.or(Some((dname, parent, made)));
        }
        Ok(first)
    }

    /// Keeps the RRset and, if the client wants DNSSEC records, its signatures, all with the shortest of their TTLs (RFC
    /// 2181 section 5.2). RRSIGs that are asked for by type keep the TTLs of what they sign (RFC 4034 section 3).
    /// Duplicates are left out (RFC 2181 section 5). Returns true if there was a record.
    fn keep_rrset(&mut self, owner: &Name, wanted: u16) -> Result<bool, ResponseError> {
        let response = self.response;
        let set = Owned::by(owner, response, self.expected.name);
        let of_set = |record: &Record| set.has(record, wanted);
        let ttls = self.answer_records().filter(of_set);
        let Some(ttl_secs) = ttls.map(|record| meant_ttl_secs(&record)).min() else {
            return Ok(false);
        };
        let mut distinct = Distinct::of(response);
        for record in self.answer_records().filter(of_set) {
            if !distinct.is_new(&record, &mut self.comparisons_left) {
                continue;
            }
            let own_secs = meant_ttl_secs(&record);
            let is_signature = wanted == rtype::RRSIG;
            self.keep(&record, 0, if is_signature { own_secs } else { ttl_secs })?;
        }
        if self.expected.dnssec_ok && wanted != rtype::RRSIG {
            for record in self.answer_records() {
                if set.has(&record, rtype::RRSIG) && self.covers(&record, wanted) {
                    self.keep(&record, 0, ttl_secs.min(meant_ttl_secs(&record)))?;
                }
            }
        }
        Ok(true)
    }

    /// True if the RRSIG `record` covers type `covered` (RFC 4034 section 3.1.1).
    fn covers(&self, record: &Record, covered: u16) -> bool {
        read_u16(self.response, record.rdata_at) == Some(covered)
    }

    /// Keeps the SOA of a negative answer, and the proofs that a validating client needs.
    fn authorities(&mut self, chain: &Chain, negative: bool) -> Result<(), ResponseError> {
        for record in self.authority_records() {
            let proof = matches!(record.rtype, rtype::NSEC | rtype::NSEC3)
                || record.rtype == rtype::RRSIG
                    && [rtype::NSEC, rtype::NSEC3]
                        .iter()
                        .any(|&covered| self.covers(&record, covered));
            let soa = record.rtype == rtype::SOA
                || record.rtype == rtype::RRSIG && self.covers(&record, rtype::SOA);
            let wanted = soa && negative && self.is_zone_of(&record, &chain.target)
                || proof && self.expected.dnssec_ok;
            if record.class != class::IN
                || !wanted
                || record.rtype == rtype::RRSIG && !self.expected.dnssec_ok
            {
                continue;
            }
            let mut ttl_secs = meant_ttl_secs(&record);
            if record.rtype == rtype::SOA {
                let minimum = read_u32(self.response, record.end.saturating_sub(4)).unwrap_or(0);
                // We keep the answer as long as a client may from the same record (RFC 2308 section 5).
                ttl_secs = ttl_secs.min(minimum);
                self.has_soa = true;
            }
            self.keep(&record, 1, ttl_secs)?;
        }
        Ok(())
    }

    /// True if the authority section has NS records of a zone that contains QNAME.
    fn has_referral(&self) -> bool {
        let servers = |record: &Record| record.rtype == rtype::NS && record.class == class::IN;
        self.authority_records()
            .filter(servers)
            .any(|record| self.is_zone_of(&record, self.expected.name))
    }

    fn is_zone_of(&self, record: &Record, target: &Name) -> bool {
        record::owner(self.response, record)
            .is_ok_and(|zone| name::is_within(target.as_wire(), zone.to_lower().as_wire()))
    }

    fn keep(
        &mut self,
        record: &Record,
        section: usize,
        ttl_secs: u32,
    ) -> Result<(), ResponseError> {
        let mut ttl_secs = self.expected.bounds.clamp(ttl_secs);
        if section == 1 && record.rtype == rtype::SOA {
            ttl_secs = ttl_secs.min(self.expected.bounds.negative_max_secs);
        }
        match self.writer.copy_record(self.response, record, ttl_secs) {
            Ok(()) => {}
            Err(WriteError::Malformed | WriteError::Full) => return Err(ResponseError::Malformed),
        }
        self.count(section, ttl_secs);
        Ok(())
    }

    /// Counts a record that was written.
    fn count(&mut self, section: usize, ttl_secs: u32) {
        self.kept[section] += 1;
        self.min_ttl_secs = self.min_ttl_secs.min(ttl_secs);
    }

    /// TTL of the answer in the cache: that of its shortest-lived record; 0 if it is not cached.
    const fn ttl_secs(&self, negative: bool) -> u32 {
        // RFC 2308 section 5: a negative answer without an SOA is not cached.
        let is_kept = if negative {
            self.has_soa
        } else {
            self.kept[0] > 0
        };
        if is_kept { self.min_ttl_secs } else { 0 }
    }
}

/// `name` with its suffix `parent` replaced by `target`; `None` if the result is too long.
fn substitute(name: &Name, parent: &Name, target: &Name) -> Option<Name> {
    let (name, parent, target) = (name.as_wire(), parent.as_wire(), target.as_wire());
    let prefix = name.get(..name.len().checked_sub(parent.len())?)?;
    let mut made: Vec<u8, NAME_MAX> = Vec::new();
    made.extend_from_slice(prefix).ok()?;
    made.extend_from_slice(target).ok()?;
    Name::from_wire(&made)
}
