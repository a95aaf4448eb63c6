//! Tests of protected hosts.

use super::*;

/// First line of an added section, after [`SMALLEST`].
const LINE: usize = 5;

/// The smallest file with one such section: its addresses, its ports, and other keys.
fn with(addresses: &str, ports: &str, rest: &str) -> String {
    let head = "[[protect]]\ninterface = \"wan0\"\n";
    format!("{SMALLEST}{head}addresses = [{addresses}]\nports = [{ports}]\n{rest}")
}

/// A list of `count` items.
fn list<T: std::fmt::Display>(count: usize, each: impl Fn(usize) -> T) -> String {
    let all: Vec<_> = (0..count).map(|index| each(index).to_string()).collect();
    all.join(", ")
}

fn hosts(count: usize) -> String {
    list(count, |last| format!("\"192.0.2.{last}\""))
}

#[test]
fn hosts_are_protected_where_the_config_says_so_and_nowhere_else() {
    let config = Config::parse("f", SMALLEST).expect("valid");
    assert!(config.protects.is_empty() && !config.protects_on("lan0"));
    let text = with("\"192.0.2.80\", \"2001:db8::/64\"", "80, 443", "");
    let config = Config::parse("f", &text).expect("valid");
    // An interface that is not served may have protected hosts.
    assert!(config.protects_on("wan0") && !config.protects_on("lan0"));
    let [section] = &config.protects[..] else {
        panic!("one section: {:?}", config.protects)
    };
    assert_eq!(section.ports, [80, 443]);
    assert_eq!(section.addresses.len(), 2);
    assert_eq!(section.verified_secs, 600);
    for (addresses, ports) in [(64, 1), (1, 64), (8, 8)] {
        let text = with(&hosts(addresses), &list(ports, |port| port + 1), "");
        assert!(Config::parse("f", &text).is_ok(), "{text}");
    }
}

/// Expects this fault first, on this line.
fn expect_fault(text: &str, line: usize, fault: &str) {
    let errors = errors_of(text);
    let (at, said) = errors[0].split_once(": ").expect("a position");
    assert!(at.starts_with(&format!("f:{line}:")), "{errors:?}");
    assert!(said.starts_with(fault), "{errors:?}");
}

#[test]
fn addresses_that_no_host_has_are_refused_with_line_key_and_what_may_stand() {
    let addresses = LINE + 2;
    for (text, line, fault) in [
        (
            with("\"192.0.2.0/24\", \"::ffff:192.0.2.0/120\"", "80", ""),
            addresses,
            "protect.addresses: 192.0.2.0/24 stands twice; allowed: each once",
        ),
        (
            with("\"224.0.0.0/4\"", "80", ""),
            addresses,
            "protect.addresses: 224.0.0.0/4 is multicast: nobody opens a TCP connection to it; allowed: addresses of hosts",
        ),
        (
            with("\"ff02::1\"", "80", ""),
            addresses,
            "protect.addresses: ff02::1/128 is multicast",
        ),
        (
            with("\"255.255.255.255\"", "80", ""),
            addresses,
            "protect.addresses: 255.255.255.255/32 is the broadcast address",
        ),
        (
            with("\"::1\"", "80", ""),
            addresses,
            "protect.addresses: ::1/128 is the loopback address",
        ),
        (
            with("\"127.0.0.0/8\"", "80", ""),
            addresses,
            "protect.addresses: 127.0.0.0/8 is the loopback network",
        ),
        (
            with("\"0.0.0.0\"", "80", ""),
            addresses,
            "protect.addresses: 0.0.0.0/32 is no address",
        ),
    ] {
        expect_fault(&text, line, fault);
    }
}

#[test]
fn hosts_that_cannot_be_protected_are_refused_with_line_key_and_what_may_stand() {
    let host = "\"192.0.2.80\"";
    let (addresses, ports) = (LINE + 2, LINE + 3);
    for (text, line, fault) in [
        (
            with(host, "80, 0", ""),
            ports,
            "protect.ports: nobody listens on port 0; allowed: each port from 1 to 65535, once",
        ),
        (
            with(&hosts(8), &list(9, |port| port + 1), ""),
            ports,
            "protect.ports: 72 addresses with a port; allowed: at most 64",
        ),
        (
            with(host, "", ""),
            ports,
            "protect.ports: the list is empty",
        ),
        (with(host, "65536", ""), ports, "protect.ports"),
        (
            with("", "80", ""),
            addresses,
            "protect.addresses: the list is empty",
        ),
        (
            with("\"192.0.2\"", "80", ""),
            addresses,
            "protect.addresses",
        ),
        (
            with(host, "80", "verified_secs = 0\n"),
            LINE + 4,
            "protect.verified_secs: 0 is out of range; allowed: seconds, an integer from 1 to 3600",
        ),
        (
            with(host, "80", "verified_secs = 3601\n"),
            LINE + 4,
            "protect.verified_secs: 3601 is out of range; allowed: seconds, an integer from 1 to 3600",
        ),
        (
            with(
                host,
                "80",
                "[[protect]]\ninterface = \"wan0\"\naddresses = [\"192.0.2.1\"]\nports = [1]\n",
            ),
            LINE + 5,
            "protect.interface: this interface stands twice; allowed: one section for it and each VLAN of it",
        ),
        (
            with(
                host,
                "80",
                "[[interface]]\nname = \"wan0\"\nxdp = \"off\"\n",
            )
            .replacen("[interface]", "[[interface]]", 1),
            LINE + 1,
            "protect.interface: hosts are protected by the XDP program, and this interface has none; allowed: xdp = \"auto\" for it",
        ),
        (
            with(host, "80, 443, 80", ""),
            ports,
            "protect.ports: this port stands twice; allowed: each port from 1 to 65535, once",
        ),
        (
            with(host, "80", "").replace("\"wan0\"", "\"lo\""),
            LINE + 1,
            "protect.interface: nobody comes to a host behind this one by the loopback device; allowed: the interface that",
        ),
        (
            format!("{SMALLEST}[[protect]]\ninterface = \"wan0\"\n"),
            LINE,
            "protect.addresses: is missing and has no default",
        ),
    ] {
        expect_fault(&text, line, fault);
    }
}

