//! Compiles a table of names: the image that `xdnsd_core::policy::table` reads.

use std::collections::HashMap;

use xdnsd_abi::hash::HashKey;
use xdnsd_core::policy::name::Labels;
use xdnsd_core::policy::table::{ENTRY_HEAD, PROBE_MAX, SLOT_LEN, field, place};

/// Keys that are tried before the table grows.
const KEYS_PER_SIZE: usize = 8;

/// Names with a value each. A name that is added twice keeps its last value.
#[derive(Debug, Default)]
pub struct TableBuilder {
    names: HashMap<Vec<u8>, u32>,
}

impl TableBuilder {
    /// Adds `name`, in lower-case wire form, with its value.
    pub fn insert(&mut self, name: &[u8], value: u32) {
        debug_assert!(Labels::new(name).is_some(), "only whole names");
        self.names.insert(name.to_vec(), value);
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// Compiles the image. Empty without names.
    #[must_use]
    pub fn build(&self, mut draw_key: impl FnMut() -> HashKey) -> Vec<u8> {
        if self.names.is_empty() {
            return Vec::new();
        }
        // At most half of the slots are in use. The loop ends: with a table four times as large as needed, all but a vanishing
        // share of keys have no run of PROBE_MAX slots.
        let mut slots = (self.names.len() * 2).next_power_of_two();
        loop {
            for _ in 0..KEYS_PER_SIZE {
                if let Some(image) = self.try_build(slots, draw_key()) {
                    return image;
                }
            }
            slots *= 2;
        }
    }

    fn try_build(&self, slots: usize, key: HashKey) -> Option<Vec<u8>> {
        let mask = (slots - 1) as u32;
        let mut image = vec![0; field::FIRST_SLOT + slots * SLOT_LEN];
        let mut max_probe = 0;
        let mut max_depth = 0;
        for (name, value) in &self.names {
            let labels = Labels::new(name)?;
            max_depth = max_depth.max(labels.count());
            let (first, tag) = place(labels.hash(&key).first(), mask);
            let probe = free_slot(&image, first, mask)?;
            max_probe = max_probe.max(probe);
            let slot_at =
                field::FIRST_SLOT + (first.wrapping_add(probe) & mask) as usize * SLOT_LEN;
            let at = image.len() as u32;
            put(&mut image, slot_at, tag);
            put(&mut image, slot_at + 4, at);
            image.extend(value.to_le_bytes());
            image.extend(name);
        }
        put(&mut image, field::SLOTS, slots as u32);
        put(&mut image, field::NAMES, self.names.len() as u32);
        image[field::KEY..][..key.len()].copy_from_slice(&key);
        put(&mut image, field::MAX_DEPTH, max_depth as u32);
        put(&mut image, field::MAX_PROBE, max_probe);
        Some(image)
    }
}

/// Distance from `first` to the next free slot; `None` if that is too far.
fn free_slot(image: &[u8], first: u32, mask: u32) -> Option<u32> {
    (0..=PROBE_MAX.min(mask)).find(|&step| {
        let at =
            field::FIRST_SLOT + (first.wrapping_add(step) & mask) as usize * SLOT_LEN + ENTRY_HEAD;
        image[at..][..4] == [0; 4]
    })
}

pub(super) fn put(image: &mut [u8], at: usize, value: u32) {
    image[at..][..4].copy_from_slice(&value.to_le_bytes());
}

/// An unpredictable key: that of the standard library's hash tables, which the kernel's generator seeds. It opens no file, so
/// it works in a sandbox.
#[must_use]
pub fn random_key() -> HashKey {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    let mut key = HashKey::default();
    key[..8].copy_from_slice(&state.hash_one(0u8).to_le_bytes());
    key[8..].copy_from_slice(&state.hash_one(1u8).to_le_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::name::parse;
    use xdnsd_core::policy::table::NameTable;

    fn longest(table: &NameTable<'_>, name: &str) -> Option<(usize, u32)> {
        let name = parse(name).expect("a name");
        table.longest(&Labels::new(&name).expect("well-formed"))
    }

    #[test]
    fn the_longest_suffix_wins_and_exact_is_exact() {
        let mut builder = TableBuilder::default();
        for (name, value) in [("example.org", 1), ("b.example.org", 2), ("org", 3)] {
            builder.insert(&parse(name).expect("a name"), value);
        }
        let image = builder.build(random_key);
        let table = NameTable::view(&image).expect("a table");
        assert_eq!(longest(&table, "a.b.example.org"), Some((3, 2)));
        assert_eq!(longest(&table, "b.example.org"), Some((3, 2)));
        assert_eq!(longest(&table, "xb.example.org"), Some((2, 1)));
        assert_eq!(longest(&table, "other.org"), Some((1, 3)));
        assert_eq!(longest(&table, "example.net"), None);
        let exact = |name: &str| {
            let name = parse(name).expect("a name");
            table.exact(&Labels::new(&name).expect("well-formed"))
        };
        assert_eq!(exact("example.org"), Some(1));
        assert_eq!(exact("a.example.org"), None);
    }

    #[test]
    fn a_hash_alone_is_not_believed() {
        let mut builder = TableBuilder::default();
        builder.insert(&parse("example.org").expect("a name"), 1);
        let mut image = builder.build(random_key);
        let at = image.len() - b"example\x03org\0".len();
        image[at] = b'X';
        let table = NameTable::view(&image).expect("a table");
        assert_eq!(longest(&table, "example.org"), None);
    }

    #[test]
    fn the_root_covers_everything() {
        let mut builder = TableBuilder::default();
        builder.insert(&[0], 9);
        let image = builder.build(random_key);
        let table = NameTable::view(&image).expect("a table");
        assert_eq!(longest(&table, "a.b"), Some((0, 9)));
        assert_eq!(longest(&table, "."), Some((0, 9)));
    }

    /// Compared with a `HashMap` of the same names.
    #[test]
    fn many_names_are_all_found_and_no_others() {
        let mut builder = TableBuilder::default();
        for number in 0..20_000u32 {
            builder.insert(
                &parse(&format!("host{number}.z{}.lan", number % 7)).expect("a name"),
                number,
            );
        }
        let image = builder.build(random_key);
        let table = NameTable::view(&image).expect("a table");
        for number in 0..20_000u32 {
            for zone in 0..7 {
                let name = parse(&format!("host{number}.z{zone}.lan")).expect("a name");
                let found = table.exact(&Labels::new(&name).expect("well-formed"));
                assert_eq!(found, builder.get(&name), "host{number}.z{zone}");
            }
        }
    }

    #[test]
    fn a_table_cut_anywhere_is_refused_or_gives_nothing_wrong() {
        let mut builder = TableBuilder::default();
        builder.insert(&parse("a.example.org").expect("a name"), 1);
        builder.insert(&parse("org").expect("a name"), 2);
        let image = builder.build(random_key);
        for len in 1..image.len() {
            if let Ok(table) = NameTable::view(&image[..len]) {
                let found = longest(&table, "a.example.org");
                assert!(
                    matches!(found, None | Some((1, 2) | (3, 1))),
                    "cut at {len}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn any_bytes_in_a_table_are_survived() {
        let mut builder = TableBuilder::default();
        for number in 0..40 {
            builder.insert(
                &parse(&format!("n{number}.example.org")).expect("a name"),
                number,
            );
        }
        let image = builder.build(random_key);
        for at in 0..image.len() {
            for byte in [0, 1, 0x7f, 0xff, !image[at]] {
                let mut broken = image.clone();
                broken[at] = byte;
                if let Ok(table) = NameTable::view(&broken) {
                    let _ = longest(&table, "a.n7.example.org");
                }
            }
        }
    }
}
