//! What people write who come from other programs, and what they are told.

use super::*;

const LAN: &str = "[[interface]]\nname = \"lan0\"\n";
const UP: &str = "[[upstream]]\nservers = [\"192.0.2.1\"]\n";

/// The faults of `text`, which has a fault in each of them alone.
fn said(text: &str) -> String {
    errors_of(text).join("\n")
}

#[test]
fn a_section_that_stands_again_needs_double_brackets() {
    let again = |first: &str, second: &str| {
        said(&format!(
            "{first}\nname = \"lan0\"\n{second}\nname = \"lan1\"\nport = 53\n{UP}"
        ))
    };
    let expected = "f:3:2: more than one needs double brackets in each place: [[interface]] here and in line 1";
    assert_eq!(again("[interface]", "[interface]"), expected);
    assert_eq!(again("[[interface]]", "[interface]"), expected);
    assert_eq!(
        again("[interface]", "[[interface]]"),
        expected.replace(":2:", ":3:")
    );
    let upstream = format!(
        "{LAN}[upstream]\nservers = [\"192.0.2.1\"]\n\n[upstream]\nname = \"b\"\nservers = [\"192.0.2.2\"]\n"
    );
    assert_eq!(
        said(&upstream),
        "f:6:2: more than one needs double brackets in each place: [[upstream]] here and in line 3"
    );
    let three = format!(
        "[interface]\nname = \"a\"\n[interface]\nname = \"b\"\n[interface]\nname = \"c\"\n{UP}"
    );
    assert_eq!(errors_of(&three).len(), 2, "{}", said(&three));
    let cache = format!("{LAN}{UP}[cache]\nmax_ttl = 3\n[cache]\nmax_ttl = 4\n");
    assert_eq!(said(&cache), "f:7:2: `cache` stands twice");
}

