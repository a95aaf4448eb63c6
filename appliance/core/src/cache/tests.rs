//! The cache against a model.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::time::Instant;

const SEED: [u8; 16] = *b"0123456789abcdef";

pub(super) fn head(stored: Instant, ttl_secs: u32) -> Head {
    Head {
        rcode: 0,
        authentic_data: false,
        authoritative: false,
        answers: 1,
        authorities: 0,
        additionals: 0,
        ttl_secs,
        stored,
        restored: false,
        ede: Head::NO_EDE,
    }
}

/// The name `n<number>.example.`.
pub(super) fn name(number: usize) -> Vec<u8> {
    let label = std::format!("n{number}");
    let mut name = Vec::from([label.len() as u8]);
    name.extend(label.as_bytes());
    name.extend(b"\x07example\0");
    name
}

pub(super) fn key(name: &[u8]) -> Key<'_> {
    Key {
        name,
        qtype: 1,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

#[test]
fn smoke() {
    let mut shard = Box::new(Shard::new());
    let name = name(1);
    let key = key(&name);
    let hash = key.hash(&SEED);
    assert!(shard.find(hash, &key).is_none());
    assert_eq!(
        shard.insert(hash, &key, &head(Instant::default(), 5), b"body"),
        Inserted::Added
    );
    assert_eq!(shard.find(hash, &key).unwrap().body, b"body");
    assert_eq!(
        shard.insert(hash, &key, &head(Instant::default(), 5), b"other"),
        Inserted::Replaced
    );
    assert_eq!(shard.find(hash, &key).unwrap().body, b"other");
    assert!(shard.remove(hash, &key));
    assert!(shard.is_empty());
}
