//! Scenarios with fake time. Messages are built and read by an independent implementation (hickory-proto).
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::counters::Counter;
use crate::dns::edns::{Edns, ede};
use crate::dns::record::Records;
use crate::dns::{Header, Query, header::flag};
use crate::forward::upstreams::{Strategy, UpstreamConfig};
use hickory_proto::op::{
    Edns as HickoryEdns, Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode,
};
use hickory_proto::rr::rdata::{A, CNAME, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::boxed::Box;
use std::string::String;
use std::sync::Mutex;
use std::vec::Vec;

type Route = u32;

struct TestCache {
    shard: Mutex<Box<Shard>>,
    seed: [u8; 16],
}

impl CacheAccess for &TestCache {
    fn with_shard<T>(&self, _hash: u64, f: impl FnOnce(&mut Shard) -> T) -> T {
        f(&mut self.shard.lock().unwrap())
    }
    fn seed(&self) -> [u8; 16] {
        self.seed
    }
}

struct Asked {
    socket: u16,
    to: SocketAddr,
    message: Vec<u8>,
}

#[derive(Default)]
struct Recorder {
    asked: Vec<Asked>,
    replies: Vec<(Route, Vec<u8>)>,
    random: u32,
    streams: Vec<SocketAddr>,
    stream_limit: usize,
    notices: Vec<String>,
}

const fn turn(now: Instant) -> Turn<'static> {
    Turn {
        now,
        unix_secs: 1_700_000_000,
        policy: &crate::policy::Policy::OPEN,
    }
}

impl Effects<Route> for Recorder {
    fn ask(&mut self, socket: u16, to: SocketAddr, message: &[u8]) -> bool {
        self.asked.push(Asked {
            socket,
            to,
            message: message.to_vec(),
        });
        true
    }
    fn reply(&mut self, route: &Route, message: &[u8]) {
        self.replies.push((*route, message.to_vec()));
    }
    fn open_stream(&mut self, to: SocketAddr) -> Option<u16> {
        self.streams.push(to);
        (self.streams.len() <= self.stream_limit).then(|| 31 + self.streams.len() as u16)
    }
    fn notice(&mut self, notice: Notice, name: &crate::dns::Name) {
        self.notices.push(std::format!("{notice:?} {name}"));
    }
    fn random(&mut self) -> u32 {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.random
    }
}

/// An engine with two upstreams, its caller's effects, and a clock.
struct World<'a> {
    engine: Engine<'a, Route, &'a TestCache>,
    effects: Recorder,
    now: Instant,
    counters: &'a Counters,
}

const UPSTREAM_1: &str = "192.0.2.1:53";
const UPSTREAM_2: &str = "[2001:db8::2]:53";

