//! Tests of compiled local data.

use super::*;
use crate::compile::table::random_key;
use crate::testing::Folder;
use xdnsd_core::policy::local::{CHAIN_MAX, End, Local, LocalData};

const NS: u16 = rtype::NS;
const TXT: u16 = rtype::TXT;
const ZONE_CUT: [u16; 4] = [rtype::NS, rtype::SOA, rtype::DS, rtype::DNSKEY];

fn input(records: &[&str]) -> LocalInput {
    let records = records.iter().map(|&text| text.into()).collect();
    LocalInput {
        records,
        zones: vec!["lan".into()],
        ..LocalInput::default()
    }
}

/// A lease file of dnsmasq.
fn dnsmasq(folder: &Folder, text: &str) -> LeaseFile {
    LeaseFile {
        path: folder.write("leases", text),
        format: LeaseFormat::Dnsmasq,
    }
}

fn build(input: &LocalInput) -> Vec<u8> {
    let (image, mut notes) = build_with_notes(input);
    notes.stamps.clear();
    notes.loaded.clear();
    notes.last_good.clear();
    assert_eq!(notes, Notes::default());
    image
}

fn build_with_notes(input: &LocalInput) -> (Vec<u8>, Notes) {
    let mut notes = Notes::default();
    let image = compile(input, &Others::NONE, None, &mut notes, random_key).expect("compiled");
    (image, notes)
}

/// Loops and long chains of the aliases in the records, as `check` reports them.
fn dead_ends(input: &LocalInput) -> Vec<(usize, String)> {
    let mut builder = LocalBuilder::new(input).expect("right domains");
    let records = input.records.iter();
    let owners: Result<Vec<Vec<u8>>, String> =
        records.map(|text| builder.add_text(text, 60)).collect();
    builder.dead_ends(&owners.expect("right records"))
}

/// Answer as text: the records, then its end.
fn ask(image: &[u8], question: &str, qtype: u16) -> String {
    let data = LocalData::view(image).expect("local data");
    let name = name::parse(question).expect("a name");
    let mut told = String::new();
    let end = data.resolve(
        &Labels::new(&name).expect("well-formed"),
        qtype,
        |_, _| false,
        |owner, record| {
            let rdata = match record.rtype {
                rtype::A => record
                    .rdata
                    .iter()
                    .map(u8::to_string)
                    .collect::<Vec<_>>()
                    .join("."),
                rtype::CNAME | rtype::PTR => name::display(record.rdata),
                _ => format!("{} bytes", record.rdata.len()),
            };
            let (owner, rtype, ttl) = (name::display(owner), record.rtype, record.ttl_secs);
            told.push_str(&format!("{owner} {ttl} {rtype} {rdata}; "));
        },
    );
    let end = match end {
        End::Records => "records".into(),
        End::Upstream(name) => format!("ask {}", name::display(name)),
        End::Nodata(zone) => format!("nodata {}", zone.map_or("-".into(), name::display)),
        End::Nxdomain(zone) => format!("nxdomain {}", name::display(zone)),
        End::Endless => "endless".into(),
    };
    told + &end
}

/// Each question, a name and a type, has its answer beside it.
fn check(image: &[u8], cases: &[(&str, u16, &str)]) {
    for (question, qtype, wanted) in cases {
        assert_eq!(ask(image, question, *qtype), *wanted, "{question} {qtype}");
    }
}

#[test]
fn records_are_answered_in_their_order_and_with_their_ttl() {
    let image = build(&input(&[
        "r.lan A 192.168.1.9",
        "r.lan 300 IN A 192.168.1.1",
        "R.lan. IN 5 TXT hi",
    ]));
    let both = "r.lan. 60 1 192.168.1.9; r.lan. 300 1 192.168.1.1; records";
    assert_eq!(ask(&image, "r.lan", rtype::A), both);
    check(
        &image,
        &[
            ("r.lan", TXT, "r.lan. 5 16 3 bytes; records"),
            ("r.lan", rtype::AAAA, "nodata lan."),
        ],
    );
}

