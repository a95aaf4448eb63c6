//! Types and response codes as people read them (RFC 3597 section 5).

use xdnsd_core::dns::rtype;

use crate::compile::rdata;

/// Types with a name of their own.
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

/// Number of a type that a question may have, from its name or `TYPE123`.
#[must_use]
pub fn type_number(word: &str) -> Option<u16> {
    let is_meant = |name: &str| name.eq_ignore_ascii_case(word);
    let questions = [("IXFR", rtype::IXFR), ("AXFR", 252), ("ANY", rtype::ANY)];
    let question = questions.iter().find(|(name, _)| is_meant(name));
    let known = TYPES.iter().find(|(_, name)| is_meant(name));
    question
        .map(|(_, number)| *number)
        .or(known.map(|(number, _)| *number))
        .or_else(|| rdata::type_number(word))
}

/// Name of a header's RCODE.
#[must_use]
pub fn rcode_text(rcode: u8) -> String {
    let names = [
        "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
    ];
    names
        .get(usize::from(rcode))
        .map_or_else(|| format!("RCODE{rcode}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let numbers = ["aaaa", "DNSKEY", "any", "TYPE65280", "192.0.2.1", "TYPE"].map(type_number);
        assert_eq!(
            numbers,
            [Some(28), Some(48), Some(255), Some(65280), None, None]
        );
    }
}