/// Runs a scenario.
fn with_world(settings: Settings, scenario: impl FnOnce(&mut World<'_>) + Send) {
    crate::testing::on_large_stack(|| run_world(settings, scenario));
}

fn run_world(settings: Settings, scenario: impl FnOnce(&mut World<'_>)) {
    let mut tables = Box::new(Tables::new());
    let cache = TestCache {
        shard: Mutex::new(Box::new(Shard::new())),
        seed: [7; 16],
    };
    let counters = Counters::new();
    let mut upstreams = Upstreams::new();
    let config = |address: &str| UpstreamConfig {
        address: address.parse().unwrap(),
        group: 0,
        trusted: false,
    };
    upstreams
        .configure(&[config(UPSTREAM_1), config(UPSTREAM_2)], Strategy::Ordered)
        .unwrap();
    let engine = Engine::new(&mut tables, &cache, &counters, upstreams, settings);
    scenario(&mut World {
        engine,
        effects: Recorder::default(),
        now: Instant::from_millis(1_000_000),
        counters: &counters,
    });
}

fn query(name: &str, id: u16) -> Message {
    let mut message = Message::new();
    message
        .set_id(id)
        .set_message_type(MessageType::Query)
        .set_op_code(OpCode::Query)
        .set_recursion_desired(true);
    message.add_query(HickoryQuery::query(
        Name::from_ascii(name).unwrap(),
        RecordType::A,
    ));
    message
}

fn with_edns(mut message: Message, dnssec_ok: bool) -> Message {
    let mut edns = HickoryEdns::new();
    edns.set_max_payload(4096)
        .set_dnssec_ok(dnssec_ok)
        .set_version(0);
    message.set_edns(edns);
    message
}

impl World<'_> {
    fn client(&self, route: Route) -> Client<Route> {
        Client {
            route,
            address: [10, 0, 0, route as u8].into(),
            transport: Transport::Udp,
        }
    }

    fn ask_bytes(&mut self, route: Route, bytes: &[u8]) -> (Outcome, Vec<u8>) {
        let mut buffer = std::vec![0xa5; 2048];
        buffer[..bytes.len()].copy_from_slice(bytes);
        let client = self.client(route);
        let outcome = self.engine.query(
            &turn(self.now),
            &client,
            &mut buffer,
            bytes.len(),
            &mut self.effects,
        );
        if let Outcome::Reply(len) = outcome {
            buffer.truncate(len);
        }
        (outcome, buffer)
    }

    fn ask(&mut self, route: Route, message: &Message) -> (Outcome, Vec<u8>) {
        self.ask_bytes(route, &message.to_vec().unwrap())
    }

    /// Asks and expects the answer at once.
    fn hit(&mut self, message: &Message) -> Message {
        let (outcome, bytes) = self.ask(9, message);
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
        Message::from_vec(&bytes).unwrap()
    }

    fn last_question(&self) -> Message {
        Message::from_vec(&self.effects.asked.last().unwrap().message).unwrap()
    }

    /// The upstream that was asked last answers.
    fn respond(&mut self, build: impl FnOnce(&mut Message)) {
        let asked = self.effects.asked.last().unwrap();
        let (socket, to) = (asked.socket, asked.to);
        let message = response_to(&asked.message, build);
        self.engine
            .response(&turn(self.now), socket, to, &message, &mut self.effects);
    }

    fn respond_from(&mut self, nth: usize, from: SocketAddr, build: impl FnOnce(&mut Message)) {
        let asked = &self.effects.asked[nth];
        let socket = asked.socket;
        let message = response_to(&asked.message, build);
        self.engine
            .response(&turn(self.now), socket, from, &message, &mut self.effects);
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        // Steps as a worker makes them: to each deadline, then on.
        while let Some(deadline) = self
            .engine
            .next_deadline()
            .filter(|&deadline| deadline <= end)
        {
            self.now = self.now.max(deadline);
            self.engine.timeout(self.now, &mut self.effects);
        }
        self.now = end;
        self.engine.timeout(self.now, &mut self.effects);
    }

    fn last_reply(&self) -> Message {
        Message::from_vec(&self.effects.replies.last().unwrap().1).unwrap()
    }

    fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter)
    }
}

fn response_to(question: &[u8], build: impl FnOnce(&mut Message)) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let mut message = Message::new();
    message
        .set_id(question.id())
        .set_message_type(MessageType::Response)
        .set_op_code(OpCode::Query);
    message
        .set_recursion_desired(true)
        .set_recursion_available(true);
    message.add_query(question.queries()[0].clone());
    build(&mut message);
    message.to_vec().unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn address(owner: &str, ttl_secs: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl_secs, RData::A(A::new(192, 0, 2, last)))
}

fn soa(zone: &str, ttl_secs: u32, minimum_secs: u32) -> Record {
    let rdata = SOA::new(
        name("ns.example."),
        name("hostmaster.example."),
        1,
        2,
        3,
        4,
        minimum_secs,
    );
    Record::from_rdata(name(zone), ttl_secs, RData::SOA(rdata))
}

fn answer_a(ttl_secs: u32) -> impl FnOnce(&mut Message) {
    move |message| {
        let owner = message.queries()[0].name().clone();
        message.add_answer(Record::from_rdata(
            owner,
            ttl_secs,
            RData::A(A::new(192, 0, 2, 80)),
        ));
    }
}

