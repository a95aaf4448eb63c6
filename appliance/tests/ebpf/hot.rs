//! Hot names: which queries are answered in the kernel, and how. Every byte is compared with what the forwarder writes into the
//! same frame.

use crate::bench::{Bench, monotonic_ns};
use crate::frames::{CLIENT_MAC, Query};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use xdnsd::os::xdp::HotProgram;
use xdnsd::store::{HotAnswers, SharedCache};
use xdnsd_abi::Reason;
use xdnsd_abi::hot::{HotOutcome, NAME_MAX, word};
use xdnsd_core::answer::{Head, Key, hot_words};
use xdnsd_core::counters::Counters;
use xdnsd_core::dns::Name;
use xdnsd_core::engine::{Client, Context, CookieSecrets, Effects, Engine, Notice, Settings};
use xdnsd_core::engine::{Outcome as Given, Tables, Transport};
use xdnsd_core::forward::via::{Destination, NoPort, Via};
use xdnsd_core::policy::Policy;
use xdnsd_core::time::Instant;
use xdnsd_core::wire;

const SECOND_NS: u64 = 1_000_000_000;
const GENERATION: u32 = 5;
/// Time at which the answers were stored; below, how long they are fresh.
const STORED: Instant = Instant::from_millis(1_000_000);
pub const TTL_SECS: u32 = 300;
/// Time of day in these tests.
pub const WALL_SECS: u64 = 1_800_000_000;
pub const SECRET: [u8; 16] = *b"the present one.";
pub const PREVIOUS: [u8; 16] = *b"the one before..";

/// An upstream that is never asked.
struct Nobody;

impl Effects<()> for Nobody {
    fn open_port(&mut self, _: Destination, _: u16) -> Result<u16, NoPort> {
        Err(NoPort::Full)
    }
    fn close_port(&mut self, _: u16) {}
    fn leave_port(&mut self, _: u16) {}
    fn ask(&mut self, _: Via, _: Destination, _: &[u8]) -> bool {
        false
    }
    fn reply(&mut self, (): &(), _: &[u8]) {}
    fn open_stream(&mut self, _: Destination, _: u8) -> Result<u16, NoPort> {
        Err(NoPort::Full)
    }
    fn leave_stream(&mut self, _: u16) {}
    fn notice(&mut self, _: Notice, _: &Name) {}
    fn random(&mut self) -> u32 {
        4
    }
}

/// The lock also guards the cache.
static TABLES: Mutex<Tables<()>> = Mutex::new(Tables::new());
static CACHE: SharedCache = SharedCache::new();
static CONFIGURED: Once = Once::new();

/// The forwarder, and the program with its answers.
pub struct Tiers {
    pub bench: Bench,
    program: HotProgram,
    pub hot: Box<HotAnswers>,
    tables: MutexGuard<'static, Tables<()>>,
    /// Age of the answers, in seconds.
    pub age_secs: u32,
    /// Time of day of the forwarder.
    pub unix_secs: u32,
    /// Secrets of its cookies.
    pub secrets: [[u8; 16]; 2],
}

impl Tiers {
    pub fn new(test: &str) -> Option<Self> {
        let mut bench = Bench::hot(test)?;
        let (mut program, maps) = HotProgram::load().unwrap_or_else(|error| panic!("{error}"));
        bench
            .program
            .set_hot(Some(&mut program))
            .expect("it is taken");
        let hot = Box::new(HotAnswers::new());
        hot.set_policy(GENERATION, &[7, 40_007]);
        assert!(hot.open(maps, 0x0123_4567_89ab_cdef));
        hot.set_cookies(wall(), Some(&SECRET));
        let tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        CONFIGURED.call_once(|| CACHE.configure([7; 16], 8_192).expect("memory"));
        CACHE.clear();
        Some(Self {
            bench,
            program,
            hot,
            tables,
            age_secs: 17,
            unix_secs: WALL_SECS as u32,
            secrets: [SECRET, PREVIOUS],
        })
    }

    /// The programs and their shared memory, without the forwarder.
    pub fn into_programs(self) -> (Bench, HotProgram, Box<HotAnswers>) {
        (self.bench, self.program, self.hot)
    }

