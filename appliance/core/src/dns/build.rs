//! Writer of messages: questions, and records with name compression (RFC 1035 section 4.1.4).

use super::edns::OPT_LEN_MAX;
use super::header::HEADER_LEN;
use super::name::{self, Name};
use super::record::{self, Compression, Layout, MalformedRdata, Record};
use super::rtype;
use crate::limits::TCP_MESSAGE_MAX;
use heapless::Vec;

/// Most offsets that are remembered as compression targets. When full, later names are written out in full.
const TARGETS_MAX: usize = 48;
/// Highest offset of a compression pointer.
const POINTER_MAX: usize = 0x3fff;

/// Appends to a message from an offset on.
#[derive(Debug)]
pub struct Writer<'a> {
    message: &'a mut [u8],
    at: usize,
    targets: Vec<u16, TARGETS_MAX>,
}

/// Names against which a name is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compress {
    /// None: the name is written out in full.
    No,
    /// Equal names (RFC 4343): the reader sees the name in the target's letter case.
    Equal,
    /// Names of the same letter case. The question is excluded, since each client's message has it in the client's letter
    /// case.
    SameCase,
}

/// Longest answer that is made here, in bytes: OPT has room behind it in the largest message.
pub const LOCAL_ANSWER_MAX: usize = TCP_MESSAGE_MAX - OPT_LEN_MAX;

/// Reason why a message cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The buffer is full.
    Full,
    /// The RDATA of the source is malformed for its type.
    Malformed,
}

impl From<MalformedRdata> for WriteError {
    fn from(_: MalformedRdata) -> Self {
        Self::Malformed
    }
}

impl<'a> Writer<'a> {
    /// A writer at the end of the header, which the caller fills in last.
    #[must_use]
    pub const fn new(message: &'a mut [u8]) -> Self {
        Self {
            message,
            at: HEADER_LEN,
            targets: Vec::new(),
        }
    }

    /// A writer at the end of a question that stands in `message` already.
    #[must_use]
    pub fn after_question(message: &'a mut [u8], question_end: usize) -> Self {
        let mut writer = Self {
            message,
            at: question_end,
            targets: Vec::new(),
        };
        writer.remember(HEADER_LEN);
        writer
    }

    /// Takes back what stands behind `position`.
    pub fn rewind(&mut self, position: usize) {
        self.at = position;
        self.targets
            .retain(|&target| usize::from(target) < position);
    }

