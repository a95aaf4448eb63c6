//! Parts of the RDATA of known types in wire form, for data that is written as `\\#` (RFC 3597): a client that asks for a type parses
//! what it gets as that type.

use xdnsd_core::dns::rtype;
use xdnsd_core::limits::NAME_MAX;

/// Longest label in bytes; a larger length byte is a compression pointer, which data of our own never has.
const LABEL_MAX: usize = 63;

/// A part of RDATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// So many bytes.
    Bytes(usize),
    /// A name without compression.
    Name,
    /// A character string.
    Text,
    /// Character strings up to the end, one at least.
    Texts,
    /// Parameters of SVCB and HTTPS (RFC 9460 section 2.2).
    Params,
    /// Bytes up to the end, one at least.
    Some,
    /// Bytes up to the end.
    Any,
}

use Part::{Any, Bytes, Name, Params, Some as More, Text, Texts};

/// Types by number: their parts, and the same in words.
const SHAPES: &[(&[u16], &[Part], &str)] = &[
    (&[rtype::A], &[Bytes(4)], "4 bytes"),
    (&[rtype::AAAA], &[Bytes(16)], "16 bytes"),
    // DNAME, and MD, MF, MB, MG, MR of RFC 1035.
    (
        &[
            rtype::NS,
            rtype::CNAME,
            rtype::PTR,
            rtype::DNAME,
            3,
            4,
            7,
            8,
            9,
        ],
        &[Name],
        "one name without compression",
    ),
    // AFSDB and KX have the form of MX.
    (
        &[rtype::MX, 18, 36],
        &[Bytes(2), Name],
        "2 bytes and a name without compression",
    ),
    (
        &[rtype::SRV],
        &[Bytes(6), Name],
        "6 bytes and a name without compression",
    ),
    (
        &[rtype::SOA],
        &[Name, Name, Bytes(20)],
        "two names without compression and 20 bytes",
    ),
    // MINFO and RP.
    (&[14, 17], &[Name, Name], "two names without compression"),
    (
        &[rtype::HINFO],
        &[Text, Text],
        "two texts, each behind its length",
    ),
    // SPF has the form of TXT.
    (&[rtype::TXT, 99], &[Texts], "texts, each behind its length"),
    (
        &[35],
        &[Bytes(4), Text, Text, Text, Name],
        "4 bytes, three texts and a name without compression",
    ),
    (
        &[rtype::SVCB, rtype::HTTPS],
        &[Bytes(2), Name, Params],
        "2 bytes, a name without compression, and parameters in the order of their keys, none with priority 0",
    ),
    // LOC.
    (&[29], &[Bytes(16)], "16 bytes"),
    // DS and CDS, DNSKEY and CDNSKEY, URI.
    (
        &[43, 59, 48, 60, 256],
        &[Bytes(4), More],
        "more than 4 bytes",
    ),
    // SSHFP, TLSA and SMIMEA.
    (&[44], &[Bytes(2), More], "more than 2 bytes"),
    (&[52, 53], &[Bytes(3), More], "more than 3 bytes"),
    // RRSIG and NSEC.
    (
        &[46],
        &[Bytes(18), Name, More],
        "18 bytes, a name without compression, and a signature",
    ),
    (
        &[47],
        &[Name, More],
        "a name without compression, and a bitmap of types",
    ),
    (
        &[257],
        &[Bytes(1), Text, Any],
        "a byte, a tag behind its length, and a value",
    ),
];

/// Checks that RDATA has the form of its type; a type without a row here may have any.
///
/// # Errors
/// What the type wants.
pub fn check(number: u16, rdata: &[u8]) -> Result<(), &'static str> {
    let row = SHAPES.iter().find(|(types, ..)| types.contains(&number));
    let Some((_, parts, words)) = row else {
        return Ok(());
    };
    let rest = parts.iter().try_fold(rdata, |rest, part| cut(rest, *part));
    match rest {
        Some([]) if !is_alias_with_params(number, rdata) => Ok(()),
        Some(_) | None => Err(words),
    }
}

/// SVCB and HTTPS with priority 0 take no parameters here, as in presentation format: a target of one byte is the root.
fn is_alias_with_params(number: u16, rdata: &[u8]) -> bool {
    let [0, 0, target @ ..] = rdata else {
        return false;
    };
    matches!(number, rtype::SVCB | rtype::HTTPS) && cut_name(target) != Some(&[])
}

/// What is left behind a part. `None`: it is not there.
fn cut(rdata: &[u8], part: Part) -> Option<&[u8]> {
    match part {
        Bytes(len) => rdata.get(len..),
        Name => cut_name(rdata),
        Text => cut_text(rdata),
        Texts => {
            let mut rest = cut_text(rdata)?;
            while !rest.is_empty() {
                rest = cut_text(rest)?;
            }
            Some(rest)
        }
        Params => cut_params(rdata),
        More => (!rdata.is_empty()).then_some(&[]),
        Any => Some(&[]),
    }
}