#[test]
fn a_local_zone_is_answered_to_its_end() {
    let image = build(&input(&["a.b.c.lan A 192.168.1.1"]));
    check(
        &image,
        &[
            ("x.lan", rtype::A, "nxdomain lan."),
            ("y.x.lan", rtype::A, "nxdomain lan."),
            // A parent exists.
            ("b.c.lan", rtype::A, "nodata lan."),
            ("c.lan", rtype::A, "nodata lan."),
            // The apex exists.
            ("lan", NS, "nodata lan."),
            ("x.b.c.lan", rtype::A, "nxdomain lan."),
            ("x.a.b.c.lan", rtype::A, "nxdomain lan."),
            ("xlan", rtype::A, "ask xlan."),
        ],
    );
}

#[test]
fn outside_local_zones_only_names_with_data_are_ours() {
    let image = build(&input(&["a.b.example.org A 192.0.2.1"]));
    check(
        &image,
        &[
            ("a.b.example.org", rtype::AAAA, "nodata -"),
            ("b.example.org", rtype::A, "ask b.example.org."),
            ("x.a.b.example.org", rtype::A, "ask x.a.b.example.org."),
            ("c.b.example.org", rtype::A, "ask c.b.example.org."),
        ],
    );
}

#[test]
fn the_deepest_zone_is_told() {
    let mut input = input(&["a.sub.lan A 192.168.1.1"]);
    input.zones.push("sub.lan".into());
    let image = build(&input);
    check(
        &image,
        &[
            ("x.sub.lan", rtype::A, "nxdomain sub.lan."),
            ("x.lan", rtype::A, "nxdomain lan."),
            ("sub.lan", rtype::A, "nodata sub.lan."),
        ],
    );
}

#[test]
fn aliases_are_followed_while_their_targets_are_local() {
    let image = build(&input(&[
        "www.lan CNAME web.lan",
        "web.lan 30 CNAME nas.lan",
        "nas.lan A 192.168.1.2",
        "out.lan CNAME www.example.org",
        "gone.lan CNAME no.lan",
    ]));
    let chain = "www.lan. 60 5 web.lan.; web.lan. 30 5 nas.lan.; ";
    assert_eq!(
        ask(&image, "www.lan", rtype::A),
        format!("{chain}nas.lan. 60 1 192.168.1.2; records")
    );
    assert_eq!(ask(&image, "www.lan", TXT), format!("{chain}nodata lan."));
    check(
        &image,
        &[
            ("www.lan", rtype::CNAME, "www.lan. 60 5 web.lan.; records"),
            (
                "out.lan",
                rtype::A,
                "out.lan. 60 5 www.example.org.; ask www.example.org.",
            ),
            (
                "gone.lan",
                rtype::A,
                "gone.lan. 60 5 no.lan.; nxdomain lan.",
            ),
        ],
    );
}

#[test]
fn aliases_in_a_circle_end() {
    let records = [
        "into.lan CNAME A.lan",
        "a.lan CNAME b.lan",
        "B.lan CNAME a.lan",
        "self.lan CNAME self.lan",
        "*.wild.lan CNAME to.wild.lan",
        "fine.lan CNAME far.lan",
        "far.lan CNAME elsewhere.example",
        "alias CNAME nas",
        "nas.lan A 192.168.1.2",
        "round CNAME round.lan",
    ];
    let mut input = input(&records);
    input.search_domain = Some("lan".into());
    let image = build(&input);
    let circle = |place: usize, path: &str| {
        let what = format!("aliases (CNAME) in a circle, answered SERVFAIL: {path}");
        (place, what)
    };
    let expected = [
        circle(0, "into.lan -> a.lan -> b.lan -> a.lan"),
        circle(3, "self.lan -> self.lan"),
        circle(4, "*.wild.lan -> to.wild.lan -> to.wild.lan"),
        circle(9, "round -> round.lan -> round.lan"),
    ];
    assert_eq!(dead_ends(&input), expected);
    assert!(ask(&image, "a.lan", rtype::A).ends_with("endless"));
    assert!(ask(&image, "self.lan", rtype::A).ends_with("endless"));
    let chain: Vec<String> = (0..CHAIN_MAX + 1)
        .map(|n| format!("c{n}.lan CNAME c{}.lan", n + 1))
        .collect();
    let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
    let last = format!("c{}.lan A 192.168.1.1", CHAIN_MAX + 1);
    input.records = [&chain[..], &[last.as_str()]]
        .concat()
        .into_iter()
        .map(String::from)
        .collect();
    let image = build(&input);
    let told = dead_ends(&input);
    assert_eq!(told.len(), 1, "{told:?}");
    let (place, what) = &told[0];
    assert_eq!(*place, 0);
    let begin = format!(
        "more than {CHAIN_MAX} aliases (CNAME) in a row, answered SERVFAIL: c0.lan -> c1.lan -> "
    );
    assert!(what.starts_with(&begin), "{what}");
    assert!(
        ask(&image, "c1.lan", rtype::A).ends_with("records"),
        "as many steps as allowed"
    );
    assert!(
        ask(&image, "c0.lan", rtype::A).ends_with("endless"),
        "one more"
    );
}

