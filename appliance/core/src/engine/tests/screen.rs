//! Addresses of upstream's answers that are not passed on.

use super::harness::*;
use crate::dns::edns::ede;
use crate::policy::Screen;
use crate::policy::ranges::AddressRanges;

/// 192.0.2.80 and 2001:db8::80 mean that there is no such name.
fn bogus() -> AddressRanges<'static> {
    let mut bytes = Vec::new();
    for count in [3u32, 3] {
        bytes.extend(count.to_le_bytes());
    }
    for start in [0u32, 0xc000_0250, 0xc000_0251] {
        bytes.extend(start.to_le_bytes());
    }
    bytes.extend([0, 1, 0]);
    let of_v6 = 0x2001_0db8_0000_0000_0000_0000_0000_0080_u128;
    for start in [0, of_v6, of_v6 + 1] {
        bytes.extend(start.to_le_bytes());
    }
    bytes.extend([0, 1, 0]);
    AddressRanges::view(Vec::leak(bytes)).unwrap()
}

fn policy(screen: Screen<'static>) -> Policy<'static> {
    Policy {
        generation: 1,
        screen,
        block_ttl_secs: 10,
        ..Policy::OPEN
    }
}

fn v6(last: u8) -> Record {
    let rdata = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    opaque("x.example.", 60, 28, &rdata)
}

fn v4(last: u8) -> Record {
    opaque("x.example.", 60, 1, &[192, 0, 2, last])
}

/// What a client gets when upstream answers with these records, at once and out of the cache: code, answers, code of the extended
/// error.
fn answered(
    world: &mut World<'_>,
    qtype: RecordType,
    records: &[Record],
) -> (ResponseCode, usize, Option<u16>) {
    let asked = with_edns(query_type("x.example.", qtype, 1), false);
    world.miss(1, &asked);
    world.respond(|message| {
        message.add_answers(records.iter().cloned());
    });
    let reply = world.last_reply();
    let error = extended_error(world.last_bytes());
    let kept = world.hit(&asked);
    assert_eq!(
        (kept.response_code(), kept.answers().len()),
        (reply.response_code(), reply.answers().len())
    );
    (reply.response_code(), reply.answers().len(), error)
}

#[test]
fn an_address_that_means_no_such_name_becomes_nxdomain() {
    for (qtype, records, is_bogus) in [
        (RecordType::A, vec![v4(80)], true),
        (RecordType::A, vec![v4(79), v4(80)], true),
        (RecordType::A, vec![v4(79), v4(81)], false),
        (RecordType::AAAA, vec![v6(0x80)], true),
        (RecordType::AAAA, vec![v6(0x81)], false),
    ] {
        with_world(Settings::DEFAULT, |world| {
            world.policy = policy(Screen {
                bogus: bogus(),
                ..Screen::OFF
            });
            let expected = if is_bogus {
                (ResponseCode::NXDomain, 0, Some(ede::BLOCKED))
            } else {
                (ResponseCode::NoError, records.len(), None)
            };
            assert_eq!(answered(world, qtype, &records), expected);
            assert_eq!(world.get(Counter::BogusNxdomain), u64::from(is_bogus));
            // For as long as policy says, not for as long as the answer would have held.
            world.pass(11_000);
            let asked = query_type("x.example.", qtype, 2);
            match is_bogus {
                true => world.miss(1, &asked),
                false => drop(world.hit(&asked)),
            }
        });
    }
}

#[test]
fn a_family_that_is_withheld_is_no_data_and_the_other_stays() {
    for (screen, a, aaaa) in [
        (Screen::OFF, 1, 1),
        (
            Screen {
                without_aaaa: true,
                ..Screen::OFF
            },
            1,
            0,
        ),
        (
            Screen {
                without_a: true,
                ..Screen::OFF
            },
            0,
            1,
        ),
    ] {
        for (qtype, record, count) in [(RecordType::A, v4(1), a), (RecordType::AAAA, v6(1), aaaa)] {
            with_world(Settings::DEFAULT, |world| {
                world.policy = policy(screen);
                let error = (count == 0).then_some(ede::BLOCKED);
                let expected = (ResponseCode::NoError, count, error);
                assert_eq!(answered(world, qtype, &[record]), expected);
                assert_eq!(world.get(Counter::FamilyWithheld), u64::from(count == 0));
            });
        }
    }
}

#[test]
fn a_name_that_does_not_exist_stays_so_where_its_family_is_withheld() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = policy(Screen {
            without_aaaa: true,
            ..Screen::OFF
        });
        world.miss(1, &query_type("x.example.", RecordType::AAAA, 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
        });
        assert_eq!(world.last_reply().response_code(), ResponseCode::NXDomain);
        assert_eq!(world.get(Counter::FamilyWithheld), 0);
    });
}

/// What was kept before the config said so is judged again, and what it withheld is asked for again once it does not.
#[test]
fn what_is_kept_follows_the_config() {
    let bogus = Screen {
        bogus: bogus(),
        ..Screen::OFF
    };
    with_world(Settings::DEFAULT, |world| {
        for (generation, screen, code) in [
            (1, Screen::OFF, ResponseCode::NoError),
            (2, bogus, ResponseCode::NXDomain),
            (3, Screen::OFF, ResponseCode::NoError),
        ] {
            world.policy = Policy {
                generation,
                ..policy(screen)
            };
            world.miss(1, &query("x.example.", 1));
            world.respond(|message| {
                message.add_answer(v4(80));
            });
            assert_eq!(world.last_reply().response_code(), code, "{generation}");
        }
    });
}
