//! Codec of the snapshot file, by which the cache survives a restart. Works on slices, without I/O and clock.
//!
//! ```text
//!  0        8         10           12      20      24             32         33        36    40
//!  | magic  | version | header len | marker | count | saved, secs | clock    | servers | CRC | record | record ...
//!  record   0        8        10                        length + 10
//!           | marker | length | postcard ..., CRC of it |
//! ```
//!
//! All integers are little-endian, as postcard's. The marker is drawn at random for each file, as in Avro's object
//! container files. After damage a reader continues at the next marker. Nobody knew the marker when the answers came in, so
//! no answer can contain a forged record.
//!
//! A file is untrusted. A record is returned only if its CRC is right, its name is a valid key name, and its body is
//! well-formed ([`body_is_well_formed`]). A broken record loses no other record.

use crc::{CRC_32_ISO_HDLC, Crc};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Head, Key, bit, body_is_well_formed, is_key_name};
use crate::limits::CACHE_LARGE_BYTES;
use crate::time::Instant;

/// First bytes of every snapshot.
const MAGIC: [u8; 8] = *b"XDNSDSNP";
/// Version of header and records. A file of another version is refused; the cache fills again.
const VERSION: u16 = 1;

mod header {
    use core::ops::Range;
    pub const MAGIC: Range<usize> = 0..8;
    pub const VERSION: Range<usize> = 8..10;
    pub const HEADER_LEN: Range<usize> = 10..12;
    pub const MARKER: Range<usize> = 12..20;
    pub const COUNT: Range<usize> = 20..24;
    pub const SAVED: Range<usize> = 24..32;
    pub const CLOCK: usize = 32;
    pub const SERVERS: Range<usize> = 33..36;
    pub const CRC: Range<usize> = 36..40;

    /// Value of `COUNT` if the writer did not know the number of records.
    pub const COUNT_UNKNOWN: u32 = u32::MAX;
    /// Value of the byte at [`CLOCK`] if the clock was synchronised.
    pub const CLOCK_SYNCHRONISED: u8 = 1;
}

mod frame {
    use core::ops::Range;
    pub const MARKER: Range<usize> = 0..8;
    pub const LENGTH: Range<usize> = 8..10;
    pub const PAYLOAD: usize = 10;
}

/// Bits of a record's flags. The lowest are those of the key.
mod flag {
    use crate::answer::field;

    pub const KEY: u8 = field::DNSSEC_OK | field::CHECKING_DISABLED;
    pub const AUTHENTIC_DATA: u8 = 4;
    pub const AUTHORITATIVE: u8 = 8;
    pub const RESTORED: u8 = 16;
    pub const TRANSLATED: u8 = 32;
    pub const ALL: u8 = KEY | AUTHENTIC_DATA | AUTHORITATIVE | RESTORED | TRANSLATED;
}

/// Largest RCODE of a header (RFC 1035 section 4.1.1).
const RCODE_MAX: u8 = 15;
/// Longest varints of postcard for 16 and 32 bits, and length of the CRC, in bytes.
const VARINT_U16_MAX: usize = 3;
const VARINT_U32_MAX: usize = 5;
const CRC_LEN: usize = 4;
/// Longest payload in bytes: two lengths and five other varints of 16 bits, TTL and age, two single bytes, name and body,
/// CRC.
const PAYLOAD_MAX: usize =
    7 * VARINT_U16_MAX + 2 * VARINT_U32_MAX + 2 + CACHE_LARGE_BYTES + CRC_LEN;
const _: () = assert!(PAYLOAD_MAX <= u16::MAX as usize);

/// Buffer size in bytes that is enough for any record.
pub const RECORD_MAX: usize = frame::PAYLOAD + PAYLOAD_MAX;

static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Marker before each record of a file, drawn at random for each file from the system's generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker(pub [u8; 8]);

/// Header of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Marker before each record.
    pub marker: Marker,
    /// Number of records, if the writer knew it.
    pub records: Option<u32>,
    /// Time of writing: Unix time in seconds by the wall clock.
    pub saved_secs: u64,
    /// True if that clock was synchronised.
    pub clock_synchronised: bool,
    /// The servers that the answers are from.
    pub servers: ServersTag,
}

/// Stands for the upstream servers that answers are from: 24 bits, or 0 if they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServersTag(u32);

impl ServersTag {
    /// The tag of the servers that this text names.
    #[must_use]
    pub fn of(text: &str) -> Self {
        // One in sixteen million other lists of servers has the same tag.
        Self((CRC32.checksum(text.as_bytes()) >> 8).max(1))
    }

