//! Tests of the order of trust: every pair of sources that claim one name, and all that depends on it. ARCHITECTURE.md has the
//! same table.

use super::claims::Others;
use super::hosts::LeaseFormat;
use super::local::LeaseFile;
use super::name;
use super::problem::Notes;
use super::routes::RouteInput;
use super::set::{PolicyInput, PolicySet};
use super::testing::{address_of, pointer_of};
use crate::testing::Folder;
use xdnsd_core::dns::rtype;
use xdnsd_core::policy::local::End;
use xdnsd_core::policy::special::{SpecialUse, ZoneAnswer};
use xdnsd_core::policy::{Decision, Kinds, Labels, Local, TranslationPrefix};

/// Sources that may claim a name. The first one of two is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// `local.records`, at the name.
    Record,
    /// A wildcard of `local.records` above the name.
    Wildcard,
    /// A special-use name that an RFC fixes for all networks: `localhost`.
    Fixed,
    /// A hosts file.
    Hosts,
    /// `local.zones`: the zone that the name is in.
    Zone,
    /// `filter.allow`.
    Allow,
    /// `filter.block`.
    Block,
    /// A domain of an upstream group: the name itself.
    Route,
    /// A special-use name for one's own network: `internal`.
    Private,
    /// A client of the DHCP server.
    Lease,
}

use Source::{Allow, Block, Fixed, Hosts, Lease, Private, Record, Route, Wildcard, Zone};

const ALL: [Source; 10] = [
    Record, Wildcard, Fixed, Hosts, Zone, Allow, Block, Route, Private, Lease,
];

/// Source that gets a name which both claim. `None` if they never claim the same name, or do not contradict each other.
fn winner(a: Source, b: Source) -> Option<Source> {
    // The name is special-use and another source's; it cannot be in two families.
    let is_either = |x, y| (a, b) == (x, y) || (a, b) == (y, x);
    if is_either(Fixed, Private) || is_either(Record, Wildcard) || is_either(Hosts, Wildcard) {
        return None;
    }
    // Allowing a name only keeps it from being blocked.
    if a == Allow || b == Allow {
        return if is_either(Allow, Block) {
            Some(Allow)
        } else {
            None
        };
    }
    // A lease has one label and is below a search domain: the private-use family is then the operator's zone.
    if is_either(Private, Lease) || is_either(Zone, Lease) {
        return Some(Lease);
    }
    // The order of trust. A route opens a special-use zone, like a record; lists do not affect special-use names.
    let order: &[Source] = if is_either(Fixed, Hosts) {
        &[Fixed, Hosts]
    } else if is_either(Route, Block) {
        &[Block, Route]
    } else {
        &[
            Record, Wildcard, Hosts, Route, Fixed, Zone, Private, Block, Lease,
        ]
    };
    let mut order = order.iter().copied();
    order.find(|source| *source == a || *source == b)
}

/// A name that two sources can claim, with its label and domain.
fn name_for(a: Source, b: Source) -> (&'static str, &'static str) {
    if [a, b].contains(&Fixed) {
        ("localhost", "")
    } else if [a, b].contains(&Private) {
        ("nas", "internal")
    } else {
        ("nas", "lan")
    }
}

const RECORD: &str = "192.0.2.1";
const WILDCARD: &str = "192.0.2.2";
const HOSTS: &str = "192.0.2.3";
const LEASE: &str = "192.0.2.4";

fn claim(input: &mut PolicyInput, source: Source, folder: &Folder, label: &str, domain: &str) {
    let whole = if domain.is_empty() {
        label.into()
    } else {
        format!("{label}.{domain}")
    };
    match source {
        Record => input.local.records.push(format!("{whole} A {RECORD}")),
        Wildcard if domain.is_empty() => input.local.records.push(format!("* A {WILDCARD}")),
        Wildcard => input.local.records.push(format!("*.{domain} A {WILDCARD}")),
        Fixed | Private => {}
        Hosts => input.local.hosts = vec![folder.write("hosts", format!("{HOSTS} {whole}\n"))],
        Zone if domain.is_empty() => input.local.zones.push(whole),
        Zone => input.local.zones.push(domain.into()),
        Allow => input.lists.allow_names.push(whole),
        Block => input.lists.block_names.push(whole),
        Route => input.routes.push(RouteInput {
            suffixes: vec![whole],
            group: 1,
        }),
        Lease => {
            let path = folder.write("leases", format!("0 m1 {LEASE} {label} *\n"));
            input.local.leases = vec![LeaseFile {
                path,
                format: LeaseFormat::Dnsmasq,
            }];
        }
    }
}

