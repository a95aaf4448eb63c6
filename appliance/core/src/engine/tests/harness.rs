//! Shared by the scenarios: an engine with effects and a clock, and messages made by hickory-proto.

pub(super) use super::super::*;
pub(super) use crate::counters::{Counter, ViewCounter};
pub(super) use crate::dns::edns::ede;
pub(super) use crate::dns::{Header, header::flag, rtype};
pub(super) use crate::forward::upstreams::{Strategy, UpstreamConfig};
pub(super) use crate::forward::via::{
    Destination, Egress, ResponseOrigin, SourcePort, StreamLoss, Via,
};
pub(super) use core::net::SocketAddr;
pub(super) use hickory_proto::op::{Message, ResponseCode};
pub(super) use hickory_proto::rr::rdata::{A, CNAME, SOA, TXT};
pub(super) use hickory_proto::rr::{Name, RData, Record, RecordType};
pub(super) use std::string::String;
pub(super) use std::vec::Vec;
pub(super) use std::{format, vec};

use crate::counters::latency::{LatencyReading, Tier};
use crate::dns::edns::Edns;
use crate::dns::record::Records;
use core::sync::atomic::AtomicU64;
use hickory_proto::op::{Edns as HickoryEdns, MessageType, OpCode, Query as HickoryQuery};
use hickory_proto::rr::rdata::NULL;
use std::boxed::Box;
use std::collections::HashMap;
use std::sync::Mutex;
use xdnsd_abi::rate::WORDS;

pub(super) type ReplyPath = u32;

pub(super) struct TestCache {
    pub shard: Mutex<Box<Shard>>,
    pub seed: [u8; 16],
}

impl TestCache {
    pub fn new() -> Self {
        Self {
            shard: Mutex::new(Box::new(Shard::new())),
            seed: [7; 16],
        }
    }
}

impl CacheAccess for &TestCache {
    fn with_shard<T>(&self, _hash: u64, f: impl FnOnce(&mut Shard) -> T) -> T {
        f(&mut self.shard.lock().unwrap())
    }
    fn seed(&self) -> [u8; 16] {
        self.seed
    }
}

/// A message that the engine sent upstream.
#[derive(Clone)]
pub(super) struct Asked {
    pub via: Via,
    pub to: SocketAddr,
    pub egress: Egress,
    pub message: Vec<u8>,
}

impl Asked {
    pub fn parsed(&self) -> Message {
        Message::from_vec(&self.message).unwrap()
    }
}

#[derive(Default)]
pub(super) struct Recorder {
    pub asked: Vec<Asked>,
    pub replies: Vec<(ReplyPath, Vec<u8>)>,
    pub random: u32,
    pub streams: Vec<SocketAddr>,
    /// Number of streams that can be opened in all.
    pub stream_limit: usize,
    /// Slots of streams that were released before their answer had come.
    pub left_streams: Vec<u16>,
    /// Servers to which sending fails.
    pub unreachable: Vec<SocketAddr>,
    /// Servers without a route.
    pub no_way: Vec<SocketAddr>,
    pub notices: Vec<String>,
    /// Question of each open port.
    pub ports: HashMap<u16, u16>,
    /// Number of the latest port.
    pub last_port: u16,
    /// Ports that were left before their answer had come.
    pub left: Vec<u16>,
    /// Most ports, and the error for a further one.
    pub no_more_ports: Option<(usize, NoPort)>,
    /// Engines to wake, each time.
    pub woken: Vec<WaitingEngines>,
    /// Addresses for sets of the packet filter, each with the number of replies before it.
    pub in_sets: Vec<(usize, u16, IpAddr)>,
}

impl Recorder {
    /// True if the port is open. A stream counts as open: its end is left to its caller.
    pub fn is_open(&self, via: Via) -> bool {
        via.port().is_none_or(|port| self.ports.contains_key(&port))
    }
}