    /// The tag as a number.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The tag of a number.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & 0x00ff_ffff)
    }

    /// True if both are known, and not the same.
    #[must_use]
    pub const fn differs_from(self, other: Self) -> bool {
        self.0 != 0 && other.0 != 0 && self.0 != other.0
    }
}

/// Reason why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The file does not begin like a snapshot.
    Foreign,
    /// The file has another version of the format, later or abandoned.
    Version(u16),
    /// The file ends inside the header.
    Truncated,
    /// The header of a snapshot is damaged. The records can be read ([`open`]); their age is unknown.
    Damaged,
}

impl SnapshotHeader {
    /// Length of an encoded header in bytes.
    pub const LEN: usize = header::CRC.end;

    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        write_prefix(&mut bytes);
        bytes[header::MARKER].copy_from_slice(&self.marker.0);
        bytes[header::COUNT]
            .copy_from_slice(&self.records.unwrap_or(header::COUNT_UNKNOWN).to_le_bytes());
        bytes[header::SAVED].copy_from_slice(&self.saved_secs.to_le_bytes());
        bytes[header::CLOCK] = if self.clock_synchronised {
            header::CLOCK_SYNCHRONISED
        } else {
            0
        };
        bytes[header::SERVERS].copy_from_slice(&self.servers.0.to_le_bytes()[..3]);
        let crc = checksum(&bytes);
        bytes[header::CRC].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes the header at the beginning of a file. If the CRC is right for a header of our version, bytes that are the
    /// same in every file (magic, version, length) may be damaged.
    ///
    /// # Errors
    /// [`HeaderError`] if there is no readable header.
    pub fn decode(file: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = file.first_chunk::<{ Self::LEN }>() else {
            let known = file.len().min(MAGIC.len());
            return Err(if file[..known] == MAGIC[..known] {
                HeaderError::Truncated
            } else {
                HeaderError::Foreign
            });
        };
        let mut repaired = *bytes;
        write_prefix(&mut repaired);
        if checksum(&repaired) == u32::from_le_bytes(array(bytes, header::CRC)) {
            return Ok(Self::from_fields(bytes));
        }
        if bytes[header::MAGIC] != MAGIC {
            return Err(HeaderError::Foreign);
        }
        match u16::from_le_bytes(array(bytes, header::VERSION)) {
            VERSION => Err(HeaderError::Damaged),
            version => Err(HeaderError::Version(version)),
        }
    }

    fn from_fields(bytes: &[u8; Self::LEN]) -> Self {
        let count = u32::from_le_bytes(array(bytes, header::COUNT));
        Self {
            marker: Marker(array(bytes, header::MARKER)),
            records: (count != header::COUNT_UNKNOWN).then_some(count),
            saved_secs: u64::from_le_bytes(array(bytes, header::SAVED)),
            clock_synchronised: bytes[header::CLOCK] == header::CLOCK_SYNCHRONISED,
            servers: {
                let [low, middle, high] = array(bytes, header::SERVERS);
                ServersTag(u32::from_le_bytes([low, middle, high, 0]))
            },
        }
    }

    /// Age of the file in seconds; `None` unless both clocks, then and now, are synchronised, and now is not before then.
    #[must_use]
    pub fn age_secs(&self, now_secs: u64, now_synchronised: bool) -> Option<u32> {
        if !(self.clock_synchronised && now_synchronised) {
            return None;
        }
        let age = now_secs.checked_sub(self.saved_secs)?;
        Some(u32::try_from(age).unwrap_or(u32::MAX))
    }
}

/// Writes the first fields, which are the same in every file of this version.
fn write_prefix(bytes: &mut [u8; SnapshotHeader::LEN]) {
    bytes[header::MAGIC].copy_from_slice(&MAGIC);
    bytes[header::VERSION].copy_from_slice(&VERSION.to_le_bytes());
    bytes[header::HEADER_LEN].copy_from_slice(&(SnapshotHeader::LEN as u16).to_le_bytes());
}

/// CRC of a header.
fn checksum(bytes: &[u8; SnapshotHeader::LEN]) -> u32 {
    CRC32.checksum(&bytes[..header::CRC.start])
}

/// Bytes at `field`, whose length is `N`.
fn array<const N: usize>(bytes: &[u8], field: core::ops::Range<usize>) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[field]);
    value
}

