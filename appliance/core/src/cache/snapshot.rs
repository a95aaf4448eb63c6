//! The snapshot file's codec, to and from slices: how the cache survives a restart. No I/O and no clock.
//!
//! ```text
//!  0        8         10           12      20      24             32         33      36    40
//!  | magic  | version | header len | marker | count | saved, secs | clock    | zero  | CRC | record | record ...
//!  record   0        8        10                        length + 10
//!           | marker | length | postcard ..., CRC of it |
//! ```
//!
//! All integers are little-endian, as postcard's. The marker is drawn at random for each file (Avro's object container
//! files do the same): after damage a reader goes on at the next marker, and since no one knew the marker when the
//! answers came in, no answer can carry a forged record for the reader to find there.
//!
//! What a file says is untrusted. A record is given out only if its CRC holds, its name is a key's name, and its
//! body walks ([`body_is_well_formed`]); one that is broken costs itself and no other.

use crc::{CRC_32_ISO_HDLC, Crc};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Head, Key, bit, body_is_well_formed, is_key_name};
use crate::limits::CACHE_LARGE_BYTES;
use crate::time::Instant;

/// "xdnsd snapshot".
const MAGIC: [u8; 8] = *b"XDNSDSNP";
/// Version of header and records. Another version is not read: a cache can be built anew.
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
    pub const CRC: Range<usize> = 36..40;

    /// The count of a file whose writer did not know it.
    pub const COUNT_UNKNOWN: u32 = u32::MAX;
    /// Value of the byte at [`CLOCK`] where the clock was synchronised.
    pub const CLOCK_SYNCHRONISED: u8 = 1;
}

mod frame {
    use core::ops::Range;
    pub const MARKER: Range<usize> = 0..8;
    pub const LENGTH: Range<usize> = 8..10;
    pub const PAYLOAD: usize = 10;
}

/// Bits of a record's flags; the lower ones are the key's.
mod flag {
    use crate::answer::field;

    pub const KEY: u8 = field::DNSSEC_OK | field::CHECKING_DISABLED;
    pub const AUTHENTIC_DATA: u8 = 4;
    pub const AUTHORITATIVE: u8 = 8;
    pub const RESTORED: u8 = 16;
    pub const ALL: u8 = KEY | AUTHENTIC_DATA | AUTHORITATIVE | RESTORED;
}

/// Largest RCODE that a header holds (RFC 1035 section 4.1.1).
const RCODE_MAX: u8 = 15;
/// Bytes of postcard's longest varint of 16 and of 32 bits, of the CRC.
const VARINT_U16_MAX: usize = 3;
const VARINT_U32_MAX: usize = 5;
const CRC_LEN: usize = 4;
/// Longest payload: two lengths and five other varints of 16 bits, TTL and age, two single bytes, name and body, CRC.
const PAYLOAD_MAX: usize =
    7 * VARINT_U16_MAX + 2 * VARINT_U32_MAX + 2 + CACHE_LARGE_BYTES + CRC_LEN;
const _: () = assert!(PAYLOAD_MAX <= u16::MAX as usize);

/// A buffer of so many bytes takes any record.
pub const RECORD_MAX: usize = frame::PAYLOAD + PAYLOAD_MAX;

static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Stands before each record of a file. Random, from the system's generator, drawn for each file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker(pub [u8; 8]);

/// What the file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Stands before each record.
    pub marker: Marker,
    /// How many records follow, where the writer knew.
    pub records: Option<u32>,
    /// When the file was written: seconds since 1970 by the wall clock.
    pub saved_secs: u64,
    /// Whether that clock could be believed.
    pub clock_synchronised: bool,
}

/// Why a file gives no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Does not begin as a snapshot does.
    Foreign,
    /// Written in another format, later than ours or given up.
    Version(u16),
    /// Ends inside the header.
    Truncated,
    /// A snapshot of ours whose header does not add up. Its records can be read ([`open`]), its age is unknown.
    Damaged,
}

impl SnapshotHeader {
    /// Bytes of an encoded header.
    pub const LEN: usize = header::CRC.end;

    /// The header's bytes.
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
        let crc = checksum(&bytes);
        bytes[header::CRC].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at the beginning of a file. Where the CRC holds for a header of our version, the bytes that
    /// are the same in every file (magic, version, length) may be damaged.
    ///
    /// # Errors
    /// [`HeaderError`] says what is in the way.
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
        }
    }

    /// How old the file is, if that can be known: both clocks, then and now, were synchronised, and now is not before
    /// then.
    #[must_use]
    pub fn age_secs(&self, now_secs: u64, now_synchronised: bool) -> Option<u32> {
        if !(self.clock_synchronised && now_synchronised) {
            return None;
        }
        let age = now_secs.checked_sub(self.saved_secs)?;
        Some(u32::try_from(age).unwrap_or(u32::MAX))
    }
}

/// Writes what stands at the beginning of every file of this version.
fn write_prefix(bytes: &mut [u8; SnapshotHeader::LEN]) {
    bytes[header::MAGIC].copy_from_slice(&MAGIC);
    bytes[header::VERSION].copy_from_slice(&VERSION.to_le_bytes());
    bytes[header::HEADER_LEN].copy_from_slice(&(SnapshotHeader::LEN as u16).to_le_bytes());
}

/// The CRC over a header.
fn checksum(bytes: &[u8; SnapshotHeader::LEN]) -> u32 {
    CRC32.checksum(&bytes[..header::CRC.start])
}