/// A set in which these sources claim the same name.
fn claimed(sources: &[Source], label: &str, domain: &str) -> (PolicySet, Notes) {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    // That list is not tested here.
    input.local.never_leased.clear();
    if !domain.is_empty() {
        input.local.search_domain = Some(domain.into());
    }
    for source in sources {
        claim(&mut input, *source, &folder, label, domain);
    }
    let mut notes = Notes::default();
    let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
    (set, notes)
}

/// Source of the answer to a question for the name's address.
fn believed(set: &PolicySet, text: &str) -> Option<Source> {
    let name = name::parse(text).expect("a name");
    let labels = Labels::new(&name).expect("well-formed");
    match set.view().decide(&labels, rtype::A) {
        Decision::Local(Local::Records(_)) => match address_of(set, text).as_deref() {
            Some(RECORD) => Some(Record),
            Some(WILDCARD) => Some(Wildcard),
            Some(HOSTS) => Some(Hosts),
            Some(LEASE) => Some(Lease),
            other => panic!("{text} is {other:?}"),
        },
        Decision::Local(Local::Nodata { .. } | Local::Nxdomain { .. }) => Some(Zone),
        Decision::Local(other @ (Local::Alias(_) | Local::Unknown)) => {
            panic!("{text} is {other:?}")
        }
        Decision::Special(special) if special.kind.is_for_private_use() => Some(Private),
        Decision::Special(_) => Some(Fixed),
        Decision::Blocked(_) => Some(Block),
        Decision::Forward { group: 1 } => Some(Route),
        Decision::Forward { .. } | Decision::PlainName => None,
    }
}

#[test]
fn of_every_two_sources_with_one_name_the_one_that_is_trusted_more_is_believed() {
    for a in ALL {
        for b in ALL {
            let Some(winner) = winner(a, b).filter(|_| a != b) else {
                continue;
            };
            let (label, domain) = name_for(a, b);
            let (set, notes) = claimed(&[a, b], label, domain);
            let whole = if domain.is_empty() {
                label.into()
            } else {
                format!("{label}.{domain}")
            };
            // An allowed name shows as owned by nobody.
            let expected = (winner != Allow).then_some(winner);
            assert_eq!(believed(&set, &whole), expected, "{a:?} and {b:?}");
            // A loser that is a line of a file gets a note.
            let loses = |source| (a == source || b == source) && winner != source;
            let told = notes.refusals.len();
            assert_eq!(
                told,
                usize::from(loses(Lease)),
                "{a:?} and {b:?}: {notes:?}"
            );
            if loses(Lease) {
                assert_eq!(
                    pointer_of(&set, LEASE),
                    None,
                    "{a:?}: its address has no name"
                );
            }
            if loses(Hosts) && label != "localhost" {
                assert_eq!(notes.count, 1, "{a:?} and {b:?}: {notes:?}");
            }
        }
    }
}

