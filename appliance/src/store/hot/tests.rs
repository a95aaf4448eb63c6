use super::*;
use crate::os::bpf_array::MappedWords as Array;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::AsFd as _;
use xdnsd_abi::hot::{CLIENTS_MAX, kind};

const KEY: u64 = 0x1234_5678_9abc_def0;

/// Zeroed memory in place of a map.
fn array(words: usize) -> Array {
    let memory = memfd_create("hot", MFdFlags::MFD_CLOEXEC).expect("memory");
    nix::unistd::ftruncate(&memory, (words * 8) as i64).expect("memory");
    Array::map(memory.as_fd(), words).expect("mapped")
}

fn maps() -> HotMaps {
    HotMaps {
        answers: array(ANSWERS_MAX as usize * word::COUNT),
        index: array(PLACES as usize),
        hits: array(ANSWERS_MAX as usize),
        clients: array(CLIENTS_MAX as usize),
        silent: array(SILENT_WORDS as usize),
        control: array(control::COUNT as usize),
    }
}

/// With maps, under the policy of generation 1.
fn hot() -> HotAnswers {
    let hot = HotAnswers::new();
    hot.set_policy(1, &[7, 65_535]);
    assert!(hot.open(maps(), KEY));
    hot
}

/// An answer to a question of this number.
fn answer(hot: &HotAnswers, question: u64) -> AnswerWords {
    let mut words = [0; word::COUNT];
    words[word::KIND] = kind::EDNS | 1;
    words[word::NAME] = question;
    words[word::OVER] = 1_000;
    words[word::VALID] = hot.valid(1);
    words
}

/// The answer that the program finds.
fn found(hot: &HotAnswers, wanted: &AnswerWords) -> Option<AnswerWords> {
    let maps = hot.maps.get().expect("open");
    let mut name = [0; NAME_WORDS];
    name.copy_from_slice(&wanted[word::NAME..word::OVER]);
    let hash = hot::hash(KEY, wanted[word::KIND], &name);
    let entry = maps.index.word(hot::place(hash)).load(Ordering::Relaxed);
    let number = hot::number(entry, hash).filter(|_| entry != 0)?;
    let word = |at| {
        maps.answers
            .word(answer_word(number as u16, at))
            .load(Ordering::Relaxed)
    };
    let mut words = [0; word::COUNT];
    for (at, place) in (0..).zip(&mut words) {
        *place = word(at);
    }
    Some(words)
}

fn hit(hot: &HotAnswers, wanted: &AnswerWords) {
    let maps = hot.maps.get().expect("open");
    let mut name = [0; NAME_WORDS];
    name.copy_from_slice(&wanted[word::NAME..word::OVER]);
    let place = hot::place(hot::hash(KEY, wanted[word::KIND], &name));
    let entry = maps.index.word(place).load(Ordering::Relaxed);
    maps.hits
        .word(number(entry).into())
        .fetch_add(1, Ordering::Relaxed);
}

/// Two questions with the same place.
fn rivals(hot: &HotAnswers) -> [AnswerWords; 2] {
    let place = |question| {
        let mut name = [0; NAME_WORDS];
        name[0] = question;
        hot::place(hot::hash(KEY, kind::EDNS | 1, &name))
    };
    let other = (2..)
        .find(|other| place(*other) == place(1))
        .expect("there are places enough");
    [1, other].map(|question| answer(hot, question))
}

#[test]
fn an_answer_is_found_with_all_its_words_and_the_newest_counts() {
    let hot = hot();
    let mut words = answer(&hot, 5);
    assert_eq!(found(&hot, &words), None);
    assert!(hot.put(&words, 0));
    assert_eq!(found(&hot, &words), Some(words));
    words[word::BODY] = 7;
    hit(&hot, &words);
    assert!(
        hot.put(&words, 0),
        "the same question's, however often it is asked"
    );
    assert_eq!(found(&hot, &words), Some(words));
    assert_eq!(hot.len(), 1);
}

#[test]
fn an_answer_that_is_asked_for_keeps_its_place() {
    let hot = hot();
    let [first, second] = rivals(&hot);
    assert!(hot.put(&first, 0));
    hit(&hot, &first);
    assert!(!hot.put(&second, 0), "it was given since nobody knows when");
    hit(&hot, &first);
    assert!(!hot.put(&second, 0), "it was given since");
    assert!(hot.put(&second, 0), "it was not");
    assert_eq!(
        (found(&hot, &first), found(&hot, &second)),
        (None, Some(second))
    );
    // An expired answer gives way at once.
    hit(&hot, &second);
    assert!(hot.put(&first, 1_000));
}

