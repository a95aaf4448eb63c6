//! Types and response codes as people read them (RFC 3597 section 5).

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
    }
}
