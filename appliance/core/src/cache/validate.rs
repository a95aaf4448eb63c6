//! Whether bytes that claim to be a cached answer can be served: names and records walked by their bounds.
//!
//! ```text
//!  message  0        12                     12 + name + 4
//!           | header | QNAME, QTYPE, QCLASS | record | record | ...
//!                      the key's name          the body
//! ```

use crate::limits::NAME_MAX;

/// Bytes of a message's header.
const HEADER_LEN: usize = 12;
/// Bytes of QTYPE and QCLASS.
const QUESTION_TAIL_LEN: usize = 4;
/// Bytes of TYPE, CLASS, TTL and RDLENGTH.
const RECORD_HEADER_LEN: usize = 10;
/// Longest label (RFC 1035 section 3.1).
const LABEL_MAX: usize = 63;
/// Most pointers that one name may go through: as many as a name can have labels.
const POINTERS_MAX: usize = NAME_MAX / 2;

/// True for a name as a key has it: labels within their bounds, one root byte at the very end, no compression, ASCII
/// letters in lower case.
#[must_use]
pub fn is_key_name(name: &[u8]) -> bool {
    if name.len() > NAME_MAX || name.iter().any(u8::is_ascii_uppercase) {
        return false;
    }
    let mut rest = name;
    // Each round takes at least two bytes, and there are at most NAME_MAX.
    while let Some((&len, after)) = rest.split_first() {
        if len == 0 {
            return after.is_empty();
        }
        if usize::from(len) > LABEL_MAX {
            return false;
        }
        let Some(next) = after.get(usize::from(len)..) else {
            return false;
        };
        rest = next;
    }
    false
}

/// True where `body` consists of exactly `records` well-formed records: every owner name, and every name inside the
/// RDATA of the types that may be compressed there (RFC 3597 section 4), keeps to the bounds of name and message, and
/// compression pointers go strictly backwards and never into the header or between the question's name and the body.
///
/// `name` is the question's. Offsets count from the message's first byte, so the body begins at 12 + name + 4.
#[must_use]
pub fn body_is_well_formed(name: &[u8], records: usize, body: &[u8]) -> bool {
    let message = Message { name, body };
    let mut at = message.body_start();
    // The body bounds the rounds: each record takes at least eleven bytes.
    for _ in 0..records {
        let Some(next) = message.skip_record(at) else {
            return false;
        };
        at = next;
    }
    at == message.end()
}

/// A message as the cache holds it, in two pieces. Offsets are those in the whole message.
#[derive(Clone, Copy)]
struct Message<'a> {
    name: &'a [u8],
    body: &'a [u8],
}

impl Message<'_> {
    const fn body_start(&self) -> usize {
        HEADER_LEN + self.name.len() + QUESTION_TAIL_LEN
    }

    const fn end(&self) -> usize {
        self.body_start() + self.body.len()
    }

    /// The byte at an offset where a name may stand: in the question's name or in the body.
    fn byte(&self, at: usize) -> Option<u8> {
        match at.checked_sub(self.body_start()) {
            Some(at) => self.body.get(at).copied(),
            None => self.name.get(at.checked_sub(HEADER_LEN)?).copied(),
        }
    }

    /// Two bytes, big-endian, in the body.
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte(at)?, self.byte(at + 1)?]))
    }

    /// Where the record at `at` ends, if it is well-formed.
    fn skip_record(&self, at: usize) -> Option<usize> {
        let header = self.skip_name(at)?;
        let rtype = self.u16(header)?;
        let rdata = header + RECORD_HEADER_LEN;
        let end = rdata + usize::from(self.u16(rdata - 2)?);
        if end > self.end() {
            return None;
        }
        let layout = Rdata::of(rtype);
        let mut at = rdata + layout.before;
        for _ in 0..layout.names {
            at = self.skip_name(at)?;
        }
        let tail_fits = if layout.exact {
            at + layout.after == end
        } else {
            at + layout.after <= end
        };
        tail_fits.then_some(end)
    }

    /// Where the name at `at` ends in place, if it is well-formed through all of its pointers.
    fn skip_name(&self, at: usize) -> Option<usize> {
        let mut run = self.walk_labels(at)?;
        let end = run.end;
        let mut name_len = run.len;
        let mut start = at;
        for _ in 0..POINTERS_MAX {
            if name_len > NAME_MAX {
                return None;
            }
            let Some(target) = run.pointer else {
                return Some(end);
            };
            if target >= start {
                return None;
            }
            start = target;
            run = self.walk_labels(start)?;
            name_len += run.len;
        }
        None
    }

    /// The labels at `at` up to a root byte or a pointer.
    fn walk_labels(&self, start: usize) -> Option<Labels> {
        let mut at = start;
        // Each round takes at least two bytes of a name that may have NAME_MAX.
        while at - start < NAME_MAX {
            let len = self.byte(at)?;
            match len >> 6 {
                0b00 if len == 0 => {
                    return Some(Labels {
                        len: at + 1 - start,
                        end: at + 1,
                        pointer: None,
                    });
                }
                0b00 => at += 1 + usize::from(len),
                0b11 => {
                    let target = usize::from(self.u16(at)? & 0x3fff);
                    return Some(Labels {
                        len: at - start,
                        end: at + 2,
                        pointer: Some(target),
                    });
                }
                // 01 and 10 are reserved (RFC 6891 section 5 took extended labels back).
                _ => return None,
            }
        }
        None
    }
}

/// A run of labels in one place.
struct Labels {
    /// Bytes of the labels, and of the root byte where it ends with one.
    len: usize,
    /// Offset after the run, its root byte or pointer included.
    end: usize,
    /// Where the name goes on.
    pointer: Option<usize>,
}

/// Where RDATA has names that a pointer may stand in.
struct Rdata {
    /// Bytes before the first name.
    before: usize,
    /// Names, one after the other.
    names: usize,
    /// Bytes after the last name.
    after: usize,
    /// True where nothing else may follow.
    exact: bool,
}

impl Rdata {
    const fn exact(before: usize, names: usize, after: usize) -> Self {
        Self {
            before,
            names,
            after,
            exact: true,
        }
    }

    /// By TYPE: those of RFC 1035 and the few that RFC 3597 section 4 lets a receiver decompress, and the addresses.
    const fn of(rtype: u16) -> Self {
        match rtype {
            // A, AAAA
            1 => Self::exact(4, 0, 0),
            28 => Self::exact(16, 0, 0),
            // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
            2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 39 => Self::exact(0, 1, 0),
            // SOA
            6 => Self::exact(0, 2, 20),
            // MINFO, RP
            14 | 17 => Self::exact(0, 2, 0),
            // MX, AFSDB, RT, KX
            15 | 18 | 21 | 36 => Self::exact(2, 1, 0),
            // PX
            26 => Self::exact(2, 2, 0),
            // SRV
            33 => Self::exact(6, 1, 0),
            // SIG and RRSIG: the signer's name, then the signature
            24 | 46 => Self {
                before: 18,
                names: 1,
                after: 0,
                exact: false,
            },
            _ => Self {
                before: 0,
                names: 0,
                after: 0,
                exact: false,
            },
        }
    }
}
