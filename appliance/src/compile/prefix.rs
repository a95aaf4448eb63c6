//! Address prefixes such as `10.1.0.0/20`, and the reverse zones that they cover.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::name;

/// Bits before the IPv4 address in a mapped one.
const MAPPED_BITS: u8 = 96;

/// An address and the number of its leading bits that count. The other bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// Why text is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// No address, or no address followed by a slash and a number.
    Syntax,
    /// The address has a zone.
    Zone,
    /// The length exceeds the address.
    Length,
    /// A bit after the prefix is set: probably another network is meant.
    HostBits(Prefix),
}

impl fmt::Display for PrefixError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => formatter.write_str("is not an address, or an address/length"),
            Self::Zone => formatter.write_str(
                "names an interface behind %, and a prefix counts on all of them: without that",
            ),
            Self::Length => formatter.write_str("has a length of more bits than the address"),
            Self::HostBits(prefix) => write!(
                formatter,
                "has bits set behind the prefix; is {prefix} meant?"
            ),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// `10.0.0.0/8`, `fd00::/8`, or a single address.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = text
            .split_once('/')
            .map_or((text, None), |(address, len)| (address, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| match address.split_once('%') {
            Some((address, _)) if address.parse::<Ipv6Addr>().is_ok() => PrefixError::Zone,
            Some(_) | None => PrefixError::Syntax,
        })?;
        let len = match len {
            None => address_bits(address),
            Some(len) if len.bytes().all(|byte| byte.is_ascii_digit()) => {
                len.parse().map_err(|_| PrefixError::Syntax)?
            }
            Some(_) => return Err(PrefixError::Syntax),
        };
        if len > address_bits(address) {
            return Err(PrefixError::Length);
        }
        let prefix = Self::masked(address, len);
        if prefix.address == address {
            Ok(prefix)
        } else {
            Err(PrefixError::HostBits(prefix))
        }
    }
}

const fn address_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl Prefix {
    /// The prefix of `len` bits that contains `address`.
    #[must_use]
    pub fn masked(address: IpAddr, len: u8) -> Self {
        let len = len.min(address_bits(address));
        let host_bits = u32::from(address_bits(address) - len);
        let address = match address {
            IpAddr::V4(v4) => {
                Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0))
                    .into()
            }
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0))
                    .into()
            }
        };
        Self { address, len }
    }

    /// All IPv4-mapped addresses (RFC 4291 section 2.5.5.2).
    #[must_use]
    pub const fn mapped() -> Self {
        Self {
            address: IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()),
            len: MAPPED_BITS,
        }
    }

    /// Canonical form: an IPv4-mapped prefix (RFC 4291 section 2.5.5.2) becomes an IPv4 prefix.
    #[must_use]
    pub fn unmapped(self) -> Self {
        let IpAddr::V6(address) = self.address else {
            return self;
        };
        match (address.to_ipv4_mapped(), self.len.checked_sub(MAPPED_BITS)) {
            (Some(v4), Some(len)) => Self::masked(v4.into(), len),
            _ => self,
        }
    }

    /// True if it contains each address of `other`.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let is_family = self.address.is_ipv4() == other.address.is_ipv4();
        is_family && self.len <= other.len && Self::masked(other.address, self.len) == *self
    }

    /// True if it is a single address.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        self.len == address_bits(self.address)
    }

    /// First address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Number of bits.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.len
    }

    /// Reverse zones, in wire form, that together contain the names of exactly these addresses: one if the prefix ends at a
    /// label, else one per value of its last label.
    #[must_use]
    pub fn reverse_zones(&self) -> Vec<Vec<u8>> {
        let label_bits: u8 = if self.address.is_ipv4() { 8 } else { 4 };
        let labels = self.len.div_ceil(label_bits);
        let spare_bits = labels * label_bits - self.len;
        let count = 1u128 << spare_bits;
        let step = u32::from(address_bits(self.address) - labels * label_bits);
        (0..count)
            .map(|index| self.offset(index.checked_shl(step).unwrap_or(0)))
            .map(|a| reverse_name(a, labels))
            .collect()
    }

    fn offset(&self, offset: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | offset as u32).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | offset).into(),
        }
    }
}

/// Name of an address in `in-addr.arpa` or `ip6.arpa`, with only the first `labels` labels of the address (RFC 1035 section
/// 3.5, RFC 3596 section 2.5).
fn reverse_name(address: IpAddr, labels: u8) -> Vec<u8> {
    let (parts, zone): (Vec<String>, &str) = match address {
        IpAddr::V4(v4) => (
            v4.octets().iter().map(u8::to_string).collect(),
            "in-addr.arpa",
        ),
        IpAddr::V6(v6) => {
            let nibbles = v6
                .octets()
                .into_iter()
                .flat_map(|octet| [octet >> 4, octet & 15]);
            (
                nibbles.map(|nibble| format!("{nibble:x}")).collect(),
                "ip6.arpa",
            )
        }
    };
    let mut labels: Vec<&str> = parts
        .iter()
        .take(usize::from(labels))
        .map(String::as_str)
        .collect();
    labels.reverse();
    labels.push(zone);
    name::parse(&labels.join(".")).expect("digits make a name of at most 74 bytes")
}

