//! What one hit costs in the core: `cargo run --release -p xdnsd-core --example cost`.
//!
//! Fills the cache to its capacity, then times a hash, a look-up and a reply's headers, each over random names of the
//! whole cache, so that the data caches of the machine have their say.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant as Clock;

use xdnsd_core::cache::{Head, Key, Shard, shard_of};
use xdnsd_core::limits::{CACHE_ENTRIES, CACHE_SHARDS};
use xdnsd_core::time::Instant;
use xdnsd_core::wire;

static SHARDS: [Mutex<Shard>; CACHE_SHARDS] = [const { Mutex::new(Shard::new()) }; CACHE_SHARDS];
const SEED: [u8; 16] = *b"not so random...";
const ROUNDS: usize = 2_000_000;

fn main() {
    println!("{:40} {:>9} bytes", "Shard", size_of::<Shard>());
    println!(
        "{:40} {:>9} bytes",
        "all shards",
        size_of::<Shard>() * CACHE_SHARDS
    );
    println!("{:40} {:>9} bytes", "Path", size_of::<wire::Path>());
    let names: Vec<Vec<u8>> = (0..CACHE_ENTRIES).map(name).collect();
    for name in &names {
        let key = key(name);
        let hash = key.hash(&SEED);
        lock(hash).insert(hash, &key, &head(), &[0xa5; 80]);
    }
    let kept = SHARDS
        .iter()
        .map(|shard| shard.lock().expect("one thread").len())
        .sum::<usize>();
    println!("{:40} {kept:>9} of {CACHE_ENTRIES}", "small answers kept");
    time_look_ups(&names);
    time_replies();
}

fn time_look_ups(names: &[Vec<u8>]) {
    let hashes: Vec<u64> = names.iter().map(|name| key(name).hash(&SEED)).collect();
    let order = |round: usize| round.wrapping_mul(0x9e37_79b9) % names.len();
    time("hash of a name", |round| {
        key(&names[order(round)]).hash(&SEED)
    });
    time("find, hash known", |round| {
        let index = order(round);
        let (hash, key) = (hashes[index], key(&names[index]));
        lock(hash)
            .find(hash, &key)
            .map_or(0, |found| found.body.len() as u64)
    });
    time("find, hash known, one name", |_| {
        let (hash, key) = (hashes[1], key(&names[1]));
        lock(hash)
            .find(hash, &key)
            .map_or(0, |found| found.body.len() as u64)
    });
    time("find, not there", |round| {
        let index = order(round);
        let (hash, key) = (
            hashes[index],
            Key {
                qtype: 2,
                ..key(&names[index])
            },
        );
        lock(hash)
            .find(hash, &key)
            .map_or(0, |found| found.body.len() as u64)
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
    let start = Clock::now();
    let mut sum = 0u64;
    for round in 0..ROUNDS {
        sum = sum.wrapping_add(black_box(run(round)));
    }
    black_box(sum);
    let nanos = start.elapsed().as_nanos() as f64 / ROUNDS as f64;
    println!("{what:40} {nanos:>9.1} ns");
}

fn lock(hash: u64) -> std::sync::MutexGuard<'static, Shard> {
    SHARDS[shard_of(hash)].lock().expect("one thread")
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
    }
}

fn head() -> Head {
    Head {
        rcode: 0,
        authentic_data: false,
        authoritative: false,
        answers: 1,
        authorities: 0,
        additionals: 0,
        ttl_secs: 300,
        stored: Instant::from_millis(0),
        restored: false,
        ede: Head::NO_EDE,
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