    /// Generation for known clients.
    pub fn valid(hot: &HotAnswers) -> u64 {
        hot.valid(GENERATION)
    }

    /// Caches an answer: the body for this question.
    pub fn keep(&self, question: &Key<'_>, head: Head, body: &[u8]) {
        let head = Head {
            stored: STORED,
            ttl_secs: TTL_SECS,
            generation: GENERATION,
            ..head
        };
        CACHE.insert(question, &head, body);
    }

    /// Answer of the forwarder to this frame. If other clients would get the same answer, the program has it from here on.
    pub fn forward(&mut self, frame: &[u8]) -> Vec<u8> {
        let valid = self.hot.valid(GENERATION);
        let counters = Counters::new();
        let [current, previous] = self.secrets;
        let settings = Settings {
            cookies: Some(CookieSecrets::Given { current, previous }),
            ..Settings::DEFAULT
        };
        let mut engine = Engine::new(&mut self.tables, &CACHE, &counters, settings);
        engine.note_hits(true);
        let (path, message) = wire::parse(frame).expect("a query");
        let policy = Policy {
            generation: GENERATION,
            ..Policy::OPEN
        };
        let context = Context {
            now: STORED.add_secs(self.age_secs),
            unix_secs: self.unix_secs,
            policy: &policy,
            views: &xdnsd_core::policy::Views::NONE,
        };
        let client = Client {
            reply_path: (),
            address: path.client().ip(),
            transport: Transport::Udp,
            device: 0,
        };
        let mut answer = frame.to_vec();
        answer.resize(2_048, 0xa5);
        let room = &mut answer[message.start..];
        let given = engine.query(&mut context.call(&mut Nobody), &client, room, message.len());
        let Given::Reply(len) = given else {
            panic!("it is in the cache: {given:?}")
        };
        if let Some(fresh) = engine.take_noted()
            && let Some(mut words) = hot_words(&room[..len], &fresh)
        {
            let age_ms = context.now.millis_since(fresh.since);
            let now = monotonic_ns();
            words[word::SINCE] = now - age_ms * 1_000_000;
            words[word::OVER] =
                words[word::SINCE] + fresh.until.millis_since(fresh.since) * 1_000_000;
            words[word::VALID] = valid;
            // At the second attempt the entry in its place has not been asked for.
            let is_put = self.hot.put(&words, now) || self.hot.put(&words, now);
            assert!(is_put, "there is room");
            self.hot.admit(valid, client.address, || false);
        }
        let len = path.emit(&mut answer, len).expect("it fits");
        answer.truncate(len);
        answer
    }

    /// Runs the frame. Returns the answer, or why there is none; then the frame has to be unchanged.
    pub fn ask(&mut self, frame: &[u8]) -> Result<Vec<u8>, HotOutcome> {
        let before = self.program.outcomes().expect("counted");
        let (reason, answer) = self.bench.run_hot(frame);
        let after = self.program.outcomes().expect("counted");
        let moved = |outcome: &&HotOutcome| after[**outcome as usize] != before[**outcome as usize];
        let moved: Vec<HotOutcome> = HotOutcome::ALL.iter().filter(moved).copied().collect();
        let [outcome] = moved[..] else {
            panic!("{reason:?} {moved:?}")
        };
        let is_answered = outcome == HotOutcome::Answered;
        assert_eq!(
            reason == Reason::Answered,
            is_answered,
            "{reason:?} {outcome:?}"
        );
        if is_answered {
            return Ok(answer);
        }
        assert_eq!(answer, frame, "{outcome:?}: as it was");
        Err(outcome)
    }
}

/// Offset from the program's clock to the time of day in these tests.
pub fn wall() -> u64 {
    WALL_SECS.wrapping_sub(monotonic_ns() / SECOND_NS)
}

/// A name in wire form.
pub fn wire_name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    wire.push(0);
    wire
}

/// A record that belongs to the question.
pub fn record(rtype: u16, ttl_secs: u32, rdata: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12];
    bytes.extend(rtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl_secs.to_be_bytes());
    bytes.extend((rdata.len() as u16).to_be_bytes());
    bytes.extend(rdata);
    bytes
}

