//! Identity of a DHCP client, from its line in a lease file.
//!
//! DHCPv4 identifies a client by its MAC address, DHCPv6 by its DUID. Two such leases are known to be of one machine if the DHCPv4
//! client ID contains the DUID (RFC 4361), or the DUID contains the MAC address (RFC 8415 sections 11.2 and 11.4).

use std::net::IpAddr;

/// Hexadecimal digits before the DUID in a client ID of RFC 4361: the type and an IAID.
const BEFORE_DUID: usize = 10;
/// Type of such a client ID.
const OF_RFC_4361: &str = "ff";
/// First digits of a DUID with an Ethernet address, and the number of digits of time before the address.
const DUIDS_WITH_MAC: [(&str, usize); 2] = [("00010001", 8), ("00030001", 0)];
/// Hexadecimal digits of an Ethernet address.
const MAC_DIGITS: usize = 12;

/// A client of a DHCP server. IDs are in lower-case hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Equal for the leases of one client over one protocol.
    id: String,
    duid: Option<String>,
    mac: Option<String>,
}

impl Client {
    /// Of a lease over DHCPv4: its MAC address, and the client ID where there is one.
    #[must_use]
    pub fn over_ipv4(mac: &str, id: Option<&str>) -> Self {
        let id = id.and_then(digits);
        let duid = id.filter(|id| id.starts_with(OF_RFC_4361) && id.len() > BEFORE_DUID);
        Self {
            id: written_alike(mac),
            duid: duid.map(|id| id[BEFORE_DUID..].to_owned()),
            mac: digits(mac).filter(|mac| mac.len() == MAC_DIGITS),
        }
    }

    /// Of a lease over DHCPv6.
    #[must_use]
    pub fn over_ipv6(duid: &str) -> Self {
        Self {
            id: written_alike(duid),
            duid: digits(duid),
            mac: None,
        }
    }

    /// Of a line without an identity. A server gives a client the same interface identifier in all prefixes.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        let id = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("{:016x}", v6.to_bits() as u64),
        };
        Self {
            id,
            ..Self::default()
        }
    }

    /// True if two leases over one protocol are of the same client.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// True if a lease over the other protocol is known to be of the same machine. If both have a DUID, that decides.
    #[must_use]
    pub fn is_same_machine(&self, other: &Self) -> bool {
        match (&self.duid, &other.duid) {
            (Some(own), Some(of_other)) => own == of_other,
            _ => self.has_mac_of(other) || other.has_mac_of(self),
        }
    }

    /// True if the DUID contains the MAC address of `other`.
    fn has_mac_of(&self, other: &Self) -> bool {
        let within = self.duid.as_deref().and_then(mac_of_duid);
        within.is_some() && within == other.mac.as_deref()
    }
}

/// Ethernet address in a DUID.
fn mac_of_duid(duid: &str) -> Option<&str> {
    let found = DUIDS_WITH_MAC
        .iter()
        .find_map(|(begin, time)| duid.strip_prefix(begin)?.get(*time..));
    found.filter(|mac| mac.len() == MAC_DIGITS)
}

/// An identity as every DHCP server's file has it: its digits, or else the word.
fn written_alike(word: &str) -> String {
    digits(word).unwrap_or_else(|| word.to_ascii_lowercase())
}

/// Digits of bytes in hexadecimal, with or without `:` or `-` between them. odhcpd omits leading zeros in a MAC address.
fn digits(word: &str) -> Option<String> {
    let mut digits = String::new();
    for part in word.split([':', '-']) {
        if part.is_empty() || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        if part.len() % 2 == 1 {
            digits.push('0');
        }
        digits.push_str(&part.to_ascii_lowercase());
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str = "02:00:00:00:0a:50";
    const LLT: &str = "00:01:00:01:2c:aa:bb:cd:02:00:00:00:0a:50";

    #[test]
    fn a_machine_is_known_over_both_protocols_by_its_duid_or_by_the_mac_address_in_it() {
        let same = |mac: &str, id: Option<&str>, duid: &str| {
            let (v4, v6) = (Client::over_ipv4(mac, id), Client::over_ipv6(duid));
            assert_eq!(v4.is_same_machine(&v6), v6.is_same_machine(&v4));
            v4.is_same_machine(&v6)
        };
        let own_id = format!("01:{MAC}");
        for id in [None, Some("*"), Some(own_id.as_str())] {
            assert!(same(MAC, id, LLT), "{id:?}");
            assert!(same(MAC, id, "00030001020000000A50"), "{id:?}");
            assert!(same("2:0:0:0:a:50", id, LLT), "as odhcpd writes it");
            for other in [
                "00:01:00:01:2c:aa:bb:cd:02:00:00:00:0a:51",
                // Another kind of address, a longer one, and DUIDs that have none.
                "00:01:00:06:2c:aa:bb:cd:02:00:00:00:0a:50",
                "00:03:00:01:02:00:00:00:0a:50:00",
                "00:02:00:00:ab:11:02:00:00:00:0a:50",
                "00:04:02:00:00:00:0a:50",
                "00:01:00:01",
                "02:00:00:00:0a:50",
                "*",
                "",
            ] {
                assert!(!same(MAC, id, other), "{id:?} {other}");
            }
        }
        let id = |duid: &str| format!("ff:12:34:56:78:{duid}");
        let by_number = "00:02:00:00:ab:11:aa:bb";
        assert!(same(MAC, Some(&id(by_number)), by_number));
        assert!(same("06-02:00", Some(&id(by_number)), by_number));
        assert!(
            !same(MAC, Some(&id(by_number)), LLT),
            "both say a DUID, and that decides"
        );
        assert!(!same(MAC, Some("ff:12:34:56:78"), "00:02"), "it has none");
        assert!(!same(
            MAC,
            Some(&by_number.replace("00:02", "fe:02")),
            by_number
        ));
    }

    #[test]
    fn an_address_alone_is_a_client_at_each_prefix_and_of_no_other_protocol() {
        let at = |text: &str| Client::at(text.parse().expect("an address"));
        assert!(at("fd00::a3").is(&at("2001:db8::a3")));
        assert!(!at("fd00::a3").is(&at("fd00::a4")));
        assert!(!at("192.168.1.3").is(&at("192.168.1.4")));
        assert!(!at("192.168.1.3").is_same_machine(&at("fd00::a3")));
        assert!(!at("fd00::a3").is(&Client::over_ipv6("a3")));
        assert!(Client::over_ipv4("02:AA", None).is(&Client::over_ipv4("02:aa", None)));
        assert!(Client::over_ipv4("2:AA", None).is(&Client::over_ipv4("02aa", None)));
        assert!(Client::over_ipv6(LLT).is(&Client::over_ipv6(&LLT.replace(':', ""))));
        assert!(!Client::over_ipv6("*").is(&Client::over_ipv6("")));
    }
}