/// A hot name's next answer needs few hits to be published; its count continues.
#[test]
fn what_was_asked_for_until_it_was_over_is_renewed_in_its_place() {
    let hot = hot();
    let mut words = answer(&hot, 5);
    assert!(!hot.renew(&words, 2_000, 0), "there was none");
    assert!(hot.put(&words, 0));
    for _ in 0..3 {
        hit(&hot, &words);
    }
    words[word::OVER] = 9_000;
    assert!(!hot.renew(&words, 999, 3), "it is not over");
    assert!(!hot.renew(&words, 1_000, 4), "not so often");
    assert!(hot.renew(&words, 1_000, 3));
    assert_eq!(found(&hot, &words), Some(words));
    let asked = |hits| HotQuestion {
        name: [5, 0, 0, 0, 0, 0, 0, 0],
        kind: kind::EDNS | 1,
        hits,
    };
    assert_eq!(hot.asked(), [asked(3)]);
    hit(&hot, &words);
    assert_eq!(hot.asked(), [asked(4)]);
    let [first, second] = rivals(&hot);
    assert!(hot.put(&first, 0));
    hit(&hot, &first);
    assert!(
        !hot.renew(&second, 2_000, 0),
        "another question has the place"
    );
    hot.put(&second, 1_000);
    let second = hot
        .asked()
        .into_iter()
        .find(|asked| asked.name[0] == second[word::NAME]);
    assert_eq!(second.map(|asked| asked.hits), Some(0), "its own count");
    hot.forget();
    assert_eq!(hot.asked(), [], "none of them is given");
}

#[test]
fn nothing_is_written_that_a_run_may_still_read() {
    let hot = hot();
    let mut words = answer(&hot, 5);
    for body in 0..u64::from(ANSWERS_MAX) {
        words[word::BODY] = body;
        assert!(hot.put(&words, 0), "{body}");
    }
    assert!(!hot.put(&words, 0), "each has been found");
    assert_eq!(found(&hot, &words), Some(words), "as it was");
    hot.sweep(0);
    assert!(hot.put(&words, 0));
}

#[test]
fn what_nobody_asks_for_makes_room_where_there_is_little() {
    let hot = hot();
    let asked = answer(&hot, 1);
    assert!(hot.put(&asked, 0));
    for question in 2..100 {
        hot.put(&answer(&hot, question), 0);
    }
    let few = hot.len();
    hot.sweep(0);
    assert_eq!(hot.len(), few, "there is room");
    for question in 100..4_000 {
        hot.put(&answer(&hot, question), 0);
    }
    assert!(hot.len() > ANSWERS_MAX as usize / 2);
    while hot.len() < ANSWERS_MAX as usize && hot.books().free.len() >= FEW {
        hot.put(&answer(&hot, 4_000), 0);
    }
    hit(&hot, &asked);
    hot.sweep(0);
    assert_eq!((hot.len(), found(&hot, &asked)), (1, Some(asked)));
}

#[test]
fn what_holds_no_more_is_neither_put_nor_kept() {
    let hot = hot();
    let words = answer(&hot, 5);
    assert!(hot.put(&words, 0));
    let before = hot.valid(1);
    hot.forget();
    let shown = |hot: &HotAnswers| {
        let maps = hot.maps.get().expect("open");
        maps.control.word(control::VALID).load(Ordering::Relaxed)
    };
    assert_eq!(shown(&hot), hot.valid(1));
    assert_ne!(shown(&hot), before);
    assert!(!hot.put(&words, 0), "it was read before the removal");
    hot.sweep(0);
    assert!(hot.is_empty());
    let words = answer(&hot, 5);
    assert!(hot.put(&words, 0));
    hot.set_policy(2, &[]);
    assert_eq!(shown(&hot), hot.valid(2));
    assert!(!hot.put(&words, 0), "a worker that has the old policy");
    hot.sweep(0);
    assert!(hot.is_empty());
}

#[test]
fn what_is_over_leaves_its_place_a_second_later() {
    let hot = hot();
    let words = answer(&hot, 5);
    assert!(hot.put(&words, 0));
    hot.sweep(1_000 + LEFT_NS - 1);
    assert_eq!(hot.len(), 1);
    hot.sweep(1_000 + LEFT_NS);
    assert!(hot.is_empty());
}

#[test]
fn a_client_has_its_place_under_what_holds() {
    let hot = hot();
    let maps = hot.maps.get().expect("open");
    let client: IpAddr = "192.0.2.1".parse().expect("an address");
    hot.admit(hot.valid(1), client, || false);
    let known = known(&hot, client);
    let word = maps.clients.word(hot::client_place(known));
    assert_eq!(word.load(Ordering::Relaxed), known);
    for withdraw in [
        (|hot| hot.set_policy(1, &[])) as fn(&HotAnswers),
        HotAnswers::forget,
    ] {
        word.store(known | LATELY, Ordering::Relaxed);
        withdraw(&hot);
        let left = word.load(Ordering::Relaxed);
        assert_eq!(left, 0, "whoever has it keeps nobody out");
    }
}

