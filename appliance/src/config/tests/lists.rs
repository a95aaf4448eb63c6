//! Lists with several faults: each is reported, and none causes a false one.

use super::*;

const LAN: &str = "[[interface]]\nname = \"lan0\"\n";
const UP: &str = "[[upstream]]\nservers = [\"192.0.2.1\"]\n";

/// Place and key of each fault.
fn places(text: &str) -> Vec<String> {
    let Err(errors) = Config::parse("f", text) else {
        panic!("accepted: {text}")
    };
    let place = |fault: &Fault| {
        let place = fault.position.map(|place| (place.line, place.column));
        let (line, column) = place.unwrap_or_default();
        format!("{line}:{column} {}", fault.key)
    };
    errors.faults().iter().map(place).collect()
}

/// What has to stand in front of a section with this key, and in it.
fn around(section: &str, key: &str) -> (String, &'static str) {
    match section {
        "interface" => (UP.to_owned(), "name = \"lan0\"\n"),
        "upstream" if key == "domains" => (
            format!("{LAN}{UP}"),
            "name = \"b\"\nservers = [\"192.0.2.2\"]\n",
        ),
        "upstream" => (LAN.to_owned(), "name = \"b\"\n"),
        "protect" if key == "ports" => (
            format!("{LAN}{UP}"),
            "interface = \"lan1\"\naddresses = [\"192.0.2.9\"]\n",
        ),
        "view" if key == "interfaces" => (format!("{LAN}{UP}"), "name = \"a\"\n"),
        "view" => (
            format!("{LAN}{UP}[filter]\nblock_files = [\"/a\"]\n"),
            "name = \"a\"\ninterfaces = [\"lan0\"]\n",
        ),
        "nftset" if key == "names" => (format!("{LAN}{UP}"), "sets = [\"t#s\"]\n"),
        "nftset" => (format!("{LAN}{UP}"), "names = [\"lan\"]\n"),
        "protect" => (format!("{LAN}{UP}"), "interface = \"lan1\"\nports = [22]\n"),
        _ => (format!("{LAN}{UP}"), ""),
    }
}