#[test]
fn a_miss_is_asked_upstream_and_the_next_query_is_a_hit_with_the_ttl_counted_down() {
    with_world(Settings::DEFAULT, |world| {
        let (outcome, _) = world.ask(1, &query("WwW.Example.", 77));
        assert_eq!(outcome, Outcome::Pending);
        let question = world.last_question();
        assert_eq!(
            question.queries()[0].name().to_lowercase(),
            name("www.example.")
        );
        assert!(question.recursion_desired() && question.extensions().is_some());
        world.respond(answer_a(300));
        let (route, bytes) = world.effects.replies[0].clone();
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!((route, reply.id(), reply.answers()[0].ttl()), (1, 77, 300));
        assert!(
            bytes[12..].starts_with(b"\x03WwW\x07Example\0"),
            "the client's letter case"
        );
        assert!(
            reply.extensions().is_none(),
            "no OPT where the query had none"
        );
        assert!(reply.recursion_available() && !reply.authoritative());

        world.pass(100_000);
        let (_, bytes) = world.ask(2, &query("wWw.eXample.", 78));
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(
            (reply.id(), reply.answers().len(), reply.answers()[0].ttl()),
            (78, 1, 200)
        );
        assert!(bytes[12..].starts_with(b"\x03wWw\x07eXample\0"));
        assert_eq!(
            (world.get(Counter::CacheHits), world.effects.asked.len()),
            (1, 1)
        );
    });
}

#[test]
fn everyone_who_asks_the_same_shares_one_upstream_query_and_gets_its_own_reply() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.ask(2, &with_edns(query("A.example.", 2), false));
        world.ask(2, &with_edns(query("A.example.", 2), false));
        assert_eq!(world.effects.asked.len(), 1);
        world.respond(answer_a(60));
        assert_eq!(
            world.effects.replies.len(),
            2,
            "a repeated question is answered once"
        );
        for (route, bytes) in &world.effects.replies {
            let reply = Message::from_vec(bytes).unwrap();
            assert_eq!(u32::from(reply.id()), *route);
            assert_eq!(reply.extensions().is_some(), *route == 2);
            assert_eq!(bytes[13] == b'A', *route == 2);
        }
        assert_eq!(world.engine.in_flight(), 0);
    });
}

#[test]
fn do_and_cd_are_questions_of_their_own() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.ask(1, &with_edns(query("a.example.", 2), true));
        let mut checking_disabled = query("a.example.", 3);
        checking_disabled.set_checking_disabled(true);
        world.ask(1, &checking_disabled);
        assert_eq!(world.effects.asked.len(), 3);
        assert!(world.last_question().checking_disabled());
        let question = Message::from_vec(&world.effects.asked[1].message).unwrap();
        assert!(question.extensions().as_ref().unwrap().flags().dnssec_ok);
    });
}

#[test]
fn spoofed_answers_are_counted_and_not_taken() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        let to = world.effects.asked[0].to;
        // Another address, another port, another socket, another ID, another question, a query instead of a response.
        world.respond_from(0, UPSTREAM_2.parse().unwrap(), answer_a(60));
        world.respond_from(0, SocketAddr::new(to.ip(), 54), answer_a(60));
        let socket = world.effects.asked[0].socket;
        let good = response_to(&world.effects.asked[0].message, answer_a(60));
        world.engine.response(
            &turn(world.now),
            (socket + 1) % 32,
            to,
            &good,
            &mut world.effects,
        );
        let mut wrong_id = good.clone();
        wrong_id[0] ^= 1;
        world
            .engine
            .response(&turn(world.now), socket, to, &wrong_id, &mut world.effects);
        let mut wrong_name = good.clone();
        wrong_name[13] = b'b';
        world.engine.response(
            &turn(world.now),
            socket,
            to,
            &wrong_name,
            &mut world.effects,
        );
        let mut a_query = good.clone();
        a_query[2] &= 0x7f;
        world
            .engine
            .response(&turn(world.now), socket, to, &a_query, &mut world.effects);
        assert_eq!(
            (
                world.get(Counter::UpstreamSpoofed),
                world.effects.replies.len()
            ),
            (6, 0)
        );
        // The true answer still counts.
        world
            .engine
            .response(&turn(world.now), socket, to, &good, &mut world.effects);
        assert_eq!(world.effects.replies.len(), 1);
    });
}

#[test]
fn a_silent_upstream_costs_its_usual_time_and_the_next_one_answers() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        assert_eq!(world.effects.asked[0].to, UPSTREAM_1.parse().unwrap());
        world.pass(500);
        assert_eq!(world.effects.asked[1].to, UPSTREAM_2.parse().unwrap());
        assert_eq!(world.get(Counter::UpstreamTimeouts), 1);
        // A late answer of the first one is as good.
        world.respond_from(0, UPSTREAM_1.parse().unwrap(), answer_a(60));
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
    });
}