fn known(hot: &HotAnswers, client: IpAddr) -> u64 {
    let IpAddr::V4(v4) = client else {
        panic!("{client}")
    };
    let octets = v4.to_ipv6_mapped().octets();
    let (halves, _) = octets.as_chunks();
    let halves = [0, 1].map(|at| u64::from_ne_bytes(halves[at]));
    hot::client(KEY, hot.valid(1), halves)
}

/// A flood from ever new addresses displaces neither a client that asks nor, for a while, a neighbour.
#[test]
fn a_client_that_asks_keeps_its_place() {
    let hot = hot();
    let place = |client: &IpAddr| hot::client_place(known(&hot, *client));
    let address = |number: u32| IpAddr::from((0xc612_0000 + number).to_be_bytes());
    let first = address(0);
    let mut rivals = (1..).map(address);
    let mut rival = || {
        let rival = rivals.find(|other| place(other) == place(&first));
        rival.expect("there are addresses enough")
    };
    let (second, third) = (rival(), rival());
    let word = hot.maps.get().expect("open").clients.word(place(&first));
    let has = |client| word.load(Ordering::Relaxed) & !MARKS == known(&hot, client);
    let asks = || word.fetch_or(LATELY, Ordering::Relaxed);
    let admit = |client, is_near| hot.admit(hot.valid(1), client, || is_near);
    let rest = |secs: u32| (0..secs).for_each(|_| hot.sweep(0));
    admit(first, false);
    admit(second, false);
    assert!(has(second), "the first has not asked again");
    asks();
    admit(third, false);
    rest(2 * CLIENT_SWEEPS);
    admit(third, false);
    assert!(has(second), "it has asked");
    rest(CLIENT_SWEEPS);
    admit(third, false);
    assert!(has(third), "it has not for long");
    asks();
    admit(first, true);
    assert!(has(first), "a neighbour has it from who is none");
    admit(third, false);
    assert!(has(first), "and a while to ask again");
    asks();
    rest(CLIENT_SWEEPS);
    admit(second, true);
    assert!(has(first), "it has asked");
    rest(3 * CLIENT_SWEEPS);
    admit(second, true);
    assert!(has(second), "it has not for long");
}

#[test]
fn the_ports_of_the_policy_are_silent_and_no_others() {
    let hot = hot();
    let maps = hot.maps.get().expect("open");
    let silent = || {
        let is_silent = |port: &u16| {
            let (index, bit) = silent_bit(*port);
            maps.silent.word(index).load(Ordering::Relaxed) & bit != 0
        };
        (0..=u16::MAX)
            .filter(is_silent)
            .collect::<std::vec::Vec<u16>>()
    };
    assert_eq!(silent(), [7, 65_535]);
    hot.set_policy(2, &[64]);
    assert_eq!(silent(), [64]);
}

#[test]
fn while_it_is_held_nothing_is_answered() {
    let hot = hot();
    let shown = || {
        let control = &hot.maps.get().expect("open").control;
        control.word(control::VALID).load(Ordering::Relaxed)
    };
    let words = answer(&hot, 5);
    let seen = hot.holds();
    hot.hold();
    assert_eq!(shown(), 0);
    assert!(!hot.put(&words, 0));
    hot.release(seen);
    assert_eq!(shown(), 0, "what it waited for was looked at before");
    hot.set_policy(2, &[]);
    assert_eq!(shown(), 0);
    hot.release(hot.holds());
    assert_eq!(shown(), hot.valid(2));
}

#[test]
fn it_is_asked_while_an_interface_asks() {
    let hot = hot();
    assert!(!hot.is_asked(), "a program alone asks nobody");
    hot.begin_asking();
    hot.begin_asking();
    hot.end_asking();
    assert!(hot.is_asked());
    hot.end_asking();
    assert!(!hot.is_asked());
}

#[test]
fn without_a_program_nothing_is_kept_but_what_holds() {
    let hot = HotAnswers::new();
    hot.set_policy(3, &[9]);
    hot.forget();
    assert!(!hot.put(&answer(&hot, 1), 0));
    hot.sweep(0);
    assert!(hot.open(maps(), KEY));
    assert!(!hot.open(maps(), KEY), "once");
    let shown = hot
        .maps
        .get()
        .expect("open")
        .control
        .word(control::VALID)
        .load(Ordering::Relaxed);
    assert_eq!(shown, 3 << 32 | 1);
}