/// Owner name of an address' PTR records.
#[must_use]
pub fn pointer_name(address: IpAddr) -> Vec<u8> {
    reverse_name(address, 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    fn zones(text: &str) -> Vec<String> {
        prefix(text)
            .reverse_zones()
            .iter()
            .map(|zone| name::display(zone))
            .collect()
    }

    #[test]
    fn prefixes_are_read() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.168.1.1/32",
            "fd00::/8",
            "::/0",
            "2001:db8::1/128",
        ] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("192.168.1.1"), prefix("192.168.1.1/32"));
        assert_eq!(prefix("::1"), prefix("::1/128"));
    }

    #[test]
    fn what_is_no_prefix_says_why() {
        for text in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/x",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/999",
            "lan/8",
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Syntax), "{text}");
        }
        for text in ["fe80::50%lan0", "fe80::%lan0/64", "2001:db8::1%1"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Zone), "{text}");
        }
        assert_eq!("192.0.2.1%lan0".parse::<Prefix>(), Err(PrefixError::Syntax));
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length));
        assert_eq!("::/129".parse::<Prefix>(), Err(PrefixError::Length));
        assert_eq!(
            "10.1.2.3/8".parse::<Prefix>(),
            Err(PrefixError::HostBits(prefix("10.0.0.0/8")))
        );
        assert_eq!(
            "fd00::1/8".parse::<Prefix>(),
            Err(PrefixError::HostBits(prefix("fd00::/8")))
        );
    }

    #[test]
    fn a_mapped_prefix_has_one_form() {
        for (text, form) in [
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::fffe:0:0/96", "::fffe:0:0/96"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/95", "::/95"),
        ] {
            assert_eq!(prefix(text).unmapped().to_string(), form);
        }
        assert_eq!(prefix("::ffff:0:0/96"), Prefix::mapped());
    }

    #[test]
    fn a_prefix_contains_itself_and_what_is_longer_below_it() {
        for (one, other, contains) in [
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("::/0", "192.0.2.1", false),
            ("::/0", "2001:db8::/32", true),
        ] {
            assert_eq!(
                prefix(one).contains(&prefix(other)),
                contains,
                "{one} {other}"
            );
        }
        assert!(prefix("192.0.2.1").is_host() && !prefix("2001:db8::/127").is_host());
    }

    #[test]
    fn a_prefix_that_ends_at_a_label_is_one_zone() {
        assert_eq!(zones("0.0.0.0/0"), ["in-addr.arpa."]);
        assert_eq!(zones("10.0.0.0/8"), ["10.in-addr.arpa."]);
        assert_eq!(zones("192.168.0.0/16"), ["168.192.in-addr.arpa."]);
        assert_eq!(zones("192.168.7.0/24"), ["7.168.192.in-addr.arpa."]);
        assert_eq!(zones("192.168.7.9"), ["9.7.168.192.in-addr.arpa."]);
        assert_eq!(zones("::/0"), ["ip6.arpa."]);
        assert_eq!(zones("fd00::/8"), ["d.f.ip6.arpa."]);
        assert_eq!(zones("2001:db8::/32"), ["8.b.d.0.1.0.0.2.ip6.arpa."]);
        assert_eq!(
            zones("::1").first().map(String::len),
            Some(32 * 2 + "ip6.arpa.".len())
        );
    }

    #[test]
    fn any_other_is_one_zone_per_value_of_its_last_label() {
        let twenty = zones("10.1.0.0/20");
        assert_eq!(twenty.len(), 16);
        assert_eq!(
            (twenty[0].as_str(), twenty[15].as_str()),
            ("0.1.10.in-addr.arpa.", "15.1.10.in-addr.arpa.")
        );
        let shifted = zones("172.16.0.0/12");
        assert_eq!(
            (shifted.len(), shifted[15].as_str()),
            (16, "31.172.in-addr.arpa.")
        );
        let small = zones("192.0.2.64/26");
        assert_eq!(
            (small.len(), small[0].as_str()),
            (64, "64.2.0.192.in-addr.arpa.")
        );
        assert_eq!(small[63], "127.2.0.192.in-addr.arpa.");
        // Seven bits before the next label: the maximum.
        assert_eq!(zones("0.0.0.0/1").len(), 128);
        assert_eq!(
            zones("fe80::/10"),
            [
                "8.e.f.ip6.arpa.",
                "9.e.f.ip6.arpa.",
                "a.e.f.ip6.arpa.",
                "b.e.f.ip6.arpa."
            ]
        );
        assert_eq!(zones("fc00::/7"), ["c.f.ip6.arpa.", "d.f.ip6.arpa."]);
    }

    /// Every address of the prefix is below one of its zones, the neighbours of the prefix are below none.
    #[test]
    fn the_zones_hold_exactly_the_addresses_of_the_prefix() {
        for len in 0..=32u8 {
            let all = Prefix::masked("172.21.203.77".parse().expect("an address"), len);
            let zones = all.reverse_zones();
            let first = match all.address() {
                IpAddr::V4(address) => address.to_bits(),
                IpAddr::V6(_) => unreachable!("an IPv4 prefix"),
            };
            let last = first | u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
            let covered = |bits: u32| {
                let name = pointer_name(Ipv4Addr::from_bits(bits).into());
                zones.iter().filter(|zone| name.ends_with(zone)).count()
            };
            assert_eq!((covered(first), covered(last)), (1, 1), "/{len}");
            let outside = [first.checked_sub(1), last.checked_add(1)];
            for bits in outside.into_iter().flatten() {
                assert_eq!(covered(bits), 0, "/{len} {bits:x}");
            }
        }
    }
}
