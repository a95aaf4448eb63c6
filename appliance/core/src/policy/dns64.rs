//! DNS64 (RFC 6147): IPv6 addresses made of IPv4 ones, for clients that reach IPv4 hosts by a NAT64.
//!
//! An IPv4 address stands behind the prefix of the NAT64, around the octet in bits 64 to 71, which is zero (RFC 6052
//! section 2.2):
//!
//! ```text
//!  length  0       4       8       12      16 bytes
//!    32    |prefix |  v4   |0| suffix        |
//!    48    |  prefix   | v4|0|v4 | suffix    |
//!    64    |    prefix     |0|  v4   | suffix|
//!    96    |        prefix         |  v4     |
//! ```

use core::net::{IpAddr, Ipv6Addr};
use heapless::Vec;

use super::name::Labels;
use super::ranges::AddressRanges;
use crate::dns::Name;

/// TTL of a made address if the denial of the IPv6 ones told none, and of the alias of a made address' name, in seconds (RFC
/// 6147 section 5.1.7).
pub const TTL_SECS: u32 = 600;

/// Name by whose IPv6 addresses clients learn the prefix (RFC 7050), and its IPv4 addresses, of which those are made.
pub const DISCOVERY_NAME: &[u8] = b"\x08ipv4only\x04arpa\0";
/// See [`DISCOVERY_NAME`].
pub const DISCOVERY_ADDRESSES: [[u8; 4]; 2] = [[192, 0, 0, 170], [192, 0, 0, 171]];

/// Lengths of a prefix in bits (RFC 6052 section 2.2).
pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];
/// The octet that is zero in every address with an IPv4 one in it.
const ZERO_OCTET: usize = 8;
/// Labels of the name of a whole address below `ip6.arpa`, one for each four bits (RFC 3596 section 2.5), and of that name.
const NIBBLES: usize = 32;
const REVERSE_DEPTH: usize = NIBBLES + 2;
/// Longest name of an IPv4 address below `in-addr.arpa`, in bytes.
const REVERSE_MAX: usize = 4 * 4 + IN_ADDR_ARPA.len();
const IN_ADDR_ARPA: &[u8] = b"\x07in-addr\x04arpa\0";
const IP6_ARPA: &[u8] = b"\x03ip6\x04arpa\0";

/// Prefix of IPv6 addresses with IPv4 ones in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationPrefix {
    octets: [u8; 16],
    length: u8,
}

impl TranslationPrefix {
    /// 64:ff9b::/96 (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Self = Self {
        octets: [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        length: 96,
    };

    /// The prefix of this length in bits. `None` if RFC 6052 has no such length, or if the octet that has to be zero is not.
    /// Bits behind the prefix count as zero.
    #[must_use]
    pub fn new(address: Ipv6Addr, length: u8) -> Option<Self> {
        let mut octets = address.octets();
        octets.get_mut(usize::from(length) / 8..)?.fill(0);
        let is_valid = LENGTHS.contains(&length) && octets[ZERO_OCTET] == 0;
        is_valid.then_some(Self { octets, length })
    }

    /// Places of the octets of an IPv4 address.
    fn places(self) -> [usize; 4] {
        let mut at = usize::from(self.length) / 8;
        [(); 4].map(|()| {
            at += usize::from(at == ZERO_OCTET);
            at += 1;
            at - 1
        })
    }

    /// The address in this prefix with an IPv4 one in it.
    #[must_use]
    pub fn embed(self, v4: [u8; 4]) -> [u8; 16] {
        let mut octets = self.octets;
        for (place, octet) in self.places().into_iter().zip(v4) {
            octets[place] = octet;
        }
        octets
    }

    /// The IPv4 address in an address of this prefix; `None` for other addresses. The suffix does not count (RFC 6052 section
    /// 2.3).
    #[must_use]
    pub fn extract(self, address: [u8; 16]) -> Option<[u8; 4]> {
        let length = usize::from(self.length) / 8;
        let is_of_prefix = address[..length] == self.octets[..length];
        (is_of_prefix && address[ZERO_OCTET] == 0)
            .then(|| self.places().map(|place| address[place]))
    }

    /// The address that is made of an IPv4 one. `None` for one that no NAT64 leads to: this host and loopback, and, for the
    /// well-known prefix, all that are not global (RFC 6052 section 3.1).
    #[must_use]
    pub fn make(self, v4: [u8; 4]) -> Option<[u8; 16]> {
        let leads_nowhere =
            matches!(v4, [0 | 127, ..]) || self == Self::WELL_KNOWN && !is_global(v4);
        (!leads_nowhere).then(|| self.embed(v4))
    }
}