/// One of each list, with its first and last elements invalid and the second valid.
#[test]
fn every_wrong_element_of_every_list_is_told_in_one_run() {
    let mut lists = 0;
    for (section, key, first, right, last) in [
        ("interface", "listen", "\"a\"", "\"10.53.0.1\"", "\"b\""),
        ("upstream", "servers", "\"a b\"", "\"192.0.2.1\"", "5"),
        (
            "upstream",
            "domains",
            "\"a..b\"",
            "\"lan\"",
            "\"10.1.0.1/20\"",
        ),
        (
            "forward",
            "bogus_nxdomain",
            "\"a\"",
            "\"192.0.2.1\"",
            "\"b\"",
        ),
        ("local", "records", "1", "\"a A 192.0.2.1\"", "2"),
        ("local", "hosts", "\"a\"", "\"/a\"", "\"b\""),
        ("local", "dnsmasq_leases", "\"a\"", "\"/a\"", "\"b\""),
        ("local", "odhcpd_leases", "\"a\"", "\"/a\"", "\"b\""),
        ("local", "zones", "\"a b\"", "\"lan\"", "\"c d\""),
        ("local", "never_leased", "\"a b\"", "\"wpad\"", "\"c d\""),
        ("local", "special", "\"a\"", "\"test\"", "\"b\""),
        ("filter", "block_files", "\"a\"", "\"/a\"", "\"b\""),
        ("filter", "allow_files", "\"a\"", "\"/a\"", "\"b\""),
        ("filter", "compiled", "\"a\"", "\"/a\"", "\"b\""),
        ("filter", "block", "\"a b\"", "\"ads.example\"", "\"c d\""),
        ("filter", "allow", "\"a b\"", "\"ads.example\"", "\"c d\""),
        ("rebind", "ranges", "\"a\"", "\"private\"", "\"b\""),
        ("rebind", "allow", "\"a b\"", "\"lan\"", "\"c d\""),
        ("dns64", "exclude", "\"a\"", "\"2001:db8::/32\"", "\"b\""),
        ("nftset", "names", "\"a b\"", "\"lan\"", "\"c d\""),
        ("nftset", "sets", "\"a\"", "\"t#s\"", "\"b\""),
        ("access", "allow", "\"a\"", "\"192.0.2.1\"", "\"b\""),
        ("access", "refuse", "\"a\"", "\"192.0.2.1\"", "\"b\""),
        ("access", "drop", "\"a\"", "\"192.0.2.1\"", "\"b\""),
        ("access", "reflector_ports", "\"a\"", "7", "-1"),
        ("view", "clients", "\"a\"", "\"192.0.2.1\"", "\"b\""),
        ("view", "interfaces", "\"a b\"", "\"lan0\"", "\"c d\""),
        ("view", "lists", "\"a\"", "\"/a\"", "\"b\""),
        ("view", "block", "\"a b\"", "\"ads.example\"", "\"c d\""),
        ("view", "allow", "\"a b\"", "\"ads.example\"", "\"c d\""),
        (
            "web",
            "listen",
            "\"a\"",
            "\"192.0.2.1:80\"",
            "\"192.0.2.1\"",
        ),
        ("web", "allow", "\"a\"", "\"192.0.2.1\"", "\"b\""),
        ("web", "hosts", "\"a b\"", "\"lan\"", "\"*.lan\""),
        ("shield", "deny", "\"a\"", "\"192.0.2.1\"", "\"b\""),
        ("shield", "allow", "\"a\"", "\"192.0.2.1\"", "\"b\""),
        ("shield", "deny_files", "\"a\"", "\"/a\"", "\"b\""),
        ("shield", "allow_files", "\"a\"", "\"/a\"", "\"b\""),
        ("shield", "ports", "\"a\"", "22", "70000"),
        ("protect", "addresses", "\"a\"", "\"192.0.2.1\"", "\"b\""),
        ("protect", "ports", "\"a\"", "22", "70000"),
    ] {
        let (head, needed) = around(section, key);
        let heading = match section {
            "interface" | "upstream" | "view" | "nftset" | "protect" => format!("[[{section}]]\n"),
            section => format!("[{section}]\n"),
        };
        let text = format!("{head}{heading}{needed}{key} = [{first}, {right}, {last}]\n");
        let row = text.lines().count();
        let begin = format!("{key} = [").len() + 1;
        let end = begin + format!("{first}, {right}, ").len();
        let expected = [begin, end].map(|column| format!("{row}:{column} {section}.{key}"));
        assert_eq!(places(&text), expected, "{text}");
        lists += 1;
    }
    let is_list = |key: &&key::ConfigKey| (key.allowed)(key.range.as_ref()).starts_with("a list");
    let keys = schema::SECTIONS.iter().flat_map(|section| section.keys);
    // Besides those that have one element at the most, two of their kinds, secrets, or files that are read.
    let others = ["search", "addresses", "cookie_secrets", "files"];
    let many = keys
        .filter(is_list)
        .filter(|key| !others.contains(&key.name));
    assert_eq!(lists, many.count() + 1, "with the addresses of [[protect]]");
}

#[test]
fn of_many_faults_of_a_key_the_first_are_told_and_how_many_more_there_are() {
    let numbers: Vec<String> = (0..100).map(|number| format!("\n{number}")).collect();
    let zones = format!(
        "{LAN}{UP}[local]\nzones = [{}]\n[log]\nlevel = 3\n",
        numbers.join(",")
    );
    let said = errors_of(&zones);
    assert_eq!(said.len(), 22, "{said:#?}");
    assert!(said[0].starts_with("f:7:1: local.zones: 0: "), "{said:#?}");
    assert_eq!(said[20], "f:27:1: local.zones: and from here on 80 more");
    assert!(said[21].contains("log.level: 3"), "{said:#?}");
    let records: Vec<String> = (0..21).map(|n| format!("\"r{n} X y\"")).collect();
    let records = format!("{LAN}{UP}[local]\nrecords = [{}]\n", records.join(",\n"));
    let said = errors_of(&records);
    assert_eq!(said.len(), 21, "{said:#?}");
    assert_eq!(said[20], "f:26:1: local.records: and from here on 1 more");
}