/// A record in postcard's form. A change here needs a new [`VERSION`].
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    name: &'a [u8],
    qtype: u16,
    flags: u8,
    rcode: u8,
    answers: u16,
    authorities: u16,
    /// Always 0: no additional records are kept. The field stays until the next [`VERSION`].
    additionals: u16,
    ede: u16,
    ttl_secs: u32,
    /// Seconds since the answer was stored.
    age_secs: u32,
    body: &'a [u8],
}

impl<'a> Stored<'a> {
    fn new(key: &Key<'a>, answer: &Answer<'a>, now: Instant) -> Self {
        let head = answer.head;
        let flags = key.flags()
            | bit(head.authentic_data, flag::AUTHENTIC_DATA)
            | bit(head.authoritative, flag::AUTHORITATIVE)
            | bit(head.restored, flag::RESTORED)
            | bit(head.translated, flag::TRANSLATED);
        Self {
            name: key.name,
            qtype: key.qtype,
            flags,
            rcode: head.rcode,
            answers: head.answers,
            authorities: head.authorities,
            additionals: 0,
            ede: head.ede,
            ttl_secs: head.ttl_secs,
            age_secs: now.secs_since(head.stored),
            body: answer.body,
        }
    }

    /// True if the record can be an answer of ours. Checked when a record is written and when it is read.
    fn is_well_formed(&self) -> bool {
        let records = usize::from(self.answers) + usize::from(self.authorities);
        self.flags & !flag::ALL == 0
            && self.rcode <= RCODE_MAX
            && self.additionals == 0
            && is_key_name(self.name)
            // Also checks that name and body fit a slot.
            && body_is_well_formed(self.name, records, self.body)
    }

    fn into_record(self) -> SnapshotRecord<'a> {
        let head = Head {
            rcode: self.rcode,
            authentic_data: self.flags & flag::AUTHENTIC_DATA != 0,
            authoritative: self.flags & flag::AUTHORITATIVE != 0,
            answers: self.answers,
            authorities: self.authorities,
            ttl_secs: self.ttl_secs,
            stored: Instant::from_millis(0),
            restored: self.flags & flag::RESTORED != 0,
            translated: self.flags & flag::TRANSLATED != 0,
            ede: self.ede,
            generation: 0,
            group: Head::DEFAULT_GROUP,
            failed_secs: 0,
        };
        SnapshotRecord {
            key: Key::from_parts(self.name, self.qtype, self.flags & flag::KEY),
            saved: head,
            age_secs: self.age_secs,
            body: self.body,
        }
    }
}

/// Reason why an entry was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The buffer is too short; [`RECORD_MAX`] bytes are enough for any record.
    BufferTooShort,
    /// A reader would refuse it: the name is no valid key name, or the body is malformed.
    Malformed,
    /// It belongs to a view. The config assigns the numbers of views, and may do so otherwise by the time the file is read.
    OfView,
    /// Another group of upstreams than the default one gave it, or several did. The config may route its name otherwise by the
    /// time the file is read.
    OfRoute,
}

/// Encoder for the records of one file.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// Marker of the file.
    pub marker: Marker,
    /// Time in the file's header, by the clock of the answers.
    pub now: Instant,
}

impl Encoder {
    /// Writes one record to the beginning of `buffer`, and returns its length.
    ///
    /// # Errors
    /// [`EncodeError`]; the content of `buffer` is then undefined.
    pub fn encode(
        &self,
        buffer: &mut [u8],
        key: &Key<'_>,
        answer: &Answer<'_>,
    ) -> Result<usize, EncodeError> {
        if key.view != 0 {
            return Err(EncodeError::OfView);
        }
        if answer.head.group != Head::DEFAULT_GROUP {
            return Err(EncodeError::OfRoute);
        }
        let stored = Stored::new(key, answer, self.now);
        if !stored.is_well_formed() {
            return Err(EncodeError::Malformed);
        }
        let (header, payload) = buffer
            .split_first_chunk_mut::<{ frame::PAYLOAD }>()
            .ok_or(EncodeError::BufferTooShort)?;
        let length = postcard::to_slice_crc32(&stored, payload, CRC32.digest())
            .map_err(|_| EncodeError::BufferTooShort)?
            .len();
        header[frame::MARKER].copy_from_slice(&self.marker.0);
        header[frame::LENGTH].copy_from_slice(&(length as u16).to_le_bytes());
        Ok(frame::PAYLOAD + length)
    }
}