/// RFC 4592 section 2.2.1, with its names.
#[test]
fn wildcards_cover_what_does_not_exist_below_their_parent() {
    let image = build(&input(&[
        "*.dev.lan A 192.168.1.1",
        "*.dev.lan TXT wild",
        "sub.*.dev.lan TXT literal",
        "host1.dev.lan A 192.168.1.2",
        "_ssh._tcp.host1.dev.lan SRV 0 0 22 host1.dev.lan",
    ]));
    check(
        &image,
        &[
            (
                "x.dev.lan",
                rtype::A,
                "x.dev.lan. 60 1 192.168.1.1; records",
            ),
            (
                "y.x.dev.lan",
                rtype::A,
                "y.x.dev.lan. 60 1 192.168.1.1; records",
            ),
            ("x.dev.lan", rtype::AAAA, "nodata lan."),
            // It exists.
            ("host1.dev.lan", TXT, "nodata lan."),
            // _tcp.host1 exists.
            ("_telnet._tcp.host1.dev.lan", rtype::SRV, "nxdomain lan."),
            // Host1 exists.
            ("x.host1.dev.lan", rtype::A, "nxdomain lan."),
            // The parent is not covered.
            ("dev.lan", rtype::A, "nodata lan."),
            // Asked for by its name.
            (
                "*.dev.lan",
                rtype::A,
                "*.dev.lan. 60 1 192.168.1.1; records",
            ),
            // Below the wildcard itself.
            ("x.*.dev.lan", rtype::A, "nxdomain lan."),
        ],
    );
}

#[test]
fn wildcards_outside_local_zones_leave_their_parent_alone() {
    let image = build(&input(&[
        "*.dev.example.org A 192.0.2.1",
        "a.b.dev.example.org A 192.0.2.2",
    ]));
    check(
        &image,
        &[
            (
                "x.dev.example.org",
                rtype::A,
                "x.dev.example.org. 60 1 192.0.2.1; records",
            ),
            ("dev.example.org", rtype::A, "ask dev.example.org."),
            // Between our own names.
            ("b.dev.example.org", rtype::A, "nodata -"),
        ],
    );
    let image = build(&input(&["*.w.lan CNAME nas.lan", "nas.lan A 192.168.1.2"]));
    assert_eq!(
        ask(&image, "q.w.lan", rtype::A),
        "q.w.lan. 60 5 nas.lan.; nas.lan. 60 1 192.168.1.2; records"
    );
}

#[test]
fn names_of_one_label_belong_to_the_search_domain() {
    let mut input = input(&[
        "nas A 192.168.1.2",
        "tv.lan A 192.168.1.3",
        "a.b.lan A 192.168.1.4",
        "lan A 192.168.1.5",
    ]);
    input.search_domain = Some("lan".into());
    let image = build(&input);
    for name in ["nas", "nas.lan"] {
        assert_eq!(
            ask(&image, name, rtype::A),
            format!("{name}. 60 1 192.168.1.2; records")
        );
    }
    check(
        &image,
        &[
            ("tv", rtype::A, "tv. 60 1 192.168.1.3; records"),
            // Only hosts right below the search domain.
            ("b", rtype::A, "ask b."),
        ],
    );
    for (number, name) in [(2, "nas.lan."), (3, "tv.lan."), (5, "lan.")] {
        let owner = format!("{number}.1.168.192.in-addr.arpa");
        assert_eq!(
            ask(&image, &owner, rtype::PTR),
            format!("{owner}. 60 12 {name}; records")
        );
    }
    assert_eq!(
        ask(&image, "lan.lan", rtype::A),
        "nxdomain lan.",
        "the search domain is no name in itself"
    );
}