pub const OPT: [u8; 11] = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
pub const OPT_DO: [u8; 11] = [0, 0, 41, 0x02, 0, 0, 0, 0x80, 0, 0, 0];
pub const RD: u16 = 0x0100;
pub const AD: u16 = 0x0020;
pub const CD: u16 = 0x0010;

/// A query for `name`, in this letter case.
pub fn message(name: &str, qtype: u16, flags: u16, opt: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xbe, 0xef];
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())]);
    bytes.extend(wire_name(name));
    bytes.extend(qtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(opt);
    bytes
}

pub fn key<'a>(name: &'a [u8], qtype: u16, flags: u16, opt: &[u8]) -> Key<'a> {
    Key {
        name,
        qtype,
        dnssec_ok: opt.get(7).is_some_and(|flags| flags & 0x80 != 0),
        checking_disabled: flags & CD != 0,
        view: 0,
    }
}

pub fn with_message(query: &Query, message: Vec<u8>) -> Query {
    Query {
        message,
        ..query.clone()
    }
}

pub fn both() -> [Query; 2] {
    [Query::v4(), Query::v6()]
}

/// One answer: an address.
pub const ONE: Head = Head {
    answers: 1,
    ..Head::EMPTY
};

pub fn address(ttl_secs: u32) -> Vec<u8> {
    record(1, ttl_secs, &[192, 0, 2, 80])
}

#[test]
fn a_hot_answer_is_the_forwarders_byte_by_byte() {
    let Some(mut tiers) = Tiers::new("a_hot_answer_is_the_forwarders_byte_by_byte") else {
        return;
    };
    for opt in [&[][..], &OPT, &OPT_DO] {
        let name = wire_name("www.example.com");
        tiers.keep(&key(&name, 1, RD, opt), ONE, &address(TTL_SECS));
        for query in both() {
            for tags in [
                &[][..],
                &[[0x8100, 0x6064]],
                &[[0x88a8, 0xa00a], [0x8100, 0x0014]],
            ] {
                let query =
                    with_message(&query, message("WwW.eXample.COM", 1, RD, opt)).tagged(tags);
                tiers.bench.listen_for(&query);
                let frame = query.frame();
                let forwarded = tiers.forward(&frame);
                assert_eq!(tiers.ask(&frame), Ok(forwarded), "{opt:?} {tags:?}");
            }
        }
    }
}

/// A NIC that truncates frames, or one padded by Ethernet: the answer's length counts.
#[test]
fn padding_of_ethernet_is_no_part_of_the_answer() {
    let Some(mut tiers) = Tiers::new("padding_of_ethernet_is_no_part_of_the_answer") else {
        return;
    };
    let name = wire_name("a.example");
    tiers.keep(&key(&name, 1, RD, &[]), ONE, &address(TTL_SECS));
    for query in both() {
        let frame = with_message(&query, message("a.example", 1, RD, &[])).frame();
        for padding in [0, 1, 40, 300] {
            let padded = [&frame[..], &vec![0xa5; padding]].concat();
            let forwarded = tiers.forward(&padded);
            assert_eq!(tiers.ask(&padded), Ok(forwarded), "{padding}");
        }
    }
}

#[test]
fn ttls_count_down_and_end_at_0() {
    let Some(mut tiers) = Tiers::new("ttls_count_down_and_end_at_0") else {
        return;
    };
    let name = wire_name("www.example.com");
    let body = [
        record(5, TTL_SECS, &[0xc0, 16]),
        record(1, 20, &[192, 0, 2, 80]),
    ]
    .concat();
    let head = Head {
        answers: 2,
        ..Head::EMPTY
    };
    tiers.keep(&key(&name, 1, RD, &[]), head, &body);
    let frame = with_message(&Query::v4(), message("www.example.com", 1, RD, &[])).frame();
    let ttls_at = 42 + 12 + name.len() + 4 + 6;
    tiers.age_secs = 5;
    let five = tiers.forward(&frame);
    let ttl = |answer: &[u8], at: usize| {
        let bytes = answer[ttls_at + at..][..4].try_into().expect("four");
        u32::from_be_bytes(bytes)
    };
    let [first, second] = [ttl(&five, 0), ttl(&five, 14)];
    assert_eq!((first, second), (TTL_SECS - 5, 15));
    // The same answer later: only the age of its TTLs has changed.
    tiers.make_older(&frame, 7);
    let seven_later = tiers.ask(&frame).expect("answered");
    assert_eq!(
        (ttl(&seven_later, 0), ttl(&seven_later, 14)),
        (TTL_SECS - 12, 8)
    );
    tiers.age_secs = 12;
    assert_eq!(tiers.forward(&frame), seven_later);
    tiers.make_older(&frame, 100);
    let answer = tiers.ask(&frame).expect("answered");
    assert_eq!((ttl(&answer, 0), ttl(&answer, 14)), (TTL_SECS - 112, 0));
}

