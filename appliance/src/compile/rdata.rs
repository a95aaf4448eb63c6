//! RDATA of local records, from presentation format.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use xdnsd_core::dns::rtype;

use super::zonefile::{bounded, decode, number_or, parse_name, parse_u16};
use super::{shape, svcb};

/// Record types by name.
const TYPES: &[(&str, u16)] = &[
    ("A", rtype::A),
    ("NS", rtype::NS),
    ("CNAME", rtype::CNAME),
    ("PTR", rtype::PTR),
    ("MX", rtype::MX),
    ("TXT", rtype::TXT),
    ("AAAA", rtype::AAAA),
    ("SRV", rtype::SRV),
    ("SVCB", rtype::SVCB),
    ("HTTPS", rtype::HTTPS),
];

/// Numbers of the types that local data knows by name.
pub fn known_types() -> impl Iterator<Item = u16> {
    TYPES.iter().map(|(_, number)| *number)
}

/// Other types with a name in IANA's registry, which local data takes by number alone.
const OTHERS: &[(&str, u16)] = &[
    ("MD", 3),
    ("MF", 4),
    ("SOA", 6),
    ("MB", 7),
    ("MG", 8),
    ("MR", 9),
    ("NULL", 10),
    ("WKS", 11),
    ("HINFO", 13),
    ("MINFO", 14),
    ("RP", 17),
    ("AFSDB", 18),
    ("X25", 19),
    ("ISDN", 20),
    ("RT", 21),
    ("NSAP", 22),
    ("NSAP-PTR", 23),
    ("SIG", 24),
    ("KEY", 25),
    ("PX", 26),
    ("GPOS", 27),
    ("LOC", 29),
    ("NXT", 30),
    ("EID", 31),
    ("NIMLOC", 32),
    ("ATMA", 34),
    ("NAPTR", 35),
    ("KX", 36),
    ("CERT", 37),
    ("A6", 38),
    ("DNAME", 39),
    ("SINK", 40),
    ("APL", 42),
    ("DS", 43),
    ("SSHFP", 44),
    ("IPSECKEY", 45),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("DHCID", 49),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("HIP", 55),
    ("NINFO", 56),
    ("RKEY", 57),
    ("TALINK", 58),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("OPENPGPKEY", 61),
    ("CSYNC", 62),
    ("ZONEMD", 63),
    ("DSYNC", 66),
    ("HHIT", 67),
    ("BRID", 68),
    ("SPF", 99),
    ("UINFO", 100),
    ("UID", 101),
    ("GID", 102),
    ("UNSPEC", 103),
    ("NID", 104),
    ("L32", 105),
    ("L64", 106),
    ("LP", 107),
    ("EUI48", 108),
    ("EUI64", 109),
    ("URI", 256),
    ("CAA", 257),
    ("AVC", 258),
    ("DOA", 259),
    ("AMTRELAY", 260),
    ("RESINFO", 261),
    ("WALLET", 262),
    ("CLA", 263),
    ("IPN", 264),
    ("TA", 32_768),
    ("DLV", 32_769),
];

/// Types of questions and messages with a name there: no record has them.
const WITHOUT_RECORDS: &[(&str, u16)] = &[
    ("OPT", 41),
    ("NXNAME", 128),
    ("TKEY", 249),
    ("TSIG", 250),
    ("IXFR", 251),
    ("AXFR", 252),
    ("MAILB", 253),
    ("MAILA", 254),
    ("ANY", 255),
];

/// All types with a name of their own, and their numbers.
pub fn named_types() -> impl Iterator<Item = (&'static str, u16)> {
    TYPES.iter().chain(OTHERS).copied()
}

/// Number of any type, whether records have it or not, from its name or `TYPE123`.
#[must_use]
pub fn any_type_number(word: &str) -> Option<u16> {
    let is_meant = |(name, _): &(&str, u16)| name.eq_ignore_ascii_case(word);
    let mut named = named_types().chain(WITHOUT_RECORDS.iter().copied());
    let known = named.find(is_meant);
    known.map_or_else(|| type_number(word), |(_, number)| Some(number))
}

/// Why a word is not the type of a record here, and what can be written in its place.
#[must_use]
pub fn no_type(word: &str) -> String {
    let is_meant = |(name, _): &&(&str, u16)| name.eq_ignore_ascii_case(word);
    if let Some((name, _)) = WITHOUT_RECORDS.iter().find(is_meant) {
        return format!("{name} is for questions and messages: no record has this type");
    }
    let Some((name, number)) = OTHERS.iter().find(is_meant) else {
        return format!("`{word}` is not a record type{}", why_no_type(word));
    };
    let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    format!(
        "{name} is not taken by its name here: those are {}; others as `TYPE{number} \\# LENGTH HEX` (RFC 3597)",
        known.join(", ")
    )
}

