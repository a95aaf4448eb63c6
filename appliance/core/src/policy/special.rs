//! Special-use names: answered here by default, because public DNS has no answer for them or should not be asked.
//!
//! RFC 6761 (`localhost`, `invalid`, `test`), RFC 6762 section 22.1 (`local`), RFC 7686 (`onion`), RFC 8375 (`home.arpa`),
//! RFC 9665 (`service.arpa`), RFC 9462 section 6.4 (`resolver.arpa`), RFC 9476 (`alt`), ICANN's SAC113 (`internal`), RFC
//! 6303 and RFC 7793 (reverse zones of private, loopback, link-local and documentation addresses), and the canary name by
//! which Firefox asks whether it may use DNS over HTTPS.
//!
//! `ipv4only.arpa` is not among them: [`super::dns64`] answers it where DNS64 is on, and elsewhere it is forwarded like any other
//! name, because the server behind may do DNS64 (RFC 8880 section 7.1).

use super::name::Labels;
use crate::dns::rtype;

/// TTL of answers for special-use names, in seconds (RFC 6303 section 3).
pub const TTL_SECS: u32 = 10_800;
/// RDATA of the SOA behind the MNAME, which is the zone itself: RNAME `nobody.invalid`, serial 1, refresh 3600, retry 1200,
/// expire 604800, minimum 10800 (RFC 6303 section 3).
pub const SOA_TAIL: &[u8] =
    b"\x06nobody\x07invalid\0\0\0\0\x01\0\0\x0e\x10\0\0\x04\xb0\0\x09\x3a\x80\0\0\x2a\x30";

/// A kind of special-use names. Each can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SpecialUse {
    /// `localhost` and below: the loopback addresses (RFC 6761 section 6.3).
    Localhost,
    /// `invalid`: NXDOMAIN (RFC 6761 section 6.4).
    Invalid,
    /// `test`: NXDOMAIN (RFC 6761 section 6.2).
    Test,
    /// `onion`: NXDOMAIN (RFC 7686 section 2).
    Onion,
    /// `local`: NXDOMAIN, as it belongs to multicast DNS (RFC 6762 section 22.1).
    Local,
    /// `home.arpa`: an empty zone (RFC 8375 section 4).
    HomeArpa,
    /// `service.arpa`: an empty zone (RFC 9665).
    ServiceArpa,
    /// `resolver.arpa`: NODATA, as we have no designated resolver (RFC 9462 section 6.4).
    ResolverArpa,
    /// Reverse zones of addresses with a local meaning: empty zones (RFC 6303, RFC 7793), with the PTR records of the two
    /// loopback addresses.
    PrivateReverse,
    /// `internal`: NXDOMAIN. Reserved for private use (ICANN's SAC113).
    Internal,
    /// `alt`: NXDOMAIN, as its names are resolved by means other than DNS (RFC 9476 section 2).
    Alt,
    /// `use-application-dns.net`: NXDOMAIN makes Firefox use the network's DNS. Off by default.
    FirefoxCanary,
}

impl SpecialUse {
    /// Every kind, in the order of the bits.
    pub const ALL: [Self; 12] = [
        Self::Localhost,
        Self::Invalid,
        Self::Test,
        Self::Onion,
        Self::Local,
        Self::HomeArpa,
        Self::ServiceArpa,
        Self::ResolverArpa,
        Self::PrivateReverse,
        Self::Internal,
        Self::Alt,
        Self::FirefoxCanary,
    ];

    /// True for names of private networks, to which local data may add names. The others are fixed by RFCs everywhere.
    #[must_use]
    pub const fn is_for_private_use(self) -> bool {
        match self {
            Self::Test | Self::Local | Self::HomeArpa | Self::PrivateReverse | Self::Internal => {
                true
            }
            Self::Localhost
            | Self::Invalid
            | Self::Onion
            | Self::ServiceArpa
            | Self::ResolverArpa
            | Self::Alt
            | Self::FirefoxCanary => false,
        }
    }

    /// Word for the kind in the config.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Localhost => "localhost",
            Self::Invalid => "invalid",
            Self::Test => "test",
            Self::Onion => "onion",
            Self::Local => "local",
            Self::HomeArpa => "home.arpa",
            Self::ServiceArpa => "service.arpa",
            Self::ResolverArpa => "resolver.arpa",
            Self::PrivateReverse => "private-reverse",
            Self::Internal => "internal",
            Self::Alt => "alt",
            Self::FirefoxCanary => "use-application-dns.net",
        }
    }
}

/// Set of kinds that are switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    bits: u16,
}