impl Effects<ReplyPath> for Recorder {
    fn open_port(&mut self, to: Destination, question: u16) -> Result<u16, NoPort> {
        if self.no_way.contains(&to.address) {
            return Err(NoPort::Unreachable);
        }
        if let Some((max, why)) = self.no_more_ports
            && self.ports.len() >= max
        {
            return Err(why);
        }
        loop {
            self.last_port = self.last_port.wrapping_add(1).max(1_024);
            if !self.ports.contains_key(&self.last_port) {
                break;
            }
        }
        self.ports.insert(self.last_port, question);
        Ok(self.last_port)
    }
    fn close_port(&mut self, port: u16) {
        assert!(self.ports.remove(&port).is_some(), "{port} was open");
    }
    fn leave_port(&mut self, port: u16) {
        self.close_port(port);
        self.left.push(port);
    }
    fn ask(&mut self, via: Via, to: Destination, message: &[u8]) -> bool {
        assert!(self.is_open(via));
        if self.unreachable.contains(&to.address) {
            return false;
        }
        self.asked.push(Asked {
            via,
            to: to.address,
            egress: to.egress,
            message: message.to_vec(),
        });
        true
    }
    fn reply(&mut self, reply_path: &ReplyPath, message: &[u8]) {
        self.replies.push((*reply_path, message.to_vec()));
    }
    fn open_stream(&mut self, to: Destination, _: u8) -> Result<u16, NoPort> {
        if self.no_way.contains(&to.address) {
            return Err(NoPort::Unreachable);
        }
        if self.streams.len() >= self.stream_limit {
            return Err(NoPort::Full);
        }
        self.streams.push(to.address);
        Ok(self.streams.len() as u16)
    }
    fn leave_stream(&mut self, slot: u16) {
        self.left_streams.push(slot);
    }
    fn notice(&mut self, notice: Notice, name: &crate::dns::Name) {
        self.notices.push(format!("{notice:?} {name}"));
    }
    fn random(&mut self) -> u32 {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        // The low bits of such a generator repeat soon.
        self.random.rotate_left(16)
    }
    fn add_to_sets(&mut self, sets: u16, address: IpAddr) {
        self.in_sets.push((self.replies.len(), sets, address));
    }
    fn wake(&mut self, engines: WaitingEngines) {
        self.woken.push(engines);
    }
}

/// An engine, its caller's effects, and a clock.
pub(super) struct World<'a> {
    pub engine: Engine<'a, ReplyPath, &'a TestCache>,
    pub effects: Recorder,
    pub now: Instant,
    pub policy: Policy<'a>,
    /// Views with a policy of their own.
    pub views: Views<'a>,
    counters: &'a Counters,
}

pub(super) const UPSTREAM_1: &str = "192.0.2.1:53";
pub(super) const UPSTREAM_2: &str = "[2001:db8::2]:53";
/// For tests that count bytes of a question or its answer, or in which a server changes the letter case.
pub(super) const PLAIN_CASE: Settings = Settings {
    random_case: false,
    ..Settings::DEFAULT
};
/// The only server of group 1.
pub(super) const UPSTREAM_OTHER: &str = "192.0.2.9:53";

pub(super) fn server(address: &str, group: u8) -> UpstreamConfig {
    UpstreamConfig {
        to: address.parse::<SocketAddr>().unwrap().into(),
        group,
        trusted: false,
        edns: true,
        strategy: Strategy::Ordered,
    }
}