/// False for addresses of RFC 1918, RFC 5735 section 3 and RFC 6598, but for [`DISCOVERY_ADDRESSES`].
const fn is_global(v4: [u8; 4]) -> bool {
    match v4 {
        [192, 0, 0, 170 | 171] => true,
        [0 | 10 | 127 | 224..=255, ..]
        | [100, 64..=127, ..]
        | [169, 254, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => false,
        _ => true,
    }
}

/// DNS64 as configured, for some clients.
#[derive(Clone, Copy, Debug)]
pub struct Dns64<'a> {
    /// Prefix of the NAT64; `None`: DNS64 is off.
    pub prefix: Option<TranslationPrefix>,
    /// An IPv6 address with a byte other than 0 here counts as none (RFC 6147 section 5.1.4).
    pub excluded: AddressRanges<'a>,
}

impl Dns64<'_> {
    /// No address is made.
    pub const OFF: Self = Self {
        prefix: None,
        excluded: AddressRanges::EMPTY,
    };

    /// True if an AAAA record counts as none. So does one without an address.
    #[must_use]
    pub fn is_excluded(&self, rdata: &[u8]) -> bool {
        let Ok(octets) = <[u8; 16]>::try_from(rdata) else {
            return true;
        };
        let address = IpAddr::from(octets).to_canonical();
        self.excluded.value(address).is_some_and(|byte| byte != 0)
    }

    /// Name of the IPv4 address in `name`, which is that of an IPv6 address; `None` for other names (RFC 6147 section 5.3.1).
    #[must_use]
    pub fn name_of_v4(&self, name: &Labels<'_>) -> Option<Name> {
        let prefix = self.prefix?;
        if name.count() != REVERSE_DEPTH || name.suffix(2) != IP6_ARPA {
            return None;
        }
        let mut octets = [0; 16];
        let digits = name.name().chunks_exact(2).take(NIBBLES);
        // The last digit of the name is the first of the address.
        for (at, label) in digits.enumerate() {
            let &[1, digit] = label else {
                return None;
            };
            let nibble = char::from(digit).to_digit(16)? as u8;
            octets[15 - at / 2] |= nibble << (at % 2 * 4);
        }
        reverse_name(prefix.extract(octets)?)
    }
}

/// Name of an IPv4 address (RFC 1035 section 3.5).
fn reverse_name(v4: [u8; 4]) -> Option<Name> {
    let mut wire: Vec<u8, REVERSE_MAX> = Vec::new();
    for octet in v4.into_iter().rev() {
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let leading = digits.iter().take(2).take_while(|digit| **digit == 0);
        let digits = &digits[leading.count()..];
        wire.push(digits.len() as u8).ok()?;
        for digit in digits {
            wire.push(b'0' + digit).ok()?;
        }
    }
    wire.extend_from_slice(IN_ADDR_ARPA).ok()?;
    Name::from_wire(&wire)
}

#[cfg(test)]
mod tests {
    use super::super::name::tests::wire;
    use super::*;
    use std::format;
    use std::string::{String, ToString};

    fn prefix(text: &str) -> Option<TranslationPrefix> {
        let (address, length) = text.split_once('/').expect("a prefix");
        let address = address.parse().expect("an address");
        TranslationPrefix::new(address, length.parse().expect("a length"))
    }

