//! Local names: records of the config, hosts files, leases, special-use names, routes, and their precedence.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use hickory_proto::op::ResponseCode;

use crate::support::scene::{Directory, Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::{
    Case, ask_all, assert_answer, assert_records, check_all, wait_for_answer,
};
use crate::support::upstream::SECOND_V4;
use crate::support::ways::Ways;

const NX: ResponseCode = ResponseCode::NXDomain;
const OK: ResponseCode = ResponseCode::NoError;

const RECORDS: &str = r#"
[local]
zones = ["lan", "168.192.in-addr.arpa"]
search = ["lan"]
ttl = 77
records = [
    "nas.lan A 192.168.1.10",
    "nas.lan A 192.168.1.11",
    "nas.lan AAAA fd00::10",
    "Mixed.LAN 300 A 192.168.1.20",
    "www.lan CNAME nas.lan",
    "twice.lan CNAME www.lan",
    "out.lan CNAME far.test",
    "dead.lan CNAME nobody.lan",
    "loop.lan CNAME loop.lan",
    "in.lan CNAME host.part.lan",
    'text.lan TXT "hello world" two',
    "lan MX 10 nas.lan",
    "_ipp._tcp.lan SRV 0 5 631 printer.lan",
    "svc.lan HTTPS 1 . alpn=h2 ipv4hint=192.168.1.10",
    "_dns.lan SVCB 1 nas.lan port=853",
    "1.1.168.192.in-addr.arpa PTR router.lan",
    "odd.lan TYPE65280 \\# 3 010203",
    "*.dev.lan A 192.168.1.80",
    "deep.a.b.lan A 192.168.1.90",
    "override.test A 192.168.1.99",
    "printer A 192.168.1.30",
]
[[upstream]]
name = "part"
servers = ["10.54.0.3"]
domains = ["part.lan"]
"#;

const NAS: &[&str] = &["nas.lan. 77 A 192.168.1.10", "nas.lan. 77 A 192.168.1.11"];

const LOCAL: &[Case] = &[
    ("nas.lan. A", OK, NAS),
    ("nas.lan. AAAA", OK, &["nas.lan. 77 AAAA fd00::10"]),
    ("nas.lan. TXT", OK, &[]),
    (
        "nas. A",
        OK,
        &["nas. 77 A 192.168.1.10", "nas. 77 A 192.168.1.11"],
    ),
    ("mixed.lan. A", OK, &["mixed.lan. 300 A 192.168.1.20"]),
    (
        "www.lan. A",
        OK,
        &[
            "www.lan. 77 CNAME nas.lan.",
            "nas.lan. 77 A 192.168.1.10",
            "nas.lan. 77 A 192.168.1.11",
        ],
    ),
    ("www.lan. CNAME", OK, &["www.lan. 77 CNAME nas.lan."]),
    (
        "twice.lan. AAAA",
        OK,
        &[
            "twice.lan. 77 CNAME www.lan.",
            "www.lan. 77 CNAME nas.lan.",
            "nas.lan. 77 AAAA fd00::10",
        ],
    ),
    (
        "out.lan. A",
        OK,
        &[
            "out.lan. 77 CNAME far.test.",
            "far.test. 100 CNAME end.test.",
            "end.test. 50 A 192.0.2.1",
        ],
    ),
    ("dead.lan. A", NX, &["dead.lan. 77 CNAME nobody.lan."]),
    (
        "in.lan. A",
        OK,
        &[
            "in.lan. 77 CNAME host.part.lan.",
            "host.part.lan. 300 A 192.0.2.3",
        ],
    ),
    ("host.part.lan. A", OK, &["host.part.lan. 300 A 192.0.2.3"]),
    (
        "text.lan. TXT",
        OK,
        &["text.lan. 77 TXT \"hello world\" two"],
    ),
    ("lan. MX", OK, &["lan. 77 MX 10 nas.lan."]),
    (
        "_ipp._tcp.lan. SRV",
        OK,
        &["_ipp._tcp.lan. 77 SRV 0 5 631 printer.lan."],
    ),
    (
        "svc.lan. HTTPS",
        OK,
        &["svc.lan. 77 HTTPS 1 . alpn=h2 ipv4hint=192.168.1.10"],
    ),
    (
        "_dns.lan. SVCB",
        OK,
        &["_dns.lan. 77 SVCB 1 nas.lan. port=853"],
    ),
    (
        "odd.lan. TYPE65280",
        OK,
        &["odd.lan. 77 TYPE65280 \\# 010203"],
    ),
    (
        "1.1.168.192.in-addr.arpa. PTR",
        OK,
        &["1.1.168.192.in-addr.arpa. 77 PTR router.lan."],
    ),
    // Made from the address.
    (
        "10.1.168.192.in-addr.arpa. PTR",
        OK,
        &["10.1.168.192.in-addr.arpa. 77 PTR nas.lan."],
    ),
    (
        "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR",
        OK,
        &[
            "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 77 PTR nas.lan.",
        ],
    ),
    ("200.1.168.192.in-addr.arpa. PTR", NX, &[]),
    ("x.dev.lan. A", OK, &["x.dev.lan. 77 A 192.168.1.80"]),
    ("y.x.dev.lan. A", OK, &["y.x.dev.lan. 77 A 192.168.1.80"]),
    ("x.dev.lan. AAAA", OK, &[]),
    ("dev.lan. A", OK, &[]),
    // A parent of a name exists (RFC 8020).
    ("a.b.lan. A", OK, &[]),
    ("b.lan. A", OK, &[]),
    ("deep.a.b.lan. A", OK, &["deep.a.b.lan. 77 A 192.168.1.90"]),
    ("nobody.lan. A", NX, &[]),
    ("x.nas.lan. A", NX, &[]),
    (
        "override.test. A",
        OK,
        &["override.test. 77 A 192.168.1.99"],
    ),
    ("override.test. AAAA", OK, &[]),
    ("printer.lan. A", OK, &["printer.lan. 77 A 192.168.1.30"]),
    ("other.test. A", OK, &["other.test. 300 A 192.0.2.9"]),
    // Only the zone's parent can say that it is not signed (RFC 4035 section 3.1.4.1).
    ("lan. DS", OK, &["lan. 300 DS \\# 1234 08 02 00112233"]),
    ("nas.lan. DS", OK, &[]),
];

#[test]
fn records_of_the_config_are_answered_here() -> Result<()> {
    let scene = scene!(Setup::three_ways().sections(RECORDS));
    let far = ["far.test. 100 CNAME end.test.", "end.test. 50 A 192.0.2.1"];
    scene.upstream.on("far.test.", Rule::records(&far));
    scene.upstream.on(
        "other.test.",
        Rule::records(&["other.test. 300 A 192.0.2.9"]),
    );
    let parent = Rule::records(&["lan. 300 DS \\# 1234 08 02 00112233"]);
    scene.upstream.on("lan.", parent);
    let part = Rule::records(&["host.part.lan. 300 A 192.0.2.3"]);
    scene.upstream.on_server(SECOND_V4, "host.part.lan.", part);
    let ways = Ways::open(&scene)?;
    check_all(&ways, LOCAL)?;
    let looped = ask_all(&ways, "loop.lan. A")?;
    assert_eq!(looped.response_code(), ResponseCode::ServFail, "{looped}");
    // A local negative answer has a TTL, and is authoritative.
    for text in ["nobody.lan. A", "nas.lan. TXT"] {
        let answer = ask_all(&ways, text)?;
        assert_eq!(answer.name_servers().len(), 1, "{answer}");
        assert_eq!(
            answer.name_servers()[0].name().to_ascii(),
            "lan.",
            "{answer}"
        );
        assert!(answer.authoritative(), "{answer}");
    }
    let asked: Vec<String> = scene
        .upstream
        .asked_all()
        .iter()
        .map(|asked| asked.name().to_lowercase())
        .collect();
    // Of the zone itself only its DS.
    let elsewhere = ["far.test.", "other.test.", "host.part.lan.", "lan."];
    let outside = |name: &String| !elsewhere.contains(&name.as_str());
    assert!(
        !asked.iter().any(outside),
        "none of it is asked outside: {asked:?}"
    );
    ways.check_tiers()
}

/// Waits until a question for an address has this answer.
fn wait_address(ways: &Ways<'_>, name: &str, expected: &[&str]) -> Result<()> {
    wait_for_answer(ways, &format!("{name} A"), |answer| {
        let records = answer.answers().iter();
        records
            .map(|record| record.data().to_string())
            .eq(expected.iter().copied())
    })
}

/// A name that is cached from upstream becomes local, and upstream's again.
#[test]
fn local_data_goes_before_what_is_cached_already() -> Result<()> {
    let folder = Directory::new()?;
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "192.168.1.2 one.test\n")?;
    let sections = format!("[local]\nhosts = [{:?}]\n", hosts.display().to_string());
    let scene = scene!(Setup::three_ways().sections(&sections));
    scene
        .upstream
        .on("name.test.", Rule::addresses(3600, &["192.0.2.1"]));
    let nothing = "test. 3600 SOA ns.test. h.test. 1 3600 600 86400 3600";
    let denied = Rule::sections(NX, [&[], &[nothing], &[]]);
    scene.upstream.on("none.test.", denied);
    let ways = Ways::open(&scene)?;
    let upstream = [
        ("name.test. A", OK, &["name.test. 3600 A 192.0.2.1"][..]),
        ("none.test. A", NX, &[]),
    ];
    check_all(&ways, &upstream)?;
    let more = "192.168.1.3 name.test\n192.168.1.4 none.test\n192.168.1.5 mark.test\n";
    fs::write(&hosts, more)?;
    wait_address(&ways, "mark.test.", &["192.168.1.5"])?;
    check_all(
        &ways,
        &[
            ("name.test. A", OK, &["name.test. 60 A 192.168.1.3"]),
            ("none.test. A", OK, &["none.test. 60 A 192.168.1.4"]),
        ],
    )?;
    fs::write(&hosts, "192.168.1.6 mark.test\n")?;
    wait_address(&ways, "mark.test.", &["192.168.1.6"])?;
    check_all(&ways, &upstream)?;
    for name in ["name.test.", "none.test."] {
        assert_eq!(
            scene.upstream.asked(name).len(),
            1,
            "{name} is still cached"
        );
    }
    Ok(())
}

