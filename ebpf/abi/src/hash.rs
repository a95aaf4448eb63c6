//! Keyed hash of a name and of all its parents in one pass, from the root down.
//!
//! SipHash-1-3 with 128 bits of output over the labels in that order, each after its length byte and padded with zeros to a
//! multiple of eight bytes. The length bytes mark the end of each label, so different names give different inputs. The
//! padding lets a parent's hash be computed on the way without a buffer. The second half of the output is computed only if
//! the first has not ruled a name out.

/// Key of the hash, drawn at random when an image is compiled, so that nobody can choose colliding names.
pub type HashKey = [u8; 16];

/// Hash in progress, of the name that has been reached.
#[derive(Clone, Copy, Debug)]
pub struct NameHash {
    state: State,
    len: u64,
}

/// A hash: its first half, and the state for its second.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct State([u64; 4]);

impl State {
    const fn round(self) -> Self {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v1);
        v0 = v0.wrapping_add(v3);
        v1 = v1.rotate_left(17) ^ v2;
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.rotate_left(32);
        Self([v0, v1, v2, v3])
    }

    const fn absorb(self, word: u64) -> Self {
        let [v0, v1, v2, v3] = self.0;
        let Self([v0, v1, v2, v3]) = Self([v0, v1, v2, v3 ^ word]).round();
        Self([v0 ^ word, v1, v2, v3])
    }

    #[inline(always)]
    const fn absorb_twice(self, word: u64) -> Self {
        let [v0, v1, v2, v3] = self.0;
        let Self([v0, v1, v2, v3]) = Self([v0, v1, v2, v3 ^ word]).round().round();
        Self([v0 ^ word, v1, v2, v3])
    }

    const fn finish(self) -> Self {
        self.round().round().round()
    }

    const fn output(self) -> u64 {
        let [v0, v1, v2, v3] = self.0;
        v0 ^ v1 ^ v2 ^ v3
    }
}

impl NameHash {
    /// The hash at the root.
    #[must_use]
    pub fn new(key: &HashKey) -> Self {
        let k0 = word(&key[..8]);
        let k1 = word(&key[8..]);
        let state = State([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ]);
        Self { state, len: 0 }
    }

    /// Goes down to the child `label`, given with its length byte. An empty label changes nothing.
    #[inline]
    pub fn push(&mut self, label: &[u8]) {
        let (words, rest) = label.as_chunks();
        for word in words {
            self.absorb(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.absorb(word(rest));
        }
    }

    #[inline]
    fn absorb(&mut self, word: u64) {
        self.state = self.state.absorb(word);
        self.len = self.len.wrapping_add(8);
    }

    /// Hash of the name that has been reached.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        // The highest byte of the last word is the input's length modulo 256.
        let State([v0, v1, v2, v3]) = self.state.absorb(self.len << 56);
        Hash {
            state: State([v0, v1, v2 ^ 0xee, v3]).finish(),
        }
    }
}

impl Hash {
    /// The first 64 bits.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.state.output()
    }

    /// The second 64 bits.
    #[must_use]
    pub const fn second(self) -> u64 {
        let State([v0, v1, v2, v3]) = self.state;
        State([v0, v1 ^ 0xdd, v2, v3]).finish().output()
    }
}

/// First 64 bits of the hash of `bytes`, as a name of one label.
#[must_use]
#[inline]
pub fn of_bytes(bytes: &[u8], key: &HashKey) -> u64 {
    let mut hash = NameHash::new(key);
    hash.push(bytes);
    hash.hash().first()
}

/// First 64 bits of the hash of these words.
#[must_use]
#[inline(always)]
pub fn of_words<const N: usize>(words: [u64; N], key: &HashKey) -> u64 {
    let mut hash = NameHash::new(key);
    for word in words {
        hash.absorb(word);
    }
    hash.hash().first()
}