#[test]
fn a_plain_name_hides_all_of_a_top_level_domain_but_its_zone_cut() {
    let image = build(&input(&["dev A 192.168.1.2"]));
    for qtype in [rtype::AAAA, rtype::HTTPS, TXT, rtype::ANY] {
        assert_eq!(ask(&image, "dev", qtype), "nodata -", "{qtype}");
    }
    for qtype in ZONE_CUT {
        assert_eq!(ask(&image, "dev", qtype), "ask dev.", "{qtype}");
    }
    check(
        &image,
        &[
            ("web.dev", rtype::A, "ask web.dev."),
            // A local zone is entirely ours.
            ("lan", rtype::DS, "nodata lan."),
        ],
    );
}

/// If plain names stay local, known ones have no other types, whatever their source. A client named like a top-level domain
/// does not hide that domain's keys from validators.
#[test]
fn plain_names_that_stay_at_home_hide_every_type() {
    let folder = Folder::new();
    let mut input = input(&["nas.lan A 192.168.1.2", "www CNAME nas.lan"]);
    input.search_domain = Some("lan".into());
    input.forward_plain_names = false;
    input.hosts = vec![folder.write("hosts", "192.168.1.3 printer\n")];
    input.leases = vec![dnsmasq(
        &folder,
        "0 m1 192.168.1.4 phone *\n0 m2 192.168.1.5 tv *\n0 m3 192.168.1.6 com *\n",
    )];
    let image = build(&input);
    let other = [rtype::HTTPS, TXT, rtype::MX, rtype::ANY, rtype::AAAA];
    for qtype in other.into_iter().chain(ZONE_CUT) {
        for name in ["nas", "printer", "phone"] {
            assert_eq!(ask(&image, name, qtype), "nodata -", "{name} {qtype}");
            let whole = format!("{name}.lan");
            assert_eq!(ask(&image, &whole, qtype), "nodata lan.", "{whole} {qtype}");
        }
        let alias = ask(&image, "www", qtype);
        assert_eq!(alias, "www. 60 5 nas.lan.; nodata lan.", "{qtype}");
    }
    for name in ["tv", "com"] {
        assert!(ask(&image, name, rtype::A).ends_with("records"), "{name}");
        assert_eq!(ask(&image, name, TXT), "nodata -", "{name}");
        for qtype in ZONE_CUT {
            assert_eq!(ask(&image, name, qtype), format!("ask {name}."), "{qtype}");
        }
    }
}

/// The owner is the QNAME; RDATA is as written.
#[test]
fn names_in_rdata_keep_their_letter_case() {
    let mut input = input(&[
        "_ipp._tcp.LAN PTR \"Bob's Printer\\.2\\032B._ipp._TCP.lan\"",
        "WWW.lan CNAME Web.LAN",
        "web.lan CNAME NAS.lan",
        "nas.lan A 192.168.1.2",
        "OTHER.Lan A 192.168.1.3",
    ]);
    input.search_domain = Some("lan".into());
    let image = build(&input);
    check(
        &image,
        &[
            (
                "_ipp._tcp.lan",
                rtype::PTR,
                "_ipp._tcp.lan. 60 12 Bob's\\032Printer\\.2\\032B._ipp._TCP.lan.; records",
            ),
            (
                "www.lan",
                rtype::A,
                "www.lan. 60 5 Web.LAN.; Web.LAN. 60 5 NAS.lan.; NAS.lan. 60 1 192.168.1.2; records",
            ),
            (
                "3.1.168.192.in-addr.arpa",
                rtype::PTR,
                "3.1.168.192.in-addr.arpa. 60 12 OTHER.Lan.; records",
            ),
        ],
    );
    // No name has a record of type 0, not even an alias.
    check(
        &image,
        &[
            ("nas.lan", xdnsd_core::policy::local::TARGET, "nodata lan."),
            (
                "www.lan",
                xdnsd_core::policy::local::TARGET,
                "www.lan. 60 5 Web.LAN.; Web.LAN. 60 5 NAS.lan.; nodata lan.",
            ),
        ],
    );
}

/// The same name in another letter case is the same record.
#[test]
fn letter_case_makes_no_second_alias() {
    let image = build(&input(&["www.lan CNAME NAS.lan", "www.lan CNAME nas.LAN"]));
    let first = "www.lan. 60 5 NAS.lan.; records";
    assert_eq!(ask(&image, "www.lan", rtype::CNAME), first);
}

