//! Names and types as people write them (RFC 1035 section 5.1, RFC 3597 section 5, RFC 4343 section 2.1).

use xdnsd_core::dns::Name;
use xdnsd_core::limits::NAME_MAX;

/// Types with a name of their own in what we print and read.
const TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (43, "DS"),
    (44, "SSHFP"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (61, "OPENPGPKEY"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (256, "URI"),
    (257, "CAA"),
];

/// A type's name: `AAAA`, or `TYPE65280`.
#[must_use]
pub fn type_text(rtype: u16) -> String {
    let known = TYPES.iter().find(|(number, _)| *number == rtype);
    known.map_or_else(|| format!("TYPE{rtype}"), |(_, name)| (*name).to_owned())
}

/// A header's RCODE by its name.
#[must_use]
pub fn rcode_text(rcode: u8) -> String {
    let names = [
        "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
    ];
    names
        .get(usize::from(rcode))
        .map_or_else(|| format!("RCODE{rcode}"), |name| (*name).to_owned())
}

/// Reads a name, with or without the dot at its end; `\.` and `\032` are escapes. `None`: not a name.
#[must_use]
pub fn parse_name(text: &str) -> Option<Name> {
    match text {
        "" => return None,
        "." => return Some(Name::ROOT),
        _ => {}
    }
    let mut wire = vec![0];
    let mut label_start = 0;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'.' {
            close_label(&mut wire, label_start)?;
            label_start = wire.len();
            wire.push(0);
        } else {
            wire.push(if byte == b'\\' {
                unescape(&mut bytes)?
            } else {
                byte
            });
        }
        if wire.len() > NAME_MAX {
            return None;
        }
    }
    // Without a dot at the end the last label is still open, and the root byte to come.
    if wire.len() > label_start + 1 {
        close_label(&mut wire, label_start)?;
        wire.push(0);
    }
    Name::from_wire(&wire)
}

/// Writes the length of the label that begins at `start`. `None`: it is empty or too long.
fn close_label(wire: &mut [u8], start: usize) -> Option<()> {
    let len = wire.len() - start - 1;
    let allowed = (1..=xdnsd_core::dns::name::LABEL_MAX).contains(&len);
    wire[start] = len as u8;
    allowed.then_some(())
}

/// What stands behind a backslash: a byte as three decimal digits, or any other character for itself.
fn unescape(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let digits = [first, bytes.next()?, bytes.next()?];
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_u16, |value, digit| value * 10 + u16::from(digit - b'0'));
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for (text, wire) in [
            (".", &b"\0"[..]),
            ("a", b"\x01a\0"),
            ("a.", b"\x01a\0"),
            ("www.Example.org", b"\x03www\x07Example\x03org\0"),
            ("a\\.b.c", b"\x03a.b\x01c\0"),
            ("a\\032b", b"\x03a b\0"),
            ("\\255", b"\x01\xff\0"),
            ("_dns-sd._udp", b"\x07_dns-sd\x04_udp\0"),
        ] {
            let name = parse_name(text).expect(text);
            assert_eq!(name.as_wire(), wire, "{text}");
            assert_eq!(
                parse_name(&name.to_string())
                    .map(|again| again.as_wire().to_vec())
                    .as_deref(),
                Some(wire)
            );
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let label = "a".repeat(64);
        let long = format!("{}.", "a".repeat(63)).repeat(4);
        for text in [
            "", "..", "a..b", ".a", "a\\", "a\\25", "a\\256", "a\\2x5", &label, &long,
        ] {
            assert!(parse_name(text).is_none(), "{text}");
        }
        assert!(
            parse_name(&long[2..]).is_some_and(|name| name.as_wire().len() == NAME_MAX),
            "the longest name"
        );
    }

    #[test]
    fn types_and_rcodes_have_names() {
        assert_eq!(
            (type_text(28), type_text(65280)),
            ("AAAA".into(), "TYPE65280".into())
        );
        assert_eq!(
            (rcode_text(3), rcode_text(15)),
            ("NXDOMAIN".into(), "RCODE15".into())
        );
    }
}