#[test]
fn all_upstreams_silent_is_servfail_within_five_seconds() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &with_edns(query("a.example.", 1), false));
        world.pass(5_000);
        let reply = world.last_reply();
        assert_eq!(
            (reply.response_code(), world.effects.replies.len()),
            (ResponseCode::ServFail, 1)
        );
        assert_eq!(
            extended_error(&world.effects.replies[0].1),
            Some(ede::NO_REACHABLE_AUTHORITY)
        );
        let asked = world.effects.asked.len();
        assert!(
            (4..=6).contains(&asked),
            "both were tried repeatedly: {asked}"
        );
        // RFC 9520: the failure is kept for a moment.
        assert_eq!(
            world.hit(&query("a.example.", 2)).response_code(),
            ResponseCode::ServFail
        );
        world.pass(6_000);
        assert_eq!(world.ask(1, &query("a.example.", 3)).0, Outcome::Pending);
    });
}

fn extended_error(message: &[u8]) -> Option<u16> {
    let header = Header::parse(message)?;
    let question_end = crate::dns::name::plain_end(message, 12).ok()? + 4;
    let total = header.counts[1..]
        .iter()
        .map(|&count| usize::from(count))
        .sum();
    let opt = Records::new(message, question_end, total)
        .flatten()
        .find(|record| record.rtype == 41)?;
    Edns::parse(message, &opt).ok()?.ede
}

#[test]
fn servfail_of_one_upstream_is_asked_of_the_next() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::Refused);
        });
        assert_eq!(
            (world.effects.asked.len(), world.effects.replies.len()),
            (2, 0)
        );
        world.respond(|message| {
            message.set_response_code(ResponseCode::ServFail);
        });
        assert_eq!(
            world.last_reply().response_code(),
            ResponseCode::Refused,
            "the first failure is passed on"
        );
    });
}

#[test]
fn an_upstream_without_edns_is_asked_without() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::FormErr);
        });
        let question = world.last_question();
        assert!(question.extensions().is_none());
        assert_eq!(world.effects.asked[1].to, world.effects.asked[0].to);
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 1);
    });
}

#[test]
fn negative_answers_are_kept_by_their_soa() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("no.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 900, 120));
            message.add_name_server(soa("other.", 900, 120));
        });
        let reply = world.last_reply();
        assert_eq!(
            (reply.response_code(), reply.name_servers().len()),
            (ResponseCode::NXDomain, 1)
        );
        world.pass(119_000);
        assert_eq!(
            world.hit(&query("no.example.", 2)).name_servers()[0].ttl(),
            900 - 119
        );
        world.pass(1_000);
        assert_eq!(world.ask(1, &query("no.example.", 3)).0, Outcome::Pending);
    });
}

#[test]
fn ttl_zero_and_negatives_without_soa_are_not_kept() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(answer_a(0));
        assert_eq!(world.last_reply().answers()[0].ttl(), 0);
        assert_eq!(world.ask(1, &query("a.example.", 2)).0, Outcome::Pending);
        world.respond(|_| {});
        assert_eq!(world.ask(1, &query("a.example.", 3)).0, Outcome::Pending);
    });
}

#[test]
fn only_the_questions_own_chain_is_kept() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("www.example.", 1));
        world.respond(|message| {
            // Out of order, with a stranger among them.
            message.add_answer(address("b.example.", 60, 1));
            message.add_answer(address("victim.test.", 60, 66));
            message.add_answer(address("b.example.", 60, 2));
            let alias = |owner: &str, target: &str| {
                Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
            };
            message.add_answer(alias("a.example.", "b.example."));
            message.add_answer(alias("www.example.", "a.example."));
            message.add_additional(address("victim.test.", 60, 66));
        });
        let reply = world.last_reply();
        let owners: Vec<String> = reply
            .answers()
            .iter()
            .map(|record| record.name().to_ascii())
            .collect();
        assert_eq!(
            owners,
            ["www.example.", "a.example.", "b.example.", "b.example."]
        );
        assert!(reply.additionals().is_empty());
        assert_eq!(world.ask(1, &query("victim.test.", 2)).0, Outcome::Pending);
    });
}

