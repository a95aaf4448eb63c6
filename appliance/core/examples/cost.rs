//! What one hit, and one miss, costs in the core: `cargo run --release -p xdnsd-core --example cost`.
//!
//! Fills the cache to its capacity, then times a hash, a look-up, a reply's headers and the engine's whole answer, each
//! over random names of the whole cache, so that the data caches of the machine have their say. A number as argument is
//! the count of rounds, for a profiler that wants fewer: `valgrind --tool=callgrind`. A second one is a part of the names of
//! those measurements that are wanted. Two runs with other counts tell the instructions of one round.

#[path = "../src/engine/tests/image.rs"]
mod image;

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant as Clock;

use std::net::SocketAddr;

use xdnsd_core::answer::{Answer, HashedKey, Head, Key};
use xdnsd_core::cache::{Shard, shard_of};
use xdnsd_core::counters::Counters;
use xdnsd_core::dns::Name;
use xdnsd_core::engine::{
    CacheAccess, Client, Context, Effects, Engine, Notice, Outcome, Settings, Tables, Transport,
};
use xdnsd_core::forward::upstreams::{Strategy, UpstreamConfig, Upstreams};
use xdnsd_core::forward::via::{Destination, NoPort, ResponseOrigin, Via};
use xdnsd_core::limits::{CACHE_ENTRIES, CACHE_SHARDS, UDP_MESSAGE_MAX};
use xdnsd_core::policy::on_link::Network;
use xdnsd_core::policy::{Acl, Action, List, Lists, LocalData, OnLink, Policy};
use xdnsd_core::time::Instant;
use xdnsd_core::wire;

static SHARDS: [Mutex<Shard>; CACHE_SHARDS] = [const { Mutex::new(Shard::new()) }; CACHE_SHARDS];
const SEED: [u8; 16] = *b"not so random...";
/// Rounds of each measurement, unless the command line says otherwise.
const ROUNDS: usize = 2_000_000;
/// Names on the blocklist of a home router.
const LISTED: usize = 1_000_000;
/// Hosts of a large office.
const HOSTS: usize = 1_000;

fn main() {
    println!("{:40} {:>9} bytes", "Shard", size_of::<Shard>());
    println!(
        "{:40} {:>9} bytes",
        "all shards",
        size_of::<Shard>() * CACHE_SHARDS
    );
    println!("{:40} {:>9} bytes", "Path", size_of::<wire::Path>());
    let mut names: Vec<Vec<u8>> = (0..CACHE_ENTRIES).map(name).collect();
    for name in &names {
        let key = key(name).hashed(&SEED);
        let answer = Answer {
            head: &head(),
            body: &body(),
        };
        lock(key.hash()).insert(&key, &answer);
    }
    // A set that many names share puts some of them out: those would be misses.
    names.retain(|name| {
        let key = key(name).hashed(&SEED);
        lock(key.hash()).find(&key).is_some()
    });
    let kept = names.len();
    println!("{:40} {kept:>9} of {CACHE_ENTRIES}", "small answers kept");
    time_look_ups(&names);
    time_replies();
    time_hits(&names);
    time_clients();
    time_misses();
}

/// One question that nobody has asked before: query, question to the upstream, its answer, reply to the client.
fn time_misses() {
    let server = UpstreamConfig {
        to: SocketAddr::from(([192, 0, 2, 53], 53)).into(),
        group: 0,
        trusted: false,
        edns: true,
        strategy: Strategy::Ordered,
    };
    let mut upstreams = Upstreams::new();
    upstreams.configure(&[server]).expect("one server");
    let counters = Counters::new();
    let mut tables = Box::new(Tables::new());
    let settings = Settings::DEFAULT;
    let mut engine =
        Engine::new(&mut tables, &Shards, &counters, settings).with_upstreams(upstreams);
    let client = Client {
        reply_path: 0,
        address: [192, 0, 2, 1].into(),
        transport: Transport::Udp,
        device: 0,
    };
    let context = Context {
        now: Instant::from_millis(1_000),
        unix_secs: 0,
        policy: &Policy::OPEN,
        views: &xdnsd_core::policy::Views::NONE,
    };
    let mut line = Line::default();
    let mut buffer = [0; UDP_MESSAGE_MAX];
    let mut number = CACHE_ENTRIES;
    time("engine miss, answered", |_| {
        number += 1;
        let query = query(&name(number));
        buffer[..query.len()].copy_from_slice(&query);
        let outcome = engine.query(
            &mut context.call(&mut line),
            &client,
            &mut buffer,
            query.len(),
        );
        debug_assert_eq!(outcome, Outcome::Pending);
        let mut answer = line.answer();
        let origin = ResponseOrigin {
            via: line.via.expect("it was asked"),
            question: line.question,
            from: server.to.address,
        };
        engine.response(&mut context.call(&mut line), &origin, &mut answer);
        u64::from(line.replies)
    });
    assert_eq!(engine.in_flight(), 0);
}

