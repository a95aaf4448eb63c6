use std::net::SocketAddr;
use std::path::Path;

use super::*;
use crate::compile::acl::AclInput;
use crate::compile::hosts::LeaseFormat;
use crate::compile::list_file;
use crate::compile::lists::ListPurpose;
use crate::compile::local::{LeaseFile, LocalInput};
use crate::compile::name;
use crate::compile::routes::RouteInput;
use crate::compile::set::{Dns64Input, ListsInput, RebindInput, ViewInput};
use crate::compile::{Notes, PolicySet};
use crate::testing::Folder;
use xdnsd_core::forward::upstreams::{Strategy, UpstreamConfig};
use xdnsd_core::policy::rebind::Ranges;
use xdnsd_core::policy::special::SpecialUse;
use xdnsd_core::policy::{Kinds, TranslationPrefix};

/// A policy in which every source has a statement.
fn input(folder: &Folder) -> PolicyInput {
    let ads = folder.write("ads.txt", "! ads\n||ads.example^\n@@||good.ads.example^\n");
    let lease = folder.write("leases", "0 m1 192.0.2.5 phone *\n");
    let compiled = folder.path().join("compiled.list");
    let text = folder.write("text", "compiled.example\n");
    let (image, _) = list_file::compile(&[(text, ListPurpose::Block)]).expect("compiled");
    list_file::write(&compiled, &image).expect("written");
    PolicyInput {
        acl: AclInput {
            rules: vec![
                ("10.0.0.0/8".parse().expect("a prefix"), Action::Allow),
                ("10.9.0.0/16".parse().expect("a prefix"), Action::Drop),
            ],
            default: Action::Refuse,
        },
        servers: vec![server("192.0.2.53:53", 0), server("192.0.2.54:53", 1)],
        groups: vec!["default".into(), "corp".into()],
        local: LocalInput {
            records: vec![
                "www.lan CNAME out.corp.example".into(),
                "nas.lan A 192.0.2.1".into(),
                "a.lan CNAME b.lan".into(),
                "b.lan CNAME a.lan".into(),
            ],
            hosts: vec![folder.write("hosts", "\n192.0.2.3 tv\n")],
            leases: vec![LeaseFile {
                path: lease,
                format: LeaseFormat::Dnsmasq,
            }],
            zones: vec!["lan".into(), "localhost".into()],
            search_domain: Some("lan".into()),
            forward_plain_names: false,
            ..LocalInput::default()
        },
        lists: ListsInput {
            block: vec![ads],
            allow: vec![folder.write("allow.txt", "fine.example\n")],
            compiled: vec![compiled],
            block_names: vec!["other.example".into(), "shop.example".into()],
            allow_names: vec!["my.shop.example".into()],
            ..ListsInput::default()
        },
        routes: vec![RouteInput {
            suffixes: vec!["x.example".into(), "corp.example".into()],
            group: 1,
        }],
        rebind: RebindInput {
            allowed: vec!["plex.example".into()],
            ..RebindInput::default()
        },
        ..PolicyInput::default()
    }
}

fn server(address: &str, group: u8) -> UpstreamConfig {
    UpstreamConfig {
        to: address.parse::<SocketAddr>().expect("an address").into(),
        group,
        trusted: false,
        edns: true,
        strategy: Strategy::Fastest,
    }
}

/// Statements, a line each: files without their folder.
fn explained(input: &PolicyInput, folder: &Folder, words: &str) -> Vec<String> {
    let mut notes = Notes::default();
    let set = PolicySet::build(input, None, &mut notes).expect("compiled");
    let mut words = words.split(' ');
    let name = words.next().expect("a name");
    let question = WhyQuestion {
        device: 0,
        name: name::parse(name).expect("a name"),
        qtype: words.next().and_then(|word| word.parse().ok()).unwrap_or(1),
        client: words.next().map(|word| word.parse().expect("an address")),
    };
    let place_of = |value| Location {
        text: Some(format!("{value:?}")),
        ..Location::default()
    };
    let why = explain(&set, input, &place_of, question);
    let mut lines = vec![format!("{:?}", why.handling)];
    lines.extend(
        why.reasons
            .iter()
            .map(|reason| shown(reason, folder.path())),
    );
    if why.target != why.question.name {
        lines.push(name::display(&why.target));
    }
    lines
}

fn shown(reason: &Statement, folder: &Path) -> String {
    let Statement {
        source,
        what,
        record,
        place,
    } = reason;
    let given = record.as_ref();
    let given = given.map(|given| format!("{} {}", name::display(&given.owner), given.rtype));
    let place = place.clone().unwrap_or_default();
    let file = place.file.unwrap_or_default();
    let file = file.rsplit('/').next().unwrap_or_default();
    assert!(file.is_empty() || folder.join(file).exists());
    let line = place.line.map_or(String::new(), |line| format!(":{line}"));
    let text = place.text.unwrap_or_default();
    let what = given.unwrap_or_else(|| what.clone());
    format!("{}: {what}; {file}{line} {text}", source.word())
}

