//! Domain names in wire form (RFC 1035 section 3.1) and their compression (section 4.1.4).
//!
//! A compression pointer must lead to before the label run that contains it. So every pointer goes strictly towards the
//! header, and no loop detector is needed.

use crate::limits::NAME_MAX;

/// Longest label in bytes.
pub const LABEL_MAX: usize = xdnsd_abi::headers::dns::LABEL_MAX as usize;
/// Most compression pointers of a name: as many as it can have labels. This keeps a long message from making one name cost
/// thousands of steps.
pub const POINTERS_MAX: usize = NAME_MAX / 2;
/// High bits of a compression pointer.
const POINTER: u8 = 0xc0;

/// Reason why bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The message ends inside the name.
    Truncated,
    /// The name is longer than 255 bytes.
    TooLong,
    /// A label type other than plain (RFC 6891 section 5 retired the others).
    LabelType,
    /// A pointer where none is allowed, a pointer that does not go backwards, or too many of them.
    Pointer,
}

/// A whole name in uncompressed wire form, root byte included. The letter case is kept.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    bytes: [u8; NAME_MAX],
}

impl Name {
    /// The root name.
    pub const ROOT: Self = Self {
        len: 1,
        bytes: [0; NAME_MAX],
    };

    /// Reads the name at `offset` of `message`, following pointers. Returns the name and its end.
    ///
    /// # Errors
    /// [`NameError`] if the bytes are not a name.
    pub fn parse(message: &[u8], offset: usize) -> Result<(Self, usize), NameError> {
        let mut name = Self::ROOT;
        let mut len = 0;
        let mut at = offset;
        // Start of the present label run: a pointer must lead to before it.
        let mut run = offset;
        let mut end = None;
        let mut pointers = 0;
        // Bound: a plain label lengthens the name (at most 255 bytes), a pointer goes strictly backwards.
        loop {
            let label = *message.get(at).ok_or(NameError::Truncated)?;
            match label & POINTER {
                0 => {
                    let next = at + 1 + usize::from(label);
                    let source = message.get(at..next).ok_or(NameError::Truncated)?;
                    let target = name
                        .bytes
                        .get_mut(len..len + source.len())
                        .ok_or(NameError::TooLong)?;
                    target.copy_from_slice(source);
                    len += source.len();
                    at = next;
                    if label == 0 {
                        name.len = len as u8;
                        return Ok((name, end.unwrap_or(at)));
                    }
                }
                POINTER => {
                    let low = *message.get(at + 1).ok_or(NameError::Truncated)?;
                    let target = usize::from(u16::from_be_bytes([label & !POINTER, low]));
                    pointers += 1;
                    if target >= run || pointers > POINTERS_MAX {
                        return Err(NameError::Pointer);
                    }
                    end.get_or_insert(at + 2);
                    run = target;
                    at = target;
                }
                _ => return Err(NameError::LabelType),
            }
        }
    }

    /// A name from its wire form; `None` if `wire` is not exactly one uncompressed name.
    #[must_use]
    #[inline(always)]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let end = plain_end(wire, 0).ok()?;
        if end != wire.len() {
            return None;
        }
        let mut name = Self::ROOT;
        name.bytes[..end].copy_from_slice(wire);
        name.len = end as u8;
        Some(name)
    }

    /// The name in `wire`, in lower case (RFC 4343: ASCII letters only). `wire` is one uncompressed name (see
    /// [`plain_end`]).
    #[inline(always)]
    pub(super) fn lower_of(wire: &[u8]) -> Self {
        let mut name = Self {
            len: wire.len() as u8,
            bytes: [0; NAME_MAX],
        };
        name.bytes[..wire.len()].copy_from_slice(wire);
        // By whole words, as zeros follow the name. Length bytes are at most 63, and letters begin at 65.
        let (words, rest) = name.bytes.as_chunks_mut();
        let used = wire.len().div_ceil(WORD).min(words.len());
        for word in &mut words[..used] {
            *word = lower(u64::from_ne_bytes(*word)).to_ne_bytes();
        }
        if wire.len() > WORD * words.len() {
            rest.make_ascii_lowercase();
        }
        name
    }

    /// Wire form, root byte included.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The name in lower case (RFC 4343: ASCII letters only).
    #[must_use]
    #[inline(always)]
    pub fn to_lower(mut self) -> Self {
        // Length bytes are at most 63, and letters begin at 65.
        self.bytes[..usize::from(self.len)].make_ascii_lowercase();
        self
    }

    /// The name after `change`, which may change the case of letters only.
    #[must_use]
    pub fn with_case(mut self, change: impl FnOnce(&mut [u8])) -> Self {
        change(&mut self.bytes[..usize::from(self.len)]);
        self
    }
}