/// Runs a scenario with two upstreams that are asked in order.
pub(super) fn with_world(settings: Settings, scenario: impl FnOnce(&mut World<'_>) + Send) {
    let servers = [
        server(UPSTREAM_1, 0),
        server(UPSTREAM_2, 0),
        server(UPSTREAM_OTHER, 1),
    ];
    with_servers(settings, &servers, Strategy::Ordered, scenario);
}

pub(super) fn with_servers(
    settings: Settings,
    servers: &[UpstreamConfig],
    strategy: Strategy,
    scenario: impl FnOnce(&mut World<'_>) + Send,
) {
    crate::testing::on_large_stack(|| run_world(settings, servers, strategy, scenario));
}

/// Accounts of this thread, which no other test uses.
fn accounts() -> Accounts<'static> {
    std::thread_local! {
        static WORDS_OF_TEST: &'static [AtomicU64; WORDS] =
            Box::leak(Box::new([const { AtomicU64::new(0) }; WORDS]));
    }
    Accounts::view(WORDS_OF_TEST.with(|words| *words))
}

fn run_world(
    settings: Settings,
    servers: &[UpstreamConfig],
    strategy: Strategy,
    scenario: impl FnOnce(&mut World<'_>),
) {
    let (mut tables, cache, counters) =
        (Box::new(Tables::new()), TestCache::new(), Counters::new());
    let mut upstreams = Upstreams::new();
    let servers: Vec<_> = servers
        .iter()
        .map(|server| UpstreamConfig {
            strategy,
            ..*server
        })
        .collect();
    upstreams.configure(&servers).unwrap();
    let engine = Engine::new(&mut tables, &cache, &counters, settings)
        .with_upstreams(upstreams)
        .with_accounts(accounts);
    scenario(&mut World::new(engine, &counters));
}

/// A query for A.
pub(super) fn query(name: &str, id: u16) -> Message {
    query_type(name, RecordType::A, id)
}

pub(super) fn query_type(text: &str, qtype: RecordType, id: u16) -> Message {
    let mut message = Message::new();
    message
        .set_id(id)
        .set_message_type(MessageType::Query)
        .set_op_code(OpCode::Query)
        .set_recursion_desired(true);
    message.add_query(HickoryQuery::query(name(text), qtype));
    message
}

pub(super) fn with_edns(mut message: Message, dnssec_ok: bool) -> Message {
    let mut edns = HickoryEdns::new();
    edns.set_max_payload(4096)
        .set_dnssec_ok(dnssec_ok)
        .set_version(0);
    message.set_edns(edns);
    message
}

/// Bytes of a query with an OPT record of this version and size and with these options (code, data).
pub(super) fn with_options(message: &Message, version: u8, size: u16, options: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec().unwrap();
    bytes[11] = 1;
    bytes.extend([0, 0, 41]);
    bytes.extend(size.to_be_bytes());
    bytes.extend([0, version, 0, 0]);
    bytes.extend((options.len() as u16).to_be_bytes());
    bytes.extend(options);
    bytes
}

impl<'a> World<'a> {
    pub fn new(engine: Engine<'a, ReplyPath, &'a TestCache>, counters: &'a Counters) -> Self {
        Self {
            engine,
            effects: Recorder::default(),
            now: Instant::from_millis(1_000_000),
            policy: Policy::OPEN,
            views: Views::NONE,
            counters,
        }
    }

    pub fn context<'p>(now: Instant, policy: &'p Policy<'p>, views: &'p Views<'p>) -> Context<'p> {
        Context {
            now,
            unix_secs: 1_700_000_000 + (now.millis() / 1000) as u32,
            policy,
            views,
        }
    }

    pub fn client(&self, reply_path: ReplyPath) -> Client<ReplyPath> {
        Client {
            reply_path,
            address: [10, 0, (reply_path >> 8) as u8, reply_path as u8].into(),
            transport: Transport::Udp,
            device: 0,
        }
    }

    pub fn ask_as(&mut self, client: &Client<ReplyPath>, bytes: &[u8]) -> (Outcome, Vec<u8>) {
        let room = if client.transport == Transport::Tcp {
            65_535
        } else {
            2_048
        };
        let mut buffer = vec![0xa5; room];
        buffer[..bytes.len()].copy_from_slice(bytes);
        let context = Self::context(self.now, &self.policy, &self.views);
        let call = &mut context.call(&mut self.effects);
        let outcome = self.engine.query(call, client, &mut buffer, bytes.len());
        if let Outcome::Reply(len) = outcome {
            buffer.truncate(len);
        }
        (outcome, buffer)
    }

    pub fn ask_bytes(&mut self, reply_path: ReplyPath, bytes: &[u8]) -> (Outcome, Vec<u8>) {
        self.ask_as(&self.client(reply_path), bytes)
    }

    pub fn ask(&mut self, reply_path: ReplyPath, message: &Message) -> (Outcome, Vec<u8>) {
        self.ask_bytes(reply_path, &message.to_vec().unwrap())
    }

    pub fn ask_tcp(&mut self, reply_path: ReplyPath, message: &Message) -> (Outcome, Vec<u8>) {
        let client = Client {
            transport: Transport::Tcp,
            ..self.client(reply_path)
        };
        self.ask_as(&client, &message.to_vec().unwrap())
    }

    /// Sends a query that has to wait.
    pub fn miss(&mut self, reply_path: ReplyPath, message: &Message) {
        assert_eq!(self.ask(reply_path, message).0, Outcome::Pending);
    }

    /// Sends a query and returns its immediate answer.
    pub fn hit(&mut self, message: &Message) -> Message {
        Message::from_vec(&self.hit_bytes(&message.to_vec().unwrap())).unwrap()
    }

    pub fn hit_bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (outcome, reply) = self.ask_bytes(9, bytes);
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
        reply
    }

    pub fn last_question(&self) -> Message {
        self.effects.asked.last().unwrap().parsed()
    }

    /// Lets the upstream that was asked last answer.
    pub fn respond(&mut self, build: impl FnOnce(&mut Message)) {
        let last = self.effects.asked.len() - 1;
        let to = self.effects.asked[last].to;
        self.respond_from(last, to, build);
    }

    /// Answers the question number `nth` from address `from`.
    pub fn respond_from(&mut self, nth: usize, from: SocketAddr, build: impl FnOnce(&mut Message)) {
        let asked = &self.effects.asked[nth];
        let (via, message) = (asked.via, response_to(&asked.message, build));
        self.receive(via, from, &message);
    }

    /// Answers the question number `nth` from the server that was asked.
    pub fn respond_to(&mut self, nth: usize, build: impl FnOnce(&mut Message)) {
        let to = self.effects.asked[nth].to;
        self.respond_from(nth, to, build);
    }

    /// Answers the latest question with these bytes.
    pub fn respond_bytes(&mut self, message: &[u8]) {
        let asked = self.effects.asked.last().unwrap();
        let (via, to) = (asked.via, asked.to);
        self.receive(via, to, message);
    }

    /// Delivers a message. One to a port that is not open is not ours.
    pub fn receive(&mut self, via: Via, from: SocketAddr, message: &[u8]) {
        if !self.effects.is_open(via) {
            return;
        }
        let question = via.port().map(|port| self.effects.ports[&port]);
        let origin = ResponseOrigin {
            via,
            question: question.unwrap_or(u16::MAX),
            from,
        };
        let context = Self::context(self.now, &self.policy, &self.views);
        let call = &mut context.call(&mut self.effects);
        self.engine.response(call, &origin, &mut message.to_vec());
    }

    /// Delivers an ICMP error for the question number `nth` that quotes this much of it.
    pub fn unreachable(&mut self, nth: usize, id: Option<u16>) {
        let port = self.effects.asked[nth].via.port();
        let opened = port.and_then(|port| Some((port, *self.effects.ports.get(&port)?)));
        let Some((port, question)) = opened else {
            return;
        };
        let context = Self::context(self.now, &self.policy, &self.views);
        let call = &mut context.call(&mut self.effects);
        self.engine
            .unreachable(call, SourcePort { port, question }, id);
    }

    /// Ends the stream that was opened last.
    pub fn lose_stream(&mut self) {
        self.lose_stream_by(StreamLoss::Unanswered);
    }

    /// Ends it for this reason.
    pub fn lose_stream_by(&mut self, loss: StreamLoss) {
        let Via::Stream { slot } = self.effects.asked.last().unwrap().via else {
            panic!("asked in a datagram");
        };
        let context = Self::context(self.now, &self.policy, &self.views);
        let call = &mut context.call(&mut self.effects);
        self.engine.lost(call, slot, loss);
    }

    pub fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        // Steps like a worker: to each deadline, then on.
        while let Some(deadline) = self
            .engine
            .next_deadline()
            .filter(|&deadline| deadline <= end)
        {
            self.now = self.now.max(deadline);
            self.timeout();
        }
        self.now = end;
        self.timeout();
    }

    fn timeout(&mut self) {
        let context = Self::context(self.now, &self.policy, &self.views);
        self.engine.timeout(&mut context.call(&mut self.effects));
    }

    pub fn last_reply(&self) -> Message {
        Message::from_vec(self.last_bytes()).unwrap()
    }

    pub fn last_bytes(&self) -> &[u8] {
        &self.effects.replies.last().unwrap().1
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter)
    }

    pub fn get_for(&self, view: usize, counter: ViewCounter) -> u64 {
        self.counters.get_for(view, counter)
    }

    /// How long those waited who are answered.
    pub fn waited(&self) -> LatencyReading {
        self.counters.latency(Tier::Upstream).read()
    }

    /// Servers that were asked, in order.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.effects.asked.iter();
        asked.map(|asked| format!("{}", asked.to)).collect()
    }
}