    /// RFC 6052 section 2.4.
    const EXAMPLES: [(&str, &str); 7] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ];

    #[test]
    fn an_ipv4_address_stands_where_rfc_6052_has_it() {
        for (text, address) in EXAMPLES {
            let prefix = prefix(text).expect("valid");
            let address: Ipv6Addr = address.parse().expect("an address");
            assert_eq!(
                Ipv6Addr::from(prefix.embed([192, 0, 2, 33])),
                address,
                "{text}"
            );
            assert_eq!(
                prefix.extract(address.octets()),
                Some([192, 0, 2, 33]),
                "{text}"
            );
            let beside = Ipv6Addr::from_bits(address.to_bits() ^ 1 << 100);
            assert_eq!(prefix.extract(beside.octets()), None, "{text}");
            let with_octet = Ipv6Addr::from_bits(address.to_bits() | 1 << 60);
            assert_eq!(prefix.extract(with_octet.octets()), None, "{text}");
        }
        let with_suffix: Ipv6Addr = "2001:db8:c000:221::77".parse().expect("an address");
        let prefix = prefix("2001:db8::/32").expect("valid");
        assert_eq!(prefix.extract(with_suffix.octets()), Some([192, 0, 2, 33]));
    }

    #[test]
    fn a_prefix_has_a_length_of_rfc_6052_and_a_zero_in_its_place() {
        for length in 0..=128 {
            let found = prefix(&format!("2001:db8::/{length}"));
            assert_eq!(found.is_some(), LENGTHS.contains(&length), "{length}");
        }
        assert_eq!(prefix("2001:db8:1:2:100::/96"), None);
        assert!(prefix("2001:db8:1:2:1::/96").is_some());
        assert_eq!(prefix("64:ff9b::1/96"), Some(TranslationPrefix::WELL_KNOWN));
    }

    #[test]
    fn what_no_nat64_leads_to_is_not_made() {
        let own = prefix("2001:db8:64::/96").expect("valid");
        for (v4, by_own, by_well_known) in [
            ([8, 8, 8, 8], true, true),
            ([192, 0, 0, 170], true, true),
            ([192, 0, 0, 171], true, true),
            ([192, 0, 0, 172], true, false),
            ([10, 0, 0, 1], true, false),
            ([100, 63, 255, 255], true, true),
            ([100, 64, 0, 0], true, false),
            ([172, 16, 0, 1], true, false),
            ([172, 32, 0, 1], true, true),
            ([192, 168, 1, 1], true, false),
            ([169, 254, 1, 1], true, false),
            ([192, 0, 2, 1], true, false),
            ([192, 88, 99, 1], true, false),
            ([198, 19, 255, 1], true, false),
            ([198, 20, 0, 1], true, true),
            ([198, 51, 100, 1], true, false),
            ([203, 0, 113, 1], true, false),
            ([223, 255, 255, 1], true, true),
            ([224, 0, 0, 1], true, false),
            ([255, 255, 255, 255], true, false),
            ([127, 0, 0, 1], false, false),
            ([0, 0, 0, 0], false, false),
        ] {
            assert_eq!(own.make(v4).is_some(), by_own, "{v4:?}");
            let made = TranslationPrefix::WELL_KNOWN.make(v4);
            assert_eq!(made.is_some(), by_well_known, "{v4:?}");
        }
    }

    fn reversed(dns64: &Dns64<'_>, name: &str) -> Option<String> {
        let name = wire(name);
        let found = dns64.name_of_v4(&Labels::new(&name).expect("well-formed"));
        found.map(|name| name.to_string())
    }

    fn name_of(address: Ipv6Addr) -> String {
        let digits = format!("{:032x}", address.to_bits());
        let labels = digits.chars().rev().map(|digit| format!("{digit}."));
        labels.collect::<String>() + "ip6.arpa"
    }

    #[test]
    fn the_name_of_a_made_address_is_that_of_its_ipv4_address() {
        for (text, address) in EXAMPLES {
            let dns64 = Dns64 {
                prefix: prefix(text),
                ..Dns64::OFF
            };
            let name = name_of(address.parse().expect("an address"));
            let expected = Some("33.2.0.192.in-addr.arpa.");
            assert_eq!(reversed(&dns64, &name).as_deref(), expected, "{text}");
            assert_eq!(reversed(&Dns64::OFF, &name), None);
            for other in [
                name[2..].to_string(),
                format!("0.{name}"),
                name.replace("ip6", "in6"),
                name.replacen('.', "g.", 1),
                name.replace(name.get(..1).expect("a digit"), "g"),
            ] {
                assert_eq!(reversed(&dns64, &other), None, "{other}");
            }
        }
        let well_known = Dns64 {
            prefix: Some(TranslationPrefix::WELL_KNOWN),
            ..Dns64::OFF
        };
        for (v4, expected) in [
            ("255.254.100.9", "9.100.254.255.in-addr.arpa."),
            ("0.10.20.101", "101.20.10.0.in-addr.arpa."),
        ] {
            let address = format!("64:ff9b::{v4}").parse().expect("an address");
            let found = reversed(&well_known, &name_of(address));
            assert_eq!(found.as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_excluded_address_counts_as_none() {
        let mut bytes = std::vec::Vec::new();
        for count in [1u32, 3] {
            bytes.extend(count.to_le_bytes());
        }
        // Every IPv4 address, which a mapped one is; and one IPv6 address.
        bytes.extend(0u32.to_le_bytes());
        bytes.push(1);
        for start in [0, 7u128, 8] {
            bytes.extend(start.to_le_bytes());
        }
        bytes.extend([0, 1, 0]);
        let dns64 = Dns64 {
            prefix: None,
            excluded: AddressRanges::view(&bytes).expect("well-formed"),
        };
        let is_excluded = |text: &str| {
            let address: Ipv6Addr = text.parse().expect("an address");
            dns64.is_excluded(&address.octets())
        };
        assert!(is_excluded("::ffff:192.0.2.1") && is_excluded("::7"));
        assert!(!is_excluded("::6") && !is_excluded("2001:db8::1"));
        assert!(dns64.is_excluded(&[0; 15]), "no address");
        assert!(!Dns64::OFF.is_excluded(&[0; 16]));
    }
}