#[test]
fn a_chain_that_bites_its_tail_is_malformed() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(|message| {
            message.add_answer(Record::from_rdata(
                name("a.example."),
                60,
                RData::CNAME(CNAME(name("b.example."))),
            ));
            message.add_answer(Record::from_rdata(
                name("b.example."),
                60,
                RData::CNAME(CNAME(name("a.example."))),
            ));
        });
        assert_eq!(world.get(Counter::UpstreamMalformed), 1);
        assert_eq!(world.effects.asked.len(), 2, "the next upstream is asked");
    });
}

#[test]
fn stale_answers_come_after_the_client_has_waited_and_when_nobody_answers() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(answer_a(10));
        world.pass(20_000);
        world.ask(2, &with_edns(query("a.example.", 2), false));
        world.pass(1_700);
        assert_eq!(world.effects.replies.len(), 1);
        world.pass(200);
        let (route, bytes) = world.effects.replies.last().unwrap().clone();
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(
            (route, reply.answers()[0].ttl(), extended_error(&bytes)),
            (2, 30, Some(ede::STALE))
        );
        // The refresh that is still under way fills the cache.
        world.respond(answer_a(10));
        assert_eq!(world.hit(&query("a.example.", 3)).answers()[0].ttl(), 10);
    });
}

#[test]
fn a_restored_answer_is_served_stale_at_once_and_refreshed() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(answer_a(1_000));
        let cache = world.engine.cache;
        {
            let mut shard = cache.shard.lock().unwrap();
            let bytes = query("a.example.", 1).to_vec().unwrap();
            let parsed = Query::parse(&bytes).unwrap();
            let hash = parsed.key().hash(&cache.seed);
            let (head, body) = shard
                .find(hash, &parsed.key())
                .map(|found| (found.head, found.body.to_vec()))
                .unwrap();
            shard.insert(
                hash,
                &parsed.key(),
                &crate::cache::Head {
                    restored: true,
                    ..head
                },
                &body,
            );
        }
        assert_eq!(world.hit(&query("a.example.", 2)).answers()[0].ttl(), 30);
        assert_eq!(world.effects.asked.len(), 2, "refreshed");
        world.respond(answer_a(1_000));
        assert_eq!(world.hit(&query("a.example.", 3)).answers()[0].ttl(), 1_000);
    });
}

#[test]
fn the_last_tenth_of_a_ttl_is_refreshed_while_hits_go_on() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(answer_a(100));
        world.pass(89_000);
        world.hit(&query("a.example.", 2));
        assert_eq!(world.effects.asked.len(), 1);
        world.pass(2_000);
        world.hit(&query("a.example.", 3));
        world.hit(&query("a.example.", 4));
        assert_eq!(world.effects.asked.len(), 2, "asked once");
    });
}

#[test]
fn what_does_not_fit_is_cut_between_rrsets_and_says_so() {
    with_world(Settings::DEFAULT, |world| {
        let long = || {
            move |message: &mut Message| {
                let owner = message.queries()[0].name().clone();
                for number in 0..6 {
                    let text = std::format!("{number}{}", "x".repeat(150));
                    message.add_answer(Record::from_rdata(
                        owner.clone(),
                        60,
                        RData::TXT(TXT::new([text].into())),
                    ));
                }
            }
        };
        let mut txt = query("t.example.", 1);
        txt.queries_mut()[0].set_query_type(RecordType::TXT);
        world.ask(1, &txt);
        world.respond(long());
        let reply = world.last_reply();
        assert!(reply.truncated() && reply.answers().is_empty());
        let small = world.hit(&txt);
        assert!(small.truncated() && small.answers().is_empty());
        let large = world.hit(&with_edns(txt.clone(), false));
        assert!(!large.truncated() && large.answers().len() == 6);
        let mut buffer = std::vec![0; 4096];
        let bytes = txt.to_vec().unwrap();
        buffer[..bytes.len()].copy_from_slice(&bytes);
        let client = Client {
            transport: Transport::Tcp,
            ..world.client(1)
        };
        let outcome = world.engine.query(
            &turn(world.now),
            &client,
            &mut buffer,
            bytes.len(),
            &mut world.effects,
        );
        let Outcome::Reply(len) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            Message::from_vec(&buffer[..len]).unwrap().answers().len(),
            6
        );
    });
}