#[test]
fn hosts_and_leases_are_followed_as_they_change() -> Result<()> {
    let folder = Directory::new()?;
    let path = |file: &str| folder.path().join(file);
    fs::create_dir(path("odhcpd"))?;
    fs::write(
        path("hosts"),
        "127.0.0.1 localhost\n192.168.1.2 Router.lan router # us\nfd00::2 router\n192.168.1.3\tone bob's two\n",
    )?;
    let sections = format!(
        "[local]\nzones = [\"lan\"]\nsearch = [\"lan\"]\nhosts = [{:?}]\ndnsmasq_leases = [{:?}]\nodhcpd_leases = [{:?}]\n",
        path("hosts").display().to_string(),
        path("dhcp.leases").display().to_string(),
        path("odhcpd").display().to_string(),
    );
    let scene = scene!(Setup::three_ways().sections(&sections));
    let ways = Ways::open(&scene)?;
    check_all(
        &ways,
        &[
            ("router.lan. A", OK, &["router.lan. 60 A 192.168.1.2"]),
            ("router. A", OK, &["router. 60 A 192.168.1.2"]),
            ("router.lan. AAAA", OK, &["router.lan. 60 AAAA fd00::2"]),
            ("two.lan. A", OK, &["two.lan. 60 A 192.168.1.3"]),
            (
                "3.1.168.192.in-addr.arpa. PTR",
                OK,
                &["3.1.168.192.in-addr.arpa. 60 PTR one.lan."],
            ),
            ("phone.lan. A", NX, &[]),
        ],
    )?;
    // A missing lease file, then one written in place, then a replaced one.
    let lease = |ip: &str, name: &str| format!("0 02:00:00:00:00:01 {ip} {name} 01:02\n");
    fs::write(path("dhcp.leases"), lease("192.168.1.50", "phone"))?;
    wait_address(&ways, "phone.lan.", &["192.168.1.50"])?;
    fs::write(
        path("dhcp.leases"),
        lease("192.168.1.51", "phone") + &lease("192.168.1.52", "tv"),
    )?;
    wait_address(&ways, "phone.lan.", &["192.168.1.51"])?;
    wait_address(&ways, "tv.", &["192.168.1.52"])?;
    fs::write(
        path("new"),
        lease("192.168.1.53", "tv") + "duid 00:01:00:01\n",
    )?;
    fs::rename(path("new"), path("dhcp.leases"))?;
    wait_address(&ways, "tv.lan.", &["192.168.1.53"])?;
    wait_address(&ways, "phone.lan.", &[])?;
    // odhcpd's state file: its own data in comments, and hosts lines.
    fs::write(
        path("odhcpd").join("odhcpd"),
        "# br-lan 00010001 2a laptop 1700000000 1 128 fd00::77/128\nfd00::77\tlaptop.lan\tlaptop\n\
         # br-lan 001122334455 ipv4 desk 1700000000 60 32 192.168.1.60/32\n192.168.1.60\tdesk\n",
    )?;
    wait_address(&ways, "desk.lan.", &["192.168.1.60"])?;
    check_all(
        &ways,
        &[
            ("laptop.lan. AAAA", OK, &["laptop.lan. 10 AAAA fd00::77"]),
            ("tv.lan. A", OK, &["tv.lan. 10 A 192.168.1.53"]),
            (
                "53.1.168.192.in-addr.arpa. PTR",
                OK,
                &["53.1.168.192.in-addr.arpa. 10 PTR tv.lan."],
            ),
            ("phone.lan. A", NX, &[]),
        ],
    )?;
    // Hosts: appended in place; then removed.
    let hosts = fs::read_to_string(path("hosts"))? + "192.168.1.4 three.lan\n";
    fs::write(path("hosts"), hosts)?;
    wait_address(&ways, "three.lan.", &["192.168.1.4"])?;
    fs::remove_file(path("dhcp.leases"))?;
    fs::write(path("dhcp.leases"), lease("192.168.1.54", "late"))?;
    wait_address(&ways, "late.lan.", &["192.168.1.54"])?;
    let asked: Vec<String> = scene
        .upstream
        .asked_all()
        .iter()
        .map(|asked| asked.name().to_lowercase())
        .collect();
    assert!(asked.is_empty(), "{asked:?}");
    Ok(())
}