#[test]
fn what_may_come_with_a_lease_is_denied_for_as_long_as_a_lease_lives() {
    let lease = || LeaseFile {
        path: "leases".into(),
        format: LeaseFormat::Dnsmasq,
    };
    let mut input = LocalInput::default();
    assert_eq!(input.denial_ttl_secs(), None, "nothing can come");
    input.hosts = vec!["hosts".into()];
    assert_eq!(input.denial_ttl_secs(), Some(60));
    input.ttl_secs = 86_400;
    assert_eq!(input.denial_ttl_secs(), Some(60), "not for a day");
    input.leases = vec![lease()];
    assert_eq!(input.denial_ttl_secs(), Some(10));
    input.hosts.clear();
    input.lease_ttl_secs = 300;
    assert_eq!(input.denial_ttl_secs(), Some(300));
}

#[test]
fn addresses_point_back_to_their_first_name() {
    let records = [
        "nas.lan A 192.168.1.2",
        "alias.lan A 192.168.1.2",
        "nas.lan AAAA fd00::2",
        "*.w.lan A 192.168.1.3",
    ];
    let zero = [
        "ads.example A 0.0.0.0",
        "self.lan A 127.0.1.1",
        "own.lan A 192.168.1.4",
        "4.1.168.192.in-addr.arpa PTR written.lan",
    ];
    let mut input = input(&[&records[..], &zero[..]].concat());
    let image = build(&input);
    let pointer = |image: &[u8], address: &str| {
        let owner = pointer_name(address.parse().expect("an address"));
        let told = ask(image, &name::display(&owner), rtype::PTR);
        told.rsplit_once(" 12 ")
            .map_or(told.clone(), |(_, rest)| rest.into())
    };
    assert_eq!(pointer(&image, "192.168.1.2"), "nas.lan.; records");
    assert_eq!(pointer(&image, "fd00::2"), "nas.lan.; records");
    assert_eq!(pointer(&image, "192.168.1.4"), "written.lan.; records");
    assert_eq!(
        pointer(&image, "192.168.1.3"),
        "ask 3.1.168.192.in-addr.arpa.",
        "nobody's own"
    );
    for nobodys in ["0.0.0.0", "127.0.1.1"] {
        let owner = pointer_name(nobodys.parse().expect("an address"));
        let asked = format!("ask {}", name::display(&owner));
        assert_eq!(pointer(&image, nobodys), asked);
    }
    check(
        &image,
        &[
            // A parent in a private zone exists.
            ("1.168.192.in-addr.arpa", rtype::PTR, "nodata -"),
            // The zone is special.
            (
                "168.192.in-addr.arpa",
                rtype::PTR,
                "ask 168.192.in-addr.arpa.",
            ),
        ],
    );
    input.reverse = false;
    assert_eq!(
        pointer(&build(&input), "192.168.1.2"),
        "ask 2.1.168.192.in-addr.arpa."
    );
}

#[test]
fn hosts_and_leases_are_read_and_their_faults_noted() {
    let folder = Folder::new();
    let hosts = folder.write("hosts", "192.168.1.2 nas\n192.168.1.2 nas\nbad line\n");
    let leases = folder.write(
        "leases",
        "0 02:00:00:00:00:01 192.168.1.7 phone *\n0 m 192.168.1.8 www *\n",
    );
    let mut input = input(&["www.lan CNAME nas.lan"]);
    input.search_domain = Some("lan".into());
    input.hosts = vec![hosts.clone(), folder.path().join("later")];
    input.leases = vec![LeaseFile {
        path: leases.clone(),
        format: LeaseFormat::Dnsmasq,
    }];
    let mut notes = Notes::default();
    let image = compile(&input, &Others::NONE, None, &mut notes, random_key).expect("compiled");
    check(
        &image,
        &[
            ("nas.lan", rtype::A, "nas.lan. 60 1 192.168.1.2; records"),
            (
                "phone.lan",
                rtype::A,
                "phone.lan. 10 1 192.168.1.7; records",
            ),
            // The config wins.
            ("www.lan", rtype::CNAME, "www.lan. 60 5 nas.lan.; records"),
        ],
    );
    let expected = [
        format!("{}:3: `bad` is not an address", hosts.display()),
        format!("{}: is not there", folder.path().join("later").display()),
    ];
    let texts = |problems: &[Problem]| {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        texts
    };
    assert_eq!(texts(&notes.first), expected);
    let refused = format!(
        "{}: not giving name www to the DHCP lease of 192.168.1.8 because the name exists in local.records",
        leases.display()
    );
    assert_eq!(texts(&notes.refusals), [refused]);
}

