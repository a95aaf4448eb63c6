//! Inputs out of samples, as fuzzers make them: bits, bytes, lengths, pieces of other samples.

/// What parsers like least.
const ODD_BYTES: [u8; 14] = [
    0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xfe, 0xff, b'\n', b' ', b'"', b'.',
];
const ODD_LENGTHS: [u16; 8] = [0, 1, 11, 12, 255, 256, 0x7fff, 0xffff];
/// A mutation touches no more bytes in a row.
const PIECE_MAX: usize = 24;
/// Inputs that were taken and are mutated further, beside the samples.
const POOL_MAX: usize = 64;
/// Longer ones are not: they would only grow.
const POOL_BYTES_MAX: usize = 4_096;

/// Samples, and the generator that mutates them: the same inputs for the same seed.
#[derive(Clone, Debug)]
pub struct Mutator {
    samples: Vec<Vec<u8>>,
    /// Of inputs that were taken.
    pool: Vec<Vec<u8>>,
    random: Random,
}

impl Mutator {
    /// Of these samples.
    #[must_use]
    pub fn new(samples: Vec<Vec<u8>>, seed: u64) -> Self {
        assert!(!samples.is_empty(), "there is nothing to mutate");
        Self {
            samples,
            pool: Vec::new(),
            random: Random(seed),
        }
    }

    /// A sample with up to four mutations.
    #[must_use]
    pub fn input(&mut self) -> Vec<u8> {
        let mut bytes = self.sample();
        for _ in 0..self.random.below(5) {
            self.mutate(&mut bytes);
        }
        bytes
    }

    /// This input was taken: some of those are mutated further.
    pub fn note_taken(&mut self, input: Vec<u8>) {
        if input.len() > POOL_BYTES_MAX || self.random.below(16) > 0 {
            return;
        }
        if self.pool.len() < POOL_MAX {
            self.pool.push(input);
        } else {
            let place = self.random.below(POOL_MAX);
            self.pool[place] = input;
        }
    }

    fn sample(&mut self) -> Vec<u8> {
        // Half of all begins with a sample as it is, or long runs would drift away from them.
        let is_pooled = !self.pool.is_empty() && self.random.below(2) == 0;
        let from = if is_pooled { &self.pool } else { &self.samples };
        from[self.random.below(from.len())].clone()
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(PIECE_MAX)).min(bytes.len());
        match random.below(9) {
            0 => change(bytes, at, |byte| byte ^ 1 << random.below(8)),
            1 => change(bytes, at, |_| random.next() as u8),
            2 => change(bytes, at, |_| ODD_BYTES[random.below(ODD_BYTES.len())]),
            3 if end >= at + 2 => {
                let length = ODD_LENGTHS[random.below(ODD_LENGTHS.len())];
                bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
            }
            4 => drop(bytes.drain(at.min(end)..end)),
            5 => {
                let len = random.below(PIECE_MAX);
                let piece: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, piece);
            }
            6 => bytes.truncate(at),
            7 => {
                let piece = bytes[at.min(end)..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = self.sample();
                let from = self.random.below(other.len() + 1);
                let to = (from + self.random.below(PIECE_MAX)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
}

fn change(bytes: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = change(*byte);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    const fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