/// A lease that has ended before it is read, and one that ends later, without a change of the file.
/// Programs that log names ask for a new device's address as soon as they see it, and again: the denial must not be cached for
/// three hours, by us or by the client.
#[test]
fn an_address_of_the_network_has_its_name_as_soon_as_it_has_a_lease() -> Result<()> {
    let folder = Directory::new()?;
    let leases = folder.path().join("dhcp.leases");
    fs::write(&leases, "")?;
    let sections = format!(
        "[local]\nzones = [\"lan\"]\nsearch = [\"lan\"]\nlease_ttl = 7\ndnsmasq_leases = [{leases:?}]\n"
    );
    let scene = scene!(Setup::three_ways().sections(&sections));
    let ways = Ways::open(&scene)?;
    let pointers = [
        ("77.1.168.192.in-addr.arpa.", "168.192.in-addr.arpa."),
        (
            "7.7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            "d.f.ip6.arpa.",
        ),
    ];
    for (pointer, zone) in pointers {
        let denied = ask_all(&ways, &format!("{pointer} PTR"))?;
        assert_eq!(denied.response_code(), NX, "{denied}");
        let soa = format!("{zone} 7 SOA {zone} nobody.invalid. 1 3600 1200 604800 10800");
        assert_records(denied.name_servers(), &[&soa], &denied);
    }
    fs::write(
        &leases,
        "0 02:00:00:00:00:01 192.168.1.77 lamp *\n0 1 fd00::77 lamp 00:03:00:01:02:00:00:00:00:01\n",
    )?;
    wait_address(&ways, "lamp.lan.", &["192.168.1.77"])?;
    for (pointer, _) in pointers {
        let told = format!("{pointer} 7 PTR lamp.lan.");
        check_all(&ways, &[(&format!("{pointer} PTR"), OK, &[&told])])?;
    }
    assert!(scene.upstream.asked_all().is_empty());
    Ok(())
}

