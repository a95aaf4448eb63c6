//! Set of chunks of a slot, passed between two threads.

use core::sync::atomic::{AtomicU64, Ordering};
use xdnsd_core::limits::CHUNKS_PER_QUEUE;

const WORDS: usize = CHUNKS_PER_QUEUE.div_ceil(64);

/// Set of chunk indices. Each is taken by one thread only.
#[derive(Debug)]
pub struct ChunkSet([AtomicU64; WORDS]);

impl ChunkSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Adds a chunk.
    pub fn put(&self, index: u16) {
        // Release: earlier writes to the chunk's bytes come before.
        self.0[usize::from(index / 64)].fetch_or(1 << (index % 64), Ordering::Release);
    }

    /// Removes a chunk. `None` if the set is empty.
    pub fn take(&self) -> Option<u16> {
        for (at, word) in self.0.iter().enumerate() {
            loop {
                let bits = word.load(Ordering::Relaxed);
                if bits == 0 {
                    break;
                }
                let bit = bits & bits.wrapping_neg();
                // Acquire pairs with the release in `put`.
                if word.fetch_and(!bit, Ordering::Acquire) & bit != 0 {
                    return Some((at * 64) as u16 + bit.trailing_zeros() as u16);
                }
            }
        }
        None
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        let words = self.0.iter();
        let bits = words.map(|word| word.load(Ordering::Relaxed).count_ones());
        bits.sum::<u32>() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_is_taken_once_by_whoever_is_first() {
        let set = ChunkSet::new();
        let all = 0..CHUNKS_PER_QUEUE as u16;
        all.clone().for_each(|index| set.put(index));
        assert_eq!(set.len(), CHUNKS_PER_QUEUE);
        let taker = || std::iter::from_fn(|| set.take()).collect::<Vec<_>>();
        let mut taken = std::thread::scope(|scope| {
            let takers = [scope.spawn(taker), scope.spawn(taker)];
            takers.map(|taker| taker.join().expect("no panic")).concat()
        });
        taken.sort_unstable();
        assert_eq!(taken, all.collect::<Vec<_>>());
        assert_eq!((set.len(), set.take()), (0, None));
    }
}
