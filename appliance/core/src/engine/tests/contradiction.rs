//! Upstreams that contradict themselves: a name is denied for one type and has data for another (RFC 4074 section 4.2).

use super::harness::*;
use crate::answer::Key;

fn deny(message: &mut Message) {
    message.set_response_code(ResponseCode::NXDomain);
    message.add_name_server(soa("example.", 3_600, 3_600));
}

fn nodata(message: &mut Message) {
    message.add_name_server(soa("example.", 3_600, 3_600));
}

fn record(ttl_secs: u32) -> impl FnOnce(&mut Message) {
    move |message| {
        let query = message.queries()[0].clone();
        let owner = format!("{}", query.name());
        let (qtype, data) = (query.query_type(), &b"\0\x01\0"[..]);
        let record = if qtype == RecordType::A {
            address(&owner, ttl_secs, 1)
        } else {
            let is_address = qtype == RecordType::AAAA;
            let data = if is_address { &[0x20; 16] } else { data };
            opaque(&owner, ttl_secs, qtype.into(), data)
        };
        message.add_answer(record);
    }
}

const TYPES: [RecordType; 4] = [
    RecordType::AAAA,
    RecordType::HTTPS,
    RecordType::MX,
    RecordType::TXT,
];

/// True if a question of this type goes upstream now.
fn is_asked(world: &mut World<'_>, name: &str, qtype: RecordType) -> bool {
    let asked = world.effects.asked.len();
    let outcome = world.ask(99, &query_type(name, qtype, 99)).0;
    let is_asked = world.effects.asked.len() > asked;
    assert_eq!(outcome == Outcome::Pending, is_asked);
    is_asked
}

fn ask(world: &mut World<'_>, name: &str, qtype: RecordType, build: impl FnOnce(&mut Message)) {
    world.miss(1, &query_type(name, qtype, 1));
    world.respond(build);
}

#[test]
fn a_denial_for_another_type_leaves_an_address_without_ttl() {
    for qtype in TYPES {
        with_world(Settings::DEFAULT, |world| {
            for _ in 0..3 {
                ask(world, "a.example.", RecordType::A, record(0));
                assert_eq!(world.last_reply().answers().len(), 1);
                let denied = world.ask(1, &query_type("a.example.", qtype, 2)).0;
                if denied == Outcome::Pending {
                    world.respond(deny);
                }
                assert!(!is_asked(world, "a.example.", qtype), "its own is kept");
            }
        });
    }
}

#[test]
fn a_denial_for_another_type_before_the_address_was_asked_for_holds_for_that_type() {
    for qtype in TYPES {
        with_world(Settings::DEFAULT, |world| {
            ask(world, "a.example.", qtype, deny);
            assert!(!is_asked(world, "a.example.", qtype));
            ask(world, "a.example.", RecordType::A, record(0));
            assert_eq!(world.last_reply().answers().len(), 1);
            for other in TYPES.into_iter().filter(|&other| other != qtype) {
                assert!(is_asked(world, "a.example.", other), "{qtype} {other}");
            }
        });
    }
}

/// Evidence for any type, however it came, keeps a denial of A from holding for others.
#[test]
fn a_name_that_is_known_to_exist_is_denied_for_one_type_only() {
    let no_stale = Settings {
        serve_stale: false,
        ..Settings::DEFAULT
    };
    for settings in [Settings::DEFAULT, no_stale] {
        for (ttl_secs, wait_ms) in [(0, 0), (300, 0), (30, 60_000), (1, 86_000_000)] {
            with_world(settings, |world| {
                ask(world, "a.example.", RecordType::AAAA, record(ttl_secs));
                world.pass(wait_ms);
                if ttl_secs == 0 || wait_ms == 0 {
                    world.pass(1_000);
                }
                ask(world, "a.example.", RecordType::A, deny);
                assert!(!is_asked(world, "a.example.", RecordType::A));
                assert!(is_asked(world, "a.example.", RecordType::MX), "{ttl_secs}");
                let is_fresh = ttl_secs == 300;
                let is_asked = is_asked(world, "a.example.", RecordType::AAAA);
                assert_eq!(is_asked, !is_fresh, "{ttl_secs}");
            });
        }
    }
}

#[test]
fn a_type_that_had_data_is_not_denied_by_what_is_said_of_a() {
    let no_stale = Settings {
        serve_stale: false,
        ..Settings::DEFAULT
    };
    with_world(no_stale, |world| {
        // No type that is looked up when A is denied.
        let odd = RecordType::from(65_280);
        ask(world, "a.example.", odd, record(10));
        world.pass(60_000);
        ask(world, "a.example.", RecordType::A, deny);
        assert!(is_asked(world, "a.example.", odd));
    });
}