impl PartialEq for Name {
    /// Compares without regard to letter case (RFC 4343).
    fn eq(&self, other: &Self) -> bool {
        self.as_wire().eq_ignore_ascii_case(other.as_wire())
    }
}

impl Eq for Name {}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl core::fmt::Display for Name {
    /// Presentation form (RFC 1035 section 5.1, with \DDD for non-printable bytes).
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.len == 1 {
            return f.write_str(".");
        }
        for suffix in suffixes(self.as_wire()) {
            let Some((&label_len, rest)) = suffix.split_first() else {
                break;
            };
            if label_len == 0 {
                break;
            }
            for &byte in &rest[..usize::from(label_len)] {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", byte as char)?
                    }
                    0x21..=0x7e => write!(f, "{}", byte as char)?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

/// Length of a machine word in bytes.
const WORD: usize = 8;

/// Eight bytes with ASCII capitals changed to lower case.
const fn lower(word: u64) -> u64 {
    const EACH: u64 = u64::from_ne_bytes([1; WORD]);
    const HIGH: u64 = EACH * 0x80;
    // `from_a` has the high bit of each byte from A on, `behind_z` of each byte behind Z. No carry leaves a byte.
    let low = word & !HIGH;
    let from_a = low + EACH * (0x80 - b'A' as u64);
    let behind_z = low + EACH * (0x7f - b'Z' as u64);
    let capitals = !word & HIGH & (from_a ^ behind_z);
    word | capitals >> 2
}

/// End of the uncompressed name at `offset`.
///
/// # Errors
/// [`NameError`] if the bytes are not a plain name; a pointer is an error here.
pub fn plain_end(message: &[u8], offset: usize) -> Result<usize, NameError> {
    let mut at = offset;
    // Bound: every step advances by at least one byte, over at most NAME_MAX bytes.
    while at - offset < NAME_MAX {
        let label = *message.get(at).ok_or(NameError::Truncated)?;
        match label & POINTER {
            0 if label == 0 => return Ok(at + 1),
            0 => at += 1 + usize::from(label),
            POINTER => return Err(NameError::Pointer),
            _ => return Err(NameError::LabelType),
        }
    }
    Err(NameError::TooLong)
}

/// End of the name at `offset`, compressed or not. Pointers are not followed.
///
/// # Errors
/// [`NameError`] if the bytes are not a name.
#[inline(always)]
pub fn skip(message: &[u8], offset: usize) -> Result<usize, NameError> {
    // Most owners are a single pointer, and this runs for every record of every reply.
    match message.get(offset..).and_then(<[u8]>::first_chunk) {
        Some([high, _]) if high & POINTER == POINTER => Ok(offset + 2),
        // The root, owner of the OPT record.
        Some([0, _]) => Ok(offset + 1),
        Some(_) | None => skip_labels(message, offset),
    }
}

#[inline(never)]
fn skip_labels(message: &[u8], offset: usize) -> Result<usize, NameError> {
    let mut at = offset;
    // Bound: as in `plain_end`. A loop shared with it would cost a hit one percent more instructions.
    while at - offset < NAME_MAX {
        let label = *message.get(at).ok_or(NameError::Truncated)?;
        match label & POINTER {
            0 if label == 0 => return Ok(at + 1),
            0 => at += 1 + usize::from(label),
            POINTER => {
                return if at + 1 < message.len() {
                    Ok(at + 2)
                } else {
                    Err(NameError::Truncated)
                };
            }
            _ => return Err(NameError::LabelType),
        }
    }
    Err(NameError::TooLong)
}

/// The name itself, then each parent, the root last. `wire` is an uncompressed name; other bytes end the iteration early.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(wire);
    core::iter::from_fn(move || {
        let now = rest?;
        let label = usize::from(*now.first()?);
        rest = if label == 0 {
            None
        } else {
            now.get(1 + label..)
        };
        Some(now)
    })
}

/// True if the lower-case name `wire` is `suffix` or below it.
#[must_use]
pub fn is_within(wire: &[u8], suffix: &[u8]) -> bool {
    wire.len() >= suffix.len() && suffixes(wire).any(|parent| parent == suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec::Vec;

    const WWW: &[u8] = b"\x03www\x07eXample\x03com\0";

    #[test]
    fn a_plain_name_keeps_its_case_and_its_end() {
        let (name, end) = Name::parse(WWW, 0).expect("well-formed");
        assert_eq!((name.as_wire(), end), (WWW, WWW.len()));
        assert_eq!(name.to_lower().as_wire(), b"\x03www\x07example\x03com\0");
        assert_eq!(format!("{name}"), "www.eXample.com.");
        assert_eq!(format!("{}", Name::ROOT), ".");
        assert_eq!(suffixes(name.as_wire()).count(), 4);
    }

    #[test]
    fn a_name_goes_through_so_many_pointers_and_no_more() {
        for (pointers, is_name) in [(POINTERS_MAX, true), (POINTERS_MAX + 1, false)] {
            let mut message = Vec::from(*b"\x01a\0\xc0\x00");
            for _ in 1..pointers {
                let before = message.len() as u16 - 2;
                message.extend((0xc000 | before).to_be_bytes());
            }
            let name = Name::parse(&message, message.len() - 2).map(|(name, _)| name);
            let expected = if is_name {
                Ok(Name::from_wire(b"\x01a\0").expect("a name"))
            } else {
                Err(NameError::Pointer)
            };
            assert_eq!(name, expected, "{pointers} pointers");
        }
    }

    #[test]
    fn every_byte_at_every_place_is_lowered_as_ascii() {
        for byte in 0..=u8::MAX {
            // Labels of 1 to 63 bytes around it, so that every position in a word is tried, and the longest name.
            for len in 1..=63 {
                for at in 1..=len {
                    let mut wire = Vec::from([len as u8]);
                    wire.resize(len + 1, b'x');
                    wire[at] = byte;
                    wire.push(0);
                    assert_eq!(plain_end(&wire, 0), Ok(wire.len()));
                    let name = Name::lower_of(&wire);
                    assert_eq!(name.as_wire(), wire.to_ascii_lowercase(), "{byte} at {at}");
                }
            }
        }
        let mut longest: Vec<u8> = core::iter::repeat_n(*b"\x01A", 127).flatten().collect();
        longest.push(0);
        assert_eq!(plain_end(&longest, 0), Ok(longest.len()));
        let name = Name::lower_of(&longest);
        assert_eq!(name.as_wire(), longest.to_ascii_lowercase());
    }

    #[test]
    fn pointers_are_followed_backwards_only() {
        let mut message = Vec::from(WWW);
        message.extend_from_slice(b"\x01a\xc0\x04");
        let (name, end) = Name::parse(&message, WWW.len()).expect("well-formed");
        assert_eq!(
            (name.as_wire(), end),
            (&b"\x01a\x07eXample\x03com\0"[..], message.len())
        );
        assert_eq!(skip(&message, WWW.len()), Ok(message.len()));
        // To itself, forwards, and into its own label run.
        assert_eq!(Name::parse(b"\xc0\x00", 0).err(), Some(NameError::Pointer));
        assert_eq!(
            Name::parse(b"\xc0\x02\x01a\0", 0).err(),
            Some(NameError::Pointer)
        );
        assert_eq!(
            Name::parse(b"\x01a\xc0\x00", 0).err(),
            Some(NameError::Pointer)
        );
    }

    #[test]
    fn every_truncation_is_an_error() {
        for len in 0..WWW.len() {
            assert_eq!(
                Name::parse(&WWW[..len], 0).err(),
                Some(NameError::Truncated)
            );
            assert_eq!(plain_end(&WWW[..len], 0).err(), Some(NameError::Truncated));
            assert_eq!(skip(&WWW[..len], 0).err(), Some(NameError::Truncated));
        }
    }

    #[test]
    fn lengths_at_the_limit() {
        // 3 labels of 63 and one of 61: 255 bytes with the root.
        let mut longest = Vec::new();
        for len in [63u8, 63, 63, 61] {
            longest.push(len);
            longest.extend(core::iter::repeat_n(b'x', usize::from(len)));
        }
        longest.push(0);
        assert_eq!(longest.len(), NAME_MAX);
        assert!(Name::parse(&longest, 0).is_ok() && plain_end(&longest, 0).is_ok());
        longest[192] = 62;
        longest.insert(193, b'x');
        assert_eq!(Name::parse(&longest, 0).err(), Some(NameError::TooLong));
        assert_eq!(plain_end(&longest, 0).err(), Some(NameError::TooLong));
        assert_eq!(Name::parse(b"\x40a", 0).err(), Some(NameError::LabelType));
        assert_eq!(Name::parse(b"\x80a", 0).err(), Some(NameError::LabelType));
    }

    #[test]
    fn suffixes_end_with_the_root() {
        let wire = b"\x01a\x02bc\0";
        assert_eq!(
            suffixes(wire).collect::<Vec<_>>(),
            [&wire[..], b"\x02bc\0", b"\0"]
        );
        assert!(is_within(wire, b"\x02bc\0") && is_within(wire, wire) && is_within(wire, b"\0"));
        assert!(!is_within(wire, b"\x01c\0") && !is_within(b"\x02bc\0", wire));
    }
}
