//! Tests of decisions.

use super::*;
use name::tests::wire;

fn decide(policy: &Policy<'_>, name: &str, qtype: u16) -> std::string::String {
    let name = wire(name);
    std::format!(
        "{:?}",
        policy.decide(&Labels::new(&name).expect("well-formed"), qtype)
    )
}

#[test]
fn the_open_policy_asks_upstream_for_everything() {
    for name in ["www.example.org", "localhost", "nas", "."] {
        assert_eq!(
            decide(&Policy::OPEN, name, rtype::A),
            "Forward { group: 0 }",
            "{name}"
        );
    }
}

#[test]
fn port_0_is_silent_and_so_are_those_of_the_config() {
    let policy = Policy {
        reflector_ports: &[7, 19],
        ..Policy::OPEN
    };
    for (port, open, closed) in [(0, true, true), (7, false, true), (19, false, true)] {
        assert_eq!(Policy::OPEN.is_silent_port(port), open);
        assert_eq!(policy.is_silent_port(port), closed);
    }
    for port in [1, 8, 53, 1024, u16::MAX] {
        assert!(!policy.is_silent_port(port));
    }
}

/// The list is sorted as addresses, and searched by their numbers.
#[test]
fn every_martian_of_either_family_is_found_and_no_other_address() {
    let martians = [
        "0.0.0.9",
        "10.0.0.255",
        "192.0.2.1",
        "255.255.255.255",
        "::",
        "::9",
        "::ffff:0:1",
        "2001:db8::1",
        "fe80::1",
        "ffff::",
    ]
    .map(|text| text.parse::<IpAddr>().expect("an address"));
    assert!(martians.is_sorted());
    for used in 0..=martians.len() {
        let policy = Policy {
            martian_sources: &martians[..used],
            ..Policy::OPEN
        };
        for (index, martian) in martians.iter().enumerate() {
            assert_eq!(policy.is_martian(*martian), index < used, "{martian}");
        }
    }
    let policy = Policy {
        martian_sources: &martians,
        ..Policy::OPEN
    };
    // As numbers these equal martians of the other family.
    for other in ["::c000:201", "0.0.0.0", "::a00:ff", "192.0.2.2"] {
        assert!(!policy.is_martian(other.parse().expect("an address")));
    }
}

#[test]
fn plain_names_are_kept_at_home_but_for_what_top_level_domains_are_made_of() {
    let policy = Policy {
        forward_plain_names: false,
        ..Policy::OPEN
    };
    for qtype in [rtype::A, rtype::AAAA, rtype::HTTPS, rtype::TXT, rtype::ANY] {
        assert_eq!(decide(&policy, "nas", qtype), "PlainName", "{qtype}");
    }
    for qtype in [rtype::DS, rtype::DNSKEY, rtype::NS, rtype::SOA] {
        assert_eq!(decide(&policy, "org", qtype), "Forward { group: 0 }");
    }
    assert_eq!(decide(&policy, ".", rtype::NS), "Forward { group: 0 }");
    assert_eq!(decide(&policy, ".", rtype::DS), "Forward { group: 0 }");
    assert_eq!(
        decide(&policy, "example.org", rtype::A),
        "Forward { group: 0 }"
    );
}

#[test]
fn a_blocked_name_is_answered_by_type() {
    let custom = BlockAnswer::Address {
        v4: Some([192, 0, 2, 1]),
        v6: None,
    };
    let cases = [
        (BlockAnswer::Nxdomain, rtype::A, BlockRecord::Nxdomain),
        (BlockAnswer::Nodata, rtype::A, BlockRecord::Nodata),
        (BlockAnswer::ZeroAddress, rtype::A, BlockRecord::A([0; 4])),
        (
            BlockAnswer::ZeroAddress,
            rtype::AAAA,
            BlockRecord::Aaaa([0; 16]),
        ),
        (BlockAnswer::ZeroAddress, rtype::HTTPS, BlockRecord::Nodata),
        (custom, rtype::A, BlockRecord::A([192, 0, 2, 1])),
        (custom, rtype::AAAA, BlockRecord::Nodata),
    ];
    for (answer, qtype, record) in cases {
        assert_eq!(answer.record(qtype), record, "{answer:?} {qtype}");
    }
}

#[test]
fn more_lists_than_fit_are_refused() {
    let mut lists = Lists::EMPTY;
    for _ in 0..LISTS_MAX {
        assert!(lists.push(List::EMPTY));
    }
    assert!(!lists.push(List::EMPTY));
    assert_eq!(lists.as_slice().len(), LISTS_MAX);
}
