//! The bytes are those that `nft` 1.0.6 sends, without the number that it gives a set for itself; the kernel's own answers are
//! asked for in a namespace.

use super::message::add;
use super::*;
use crate::os::capabilities;
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::privilege::{root_or_skip, skip};
use xdnsd_lab::programs::find_program;

fn set(text: &str) -> SetName {
    text.parse().expect(text)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

const PLAIN: SetInfo = SetInfo {
    is_v6: false,
    is_interval: false,
    has_timeout: false,
};

/// Header and struct nfgenmsg of a message, on a little-endian machine.
fn head(len: u8, kind: [u8; 2], flags: [u8; 2], sequence: u8, general: [u8; 4]) -> Vec<u8> {
    let mut octets = vec![len, 0, 0, 0];
    octets.extend(kind);
    octets.extend(flags);
    octets.extend([sequence, 0, 0, 0, 0, 0, 0, 0]);
    octets.extend(general);
    octets
}

/// A batch with one message, as `nft` makes it.
fn batch(len: u8, attributes: &[&[u8]]) -> Vec<u8> {
    [
        head(20, [16, 0], [1, 0], 0, [0, 0, 0, 10]),
        head(len, [12, 10], [1, 4], 1, [1, 0, 0, 0]),
        attributes.concat(),
        head(20, [17, 0], [1, 0], 2, [0, 0, 0, 10]),
    ]
    .concat()
}

#[test]
#[cfg(target_endian = "little")]
fn batches_are_those_of_nft() {
    let table = b"\x08\x00\x01\x00fw4\x00";
    assert_eq!(
        add(&set("inet#fw4#v4"), PLAIN, &[address("192.0.2.9")]),
        batch(
            56,
            &[
                table,
                b"\x07\x00\x02\x00v4\x00\x00",
                b"\x14\x00\x03\x80\x10\x00\x01\x80\x0c\x00\x01\x80\x08\x00\x01\x00\xc0\x00\x02\x09",
            ]
        )
    );
    let v6 = SetInfo {
        is_v6: true,
        ..PLAIN
    };
    assert_eq!(
        add(&set("inet#fw4#v6"), v6, &[address("2001:db8::1")]),
        batch(
            68,
            &[
                table,
                b"\x07\x00\x02\x00v6\x00\x00",
                b"\x20\x00\x03\x80\x1c\x00\x01\x80\x18\x00\x01\x80\x14\x00\x01\x00\x20\x01\x0d\xb8",
                &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            ]
        )
    );
    let interval = SetInfo {
        is_interval: true,
        ..PLAIN
    };
    assert_eq!(
        add(&set("inet#fw4#i4"), interval, &[address("192.0.2.9")]),
        batch(
            80,
            &[
                table,
                b"\x07\x00\x02\x00i4\x00\x00",
                b"\x2c\x00\x03\x80\x10\x00\x01\x80\x0c\x00\x01\x80\x08\x00\x01\x00\xc0\x00\x02\x09",
                b"\x18\x00\x02\x80\x08\x00\x03\x00\x00\x00\x00\x01",
                b"\x0c\x00\x01\x80\x08\x00\x01\x00\xc0\x00\x02\x0a",
            ]
        )
    );
}

/// Tables that `nft` makes in a namespace of its own.
struct Tables {
    namespace: Namespace,
}

impl Tables {
    fn new(test: &str) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        if find_program("nft").is_none() {
            skip(test, "nft is missing");
            return None;
        }
        let namespace = Namespace::unnamed().expect("a namespace");
        let tables = Self { namespace };
        tables.nft("add table inet fw4");
        for definition in [
            "v4 { type ipv4_addr; }",
            "v6 { type ipv6_addr; }",
            "i4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }",
            "t4 { type ipv4_addr; timeout 1h; }",
            "it4 { type ipv4_addr; flags interval,timeout; timeout 1h; elements = { 10.0.0.0/8 timeout 2h }; }",
            "p { type inet_service; }",
            "c4 { type ipv4_addr; flags constant; elements = { 192.0.2.1 }; }",
            "s4 { type ipv4_addr; size 1; flags dynamic; }",
        ] {
            tables.nft(&format!("add set inet fw4 {definition}"));
        }
        tables.nft("add map inet fw4 m4 { type ipv4_addr : verdict; }");
        Some(tables)
    }

    fn nft(&self, command: &str) -> String {
        let output = self.namespace.output(&["nft", command]);
        output.unwrap_or_else(|error| panic!("nft {command}: {error:#}"))
    }

    /// Adds addresses as the daemon does.
    fn add(&self, name: &str, addresses: &[&str]) -> Result<(), SetFault> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| address(text)).collect();
        self.namespace.run(|| {
            let mut filter = Filter::open()?;
            let name = set(&format!("inet#fw4#{name}"));
            let info = filter.set(&name)?;
            filter.add(&name, info, &addresses)
        })
    }

    /// The elements of a set as `nft` shows them.
    fn elements(&self, name: &str) -> String {
        let shown = self.nft(&format!("list set inet fw4 {name}"));
        let begin = shown.find("elements = {").unwrap_or(shown.len());
        let words = shown[begin..].split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn addresses_of_both_families_are_in_their_sets_once() {
    let Some(tables) = Tables::new("addresses_of_both_families_are_in_their_sets_once") else {
        return;
    };
    for _ in 0..2 {
        assert_eq!(tables.add("v4", &["192.0.2.9", "192.0.2.10"]), Ok(()));
        assert_eq!(tables.add("v6", &["2001:db8::1"]), Ok(()));
    }
    let v4 = tables.elements("v4");
    assert_eq!(v4, "elements = { 192.0.2.9, 192.0.2.10 } } }");
    assert_eq!(tables.elements("v6"), "elements = { 2001:db8::1 } } }");
}

#[test]
fn in_a_set_of_ranges_an_address_is_one_of_its_own_unless_a_range_has_it() {
    let Some(tables) =
        Tables::new("in_a_set_of_ranges_an_address_is_one_of_its_own_unless_a_range_has_it")
    else {
        return;
    };
    for name in ["i4", "it4"] {
        for address in ["192.0.2.9", "192.0.2.10", "10.1.2.3", "192.0.2.9"] {
            assert_eq!(tables.add(name, &[address]), Ok(()), "{name} {address}");
        }
    }
    let elements = tables.elements("i4");
    assert_eq!(
        elements,
        "elements = { 10.0.0.0/8, 192.0.2.9, 192.0.2.10 } } }"
    );
    let elements = tables.elements("it4");
    assert_eq!(elements.matches("192.0.2.").count(), 2, "{elements}");
    assert!(elements.contains("10.0.0.0/8 timeout 2h"), "{elements}");
}

#[test]
fn in_a_set_with_a_timeout_an_address_begins_anew() {
    let Some(tables) = Tables::new("in_a_set_with_a_timeout_an_address_begins_anew") else {
        return;
    };
    tables.nft("add element inet fw4 t4 { 192.0.2.9 timeout 1h expires 10s }");
    assert!(tables.elements("t4").contains("expires"));
    assert!(!tables.elements("t4").contains("expires 59m"));
    assert_eq!(tables.add("t4", &["192.0.2.9", "192.0.2.10"]), Ok(()));
    let elements = tables.elements("t4");
    assert_eq!(elements.matches("expires 59m").count(), 2, "{elements}");
}

#[test]
fn each_fault_of_a_set_is_told() {
    let Some(tables) = Tables::new("each_fault_of_a_set_is_told") else {
        return;
    };
    for (name, fault) in [
        ("none", SetFault::Missing),
        ("p", SetFault::OtherKeys),
        ("c4", SetFault::Constant),
        ("m4", SetFault::Map),
    ] {
        assert_eq!(tables.add(name, &["192.0.2.9"]), Err(fault), "{name}");
    }
    assert_eq!(tables.add("s4", &["192.0.2.9"]), Ok(()));
    assert_eq!(tables.add("s4", &["192.0.2.10"]), Err(SetFault::Full));
    let forbidden = tables.namespace.run(|| {
        // Capabilities are per thread, and this one ends.
        capabilities::set(capabilities::NONE).expect("anybody may");
        Filter::open()?.set(&set("inet#fw4#v4"))
    });
    assert_eq!(forbidden, Err(SetFault::Forbidden));
}
