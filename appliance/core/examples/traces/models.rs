//! Caches that are asked: the shards, and what they are compared with.

use std::collections::{BTreeSet, HashMap};

use xdnsd_core::answer::{Answer, HashedKey, Head, Key};
use xdnsd_core::cache::{Shard, shard_of};
use xdnsd_core::dns::rcode;
use xdnsd_core::limits::{
    CACHE_ENTRIES, CACHE_LARGE_SETS, CACHE_SHARDS, CACHE_SMALL_SETS, CACHE_WAYS,
};
use xdnsd_core::time::Instant;

use crate::{Request, Says};

/// The key of hashes.
const SEED: [u8; 16] = *b"not so random...";

/// What is asked for names.
pub trait Cache {
    /// Whether it has a fresh answer. If not, it gets one.
    fn ask(&mut self, request: &Request) -> bool;
}

/// The types under which an answer is kept: a denied name is for all types as well, as the engine does it.
const fn types(request: &Request) -> &'static [u16] {
    match request.says {
        Says::NoName => &[0, 1],
        Says::Addresses | Says::NoData => &[1],
    }
}

fn with_key<T>(request: &Request, qtype: u16, then: impl FnOnce(&HashedKey<'_>) -> T) -> T {
    let mut name = *b"\x0800000000\x07example\0";
    for (digit, byte) in name[1..9].iter_mut().enumerate() {
        *byte = b'a' + (request.name >> (4 * digit) & 15) as u8;
    }
    let key = Key {
        name: &name,
        qtype,
        dnssec_ok: false,
        checking_disabled: false,
        view: 0,
    };
    then(&key.hashed(&SEED))
}

/// The cache itself.
pub struct Shards {
    shards: Vec<Box<Shard>>,
}

impl Shards {
    /// Of so many entries at most.
    pub fn new(entries: usize) -> Self {
        let shard = || {
            let mut shard = Box::new(Shard::new());
            if entries < CACHE_ENTRIES {
                shard.limit(entries / CACHE_SHARDS);
            }
            shard
        };
        Self {
            shards: (0..CACHE_SHARDS).map(|_| shard()).collect(),
        }
    }
}

impl Cache for Shards {
    fn ask(&mut self, request: &Request) -> bool {
        let now = Instant::from_millis(request.at);
        let is_hit = with_key(request, 1, |key| {
            let shard = &mut self.shards[shard_of(key.hash(), CACHE_SHARDS)];
            shard
                .find(key)
                .is_some_and(|found| now < found.head.expires())
        });
        if is_hit {
            return true;
        }
        let head = Head {
            rcode: if request.says == Says::NoName {
                rcode::NXDOMAIN
            } else {
                rcode::NOERROR
            },
            answers: u16::from(request.says == Says::Addresses),
            authorities: u16::from(request.says != Says::Addresses),
            ttl_secs: request.ttl_secs,
            stored: now,
            ..Head::EMPTY
        };
        for qtype in types(request) {
            with_key(request, *qtype, |key| {
                let answer = Answer {
                    head: &head,
                    body: &[0; 80],
                };
                self.shards[shard_of(key.hash(), CACHE_SHARDS)].insert(key, &answer);
            });
        }
        false
    }
}

/// What CLOCK knows of a slot.
#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    expires: u64,
    is_referenced: bool,
}

/// A set of slots with a hand.
#[derive(Clone)]
struct Set {
    entries: [Option<Entry>; CACHE_WAYS],
    hand: usize,
}

impl Set {
    const EMPTY: Self = Self {
        entries: [None; CACHE_WAYS],
        hand: 0,
    };

    fn find(&mut self, hash: u64) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .flatten()
            .find(|entry| entry.hash == hash)
    }

    fn free(&mut self) -> Option<&mut Option<Entry>> {
        self.entries.iter_mut().find(|entry| entry.is_none())
    }

    /// Who expired first among those not asked for; or else who was not asked for since the hand passed.
    fn victim(&mut self, now: u64) -> usize {
        let idle = |way: &usize| {
            self.entries[*way].is_some_and(|entry| !entry.is_referenced && entry.expires <= now)
        };
        let expired = (0..CACHE_WAYS)
            .filter(idle)
            .min_by_key(|way| self.entries[*way].map(|entry| entry.expires));
        if let Some(way) = expired {
            return way;
        }
        for _ in 0..CACHE_WAYS {
            match &mut self.entries[self.hand] {
                Some(entry) if entry.is_referenced => entry.is_referenced = false,
                Some(_) | None => break,
            }
            self.hand = (self.hand + 1) % CACHE_WAYS;
        }
        self.hand
    }

    fn put(&mut self, entry: Entry, now: u64) {
        let way = self.victim(now);
        self.entries[way] = Some(entry);
        if self.hand == way {
            self.hand = (way + 1) % CACHE_WAYS;
        }
    }
}