#[test]
fn a_full_table_ends_the_oldest_question_and_takes_the_new_one() {
    with_world(Settings::DEFAULT, |world| {
        for number in 0..crate::limits::PENDING as u32 {
            world.now = world.now + 1;
            let (outcome, _) = world.ask(number, &query(&std::format!("n{number}.example."), 1));
            assert_eq!(outcome, Outcome::Pending);
        }
        assert!(world.effects.replies.is_empty());
        let (outcome, _) = world.ask(5, &query("one-more.example.", 2));
        assert_eq!(outcome, Outcome::Pending);
        assert_eq!(
            world.effects.replies[0].0, 0,
            "the client of the oldest question"
        );
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        assert_eq!(world.get(Counter::PendingFull), 1);
    });
}

#[test]
fn messages_that_are_no_queries() {
    with_world(Settings::DEFAULT, |world| {
        let good = query("a.example.", 0x1234).to_vec().unwrap();
        let mut notify = good.clone();
        notify[2] |= 4 << 3;
        let (outcome, bytes) = world.ask_bytes(1, &notify);
        assert_eq!(outcome, Outcome::Reply(12));
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(
            (header.id, header.rcode(), header.opcode(), header.counts),
            (0x1234, 4, 4, [0; 4])
        );
        let mut chaos = good.clone();
        let end = chaos.len();
        chaos[end - 1] = 3;
        let (_, bytes) = world.ask_bytes(1, &chaos);
        assert_eq!(Header::parse(&bytes).unwrap().rcode(), 5);
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(world.ask_bytes(1, &response).0, Outcome::Silence);
        for len in 0..good.len() {
            let (outcome, _) = world.ask_bytes(1, &good[..len]);
            assert_eq!(outcome == Outcome::Silence, len < 12, "cut at {len}");
        }
        let mut version = with_edns(query("a.example.", 5), false);
        version.extensions_mut().as_mut().unwrap().set_version(1);
        let (_, bytes) = world.ask(1, &version);
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(u16::from(reply.response_code()), 16, "BADVERS");
        assert!(world.effects.asked.is_empty());
    });
}

#[test]
fn addresses_rotate_and_stay_whole() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(|message| {
            for last in 1..=3 {
                message.add_answer(address("a.example.", 60, last));
            }
        });
        let mut firsts = Vec::new();
        for id in 0..3 {
            let reply = world.hit(&query("a.example.", id));
            assert_eq!(reply.answers().len(), 3);
            firsts.push(std::format!("{}", reply.answers()[0].data()));
        }
        firsts.sort();
        assert_eq!(firsts, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    });
}

#[test]
fn any_bytes_into_the_engine_never_panic_and_never_exceed_the_limit() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        let question = world.effects.asked[0].message.clone();
        let (socket, to) = (world.effects.asked[0].socket, world.effects.asked[0].to);
        let good = response_to(&question, |message| {
            message.add_answer(address("a.example.", 60, 1));
            message.add_name_server(soa("example.", 5, 5));
        });
        let seeds = [
            with_edns(query("www.a.example.", 3), true)
                .to_vec()
                .unwrap(),
            good,
        ];
        let mut state = 1u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..60_000 {
            let mut bytes = seeds[round % 2].clone();
            for _ in 0..=random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(bytes.len() - random() as usize % 4);
            if let (Outcome::Reply(len), reply) = world.ask_bytes(1, &bytes) {
                assert!(len <= 1232 && reply[..2] == bytes[..2] && reply[2] & 0x80 != 0);
            }
            // ID and question intact, so that the digest is reached.
            let end = question.len() - 11;
            if round % 2 == 1 && bytes.len() > end {
                bytes[2] |= 0x80;
                bytes[..2].copy_from_slice(&question[..2]);
                bytes[12..end].copy_from_slice(&question[12..end]);
            }
            world
                .engine
                .response(&turn(world.now), socket, to, &bytes, &mut world.effects);
            for (_, reply) in world.effects.replies.drain(..) {
                assert!(reply.len() <= 1232 && Header::parse(&reply).unwrap().has(flag::QR));
            }
            if round % 64 == 0 {
                world.pass(700);
                world.effects.asked.clear();
            }
        }
    });
}