#[test]
fn a_lease_that_has_ended_is_none() -> Result<()> {
    let folder = Directory::new()?;
    let path = folder.path().join("dhcp.leases");
    let file = path.display().to_string();
    let sections =
        format!("[local]\nzones = [\"lan\"]\nsearch = [\"lan\"]\ndnsmasq_leases = [{file:?}]\n");
    let scene = scene!(Setup::three_ways().sections(&sections));
    let ways = Ways::open(&scene)?;
    let soon = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3;
    let leases = [
        "1700000000 02:00:00:00:00:01 192.168.1.55 gone *".into(),
        format!("{soon} 02:00:00:00:00:02 192.168.1.56 brief *"),
        "0 02:00:00:00:00:03 192.168.1.57 lasting *".into(),
    ];
    fs::write(&path, leases.join("\n"))?;
    wait_address(&ways, "brief.lan.", &["192.168.1.56"])?;
    check_all(&ways, &[("gone.lan. A", NX, &[])])?;
    wait_address(&ways, "brief.lan.", &[])?;
    wait_address(&ways, "lasting.lan.", &["192.168.1.57"])
}

/// Special-use names: answers for all clients, without a question to upstream.
const SPECIAL: &[Case] = &[
    ("localhost. A", OK, &["localhost. 10800 A 127.0.0.1"]),
    ("localhost. AAAA", OK, &["localhost. 10800 AAAA ::1"]),
    ("x.localhost. A", OK, &["x.localhost. 10800 A 127.0.0.1"]),
    ("localhost. MX", OK, &[]),
    ("invalid. A", NX, &[]),
    ("x.invalid. A", NX, &[]),
    ("facebookcorewwwi.onion. A", NX, &[]),
    ("printer.local. A", NX, &[]),
    ("x.home.arpa. A", NX, &[]),
    ("home.arpa. A", OK, &[]),
    ("_dns.resolver.arpa. SVCB", OK, &[]),
    (
        "1.0.0.127.in-addr.arpa. PTR",
        OK,
        &["1.0.0.127.in-addr.arpa. 10800 PTR localhost."],
    ),
    ("1.1.168.192.in-addr.arpa. PTR", NX, &[]),
    ("1.0.0.10.in-addr.arpa. PTR", NX, &[]),
    ("1.0.31.172.in-addr.arpa. PTR", NX, &[]),
    (
        "10.in-addr.arpa. SOA",
        OK,
        &["10.in-addr.arpa. 10800 SOA 10.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 10800"],
    ),
    ("1.254.169.in-addr.arpa. PTR", NX, &[]),
    ("1.0.64.100.in-addr.arpa. PTR", NX, &[]),
    ("1.2.0.192.in-addr.arpa. PTR", NX, &[]),
    ("0.0.0.0.d.f.ip6.arpa. PTR", NX, &[]),
    ("0.8.e.f.ip6.arpa. PTR", NX, &[]),
    ("8.b.d.0.1.0.0.2.ip6.arpa. PTR", OK, &[]),
    // Not among them.
    (
        "1.1.1.1.in-addr.arpa. PTR",
        OK,
        &["1.1.1.1.in-addr.arpa. 300 PTR one.test."],
    ),
    (
        "1.0.32.172.in-addr.arpa. PTR",
        OK,
        &["1.0.32.172.in-addr.arpa. 300 PTR one.test."],
    ),
    ("notlocalhost. A", OK, &["notlocalhost. 300 A 192.0.2.1"]),
];

