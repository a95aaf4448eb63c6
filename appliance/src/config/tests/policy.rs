//! Sections about names and clients: what is accepted, what is refused, and the input of policy.

use xdnsd_core::forward::via::Destination;
use xdnsd_core::policy::rebind::{Range, Ranges};
use xdnsd_core::policy::{Action, BlockAnswer, Kinds};

use super::super::*;
use super::SMALLEST;
use crate::compile::set::{PolicyInput, PolicySet};
use crate::compile::why::PolicyValue;
use crate::config::value::Value;

fn parsed(more: &str) -> Result<Config, Errors> {
    Config::parse("f", &format!("{SMALLEST}{more}"))
}

fn valid(more: &str) -> Config {
    parsed(more).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors_of(more: &str) -> Vec<String> {
    let errors = parsed(more).expect_err("a fault");
    errors.faults().iter().map(Fault::to_string).collect()
}

#[test]
fn an_empty_file_is_policys_default() {
    let (ours, mut theirs) = (valid("").policy(), PolicyInput::default());
    theirs.rebind.ranges = Ranges::NONE;
    theirs.acl.default = Action::Local;
    theirs.groups = vec!["default".into()];
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
}

/// Every key of policy, none at its default.
const EVERY_KEY: &str = "[local]\nrecords = [\"nas.lan A 192.168.1.10\"]\nhosts = [\"/etc/hosts\"]\n\
         dnsmasq_leases = [\"/tmp/dhcp.leases\"]\nodhcpd_leases = [\"/tmp/hosts/odhcpd\"]\nzones = [\"lan\"]\n\
         search = [\"lan\"]\nreverse = false\nttl = 1\nlease_ttl = 2\nspecial = [\"onion\"]\n\
         forward_plain_names = false\nnever_leased = [\"printer\"]\n\
         [filter]\nblock_files = [\"/a\"]\nallow_files = [\"/b\"]\ncompiled = [\"/c\"]\nblock = [\"ads.example\"]\n\
         allow = [\"ok.ads.example\"]\nanswer = \"address\"\naddresses = [\"fd00::1\", \"192.0.2.9\"]\nttl = 3\n\
         take_shrunk = true\n\
         [rebind]\nranges = [\"shared-space\"]\nallow = [\"plex.direct\"]\nallow_routed = false\n\
         [access]\nallow = [\"10.0.0.0/8\"]\nrefuse = [\"10.1.0.0/16\"]\ndrop = [\"10.1.1.1\"]\nothers = \"refuse\"\n\
         reflector_ports = [7, 1900]\n";

#[test]
fn what_policy_takes_can_be_found_in_the_file() {
    let groups =
        "[[upstream]]\nname = \"corp\"\nservers = [\"192.0.2.9\"]\ndomains = [\"corp.example\"]\n";
    let smallest = SMALLEST.replace("[upstream]", "[[upstream]]");
    let text = format!("{smallest}{groups}{EVERY_KEY}");
    let config = Config::parse("f", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let first = SMALLEST.lines().count() + groups.lines().count();
    let shown = |value| {
        let place = config.place_of(value);
        let line = place.line.map(|line| line - first);
        assert_eq!(place.file, Some("f".into()), "{value:?}");
        (place.key.unwrap_or_default(), line, place.text)
    };
    for (value, key, line, text) in [
        (
            PolicyValue::Client(0),
            "access.allow",
            29,
            Some("10.0.0.0/8"),
        ),
        (
            PolicyValue::Client(1),
            "access.refuse",
            30,
            Some("10.1.0.0/16"),
        ),
        (PolicyValue::Client(2), "access.drop", 31, Some("10.1.1.1")),
        (PolicyValue::OtherClients, "access.others", 32, None),
        (
            PolicyValue::Record(0),
            "local.records",
            2,
            Some("nas.lan A 192.168.1.10"),
        ),
        (PolicyValue::Zone(0), "local.zones", 6, Some("lan")),
        (PolicyValue::Special, "local.special", 11, None),
        (
            PolicyValue::PlainNames,
            "local.forward_plain_names",
            12,
            None,
        ),
        (
            PolicyValue::Block(0),
            "filter.block",
            18,
            Some("ads.example"),
        ),
        (
            PolicyValue::Allow(0),
            "filter.allow",
            19,
            Some("ok.ads.example"),
        ),
        (PolicyValue::RebindRouted, "rebind.allow_routed", 27, None),
        (
            PolicyValue::RebindAllow(0),
            "rebind.allow",
            26,
            Some("plex.direct"),
        ),
    ] {
        assert_eq!(shown(value), (key, Some(line), text.map(str::to_owned)));
    }
    let place = config.place_of(PolicyValue::Suffix { route: 0, index: 0 });
    assert_eq!(place.text.as_deref(), Some("corp.example"));
    assert_eq!(place.line, Some(first));
    // Without a key its default holds.
    let place = valid("").place_of(PolicyValue::Special);
    assert_eq!((place.key, place.file), (Some("local.special"), None));
}

#[test]
fn every_key_of_access_reaches_policy() {
    let input = valid(EVERY_KEY).policy();
    let words: Vec<_> = input
        .acl
        .rules
        .iter()
        .map(|(prefix, action)| (prefix.to_string(), *action))
        .collect();
    let rule = |text: &str, action| (text.to_owned(), action);
    assert_eq!(
        words,
        [
            rule("10.0.0.0/8", Action::Allow),
            rule("10.1.0.0/16", Action::Refuse),
            rule("10.1.1.1/32", Action::Drop),
        ]
    );
    assert_eq!(input.acl.default, Action::Refuse);
    assert_eq!(input.reflector_ports, [7, 1900]);
    assert_eq!(valid("").policy().reflector_ports, [7, 13, 17, 19, 37]);
}

#[test]
fn every_key_of_local_data_reaches_policy() {
    let input = valid(EVERY_KEY).policy();
    let local = &input.local;
    assert_eq!(local.records, ["nas.lan A 192.168.1.10"]);
    assert_eq!(local.hosts, [Path::new("/etc/hosts")]);
    let leases: Vec<String> = local
        .leases
        .iter()
        .map(|file| format!("{file:?}"))
        .collect();
    assert!(
        leases[0].contains("/tmp/dhcp.leases") && leases[0].contains("Dnsmasq"),
        "{leases:?}"
    );
    assert!(
        leases[1].contains("/tmp/hosts/odhcpd") && leases[1].contains("Odhcpd"),
        "{leases:?}"
    );
    assert_eq!(
        (&local.zones[..], local.search_domain.as_deref()),
        (&["lan".to_owned()][..], Some("lan"))
    );
    assert_eq!(
        (local.reverse, local.ttl_secs, local.lease_ttl_secs),
        (false, 1, 2)
    );
    assert_eq!(input.special, Kinds::NONE.with(SpecialWord::Onion.into()));
    assert!(!input.local.forward_plain_names);
    assert_eq!(local.never_leased, ["printer"]);
}

#[test]
fn every_key_of_filter_and_rebind_reaches_policy() {
    let input = valid(EVERY_KEY).policy();
    let lists = &input.lists;
    assert!(lists.take_shrunk);
    let files =
        [&lists.block, &lists.allow, &lists.compiled].map(|files| files[0].display().to_string());
    assert_eq!(files, ["/a", "/b", "/c"]);
    assert_eq!(
        (&lists.block_names[0][..], &lists.allow_names[0][..]),
        ("ads.example", "ok.ads.example")
    );
    let v6 = "fd00::1"
        .parse::<std::net::Ipv6Addr>()
        .expect("an address")
        .octets();
    assert_eq!(
        lists.answer,
        BlockAnswer::Address {
            v4: Some([192, 0, 2, 9]),
            v6: Some(v6)
        }
    );
    assert_eq!(lists.ttl_secs, 3);
    assert_eq!(input.rebind.ranges, Ranges::NONE.with(Range::SharedSpace));
    assert_eq!(
        (&input.rebind.allowed[0][..], input.rebind.allow_routed),
        ("plex.direct", false)
    );
}

#[test]
fn every_word_for_an_answer_has_its_meaning() {
    for (word, answer) in [
        ("nxdomain", BlockAnswer::Nxdomain),
        ("nodata", BlockAnswer::Nodata),
        ("zero", BlockAnswer::ZeroAddress),
    ] {
        assert_eq!(
            valid(&format!("[filter]\nanswer = \"{word}\"\n"))
                .policy()
                .lists
                .answer,
            answer
        );
    }
    for (word, _) in SpecialWord::WORDS {
        let kind: xdnsd_core::policy::special::SpecialUse =
            word.parse::<SpecialWord>().expect("a word").into();
        assert_eq!(kind.word(), *word, "the config's word is the kind's own");
    }
}

#[test]
fn groups_are_numbered_with_the_default_first() {
    let text = "[[interface]]\nname = \"lan0\"\n\
                [[upstream]]\nname = \"corp\"\nservers = [\"192.0.2.2\"]\ndomains = [\"corp.example\", \"10.0.0.0/8\"]\n\
                [[upstream]]\nservers = [\"192.0.2.1\", \"192.0.2.3\"]\n\
                [[upstream]]\nname = \"lab\"\nservers = [\"192.0.2.4\"]\ndomains = [\"lab.example\"]\ntrusted = true\n";
    let config = Config::parse("f", text).expect("valid");
    let routes = config.policy().routes;
    assert_eq!(
        routes.iter().map(|route| route.group).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(routes[0].suffixes, ["corp.example", "10.0.0.0/8"]);
    let plan = Plan {
        servers: vec![vec![addr(2)], vec![addr(1), addr(3)], vec![addr(4)]],
        ..Plan::default()
    };
    let servers: Vec<_> = config
        .servers(&plan)
        .iter()
        .map(|server| (server.to, server.group, server.trusted))
        .collect();
    assert_eq!(
        servers,
        [
            (addr(1), 0, false),
            (addr(3), 0, false),
            (addr(2), 1, false),
            (addr(4), 2, true)
        ]
    );
    PolicySet::build(
        &config.policy(),
        None,
        &mut crate::compile::Notes::default(),
    )
    .expect("policy takes it");
}

fn addr(last: u8) -> Destination {
    std::net::SocketAddr::from(([192, 0, 2, last], 53)).into()
}

#[test]
fn groups_that_cannot_be_told_apart_are_refused() {
    let groups = |groups: &str| {
        let text = format!("[[interface]]\nname = \"lan0\"\n{groups}");
        let errors = Config::parse("f", &text).expect_err("a fault");
        errors.to_string()
    };
    let group = |keys: &str| format!("[[upstream]]\nservers = [\"192.0.2.1\"]\n{keys}\n");
    assert_eq!(
        groups(&[group(""), group("name = \"b\"")].concat()),
        "f:6:1: upstream: this group and \"default\" both have no domains; allowed: one group without domains"
    );
    assert_eq!(
        groups(&[group(""), group("domains = [\"a\"]")].concat()),
        "f:6:1: upstream.name: \"default\" is the name of an earlier group; allowed: a name of its own"
    );
    let corp = group("name = \"b\"\ndomains = [\"a\", \"10.0.0.0/8\"]");
    let lab = group("name = \"c\"\ndomains = [\"b\", \"10.in-addr.arpa\"]");
    assert_eq!(
        groups(&[group(""), corp, lab].concat()),
        "f:13:17: upstream.domains: 10.in-addr.arpa belongs to group \"b\" already; allowed: each name in one group"
    );
    assert_eq!(
        groups(&group("domains = [\"a\"]")),
        "f:3:3: upstream: every group has domains; allowed: one group without domains, for all other names"
    );
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (more, error) in [
        (
            "[local]\nrecords = [\"a.lan A 192.0.2.1\", \"a.lan A 192.0.2\"]\n",
            "f:6:33: local.records: `a.lan A 192.0.2`: A `192.0.2` is not an IPv4 address; allowed: \"NAME [TTL] TYPE DATA\" as in a zone file, the TTL in seconds",
        ),
        (
            "[filter]\nanswer = \"address\"\n",
            "f:6:1: filter.answer: \"address\" needs addresses to answer with; allowed: with addresses = [\"192.0.2.1\"], for example",
        ),
        (
            "[filter]\nanswer = \"address\"\naddresses = [\"192.0.2.1\", \"192.0.2.2\"]\n",
            "f:7:27: filter.addresses: 192.0.2.2 is a second of its kind; allowed: one IPv4 and one IPv6 address",
        ),
        (
            "[access]\nallow = [\"10.0.0.0/8\"]\ndrop = [\"10.0.0.0/8\"]\n",
            "f:7:9: access.drop: 10.0.0.0/8 stands twice; allowed: each network once",
        ),
        (
            "[access]\nallow = [\"10.0.0.1/8\"]\n",
            "f:6:10: access.allow: \"10.0.0.1/8\" has bits set behind the prefix; is 10.0.0.0/8 meant?; allowed: a list of 0 to 1024, each a prefix such as \"192.168.1.0/24\", or an address",
        ),
        (
            "[access]\nreflector_ports = [7, 53]\n",
            "f:6:23: access.reflector_ports: other forwarders ask from port 53; allowed: each port from 1 to 65535 but 53, once",
        ),
        (
            "[access]\nreflector_ports = [0]\n",
            "f:6:20: access.reflector_ports: nobody asks from port 0, and it never gets an answer; allowed: each port from 1 to 65535 but 53, once",
        ),
        (
            "[access]\nreflector_ports = [7, 7]\n",
            "f:6:23: access.reflector_ports: this port stands twice; allowed: each port from 1 to 65535 but 53, once",
        ),
        (
            "[access]\nreflector_ports = [70000]\n",
            "f:6:20: access.reflector_ports: 70000 is out of range; allowed: a list of 0 to 16, each an integer from 0 to 65535",
        ),
        (
            "[rebind]\nranges = [\"lan\"]\n",
            "f:6:11: rebind.ranges: `lan` is not a word that is known here; allowed: a list, each \"private\", \"loopback\", \"link-local\", \"unique-local\", \"this-host\", \"shared-space\"",
        ),
        (
            "[edns]\ncookies = false\nnocookie_udp_size = 600\n",
            "f:7:1: edns.nocookie_udp_size: without cookies nobody can prove an address; allowed: cookies = true, or 1232",
        ),
        (
            "[edns]\nnocookie_udp_size = 100\n",
            "f:6:21: edns.nocookie_udp_size: 100 is out of range; allowed: an integer from 512 to 1232",
        ),
    ] {
        assert_eq!(errors_of(more), [error]);
    }
}

#[test]
fn a_file_among_names_is_told_where_it_belongs() {
    for (entry, told) in [
        (
            "/etc/ads.txt",
            "a file belongs into block_files or allow_files",
        ),
        (
            "||ads.example^",
            "a name alone, with all below it: \"ads.example\"",
        ),
        ("a|b", "has characters that a host name may not have"),
        ("192.0.2.7", "is an address: names are blocked"),
        ("2001:db8::/32", "is an address: names are blocked"),
    ] {
        let [error] = &errors_of(&format!("[filter]\nblock = [\"{entry}\"]\n"))[..] else {
            panic!("one error")
        };
        assert!(error.contains(told) && error.contains(entry), "{error}");
        assert!(error.contains("files belong to block_files"), "{error}");
    }
    valid("[filter]\nblock = [\"*.ads.example\", \"ADS.example.\"]\nallow = [\"a_b.example\"]\n");
}

#[test]
fn a_secret_does_not_show_in_an_error() {
    let errors = errors_of("[edns]\ncookie_secrets = [\"00112233445566778899aabbccddeefg\"]\n");
    assert!(
        errors[0].starts_with("f:6:19: edns.cookie_secrets: this is not a secret"),
        "{errors:?}"
    );
    assert!(!errors[0].contains("00112233"), "{errors:?}");
}

/// Names that nobody can have: the others are served.
#[test]
fn aliases_in_a_circle_are_a_warning_with_their_line() {
    let config = valid(
        "[local]\nsearch = [\"lan\"]\nrecords = [\n\"nas A 192.168.1.2\",\n\"www.lan CNAME nas.lan\",\n\
         \"a.lan CNAME b.lan\",\n  \"b.lan CNAME A.lan\",\n\"c CNAME a\"]\n",
    );
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    let circle = |line: usize, path: &str| {
        format!("f:{line}:1: local.records: aliases (CNAME) in a circle, answered SERVFAIL: {path}")
    };
    let expected = [
        circle(10, "a.lan -> b.lan -> a.lan"),
        circle(12, "c -> a -> b.lan -> a.lan -> b.lan"),
    ];
    assert_eq!(warnings, expected);
}
