//! Parser of replies without any code of the appliance: strict where the RFCs are, lenient otherwise.

use std::fmt;

use anyhow::{Context, Result, ensure};

use super::ask::rtype;
use super::message::HEADER_LEN;

/// Maximum number of labels and jumps in a name: ends loops.
const STEPS_MAX: usize = 255;

/// A reply.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// ID.
    pub id: u16,
    /// All flags with opcode and the low half of the RCODE.
    pub flags: u16,
    /// The bytes of the question section.
    pub question: Vec<u8>,
    /// Records without OPT: answers, authorities, additionals.
    pub sections: [Vec<Rr>; 3],
    /// The OPT record.
    pub opt: Option<Opt>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rr {
    /// In lower case, with a dot at the end.
    pub owner: String,
    /// Type.
    pub rtype: u16,
    /// Class.
    pub class: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA as it is, with names compressed or not.
    pub rdata: Vec<u8>,
}

/// OPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opt {
    /// UDP size that the server accepts.
    pub size: u16,
    /// High eight bits of the RCODE.
    pub extended_rcode: u8,
    /// Version.
    pub version: u8,
    /// DO and the unassigned bits.
    pub flags: u16,
    /// Code and data.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Opt {
    /// The data of the one option `code`.
    pub fn option(&self, code: u16) -> Option<&[u8]> {
        let mut of_code = self.options.iter().filter(|(of, _)| *of == code);
        let (_, data) = of_code.next()?;
        assert!(of_code.next().is_none(), "option {code} stands twice");
        Some(data)
    }
}

impl View {
    /// Parses a reply to the last byte.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).with_context(|| format!("the reply {bytes:02x?}"))
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() >= HEADER_LEN, "shorter than a header");
        let word = |index: usize| u16::from_be_bytes([bytes[2 * index], bytes[2 * index + 1]]);
        let [questions, answers, authorities, additionals] = [2, 3, 4, 5].map(word);
        let mut at = HEADER_LEN;
        for _ in 0..questions {
            at = name_at(bytes, at)?.1 + 4;
        }
        let question = bytes.get(HEADER_LEN..at).context("question")?.to_vec();
        let (mut sections, mut opt) = ([Vec::new(), Vec::new(), Vec::new()], None);
        let counts = [answers, authorities, additionals];
        for (section, count) in sections.iter_mut().zip(counts) {
            for _ in 0..count {
                let (record, end) = record_at(bytes, at)?;
                at = end;
                if record.rtype == rtype::OPT {
                    ensure!(opt.is_none(), "two OPT records");
                    opt = Some(read_opt(&record)?);
                } else {
                    section.push(record);
                }
            }
        }
        ensure!(
            at == bytes.len(),
            "{} bytes behind the end",
            bytes.len() - at
        );
        Ok(Self {
            bytes: bytes.to_vec(),
            id: word(0),
            flags: word(1),
            question,
            sections,
            opt,
        })
    }

    /// RCODE, including the half in OPT.
    pub fn rcode(&self) -> u16 {
        let high = self.opt.as_ref().map_or(0, |opt| opt.extended_rcode);
        u16::from(high) << 4 | self.flags & 0xf
    }

    /// Opcode.
    pub fn opcode(&self) -> u16 {
        self.flags >> 11 & 0xf
    }

    /// True if all of these flags are set.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// The answer section.
    pub fn answers(&self) -> &[Rr] {
        &self.sections[0]
    }

    /// The extended error code (RFC 8914).
    pub fn ede(&self) -> Option<u16> {
        let data = self.opt.as_ref()?.option(super::ask::option::EDE)?;
        Some(u16::from_be_bytes([data[0], data[1]]))
    }

    /// Data of the answers of this type, sorted: RRsets have no order.
    pub fn data(&self, rtype: u16) -> Vec<&[u8]> {
        let of_type = self.answers().iter().filter(|record| record.rtype == rtype);
        let mut data: Vec<&[u8]> = of_type.map(|record| &record.rdata[..]).collect();
        data.sort_unstable();
        data
    }
}

impl fmt::Debug for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            flags,
            question,
            sections,
            opt,
            ..
        } = self;
        let rcode = self.rcode();
        write!(
            formatter,
            "id {id:04x} flags {flags:04x} rcode {rcode} question {question:02x?} {sections:?} {opt:?}"
        )
    }
}

fn read_opt(record: &Rr) -> Result<Opt> {
    ensure!(record.owner == ".", "OPT of {}", record.owner);
    let [extended_rcode, version, high, low] = record.ttl.to_be_bytes();
    let (mut rest, mut options) = (&record.rdata[..], Vec::new());
    while let Some((head, behind)) = rest.split_first_chunk::<4>() {
        let code = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let data = behind.get(..len).context("an option breaks off")?;
        options.push((code, data.to_vec()));
        rest = &behind[len..];
    }
    ensure!(rest.is_empty(), "bytes behind the last option");
    Ok(Opt {
        size: record.class,
        extended_rcode,
        version,
        flags: u16::from_be_bytes([high, low]),
        options,
    })
}

/// Record at `at`, and the offset of its end.
fn record_at(bytes: &[u8], at: usize) -> Result<(Rr, usize)> {
    let (owner, at) = name_at(bytes, at)?;
    let fixed = bytes.get(at..at + 10).context("a record breaks off")?;
    let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let end = at + 10 + usize::from(word(8));
    let rdata = bytes.get(at + 10..end).context("RDATA breaks off")?;
    let record = Rr {
        owner,
        rtype: word(0),
        class: word(2),
        ttl: u32::from(word(4)) << 16 | u32::from(word(6)),
        rdata: rdata.to_vec(),
    };
    Ok((record, end))
}

/// Name at `at` as text in lower case, and the offset of its end.
fn name_at(bytes: &[u8], at: usize) -> Result<(String, usize)> {
    let (mut text, mut at, mut end) = (String::new(), at, None);
    for _ in 0..STEPS_MAX {
        let len = *bytes.get(at).context("a name breaks off")?;
        match len {
            0 => {
                let end = end.unwrap_or(at + 1);
                return Ok((if text.is_empty() { ".".into() } else { text }, end));
            }
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(len));
                let label = label.context("a label breaks off")?;
                text += &label.escape_ascii().to_string().to_ascii_lowercase();
                text.push('.');
                at += 1 + usize::from(len);
            }
            0xc0.. => {
                let low = *bytes.get(at + 1).context("a pointer breaks off")?;
                let target = usize::from(len & 0x3f) << 8 | usize::from(low);
                ensure!(target < at, "a pointer that does not lead backwards");
                end = end.or(Some(at + 2));
                at = target;
            }
            _ => anyhow::bail!("a label of type {len:02x}"),
        }
    }
    anyhow::bail!("a name without an end")
}
