//! Response policy zones. What becomes of each name of [`ZONE`] was asked of unbound 1.17.1 with `rpz:` and this file.

use std::path::Path;

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::Labels;
use xdnsd_core::policy::list::{List, Rank, Ruling};

use super::*;
use crate::compile::lists::{ListBuilder, ListPurpose, ListTally};

const ZONE: &str = "; a policy\n\
    $TTL 30\n\
    @ SOA localhost. root.localhost. 1 86400 7200 2592000 86400\n\
    \x20 NS localhost.\n\
    exact.example CNAME .\n\
    *.wild.example CNAME .\n\
    both.example CNAME .\n\
    *.both.example CNAME .\n\
    nodata.example CNAME *.\n\
    *.nodata.example CNAME *.\n\
    drop.example CNAME rpz-drop.\n\
    *.ads.example CNAME .\n\
    ok.ads.example CNAME rpz-passthru.\n\
    *.okw.ads.example CNAME rpz-passthru.\n\
    bad.okw.ads.example CNAME .\n\
    *.old.example CNAME .\n\
    self.old.example CNAME self.old.example.\n\
    *.shade.example CNAME .\n\
    www.shade.example CNAME .\n\
    deep.in.ent.shade.example CNAME .\n\
    *.mix.example CNAME .\n\
    *.n.mix.example CNAME *.\n\
    m.mix.example CNAME *.\n\
    *.garden.example CNAME .\n\
    ok.garden.example A 192.0.2.1\n\
    sink.example A 0.0.0.0\n\
    *.good.example CNAME rpz-passthru.\n\
    bad.good.example CNAME .\n\
    *.worse.good.example CNAME .\n\
    32.1.2.0.192.rpz-ip CNAME .\n\
    ns.example.rpz-nsdname CNAME .\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nxdomain,
    Nodata,
    /// Asked upstream.
    Free,
}
use Seen::{Free, Nodata, Nxdomain};

fn compiled(text: &str) -> (Vec<u8>, ListTally) {
    let mut builder = ListBuilder::with_key([7; 16]);
    let tally = builder.add_text(Path::new("zone"), text.as_bytes(), 0, ListPurpose::Block);
    let tally = tally.expect("a list");
    (builder.build().expect("no crowded bucket"), tally)
}

fn ruling(image: &[u8], name: &str) -> Ruling {
    let name = name::parse(name).expect("a name");
    let list = List::check(image).expect("a list");
    list.ruling(&Labels::new(&name).expect("well-formed"), rtype::A)
}

fn seen(image: &[u8], name: &str) -> Seen {
    let ruling = ruling(image, name);
    match ruling.rank {
        Rank::None | Rank::Allow | Rank::ImportantAllow => Free,
        Rank::Block | Rank::ImportantBlock if ruling.is_of_types => Nodata,
        Rank::Block | Rank::ImportantBlock => Nxdomain,
    }
}

#[test]
fn names_are_answered_as_unbound_answers_them() {
    let (image, _) = compiled(ZONE);
    for (name, expected) in [
        ("exact.example", Nxdomain),
        ("a.exact.example", Free),
        ("wild.example", Free),
        ("a.wild.example", Nxdomain),
        ("a.b.wild.example", Nxdomain),
        ("both.example", Nxdomain),
        ("a.both.example", Nxdomain),
        ("nodata.example", Nodata),
        ("a.nodata.example", Nodata),
        ("ads.example", Free),
        ("x.ads.example", Nxdomain),
        ("ok.ads.example", Free),
        ("a.ok.ads.example", Free),
        ("okw.ads.example", Nxdomain),
        ("a.okw.ads.example", Free),
        ("bad.okw.ads.example", Nxdomain),
        ("a.bad.okw.ads.example", Free),
        ("self.old.example", Free),
        ("other.old.example", Nxdomain),
        ("a.shade.example", Nxdomain),
        ("www.shade.example", Nxdomain),
        ("a.www.shade.example", Free),
        ("ent.shade.example", Nxdomain),
        ("in.ent.shade.example", Nxdomain),
        ("a.ent.shade.example", Nxdomain),
        ("a.in.ent.shade.example", Nxdomain),
        ("deep.in.ent.shade.example", Nxdomain),
        ("a.deep.in.ent.shade.example", Free),
        ("a.mix.example", Nxdomain),
        ("n.mix.example", Nxdomain),
        ("a.n.mix.example", Nodata),
        ("m.mix.example", Nodata),
        ("a.m.mix.example", Free),
        ("a.garden.example", Nxdomain),
        ("a.ok.garden.example", Free),
        ("good.example", Free),
        ("a.good.example", Free),
        ("bad.good.example", Nxdomain),
        ("a.bad.good.example", Free),
        ("worse.good.example", Free),
        ("a.worse.good.example", Nxdomain),
        ("other.example", Free),
        // Where a list says something else than unbound: no silence, no local data.
        ("drop.example", Nxdomain),
        ("sink.example", Nxdomain),
        ("ok.garden.example", Free),
        // Triggers that are no names.
        ("192.0.2.1.rpz-ip", Free),
        ("ns.example.rpz-nsdname", Free),
    ] {
        assert_eq!(seen(&image, name), expected, "{name}");
    }
}

/// What rpz-passthru. lets through is an exception to other lists, too; names that are left out of it are not.
#[test]
fn names_that_are_let_through_are_exceptions_and_others_are_not() {
    let (image, _) = compiled(ZONE);
    for (name, rank) in [
        ("a.good.example", Rank::Allow),
        ("worse.good.example", Rank::Allow),
        ("bad.good.example", Rank::Block),
        ("a.bad.good.example", Rank::None),
        ("ok.ads.example", Rank::Allow),
        ("a.ok.ads.example", Rank::None),
    ] {
        assert_eq!(ruling(&image, name).rank, rank, "{name}");
    }
}