/// What is wrong with a word that is meant as a type, a class or a TTL, behind a colon.
fn why_no_type(word: &str) -> &'static str {
    let starts_with_digit = word.starts_with(|char: char| char.is_ascii_digit());
    match word.to_ascii_uppercase().as_str() {
        "CH" | "HS" | "CS" => ": records are of class IN",
        "ALIAS" | "ANAME" | "FLATTEN" => {
            ": there is none of this name; a CNAME, or the addresses, stand in its place"
        }
        upper if upper.starts_with("TYPE") && upper.len() > 4 => {
            ": a number from 1 to 65535 without 41 and 128 to 255"
        }
        upper if starts_with_digit && upper.ends_with(['S', 'M', 'H', 'D', 'W']) => {
            ": a TTL is in seconds, without a unit"
        }
        _ => "",
    }
}

/// Types that no record can have: OPT, and those only for questions (RFC 6895 section 3.1).
const META: [std::ops::RangeInclusive<u16>; 3] = [0..=0, 41..=41, 128..=255];

/// Number of a type, from its name or `TYPE123` (RFC 3597 section 5).
#[must_use]
pub fn type_number(word: &str) -> Option<u16> {
    let named = TYPES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word))
        .map(|&(_, number)| number);
    let number = || {
        let (prefix, digits) = word.split_at_checked(4)?;
        let is_number =
            prefix.eq_ignore_ascii_case("TYPE") && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok()).flatten()
    };
    named
        .or_else(number)
        .filter(|number| !META.iter().any(|meta| meta.contains(number)))
}

/// RDATA in wire form from the words after the type. Names in it keep their letter case and are not compressed.
///
/// # Errors
/// What is wrong with the words.
pub fn parse(number: u16, words: &[String]) -> Result<Vec<u8>, String> {
    if let [marker, rest @ ..] = words
        && marker == "\\#"
    {
        let rdata = parse_generic(rest)?;
        return match shape::check(number, &rdata) {
            Ok(()) => Ok(rdata),
            Err(wanted) => Err(format!("\\# has other data than this type takes: {wanted}")),
        };
    }
    match (number, words) {
        (rtype::A, [address]) => Ok(Vec::from(
            number_or(address, Ipv4Addr::from_str, "an IPv4 address")?.octets(),
        )),
        (rtype::AAAA, [address]) => Ok(Vec::from(
            number_or(address, Ipv6Addr::from_str, "an IPv6 address")?.octets(),
        )),
        (rtype::NS | rtype::CNAME | rtype::PTR, [target]) => parse_name(target),
        (rtype::MX, [preference, exchange]) => concat(&[preference], exchange),
        (rtype::SRV, [priority, weight, port, target]) => concat(&[priority, weight, port], target),
        (rtype::TXT, [_, ..]) => parse_txt(words),
        (rtype::SVCB | rtype::HTTPS, [priority, target, params @ ..]) => {
            svcb::parse(priority, target, params)
        }
        (rtype::A | rtype::AAAA, _) => Err("takes one address".into()),
        (rtype::NS | rtype::CNAME | rtype::PTR, _) => Err("takes one name".into()),
        (rtype::MX, _) => Err("takes a preference and a name".into()),
        (rtype::SRV, _) => Err("takes priority, weight, port and a name".into()),
        (rtype::TXT, _) => Err("takes texts".into()),
        (rtype::SVCB | rtype::HTTPS, _) => Err("takes a priority, a name and parameters".into()),
        _ => Err("of this type is written as \\# LENGTH HEX (RFC 3597)".into()),
    }
}

/// 16-bit numbers, then a name.
fn concat(numbers: &[&String], target: &str) -> Result<Vec<u8>, String> {
    let mut rdata = Vec::new();
    for number in numbers {
        rdata.extend(parse_u16(number)?.to_be_bytes());
    }
    rdata.extend(parse_name(target)?);
    Ok(rdata)
}

fn parse_txt(words: &[String]) -> Result<Vec<u8>, String> {
    let mut rdata = Vec::new();
    for word in words {
        let text = decode(word)?;
        rdata.push(
            u8::try_from(text.len())
                .map_err(|_| "has a text of more than 255 bytes; write it as several")?,
        );
        rdata.extend(text);
    }
    bounded(rdata)
}