/// A refused value has its default, or none: what would be wrong with that is no fault of the file.
#[test]
fn one_fault_does_not_make_another_one_up() {
    let group = |domains: &str| {
        format!(
            "{LAN}{UP}[[upstream]]\nname = \"b\"\nservers = [\"192.0.2.2\"]\ndomains = {domains}\n"
        )
    };
    let interface = |lines: &str| format!("{LAN}{lines}\n{UP}");
    let two = |lines: &str| format!("{LAN}[[interface]]\nname = \"lan0\"\n{lines}\n{UP}");
    for (text, key) in [
        (group("[\"10.1.0.1/20\"]"), "upstream.domains"),
        (group("[\"\"]"), "upstream.domains"),
        (group("5"), "upstream.domains"),
        (
            format!(
                "{LAN}[[upstream]]\nservers = [\"x\"]\n[[upstream]]\nname = \"b\"\nservers = [\"192.0.2.2\"]\ndomains = [\"lan\"]\n"
            ),
            "upstream.servers",
        ),
        (
            format!("{LAN}{UP}domains = [\"a..b\"]\n"),
            "upstream.domains",
        ),
        (interface("vlan = 5000\ninner_vlan = 7"), "interface.vlan"),
        (two("listen = [\"x\"]"), "interface.listen"),
        (two("port = 99999"), "interface.port"),
        (two("vlan = 5000"), "interface.vlan"),
        (
            two("port = 54\nxdp = \"fast\"")
                .replacen("\n", "\nxdp = \"off\"\n", 2)
                .replacen("xdp = \"off\"\n", "", 1),
            "interface.xdp",
        ),
        (
            format!("{LAN}{UP}[forward]\ngive_up_ms = \"x\"\n[cache]\nstale_after_ms = 10000\n"),
            "forward.give_up_ms",
        ),
        (
            format!("{LAN}{UP}[filter]\nanswer = \"address\"\naddresses = [\"x\"]\n"),
            "filter.addresses",
        ),
        (
            format!("{LAN}{UP}[filter]\nanswer = \"x\"\naddresses = [\"192.0.2.1\"]\n"),
            "filter.answer",
        ),
    ] {
        let places = places(&text);
        let [place] = places.as_slice() else {
            panic!("{text}{places:?}")
        };
        assert!(place.ends_with(&format!(" {key}")), "{text}{place}");
    }
}

/// Elements after a refused one keep their index.
#[test]
fn elements_behind_a_wrong_one_are_told_with_their_own_places() {
    let text = format!("{LAN}{UP}[shield]\nports = [\"x\", 22, 0, 22]\n");
    let expected = [
        "6:10 shield.ports",
        "6:19 shield.ports",
        "6:22 shield.ports",
    ];
    assert_eq!(places(&text), expected);
    let zeros =
        "[[protect]]\ninterface = \"lan1\"\naddresses = [\"192.0.2.9\"]\nports = [0, 22, 0]\n";
    let expected = ["8:10 protect.ports", "8:17 protect.ports"];
    assert_eq!(places(&format!("{LAN}{UP}{zeros}")), expected);
}