#[test]
fn what_comes_after_a_denial_ends_it_for_all_flags() {
    for ttl_secs in [0, 300] {
        with_world(Settings::DEFAULT, |world| {
            for name in ["a.example.", "b.example."] {
                for dnssec_ok in [false, true] {
                    world.miss(1, &query(name, 1));
                    let aaaa = query_type(name, RecordType::AAAA, 2);
                    world.miss(2, &with_edns(aaaa, dnssec_ok));
                    let last = world.effects.asked.len() - 1;
                    world.respond_to(last - 1, deny);
                    if name == "a.example." {
                        world.respond_to(last, record(ttl_secs));
                    } else {
                        world.respond_to(last, nodata);
                    }
                    assert!(is_asked(world, name, RecordType::MX), "{name} {ttl_secs}");
                    world.pass(90_000_000);
                }
            }
        });
    }
}

#[test]
fn a_denial_with_an_alias_in_front_is_not_of_the_name() {
    with_world(Settings::DEFAULT, |world| {
        ask(world, "a.example.", RecordType::A, |message| {
            deny(message);
            message.add_answer(alias("a.example.", 60, "gone.example."));
        });
        assert!(is_asked(world, "a.example.", RecordType::MX));
        // And it shows that the name exists.
        ask(world, "b.example.", RecordType::AAAA, |message| {
            deny(message);
            message.add_answer(alias("b.example.", 0, "gone.example."));
        });
        ask(world, "b.example.", RecordType::A, deny);
        assert!(is_asked(world, "b.example.", RecordType::MX));
    });
}

/// TTL 0 is never cached (RFC 1035 section 3.2.1), nor is a denial without an SOA (RFC 2308 section 5): for no type, not
/// even for use when no server answers.
#[test]
fn a_denial_that_is_not_kept_is_none_for_other_types() {
    let ttl_0: fn(&mut Message) = |message| {
        message.add_name_server(soa("example.", 0, 3_600));
    };
    let minimum_0: fn(&mut Message) = |message| {
        message.add_name_server(soa("example.", 3_600, 0));
    };
    let no_soa: fn(&mut Message) = |_| {};
    for build in [ttl_0, minimum_0, no_soa] {
        with_world(Settings::DEFAULT, |world| {
            ask(world, "a.example.", RecordType::A, |message| {
                message.set_response_code(ResponseCode::NXDomain);
                build(message);
            });
            assert_eq!(world.last_reply().response_code(), ResponseCode::NXDomain);
            let shard = world.engine.cache.shard.lock().unwrap();
            let kept = (0..Shard::SLOTS).filter_map(|index| shard.slot(index));
            assert_eq!(kept.count(), 0);
        });
    }
}

#[test]
fn a_ds_neither_denies_nor_is_denied() {
    with_world(Settings::DEFAULT, |world| {
        let ds = RecordType::from(43);
        ask(world, "a.example.", ds, deny);
        assert!(is_asked(world, "a.example.", RecordType::AAAA));
        ask(world, "b.example.", RecordType::A, deny);
        assert!(is_asked(world, "b.example.", ds));
        assert!(!is_asked(world, "b.example.", RecordType::AAAA));
    });
}

/// One server of the group denies, the other has data.
#[test]
fn servers_that_disagree_are_believed_per_type() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query_type("a.example.", RecordType::AAAA, 1));
        world.respond(code(ResponseCode::ServFail));
        world.respond(record(0));
        ask(world, "a.example.", RecordType::A, deny);
        assert!(is_asked(world, "a.example.", RecordType::AAAA));
        assert_eq!(world.asked()[..2], [UPSTREAM_1, UPSTREAM_2]);
    });
}

/// Changes everything in the cache as a snapshot would.
fn restore(world: &mut World<'_>) {
    let cache = world.engine.cache;
    let mut shard = cache.shard.lock().unwrap();
    let slots = (0..Shard::SLOTS).filter_map(|index| shard.slot(index));
    let entries: Vec<_> = slots
        .map(|(key, _)| (key.name.to_vec(), key.qtype, key.dnssec_ok))
        .collect();
    for (name, qtype, dnssec_ok) in entries {
        let key = Key {
            name: &name,
            qtype,
            dnssec_ok,
            checking_disabled: false,
            view: 0,
        };
        shard.amend(&key.hashed(&cache.seed), |head| head.restored = true);
    }
}

#[test]
fn what_a_snapshot_brings_back_is_evidence_and_no_denial() {
    with_world(Settings::DEFAULT, |world| {
        ask(world, "no.example.", RecordType::A, deny);
        ask(world, "a.example.", RecordType::AAAA, record(300));
        restore(world);
        assert!(is_asked(world, "no.example.", RecordType::MX));
        world.miss(1, &query_type("a.example.", RecordType::A, 1));
        world.respond(deny);
        assert!(is_asked(world, "a.example.", RecordType::MX));
    });
}

#[test]
fn the_mark_of_a_name_without_ttl_ends_with_the_longest_denial() {
    with_world(Settings::DEFAULT, |world| {
        ask(world, "a.example.", RecordType::AAAA, record(0));
        world.pass(3_601_000);
        ask(world, "a.example.", RecordType::A, deny);
        assert!(!is_asked(world, "a.example.", RecordType::MX));
    });
}