    /// Offset of the end.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Appends bytes as they are.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let end = self.at + bytes.len();
        self.message
            .get_mut(self.at..end)
            .ok_or(WriteError::Full)?
            .copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    /// Appends a big-endian u16.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn put_u16(&mut self, value: u16) -> Result<(), WriteError> {
        self.put(&value.to_be_bytes())
    }

    /// Appends a question.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn question(&mut self, name: &[u8], qtype: u16, qclass: u16) -> Result<(), WriteError> {
        self.put_name(name, Compress::Equal)?;
        self.put_u16(qtype)?;
        self.put_u16(qclass)
    }

    /// Appends a name in uncompressed wire form, compressed as `compress` allows.
    fn put_name(&mut self, wire: &[u8], compress: Compress) -> Result<(), WriteError> {
        for suffix in name::suffixes(wire) {
            if suffix.len() == 1 {
                return self.put(&[0]);
            }
            if let Some(target) = self.find(suffix, compress) {
                return self.put_u16(0xc000 | target);
            }
            let label = &suffix[..1 + usize::from(suffix[0])];
            self.remember(self.at);
            self.put(label)?;
        }
        Ok(())
    }

    /// Appends a record of class IN with uncompressed `rdata`. Names in it keep their letter case.
    ///
    /// # Errors
    /// [`WriteError::Full`] if it does not fit, [`WriteError::Malformed`] if `rdata` is malformed for its type.
    pub fn record(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl_secs: u32,
        rdata: &[u8],
    ) -> Result<(), WriteError> {
        let length_at = self.record_head(owner, rtype, ttl_secs)?;
        let source = Record {
            owner: 0,
            rtype,
            class: 1,
            ttl_secs,
            ttl_at: 0,
            rdata_at: 0,
            end: rdata.len(),
        };
        self.put_rdata(rdata, &source, Compress::SameCase)?;
        self.finish_record(length_at)
    }

    /// Appends the SOA record of a local zone: MNAME is the zone itself, `tail` is the rest of RDATA.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn soa(&mut self, zone: &[u8], ttl_secs: u32, tail: &[u8]) -> Result<(), WriteError> {
        let length_at = self.record_head(zone, rtype::SOA, ttl_secs)?;
        self.put_name(zone, Compress::Equal)?;
        self.put(tail)?;
        self.finish_record(length_at)
    }

    /// Appends a record of one character string (at most 255 bytes) and TTL 0, in any class.
    ///
    /// # Errors
    /// The buffer is full, or `text` is too long.
    pub fn text_record(
        &mut self,
        owner: &[u8],
        rtype: u16,
        rclass: u16,
        text: &[u8],
    ) -> Result<(), WriteError> {
        let len = u8::try_from(text.len()).map_err(|_| WriteError::Malformed)?;
        self.put_name(owner, Compress::Equal)?;
        self.put_u16(rtype)?;
        self.put_u16(rclass)?;
        self.put(&0u32.to_be_bytes())?;
        self.put_u16(u16::from(len) + 1)?;
        self.put(&[len])?;
        self.put(text)
    }

    /// Appends the record `source` of `message` with another TTL. Names are decompressed and compressed anew.
    ///
    /// # Errors
    /// The buffer is full, or the record is malformed.
    pub fn copy_record(
        &mut self,
        message: &[u8],
        source: &Record,
        ttl_secs: u32,
    ) -> Result<(), WriteError> {
        let owner = record::owner(message, source).map_err(|_| WriteError::Malformed)?;
        let length_at = self.record_head(owner.as_wire(), source.rtype, ttl_secs)?;
        self.put_rdata(message, source, Compress::Equal)?;
        self.finish_record(length_at)
    }

    fn record_head(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl_secs: u32,
    ) -> Result<usize, WriteError> {
        self.put_name(owner, Compress::Equal)?;
        self.put_u16(rtype)?;
        self.put_u16(super::class::IN)?;
        self.put(&ttl_secs.to_be_bytes())?;
        self.put_u16(0)?;
        Ok(self.at - 2)
    }

    fn finish_record(&mut self, length_at: usize) -> Result<(), WriteError> {
        let len = u16::try_from(self.at - length_at - 2).map_err(|_| WriteError::Full)?;
        self.message[length_at..length_at + 2].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }

    fn put_rdata(
        &mut self,
        message: &[u8],
        source: &Record,
        compress: Compress,
    ) -> Result<(), WriteError> {
        let rdata = message.get(source.rdata()).ok_or(WriteError::Malformed)?;
        let layout = Layout::of(source.rtype, rdata);
        if !layout.allows(rdata.len()) {
            return Err(WriteError::Malformed);
        }
        let compress = match layout.compression {
            Compression::Never => return self.put(rdata),
            Compression::ReadOnly => Compress::No,
            Compression::Allowed => compress,
        };
        self.put(&rdata[..layout.names_at()])?;
        let tail_at = record::read_names(message, source, &layout, |name| {
            self.put_name(name.as_wire(), compress)
        })?;
        self.put(&message[tail_at..source.end])
    }

    fn remember(&mut self, offset: usize) {
        if offset <= POINTER_MAX {
            // When full, the name is no target.
            let _ = self.targets.push(offset as u16);
        }
    }

    /// A remembered offset of exactly `suffix`.
    fn find(&self, suffix: &[u8], compress: Compress) -> Option<u16> {
        match compress {
            Compress::No => None,
            Compress::Equal => self.find_equal(suffix),
            Compress::SameCase => self.find_same_case(suffix),
        }
    }

    fn find_same_case(&self, suffix: &[u8]) -> Option<u16> {
        let written = &self.message[..self.at];
        let question_end = name::plain_end(written, HEADER_LEN).unwrap_or(HEADER_LEN);
        let targets = self.targets.iter().copied();
        let mut targets = targets.filter(|&at| usize::from(at) >= question_end);
        targets.find(|&at| {
            Name::parse(written, usize::from(at)).is_ok_and(|(name, _)| name.as_wire() == suffix)
                && !leads_before(written, usize::from(at), question_end)
        })
    }

    fn find_equal(&self, suffix: &[u8]) -> Option<u16> {
        let written = &self.message[..self.at];
        // The question's own suffixes are found without having been remembered one by one.
        let question = self
            .targets
            .first()
            .filter(|&&first| usize::from(first) == HEADER_LEN);
        let within = question.and_then(|_| question_suffix(written, suffix));
        within.or_else(|| {
            self.targets
                .iter()
                .copied()
                .find(|&at| stands_at(written, usize::from(at), suffix))
        })
    }
}