const TO_DEFAULT: &str = "route: group `default`: 192.0.2.53:53;  ";
const WITHHELD: &str = "rebind: private addresses are withheld;  ";

const TO_CORP: &str = "route: group `corp`: 192.0.2.54:53;  Suffix { route: 0, index: 1 }";
const ROUTED: &str = "rebind: private addresses are let through;  RebindRouted";

fn assert_explained(cases: &[(&str, &[&str])]) {
    let folder = Folder::new();
    let input = input(&folder);
    for (question, lines) in cases {
        assert_eq!(explained(&input, &folder, question), *lines, "{question}");
    }
}

#[test]
fn what_is_answered_here_is_traced_to_who_says_it() {
    assert_explained(&[
        ("nas.lan", &["Local", "record: nas.lan. 1;  Record(1)"][..]),
        (
            "nas.lan 28",
            &[
                "Local",
                "record: nas.lan. 1;  Record(1)",
                "zone: lan. has no record of this type;  Zone(0)",
            ],
        ),
        ("nas.lan 255", &["Any", "record: nas.lan. 1;  Record(1)"]),
        ("www.lan 255", &["Local", "record: www.lan. 5;  Record(0)"]),
        (
            "lan 6",
            &["Local", "zone: lan. has this record of its own;  Zone(0)"],
        ),
        (
            "no.lan 255",
            &["Local", "zone: lan. has no such name;  Zone(0)"],
        ),
        (
            "no.lan",
            &["Local", "zone: lan. has no such name;  Zone(0)"],
        ),
        (
            "tv.lan",
            &["Local", "hosts: tv.lan. 1; hosts:2 192.0.2.3 tv"],
        ),
        (
            "phone",
            &["Local", "lease: phone. 1; leases:1 0 m1 192.0.2.5 phone *"],
        ),
        (
            "x.localhost",
            &[
                "Special",
                "special: localhost. is of the family `localhost`;  Special",
            ],
        ),
    ]);
}

#[test]
fn what_is_blocked_or_allowed_is_traced_to_its_line() {
    assert_explained(&[
        (
            "x.ads.example",
            &[
                "Blocked(Nxdomain, 60)",
                "block: blocked; ads.txt:2 ||ads.example^",
            ],
        ),
        (
            "shop.example",
            &["Blocked(Nxdomain, 60)", "block: blocked;  Block(1)"],
        ),
        (
            "compiled.example",
            &["Blocked(Nxdomain, 60)", "block: blocked; compiled.list "],
        ),
        (
            "good.ads.example",
            &[
                "Forwarded",
                "allow: allowed; ads.txt:3 @@||good.ads.example^",
                TO_DEFAULT,
                WITHHELD,
            ],
        ),
        (
            "my.shop.example",
            &[
                "Forwarded",
                "allow: allowed, whatever blocks it;  Allow(0)",
                TO_DEFAULT,
                WITHHELD,
            ],
        ),
        (
            "fine.example",
            &[
                "Forwarded",
                "allow: allowed, whatever blocks it; allow.txt:1 fine.example",
                TO_DEFAULT,
                WITHHELD,
            ],
        ),
    ]);
}

#[test]
fn what_is_asked_for_upstream_is_traced_to_its_route() {
    assert_explained(&[
        (
            "plain",
            &[
                "PlainName",
                "plain-name: names of one label are not asked for upstream;  PlainNames",
            ],
        ),
        ("corp.example", &["Forwarded", TO_CORP, ROUTED]),
        // The parent knows whether a zone is signed.
        ("corp.example 43", &["Forwarded", TO_DEFAULT, ROUTED]),
        (
            "x.plex.example",
            &[
                "Forwarded",
                TO_DEFAULT,
                "rebind: private addresses are let through;  RebindAllow(0)",
            ],
        ),
        (
            "www.lan",
            &[
                "Forwarded",
                "record: www.lan. 5;  Record(0)",
                TO_CORP,
                ROUTED,
                "out.corp.example.",
            ],
        ),
        (
            "www.example 255",
            &[
                "Any",
                "type: all types at once are not asked for upstream;  ",
            ],
        ),
        (
            "www.example 252",
            &["Refused", "type: nothing that a forwarder has;  "],
        ),
    ]);
    let folder = Folder::new();
    let input = input(&folder);
    let endless = explained(&input, &folder, "a.lan");
    assert_eq!(endless[0], "Endless");
    assert_eq!(endless.len(), 1 + CHAIN_MAX + 1 + 1 + 1, "{endless:?}");
}

