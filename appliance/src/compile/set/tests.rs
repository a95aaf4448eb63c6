//! Tests of the order in which policy decides, and of its parts together.

use super::*;
use crate::compile::list_file;
use crate::compile::lists::ListPurpose;
use crate::compile::name;
use crate::testing::Folder;
use xdnsd_core::dns::rtype;
use xdnsd_core::policy::special::SpecialUse;
use xdnsd_core::policy::{Action, Decision, Finding, Labels};

fn build(input: &PolicyInput) -> PolicySet {
    PolicySet::build(input, None, &mut Notes::default()).expect("compiled")
}

fn decide(set: &PolicySet, question: &str, qtype: u16) -> String {
    let name = name::parse(question).expect("a name");
    let labels = Labels::new(&name).expect("well-formed");
    match set.view().decide(&labels, qtype) {
        Decision::Local(local) => {
            let local = format!("{local:?}");
            format!(
                "local {}",
                local.split([' ', '(']).next().unwrap_or_default()
            )
        }
        Decision::Special(special) => format!("special {:?}", special.kind),
        Decision::Blocked(blocked) => format!("blocked by {}", set.source(0, blocked)),
        Decision::PlainName => "plain name".into(),
        Decision::Forward { group } => format!("group {group}"),
    }
}

/// Each question, a name and a type, has its decision beside it.
fn check(set: &PolicySet, cases: &[(&str, u16, &str)]) {
    for (question, qtype, wanted) in cases {
        assert_eq!(decide(set, question, *qtype), *wanted, "{question} {qtype}");
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.into()).collect()
}

/// One name per border between two neighbours of the order.
#[test]
fn local_data_then_special_names_then_lists_then_routes() {
    let mut input = PolicyInput::default();
    input.local.records = texts(&[
        "ads.example A 192.168.1.1",
        "x.test A 192.168.1.2",
        "corp.example A 192.168.1.3",
    ]);
    input.local.zones = texts(&["lan"]);
    input.lists.block_names = texts(&["example", "onion", "lan", "corp.example"]);
    input.lists.allow_names = texts(&["ok.example"]);
    input.routes = vec![RouteInput {
        suffixes: texts(&["corp.example", "ok.example"]),
        group: 3,
    }];
    input.special = input.special.with(SpecialUse::Test);
    let set = build(&input);
    check(
        &set,
        &[
            // Before the lists.
            ("ads.example", rtype::A, "local Records"),
            ("ads.example", rtype::AAAA, "local Nodata"),
            // Before special names.
            ("x.test", rtype::A, "local Records"),
            // Before routes.
            ("corp.example", rtype::A, "local Records"),
            ("y.test", rtype::A, "special Test"),
            // Before the lists.
            ("y.onion", rtype::A, "special Onion"),
            // Before the lists.
            ("z.lan", rtype::A, "local Nxdomain"),
            ("other.example", rtype::A, "blocked by filter.block"),
            // Before routes.
            ("x.corp.example", rtype::A, "blocked by filter.block"),
            ("ok.example", rtype::A, "group 3"),
            ("example.org", rtype::A, "group 0"),
        ],
    );
}

#[test]
fn a_route_opens_a_special_zone_or_a_local_zone() {
    let mut input = PolicyInput::default();
    input.local.zones = texts(&["lan", "ads.lan"]);
    input.local.records = texts(&["nas.lan A 192.168.1.2"]);
    let set = build(&input);
    for (name, before) in [
        ("x.onion", "special Onion"),
        ("1.1.168.192.in-addr.arpa", "special PrivateReverse"),
        ("a.sub.lan", "local Nxdomain"),
    ] {
        assert_eq!(decide(&set, name, rtype::PTR), before);
    }
    input.routes = vec![
        RouteInput {
            suffixes: texts(&["onion", "192.168.1.0/24"]),
            group: 1,
        },
        RouteInput {
            suffixes: texts(&["sub.lan", "arpa"]),
            group: 2,
        },
    ];
    let set = build(&input);
    check(
        &set,
        &[
            // The special zone itself is routed.
            ("x.onion", rtype::A, "group 1"),
            // A part of it is.
            ("1.1.168.192.in-addr.arpa", rtype::PTR, "group 1"),
            // Another part is.
            (
                "1.2.168.192.in-addr.arpa",
                rtype::PTR,
                "special PrivateReverse",
            ),
            // A route above the zone does not apply to it.
            ("home.arpa", rtype::A, "special HomeArpa"),
            ("a.sub.lan", rtype::A, "group 2"),
            ("a.lan", rtype::A, "local Nxdomain"),
            ("nas.lan", rtype::A, "local Records"),
        ],
    );
}