/// An entry read from a file, well-formed. Its truth is unknown: it is to be served as stale and refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRecord<'a> {
    /// Key of the entry.
    pub key: Key<'a>,
    /// Records of the answer.
    pub body: &'a [u8],
    /// Head of the answer, except for the time at which it was stored.
    saved: Head,
    /// Age of the answer when the file was written, in seconds.
    age_secs: u32,
}

impl SnapshotRecord<'_> {
    /// Head with which the entry is inserted at `now`. `file_age_secs` comes from [`SnapshotHeader::age_secs`]. If it is
    /// known, the entry has its true age; if it is unknown, or was when the file was written, the entry is `restored` and
    /// so always stale. The caller's epoch has to be far enough back that an entry of that age is useless.
    #[must_use]
    pub fn head(&self, now: Instant, file_age_secs: Option<u32>) -> Head {
        match file_age_secs {
            Some(file_age_secs) if !self.saved.restored => Head {
                stored: now.sub_secs(self.age_secs.saturating_add(file_age_secs)),
                ..self.saved
            },
            Some(_) | None => Head {
                stored: now,
                restored: true,
                ..self.saved
            },
        }
    }
}

/// Reason why a part of the file gave no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostRecord {
    /// A damaged record. The reader continues at the next marker.
    Damaged,
    /// An intact record that cannot be an answer of ours. The reader continues behind it.
    Malformed,
    /// The end of a truncated file, or a damaged last record.
    Torn,
}

/// Iterator over the records of a file. Ends after [`LostRecord::Torn`], or without it at the end of a complete file.
#[derive(Clone, Debug)]
pub struct SnapshotRecords<'a> {
    rest: &'a [u8],
    marker: Marker,
}

impl<'a> SnapshotRecords<'a> {
    /// Reads the records in `bytes`, a file without its header.
    #[must_use]
    pub const fn new(bytes: &'a [u8], marker: Marker) -> Self {
        Self {
            rest: bytes,
            marker,
        }
    }

    /// The first record of the rest, and the bytes behind it; `None` if marker, length or CRC are wrong.
    fn first(&self) -> Option<(Stored<'a>, &'a [u8])> {
        let (header, rest) = self.rest.split_first_chunk::<{ frame::PAYLOAD }>()?;
        if header[frame::MARKER] != self.marker.0 {
            return None;
        }
        let (payload, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(array(
            header,
            frame::LENGTH,
        ))))?;
        let (stored, unused) =
            postcard::take_from_bytes_crc32::<Stored>(payload, CRC32.digest()).ok()?;
        unused.is_empty().then_some((stored, rest))
    }

    /// Skips the broken record at the beginning of the rest, up to the next marker.
    fn skip(&mut self) -> LostRecord {
        let next = self
            .rest
            .windows(self.marker.0.len())
            .skip(1)
            .position(|window| window == self.marker.0);
        match next {
            Some(before) => {
                self.rest = &self.rest[before + 1..];
                LostRecord::Damaged
            }
            None => {
                self.rest = &[];
                LostRecord::Torn
            }
        }
    }
}

impl<'a> Iterator for SnapshotRecords<'a> {
    type Item = Result<SnapshotRecord<'a>, LostRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((stored, rest)) = self.first() else {
            return Some(Err(self.skip()));
        };
        self.rest = rest;
        Some(if stored.is_well_formed() {
            Ok(stored.into_record())
        } else {
            Err(LostRecord::Malformed)
        })
    }
}

/// Opens a file. Returns its records, and its header, or `None` if the header is damaged.
///
/// # Errors
/// [`HeaderError`] if the file is foreign, truncated or of another version; never [`HeaderError::Damaged`].
pub fn open(file: &[u8]) -> Result<(Option<SnapshotHeader>, SnapshotRecords<'_>), HeaderError> {
    let header = match SnapshotHeader::decode(file) {
        Ok(header) => Some(header),
        Err(HeaderError::Damaged) => None,
        Err(error @ (HeaderError::Foreign | HeaderError::Version(_) | HeaderError::Truncated)) => {
            return Err(error);
        }
    };
    let records = &file[SnapshotHeader::LEN..];
    // The damage may be in the header's marker, which the first record repeats.
    let first = || {
        records
            .first_chunk()
            .map_or(Marker([0; 8]), |marker| Marker(*marker))
    };
    let marker = header.map_or_else(first, |header| header.marker);
    Ok((header, SnapshotRecords::new(records, marker)))
}