#[test]
fn a_client_that_is_not_answered_ends_it() {
    let folder = Folder::new();
    let input = input(&folder);
    let of = |client: &str| explained(&input, &folder, &format!("nas.lan 1 {client}"));
    let record = "record: nas.lan. 1;  Record(1)";
    assert_eq!(
        of("::ffff:10.1.2.3"),
        ["Local", "access: 10.1.2.3 is answered;  Client(0)", record]
    );
    assert_eq!(
        of("10.9.0.1"),
        ["Dropped", "access: 10.9.0.1 gets no answer;  Client(1)"]
    );
    assert_eq!(
        of("2001:db8::1"),
        ["Refused", "access: 2001:db8::1 is refused;  OtherClients"]
    );
}

/// 8.8.4.4 and 10.0.0.1 below 2001:db8:64::/96.
const MADE: &str = "4.0.4.0.8.0.8.0.0.0.0.0.0.0.0.0.0.0.0.0.4.6.0.0.8.b.d.0.1.0.0.2.ip6.arpa 12";
const MADE_HERE: &str =
    "1.0.0.0.0.0.a.0.0.0.0.0.0.0.0.0.0.0.0.0.4.6.0.0.8.b.d.0.1.0.0.2.ip6.arpa 12";

#[test]
fn what_dns64_makes_is_traced_to_who_has_it() {
    let folder = Folder::new();
    let prefix = TranslationPrefix::new("2001:db8:64::".parse().expect("an address"), 96);
    let base = PolicyInput {
        lists: ListsInput::default(),
        rebind: RebindInput {
            ranges: Ranges::NONE,
            ..RebindInput::default()
        },
        special: Kinds::NONE.with(SpecialUse::PrivateReverse),
        ..input(&folder)
    };
    let with = |is_for_all, own| PolicyInput {
        dns64: Dns64Input {
            prefix,
            is_for_all,
            exclude: Vec::new(),
        },
        views: vec![ViewInput {
            name: "guests".into(),
            clients: vec!["10.66.0.0/16".parse().expect("a prefix")],
            has_local_names: true,
            dns64: own,
            ..ViewInput::default()
        }],
        ..base.clone()
    };
    let made = |place: &str| {
        format!("dns64: without IPv6 addresses, some are made of the IPv4 ones;  {place}")
    };
    let of_all = with(true, None);
    let route = TO_DEFAULT.to_owned();
    let aaaa = explained(&of_all, &folder, "www.example 28");
    assert_eq!(aaaa, ["Forwarded".into(), route.clone(), made("Dns64")]);
    let a = explained(&of_all, &folder, "www.example 1");
    assert_eq!(a, ["Forwarded".into(), route.clone()]);
    let v4 =
        |name: &str| format!("dns64: the address is made of that of {name}.in-addr.arpa.;  Dns64");
    let forwarded = explained(&of_all, &folder, MADE);
    assert_eq!(
        forwarded,
        ["Forwarded".into(), v4("4.4.8.8"), route.clone()]
    );
    let here = explained(&of_all, &folder, MADE_HERE);
    let special = "special: 10.in-addr.arpa. is of the family `private-reverse`;  Special";
    assert_eq!(here, ["Special".into(), v4("1.0.0.10"), special.into()]);
    let discovery = explained(&of_all, &folder, "ipv4only.arpa 28");
    let learned = "dns64: clients learn the prefix by this name;  Dns64";
    assert_eq!(discovery, ["Local", learned]);
    let by_view = with(false, Some(true));
    let guest = explained(&by_view, &folder, "www.example 28 10.66.0.1");
    let own = made("View { view: 0, key: Dns64 }");
    assert_eq!(guest.last(), Some(&own));
    let other = explained(&by_view, &folder, "www.example 28 10.1.0.1");
    assert_eq!(other.last(), Some(&route));
}

/// The list in force differs from the file by now: the file is named, without a line.
#[test]
fn a_file_that_has_changed_since_is_named_without_a_line() {
    let folder = Folder::new();
    let input = input(&folder);
    let mut notes = Notes::default();
    let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
    folder.write("ads.txt", "changed.example\n");
    let question = WhyQuestion {
        device: 0,
        name: name::parse("ads.example").expect("a name"),
        qtype: 1,
        client: None,
    };
    let why = explain(&set, &input, &|_| Location::default(), question);
    let place = why.reasons[0].place.clone().expect("a file");
    assert!(place.file.is_some_and(|file| file.ends_with("/ads.txt")));
    assert_eq!((place.line, place.text), (None, None));
}