/// Upstream's answers for [`SPECIAL`] and the tests below.
fn outside(scene: &Scene) {
    for (name, record) in [
        ("1.1.1.1.in-addr.arpa.", "PTR one.test."),
        ("1.0.32.172.in-addr.arpa.", "PTR one.test."),
        ("notlocalhost.", "A 192.0.2.1"),
        ("plain.", "A 192.0.2.1"),
        ("x.onion.", "A 192.0.2.1"),
        ("x.local.", "A 192.0.2.1"),
    ] {
        scene
            .upstream
            .on(name, Rule::records(&[&format!("{name} 300 {record}")]));
    }
}

#[test]
fn special_names_are_answered_here_by_default() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    outside(&scene);
    let ways = Ways::open(&scene)?;
    check_all(&ways, SPECIAL)?;
    assert_eq!(scene.upstream.asked_all().len(), 3);
    // Each negative answer has the zone and a TTL.
    for (text, code, expected) in SPECIAL.iter().filter(|case| case.2.is_empty()) {
        let answer = ask_all(&ways, text)?;
        assert_eq!((answer.response_code(), expected.len()), (*code, 0));
        assert_eq!(answer.name_servers().len(), 1, "{text}: {answer}");
    }
    let reply = ask_all(&ways, "1.1.168.192.in-addr.arpa. PTR")?;
    assert_records(
        reply.name_servers(),
        &[
            "168.192.in-addr.arpa. 10800 SOA 168.192.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 10800",
        ],
        &reply,
    );
    Ok(())
}