/// The owner of a name owns its other form, its other types, the target of its alias, and the PTR record of its address.
#[test]
fn what_goes_with_a_name_is_its_owners() {
    for owner in [Record, Wildcard, Hosts, Block, Route] {
        let (set, _) = claimed(&[owner, Lease], "nas", "lan");
        for form in ["nas", "nas.lan"] {
            assert_ne!(believed(&set, form), Some(Lease), "{owner:?} has {form}");
        }
        assert_eq!(pointer_of(&set, LEASE), None, "{owner:?}");
    }
    // Only the plain form is claimed: the client does not get the full form either.
    for owner in [Record, Hosts, Block, Route] {
        let folder = Folder::new();
        let mut input = PolicyInput::default();
        input.local.search_domain = Some("lan".into());
        input.local.zones = vec!["iot.lan".into()];
        claim(&mut input, owner, &folder, "nas", "");
        claim(&mut input, Lease, &folder, "nas", "lan");
        let mut notes = Notes::default();
        let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
        assert_ne!(believed(&set, "nas.lan"), Some(Lease), "{owner:?}");
        assert_eq!(notes.refusals.len(), 1, "{owner:?}");
    }
}

/// A lease of a name that has another type, or is an alias, adds nothing to it.
#[test]
fn a_name_of_any_type_is_taken() {
    for record in [
        "nas.lan TXT hello",
        "nas.lan CNAME other.example",
        "nas.lan AAAA fd00::5",
        "nas HTTPS 1 .",
    ] {
        let folder = Folder::new();
        let mut input = PolicyInput::default();
        input.local.search_domain = Some("lan".into());
        input.local.records = vec![record.into()];
        claim(&mut input, Lease, &folder, "nas", "lan");
        let mut notes = Notes::default();
        let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
        assert_eq!(
            address_of(&set, "nas.lan").filter(|found| found.contains(LEASE)),
            None,
            "{record}"
        );
        assert_eq!(notes.refusals.len(), 1, "{record}");
    }
}

/// Records decide for their own types; hosts files may add other types.
#[test]
fn hosts_files_add_what_records_do_not_say() {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    input.local.search_domain = Some("lan".into());
    input.local.records = vec!["router.lan A 192.168.1.1".into()];
    let hosts =
        "127.0.1.1 router.lan router\nfd00::1 router\n192.168.1.1 router\n192.168.1.9 router tv\n";
    input.local.hosts = vec![folder.write("hosts", hosts)];
    let mut notes = Notes::default();
    let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
    for name in ["router", "router.lan"] {
        assert_eq!(
            address_of(&set, name).as_deref(),
            Some("192.168.1.1, fd00::1"),
            "{name}"
        );
    }
    assert_eq!(address_of(&set, "tv.lan").as_deref(), Some("192.168.1.9"));
    assert_eq!(pointer_of(&set, "192.168.1.9").as_deref(), Some("tv.lan."));
    let said: Vec<&str> = notes
        .first
        .iter()
        .map(|problem| problem.what.as_str())
        .collect();
    let taken = "`router` has the address 192.168.1.1 in local.records";
    assert_eq!(
        said,
        [
            format!("`router.lan` has the address 192.168.1.1 in local.records; {taken}").as_str(),
            taken
        ]
    );
}

/// A file may not contradict what an RFC fixes, but may name hosts in private-use zones.
#[test]
fn hosts_files_name_hosts_in_zones_for_private_use_alone() {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    let hosts = "192.0.2.9 x.localhost x.onion y.invalid resolver.arpa a.alt\n192.0.2.8 nas.internal nas.home.arpa printer.local\n";
    input.local.hosts = vec![folder.write("hosts", hosts)];
    let mut notes = Notes::default();
    let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
    for name in [
        "x.localhost",
        "x.onion",
        "y.invalid",
        "resolver.arpa",
        "a.alt",
    ] {
        assert_eq!(believed(&set, name), Some(Fixed), "{name}");
    }
    for name in ["nas.internal", "nas.home.arpa", "printer.local"] {
        assert_eq!(
            address_of(&set, name).as_deref(),
            Some("192.0.2.8"),
            "{name}"
        );
    }
    assert_eq!(notes.count, 1);
}

/// A set with these local zones in which every kind of special-use names is on, and DNS64.
fn zoned(zones: &[&str], change: impl Fn(&mut PolicyInput)) -> PolicySet {
    let mut input = PolicyInput {
        special: Kinds::EVERY,
        ..PolicyInput::default()
    };
    input.local.zones = zones.iter().map(|zone| (*zone).into()).collect();
    input.dns64.prefix = TranslationPrefix::new("64:ff9b::".parse().expect("an address"), 96);
    change(&mut input);
    PolicySet::build(&input, None, &mut Notes::default()).expect("compiled")
}