/// Who may ask, by the default of the config: neighbours on three networks, and this machine.
fn time_clients() {
    // Both families: one range, from address 0 on, whose action is `Action::Local`.
    let acl = [
        &[1, 0, 0, 0, 1, 0, 0, 0][..],
        &[0, 0, 0, 0, 3],
        &[0; 16],
        &[3],
    ]
    .concat();
    let networks = [
        ("10.1.0.1", 16),
        ("192.168.1.1", 24),
        ("192.168.2.1", 24),
        ("2001:db8:1::1", 64),
        ("fd00:53::1", 64),
    ]
    .map(|(text, length)| Network::of(text.parse().expect("an address"), length));
    let policy = Policy {
        acl: Acl::view(&acl).expect("an ACL"),
        on_link: OnLink::view(&networks),
        ..Policy::OPEN
    };
    for (what, client) in [
        ("a neighbour, IPv4", "192.168.1.77"),
        ("a neighbour, IPv6", "2001:db8:1::77"),
        ("a neighbour, link-local", "fe80::77"),
    ] {
        let client = client.parse().expect("an address");
        time(what, |_| {
            u64::from(black_box(&policy).admit(black_box(client)) == Action::Allow)
        });
    }
}

/// The line to an upstream.
#[derive(Default)]
struct Line {
    via: Option<Via>,
    question: u16,
    asked: Vec<u8>,
    random: u32,
    replies: u32,
}

impl Line {
    /// Four addresses for what was asked last.
    fn answer(&self) -> Vec<u8> {
        let question_end = self.asked.len() - 11;
        let mut answer = self.asked[..question_end].to_vec();
        answer[2] |= 0x80;
        answer[7] = 4;
        answer.extend(body());
        answer.extend(&self.asked[question_end..]);
        answer
    }
}

impl Effects<u32> for Line {
    fn open_port(&mut self, _: Destination, question: u16) -> Result<u16, NoPort> {
        self.question = question;
        Ok(1024)
    }
    fn close_port(&mut self, _: u16) {}
    fn leave_port(&mut self, _: u16) {}
    fn ask(&mut self, via: Via, _to: Destination, message: &[u8]) -> bool {
        self.via = Some(via);
        self.asked.clear();
        self.asked.extend(message);
        true
    }
    fn reply(&mut self, _route: &u32, _message: &[u8]) {
        self.replies += 1;
    }
    fn open_stream(&mut self, _to: Destination, _bucket: u8) -> Result<u16, NoPort> {
        Err(NoPort::Full)
    }
    fn leave_stream(&mut self, _: u16) {}
    fn notice(&mut self, _notice: Notice, _name: &Name) {}
    fn random(&mut self) -> u32 {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.random.rotate_left(16)
    }
}

/// One answer from the cache, from the query's bytes to the reply's, without a policy and with a large one.
fn time_hits(names: &[Vec<u8>]) {
    let queries: Vec<Vec<u8>> = names.iter().map(|name| query(name)).collect();
    let listed = (0..LISTED).map(|number| {
        let name = format!("ads{number}.tracker{}.test", number % 999);
        (image::wire(&name), image::BLOCK)
    });
    let list = image::list(listed);
    let hosts: Vec<String> = (0..HOSTS)
        .map(|number| format!("host{number}.lan"))
        .collect();
    let record = [(1, 60, vec![192, 168, 1, 1])];
    let local: Vec<_> = hosts
        .iter()
        .map(|host| (host.as_str(), &record[..]))
        .collect();
    let local = image::local(&local);
    let mut lists = Lists::EMPTY;
    assert!(lists.push(List::check(&list).expect("a list")));
    let full = Policy {
        lists,
        local: LocalData::view(&local).expect("local data"),
        ..Policy::OPEN
    };
    let counters = Counters::new();
    let mut tables = Box::new(Tables::new());
    let mut engine = Engine::new(&mut tables, &Shards, &counters, Settings::DEFAULT);
    for (what, policy) in [
        ("engine hit, open policy", &Policy::OPEN),
        ("engine hit, 1M listed, 1000 hosts", &full),
    ] {
        let context = Context {
            now: Instant::from_millis(1_000),
            unix_secs: 0,
            policy,
            views: &xdnsd_core::policy::Views::NONE,
        };
        let client = Client {
            reply_path: 0,
            address: [192, 0, 2, 1].into(),
            transport: Transport::Udp,
            device: 0,
        };
        let mut buffer = [0; UDP_MESSAGE_MAX];
        time(what, |round| {
            let query = &queries[round.wrapping_mul(0x9e37_79b9) % queries.len()];
            buffer[..query.len()].copy_from_slice(query);
            let outcome = engine.query(
                &mut context.call(&mut Nobody),
                &client,
                &mut buffer,
                query.len(),
            );
            u64::from(matches!(outcome, Outcome::Reply(_)))
        });
    }
}

/// The shards behind their locks, as the engine wants them.
struct Shards;