fn cut_text(rdata: &[u8]) -> Option<&[u8]> {
    let (&len, rest) = rdata.split_first()?;
    rest.get(usize::from(len)..)
}

fn cut_name(rdata: &[u8]) -> Option<&[u8]> {
    let mut rest = rdata;
    // Bound: each step takes a byte or more.
    loop {
        let (&len, behind) = rest.split_first()?;
        rest = behind.get(usize::from(len)..)?;
        let taken = rdata.len() - rest.len();
        if usize::from(len) > LABEL_MAX || taken > NAME_MAX {
            return None;
        }
        if len == 0 {
            return Some(rest);
        }
    }
}

/// Parameters with rising keys, each with a value that it may have (RFC 9460 sections 7 and 8).
fn cut_params(mut rest: &[u8]) -> Option<&[u8]> {
    let mut last = None;
    let mut has_alpn = false;
    while !rest.is_empty() {
        let (key, behind) = rest.split_first_chunk()?;
        let (len, behind) = behind.split_first_chunk()?;
        let key = u16::from_be_bytes(*key);
        let (value, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        has_alpn |= key == 1;
        let is_right = match key {
            // mandatory, alpn, no-default-alpn, port, ipv4hint, ipv6hint.
            0 => !value.is_empty() && value.len().is_multiple_of(2),
            1 => cut(value, Texts).is_some(),
            2 => value.is_empty() && has_alpn,
            3 => value.len() == 2,
            4 => !value.is_empty() && value.len().is_multiple_of(4),
            6 => !value.is_empty() && value.len().is_multiple_of(16),
            _ => true,
        };
        if !is_right || last >= Some(key) {
            return None;
        }
        (last, rest) = (Some(key), behind);
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_form_of_its_type() {
        let right: [(u16, &[u8]); 21] = [
            (1, &[192, 0, 2, 1]),
            (28, &[0; 16]),
            (5, b"\x03nas\x03lan\0"),
            (2, b"\0"),
            (15, b"\0\x0a\x04mail\0"),
            (33, b"\0\0\0\0\0\x35\x01x\0"),
            (6, b"\0\x01x\0aaaabbbbccccddddeeee"),
            (16, b"\x01a\x00\x02bc"),
            (13, b"\x01a\x00"),
            (35, b"\0\0\0\0\0\x01s\0\0"),
            (65, b"\0\0\x01x\0"),
            (65, b"\0\x01\0"),
            (65, b"\0\x01\0\0\x01\0\x03\x02h2\0\x03\0\x02\x01\xbb"),
            (64, b"\0\x01\0\0\x04\0\x04abcd\xff\0\0\0"),
            (43, b"\0\0\0\0x"),
            (44, b"\0\0x"),
            (52, b"\0\0\0x"),
            (257, b"\0\x05issueca.example"),
            (257, b"\0\x05issue"),
            (39, b"\x01x\0"),
            (65280, b""),
        ];
        for (number, rdata) in right {
            assert_eq!(check(number, rdata), Ok(()), "{number} {rdata:?}");
        }
        let long = [&b"\x3f"[..], &[b'x'; 63]].concat().repeat(4);
        let long = [&long[..], b"\0"].concat();
        let wrong: [(u16, &[u8]); 32] = [
            (1, &[192, 0, 2]),
            (1, &[192, 0, 2, 1, 1]),
            (28, &[0; 15]),
            (28, &[0; 4]),
            (5, b"\x03nas\x03lan"),
            (5, b"\x03nas\x03lan\0x"),
            (5, b"\x03nas\xc0\x0c"),
            (5, b"\x40nas\0"),
            (5, b""),
            (2, &long),
            (12, b"\x05nas\0"),
            (15, b"\0\x0a"),
            (15, b"\0\x04mail\0"),
            (33, b"\0\0\0\0\0\x35"),
            (6, b"\0\0aaaabbbbccccddddeee"),
            (16, b""),
            (16, b"\x05abc"),
            (13, b"\x01a"),
            (35, b"\0\0\0\0\0\x01s\0"),
            (39, b"x"),
            (65, b"\0"),
            (65, b"\0\x01"),
            (65, b"\0\0\0\0\x03\0\x02\x01\xbb"),
            (65, b"\0\x01\0\0\x03\0\x02\x01\xbb\0\x01\0\x03\x02h2"),
            (65, b"\0\x01\0\0\x03\0\x02\x01\xbb\0\x03\0\x02\x01\xbb"),
            (65, b"\0\x01\0\0\x03\0\x01\x01"),
            (65, b"\0\x01\0\0\x04\0\x03abc"),
            (65, b"\0\x01\0\0\x06\0\0"),
            (65, b"\0\x01\0\0\x01\0\x03\x05h2"),
            (64, b"\0\x01\0\0\x03\0\x05ab"),
            (43, b"\0\0\0\0"),
            (257, b"\0\x09issue"),
        ];
        for (number, rdata) in wrong {
            assert!(check(number, rdata).is_err(), "{number} {rdata:?}");
        }
    }
}