fn decided(set: &PolicySet, text: &str, qtype: u16) -> String {
    let name = name::parse(text).expect("a name");
    let labels = Labels::new(&name).expect("well-formed");
    format!("{:?}", set.view().decide(&labels, qtype))
}

/// dnsmasq's `server=/localhost/`, which OpenWrt has by default, is a local zone: no name in it gets another answer.
#[test]
fn a_local_zone_takes_nothing_from_the_names_that_an_rfc_fixes() {
    let fixed = SpecialUse::ALL.map(|kind| (!kind.is_for_private_use()).then(|| kind.word()));
    let mut names: Vec<&str> = fixed.into_iter().flatten().collect();
    assert_eq!(names.len(), 7);
    names.push("ipv4only.arpa");
    let without = zoned(&[], |_| {});
    for name in names {
        let above = name.split_once('.').map_or(name, |(_, above)| above);
        for zone in [name, above] {
            let with = zoned(&[zone], |_| {});
            for asked in [name.to_owned(), format!("x.{name}")] {
                // Below it nothing is special about that one.
                if asked == "x.ipv4only.arpa" {
                    continue;
                }
                for qtype in [rtype::A, rtype::AAAA, rtype::TXT, rtype::SOA] {
                    let expected = decided(&without, &asked, qtype);
                    let is = decided(&with, &asked, qtype);
                    assert_eq!(is, expected, "{asked} {qtype} in the zone {zone}");
                }
            }
        }
    }
    assert!(decided(&without, "x.resolver.arpa", rtype::A).contains("Nodata"));
    assert!(decided(&without, "localhost", rtype::A).contains("127, 0, 0, 1"));
}

/// A record or a route in such a zone is the operator's own word, and an alias leads to the fixed answer.
#[test]
fn only_records_and_routes_go_before_the_names_that_an_rfc_fixes() {
    let set = zoned(&["localhost", "alt"], |input| {
        input.local.records = [
            "own.localhost A 192.0.2.1",
            "a.b.alt A 192.0.2.1",
            "alias.lan CNAME localhost",
        ]
        .map(String::from)
        .into();
        input.routes.push(RouteInput {
            suffixes: vec!["routed.alt".into()],
            group: 1,
        });
    });
    let of = |name, qtype| decided(&set, name, qtype);
    assert_eq!(address_of(&set, "own.localhost").as_deref(), Some(RECORD));
    assert!(of("own.localhost", rtype::AAAA).starts_with("Local(Nodata"));
    assert!(of("localhost", rtype::A).starts_with("Special("));
    assert_eq!(of("x.routed.alt", rtype::A), "Forward { group: 1 }");
    // RFC 8020: it is the parent of a name with an answer.
    assert!(of("b.alt", rtype::A).contains("answer: Nodata"));
    assert!(of("c.alt", rtype::A).contains("answer: Nxdomain"));
    let alias = name::parse("alias.lan").expect("a name");
    let alias = Labels::new(&alias).expect("well-formed");
    let end = set.view().resolve(&alias, rtype::A, |_, _| {});
    assert_eq!(end, End::Upstream(b"\x09localhost\0"));
}