/// A response to `question`, completed by `build`.
pub(super) fn response_to(question: &[u8], build: impl FnOnce(&mut Message)) -> Vec<u8> {
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

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn address(owner: &str, ttl_secs: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl_secs, RData::A(A::new(192, 0, 2, last)))
}

pub(super) fn alias(owner: &str, ttl_secs: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl_secs, RData::CNAME(CNAME(name(target))))
}

/// A record of any type with opaque RDATA.
pub(super) fn opaque(owner: &str, ttl_secs: u32, rtype: u16, rdata: &[u8]) -> Record {
    let rdata = RData::Unknown {
        code: RecordType::from(rtype),
        rdata: NULL::with(rdata.to_vec()),
    };
    Record::from_rdata(name(owner), ttl_secs, rdata)
}

/// A made-up RRSIG record over `covered`.
pub(super) fn signature(owner: &str, ttl_secs: u32, covered: u16) -> Record {
    let mut rdata = covered.to_be_bytes().to_vec();
    rdata.extend([8, 2, 0, 0, 1, 44, 0x70, 0, 0, 0, 0x60, 0, 0, 0, 0x12, 0x34]);
    rdata.extend(b"\x07example\0signature");
    opaque(owner, ttl_secs, rtype::RRSIG, &rdata)
}

