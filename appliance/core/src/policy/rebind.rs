//! Rebind protection: if a public name resolves to an address of this network, a web page can talk to the router.
//!
//! Inspects A, AAAA and the address hints of SVCB and HTTPS records (RFC 9460 section 7.3). An IPv4 address inside an IPv6
//! one counts as itself: v4-mapped, v4-compatible, NAT64 (RFC 6052, RFC 8215; also with the network's own prefix) and 6to4
//! (RFC 3056).

use super::dns64::TranslationPrefix;
use super::name::Labels;
use super::route::Suffixes;
use crate::dns::rtype;

/// A range of addresses that a public name must not resolve to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Range {
    /// 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918).
    Private,
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10.
    LinkLocal,
    /// fc00::/7 (RFC 4193) and the old site-local fec0::/10.
    UniqueLocal,
    /// 0.0.0.0/8 and ::, which reach the host itself on many systems.
    ThisHost,
    /// 100.64.0.0/10 (RFC 6598). Off by default: some providers have services of their own there.
    SharedSpace,
}

impl Range {
    /// Every range, in the order of the bits.
    pub const ALL: [Self; 6] = [
        Self::Private,
        Self::Loopback,
        Self::LinkLocal,
        Self::UniqueLocal,
        Self::ThisHost,
        Self::SharedSpace,
    ];
}

/// Set of refused ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    bits: u8,
}

impl Ranges {
    /// No range: protection is off.
    pub const NONE: Self = Self { bits: 0 };
    /// Every range but the shared space.
    pub const DEFAULT: Self = Self {
        bits: (1 << Range::SharedSpace as u8) - 1,
    };

    /// The set with `range`.
    #[must_use]
    pub const fn with(self, range: Range) -> Self {
        Self {
            bits: self.bits | 1 << range as u8,
        }
    }

    /// The set without `range`.
    #[must_use]
    pub const fn without(self, range: Range) -> Self {
        Self {
            bits: self.bits & !(1 << range as u8),
        }
    }

    /// True if `range` is refused.
    #[must_use]
    pub const fn contains(self, range: Range) -> bool {
        self.bits & 1 << range as u8 != 0
    }
}

/// Result of inspecting a record's RDATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No address, or none in a refused range.
    Harmless,
    /// An address in a refused range.
    Rebind(Range),
    /// RDATA that is malformed for its type, so that its addresses are unknown.
    Malformed,
}

/// Rebind protection as configured.
#[derive(Clone, Copy, Debug)]
pub struct Rebind<'a> {
    ranges: Ranges,
    allowed: Suffixes<'a>,
}

impl<'a> Rebind<'a> {
    /// Protection that is off: every address passes.
    pub const OFF: Self = Self {
        ranges: Ranges::NONE,
        allowed: Suffixes::EMPTY,
    };

    /// Refuses `ranges` to all names that `allowed` does not cover.
    #[must_use]
    pub const fn new(ranges: Ranges, allowed: Suffixes<'a>) -> Self {
        Self { ranges, allowed }
    }

    /// True if answers for `qname` have to be inspected. To be called once per answer.
    #[must_use]
    pub fn guards(&self, qname: &Labels<'_>) -> bool {
        self.ranges != Ranges::NONE && !self.allowed.covers(qname)
    }

    /// Inspects a record of an answer. `nat64` is the network's own prefix. RDATA has to be uncompressed, as RFC 9460 requires.
    #[must_use]
    pub fn inspect(&self, rtype: u16, rdata: &[u8], nat64: Option<TranslationPrefix>) -> Finding {
        let ranges = self.ranges;
        Refused { ranges, nat64 }.inspect(rtype, rdata)
    }
}

/// Addresses that are refused: those of `ranges`, and those behind a NAT64 that lead there.
#[derive(Clone, Copy, Debug)]
struct Refused {
    ranges: Ranges,
    nat64: Option<TranslationPrefix>,
}

impl Refused {
    fn inspect(self, rtype: u16, rdata: &[u8]) -> Finding {
        match (rtype, rdata.len()) {
            (rtype::A, 4) => self.addresses(rdata, range_4),
            (rtype::AAAA, 16) => self.addresses(rdata, |v6| self.range_6(v6)),
            (rtype::A | rtype::AAAA, _) => Finding::Malformed,
            (rtype::SVCB | rtype::HTTPS, _) => self.hints(rdata).unwrap_or(Finding::Malformed),
            _ => Finding::Harmless,
        }
    }

    /// Inspects a list of addresses of `N` bytes each. It must not be empty (RFC 9460 section 7.3).
    fn addresses<const N: usize>(
        self,
        list: &[u8],
        range: impl Fn([u8; N]) -> Option<Range>,
    ) -> Finding {
        if list.is_empty() || !list.len().is_multiple_of(N) {
            return Finding::Malformed;
        }
        let mut found = list
            .chunks_exact(N)
            .filter_map(|address| range(*address.first_chunk()?));
        found
            .find(|&range| self.ranges.contains(range))
            .map_or(Finding::Harmless, Finding::Rebind)
    }