/// The bytes at `field`, which is `N` long.
fn array<const N: usize>(bytes: &[u8], field: core::ops::Range<usize>) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[field]);
    value
}

/// A record as postcard sees it. A change here is a new [`VERSION`].
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    name: &'a [u8],
    qtype: u16,
    flags: u8,
    rcode: u8,
    answers: u16,
    authorities: u16,
    /// 0: no record of an additional section is kept. Its place stays until the next [`VERSION`].
    additionals: u16,
    ede: u16,
    ttl_secs: u32,
    /// Since the answer came in.
    age_secs: u32,
    body: &'a [u8],
}

impl<'a> Stored<'a> {
    fn new(key: &Key<'a>, answer: &Answer<'a>, now: Instant) -> Self {
        let head = answer.head;
        let flags = key.flags()
            | bit(head.authentic_data, flag::AUTHENTIC_DATA)
            | bit(head.authoritative, flag::AUTHORITATIVE)
            | bit(head.restored, flag::RESTORED);
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

    /// Whether this can be an answer of ours: asked of what is written as of what is read.
    fn is_well_formed(&self) -> bool {
        let records = usize::from(self.answers) + usize::from(self.authorities);
        self.flags & !flag::ALL == 0
            && self.rcode <= RCODE_MAX
            && self.additionals == 0
            && is_key_name(self.name)
            // And fits a slot.
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
            ede: self.ede,
            generation: 0,
            group: Head::ANY_GROUP,
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

/// Why an entry was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The buffer is shorter than the record; [`RECORD_MAX`] bytes never are.
    BufferTooShort,
    /// A reader would refuse it: not a key's name, or a body that does not walk.
    Malformed,
    /// It is of a view: which one that is, is the config's business, and that may be another one by then.
    OfView,
}

/// Writes the records of one file.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// The file's marker.
    pub marker: Marker,
    /// The moment in the file's header, by the clock of the answers.
    pub now: Instant,
}

impl Encoder {
    /// Writes one record to the beginning of `buffer`, and returns its length.
    ///
    /// # Errors
    /// [`EncodeError`]; then `buffer` holds nothing of use.
    pub fn encode(
        &self,
        buffer: &mut [u8],
        key: &Key<'_>,
        answer: &Answer<'_>,
    ) -> Result<usize, EncodeError> {
        if key.view != 0 {
            return Err(EncodeError::OfView);
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

/// An entry from a file, well-formed. Whether it is true nobody knows: it is to be served as stale and refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRecord<'a> {
    /// The question.
    pub key: Key<'a>,
    /// The answer's records.
    pub body: &'a [u8],
    /// The head, but for when it was stored.
    saved: Head,
    /// How old the answer was when the file was written.
    age_secs: u32,
}

impl SnapshotRecord<'_> {
    /// The head to insert the entry with at `now`. `file_age_secs` is the file's ([`SnapshotHeader::age_secs`]): where it is
    /// known the entry is as old as it is; where not, now or when the file was written, the entry is `restored`, always
    /// stale. The caller's epoch should lie so far back that an entry of that age would be of no use.
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

/// Why a stretch of the file gave no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Does not add up. The reader goes on at the next marker.
    Damaged,
    /// Adds up, but cannot be an answer of ours. The reader goes on after it.
    Malformed,
    /// No further record: the file was cut here, or its last record is damaged.
    Torn,
}

/// Reads records one after the other. Ends after [`Broken::Torn`], or without it at the end of a whole file.
#[derive(Clone, Debug)]
pub struct SnapshotRecords<'a> {
    rest: &'a [u8],
    marker: Marker,
}

impl<'a> SnapshotRecords<'a> {
    /// Reads the records in `bytes`: a file without its header.
    #[must_use]
    pub const fn new(bytes: &'a [u8], marker: Marker) -> Self {
        Self {
            rest: bytes,
            marker,
        }
    }

    /// The record at the beginning of the rest, and what is behind it; `None` where marker, length or CRC do not hold.
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

    /// Drops the broken record at the beginning of the rest, up to the next marker.
    fn skip(&mut self) -> Broken {
        let next = self
            .rest
            .windows(self.marker.0.len())
            .skip(1)
            .position(|window| window == self.marker.0);
        match next {
            Some(before) => {
                self.rest = &self.rest[before + 1..];
                Broken::Damaged
            }
            None => {
                self.rest = &[];
                Broken::Torn
            }
        }
    }
}

impl<'a> Iterator for SnapshotRecords<'a> {
    type Item = Result<SnapshotRecord<'a>, Broken>;

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
            Err(Broken::Malformed)
        })
    }
}

/// Opens a whole file: its header, `None` where that is damaged, and its records.
///
/// # Errors
/// [`HeaderError`] where the file is not ours to read; never [`HeaderError::Damaged`].
pub fn open(file: &[u8]) -> Result<(Option<SnapshotHeader>, SnapshotRecords<'_>), HeaderError> {
    let header = match SnapshotHeader::decode(file) {
        Ok(header) => Some(header),
        Err(HeaderError::Damaged) => None,
        Err(error @ (HeaderError::Foreign | HeaderError::Version(_) | HeaderError::Truncated)) => {
            return Err(error);
        }
    };
    let records = &file[SnapshotHeader::LEN..];
    // The header's own marker may be what is damaged: the first record has it too.
    let first = || {
        records
            .first_chunk()
            .map_or(Marker([0; 8]), |marker| Marker(*marker))
    };
    let marker = header.map_or_else(first, |header| header.marker);
    Ok((header, SnapshotRecords::new(records, marker)))
}