#[test]
fn what_should_stand_in_quotes_is_said_with_them() {
    for (line, problem) in [
        (
            "servers = [9.9.9.9]",
            "addresses stand in quotes: [\"9.9.9.9\"]",
        ),
        (
            "servers = 9.9.9.9",
            "addresses stand in quotes: [\"9.9.9.9\"]",
        ),
        ("servers =", "`servers` has no value behind ="),
        ("servers = # none", "`servers` has no value behind ="),
        ("; a comment", "a comment begins with #"),
        ("// a comment", "a comment begins with #"),
        (
            "servers = [9.9.9.9, 1.1.1.1]",
            "addresses stand in quotes: [\"9.9.9.9\"]",
        ),
        (
            "servers = [2620:fe::fe]",
            "addresses stand in quotes: [\"2620:fe::fe\"]",
        ),
        (
            "servers = [fe80::1%wan0]",
            "addresses stand in quotes: [\"fe80::1%wan0\"]",
        ),
        (
            "servers = [192.168.1.1/24]",
            "addresses stand in quotes: [\"192.168.1.1/24\"]",
        ),
        (
            "servers = [9.9.9.9:53]",
            "addresses stand in quotes: [\"9.9.9.9:53\"]",
        ),
        (
            "servers = [“9.9.9.9”]",
            "addresses stand in quotes: [\"9.9.9.9\"]",
        ),
        (
            "servers = [dns.quad9.net]",
            "text stands in quotes: \"dns.quad9.net\"",
        ),
        ("name = br-lan", "text stands in quotes: \"br-lan\""),
        ("trusted = yes", "`yes` is written true"),
        ("trusted = Off", "`Off` is written false"),
        ("max_ttl = 1h", "`1h`: seconds, an integer without a unit"),
        (
            "give_up_ms = 5s",
            "`5s`: milliseconds, an integer without a unit",
        ),
    ] {
        let text = format!("{LAN}[[upstream]]\n{line}\n");
        let said = said(&text);
        assert!(said.starts_with("f:4:"), "{line}: {said}");
        assert!(said.ends_with(&format!(": {problem}")), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
    }
    let lines = format!("{LAN}[[upstream]]\nservers = [\n  9.9.9.9,\n  2620:fe::fe\n]\n");
    assert_eq!(
        said(&lines),
        "f:5:3: addresses stand in quotes: [\"9.9.9.9\"]\nf:6:3: addresses stand in quotes: [\"2620:fe::fe\"]"
    );
}

#[test]
fn another_programs_file_is_known() {
    for (text, whose) in [
        (
            "domain-needed\nbogus-priv\nserver=9.9.9.9\n",
            "dnsmasq's configuration",
        ),
        ("port=53\ncache-size=1000\n", "dnsmasq's configuration"),
        ("server:\n  interface: 0.0.0.0\n", "unbound's configuration"),
        ("nameserver 9.9.9.9\n", "resolv.conf"),
    ] {
        let expected =
            format!("f: this looks like {whose}; xdnsd reads TOML, see config/home-router.toml");
        assert_eq!(said(text), expected);
    }
}

#[test]
fn a_number_is_asked_for_with_its_unit_and_its_range() {
    for (section, line, problem) in [
        (
            "cache",
            "max_ttl = \"1h\"",
            "\"1h\": seconds, an integer from 1 to 604800, such as 3600",
        ),
        (
            "cache",
            "max_ttl = \"1h30m\"",
            "\"1h30m\": seconds, an integer from 1 to 604800, such as 5400",
        ),
        (
            "cache",
            "max_ttl = \"3600\"",
            "\"3600\": seconds, an integer from 1 to 604800, such as 3600",
        ),
        (
            "cache",
            "snapshot_interval_secs = \"2 days\"",
            "\"2 days\": seconds, an integer from 1 to 604800, such as 172800",
        ),
        (
            "forward",
            "give_up_ms = \"5s\"",
            "\"5s\": milliseconds, an integer from 500 to 30000, such as 5000",
        ),
        (
            "forward",
            "give_up_ms = \"soon\"",
            "\"soon\": milliseconds, an integer from 500 to 30000, such as ",
        ),
        (
            "tcp",
            "idle_secs = \"1h\"",
            "\"1h\": seconds, an integer from 1 to 120, such as 10",
        ),
        (
            "tcp",
            "idle_secs = 1.5",
            "1.5: seconds, an integer from 1 to 120, such as 10",
        ),
        (
            "tcp",
            "idle_secs = true",
            "true: seconds, an integer from 1 to 120, such as 10",
        ),
        (
            "tcp",
            "idle_secs = -1",
            "-1 is out of range; allowed: seconds, an integer from 1 to 120",
        ),
        (
            "tcp",
            "idle_secs = 99999",
            "99999 is out of range; allowed: seconds, an integer from 1 to 120",
        ),
        (
            "tcp",
            "idle_secs = 121",
            "121 is out of range; allowed: seconds, an integer from 1 to 120",
        ),
        (
            "cache",
            "entries = \"100\"",
            "\"100\": an integer from 0 to 8192, such as 100",
        ),
    ] {
        let said = said(&format!("{LAN}{UP}[{section}]\n{line}\n"));
        assert!(said.contains(problem), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
        let key = line.split(' ').next().expect("a key");
        assert!(
            said.starts_with(&format!("f:6:{}: {section}.{key}: ", key.len() + 4)),
            "{said}"
        );
    }
}

/// Either way is right, and one holds for every key: a number of the unit that its name says.
#[test]
fn every_key_that_is_a_time_says_its_unit() {
    let keys = schema::SECTIONS.iter().flat_map(|section| section.keys);
    let mut times = 0;
    for key in keys.filter(|key| key.doc.iter().any(|line| is_time(line))) {
        if key.range.is_some() && (key.allowed)(key.range.as_ref()).starts_with("an integer") {
            let allowed = key.allowed();
            assert!(
                allowed.contains("seconds, an integer"),
                "{}: {allowed}",
                key.name
            );
            times += 1;
        }
    }
    assert!(times >= 10, "{times}");
}

fn is_time(doc: &str) -> bool {
    [
        "Seconds ",
        "Milliseconds ",
        "Microseconds ",
        "TTL in seconds",
    ]
    .iter()
    .any(|unit| doc.trim().starts_with(unit))
}

#[test]
fn a_value_of_the_wrong_kind_is_shown_as_it_should_be() {
    for (lines, problem) in [
        (
            "listen = \"10.53.0.1\"",
            "\"10.53.0.1\": a list stands in brackets: [\"10.53.0.1\"]",
        ),
        (
            "zero_copy = \"yes\"",
            "\"yes\": true or false, without quotes",
        ),
        ("zero_copy = 1", "1: true or false, without quotes"),
        (
            "port = \"53\"",
            "\"53\": an integer from 1 to 65535, such as 53",
        ),
        (
            "xdp = true",
            "true: text stands in quotes: \"true\"; allowed: \"auto\"",
        ),
        (
            "listen = [1]",
            "1: text stands in quotes: \"1\"; allowed: a list of",
        ),
    ] {
        let said = said(&format!("{LAN}{lines}\n{UP}"));
        assert!(
            said.starts_with("f:3:") && said.contains(problem),
            "{lines}: {said}"
        );
    }
}

#[test]
fn an_address_to_listen_on_is_an_address_alone() {
    for (address, bare) in [
        ("192.168.1.1/24", "192.168.1.1"),
        ("192.168.1.1:53", "192.168.1.1"),
        ("[fd11::1]", "fd11::1"),
        ("[fd11::1]:53", "fd11::1"),
        ("fe80::1%lan0", "fe80::1"),
        ("fd11::1/64", "fd11::1"),
    ] {
        let said = said(&format!("{LAN}listen = [\"{address}\"]\n{UP}"));
        let expected = format!(
            "f:3:11: interface.listen: \"{address}\": without prefix, port (that is interface.port), zone and brackets: \"{bare}\"; allowed: "
        );
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn what_is_no_server_is_told_what_is() {
    for (server, problem) in [
        (
            "dns.quad9.net",
            "a name would have to be asked for first, so a server is named by its address",
        ),
        (
            "tls://9.9.9.9",
            "there is no encrypted form (DoT, DoH, DoQ); run a stub on this machine",
        ),
        (
            "https://dns.quad9.net/dns-query",
            "there is no encrypted form",
        ),
        ("quic://9.9.9.9", "there is no encrypted form"),
        ("sdns://AQcAAAA", "there is no encrypted form"),
        ("9.9.9.9#dns.quad9.net", "there is no encrypted form"),
        ("9.9.9.9@853#dns.quad9.net", "there is no encrypted form"),
        ("udp://9.9.9.9", "without udp://"),
        (
            "9.9.9.9#5353",
            "the port stands behind a colon: \"9.9.9.9:5353\"",
        ),
        (
            "9.9.9.9@5353",
            "the port stands behind a colon: \"9.9.9.9:5353\"",
        ),
        (
            "2620:fe::fe@5353",
            "the port stands behind a colon: \"[2620:fe::fe]:5353\"",
        ),
        ("9.9.9.9/32", "without prefix: \"9.9.9.9\""),
        ("[9.9.9.9]:53", "brackets are for IPv6: \"9.9.9.9\""),
        (" 9.9.9.9", "without spaces"),
        ("9.9.9.9:domain", "a port is a number from 1 to 65535"),
        ("", "is not a server"),
        ("10.53.0", "is not a server"),
    ] {
        let said = said(&format!("{LAN}[[upstream]]\nservers = [\"{server}\"]\n"));
        let begin = format!("f:4:12: upstream.servers: \"{server}\" is not a server");
        assert!(said.starts_with(&begin) && said.contains(problem), "{said}");
        assert!(
            said.contains("allowed: a list of 1 to ")
                && said.contains("ADDRESS, ADDRESS:PORT or [IPV6]:PORT"),
            "{said}"
        );
        assert!(
            said.contains("encrypted servers (DoT, DoH, DoQ) by way of a stub on this machine"),
            "{said}"
        );
    }
}

#[test]
fn values_cannot_move_the_cursor() {
    for text in [
        format!("{LAN}listen = [\"\\u001b[2J\\u009b\\u202e\\n\"]\n{UP}"),
        format!("{LAN}\"k\\u001b\" = 1\n{UP}"),
        format!("{LAN}[[upstream]]\nservers = [\"a\\u001b[31m\"]\n"),
        format!("{LAN}{UP}[\"\\u001b\"]\n"),
        format!("{LAN}{UP}[local]\nrecords = [\"a\\u001b A x\"]\n"),
        format!("{LAN}{UP}[log]\nlevel = \"\\u001b\\u2028\"\n"),
        format!("{LAN}name = \u{1b}[31m\n{UP}"),
        format!("{LAN}{UP}[[upstream]]\nname = \"a\\u001b\"\nservers = [\"192.0.2.2\"]\n"),
    ] {
        let Err(errors) = Config::parse("f\u{1b}", &text) else {
            panic!("accepted: {text}")
        };
        let said = errors.to_string();
        let obeyed =
            |char: char| char.is_control() && char != '\n' || "\u{202e}\u{2028}".contains(char);
        assert_eq!(said.find(obeyed), None, "{said:?}");
        assert_eq!(said.lines().count(), errors.faults().len(), "{said:?}");
        assert!(said.starts_with("f\\x1b"), "{said:?}");
    }
}

#[test]
fn the_router_itself_is_answered_on_lo() {
    let text = format!("{LAN}listen = [\"127.0.0.1\"]\n{UP}");
    let config = Config::parse("f", &text).expect("valid in itself");
    let said = shortfall(&config);
    let expected = "127.0.0.1 is not an address of lan0; to answer this router itself add [[interface]] name = \"lo\"";
    assert!(said.contains(expected), "{said}");
}

/// What the config wants and the tests' machine does not have.
fn shortfall(config: &Config) -> String {
    config.plan(&devices()).missing.to_string()
}