impl Tiers {
    /// Puts the answer to this query as if `secs` ago, and a little more: the program's clock lags.
    fn make_older(&mut self, frame: &[u8], secs: u64) {
        self.put_changed(frame, |words| {
            for at in [word::SINCE, word::OVER] {
                words[at] -= secs * SECOND_NS + SECOND_NS / 2;
            }
        });
    }

    /// Puts the answer to this query with changed words.
    fn put_changed(&mut self, frame: &[u8], change: impl FnOnce(&mut [u64])) {
        let answer = self.forward(frame);
        let (_, range) = wire::parse(&answer).expect("an answer");
        let fresh = xdnsd_core::answer::Fresh {
            hash: 0,
            since: STORED,
            until: STORED,
            authentic_data: false,
            rotates: true,
        };
        let mut words = hot_words(&answer[range], &fresh).expect("a hot one");
        let now = monotonic_ns();
        words[word::SINCE] = now;
        words[word::OVER] = now + u64::from(TTL_SECS) * SECOND_NS;
        words[word::VALID] = self.hot.valid(GENERATION);
        change(&mut words);
        assert!(self.hot.put(&words, now));
    }
}

#[test]
fn what_is_over_or_withdrawn_is_user_spaces() {
    let Some(mut tiers) = Tiers::new("what_is_over_or_withdrawn_is_user_spaces") else {
        return;
    };
    let name = wire_name("www.example.com");
    tiers.keep(&key(&name, 1, RD, &[]), ONE, &address(TTL_SECS));
    let frame = with_message(&Query::v4(), message("www.example.com", 1, RD, &[])).frame();
    let unknown = with_message(&Query::v4(), message("wwx.example.com", 1, RD, &[])).frame();
    tiers.forward(&frame);
    assert!(tiers.ask(&frame).is_ok());
    assert_eq!(tiers.ask(&unknown), Err(HotOutcome::Unknown));
    tiers.put_changed(&frame, |words| words[word::OVER] = monotonic_ns());
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(tiers.ask(&frame), Err(HotOutcome::Over));
    for withdraw in [
        (|hot| hot.set_policy(GENERATION + 1, &[])) as fn(&HotAnswers),
        |hot| hot.forget(),
        |hot| hot.set_policy(0, &[]),
    ] {
        tiers.hot.set_policy(GENERATION, &[]);
        tiers.forward(&frame);
        assert!(tiers.ask(&frame).is_ok());
        withdraw(&tiers.hot);
        assert_eq!(tiers.ask(&frame), Err(HotOutcome::Withdrawn));
    }
}