#[test]
fn a_folder_of_hosts_files_is_read_but_for_hidden_files() {
    let folder = Folder::new();
    folder.write("a", "192.168.1.2 a.lan\n");
    folder.write("b~", "192.168.1.2 b.lan\n");
    folder.write(".c", "192.168.1.2 c.lan\n");
    let image = build(&LocalInput {
        hosts: vec![folder.path().into()],
        ..input(&[])
    });
    assert!(ask(&image, "a.lan", rtype::A).ends_with("records"));
    for hidden in ["b.lan", "c.lan"] {
        assert_eq!(ask(&image, hidden, rtype::A), "nxdomain lan.");
    }
}

fn compile_wrong(input: &LocalInput) -> String {
    let compiled = compile(
        input,
        &Others::NONE,
        None,
        &mut Notes::default(),
        random_key,
    );
    compiled.expect_err("wrong").to_string()
}

#[test]
fn records_that_are_wrong_say_why() {
    let cases = [
        ("", "is empty"),
        ("a.lan", "has no type"),
        ("a.lan 60 IN", "has no type"),
        ("a.lan 4294967296 A 192.0.2.1", "is not a TTL"),
        ("a.lan B 192.0.2.1", "`B` is not a record type"),
        ("a.lan 300 60 A 192.0.2.1", "has two TTLs, the second is 60"),
        (
            "a.lan CAA 0 issue \"x\"",
            "CAA is not taken by its name here: those are A, NS, CNAME, PTR, MX, TXT, AAAA, SRV, SVCB, HTTPS; others as \
             `TYPE257 \\# LENGTH HEX`",
        ),
        ("a.lan soa a. b. 1 1 1 1 1", "`TYPE6 \\# LENGTH HEX`"),
        ("a.lan A", "A takes one address"),
        ("a..lan A 192.0.2.1", "empty label"),
        ("a.lan TXT \"x", "quote"),
        ("@ A 192.0.2.1", "`@` stands for no zone here"),
        (
            "tv*.lan A 192.0.2.1",
            "`tv*.lan` has a `*` within a label: it is a label of its own, `*.lan`",
        ),
        ("*.*tv.lan A 192.0.2.1", "has a `*` within a label"),
        (
            "192.0.2.5 PTR a.lan",
            "the name of address `192.0.2.5` is 5.2.0.192.in-addr.arpa",
        ),
        ("2001:db8::1 PTR a.lan", "8.b.d.0.1.0.0.2.ip6.arpa"),
        (
            "192.0.2.5 A a.lan",
            "`192.0.2.5` is an address, a name is wanted here",
        ),
        (
            "a.lan CNAME 192.0.2.1",
            "CNAME `192.0.2.1` is an address, a name is wanted here",
        ),
        ("a.lan MX 10 192.0.2.1", "MX `192.0.2.1` is an address"),
        (
            "_x._tcp.lan SRV 0 0 80 2001:db8::1",
            "SRV `2001:db8::1` is an address",
        ),
        ("a.lan HTTPS 1 192.0.2.1", "HTTPS `192.0.2.1` is an address"),
    ];
    for (record, part) in cases {
        let error = compile_wrong(&input(&[record]));
        assert!(
            error.starts_with("records: ") && error.contains(part),
            "{error}"
        );
    }
    let alias = "cannot be an alias (CNAME) and have other records";
    for (first, second, name) in [
        ("a.lan A 192.0.2.1", "A.lan CNAME b.lan", "`A.lan`"),
        ("a.lan CNAME b.lan", "a.lan A 192.0.2.1", "`a.lan`"),
        ("a CNAME b.lan", "a.lan A 192.0.2.1", "`a.lan`"),
        ("a.lan CNAME b.lan", "a A 192.0.2.1", "`a`"),
    ] {
        let both = LocalInput {
            search_domain: Some("lan".into()),
            ..input(&[first, second])
        };
        let said = compile_wrong(&both);
        assert_eq!(said, format!("records: `{second}`: {name} {alias}"));
    }
    let broken = input(&["a.lan CNAME \\# 2 0961"]);
    assert!(compile_wrong(&broken).contains("one name without compression"));
    let zone = LocalInput {
        zones: vec!["a..b".into()],
        ..LocalInput::default()
    };
    let error = compile_wrong(&zone);
    assert_eq!(error, "zones: `a..b` has an empty label");
}