impl CacheAccess for &Shards {
    fn with_shard<T>(&self, hash: u64, f: impl FnOnce(&mut Shard) -> T) -> T {
        f(&mut lock(hash))
    }
    fn seed(&self) -> [u8; 16] {
        SEED
    }
}

/// A caller of whom nothing is asked: every name is in the cache.
struct Nobody;

impl Effects<u32> for Nobody {
    fn open_port(&mut self, _: Destination, _: u16) -> Result<u16, NoPort> {
        Ok(1024)
    }
    fn close_port(&mut self, _: u16) {}
    fn leave_port(&mut self, _: u16) {}
    fn ask(&mut self, _via: Via, _to: Destination, _message: &[u8]) -> bool {
        false
    }
    fn reply(&mut self, _route: &u32, _message: &[u8]) {}
    fn open_stream(&mut self, _to: Destination, _bucket: u8) -> Result<u16, NoPort> {
        Err(NoPort::Full)
    }
    fn leave_stream(&mut self, _: u16) {}
    fn notice(&mut self, _notice: Notice, _name: &Name) {}
    fn random(&mut self) -> u32 {
        0
    }
}

/// A query for A with OPT, as resolvers of today send it.
fn query(name: &[u8]) -> Vec<u8> {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    query.extend(name);
    query.extend([0, 1, 0, 1]);
    query.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    query
}

fn time_look_ups(names: &[Vec<u8>]) {
    let keys: Vec<HashedKey<'_>> = names.iter().map(|name| key(name).hashed(&SEED)).collect();
    let find = |key: &HashedKey<'_>| {
        let mut shard = lock(key.hash());
        shard.find(key).map_or(0, |found| found.body.len() as u64)
    };
    let order = |round: usize| round.wrapping_mul(0x9e37_79b9) % names.len();
    time("hash of a name", |round| {
        key(&names[order(round)]).hashed(&SEED).hash()
    });
    time("find, hash known", |round| find(&keys[order(round)]));
    time("find, hash known, one name", |_| find(&keys[1]));
    time("find, not there", |round| {
        find(&keys[order(round)].with_qtype(2))
    });
}

fn time_replies() {
    for (what, query) in [("IPv4", ipv4_query()), ("IPv6", ipv6_query())] {
        let (path, _) = wire::parse(&query).expect("a query");
        let mut frame = [0xa5; 2048];
        for len in [100, 1232] {
            time(&format!("emit {what}, {len} bytes of message"), |_| {
                path.emit(black_box(&mut frame), len)
                    .map_or(0, |len| len as u64)
            });
        }
        time(&format!("parse {what}"), |_| {
            wire::parse(black_box(&query)).map_or(0, |(_, range)| range.end as u64)
        });
    }
}

/// Prints what one round costs, the loop included.
fn time(what: &str, mut run: impl FnMut(usize) -> u64) {
    let argument = |index| std::env::args().nth(index);
    let rounds = argument(1).map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    if argument(2).is_some_and(|wanted| !what.contains(&wanted)) {
        return;
    }
    let start = Clock::now();
    let mut sum = 0u64;
    for round in 0..rounds {
        sum = sum.wrapping_add(black_box(run(round)));
    }
    black_box(sum);
    let nanos = start.elapsed().as_nanos() as f64 / rounds as f64;
    println!("{what:40} {nanos:>9.1} ns");
}

fn lock(hash: u64) -> std::sync::MutexGuard<'static, Shard> {
    SHARDS[shard_of(hash, CACHE_SHARDS)]
        .lock()
        .expect("one thread")
}

fn name(number: usize) -> Vec<u8> {
    let label = format!("host{number}");
    let mut name = vec![label.len() as u8];
    name.extend(label.as_bytes());
    name.extend(b"\x07example\x03com\0");
    name
}

fn key(name: &[u8]) -> Key<'_> {
    Key {
        name,
        qtype: 1,
        dnssec_ok: false,
        checking_disabled: false,
        view: 0,
    }
}

/// Four addresses of the name in question.
fn body() -> Vec<u8> {
    let record = |last| [0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, last];
    (1..=4).flat_map(record).collect()
}

fn head() -> Head {
    Head {
        rcode: 0,
        authentic_data: false,
        authoritative: false,
        answers: 4,
        authorities: 0,
        ttl_secs: 300,
        stored: Instant::from_millis(0),
        restored: false,
        ..Head::EMPTY
    }
}

/// A frame with 40 bytes of message; its checksums are not looked at.
fn ipv4_query() -> Vec<u8> {
    let mut frame = vec![0; 14 + 20 + 8 + 40];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[17] = 68;
    frame[23] = 17;
    frame[39] = 48;
    frame
}

/// The same over IPv6.
fn ipv6_query() -> Vec<u8> {
    let mut frame = vec![0; 14 + 40 + 8 + 40];
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[14] = 0x60;
    frame[19] = 48;
    frame[20] = 17;
    frame[59] = 48;
    frame
}