#[test]
fn only_who_was_answered_by_user_space_is_answered() {
    let Some(mut tiers) = Tiers::new("only_who_was_answered_by_user_space_is_answered") else {
        return;
    };
    let name = wire_name("www.example.com");
    tiers.keep(&key(&name, 1, RD, &[]), ONE, &address(TTL_SECS));
    let asked = message("www.example.com", 1, RD, &[]);
    let known = with_message(&Query::v4(), asked.clone());
    tiers.forward(&known.frame());
    assert!(tiers.ask(&known.frame()).is_ok());
    for stranger in [
        with_message(&Query::between("192.0.2.2", "192.0.2.53"), asked.clone()),
        with_message(&Query::v6(), asked.clone()),
    ] {
        assert_eq!(tiers.ask(&stranger.frame()), Err(HotOutcome::NewClient));
        tiers.forward(&stranger.frame());
        assert!(tiers.ask(&stranger.frame()).is_ok());
    }
    for (port, is_answered) in [(7, false), (8, true), (40_007, false), (65_535, true)] {
        let from = Query {
            source_port: port,
            ..known.clone()
        };
        let answered = tiers.ask(&from.frame());
        assert_eq!(answered.is_ok(), is_answered, "port {port}: {answered:?}");
    }
    // An answer would go to a group.
    let mut frame = known.frame();
    assert_eq!(frame[6..12], CLIENT_MAC);
    frame[6] |= 1;
    assert_eq!(tiers.ask(&frame), Err(HotOutcome::NewClient));
}

#[test]
fn without_the_program_all_is_user_spaces() {
    let Some(mut tiers) = Tiers::new("without_the_program_all_is_user_spaces") else {
        return;
    };
    let name = wire_name("www.example.com");
    tiers.keep(&key(&name, 1, RD, &[]), ONE, &address(TTL_SECS));
    let frame = with_message(&Query::v4(), message("www.example.com", 1, RD, &[])).frame();
    let forwarded = tiers.forward(&frame);
    for _ in 0..2 {
        tiers.bench.program.set_hot(None).expect("it goes");
        tiers.bench.expect(&frame, Reason::Redirected);
    }
    tiers
        .bench
        .program
        .set_hot(Some(&mut tiers.program))
        .expect("it comes back");
    assert_eq!(tiers.ask(&frame), Ok(forwarded));
}

/// Messages that the forwarder understands, or refuses, and that are not plain queries for the program.
#[test]
fn what_is_not_plain_is_user_spaces() {
    let Some(mut tiers) = Tiers::new("what_is_not_plain_is_user_spaces") else {
        return;
    };
    let name = wire_name("www.example.com");
    tiers.keep(&key(&name, 1, RD, &[]), ONE, &address(TTL_SECS));
    tiers.keep(&key(&name, 1, RD, &OPT_DO), ONE, &address(TTL_SECS));
    let plain = message("www.example.com", 1, RD, &[]);
    for opt in [&[][..], &OPT, &OPT_DO] {
        let known = message("www.example.com", 1, RD, opt);
        tiers.forward(&with_message(&Query::v4(), known).frame());
    }
    let mut ask = |message: Vec<u8>| tiers.ask(&with_message(&Query::v4(), message).frame());
    assert!(ask(plain.clone()).is_ok());
    for cut in 12..plain.len() {
        assert_eq!(
            ask(plain[..cut].to_vec()),
            Err(HotOutcome::NotPlain),
            "cut at {cut}"
        );
    }
    // Bit 15 marks responses, which do not get here.
    for bit in 0..15 {
        let flags = RD ^ 1 << bit;
        let is_taken = matches!(1 << bit, RD | AD | CD);
        let given = ask(message("www.example.com", 1, flags, &[]));
        assert_eq!(
            given != Err(HotOutcome::NotPlain),
            is_taken,
            "bit {bit}: {given:?}"
        );
    }
    let at_end = plain.len();
    for (what, at, value) in [
        ("no question", 5, 0),
        ("two questions", 5, 2),
        ("an answer", 7, 1),
        ("an authority", 9, 1),
        ("an additional that is not there", 11, 1),
        ("class CH", at_end - 1, 3),
        ("a pointer", 12, 0xc0),
        ("a label type", 12, 0x40),
    ] {
        let mut other = plain.clone();
        other[at] = value;
        assert_eq!(ask(other), Err(HotOutcome::NotPlain), "{what}");
    }
    let trailing = [&plain[..], &[0]].concat();
    assert_eq!(ask(trailing), Err(HotOutcome::NotPlain), "a byte behind it");
    let with_opt = |change: fn(&mut Vec<u8>)| {
        let mut opt = OPT_DO.to_vec();
        change(&mut opt);
        message("www.example.com", 1, RD, &opt)
    };
    assert!(ask(with_opt(|_| {})).is_ok());
    assert!(
        ask(with_opt(|opt| opt[3..5].fill(0))).is_ok(),
        "512 are meant"
    );
    for (what, change) in [
        ("another owner", (|opt| opt[0] = 1) as fn(&mut Vec<u8>)),
        ("another type", |opt| opt[2] = 42),
        ("an extended RCODE", |opt| opt[5] = 1),
        ("version 1", |opt| opt[6] = 1),
        ("a reserved flag", |opt| opt[7] |= 0x40),
        ("another one", |opt| opt[8] = 1),
        ("an option", |opt| {
            opt[10] = 4;
            opt.extend([0, 3, 0, 0]);
        }),
        ("a length", |opt| opt[10] = 1),
    ] {
        assert_eq!(ask(with_opt(change)), Err(HotOutcome::NotPlain), "{what}");
    }
}

