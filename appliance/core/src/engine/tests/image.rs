//! Images of policy, made by hand: the daemon's compiled config reduced to what a scenario needs. The cost example uses
//! them as well, so this module names the crate from outside.

use std::vec;
use std::vec::Vec;

use xdnsd_abi::hash::HashKey;
use xdnsd_core::policy::list::{self, CRC, ENTRY_LEN, NAMES_PER_BUCKET, Spot, tag};
use xdnsd_core::policy::local::{self, NODE_HEAD, NONE, RECORD_HEAD};
use xdnsd_core::policy::name::Labels;
use xdnsd_core::policy::table::{PROBE_MAX, SLOT_LEN, field, place};

const KEY: HashKey = *b"sixteen byte key";

/// The wire form of a name in plain text.
pub fn wire(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        name.push(label.len() as u8);
        name.extend(label.bytes());
    }
    name.push(0);
    name
}

fn labels(name: &[u8]) -> Labels<'_> {
    Labels::new(name).expect("well-formed")
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A table of names with values: routes, suffixes.
pub fn table(names: &[(&str, u32)]) -> Vec<u8> {
    let slots = (names.len() * 4).next_power_of_two();
    let mut image = vec![0; field::FIRST_SLOT + slots * SLOT_LEN];
    for (text, value) in names {
        let name = wire(text);
        let (first, tag) = place(labels(&name).hash(&KEY).first(), slots as u32 - 1);
        let slot_at = (0..slots)
            .map(|step| field::FIRST_SLOT + ((first as usize + step) & (slots - 1)) * SLOT_LEN)
            .find(|&at| image[at + 4..at + 8] == [0; 4])
            .expect("a quarter of the slots is used");
        let at = image.len() as u32;
        put(&mut image, slot_at, &tag.to_le_bytes());
        put(&mut image, slot_at + 4, &at.to_le_bytes());
        image.extend(value.to_le_bytes());
        image.extend(name);
    }
    put(&mut image, field::SLOTS, &(slots as u32).to_le_bytes());
    put(
        &mut image,
        field::NAMES,
        &(names.len() as u32).to_le_bytes(),
    );
    put(&mut image, field::KEY, &KEY);
    put(&mut image, field::MAX_DEPTH, &8u32.to_le_bytes());
    put(
        &mut image,
        field::MAX_PROBE,
        &PROBE_MAX.min(slots as u32 - 1).to_le_bytes(),
    );
    image
}

/// A record of local data: type, TTL, RDATA.
pub type ImageRecord = (u16, u32, Vec<u8>);

/// Local data: names with their records.
pub fn local(names: &[(&str, &[ImageRecord])]) -> Vec<u8> {
    let mut nodes = Vec::new();
    let mut places = Vec::new();
    for (name, records) in names {
        places.push((*name, nodes.len() as u32));
        let head = nodes.len();
        nodes.resize(head + NODE_HEAD, 0);
        let zone = if records.is_empty() {
            local::flag::ZONE
        } else {
            0
        };
        put(
            &mut nodes,
            head,
            &(local::flag::EXISTS | zone).to_le_bytes(),
        );
        put(&mut nodes, head + 2, &(records.len() as u16).to_le_bytes());
        put(&mut nodes, head + 4, &NONE.to_le_bytes());
        for (rtype, ttl_secs, rdata) in *records {
            let at = nodes.len();
            nodes.resize(at + RECORD_HEAD, 0);
            put(&mut nodes, at, &rtype.to_le_bytes());
            put(&mut nodes, at + 2, &(rdata.len() as u16).to_le_bytes());
            put(&mut nodes, at + 4, &ttl_secs.to_le_bytes());
            nodes.extend(rdata);
        }
    }
    let table = table(&places);
    [&(table.len() as u32).to_le_bytes()[..], &table, &nodes].concat()
}

/// Blocks a name and the names below it.
pub const BLOCK: u16 = tag::BLOCK_SELF | tag::BLOCK_BELOW;

/// A compiled list of names with their tags.
pub fn list(names: impl Iterator<Item = (Vec<u8>, u16)>) -> Vec<u8> {
    let mut entries: Vec<(Spot, u64, u64, u16)> = Vec::new();
    let mut depths = 0u128;
    for (name, tag) in names {
        let labels = labels(&name);
        depths |= 1 << labels.count();
        let hash = labels.hash(&KEY);
        entries.push((Spot::new(hash.first()), hash.first(), hash.second(), tag));
    }
    entries.sort_by_key(|(_, first, ..)| *first);
    let buckets = entries.len().div_ceil(NAMES_PER_BUCKET) as u32;
    let mut filter = vec![0u64; buckets as usize];
    let mut starts = vec![0u32; buckets as usize + 1];
    let mut body = Vec::new();
    for (spot, _, second, tag) in &entries {
        let bucket = spot.bucket(buckets);
        filter[bucket] |= spot.filter_bits();
        starts[bucket + 1] += 1;
        body.extend(second.to_le_bytes());
        body.extend(spot.fingerprint().to_le_bytes());
        body.extend(tag.to_le_bytes());
    }
    assert_eq!(body.len(), entries.len() * ENTRY_LEN);
    let mut total = 0;
    for start in &mut starts {
        total += *start;
        *start = total;
    }
    let mut image = vec![0; list::field::HEADER_LEN];
    image.extend(filter.iter().flat_map(|word| word.to_le_bytes()));
    image.extend(starts.iter().flat_map(|start| start.to_le_bytes()));
    image.extend(body);
    list_header(&mut image, entries.len() as u32, buckets, depths);
    image
}

fn list_header(image: &mut [u8], count: u32, buckets: u32, depths: u128) {
    let len = image.len() as u64;
    let body_crc = CRC.checksum(&image[list::field::HEADER_LEN..]);
    put(image, list::field::MAGIC, &list::MAGIC);
    put(image, list::field::VERSION, &list::VERSION.to_le_bytes());
    put(image, list::field::COUNT, &count.to_le_bytes());
    put(image, list::field::BUCKETS, &buckets.to_le_bytes());
    put(image, list::field::KEY, &KEY);
    put(image, list::field::EXACT_DEPTHS, &depths.to_le_bytes());
    put(image, list::field::SUBTREE_DEPTHS, &depths.to_le_bytes());
    put(image, list::field::FILE_LEN, &len.to_le_bytes());
    put(image, list::field::BODY_CRC, &body_crc.to_le_bytes());
    let header_crc = CRC.checksum(&image[..list::field::HEADER_CRC]);
    put(image, list::field::HEADER_CRC, &header_crc.to_le_bytes());
}