#[test]
fn a_host_that_a_prefix_holds_is_a_warning_with_its_line() {
    let text = with("\"192.0.2.80\", \"192.0.0.0/16\", \"0.0.0.0/0\"", "80", "");
    let config = Config::parse("f", &text).expect("valid");
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    let at = |column: usize, what: &str| {
        format!("f:{}:{column}: protect.addresses: {what} already", LINE + 2)
    };
    let expected = [
        at(14, "192.0.2.80/32 is in 192.0.0.0/16"),
        at(28, "192.0.0.0/16 is in 0.0.0.0/0"),
    ];
    assert_eq!(warnings, expected);
}

const NOTHING: [Vec<String>; 2] = [Vec::new(), Vec::new()];

/// A router whose `wan0` has addresses, and whose `lan0` is a port of a bridge.
fn router() -> Devices {
    let device = |name: &str, index: u32, mac: Option<[u8; 6]>| Device {
        name: name.into(),
        index,
        mac,
        ..Device::default()
    };
    let mac = Some([2, 0, 0, 0, 0, 1]);
    let addresses = vec!["203.0.113.5".parse().expect("an address")];
    let broadcasts = vec!["203.0.113.255".parse().expect("an address")];
    Devices(vec![
        Device {
            addresses,
            broadcasts,
            ..device("wan0", 1, mac)
        },
        Device {
            port_of: Some("bridge br0".into()),
            ..device("lan0", 2, mac)
        },
        device("tun0", 3, None),
    ])
}

/// Missing items and doubts for a config that serves `wan0`, from its section for hosts.
fn planned(interface: &str, addresses: &str, ports: &str, rest: &str) -> [Vec<String>; 2] {
    let text = with(addresses, ports, rest).replace("lan0", "wan0");
    let text = text.replace(
        "[[protect]]\ninterface = \"wan0\"",
        &format!("[[protect]]\ninterface = \"{interface}\""),
    );
    let config = Config::parse("f", &text).expect("valid");
    let plan = config.plan(&router());
    [plan.missing, plan.doubts].map(|errors| {
        let faults = errors.faults().iter();
        faults.map(ToString::to_string).collect()
    })
}

#[test]
fn hosts_that_are_not_behind_this_machine_are_said_with_file_line_and_key() {
    let host = "\"192.0.2.80\"";
    assert_eq!(planned("wan0", host, "80", ""), NOTHING);
    let at = |line: usize, column: usize, what: &str| {
        vec![format!("f:{}:{column}: protect.{what}", LINE + line)]
    };
    for (interface, addresses, what) in [
        (
            "dmz0",
            host,
            at(
                1,
                1,
                "interface: no interface dmz0 on this machine; allowed: wan0, lan0, tun0",
            ),
        ),
        (
            "tun0",
            host,
            at(
                1,
                1,
                "interface: frames of tun0 have no MAC address, so no XDP program answers there; allowed: a device of Ethernet",
            ),
        ),
        (
            "lan0",
            host,
            at(
                1,
                1,
                "interface: lan0 is a port of bridge br0, which clients come by; allowed: br0",
            ),
        ),
        (
            "wan0",
            "\"203.0.113.255\"",
            at(
                2,
                14,
                "addresses: 203.0.113.255 is the broadcast address of wan0; allowed: addresses of hosts, and prefixes of such",
            ),
        ),
    ] {
        assert_eq!(planned(interface, addresses, "80", ""), [what, Vec::new()]);
    }
}

/// An address of this machine may be translated to a host behind it.
#[test]
fn hosts_that_are_this_machine_are_a_warning() {
    let [missing, doubts] = planned("wan0", "\"203.0.113.5\"", "443", "");
    assert_eq!(missing, [""; 0]);
    let own = "protect.addresses: 203.0.113.5 is an address of wan0, of this machine: right where its ports are translated";
    assert!(doubts[0].contains(own) && doubts.len() == 1, "{doubts:?}");
    let network = "\"203.0.113.0/24\"";
    assert_eq!(planned("wan0", network, "443", ""), NOTHING);
    let [missing, doubts] = planned("wan0", network, "443, 53", "");
    assert_eq!(missing, [""; 0]);
    let own = format!(
        "f:{}:15: protect.ports: port 53 of 203.0.113.5 is this machine's own: shield.syn_cookies is for that",
        LINE + 3
    );
    assert!(
        doubts[0].starts_with(&own) && doubts.len() == 1,
        "{doubts:?}"
    );
    // The endpoint gets them first.
    let rest = "[shield]\nsyn_cookies = \"auto\"\n";
    assert_eq!(planned("wan0", network, "53", rest), NOTHING);
}
