//! Configs by users of other programs, and the messages that they get.

use super::*;

const LAN: &str = "[[interface]]\nname = \"lan0\"\n";
const UP: &str = "[[upstream]]\nservers = [\"192.0.2.1\"]\n";

/// Faults of `text`, each line of which is invalid by itself.
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
    assert_eq!(said(&cache), "f:7:2: `cache` stands twice, first in line 5");
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
        let is_told = said.ends_with(&format!(": {problem}"))
            || said.contains(&format!(": {problem}; allowed: "));
        assert!(is_told, "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
    }
    let lines = format!("{LAN}[[upstream]]\nservers = [\n  9.9.9.9,\n  2620:fe::fe\n]\n");
    let said = errors_of(&lines);
    assert!(
        said[0].starts_with("f:5:3: upstream.servers: addresses stand in quotes: [\"9.9.9.9\"]; "),
        "{said:?}"
    );
    assert!(
        said[1]
            .starts_with("f:6:3: upstream.servers: addresses stand in quotes: [\"2620:fe::fe\"]; "),
        "{said:?}"
    );
}

/// A switch is `true` or `false`, and "none" is never valid.
#[test]
fn a_word_without_quotes_is_told_by_what_its_key_takes() {
    for (section, line, problem) in [
        ("cache", "tier0 = on", "text stands in quotes: \"on\""),
        ("cache", "tier0 = Off", "text stands in quotes: \"off\""),
        ("local", "zones = [On]", "text stands in quotes: \"On\""),
        ("cache", "max_ttl = off", "`off`: seconds, an integer"),
        ("cache", "max_ttl = PT1H", "`PT1H`: seconds, an integer"),
        ("local", "forward_plain_names = no", "`no` is written false"),
    ] {
        let said = errors_of(&format!("{LAN}{UP}[{section}]\n{line}\n"));
        let [one] = &said[..] else {
            panic!("{line}: {said:?}");
        };
        assert!(
            one.contains(&format!(": {problem}; allowed: ")),
            "{line}: {one}"
        );
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
            "\"100\": an integer from 0 to 65536, such as 100",
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

/// Both ways are right, and one holds for every key: a number of the unit in its name.
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
        ("zero_copy = \"yes\"", "\"yes\": true, false or \"auto\""),
        ("zero_copy = 1", "1: true, false or \"auto\""),
        (
            "port = \"53\"",
            "\"53\": an integer from 1 to 65535, such as 53",
        ),
        (
            "xdp = true",
            "true: a text in quotes is wanted here; allowed: \"auto\"",
        ),
        (
            "listen = [1]",
            "\"1\" is not an IP address; allowed: a list of",
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
        (
            "[2001:db8::1",
            "the [ in front of the address has no ] behind it",
        ),
        (
            "[2001:db8::1:53",
            "the [ in front of the address has no ] behind it",
        ),
        (
            "2001:db8::1]",
            "the ] behind the address has no [ in front of it",
        ),
        (
            "9.9.9.9]:53",
            "the ] behind the address has no [ in front of it",
        ),
        ("::ffff:9.9.9.9", "IPv4 in its own form: \"9.9.9.9\""),
        ("[::ffff:909:909]:5353", "IPv4 in its own form: \"9.9.9.9\""),
        (" 9.9.9.9", "without spaces"),
        ("9.9.9.9:domain", "a port is a number from 1 to 65535"),
        ("", "is not a server"),
        ("10.53.0", "is not a server"),
    ] {
        let said = said(&format!("{LAN}[[upstream]]\nservers = [\"{server}\"]\n"));
        let begin = format!("f:4:12: upstream.servers: \"{server}\" is not a server");
        assert!(said.starts_with(&begin) && said.contains(problem), "{said}");
        assert!(
            said.contains("allowed: a list of 0 to ")
                && said.contains("ADDRESS, ADDRESS:PORT or [IPV6]:PORT"),
            "{said}"
        );
        assert!(
            said.contains("encrypted servers (DoT, DoH, DoQ) by way of a stub on this machine"),
            "{said}"
        );
    }
}

/// A line below the heading of its section, its place, its key, and the problem.
pub type Row = (&'static str, &'static str, &'static str, &'static str);

/// Checks each line by itself: the place, the key, the problem.
pub fn every_row_is_said(rows: &[Row]) {
    for (section, lines, place, problem) in rows {
        let said = said(&format!("{LAN}{UP}[{section}]\n{lines}\n"));
        assert!(
            said.starts_with(&format!("f:{place}: {section}.")),
            "{lines}: {said}"
        );
        assert!(said.contains(&format!(": {problem}")), "{lines}: {said}");
        assert_eq!(said.lines().count(), 1, "{lines}: {said}");
        let key = lines.split([' ', ':', '=']).next().unwrap_or_default();
        let known = schema::SECTIONS.iter().find(|known| known.name == *section);
        let key = known.and_then(|known| known.keys.iter().find(|known| known.name == key));
        let allowed = key.map(|key| key.allowed()).unwrap_or_default();
        assert!(said.contains(&allowed), "{lines}: {said}");
    }
}

#[test]
fn a_heading_that_is_none_is_shown_as_it_should_be() {
    for (text, problem) in [
        (
            "[[upstream\n",
            "f:3:1: brackets that do not match: [[upstream]]",
        ),
        (
            "[[upstream]\n",
            "f:3:1: brackets that do not match: [[upstream]]",
        ),
        ("[cache\n", "f:3:1: brackets that do not match: [cache]"),
        ("[cache]]\n", "f:3:1: brackets that do not match: [cache]"),
        ("cache]\n", "f:3:1: brackets that do not match: [cache]"),
        ("[cach\n", "f:3:1: brackets that do not match: [cache]"),
        (
            "[cache] entries = 1\n",
            "f:3:9: keys stand below [cache], each on a line of its own",
        ),
        (
            "[interface br-lan]\n",
            "f:3:12: a section has no name of its own: [[interface]], and below it name = \"br-lan\"",
        ),
        (
            "[interface \"br-lan\"]\n",
            "f:3:12: a section has no name of its own: [[interface]], and below it name = \"br-lan\"",
        ),
        (
            "cache {\n",
            "f:3:1: a section begins with [cache] and has no braces",
        ),
        ("cache:\n", "f:3:1: a section begins with [cache]"),
        ("cache\n", "f:3:1: a section begins with [cache]"),
        (
            "[]\n",
            "f:3:1: a section is a word in brackets, such as [cache]",
        ),
    ] {
        assert_eq!(said(&format!("{LAN}{text}")), problem, "{text}");
    }
    let unix = "f:1:14: a carriage return alone does not end a line: save the file with the line ends of Unix";
    assert_eq!(said(&LAN.replace('\n', "\r")), unix);
}

#[test]
fn what_stands_in_the_wrong_place_is_told_the_right_one() {
    for (text, problem) in [
        (
            format!("port = 53\n{LAN}{UP}"),
            "f:1:1: port: a key stands below the line of its section: [[interface]]; ",
        ),
        (
            format!("servers = [\"192.0.2.1\"]\n{LAN}"),
            "f:1:1: servers: a key stands below the line of its section: [[upstream]]; ",
        ),
        (
            format!("{LAN}{UP}[cache]\nlevel = \"info\"\n"),
            "f:6:1: cache.level: this is a key of [log]; ",
        ),
        (
            format!("{LAN}{UP}[cache]\nttl = 5\n"),
            "f:6:1: cache.ttl: this is a key of [local] and [filter]; ",
        ),
        (
            format!("{LAN}{UP}[cache]\nsize = 5\n"),
            "f:6:1: cache.size: unknown key, did you mean \"entries\"?; ",
        ),
        (
            format!("{LAN}{UP}[tcp]\nidle = 5\n"),
            "f:6:1: tcp.idle: unknown key, did you mean \"idle_secs\"?; ",
        ),
        (
            format!("{LAN}{UP}[access]\nreject = []\n"),
            "f:6:1: access.reject: unknown key, did you mean \"refuse\"?; ",
        ),
        (
            format!("{LAN}{UP}[access]\ndeny = []\n"),
            "f:6:1: access.deny: this is a key of [shield]; allowed: allow, refuse, ",
        ),
        (
            format!("{LAN}{UP}cache = {{ entries = 1 }}\n"),
            "f:5:1: upstream.cache: is a section, on a line of its own: [cache]; ",
        ),
        (
            format!("{LAN}{UP}[dns]\nx = 1\n"),
            "f:5:2: dns: unknown section, did you mean \"upstream\"?; ",
        ),
        (
            format!("{UP}[[interfaces]]\nname = \"lan0\"\n"),
            "f:3:3: interfaces: unknown section, did you mean \"interface\"?; ",
        ),
        (
            format!("{LAN}[server]\nservers = [\"192.0.2.1\"]\n"),
            "f:3:2: server: unknown section, did you mean \"upstream\"?; ",
        ),
        (
            format!("cache = 1\n{LAN}{UP}"),
            "f:1:9: cache: is a section that stands once: [cache], and its keys below",
        ),
        (
            format!("interface = \"lan0\"\n{UP}"),
            "f:1:13: interface: is a section: [[interface]], and its keys below",
        ),
        (
            format!("{LAN}name = \"lan1\"\n{UP}"),
            "f:3:1: interface.name: `name` stands twice, first in line 2",
        ),
    ] {
        let said = said(&text);
        assert!(said.starts_with(problem), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{text}: {said}");
    }
}

/// Values as in other programs.
const OF_OTHERS: &[Row] = &[
    (
        "log",
        "level = \"warning\"",
        "6:9",
        "`warning` is not a word that is known here, did you mean \"warn\"?; ",
    ),
    (
        "log",
        "level = \"WARN\"",
        "6:9",
        "`WARN` is not a word that is known here, did you mean \"warn\"?; ",
    ),
    (
        "log",
        "level = [\"info\"]",
        "6:9",
        "[\"info\"]: one value, without brackets: \"info\"; ",
    ),
    (
        "log",
        "level = 3",
        "6:9",
        "3: a text in quotes is wanted here; ",
    ),
    (
        "filter",
        "answer = \"0.0.0.0\"",
        "6:10",
        "`0.0.0.0` is not a word that is known here, did you mean \"zero\"?; ",
    ),
    (
        "rebind",
        "ranges = [\"rfc1918\"]",
        "6:11",
        "`rfc1918` is not a word that is known here, did you mean \"private\"?; ",
    ),
    (
        "access",
        "others = \"deny\"",
        "6:10",
        "`deny` is not a word that is known here, did you mean \"refuse\"?; ",
    ),
    (
        "access",
        "allow = [\"192.168.1.0/255.255.255.0\"]",
        "6:10",
        "\"192.168.1.0/255.255.255.0\": a prefix has a length: \"192.168.1.0/24\"; ",
    ),
    (
        "access",
        "allow = [\"any\"]",
        "6:10",
        "\"any\": everyone is \"0.0.0.0/0\" and \"::/0\"; ",
    ),
    (
        "access",
        "allow = \"192.0.2.2, 192.0.2.1\"",
        "6:9",
        "\"192.0.2.2, 192.0.2.1\": each stands in quotes of its own: [\"192.0.2.2\", \"192.0.2.1\"]; ",
    ),
    (
        "filter",
        "block = [\"||ads.example^\"]",
        "6:10",
        "\"||ads.example^\": a name alone, with all below it: \"ads.example\"; ",
    ),
    (
        "filter",
        "block = [\"0.0.0.0 ads.example\"]",
        "6:10",
        "\"0.0.0.0 ads.example\": a name alone, with all below it: \"ads.example\"; ",
    ),
    (
        "filter",
        "block_files = [\"https://x.example/y\"]",
        "6:16",
        "\"https://x.example/y\": files of this machine are read, nothing is fetched",
    ),
    (
        "local",
        "hosts = [\"~/hosts\"]",
        "6:10",
        "\"~/hosts\": a path is written out, from / on; ",
    ),
    (
        "local",
        "zones = [\"*.lan\"]",
        "6:10",
        "\"*.lan\": a domain means what is below it, too: \"lan\"; ",
    ),
    (
        "local",
        "zones = [\"la|n\"]",
        "6:10",
        "\"la|n\" is not a domain: `|` is in none; ",
    ),
    (
        "local",
        "zones = [\"la\\u001b[31mn\"]",
        "6:10",
        "\"la\\u001b[31mn\" is not a domain: `\\u{1b}` is in none; ",
    ),
    (
        "local",
        "search = [\"a\", \"b\"]",
        "6:10",
        "2 elements are too many; ",
    ),
    (
        "local",
        "ttl = 1e3",
        "6:7",
        "1e3: seconds, an integer from 0 to 86400, such as 1000",
    ),
    (
        "local",
        "ttl = [7]",
        "6:7",
        "[7]: seconds, an integer from 0 to 86400, such as 7",
    ),
    (
        "local",
        "zones = [\"10.0.0.0/8\"]",
        "6:10",
        "\"10.0.0.0/8\" is an address, a domain is wanted here; ",
    ),
    (
        "cache",
        "snapshot = \"/x/\"",
        "6:12",
        "\"/x/\" is a folder: the path of a file in it is wanted here; ",
    ),
    (
        "cache",
        "snapshot = \"none\"",
        "6:12",
        "\"none\": none is written \"\"; ",
    ),
    (
        "cache",
        "snapshot = false",
        "6:12",
        "\"false\": none is written \"\"; ",
    ),
];

#[test]
fn a_value_of_another_program_is_told_ours() {
    every_row_is_said(OF_OTHERS);
    let route = said(&format!("{LAN}{UP}domains = [\"*.corp.example\"]\n"));
    assert!(
        route.starts_with("f:5:12: upstream.domains: \"*.corp.example\": a domain means what is below it, too: \"corp.example\"; "),
        "{route}"
    );
    let record = said(&format!(
        "{LAN}{UP}[local]\nrecords = [\"192.0.2.9 nas.lan\"]\n"
    ));
    let meant = "`nas.lan` is not a record type, did you mean \"nas.lan A 192.0.2.9\"?; ";
    assert!(record.contains(meant), "{record}");
    let long = format!("{LAN}{UP}[control]\nsocket = \"/{}\"\n", "x".repeat(107));
    let bytes = "f:6:1: control.socket: the path has 108 bytes; allowed: at most 107 bytes";
    assert_eq!(said(&long), bytes);
    let long = format!("{LAN}{UP}[identity]\nid = \"{}\"\n", "x".repeat(256));
    let bytes = "f:6:1: identity.id: the text has 256 bytes; allowed: at most 255 bytes";
    assert_eq!(said(&long), bytes);
    let empty = said(&format!("{LAN}[[upstream]]\nservers = []\n"));
    assert!(
        empty.contains("f:4:1: upstream.servers: the list is empty; "),
        "{empty}"
    );
}

/// `xdnsd check` of the wrong file, as root, with output that may go into a log.
#[test]
fn a_file_that_is_no_configuration_is_not_told() {
    let said = said("root:$y$secret:20228:0:99999:7:::\nx:secret\nme secret\n");
    assert!(!said.contains("secret"), "{said}");
    let begin = "f:1:1: a line is KEY = VALUE, or the heading of a section";
    assert!(said.starts_with(begin), "{said}");
}

/// A secret in the wrong place is still a secret.
#[test]
fn a_secret_is_not_told() {
    let secret = "00112233445566778899aabbccddeeff";
    for value in [
        format!("\"{secret}\""),
        format!("\"{secret},{secret}\""),
        format!("[\"{secret}0\"]"),
        format!("[[\"{secret}\"]]"),
        format!("{{ x = \"{secret}\" }}"),
        format!("[{secret}]"),
        format!("[\"{secret}\" \"{secret}\"]"),
        format!("\"{secret}\", \"{secret}\""),
        format!("[\"{secret}"),
    ] {
        let said = said(&format!("{LAN}{UP}[edns]\ncookie_secrets = {value}\n"));
        assert!(!said.contains("0011"), "{said}");
        assert!(
            said.contains("edns.cookie_secrets: ") && said.contains("32 hexadecimal digits"),
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

/// The kernel takes all of the loopback network for local: other stub resolvers are at 127.0.0.53.
#[test]
fn on_lo_each_address_of_its_network_can_be_served() {
    let on_lo = |listen: &str| {
        let text = format!("[[interface]]\nname = \"lo\"\nlisten = [{listen}]\n{UP}");
        Config::parse("f", &text).expect("valid in itself")
    };
    let served = |listen: &str| -> Vec<String> {
        let plan = on_lo(listen).plan(&devices());
        assert_eq!(plan.missing.to_string(), "", "{listen}");
        let addresses = plan.endpoints.iter().map(|endpoint| endpoint.addr);
        addresses.map(|addr| addr.to_string()).collect()
    };
    assert_eq!(served("\"127.0.0.53\""), ["127.0.0.53"]);
    assert_eq!(
        served("\"127.0.0.9\", \"127.0.0.1\""),
        ["127.0.0.1", "127.0.0.9"]
    );
    assert_eq!(served(""), ["127.0.0.1", "::1"]);
    // The network of the tests has 24 bits.
    for other in ["127.0.1.1", "127.0.0.0", "127.0.0.255", "::2", "10.53.0.1"] {
        let said = shortfall(&on_lo(&format!("{other:?}")));
        let expected = format!("{other} is not an address of lo; allowed: 127.0.0.1, ::1");
        assert!(said.ends_with(&expected), "{said}");
    }
}

/// What the config wants and the tests' machine lacks.
fn shortfall(config: &Config) -> String {
    config.plan(&devices()).missing.to_string()
}