/// CLOCK in the sets of the shards, of both sizes: all answers are short here, so the large ones are those that are filled when
/// they are free.
pub struct Clock {
    small: Vec<Vec<Set>>,
    large: Vec<Vec<Set>>,
}

impl Clock {
    /// Of so many entries at most.
    pub fn new(entries: usize) -> Self {
        let sets = entries.min(CACHE_ENTRIES) / CACHE_SHARDS / CACHE_WAYS;
        let large = (sets * CACHE_LARGE_SETS).div_ceil(CACHE_SMALL_SETS + CACHE_LARGE_SETS);
        Self {
            small: vec![vec![Set::EMPTY; sets - large]; CACHE_SHARDS],
            large: vec![vec![Set::EMPTY; large]; CACHE_SHARDS],
        }
    }
}

fn set_of(sets: &mut [Set], hash: u64) -> &mut Set {
    let at = ((hash >> 32) * sets.len() as u64) >> 32;
    &mut sets[at as usize]
}

impl Cache for Clock {
    fn ask(&mut self, request: &Request) -> bool {
        for qtype in types(request).iter().rev() {
            let hash = with_key(request, *qtype, |key| key.hash());
            let small = set_of(&mut self.small[shard_of(hash, CACHE_SHARDS)], hash);
            let large = set_of(&mut self.large[shard_of(hash, CACHE_SHARDS)], hash);
            let expires = request.at + u64::from(request.ttl_secs) * 1000;
            if let Some(entry) = small.find(hash).or_else(|| large.find(hash)) {
                if *qtype != 1 {
                    entry.expires = expires;
                    continue;
                }
                entry.is_referenced = true;
                if request.at < entry.expires {
                    return true;
                }
                entry.expires = expires;
                continue;
            }
            let entry = Entry {
                hash,
                expires,
                is_referenced: false,
            };
            if let Some(free) = small.free().or_else(|| large.free()) {
                *free = Some(entry);
            } else {
                small.put(entry, request.at);
            }
        }
        false
    }
}

/// Who was not asked for the longest time goes.
pub struct Lru {
    capacity: usize,
    /// When each name was asked for last, and when it expires.
    names: HashMap<u32, (u64, u64)>,
    order: BTreeSet<(u64, u32)>,
    asked: u64,
}

impl Lru {
    /// Of so many entries at most.
    pub fn new(entries: usize) -> Self {
        Self {
            capacity: entries.min(CACHE_ENTRIES),
            names: HashMap::new(),
            order: BTreeSet::new(),
            asked: 0,
        }
    }
}

impl Cache for Lru {
    fn ask(&mut self, request: &Request) -> bool {
        self.asked += 1;
        let known = self.names.get(&request.name).copied();
        let is_hit = known.is_some_and(|(_, expires)| request.at < expires);
        match known {
            Some((asked, _)) => {
                self.order.remove(&(asked, request.name));
            }
            None if self.names.len() == self.capacity => {
                let (_, oldest) = self.order.pop_first().expect("it is full");
                self.names.remove(&oldest);
            }
            None => {}
        }
        let expires = match known {
            Some((_, expires)) if is_hit => expires,
            _ => request.at + u64::from(request.ttl_secs) * 1000,
        };
        self.names.insert(request.name, (self.asked, expires));
        self.order.insert((self.asked, request.name));
        is_hit
    }
}

/// Who is asked for last goes, which may be who has just come: nobody can do better.
pub struct Belady {
    capacity: usize,
    /// For each request when its name is asked for again, and which request that is.
    next: Vec<Option<(u64, usize)>>,
    at: usize,
    /// When each name expires, and which request is the next for it.
    names: HashMap<u32, (u64, usize)>,
    order: BTreeSet<(usize, u32)>,
}

impl Belady {
    /// Of so many entries at most, knowing the trace.
    pub fn new(entries: usize, trace: &[Request]) -> Self {
        let mut later = HashMap::new();
        let mut next = vec![None; trace.len()];
        for (index, request) in trace.iter().enumerate().rev() {
            next[index] = later.insert(request.name, (request.at, index));
        }
        Self {
            capacity: entries.min(CACHE_ENTRIES),
            next,
            at: 0,
            names: HashMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl Cache for Belady {
    fn ask(&mut self, request: &Request) -> bool {
        let next = self.next[self.at];
        self.at += 1;
        // Only those are kept that will be asked for before they expire.
        let kept = self.names.remove(&request.name);
        if let Some((_, index)) = kept {
            self.order.remove(&(index, request.name));
        }
        let expires = kept.map_or(
            request.at + u64::from(request.ttl_secs) * 1000,
            |(expires, _)| expires,
        );
        if let Some((_, index)) = next.filter(|(at, _)| *at < expires) {
            self.names.insert(request.name, (expires, index));
            self.order.insert((index, request.name));
            if self.names.len() > self.capacity {
                let (_, last) = self.order.pop_last().expect("it is full");
                self.names.remove(&last);
            }
        }
        kept.is_some()
    }
}
