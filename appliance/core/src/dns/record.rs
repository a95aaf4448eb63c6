//! Resource records (RFC 1035 section 4.1.3), as positions in a message.
//!
//! ```text
//! | owner name | TYPE 2 | CLASS 2 | TTL 4 | RDLENGTH 2 | RDATA |
//! ```

use super::name::{self, Name, NameError};
use super::rtype;
use core::ops::Range;

/// Length of the fields between owner name and RDATA, in bytes.
pub const FIXED_LEN: usize = 10;

/// Offsets behind the owner name.
mod field {
    pub const TYPE: usize = 0;
    pub const CLASS: usize = 2;
    pub const TTL: usize = 4;
    pub const RDLENGTH: usize = 8;
}

/// Position of a record in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset of the owner name.
    pub owner: usize,
    /// TYPE (RFC 1035 section 3.2.2).
    pub rtype: u16,
    /// CLASS; the UDP size in an OPT record.
    pub class: u16,
    /// TTL in seconds; flags in an OPT record.
    pub ttl_secs: u32,
    /// Offset of the TTL field.
    pub ttl_at: usize,
    /// Offset of RDATA.
    pub rdata_at: usize,
    /// Offset of the end of RDATA.
    pub end: usize,
}

impl Record {
    /// Reads the record at `offset` of `message`.
    ///
    /// # Errors
    /// [`NameError`] if the owner is not a name, or the message ends inside the record.
    #[inline]
    pub fn parse(message: &[u8], offset: usize) -> Result<Self, NameError> {
        let fixed_at = name::skip(message, offset)?;
        // One check for all fields: this runs for every record of every reply.
        let fixed = message.get(fixed_at..).and_then(<[u8]>::first_chunk);
        let fixed: &[u8; FIXED_LEN] = fixed.ok_or(NameError::Truncated)?;
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let rdata_at = fixed_at + FIXED_LEN;
        let end = rdata_at + usize::from(word(field::RDLENGTH));
        if end > message.len() {
            return Err(NameError::Truncated);
        }
        let [high, low] = [word(field::TTL), word(field::TTL + 2)].map(u32::from);
        Ok(Self {
            owner: offset,
            rtype: word(field::TYPE),
            class: word(field::CLASS),
            ttl_secs: high << 16 | low,
            ttl_at: fixed_at + field::TTL,
            rdata_at,
            end,
        })
    }

    /// Range of RDATA.
    #[must_use]
    pub const fn rdata(&self) -> Range<usize> {
        self.rdata_at..self.end
    }
}

/// Iterator over the records of a section. Ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Records<'a> {
    /// `count` records from `offset` on.
    #[must_use]
    pub const fn new(message: &'a [u8], offset: usize, count: usize) -> Self {
        Self {
            message,
            at: offset,
            left: count,
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, NameError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = Record::parse(self.message, self.at);
        match record {
            Ok(record) => self.at = record.end,
            Err(_) => self.left = 0,
        }
        Some(record)
    }
}

/// Layout of a type's RDATA: bytes, names, bytes. Small, because it is looked up for every record that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes before the first name.
    before: u16,
    /// Number of adjacent names: 0 to 2.
    names: u8,
    /// Compression of the names.
    pub compression: Compression,
    /// Bytes behind the last name; `None` if any number.
    after: Option<u8>,
}

/// Compression of names in RDATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Allowed, in the types of RFC 1035 alone (RFC 3597 section 4).
    Allowed,
    /// Forbidden when writing, but expected when reading (RFC 3597 section 4: SRV, RP, AFSDB and similar types).
    ReadOnly,
    /// Forbidden: the record is copied byte by byte (RFC 4034 section 3.1.7).
    Never,
}

impl Layout {
    const fn new(before: u16, names: u8, compression: Compression, after: Option<u8>) -> Self {
        Self {
            before,
            names,
            compression,
            after,
        }
    }