/// A special-use zone is the operator's if a zone, a route or a record of the config says so.
#[test]
fn internal_is_the_operators_where_the_config_says_so() {
    let decide = |change: fn(&mut PolicyInput)| {
        let mut input = PolicyInput::default();
        change(&mut input);
        let mut notes = Notes::default();
        let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
        let name = name::parse("nas.internal").expect("a name");
        let labels = Labels::new(&name).expect("well-formed");
        let decision = set.view().decide(&labels, rtype::A);
        match decision {
            Decision::Local(Local::Nxdomain { .. }) => "zone",
            Decision::Local(_) => "local",
            Decision::Special(_) => "special",
            Decision::Forward { group: 1 } => "route",
            Decision::Forward { .. } => "upstream",
            Decision::Blocked(_) | Decision::PlainName => "?",
        }
    };
    assert_eq!(decide(|_| {}), "special");
    assert_eq!(
        decide(|input| input.local.zones = vec!["internal".into()]),
        "zone"
    );
    assert_eq!(
        decide(|input| input.local.records = vec!["nas.internal A 192.0.2.1".into()]),
        "local"
    );
    let route = |input: &mut PolicyInput| {
        input.routes = vec![RouteInput {
            suffixes: vec!["internal".into()],
            group: 1,
        }];
    };
    assert_eq!(decide(route), "route");
    assert_eq!(decide(|input| input.special = Kinds::NONE), "upstream");
}

/// A list that blocks a name for one type keeps it from addresses of that type.
#[test]
fn a_lease_gets_no_name_that_is_blocked_for_its_address() {
    let leases = "0 m1 192.0.2.4 phone *\nduid 00:01:00:01:2a\n0 7 fd00::68 tablet 00:07\n";
    let cases = [
        ("phone", "A", false),
        ("phone", "AAAA", true),
        ("tablet", "A", true),
        ("tablet", "AAAA", false),
        ("tablet", "~A", false),
    ];
    for (label, types, is_given) in cases {
        let folder = Folder::new();
        let mut input = PolicyInput::default();
        let path = folder.write("leases", leases);
        input.local.leases = vec![LeaseFile {
            path,
            format: LeaseFormat::Dnsmasq,
        }];
        input.lists.block = vec![folder.write("list", format!("||{label}^$dnstype={types}\n"))];
        let mut notes = Notes::default();
        PolicySet::build(&input, None, &mut notes).expect("compiled");
        let expected = if is_given { "" } else { "it is blocked" };
        let refusals = notes.first.iter().chain(&notes.refusals);
        let said: Vec<&str> = refusals.map(|problem| &problem.what[..]).collect();
        assert_eq!(said.len(), usize::from(!is_given), "{said:?}");
        assert!(said.concat().ends_with(expected), "{said:?}");
    }
}

/// RFC 8020: where a name below it has an answer, a name exists, whoever denies the others.
#[test]
fn a_parent_of_local_names_is_not_denied() {
    let mut input = PolicyInput::default();
    input.local.forward_plain_names = false;
    input.local.records = [
        "a.b.internal",
        "*.w.internal",
        "deep.er.home.arpa",
        "a.corp",
        "a.b.alt",
    ]
    .map(|owner| format!("{owner} A 192.0.2.1"))
    .into();
    let mut routed = input.clone();
    routed.routes.push(RouteInput {
        suffixes: vec!["internal".into()],
        group: 1,
    });
    let answer = |input: &PolicyInput, text: &str| {
        let set = PolicySet::build(input, None, &mut Notes::default()).expect("compiled");
        let name = name::parse(text).expect("a name");
        let labels = Labels::new(&name).expect("well-formed");
        match set.view().decide(&labels, rtype::A) {
            Decision::Local(Local::Nodata { .. }) => "NODATA",
            Decision::Special(special) if special.answer == ZoneAnswer::Nodata => "NODATA",
            Decision::Special(special) if special.answer == ZoneAnswer::Nxdomain => "NXDOMAIN",
            Decision::PlainName => "NXDOMAIN",
            Decision::Forward { .. } => "asked",
            Decision::Local(_) | Decision::Special(_) | Decision::Blocked(_) => "?",
        }
    };
    for (name, expected) in [
        ("b.internal", "NODATA"),
        ("internal", "NODATA"),
        ("w.internal", "NODATA"),
        ("c.internal", "NXDOMAIN"),
        ("er.home.arpa", "NODATA"),
        ("other.home.arpa", "NXDOMAIN"),
        ("corp", "NODATA"),
        ("other", "NXDOMAIN"),
        ("b.alt", "NODATA"),
        ("alt", "NODATA"),
        ("a.alt", "NXDOMAIN"),
    ] {
        assert_eq!(answer(&input, name), expected, "{name}");
    }
    // Whoever is asked for the zone knows.
    assert_eq!(answer(&routed, "b.internal"), "asked");
}