/// Offset of `suffix` inside the question's QNAME.
fn question_suffix(message: &[u8], suffix: &[u8]) -> Option<u16> {
    let end = name::plain_end(message, HEADER_LEN).ok()?;
    let start = end
        .checked_sub(suffix.len())
        .filter(|&start| start >= HEADER_LEN)?;
    let aligned =
        name::suffixes(&message[HEADER_LEN..end]).any(|candidate| candidate.len() == suffix.len());
    (aligned && message[start..end].eq_ignore_ascii_case(suffix)).then_some(start as u16)
}

/// True if the well-formed name at `offset` ends in pointers to an offset before `border`.
fn leads_before(message: &[u8], offset: usize, border: usize) -> bool {
    let mut at = offset;
    // Bound: a label advances to the end of its run, a pointer goes strictly backwards.
    while at >= border {
        match message.get(at..at + 2) {
            Some(&[high, low]) if high & 0xc0 == 0xc0 => {
                at = usize::from(u16::from_be_bytes([high & 0x3f, low]));
            }
            Some(&[len, _]) if len > 0 => at += 1 + usize::from(len),
            Some(_) | None => return false,
        }
    }
    true
}

/// True if the name at `offset` of `message`, with pointers followed, equals the uncompressed `wire` (RFC 4343).
#[must_use]
pub fn stands_at(message: &[u8], offset: usize, wire: &[u8]) -> bool {
    let mut at = offset;
    let mut rest = wire;
    let mut run = offset;
    // Bound: a label shortens `rest`, a pointer goes strictly backwards.
    loop {
        let Some(&label) = message.get(at) else {
            return false;
        };
        if label & 0xc0 == 0xc0 {
            let Some(&low) = message.get(at + 1) else {
                return false;
            };
            let target = usize::from(u16::from_be_bytes([label & 0x3f, low]));
            if target >= run {
                return false;
            }
            run = target;
            at = target;
            continue;
        }
        let len = 1 + usize::from(label);
        let (Some(mine), Some(theirs)) = (message.get(at..at + len), rest.get(..len)) else {
            return false;
        };
        if !mine.eq_ignore_ascii_case(theirs) {
            return false;
        }
        if label == 0 {
            return rest.len() == 1;
        }
        rest = &rest[len..];
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::record::Records;

    const QNAME: &[u8] = b"\x03www\x02ab\0";

    #[test]
    fn names_are_compressed_against_the_question_and_each_other() {
        let mut buffer = [0xa5; 256];
        let mut writer = Writer::new(&mut buffer);
        writer.question(QNAME, 1, 1).expect("fits");
        let question_end = writer.position();
        writer
            .record(QNAME, rtype::CNAME, 60, b"\x01x\x02cd\0")
            .expect("fits");
        writer
            .record(b"\x01X\x02cd\0", rtype::A, 60, &[1, 2, 3, 4])
            .expect("fits");
        writer
            .record(b"\x02ab\0", rtype::MX, 60, b"\0\x05\x02mx\x02ab\0")
            .expect("fits");
        let end = writer.position();
        let message = &buffer[..end];
        let mut records =
            Records::new(message, question_end, 3).map(|record| record.expect("well-formed"));
        let cname = records.next().expect("CNAME");
        assert_eq!(&message[cname.owner..cname.owner + 2], b"\xc0\x0c");
        let address = records.next().expect("A");
        assert_eq!(
            address.ttl_at - address.owner,
            6,
            "owner is a pointer into the CNAME's RDATA"
        );
        assert!(stands_at(message, address.owner, b"\x01x\x02cd\0"));
        let mx = records.next().expect("MX");
        assert_eq!(
            &message[mx.rdata()],
            b"\0\x05\x02mx\x02ab\0",
            "the question's letter case is the client's"
        );
    }

    /// A client may write the question in any letter case; names in RDATA keep theirs.
    #[test]
    fn names_in_local_rdata_keep_their_letter_case() {
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer);
        writer
            .question(b"\x04_ipp\x03lan\0", rtype::PTR, 1)
            .expect("fits");
        let question_end = writer.position();
        let owner = b"\x04_ipp\x03lan\0";
        let instances: [&[u8]; 4] = [
            b"\x05My TV\x04_ipp\x03lan\0",
            b"\x05my tv\x04_ipp\x03lan\0",
            b"\x05My TV\x04_IPP\x03lan\0",
            b"\x01x\x05My TV\x04_ipp\x03lan\0",
        ];
        for rdata in instances {
            writer.record(owner, rtype::PTR, 60, rdata).expect("fits");
        }
        // An owner may be compressed against any name, even if it then ends in the question.
        writer
            .record(b"\x01y\x03lan\0", rtype::PTR, 60, b"\x01y\x03lan\0")
            .expect("fits");
        let end = writer.position();
        buffer[13..17].copy_from_slice(b"_IpP");
        buffer[18..21].copy_from_slice(b"LAN");
        let message = &buffer[..end];
        let expected = instances.into_iter().chain([&b"\x01y\x03lan\0"[..]]);
        for (record, expected) in Records::new(message, question_end, 5).zip(expected) {
            let record = record.expect("well-formed");
            let (name, _) = Name::parse(message, record.rdata_at).expect("a name");
            assert_eq!(name.as_wire(), expected);
        }
        let second = Records::new(message, question_end, 5).nth(1).expect("PTR");
        let len = second.expect("well-formed").rdata().len();
        assert_eq!(len, b"\x05my tv".len() + 2, "against the first one's tail");
    }

    #[test]
    fn srv_targets_are_never_compressed() {
        let mut buffer = [0; 128];
        let mut writer = Writer::new(&mut buffer);
        writer.question(QNAME, rtype::SRV, 1).expect("fits");
        let at = writer.position();
        let rdata = [&[0, 1, 0, 2, 0, 53][..], QNAME].concat();
        writer.record(QNAME, rtype::SRV, 1, &rdata).expect("fits");
        assert_eq!(&buffer[at + 12..at + 12 + rdata.len()], rdata);
    }

    #[test]
    fn malformed_rdata_is_refused() {
        for (rtype, rdata) in [
            (rtype::A, &b"\x01\x02\x03"[..]),
            (rtype::MX, b"\0"),
            (rtype::CNAME, b"\x01x\0y"),
            (rtype::SOA, b"\x01x\0\x01y\0\0\0\0\x01"),
            (rtype::NS, b"\x03ab"),
        ] {
            let mut buffer = [0; 128];
            let result = Writer::new(&mut buffer).record(b"\0", rtype, 1, rdata);
            assert_eq!(result, Err(WriteError::Malformed), "type {rtype}");
        }
    }

    #[test]
    fn a_full_buffer_is_said() {
        let mut whole = [0; 64];
        let mut writer = Writer::new(&mut whole);
        writer
            .record(QNAME, rtype::A, 1, &[1, 2, 3, 4])
            .expect("fits");
        let end = writer.position();
        for len in 12..end {
            let result = Writer::new(&mut whole[..len]).record(QNAME, rtype::A, 1, &[1, 2, 3, 4]);
            assert_eq!(result, Err(WriteError::Full));
        }
    }
}
