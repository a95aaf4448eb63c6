//! DNS64: IPv6 addresses made of IPv4 ones, by all ways in, for those who are to get them.

use anyhow::Result;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Record, RecordType};

use crate::support::message::{address, cname, name, wire};
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::{Case, check_all, question};
use crate::support::upstream::Asked;
use crate::support::ways::Ways;
use crate::views::clients;

const OK: ResponseCode = ResponseCode::NoError;
const NX: ResponseCode = ResponseCode::NXDomain;
const WELL_KNOWN: &str = "[dns64]\nprefix = \"64:ff9b::/96\"\n";
/// 198.41.0.4 below that prefix.
const REVERSE: &str = "4.0.0.0.9.2.6.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.b.9.f.f.4.6.0.0.ip6.arpa.";

/// What servers say of these names.
fn script(scene: &Scene) {
    let upstream = &scene.upstream;
    upstream.on("v4.test.", Rule::addresses(300, &["198.41.0.4"]));
    upstream.on("home.test.", Rule::addresses(300, &["192.168.1.7"]));
    let both = ["198.41.0.4", "2001:db8::1"];
    upstream.on("both.test.", Rule::addresses(300, &both));
    let chain = Rule::answer(300, &[cname("v4.cdn.test.")]);
    upstream.on("chain.test.", chain);
    upstream.on("v4.cdn.test.", Rule::addresses(200, &["198.41.0.4"]));
    upstream.on("gone.test.", Rule::code(NX));
    // As some servers do (RFC 4074).
    let broken = |query: &Message, reply: &mut Message| {
        if query.queries()[0].query_type() == RecordType::AAAA {
            reply.set_response_code(ResponseCode::ServFail);
        } else {
            let data = address("198.41.0.4");
            reply.add_answer(Record::from_rdata(name("broken.test."), 300, data));
        }
    };
    upstream.on("broken.test.", Rule::made(broken));
    let pointer = Rule::records(&["4.0.41.198.in-addr.arpa. 300 PTR a.root.test."]);
    upstream.on("4.0.41.198.in-addr.arpa.", pointer);
}

const ANSWERS: &[Case] = &[
    ("v4.test. AAAA", OK, &["v4.test. 60 AAAA 64:ff9b::c629:4"]),
    ("v4.test. A", OK, &["v4.test. 300 A 198.41.0.4"]),
    (
        "v4.test. AAAA do",
        OK,
        &["v4.test. 60 AAAA 64:ff9b::c629:4"],
    ),
    ("v4.test. AAAA do cd", OK, &[]),
    ("home.test. AAAA", OK, &[]),
    ("both.test. AAAA", OK, &["both.test. 300 AAAA 2001:db8::1"]),
    (
        "chain.test. AAAA",
        OK,
        &[
            "chain.test. 300 CNAME v4.cdn.test.",
            "v4.cdn.test. 60 AAAA 64:ff9b::c629:4",
        ],
    ),
    ("gone.test. AAAA", NX, &[]),
    (
        "broken.test. AAAA",
        OK,
        &["broken.test. 300 AAAA 64:ff9b::c629:4"],
    ),
    ("nas.lan. AAAA", OK, &[]),
    (
        "ipv4only.arpa. AAAA",
        OK,
        &[
            "ipv4only.arpa. 600 AAAA 64:ff9b::c000:aa",
            "ipv4only.arpa. 600 AAAA 64:ff9b::c000:ab",
        ],
    ),
];

#[test]
fn addresses_are_made_by_all_ways_alike() -> Result<()> {
    let local = "[local]\nrecords = [\"nas.lan A 198.41.0.9\"]\n";
    let scene = scene!(Setup::three_ways().sections(WELL_KNOWN).sections(local));
    script(&scene);
    let ways = Ways::open(&scene)?;
    check_all(&ways, ANSWERS)?;
    let reply = ways.same(&wire(&question(&format!("{REVERSE} PTR"))))?;
    assert_eq!(reply.answers().len(), 2, "{reply:?}");
    ways.check_tiers()?;
    let asked = scene.upstream.asked("v4.test.");
    let types: Vec<RecordType> = {
        let of = |asked: &Asked| asked.query.queries()[0].query_type();
        asked.iter().map(of).collect()
    };
    let aaaa = types
        .iter()
        .filter(|rtype| **rtype == RecordType::AAAA)
        .count();
    // For DO, for CD with it, and without; of each way that shares no table the first.
    assert!((3..=6).contains(&aaaa), "{types:?}");
    assert!(scene.upstream.asked(REVERSE).is_empty());
    let why = scene.daemon.control("why v4.test AAAA")?;
    for part in [
        "dns64: without IPv6 addresses, some are made of the IPv4 ones; dns64.prefix",
        ", by DNS64\n",
        "64:ff9b::c629:4",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    Ok(())
}

/// Guests have no IPv4, all others have.
#[test]
fn who_is_not_to_get_made_addresses_gets_none_and_a_reload_changes_who_is() -> Result<()> {
    let view = "[[view]]\nname = \"guests\"\nclients = [\"10.53.0.77\"]\ndns64 = \"on\"\n";
    let only_views = format!("{WELL_KNOWN}all_clients = false\n{view}");
    let scene = scene!(Setup::default().sections(&only_views));
    script(&scene);
    let [one, guest] = clients(&scene)?;
    let aaaa = |texts: &[&str]| (OK, texts.iter().map(|text| (*text).to_owned()).collect());
    let made = aaaa(&["64:ff9b::c629:4"]);
    for _ in 0..2 {
        assert_eq!(guest.told("v4.test.", RecordType::AAAA)?, made);
        assert_eq!(one.told("v4.test.", RecordType::AAAA)?, aaaa(&[]));
    }
    let path = scene.directory.path().join("config.toml");
    let config = std::fs::read_to_string(&path)?;
    let turned = config
        .replace("all_clients = false", "all_clients = true")
        .replace("dns64 = \"on\"", "dns64 = \"off\"");
    std::fs::write(&path, turned)?;
    let said = scene.daemon.control("reload")?;
    for key in ["dns64.all_clients", "view.dns64"] {
        assert!(said.contains(key), "{said}");
    }
    for _ in 0..2 {
        assert_eq!(guest.told("v4.test.", RecordType::AAAA)?, aaaa(&[]));
        assert_eq!(one.told("v4.test.", RecordType::AAAA)?, made);
    }
    Ok(())
}