#[test]
fn every_special_name_can_be_overridden() -> Result<()> {
    // By a route, by a record, by omitting it; plain names by a key.
    let scene = scene!(Setup::three_ways().sections(
        "[local]\nrecords = [\"localhost A 127.0.0.9\", \"nas.home.arpa A 192.168.1.5\"]\n\
         special = [\"localhost\", \"invalid\", \"local\", \"home.arpa\", \"private-reverse\", \"test\", \"use-application-dns.net\"]\n\
         forward_plain_names = false\n\
         [[upstream]]\nname = \"inside\"\nservers = [\"10.54.0.3\"]\n\
         domains = [\"x.local\", \"10.0.0.0/8\", \"192.168.4.0/22\", \"fd00:1::/32\"]\n"
    ));
    outside(&scene);
    for (name, record) in [
        ("y.x.local.", "A 192.0.2.3"),
        ("1.0.0.10.in-addr.arpa.", "PTR ten.lan."),
        ("1.7.168.192.in-addr.arpa.", "PTR seven.lan."),
        ("7.1.0.0.0.0.0.d.f.ip6.arpa.", "PTR ula.lan."),
    ] {
        let rule = Rule::records(&[&format!("{name} 300 {record}")]);
        scene.upstream.on_server(SECOND_V4, name, rule);
    }
    let ways = Ways::open(&scene)?;
    check_all(
        &ways,
        &[
            ("localhost. A", OK, &["localhost. 60 A 127.0.0.9"]),
            ("nas.home.arpa. A", OK, &["nas.home.arpa. 60 A 192.168.1.5"]),
            ("x.onion. A", OK, &["x.onion. 300 A 192.0.2.1"]),
            ("y.x.local. A", OK, &["y.x.local. 300 A 192.0.2.3"]),
            ("z.local. A", NX, &[]),
            ("any.test. A", NX, &[]),
            ("use-application-dns.net. A", NX, &[]),
            ("plain. A", NX, &[]),
            ("plain. AAAA", NX, &[]),
            (
                "1.0.0.10.in-addr.arpa. PTR",
                OK,
                &["1.0.0.10.in-addr.arpa. 300 PTR ten.lan."],
            ),
            (
                "1.7.168.192.in-addr.arpa. PTR",
                OK,
                &["1.7.168.192.in-addr.arpa. 300 PTR seven.lan."],
            ),
            ("1.8.168.192.in-addr.arpa. PTR", NX, &[]),
            ("1.3.168.192.in-addr.arpa. PTR", NX, &[]),
            (
                "7.1.0.0.0.0.0.d.f.ip6.arpa. PTR",
                OK,
                &["7.1.0.0.0.0.0.d.f.ip6.arpa. 300 PTR ula.lan."],
            ),
            ("1.2.0.0.0.0.0.d.f.ip6.arpa. PTR", NX, &[]),
        ],
    )
}

#[test]
fn the_longest_route_decides_who_is_asked() -> Result<()> {
    let scene = scene!(Setup::three_ways().sections(
        "[[upstream]]\nname = \"corp\"\nservers = [\"10.54.0.3\"]\n\
         domains = [\"corp.test\", \"deep.pub.corp.test\", \"10.1.0.0/16\"]\n\
         [[upstream]]\nname = \"public\"\nservers = [\"fd54::2\"]\ndomains = [\"pub.corp.test\"]\n"
    ));
    let v6 = xdnsd_lab::lab::UPSTREAM_V6.into();
    let v4 = xdnsd_lab::lab::UPSTREAM_V4.into();
    let cases: [(&str, std::net::IpAddr); 8] = [
        ("corp.test. A", SECOND_V4),
        ("a.b.CORP.test. A", SECOND_V4),
        ("notcorp.test. A", v4),
        ("test. A", v4),
        ("pub.corp.test. A", v6),
        ("x.pub.corp.test. A", v6),
        ("x.deep.pub.corp.test. A", SECOND_V4),
        ("9.9.1.10.in-addr.arpa. PTR", SECOND_V4),
    ];
    let ways = Ways::open(&scene)?;
    for (text, server) in cases {
        let name = text.split(' ').next().unwrap_or_default();
        scene.upstream.on(&name.to_lowercase(), Rule::code(NX));
        let answer = ask_all(&ways, text)?;
        assert_answer(&answer, NX, &[]);
        let asked = scene.upstream.asked(name);
        assert!(
            !asked.is_empty() && asked.iter().all(|asked| asked.server == server),
            "{text}: {asked:?}"
        );
    }
    // The parent knows whether a zone is signed.
    scene.upstream.on("corp.test.", Rule::nodata());
    ask_all(&ways, "corp.test. DS do")?;
    let last = scene.upstream.asked("corp.test.").pop().expect("asked");
    assert_eq!(last.server, v4);
    Ok(())
}