#[test]
fn a_domain_or_a_prefix_that_is_none_is_told_what_is_wrong_with_it() {
    let allowed = "allowed: a list, each a name, for itself and all below it, or a prefix such as \"10.1.0.0/20\", for its reverse zones";
    for (text, problem) in [
        (
            "10.1.0.1/20",
            "has bits set behind the prefix; is 10.1.0.0/20 meant?",
        ),
        (
            "10.0.0.0/0",
            "has bits set behind the prefix; is 0.0.0.0/0 meant?",
        ),
        (
            "fd00::/7",
            "has bits set behind the prefix; is fc00::/7 meant?",
        ),
        (
            "fd00::1/64",
            "has bits set behind the prefix; is fd00::/64 meant?",
        ),
        ("10.0.0.0/33", "has a length of more bits than the address"),
        ("::/129", "has a length of more bits than the address"),
        ("10.0.0.0/", "is not an address, or an address/length"),
        ("10.0.0.0/x", "is not an address, or an address/length"),
        (
            "",
            "names nothing; a group for all other names has no domains",
        ),
        ("10.1/16", "is neither a name nor a prefix"),
        ("a/b", "is neither a name nor a prefix"),
        ("10.1.0", ": a prefix has a length: \"10.1.0.0/24\""),
        (
            "10.0.0.0/255.0.0.0",
            "is not an address, or an address/length",
        ),
        (
            "*.corp.example",
            ": a domain means what is below it, too: \"corp.example\"",
        ),
        (
            "fe80::1%lan0",
            "names an interface behind %, and a prefix counts on all of them: without that",
        ),
        ("corp.example:53", "is not a domain: `:` is in none"),
    ] {
        for (section, key) in [("upstream", "domains"), ("rebind", "allow")] {
            let head = match section {
                "upstream" => {
                    format!("{LAN}{UP}[[upstream]]\nname = \"b\"\nservers = [\"192.0.2.2\"]\n")
                }
                _ => format!("{LAN}{UP}[rebind]\n"),
            };
            let said = errors_of(&format!("{head}{key} = [\"{text}\"]\n"));
            let space = if problem.starts_with(':') { "" } else { " " };
            let expected = format!("{section}.{key}: \"{text}\"{space}{problem}; {allowed}");
            assert!(
                said.len() == 1 && said[0].ends_with(&expected),
                "{said:#?}\n{expected}"
            );
        }
    }
    for text in [
        "10.1.0.0/20",
        "0.0.0.0/0",
        "::/0",
        "fd00::1",
        "192.0.2.1",
        ".",
        "corp.example.",
    ] {
        let text = format!("{LAN}{UP}[rebind]\nallow = [\"{text}\"]\n");
        assert!(Config::parse("f", &text).is_ok(), "{text}");
    }
    // For a name, a prefix is invalid, whether right or wrong.
    for (section, key, said) in [
        ("local", "zones", "is an address, a domain is wanted here"),
        (
            "local",
            "never_leased",
            "is an address, a domain is wanted here",
        ),
        ("filter", "block", "is an address: names are blocked"),
    ] {
        for prefix in ["10.1.0.0/20", "10.1.0.1/20", "fd00::/7"] {
            let errors = errors_of(&format!("{LAN}{UP}[{section}]\n{key} = [\"{prefix}\"]\n"));
            assert!(
                errors[0].contains(&format!("\"{prefix}\" {said}")),
                "{errors:?}"
            );
        }
    }
}

/// A browser names a host alone, and an address is never asked by a prefix of the other family.
#[test]
fn what_can_never_match_is_refused_with_what_was_meant() {
    for (section, key, value, problem) in [
        (
            "web",
            "hosts",
            "http://router.lan:9153/",
            "\"http://router.lan:9153/\" is more than a name: \"router.lan\"; allowed: ",
        ),
        (
            "web",
            "hosts",
            "router2.lan:9153",
            "is more than a name: \"router2.lan\"",
        ),
        (
            "web",
            "hosts",
            "*.lan",
            "\"*.lan\": each name is written out",
        ),
        (
            "web",
            "hosts",
            "192.168.1.1",
            "is an address: those are taken anyway",
        ),
        (
            "dns64",
            "exclude",
            "192.0.2.0/24",
            "\"192.0.2.0/24\" is of IPv4; allowed: a list of 0 to",
        ),
    ] {
        let text = format!("{SMALLEST}[{section}]\n{key} = [\"{value}\"]\n");
        let errors = errors_of(&text);
        let place = format!("f:6:{}: {section}.{key}: ", key.len() + 5);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].starts_with(&place) && errors[0].contains(problem),
            "{errors:?}"
        );
    }
    let text = format!("{SMALLEST}[web]\nhosts = [\"router.lan.\", \"a_b\"]\n");
    assert!(Config::parse("f", &text).is_ok());
}
