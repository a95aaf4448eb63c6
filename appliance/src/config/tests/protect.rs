//! Hosts behind this one.

use super::*;

/// The first line of a section of its own, behind [`SMALLEST`].
const LINE: usize = 5;

/// The smallest file with one such section: its addresses and its ports, then whatever else.
fn with(addresses: &str, ports: &str, rest: &str) -> String {
    let head = "[[protect]]\ninterface = \"wan0\"\n";
    format!("{SMALLEST}{head}addresses = [{addresses}]\nports = [{ports}]\n{rest}")
}

/// So many things in a list.
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
    // Of an interface that is not served.
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

#[test]
fn hosts_that_cannot_be_protected_are_refused_with_line_key_and_what_may_stand() {
    let host = "\"192.0.2.80\"";
    let (addresses, ports) = (LINE + 2, LINE + 3);
    for (text, line, fault) in [
        (
            with(host, "80, 0", ""),
            ports,
            "protect.ports: nobody listens on port 0; allowed: each port from 1 to 65535",
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
            "protect.interface: this interface stands twice; allowed: one section for it",
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
            format!("{SMALLEST}[[protect]]\ninterface = \"wan0\"\n"),
            LINE,
            "protect.addresses: is missing and has no default",
        ),
    ] {
        let errors = errors_of(&text);
        let (at, said) = errors[0].split_once(": ").expect("a position");
        assert!(at.starts_with(&format!("f:{line}:")), "{errors:?}");
        assert!(said.starts_with(fault), "{errors:?}");
    }
}
