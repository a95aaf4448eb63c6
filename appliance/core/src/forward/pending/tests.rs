//! The table of questions in flight: places, shares, deadlines.

use super::*;
use crate::answer::Key;
use crate::forward::question::{Deadlines, Stage};
use crate::forward::tries::ATTEMPTS;
use crate::forward::upstreams::UpstreamConfig;
use core::net::SocketAddr;

fn pending(number: u64, bucket: u8) -> Question {
    let deadlines = Deadlines {
        next_try: Instant::from_millis(1_000 + number),
        stale: Instant::FAR_FUTURE,
        give_up: Instant::from_millis(10_000),
    };
    Question {
        qtype: number as u16,
        name_hash: number,
        bucket,
        ..Question::new(Name::ROOT, Stage::Asking, deadlines)
    }
}

fn waiter(reply_path: u32, id: u16) -> Waiter<u32> {
    Waiter {
        reply_path,
        id,
        flags: 0,
        limit: 512,
        is_tcp: false,
        edns: None,
        lacks_cookie: false,
        case: LetterCase::LOWER,
        bucket: reply_path as u8,
        links: WaiterLinks::default(),
    }
}

fn table() -> std::boxed::Box<PendingTable<u32>> {
    crate::testing::on_large_stack(|| std::boxed::Box::new(PendingTable::new()))
}

#[test]
fn what_is_put_in_is_found_and_freed() {
    let mut table = table();
    let index = table.insert(pending(7, 0)).expect("room");
    let key = Key {
        name: b"\0",
        qtype: 7,
        dnssec_ok: false,
        checking_disabled: false,
        view: 0,
    };
    let found = key.with_name_hash(7);
    assert_eq!(table.find(&found), Some(index));
    let other = Key {
        dnssec_ok: true,
        ..key
    };
    assert_eq!(
        table.find(&HashedKey::placed(other, found.hash())),
        None,
        "DO is part of the key"
    );
    let attempt = Attempt {
        upstream: 3,
        via: Some(Via::Stream { slot: 1 }),
        id: 9,
        sent: Instant::from_millis(0),
        live: true,
        edns: true,
        random_case: false,
        overdue: false,
        forged: 0,
    };
    let (question, sub) = table.get_mut(index).expect("in flight");
    assert!(sub.is_none());
    for _ in 0..ATTEMPTS {
        assert!(!question.tries.is_full());
        question.tries.push(attempt);
    }
    assert!(question.tries.is_full());
    question.tries.push(attempt);
    let attempts = question.tries.as_slice();
    assert_eq!(attempts.len(), ATTEMPTS, "no more than that");
    assert_eq!(question.tries.asked(), 1 << 3);
    let via = Via::Stream { slot: 1 };
    assert_eq!(table.attempt_by(via, u16::MAX), Some((index, attempt)));
    for id in 0..3 {
        table.join(index, waiter(5, id), None).expect("room");
    }
    assert!(table.is_joined(index, &waiter(5, 1), None));
    assert!(!table.is_joined(index, &waiter(5, 1), Some(&Name::ROOT)));
    assert_eq!(table.waiters.len(), 3);
    table
        .join(index, waiter(5, 1), Some(&Name::ROOT))
        .expect("the same ID for another name");
    assert_eq!((table.waiters.len(), table.aliases.len()), (4, 1));
    table.remove(index);
    assert_eq!(
        (table.find(&found), table.attempt_by(via, u16::MAX)),
        (None, None)
    );
    assert_eq!((table.waiters.len(), table.aliases.len()), (0, 0));
    assert!(
        table
            .waiting
            .iter()
            .chain(&table.held)
            .all(|&held| held == 0)
    );
}

#[test]
fn the_client_that_fills_the_table_pays_for_it() {
    let mut table = table();
    for number in 0..PENDING as u64 {
        let bucket = if number < 10 { 2 } else { 1 };
        table
            .insert(pending(number, bucket))
            .expect("the whole table is free for all");
    }
    assert_eq!(table.insert(pending(9_999, 2)), Err(PendingFull::Questions));
    assert_eq!(
        table.victim(),
        Some(10),
        "the oldest question of the client with the most"
    );
    table.remove(10);
    assert_eq!(table.insert(pending(9_999, 2)), Ok(10));
    assert_eq!(table.victim(), Some(11));
}

#[test]
fn one_client_gets_its_share_of_the_places_to_wait_in() {
    let mut table = table();
    let index = table.insert(pending(1, 0)).expect("room");
    for id in 0..(WAITERS / 2) as u16 {
        table
            .join(index, waiter(5, id), None)
            .expect("half of them are free for all");
    }
    assert_eq!(
        table.join(index, waiter(5, 60_000), None),
        Err(PendingFull::Share)
    );
    assert_eq!(table.join(index, waiter(6, 60_000), None), Ok(()));
}

#[test]
fn due_names_each_question_once_its_time_has_come() {
    let mut table = table();
    for number in [5u64, 1] {
        table.insert(pending(number, 0)).expect("room");
    }
    assert_eq!(table.due(Instant::from_millis(1_000)), None);
    assert_eq!(table.next_wake(), Instant::from_millis(1_001));
    assert_eq!(table.due(Instant::from_millis(1_001)), Some(1));
    let (question, _) = table.get_mut(1).expect("in flight");
    question.deadlines.next_try = Instant::FAR_FUTURE;
    table.schedule(1);
    assert_eq!(table.due(Instant::from_millis(1_001)), None);
    assert_eq!(table.due(Instant::from_millis(1_005)), Some(0));
    table.remove(0);
    assert_eq!(table.due(Instant::from_millis(1_005)), None);
    assert_eq!(table.next_wake(), Instant::from_millis(10_000));
}

#[test]
fn letter_case_comes_back() {
    let original = b"\x03wWw\x02AB\0";
    let mut wire = original.to_ascii_lowercase();
    LetterCase::of(original).apply(&mut wire);
    assert_eq!(wire, original);
}

#[test]
fn a_datagram_that_nobody_waits_for_lingers_until_its_time_is_over_or_others_need_the_place() {
    let mut table = table();
    let server = UpstreamConfig {
        to: SocketAddr::from(([192, 0, 2, 1], 53)).into(),
        group: 0,
        trusted: false,
        edns: true,
        strategy: crate::forward::upstreams::Strategy::Ordered,
    };
    let attempt = |port| Attempt {
        upstream: 0,
        via: Some(Via::Datagram { port }),
        id: port,
        sent: Instant::from_millis(0),
        live: true,
        edns: true,
        random_case: false,
        overdue: false,
        forged: 0,
    };
    let until = |port: u16| Instant::from_millis(u64::from(port));
    let count = LINGERING as u16;
    for port in 1_000..1_000 + count {
        assert_eq!(table.linger(&attempt(port), server, until(port)), None);
    }
    let one_more = table.linger(&attempt(2_000), server, until(2_000));
    assert_eq!(one_more, Some(1_000), "the oldest makes room");
    assert!(table.forget_lingering(1_002) && !table.forget_lingering(1_002));
    assert!(table.lingering(1_002).is_none());
    assert_eq!(table.lingering(1_003).map(|ended| ended.id), Some(1_003));
    assert_eq!(table.linger_no_longer(until(1_000)), None);
    assert_eq!(table.linger_no_longer(until(1_003)), Some(1_001));
    assert_eq!(table.linger_no_longer(until(1_003)), Some(1_003));
    assert_eq!(table.linger_no_longer(until(1_003)), None);
}