#[test]
fn an_image_cut_or_changed_anywhere_is_survived() {
    let image = build(&input(&[
        "*.dev.lan A 192.168.1.1",
        "www.lan CNAME nas.lan",
        "nas.lan A 192.168.1.2",
    ]));
    let ask_all = |image: &[u8]| {
        let Ok(data) = LocalData::view(image) else {
            return;
        };
        for question in ["x.dev.lan", "www.lan", "nas.lan", "no.lan", "example.org"] {
            let name = name::parse(question).expect("a name");
            let _ = data.resolve(
                &Labels::new(&name).expect("well-formed"),
                rtype::A,
                |_, _| false,
                |_, _| {},
            );
        }
    };
    for at in 0..image.len() {
        ask_all(&image[..at]);
        for byte in [0, 1, 0x7f, 0x80, 0xff, !image[at]] {
            let mut changed = image.clone();
            changed[at] = byte;
            ask_all(&changed);
        }
    }
}

#[test]
fn nothing_is_an_empty_image() {
    let image = compile(
        &LocalInput::default(),
        &Others::NONE,
        None,
        &mut Notes::default(),
        random_key,
    )
    .expect("compiled");
    assert_eq!(image.len(), 0);
    assert!(matches!(
        LocalData::view(&image)
            .expect("local data")
            .lookup(&Labels::new(b"\x01a\0").expect("well-formed"), rtype::A),
        Local::Unknown
    ));
}

/// If a record makes a name an alias, a hosts file cannot add to it: noted with its line, and the name as written.
#[test]
fn a_hosts_name_that_is_an_alias_is_told_with_its_line_as_it_is_written() {
    let folder = Folder::new();
    let hosts = "192.0.2.1 fine\n\n# x\n192.0.2.2 Web other\n192.0.2.3 web.lan\n";
    for (record, said) in [
        (
            "web CNAME far.example",
            [
                "`Web` is an alias (CNAME) in local.records",
                "`web.lan` is an alias (CNAME) in local.records",
            ],
        ),
        (
            "other.lan CNAME far.example",
            ["`other` is an alias (CNAME) in local.records", ""],
        ),
    ] {
        let path = folder.write("hosts", hosts);
        let input = LocalInput {
            search_domain: Some("lan".into()),
            hosts: vec![path.clone()],
            ..input(&[record])
        };
        let (image, notes) = build_with_notes(&input);
        let told: Vec<String> = notes.first.iter().map(Problem::to_string).collect();
        let lines = said.iter().zip([4, 5]).filter(|(what, _)| !what.is_empty());
        let expected: Vec<String> = lines
            .map(|(what, line)| format!("{}:{line}: {what}", path.display()))
            .collect();
        assert_eq!(told, expected, "{record}");
        assert!(ask(&image, "fine", rtype::A).contains("192.0.2.1"));
        // None of its parts was added.
        let alias = record.split(' ').next().expect("a name");
        assert!(
            !ask(&image, alias, rtype::A).contains("192.0.2.2"),
            "{record}"
        );
    }
}

#[test]
fn records_that_no_message_holds_are_told() {
    let mut builder = LocalBuilder::new(&input(&[])).expect("right domains");
    let many =
        (0..5_000).map(|number| format!("many.lan A 10.0.{}.{}", number / 256, number % 256));
    let owners = many.chain(["few.lan A 192.0.2.1".to_owned()]);
    let owners: Result<Vec<_>, _> = owners.map(|text| builder.add_text(&text, 60)).collect();
    let told = builder.crowded(&owners.expect("right records"));
    let expected = "`many.lan` has 5000 records of type 1, of which a message holds 4091: a client gets those over TCP";
    assert_eq!(told, [(0, expected.to_owned())]);
}

/// As the addresses that a line of dnsmasq gives to all names below one.
#[test]
fn an_address_that_all_names_below_have_points_back_to_a_machine_first() {
    let folder = Folder::new();
    let mut input = input(&["a.lan A 192.168.9.1", "*.a.lan A 192.168.9.1"]);
    let pointer = "1.9.168.192.in-addr.arpa";
    let to = |image: &[u8]| ask(image, pointer, rtype::PTR).contains("nas.lan.");
    assert!(ask(&build(&input), pointer, rtype::PTR).contains(" a.lan."));
    input.hosts = vec![folder.write("hosts", "192.168.9.1 nas.lan\n")];
    assert!(to(&build(&input)));
}