#[test]
fn names_up_to_the_bound_are_answered() {
    let Some(mut tiers) = Tiers::new("names_up_to_the_bound_are_answered") else {
        return;
    };
    for len in 3..=NAME_MAX + 2 {
        // A label of at most 40, and what is left.
        let first = (len - 2).min(40);
        let second = (len - 2).checked_sub(first + 1).filter(|left| *left > 0);
        let mut text = "x".repeat(first);
        second
            .iter()
            .for_each(|left| text.extend([".", &"y".repeat(*left)]));
        let name = wire_name(&text);
        tiers.keep(&key(&name, 1, RD, &[]), ONE, &address(TTL_SECS));
        let frame = with_message(&Query::v6(), message(&text.to_uppercase(), 1, RD, &[])).frame();
        let forwarded = tiers.forward(&frame);
        let wanted = if name.len() <= NAME_MAX {
            Ok(forwarded)
        } else {
            Err(HotOutcome::NotPlain)
        };
        assert_eq!(tiers.ask(&frame), wanted, "{} bytes", name.len());
    }
    let root = with_message(&Query::v4(), message(".", 2, RD, &[])).frame();
    tiers.keep(
        &key(&[0], 2, RD, &[]),
        ONE,
        &record(2, 9_000, &[1, b'a', 0]),
    );
    let forwarded = tiers.forward(&root);
    assert_eq!(tiers.ask(&root), Ok(forwarded));
}

/// Each address comes first as often as each other one, and all of them come.
#[test]
fn addresses_rotate_from_answer_to_answer() {
    let Some(mut tiers) = Tiers::new("addresses_rotate_from_answer_to_answer") else {
        return;
    };
    let name = wire_name("www.example.com");
    for (qtype, len) in [(1, 4), (28, 16)] {
        let alias = record(5, TTL_SECS, &[0xc0, 16]);
        let address = |number: u8| {
            let bytes = record(qtype, TTL_SECS, &vec![number; len]);
            [&[0xc0, 16], &bytes[2..]].concat()
        };
        let body = [&alias[..], &address(1), &address(2), &address(3)].concat();
        let head = Head {
            answers: 4,
            ..Head::EMPTY
        };
        for (query, opt) in both().into_iter().zip([&[][..], &OPT]) {
            tiers.keep(&key(&name, qtype, RD, opt), head, &body);
            let frame = with_message(&query, message("www.example.com", qtype, RD, opt)).frame();
            let forwarded = tiers.forward(&frame);
            let (_, range) = wire::parse(&frame).expect("a query");
            let start = range.start + 12 + name.len() + 4 + alias.len();
            let run = start..start + 3 * (12 + len);
            let first = |answer: &[u8]| answer[run.start + 12];
            let mut given = Vec::new();
            for _ in 0..6 {
                let answer = tiers.ask(&frame).expect("answered");
                given.push(first(&answer));
                let mut rotated = answer.clone();
                let by = first(&forwarded) + 3 - first(&answer);
                rotated[run.clone()].rotate_left(usize::from(by) % 3 * (12 + len));
                assert_eq!(rotated, forwarded, "{qtype}: {given:?}");
            }
            let next = |pair: &[u8]| pair[1] % 3 == (pair[0] + 1) % 3;
            assert!(given.windows(2).all(next), "{qtype}: {given:?}");
        }
    }
}