impl Kinds {
    /// No kind: special-use names are asked upstream.
    pub const NONE: Self = Self { bits: 0 };
    /// Every kind.
    pub const EVERY: Self = Self {
        bits: (1 << SpecialUse::ALL.len()) - 1,
    };
    /// Every kind but two: the canary, which is the operator's choice, and `test`, which laboratories serve from an
    /// upstream of their own.
    pub const DEFAULT: Self = Self {
        bits: ((1 << SpecialUse::FirefoxCanary as u8) - 1) & !(1 << SpecialUse::Test as u8),
    };

    /// The set with `kind`.
    #[must_use]
    pub const fn with(self, kind: SpecialUse) -> Self {
        Self {
            bits: self.bits | 1 << kind as u8,
        }
    }

    /// The set without `kind`.
    #[must_use]
    pub const fn without(self, kind: SpecialUse) -> Self {
        Self {
            bits: self.bits & !(1 << kind as u8),
        }
    }

    /// True if `kind` is switched on.
    #[must_use]
    pub const fn contains(self, kind: SpecialUse) -> bool {
        self.bits & 1 << kind as u8 != 0
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Answer for a special-use name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneAnswer {
    /// One record of the asked type, with this RDATA.
    Record(&'static [u8]),
    /// The zone's SOA record: MNAME is the zone's name, then [`SOA_TAIL`].
    Soa,
    /// The zone's NS record: the zone's own name.
    Ns,
    /// The name exists, the type does not. The SOA record goes into the authority section.
    Nodata,
    /// The name does not exist. The SOA record goes into the authority section.
    Nxdomain,
}

/// A special-use name and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Kind of the name.
    pub kind: SpecialUse,
    /// Number of labels of its zone: [`Labels::suffix`] of this is the owner of the SOA record.
    pub zone_depth: usize,
    /// Answer.
    pub answer: ZoneAnswer,
}

const LOOPBACK_4: &[u8] = &[127, 0, 0, 1];
const LOOPBACK_6: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const LOCALHOST: &[u8] = b"\x09localhost\0";
const IN_ADDR_ARPA: &[u8] = b"\x07in-addr\x04arpa\0";
const IP6_ARPA: &[u8] = b"\x03ip6\x04arpa\0";
const LOOPBACK_4_NAME: &[u8] = b"\x011\x010\x010\x03127\x07in-addr\x04arpa\0";
/// PTR owner of `::`; that of `::1` differs in the first nibble alone.
const UNSPECIFIED_6_NAME: &[u8] =
    b"\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\
      \x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x03ip6\x04arpa\0";
/// Unique local, link-local and documentation addresses (RFC 6303 sections 4.4 to 4.6).
const IP6_ZONES: [&[u8]; 6] = [
    b"\x01d\x01f\x03ip6\x04arpa\0",
    b"\x018\x01e\x01f\x03ip6\x04arpa\0",
    b"\x019\x01e\x01f\x03ip6\x04arpa\0",
    b"\x01a\x01e\x01f\x03ip6\x04arpa\0",
    b"\x01b\x01e\x01f\x03ip6\x04arpa\0",
    b"\x018\x01b\x01d\x010\x011\x010\x010\x012\x03ip6\x04arpa\0",
];

/// The special-use name that `name` is, or is below; `None` if it is an ordinary name or its kind is switched off.
#[must_use]
pub fn lookup(name: &Labels<'_>, qtype: u16, kinds: Kinds) -> Option<Special> {
    let (kind, zone_depth) = classify(name)?;
    if !kinds.contains(kind) {
        return None;
    }
    let answer = match kind {
        SpecialUse::Localhost => localhost(qtype),
        SpecialUse::Invalid
        | SpecialUse::Test
        | SpecialUse::Onion
        | SpecialUse::Local
        | SpecialUse::Internal
        | SpecialUse::Alt
        | SpecialUse::FirefoxCanary => ZoneAnswer::Nxdomain,
        SpecialUse::ResolverArpa => ZoneAnswer::Nodata,
        SpecialUse::HomeArpa | SpecialUse::ServiceArpa | SpecialUse::PrivateReverse => {
            empty_zone(name, qtype, zone_depth)?
        }
    };
    Some(Special {
        kind,
        zone_depth,
        answer,
    })
}

/// Depth of the private reverse zone of `name`; `None` if it is in none.
#[must_use]
pub fn private_reverse_zone(name: &Labels<'_>) -> Option<usize> {
    match classify(name) {
        Some((SpecialUse::PrivateReverse, depth)) => Some(depth),
        _ => None,
    }
}

fn classify(name: &Labels<'_>) -> Option<(SpecialUse, usize)> {
    match name.suffix(1) {
        LOCALHOST => Some((SpecialUse::Localhost, 1)),
        b"\x07invalid\0" => Some((SpecialUse::Invalid, 1)),
        b"\x04test\0" => Some((SpecialUse::Test, 1)),
        b"\x05onion\0" => Some((SpecialUse::Onion, 1)),
        b"\x05local\0" => Some((SpecialUse::Local, 1)),
        b"\x08internal\0" => Some((SpecialUse::Internal, 1)),
        b"\x03alt\0" => Some((SpecialUse::Alt, 1)),
        b"\x04arpa\0" => classify_arpa(name),
        b"\x03net\0" => (name.suffix(2) == b"\x13use-application-dns\x03net\0")
            .then_some((SpecialUse::FirefoxCanary, 2)),
        _ => None,
    }
}

fn classify_arpa(name: &Labels<'_>) -> Option<(SpecialUse, usize)> {
    match name.suffix(2) {
        b"\x04home\x04arpa\0" => Some((SpecialUse::HomeArpa, 2)),
        b"\x07service\x04arpa\0" => Some((SpecialUse::ServiceArpa, 2)),
        b"\x08resolver\x04arpa\0" => Some((SpecialUse::ResolverArpa, 2)),
        IN_ADDR_ARPA => Some((SpecialUse::PrivateReverse, private_in_addr(name)?)),
        IP6_ARPA => Some((SpecialUse::PrivateReverse, private_ip6(name)?)),
        _ => None,
    }
}

/// Depth of the private zone below `in-addr.arpa` that contains `name` (RFC 6303 sections 4.1 and 4.2, RFC 7793).
fn private_in_addr(name: &Labels<'_>) -> Option<usize> {
    let octets = [3, 4, 5, 6].map(|depth| octet(name.label(depth)));
    match octets {
        [Some(0 | 10 | 127), ..] => Some(3),
        [Some(172), Some(16..=31), ..]
        | [Some(192), Some(168), ..]
        | [Some(169), Some(254), ..]
        | [Some(100), Some(64..=127), ..] => Some(4),
        [Some(192), Some(0), Some(2), _]
        | [Some(198), Some(51), Some(100), _]
        | [Some(203), Some(0), Some(113), _] => Some(5),
        [Some(255), Some(255), Some(255), Some(255)] => Some(6),
        _ => None,
    }
}

/// Depth of the private zone below `ip6.arpa` that contains `name` (RFC 6303 sections 4.3 to 4.6).
fn private_ip6(name: &Labels<'_>) -> Option<usize> {
    const FULL_DEPTH: usize = 34;
    let full = name.suffix(FULL_DEPTH);
    if full == UNSPECIFIED_6_NAME || is_loopback_6(full) {
        return Some(FULL_DEPTH);
    }
    let mut depths = [4, 5, 10].into_iter();
    depths.find(|&depth| IP6_ZONES.contains(&name.suffix(depth)))
}

fn is_loopback_6(name: &[u8]) -> bool {
    name.strip_prefix(b"\x011")
        .is_some_and(|rest| rest == &UNSPECIFIED_6_NAME[2..])
}

/// Number of a label such as `\x03127`. Other spellings of a number are no names of addresses.
fn octet(label: &[u8]) -> Option<u8> {
    let (_, digits) = label.split_first()?;
    if digits.is_empty() || digits.len() > 3 || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    digits.iter().try_fold(0u8, |value, digit| {
        let digit = digit.is_ascii_digit().then_some(digit.wrapping_sub(b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

const fn localhost(qtype: u16) -> ZoneAnswer {
    match qtype {
        rtype::A => ZoneAnswer::Record(LOOPBACK_4),
        rtype::AAAA => ZoneAnswer::Record(LOOPBACK_6),
        _ => ZoneAnswer::Nodata,
    }
}

/// Answer of a zone with nothing but its apex (RFC 6303 section 3); `None` if the question belongs to the parent zone.
fn empty_zone(name: &Labels<'_>, qtype: u16, zone_depth: usize) -> Option<ZoneAnswer> {
    let owner = name.name();
    if owner == LOOPBACK_4_NAME || is_loopback_6(owner) {
        return Some(if qtype == rtype::PTR {
            ZoneAnswer::Record(LOCALHOST)
        } else {
            ZoneAnswer::Nodata
        });
    }
    // Empty non-terminals between the zone 127.in-addr.arpa and the name of 127.0.0.1 (RFC 8020).
    if matches!(
        owner,
        b"\x010\x03127\x07in-addr\x04arpa\0" | b"\x010\x010\x03127\x07in-addr\x04arpa\0"
    ) {
        return Some(ZoneAnswer::Nodata);
    }
    if name.count() > zone_depth {
        return Some(ZoneAnswer::Nxdomain);
    }
    match qtype {
        // The parent has the proof that the delegation is insecure (RFC 8375 section 4).
        rtype::DS => None,
        rtype::SOA => Some(ZoneAnswer::Soa),
        rtype::NS => Some(ZoneAnswer::Ns),
        _ => Some(ZoneAnswer::Nodata),
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::tests::wire;
    use super::*;

    /// With `test`, which is off by default.
    const ALL: Kinds = Kinds::DEFAULT.with(SpecialUse::Test);

    fn answer(name: &str, qtype: u16) -> Option<ZoneAnswer> {
        let name = wire(name);
        lookup(&Labels::new(&name).expect("well-formed"), qtype, ALL).map(|special| special.answer)
    }

    fn zone(name: &str) -> Option<std::vec::Vec<u8>> {
        let name = wire(name);
        let labels = Labels::new(&name).expect("well-formed");
        lookup(&labels, rtype::A, ALL).map(|special| labels.suffix(special.zone_depth).into())
    }

    #[test]
    fn localhost_and_what_is_below_is_the_loopback() {
        for name in ["localhost", "www.localhost", "a.b.localhost"] {
            assert_eq!(
                answer(name, rtype::A),
                Some(ZoneAnswer::Record(&[127, 0, 0, 1])),
                "{name}"
            );
            assert_eq!(
                answer(name, rtype::AAAA),
                Some(ZoneAnswer::Record(LOOPBACK_6)),
                "{name}"
            );
            assert_eq!(
                answer(name, rtype::HTTPS),
                Some(ZoneAnswer::Nodata),
                "{name}"
            );
        }
        assert_eq!(answer("localhost.example", rtype::A), None);
        assert_eq!(answer("notlocalhost", rtype::A), None);
    }

    #[test]
    fn names_that_do_not_exist() {
        for name in [
            "invalid",
            "a.invalid",
            "x.test",
            "abc.onion",
            "printer.local",
            "local",
            "internal",
            "nas.internal",
            "a.b.internal",
            "alt",
            "name.gns.alt",
        ] {
            assert_eq!(answer(name, rtype::A), Some(ZoneAnswer::Nxdomain), "{name}");
        }
        for name in [
            "example",
            "example.com",
            "internal.example",
            "xinternal",
            "salt",
            "alt.example",
            "onion.example",
            "arpa",
            "ipv4only.arpa",
            "170.0.0.192.in-addr.arpa",
            "use-application-dns.net",
        ] {
            assert_eq!(answer(name, rtype::A), None, "{name}");
        }
        let canary = wire("use-application-dns.net");
        let kinds = Kinds::NONE.with(SpecialUse::FirefoxCanary);
        let special = lookup(&Labels::new(&canary).expect("well-formed"), rtype::A, kinds)
            .expect("switched on");
        assert_eq!(
            (special.answer, special.zone_depth),
            (ZoneAnswer::Nxdomain, 2)
        );
    }

    #[test]
    fn home_arpa_is_an_empty_zone_but_for_the_parents_ds() {
        assert_eq!(answer("home.arpa", rtype::A), Some(ZoneAnswer::Nodata));
        assert_eq!(answer("home.arpa", rtype::SOA), Some(ZoneAnswer::Soa));
        assert_eq!(answer("home.arpa", rtype::NS), Some(ZoneAnswer::Ns));
        assert_eq!(answer("home.arpa", rtype::DS), None);
        assert_eq!(
            answer("nas.home.arpa", rtype::A),
            Some(ZoneAnswer::Nxdomain)
        );
        assert_eq!(
            answer("nas.home.arpa", rtype::DS),
            Some(ZoneAnswer::Nxdomain)
        );
        assert_eq!(
            answer("_dns.resolver.arpa", rtype::SVCB),
            Some(ZoneAnswer::Nodata)
        );
        assert_eq!(
            answer("x.service.arpa", rtype::A),
            Some(ZoneAnswer::Nxdomain)
        );
    }

    /// Every zone that RFC 6303 section 4 and RFC 7793 section 2.2 list.
    #[test]
    fn every_private_reverse_zone() {
        let zones = [
            "0",
            "10",
            "127",
            "254.169",
            "2.0.192",
            "100.51.198",
            "113.0.203",
            "255.255.255.255",
            "168.192",
        ];
        let counted = (16..=31)
            .map(|n| std::format!("{n}.172"))
            .chain((64..=127).map(|n| std::format!("{n}.100")));
        for below in zones
            .map(std::string::String::from)
            .into_iter()
            .chain(counted)
        {
            let apex = std::format!("{below}.in-addr.arpa");
            assert_eq!(zone(&apex), Some(wire(&apex)), "{apex}");
            assert_eq!(answer(&apex, rtype::A), Some(ZoneAnswer::Nodata), "{apex}");
            assert_eq!(
                answer(&std::format!("x.{apex}"), rtype::PTR),
                Some(ZoneAnswer::Nxdomain),
                "{apex}"
            );
        }
        for nibbles in ["d.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f", "8.b.d.0.1.0.0.2"] {
            let apex = std::format!("{nibbles}.ip6.arpa");
            assert_eq!(zone(&std::format!("1.{apex}")), Some(wire(&apex)), "{apex}");
        }
        for outside in [
            "1", "11", "15.172", "32.172", "63.100", "128.100", "169", "192", "0.192", "167.192",
            "255",
        ] {
            assert_eq!(
                zone(&std::format!("{outside}.in-addr.arpa")),
                None,
                "{outside}"
            );
        }
        for outside in [
            "c.f", "7.e.f", "c.e.f", "d", "f", "8.b.d", "1.0.0.2", "010.f",
        ] {
            assert_eq!(zone(&std::format!("{outside}.ip6.arpa")), None, "{outside}");
        }
        assert_eq!(zone("010.in-addr.arpa"), None, "not the way to write 10");
        assert_eq!(zone("266.in-addr.arpa"), None, "not 10 modulo 256");
    }

    #[test]
    fn the_loopback_addresses_have_names() {
        let ones = std::format!("1.{}ip6.arpa", "0.".repeat(31));
        for name in ["1.0.0.127.in-addr.arpa", ones.as_str()] {
            assert_eq!(
                answer(name, rtype::PTR),
                Some(ZoneAnswer::Record(LOCALHOST)),
                "{name}"
            );
            assert_eq!(answer(name, rtype::A), Some(ZoneAnswer::Nodata), "{name}");
        }
        for between in ["0.127.in-addr.arpa", "0.0.127.in-addr.arpa"] {
            assert_eq!(
                answer(between, rtype::PTR),
                Some(ZoneAnswer::Nodata),
                "{between}"
            );
        }
        assert_eq!(
            answer("2.0.0.127.in-addr.arpa", rtype::PTR),
            Some(ZoneAnswer::Nxdomain)
        );
        assert_eq!(
            answer(&std::format!("{}ip6.arpa", "0.".repeat(32)), rtype::PTR),
            Some(ZoneAnswer::Nodata)
        );
        assert_eq!(
            answer(&std::format!("{}ip6.arpa", "0.".repeat(31)), rtype::PTR),
            None,
            "not a locally served zone"
        );
    }

    #[test]
    fn each_kind_can_be_switched_off() {
        let names = [
            ("localhost", SpecialUse::Localhost),
            ("invalid", SpecialUse::Invalid),
            ("test", SpecialUse::Test),
            ("onion", SpecialUse::Onion),
            ("local", SpecialUse::Local),
            ("home.arpa", SpecialUse::HomeArpa),
            ("service.arpa", SpecialUse::ServiceArpa),
            ("resolver.arpa", SpecialUse::ResolverArpa),
            ("10.in-addr.arpa", SpecialUse::PrivateReverse),
            ("x.internal", SpecialUse::Internal),
            ("x.alt", SpecialUse::Alt),
        ];
        for (name, kind) in names {
            let wire = wire(name);
            let labels = Labels::new(&wire).expect("well-formed");
            let found = lookup(&labels, rtype::A, ALL).map(|special| special.kind);
            assert_eq!(found, Some(kind), "{name}");
            let by_default = Kinds::DEFAULT.contains(kind);
            assert_eq!(by_default, kind != SpecialUse::Test, "{name}");
            assert_eq!(lookup(&labels, rtype::A, ALL.without(kind)), None, "{name}");
        }
    }

    #[test]
    fn the_soa_tail_is_a_name_and_five_numbers() {
        let (name, numbers) = SOA_TAIL.split_at(SOA_TAIL.len() - 20);
        assert!(Labels::new(name).is_some());
        let number = |i: usize| {
            numbers[4 * i..]
                .first_chunk()
                .map(|bytes| u32::from_be_bytes(*bytes))
        };
        assert_eq!(
            [0, 1, 2, 3, 4].map(number),
            [1, 3600, 1200, 604_800, TTL_SECS].map(Some)
        );
    }
}