    /// Inspects the address hints of an SVCB or HTTPS record; `None` if it is malformed.
    fn hints(self, rdata: &[u8]) -> Option<Finding> {
        /// SvcParamKeys (RFC 9460 section 14.3.2).
        const IPV4HINT: u16 = 4;
        const IPV6HINT: u16 = 6;
        let (_priority, rest) = rdata.split_at_checked(2)?;
        let mut params = rest.get(name_len(rest)?..)?;
        // Bound: every parameter takes at least four bytes.
        while !params.is_empty() {
            let (&[k0, k1, l0, l1], rest) = params.split_first_chunk()?;
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
            let finding = match u16::from_be_bytes([k0, k1]) {
                IPV4HINT => self.addresses(value, range_4),
                IPV6HINT => self.addresses(value, |v6| self.range_6(v6)),
                _ => Finding::Harmless,
            };
            if finding != Finding::Harmless {
                return Some(finding);
            }
            params = rest;
        }
        Some(Finding::Harmless)
    }

    fn range_6(self, address: [u8; 16]) -> Option<Range> {
        let behind = self.nat64.and_then(|prefix| prefix.extract(address));
        behind.map_or_else(|| range_6(address), range_4)
    }
}

/// Length of the name at the beginning of `bytes` in bytes. A compression pointer is malformed here.
fn name_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Bound: every label advances `at` by at least two bytes.
    loop {
        let len = usize::from(*bytes.get(at)?);
        at += 1 + len;
        match len {
            0 => return Some(at),
            1..=63 => {}
            _ => return None,
        }
    }
}

const fn range_4(address: [u8; 4]) -> Option<Range> {
    match address {
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Range::Private),
        [127, ..] => Some(Range::Loopback),
        [169, 254, ..] => Some(Range::LinkLocal),
        [0, ..] => Some(Range::ThisHost),
        [100, 64..=127, ..] => Some(Range::SharedSpace),
        _ => None,
    }
}