/// Generic form for any type: the length, then hexadecimal digits in any number of words (RFC 3597 section 5).
fn parse_generic(words: &[String]) -> Result<Vec<u8>, String> {
    let (len, digits) = words
        .split_first()
        .ok_or("\\# takes a length and hexadecimal digits")?;
    let digits: Vec<u8> = digits.concat().into_bytes();
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let pair = |pair: &[u8]| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?);
    let rdata: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    let rdata = rdata.ok_or("\\# takes pairs of hexadecimal digits")?;
    if usize::from(parse_u16(len)?) == rdata.len() {
        Ok(rdata)
    } else {
        Err(format!("\\# says {len} bytes, {} follow", rdata.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::zonefile::split;
    use super::*;

    fn rdata(rtype: &str, text: &str) -> Result<Vec<u8>, String> {
        parse(type_number(rtype).expect("a type"), &split(text)?)
    }

    #[test]
    fn every_type() {
        let cases: [(&str, &str, &[u8]); 15] = [
            ("A", "192.168.1.1", &[192, 168, 1, 1]),
            (
                "AAAA",
                "fd00::1",
                &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            ),
            ("CNAME", "NAS.lan", b"\x03NAS\x03lan\0"),
            (
                "PTR",
                "Bob\\'s\\032TV\\.2._IPP.lan",
                b"\x0aBob's TV.2\x04_IPP\x03lan\0",
            ),
            ("ptr", "nas.lan.", b"\x03nas\x03lan\0"),
            ("NS", "ns.lan", b"\x02ns\x03lan\0"),
            ("MX", "10 mail.lan", b"\0\x0a\x04mail\x03lan\0"),
            (
                "SRV",
                "0 5 5060 sip.lan",
                b"\0\0\0\x05\x13\xc4\x03sip\x03lan\0",
            ),
            ("MX", "1 Mail.LAN", b"\0\x01\x04Mail\x03LAN\0"),
            ("SVCB", "0 NAS.lan", b"\0\0\x03NAS\x03lan\0"),
            ("SRV", "0 0 0 .", b"\0\0\0\0\0\0\0"),
            ("TXT", "\"hello world\" x", b"\x0bhello world\x01x"),
            ("TXT", "\"\"", b"\0"),
            ("HTTPS", "0 nas.lan", b"\0\0\x03nas\x03lan\0"),
            ("TYPE65280", "\\# 3 00 0a1B", &[0, 10, 27]),
        ];
        for (rtype, text, expected) in cases {
            assert_eq!(
                rdata(rtype, text).as_deref(),
                Ok(expected),
                "{rtype} {text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("A", "192.168.1", "IPv4"),
            ("A", "", "one address"),
            ("AAAA", "1.2.3.4", "IPv6"),
            ("CNAME", "a..b", "empty label"),
            ("MX", "mail.lan", "preference"),
            ("MX", "70000 mail.lan", "65535"),
            ("SRV", "0 0 sip.lan", "port"),
            ("TXT", "", "texts"),
            ("TYPE257", "abc", "RFC 3597"),
            ("TYPE257", "\\# 2 00", "1 follow"),
            ("TYPE257", "\\# 1 0", "pairs"),
            ("TYPE257", "\\# 1 0g", "pairs"),
            ("A", "\\# 3 c00002", "4 bytes"),
            ("TYPE28", "\\# 4 c0000201", "16 bytes"),
            ("CNAME", "\\# 2 c00c", "one name without compression"),
            ("TYPE5", "\\# 4 036e6173", "one name without compression"),
            ("MX", "\\# 2 000a", "a name"),
            ("TXT", "\\# 2 0561", "texts"),
            ("TXT", "v=spf1; -all", "`;` begins a comment"),
        ];
        for (rtype, text, part) in cases {
            let error = rdata(rtype, text).expect_err("wrong");
            assert!(error.contains(part), "{rtype} {text}: {error}");
        }
        let long = format!("\"{}\"", "x".repeat(256));
        assert!(rdata("TXT", &long).is_err());
    }

    /// Another implementation has the registry as well, as far as it knows it.
    #[test]
    fn names_and_numbers_are_the_registrys() {
        use hickory_proto::rr::RecordType;

        let ours = || named_types().chain(WITHOUT_RECORDS.iter().copied());
        let mut compared = 0;
        for number in 0..=u16::MAX {
            let theirs = RecordType::from(number);
            // ZERO is its own word; ANAME is of the numbers for private use.
            if matches!(theirs, RecordType::Unknown(_) | RecordType::ZERO) || number >= 65280 {
                continue;
            }
            let name = theirs.to_string();
            assert_eq!(any_type_number(&name), Some(number), "{name}");
            compared += 1;
        }
        assert!(compared >= 35, "{compared}");
        for (name, number) in ours() {
            let theirs: Result<RecordType, _> = name.parse();
            if let Ok(theirs) = theirs {
                assert_eq!(u16::from(theirs), number, "{name}");
            }
            let same = ours().filter(|(other, of)| *other == name || *of == number);
            assert_eq!(same.count(), 1, "{name}");
        }
    }

    #[test]
    fn a_word_that_is_no_type_is_told_why() {
        for (word, part) in [
            ("CDS", "CDS is not taken by its name here"),
            ("TYPE59", "is not a record type: a number"),
            ("loc", "`TYPE29 \\# LENGTH HEX`"),
            ("ANY", "no record has this type"),
            ("tsig", "no record has this type"),
            ("CH", "class IN"),
            ("ALIAS", "CNAME"),
            ("TYPE99999", "from 1 to 65535"),
            ("1h", "in seconds"),
            ("B", "`B` is not a record type"),
        ] {
            let said = no_type(word);
            assert!(said.contains(part), "{word}: {said}");
        }
    }

    #[test]
    fn types_are_names_or_numbers_and_not_meta() {
        assert_eq!(type_number("https"), Some(65));
        assert_eq!(type_number("TYPE65"), Some(65));
        for word in [
            "OPT",
            "ANY",
            "TYPE255",
            "TYPE41",
            "TYPE0",
            "TYPE",
            "TYPE65536",
            "TYPE+1",
            "FOO",
            "é",
        ] {
            assert_eq!(type_number(word), None, "{word}");
        }
    }
}