    /// Layout of `rdata` of type `rtype`.
    #[must_use]
    #[inline]
    pub fn of(rtype: u16, rdata: &[u8]) -> Self {
        use Compression::{Allowed, Never, ReadOnly};
        match rtype {
            rtype::A => Self::new(4, 0, Never, Some(0)),
            rtype::AAAA => Self::new(16, 0, Never, Some(0)),
            // NS, MD, MF, CNAME, MB, MG, MR, PTR.
            rtype::NS | 3 | 4 | rtype::CNAME | 7 | 8 | 9 | rtype::PTR => {
                Self::new(0, 1, Allowed, Some(0))
            }
            // Five numbers behind the names.
            rtype::SOA => Self::new(0, 2, Allowed, Some(20)),
            // MINFO; then RP.
            14 => Self::new(0, 2, Allowed, Some(0)),
            17 => Self::new(0, 2, ReadOnly, Some(0)),
            rtype::MX => Self::new(2, 1, Allowed, Some(0)),
            // AFSDB, RT, KX, and PX with two names.
            18 | 21 | 36 => Self::new(2, 1, ReadOnly, Some(0)),
            26 => Self::new(2, 2, ReadOnly, Some(0)),
            rtype::SRV => Self::new(6, 1, ReadOnly, Some(0)),
            rtype::NAPTR => Self::new(naptr_name_at(rdata), 1, ReadOnly, Some(0)),
            rtype::DNAME => Self::new(0, 1, ReadOnly, Some(0)),
            // SIG and RRSIG: the signer's name, then the signature.
            24 | rtype::RRSIG => Self::new(18, 1, Never, None),
            // Opaque.
            _ => Self::new(0, 0, Never, None),
        }
    }

    /// Offset of the first name in RDATA.
    #[must_use]
    pub fn names_at(&self) -> usize {
        usize::from(self.before)
    }

    /// True if RDATA ends with its only name.
    #[must_use]
    pub fn ends_with_one_name(&self) -> bool {
        self.names == 1 && self.after == Some(0)
    }

    /// True if RDATA may have this length, as far as that is known without reading its names. Opaque RDATA may have any.
    #[must_use]
    #[inline]
    pub fn allows(&self, len: usize) -> bool {
        match self.after {
            Some(after) if self.names == 0 => len == usize::from(self.before) + usize::from(after),
            Some(_) => len >= usize::from(self.before),
            None => true,
        }
    }
}

/// RDATA is malformed for its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedRdata;

/// Reads the names in the RDATA of `record`, and passes each to `take`. Returns the offset of the end of the last one.
///
/// # Errors
/// [`MalformedRdata`] if RDATA does not match the layout, or the error of `take`.
pub fn read_names<E: From<MalformedRdata>>(
    message: &[u8],
    record: &Record,
    layout: &Layout,
    mut take: impl FnMut(&Name) -> Result<(), E>,
) -> Result<usize, E> {
    let mut at = record.rdata_at + layout.names_at();
    for _ in 0..layout.names {
        let (name, end) = Name::parse(message, at).map_err(|_| MalformedRdata)?;
        if end > record.end {
            return Err(MalformedRdata.into());
        }
        take(&name)?;
        at = end;
    }
    let left = record.end.checked_sub(at).ok_or(MalformedRdata)?;
    if layout.after.is_none_or(|after| usize::from(after) == left) {
        Ok(at)
    } else {
        Err(MalformedRdata.into())
    }
}

/// Offset of a NAPTR's name: behind two numbers and three character strings (RFC 3403 section 4.1). Behind the end if a
/// string is cut off.
fn naptr_name_at(rdata: &[u8]) -> u16 {
    (0..3).fold(4, |at, _| {
        let len = rdata.get(usize::from(at)).copied().unwrap_or_default();
        at + 1 + u16::from(len)
    })
}

/// Reads the owner name of `record`.
///
/// # Errors
/// [`NameError`] if the owner name is malformed.
pub fn owner(message: &[u8], record: &Record) -> Result<Name, NameError> {
    Name::parse(message, record.owner).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const TWO: &[u8] = b"\x01a\0\0\x01\0\x01\0\0\x01\x2c\0\x04\x01\x02\x03\x04\xc0\x00\0\x10\0\x01\0\0\0\x05\0\x02\x01x";

    #[test]
    fn records_are_found_in_order() {
        let records: Vec<_> = Records::new(TWO, 0, 2)
            .collect::<Result<_, _>>()
            .expect("well-formed");
        assert_eq!(
            (
                records[0].rtype,
                records[0].ttl_secs,
                &TWO[records[0].rdata()]
            ),
            (1, 300, &[1, 2, 3, 4][..])
        );
        assert_eq!(
            (records[1].rtype, records[1].ttl_secs, records[1].end),
            (16, 5, TWO.len())
        );
        assert_eq!(
            owner(TWO, &records[1]).expect("a name").as_wire(),
            b"\x01a\0"
        );
    }

    #[test]
    fn a_truncated_section_ends_with_an_error() {
        for len in 0..TWO.len() {
            let got: Vec<_> = Records::new(&TWO[..len], 0, 2).collect();
            assert!(got.last().expect("at least one").is_err(), "cut at {len}");
        }
    }
}