const fn range_6(address: [u8; 16]) -> Option<Range> {
    match address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Some(Range::ThisHost),
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] => Some(Range::Loopback),
        [0xfe, 0x80..=0xbf, ..] => Some(Range::LinkLocal),
        [0xfe, 0xc0..=0xff, ..] | [0xfc | 0xfd, ..] => Some(Range::UniqueLocal),
        // v4-compatible, v4-mapped and NAT64 with either well-known prefix and 96 bits.
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0, 0x64, 0xff, 0x9b, 0, 1, _, _, _, _, _, _, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..] => range_4([a, b, c, d]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    fn inspect(ranges: Ranges, rtype: u16, rdata: &[u8]) -> Finding {
        let nat64 = None;
        Refused { ranges, nat64 }.inspect(rtype, rdata)
    }

    #[test]
    fn a_private_address_behind_the_own_nat64_is_one() {
        let prefix: Ipv6Addr = "2001:db8:64::".parse().expect("an address");
        let refused = Refused {
            ranges: Ranges::DEFAULT,
            nat64: TranslationPrefix::new(prefix, 96),
        };
        for (address, found) in [
            ("2001:db8:64::c0a8:101", Finding::Rebind(Range::Private)),
            ("2001:db8:64::c000:201", Finding::Harmless),
            ("2001:db8:65::c0a8:101", Finding::Harmless),
            ("64:ff9b::c0a8:101", Finding::Rebind(Range::Private)),
            ("fd00::1", Finding::Rebind(Range::UniqueLocal)),
        ] {
            let octets = address.parse::<Ipv6Addr>().expect("an address").octets();
            assert_eq!(refused.inspect(rtype::AAAA, &octets), found, "{address}");
            let hint = [b"\0\x01\0\0\x06\0\x10", &octets[..]].concat();
            assert_eq!(refused.inspect(rtype::HTTPS, &hint), found, "{address}");
        }
    }

    fn a(address: &str) -> Finding {
        let address: Ipv4Addr = address.parse().expect("an address");
        inspect(Ranges::DEFAULT, rtype::A, &address.octets())
    }

    fn aaaa(address: &str) -> Finding {
        let address: Ipv6Addr = address.parse().expect("an address");
        inspect(Ranges::DEFAULT, rtype::AAAA, &address.octets())
    }

    #[test]
    fn every_range_is_found_from_its_first_to_its_last_address() {
        let ranges = [
            ("0.0.0.0", "0.255.255.255", Range::ThisHost),
            ("10.0.0.0", "10.255.255.255", Range::Private),
            ("127.0.0.0", "127.255.255.255", Range::Loopback),
            ("169.254.0.0", "169.254.255.255", Range::LinkLocal),
            ("172.16.0.0", "172.31.255.255", Range::Private),
            ("192.168.0.0", "192.168.255.255", Range::Private),
        ];
        for (first, last, range) in ranges {
            assert_eq!(
                (a(first), a(last)),
                (Finding::Rebind(range), Finding::Rebind(range)),
                "{first}"
            );
        }
        for outside in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
        ] {
            assert_eq!(a(outside), Finding::Harmless, "{outside}");
        }
        for outside in [
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "169.253.255.255",
            "192.0.2.1",
            "100.64.0.1",
        ] {
            assert_eq!(a(outside), Finding::Harmless, "{outside}");
        }
        let shared = Ranges::NONE.with(Range::SharedSpace);
        assert_eq!(
            inspect(shared, rtype::A, &[100, 64, 0, 1]),
            Finding::Rebind(Range::SharedSpace)
        );
        assert_eq!(
            inspect(shared, rtype::A, &[100, 128, 0, 1]),
            Finding::Harmless
        );
        assert_eq!(
            inspect(shared, rtype::A, &[10, 0, 0, 1]),
            Finding::Harmless,
            "only what is refused"
        );
    }

    #[test]
    fn ipv6_ranges_and_the_ipv4_addresses_inside_ipv6_ones() {
        let cases = [
            ("::", Range::ThisHost),
            ("::1", Range::Loopback),
            ("fe80::1", Range::LinkLocal),
            ("febf::1", Range::LinkLocal),
            ("fec0::1", Range::UniqueLocal),
            ("fc00::1", Range::UniqueLocal),
            ("fdff::1", Range::UniqueLocal),
            ("::ffff:192.168.1.1", Range::Private),
            ("::10.0.0.1", Range::Private),
            ("64:ff9b::127.0.0.1", Range::Loopback),
            ("64:ff9b:1::10.0.0.1", Range::Private),
            ("2002:c0a8:0101::1", Range::Private),
        ];
        for (address, range) in cases {
            assert_eq!(aaaa(address), Finding::Rebind(range), "{address}");
        }
        for address in [
            "2001:db8::1",
            "::ffff:192.0.2.1",
            "64:ff9b::8.8.8.8",
            "2002:c000:0201::1",
            "fb00::1",
            "fe7f::1",
        ] {
            assert_eq!(aaaa(address), Finding::Harmless, "{address}");
        }
    }

    /// An HTTPS record for the target `x.` with one parameter.
    fn https(key: u16, value: &[u8]) -> Vec<u8> {
        let mut rdata = Vec::from(*b"\0\x01\x01x\0");
        // A parameter in front of it: alpn=h2.
        rdata.extend(b"\0\x01\0\x03\x02h2");
        rdata.extend(key.to_be_bytes());
        rdata.extend((value.len() as u16).to_be_bytes());
        rdata.extend(value);
        rdata
    }

    #[test]
    fn address_hints_count_like_addresses() {
        let inspect = |rdata: &[u8]| inspect(Ranges::DEFAULT, rtype::HTTPS, rdata);
        let private = Finding::Rebind(Range::Private);
        assert_eq!(inspect(&https(4, &[192, 0, 2, 1])), Finding::Harmless);
        assert_eq!(
            inspect(&https(4, &[192, 0, 2, 1, 10, 0, 0, 1])),
            private,
            "the second hint"
        );
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
        assert_eq!(inspect(&https(6, &mapped)), private);
        assert_eq!(
            inspect(&https(5, &[10, 0, 0, 1])),
            Finding::Harmless,
            "ech is no address"
        );
        assert_eq!(
            inspect(b"\0\0\x01x\0"),
            Finding::Harmless,
            "AliasMode has no parameters"
        );
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        let whole = https(4, &[192, 0, 2, 1]);
        // Cut behind the target or behind a parameter it is a shorter record; cut anywhere else it is malformed.
        let ends = [5, 12, whole.len()];
        for len in 0..=whole.len() {
            let found = inspect(Ranges::DEFAULT, rtype::SVCB, &whole[..len]);
            let expected = if ends.contains(&len) {
                Finding::Harmless
            } else {
                Finding::Malformed
            };
            assert_eq!(found, expected, "cut at {len}");
        }
        assert_eq!(
            inspect(Ranges::DEFAULT, rtype::SVCB, &https(4, &[])),
            Finding::Malformed,
            "an empty hint"
        );
        assert_eq!(
            inspect(Ranges::DEFAULT, rtype::SVCB, b"\0\x01\xc0\x0c"),
            Finding::Malformed,
            "a pointer"
        );
        for len in [0, 3, 5, 8] {
            assert_eq!(
                inspect(Ranges::DEFAULT, rtype::A, &[8; 8][..len]),
                Finding::Malformed,
                "{len} bytes"
            );
        }
        assert_eq!(
            inspect(Ranges::DEFAULT, rtype::AAAA, &[8; 4]),
            Finding::Malformed
        );
        assert_eq!(
            inspect(Ranges::DEFAULT, 16, &[10, 0, 0, 1]),
            Finding::Harmless,
            "TXT has no address"
        );
    }
}