#[test]
fn plain_names_stay_at_home_unless_routed() {
    let mut input = PolicyInput::default();
    input.local.forward_plain_names = false;
    input.routes = vec![
        RouteInput {
            suffixes: texts(&["intranet"]),
            group: 1,
        },
        RouteInput {
            suffixes: texts(&["."]),
            group: 2,
        },
    ];
    let set = build(&input);
    check(
        &set,
        &[
            ("printer", rtype::A, "plain name"),
            ("intranet", rtype::A, "group 1"),
            ("org", rtype::NS, "group 2"),
            ("example.org", rtype::A, "group 2"),
        ],
    );
}

#[test]
fn rebinding_is_allowed_to_named_and_to_routed_suffixes() {
    let mut input = PolicyInput::default();
    input.rebind.allowed = texts(&["plex.direct"]);
    input.routes = vec![RouteInput {
        suffixes: texts(&["corp.example"]),
        group: 1,
    }];
    let guards = |input: &PolicyInput, name: &str| {
        let name = name::parse(name).expect("a name");
        let set = build(input);
        let rebind = set.view().rebind;
        assert!(matches!(
            rebind.inspect(rtype::A, &[10, 0, 0, 1], None),
            Finding::Rebind(_)
        ));
        rebind.guards(&Labels::new(&name).expect("well-formed"))
    };
    assert!(guards(&input, "www.example.org"));
    assert!(!guards(&input, "a.plex.direct"));
    assert!(!guards(&input, "db.corp.example"));
    input.rebind.allow_routed = false;
    assert!(guards(&input, "db.corp.example"));
}

#[test]
fn text_and_compiled_lists_are_in_force_together() {
    let folder = Folder::new();
    let text = folder.write("ads.txt", "ads.example\nok.mapped.example\n");
    let allow = folder.write("allow.txt", "fine.mapped.example\n");
    let source = folder.write("source.txt", "mapped.example\n@@||ads.example^\n");
    let compiled = folder.path().join("mapped.list");
    let (image, _) = list_file::compile(&[(source, ListPurpose::Block)]).expect("compiled");
    list_file::write(&compiled, &image).expect("written");
    let mut input = PolicyInput::default();
    input.lists.block = vec![text.clone()];
    input.lists.allow = vec![allow];
    input.lists.compiled = vec![compiled.clone()];
    let set = build(&input);
    assert_eq!(
        decide(&set, "ok.mapped.example", rtype::A),
        format!("blocked by {}", text.display())
    );
    assert_eq!(
        decide(&set, "x.mapped.example", rtype::A),
        format!("blocked by {}", compiled.display())
    );
    check(
        &set,
        &[
            // Allowed by the text, blocked by the file.
            ("x.fine.mapped.example", rtype::A, "group 0"),
            // Blocked by the text, allowed by the file.
            ("ads.example", rtype::A, "group 0"),
        ],
    );
    assert_eq!(set.listed_names(), 5);
    let mut rules: Vec<_> = set
        .list_rules()
        .into_iter()
        .map(|(file, purpose, rules)| {
            let name = file.rsplit('/').next().map(str::to_owned);
            (name.unwrap_or_default(), purpose, rules)
        })
        .collect();
    rules.sort();
    let expected = [
        ("ads.txt", "block", 2),
        ("allow.txt", "allow", 1),
        ("mapped.list", "block", 2),
    ];
    assert_eq!(
        rules,
        expected.map(|(file, purpose, rules)| (file.into(), purpose, rules))
    );
    input.lists.compiled = vec![compiled; COMPILED_MAX + 1];
    let error = PolicySet::build(&input, None, &mut Notes::default())
        .expect_err("too many")
        .to_string();
    assert_eq!(
        error,
        "filter.compiled: 4 compiled lists are too many; allowed: 3"
    );
}

#[test]
fn clients_and_faults_of_the_config() {
    let mut input = PolicyInput::default();
    input.acl.rules = vec![("192.168.0.0/16".parse().expect("a prefix"), Action::Allow)];
    input.acl.default = Action::Refuse;
    let set = build(&input);
    assert_eq!(
        set.view().admit("192.168.1.1".parse().expect("an address")),
        Action::Allow
    );
    assert_eq!(
        set.view().admit("192.0.2.1".parse().expect("an address")),
        Action::Refuse
    );
    input.lists.block_names = texts(&["a b"]);
    let error = PolicySet::build(&input, None, &mut Notes::default())
        .expect_err("wrong")
        .to_string();
    assert_eq!(
        error,
        "filter.block: `a b` has characters that a host name may not have"
    );
}

#[test]
fn no_two_policies_of_a_process_have_one_number() {
    // More reloads than 16 bits count: an entry that was not used meanwhile must not match the last generation.
    let mut last = next_generation();
    for _ in 0..=u16::MAX {
        let next = next_generation();
        assert!(next > last, "{next} after {last}");
        last = next;
    }
}