/// SipHash-2-4 of these words and `rest`, which has the bytes behind them and the length of all in its highest byte. DNS
/// cookies are made with it (RFC 9018 section 4.4).
#[must_use]
#[inline(always)]
pub fn siphash24<const N: usize>(words: [u64; N], rest: u64, key: &HashKey) -> u64 {
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let mut state = State([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    for word in words {
        state = state.absorb_twice(word);
    }
    let State([v0, v1, v2, v3]) = state.absorb_twice(rest);
    State([v0, v1, v2 ^ 0xff, v3]).round().finish().output()
}

/// At most eight bytes as a number, padded with zeros.
fn word(bytes: &[u8]) -> u64 {
    if let Some(whole) = bytes.first_chunk() {
        return u64::from_le_bytes(*whole);
    }
    let mut word = 0;
    let mut rest = bytes;
    let mut shift = 0;
    if let Some((four, behind)) = rest.split_first_chunk() {
        word = u64::from(u32::from_le_bytes(*four));
        (rest, shift) = (behind, 32);
    }
    if let Some((two, behind)) = rest.split_first_chunk() {
        word |= u64::from(u16::from_le_bytes(*two)) << shift;
        (rest, shift) = (behind, shift + 16);
    }
    if let Some(&one) = rest.first() {
        word |= u64::from(one) << shift;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;
    use siphasher::sip128::{Hasher128, SipHasher13};
    use std::vec::Vec;

    const KEY: HashKey = *b"sixteen byte key";

    /// The same input through an independent implementation of SipHash-1-3-128.
    fn oracle(labels: &[&[u8]]) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_key(&KEY);
        for label in labels {
            let mut padded = Vec::from(*label);
            padded.resize(label.len().next_multiple_of(8), 0);
            hasher.write(&padded);
        }
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }

    #[test]
    fn it_is_siphash_for_labels_of_every_length() {
        let letters: Vec<u8> = (0..64).map(|n| b'a' + n % 26).collect();
        for len in 0..=63 {
            let mut label = std::vec![len];
            label.extend(&letters[..usize::from(len)]);
            let labels: [&[u8]; 3] = [b"\x03org", &label, b"\x07example"];
            let mut hash = NameHash::new(&KEY);
            for depth in 0..=labels.len() {
                let found = (hash.hash().first(), hash.hash().second());
                assert_eq!(
                    found,
                    oracle(&labels[..depth]),
                    "{len} bytes, {depth} labels"
                );
                labels.get(depth).iter().for_each(|label| hash.push(label));
            }
        }
    }

    #[test]
    fn the_longest_name_is_longer_than_a_byte_counts() {
        let labels = std::vec![&b"\x01a"[..]; 127];
        let mut hash = NameHash::new(&KEY);
        labels.iter().for_each(|label| hash.push(label));
        assert_eq!((hash.hash().first(), hash.hash().second()), oracle(&labels));
    }

    #[test]
    fn numbers_are_hashed_as_their_bytes() {
        let words = [0x0123_4567_89ab_cdef, u64::MAX, 0];
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|word: &u64| word.to_le_bytes())
            .collect();
        assert_eq!(of_words(words, &KEY), oracle(&[&bytes]).0);
        assert_ne!(of_words(words, &[0; 16]), of_words(words, &KEY));
    }

    #[test]
    fn cookies_are_hashed_as_an_independent_implementation_does() {
        let oracle = |bytes: &[u8]| {
            let mut hasher = siphasher::sip::SipHasher24::new_with_key(&KEY);
            hasher.write(bytes);
            hasher.finish()
        };
        let bytes: [u8; 32] = core::array::from_fn(|at| (at * 7 + 1) as u8);
        let words = bytes.as_chunks().0;
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let four = u64::from(u32::from_le_bytes([113, 120, 127, 134]));
        assert_eq!(
            siphash24([word(0), word(1)], four | 20 << 56, &KEY),
            oracle(&bytes[..20])
        );
        let all = [word(0), word(1), word(2), word(3)];
        assert_eq!(siphash24(all, 32 << 56, &KEY), oracle(&bytes));
    }

    #[test]
    fn the_key_and_the_place_of_the_dots_count() {
        let hash = |key, labels: &[&[u8]]| {
            let mut hash = NameHash::new(key);
            labels.iter().for_each(|label| hash.push(label));
            hash.hash().first()
        };
        assert_ne!(hash(&KEY, &[b"\x02ab"]), hash(&[0; 16], &[b"\x02ab"]));
        assert_ne!(hash(&KEY, &[b"\x02ab"]), hash(&KEY, &[b"\x01a", b"\x01b"]));
        assert_ne!(
            hash(&KEY, &[b"\x01a", b"\x01b"]),
            hash(&KEY, &[b"\x01b", b"\x01a"])
        );
    }
}