/// The servers that a route names for a zone know its apex and what is between names with data, such as its SOA.
#[test]
fn a_route_for_a_local_zone_is_asked_for_its_apex_too() {
    let mut input = PolicyInput::default();
    input.local.zones = vec!["lan".into()];
    input.local.records = vec!["nas.x.lan A 192.0.2.1".into()];
    let mut decide = |suffixes: &[&str], text: &str, qtype| {
        input.routes.clear();
        input.routes.push(RouteInput {
            suffixes: suffixes.iter().map(|suffix| (*suffix).into()).collect(),
            group: 1,
        });
        let set = PolicySet::build(&input, None, &mut Notes::default()).expect("compiled");
        let name = name::parse(text).expect("a name");
        let labels = Labels::new(&name).expect("well-formed");
        match set.view().decide(&labels, qtype) {
            Decision::Forward { group: 1 } => "asked",
            Decision::Local(Local::Nodata { .. }) => "NODATA",
            Decision::Local(Local::Nxdomain { .. }) => "NXDOMAIN",
            Decision::Local(Local::Records(_)) => "records",
            Decision::Local(_)
            | Decision::Forward { .. }
            | Decision::Special(_)
            | Decision::Blocked(_)
            | Decision::PlainName => "?",
        }
    };
    for (routed, name, qtype, expected) in [
        ("lan", "lan", rtype::SOA, "asked"),
        ("lan", "lan", rtype::A, "asked"),
        ("lan", "x.lan", rtype::A, "asked"),
        ("lan", "other.lan", rtype::A, "asked"),
        ("lan", "nas.x.lan", rtype::A, "records"),
        ("lan", "nas.x.lan", rtype::AAAA, "NODATA"),
        ("x.lan", "x.lan", rtype::A, "asked"),
        ("x.lan", "lan", rtype::A, "NODATA"),
        ("x.lan", "other.lan", rtype::A, "NXDOMAIN"),
        ("example", "lan", rtype::SOA, "NODATA"),
    ] {
        let found = decide(&[routed], name, qtype);
        assert_eq!(found, expected, "{name} {qtype}, a route for {routed}");
    }
}

/// A reverse name that is routed, blocked or covered by a wildcard stays with that source.
#[test]
fn the_way_back_from_an_address_is_decided_as_any_name() {
    for source in [Route, Block, Wildcard] {
        let folder = Folder::new();
        let mut input = PolicyInput::default();
        claim(&mut input, Lease, &folder, "phone", "");
        let zone = "2.0.192.in-addr.arpa";
        match source {
            Route => input.routes.push(RouteInput {
                suffixes: vec!["192.0.2.0/24".into()],
                group: 1,
            }),
            Block => input.lists.block_names.push(zone.into()),
            Record | Wildcard | Fixed | Hosts | Zone | Allow | Private | Lease => {
                input.local.records.push(format!("*.{zone} PTR other.lan"));
            }
        }
        let mut notes = Notes::default();
        let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
        assert_eq!(
            address_of(&set, "phone").as_deref(),
            Some(LEASE),
            "{source:?}"
        );
        assert_ne!(
            pointer_of(&set, LEASE).as_deref(),
            Some("phone."),
            "{source:?}"
        );
    }
}

#[test]
fn the_roots_route_is_for_names_that_are_nobodys() {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    input.routes.push(RouteInput {
        suffixes: vec![".".into()],
        group: 1,
    });
    claim(&mut input, Lease, &folder, "phone", "");
    let set = PolicySet::build(&input, None, &mut Notes::default()).expect("compiled");
    assert_eq!(believed(&set, "phone"), Some(Lease));
    assert_eq!(Others::NONE.refusal(b"\x05phone\0", rtype::A), None);
}
