//! Types and response codes as people read them (RFC 3597 section 5).

use crate::compile::rdata;

/// A type's name: `AAAA`, or `TYPE65280`.
#[must_use]
pub fn type_text(rtype: u16) -> String {
    let known = rdata::named_types().find(|(_, number)| *number == rtype);
    known.map_or_else(|| format!("TYPE{rtype}"), |(name, _)| name.to_owned())
}

/// Number of a type that a question may have, from its name or `TYPE123`.
#[must_use]
pub fn type_number(word: &str) -> Option<u16> {
    rdata::any_type_number(word)
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
        assert_eq!(
            ["NULL", "wks", "MINFO", "MAILB"].map(type_number),
            [Some(10), Some(11), Some(14), Some(253)]
        );
        let numbers = ["aaaa", "DNSKEY", "any", "TYPE65280", "192.0.2.1", "TYPE"].map(type_number);
        assert_eq!(
            numbers,
            [Some(28), Some(48), Some(255), Some(65280), None, None]
        );
    }
}