pub(super) fn soa(zone: &str, ttl_secs: u32, minimum_secs: u32) -> Record {
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

/// An answer with one address for QNAME.
pub(super) fn answer_a(ttl_secs: u32) -> impl FnOnce(&mut Message) {
    move |message| {
        let owner = message.queries()[0].name().clone();
        message.add_answer(Record::from_rdata(
            owner,
            ttl_secs,
            RData::A(A::new(192, 0, 2, 80)),
        ));
    }
}

/// A response with this RCODE and no records.
pub(super) fn code(code: ResponseCode) -> impl FnOnce(&mut Message) {
    move |message| {
        message.set_response_code(code);
    }
}

/// OPT record of a message, read by our own parser.
pub(super) fn opt(message: &[u8]) -> Option<Edns> {
    let header = Header::parse(message)?;
    let question_end = crate::dns::name::plain_end(message, 12).ok()? + 4;
    let total = header.counts[1..]
        .iter()
        .map(|&count| usize::from(count))
        .sum();
    let opt = Records::new(message, question_end, total)
        .flatten()
        .find(|record| record.rtype == rtype::OPT)?;
    Edns::parse(message, &opt).ok()
}

pub(super) fn extended_error(message: &[u8]) -> Option<u16> {
    opt(message)?.ede
}

/// Answer section as text, with owners in lower case: owner, type, RDATA.
pub(super) fn answers(message: &Message) -> Vec<String> {
    let records = message.answers().iter();
    records
        .map(|record| {
            format!(
                "{} {} {}",
                record.name().to_lowercase(),
                record.record_type(),
                record.data()
            )
        })
        .collect()
}

/// An image with the lifetime of the tests.
pub(super) fn keep(image: Vec<u8>) -> &'static [u8] {
    image.leak()
}