#[test]
fn what_is_not_taken_is_counted_and_the_first_is_told() {
    let (_, tally) = compiled(ZONE);
    assert_eq!((tally.skipped, tally.repeated), (3, 0), "{tally}");
    let told = tally.to_string();
    assert!(
        told.contains("first: line 25 \"ok.garden.example A 192.0.2.1\": local data"),
        "{told}"
    );
    assert!(told.contains(" of a response policy zone"), "{told}");
    let reasons = tally.reasons_in_words().expect("three reasons");
    for trigger in ["1 \"trigger `rpz-ip`", "1 \"trigger `rpz-nsdname`"] {
        assert!(reasons.contains(trigger), "{reasons}");
    }
    let (_, tally) = compiled(
        "$TTL 1\na.example CNAME .\nb.example CNAME rpz-tcp-only.\n24.0.2.0.192.rpz-client-ip CNAME .\n8.zz.rpz-nsip CNAME .\n$INCLUDE x\n",
    );
    assert_eq!((tally.rules, tally.skipped), (1, 4), "{tally}");
}

/// The zone's own name is no part of the names, however it is written.
#[test]
fn the_name_of_the_zone_is_cut_off_in_each_form() {
    let soa = "SOA localhost. root.localhost. (\n 1 ; serial\n 2 3 4 5 )";
    for text in [
        format!("@ IN {soa}\nads.example 60 IN CNAME . ; why\n"),
        format!("$ORIGIN rpz.lan.\n@ {soa}\nads.example CNAME .\n"),
        format!("$ORIGIN RPZ.lan.\n@ {soa}\nADS.example.rpz.LAN. IN 1h CNAME .\n"),
        format!("rpz.lan. 300 IN {soa}\nads.example.rpz.lan. CNAME .\n"),
        format!("rpz.lan. 300 IN {soa}\nads.example CNAME .\n"),
        format!("$ORIGIN rpz.lan.\n@ {soa}\n$ORIGIN example\nads CNAME .\n"),
        format!("$ORIGIN lan.\nrpz {soa}\n$ORIGIN rpz.lan.\nads.example CNAME .\r\n"),
        format!(
            "$ttl 2h\r\n@ {soa}\r\nother.example CNAME rpz-passthru.\nads.example TXT ( \"; (\"\n )\n    CNAME .\n"
        ),
        format!("\u{feff}; a policy\n\n$TTL 1\n@ {soa}\nads.example CNAME .\n"),
    ] {
        let (image, _) = compiled(&text);
        assert_eq!(seen(&image, "ads.example"), Nxdomain, "{text}");
        for free in [
            "ads.example.rpz.lan",
            "rpz.lan",
            "ads",
            "x.ads.example",
            "1",
            "5",
        ] {
            assert_eq!(seen(&image, free), Free, "{free}\n{text}");
        }
    }
    let (image, tally) = compiled(&format!(
        "$ORIGIN rpz.lan.\n@ {soa}\nads.example. CNAME .\n CNAME .\nother.example CNAME .\n"
    ));
    assert_eq!(tally.skipped, 2, "{tally}");
    assert_eq!(seen(&image, "ads.example"), Free);
    assert_eq!(seen(&image, "other.example"), Nxdomain);
}

#[test]
fn all_names_may_be_blocked_but_those_that_are_let_through() {
    let (image, _) = compiled(
        "$TTL 1\n* CNAME .\nok.example CNAME rpz-passthru.\n*.ok.example CNAME rpz-passthru.\nzip CNAME *.\n",
    );
    for (name, expected) in [
        ("com", Nxdomain),
        ("a.example", Nxdomain),
        ("ok.example", Free),
        ("a.b.ok.example", Free),
        ("zip", Nodata),
        ("a.zip", Free),
    ] {
        assert_eq!(seen(&image, name), expected, "{name}");
    }
}

/// A zone begins a file, or is none: these lines are as they are in other lists.
#[test]
fn other_lists_are_no_zones() {
    for line in [
        "$TTL",
        "$ttl 30",
        "$ORIGIN rpz.lan.",
        "@ SOA a. b. 1 2 3 4 5",
        "rpz.lan. 300 IN SOA a. b. (",
        "@\tIN\t1h\tSOA\ta. b. 1 2 3 4 5",
    ] {
        assert!(begins(line), "{line}");
    }
    for line in [
        "",
        "; $TTL 30",
        "soa.example",
        "0.0.0.0 soa a.example b.example",
        "||ads.example^$TTL",
        "$popup",
        "SOA a b",
        "ads.example CNAME .",
    ] {
        assert!(!begins(line), "{line}");
    }
    let (image, tally) = compiled("ads.example\n$TTL 30\nbad.example CNAME .\n");
    assert_eq!((tally.rules, tally.skipped), (1, 2), "{tally}");
    assert_eq!(seen(&image, "a.ads.example"), Nxdomain);
}

#[test]
fn escapes_of_an_owner_stand_for_their_characters() {
    let text = "$TTL 30\n@ SOA a. b. 1 1 1 1 1\na2\\048.up CNAME .\nb\\.c.up CNAME .\nd\\032e.up CNAME .\n";
    let (image, tally) = compiled(text);
    assert_eq!((tally.rules, tally.skipped), (1, 2));
    assert!(ruling(&image, "a20.up").rank != Rank::None);
}
