//! Histograms of how long answers took, in the shape that Prometheus expects: buckets with an upper bound, and a sum.

use core::sync::atomic::{AtomicU64, Ordering};

use super::add;

xdnsd_abi::counters! {
    /// Where an answer came from, as far as user space gives it.
    pub enum Tier: usize {
        /// Answered at once over AF_XDP: from the moment its batch left the RX ring until the batch stood in the TX ring.
        AfXdp = "af_xdp",
        /// Answered at once over the kernel's sockets, UDP and TCP: from the first look at the socket until the batch was sent.
        Kernel = "kernel",
        /// Answered after upstream was asked, or failed: since the question was first sent, in whole milliseconds.
        Upstream = "upstream",
    }
}

/// Upper bounds of the buckets, in microseconds. What took longer is in one more bucket.
pub const BOUNDS_MICROS: [u64; 18] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 2_000_000, 5_000_000,
];

/// Number of buckets.
pub const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// Answers by how long they took. One thread writes, everyone may read.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// The values of a histogram at one moment, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyReading {
    /// Answers in each bucket, without those of the buckets below it.
    pub counts: [u64; BUCKETS],
    /// Sum of all times, in microseconds.
    pub micros: u64,
}

impl Histogram {
    /// No answers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            micros: AtomicU64::new(0),
        }
    }

    /// Counts `answers` that took `micros` microseconds each.
    pub fn observe(&self, micros: u64, answers: u64) {
        let bucket = BOUNDS_MICROS
            .iter()
            .position(|bound| micros <= *bound)
            .unwrap_or(BOUNDS_MICROS.len());
        add(&self.counts[bucket], answers);
        add(&self.micros, micros.saturating_mul(answers));
    }

    /// The present values.
    #[must_use]
    pub fn read(&self) -> LatencyReading {
        LatencyReading {
            counts: core::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)),
            micros: self.micros.load(Ordering::Relaxed),
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyReading {
    /// Adds those of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.wrapping_add(more);
        }
        self.micros = self.micros.wrapping_add(other.micros);
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS_MICROS, BUCKETS, Histogram};

    #[test]
    fn an_answer_is_counted_in_the_first_bucket_whose_bound_it_keeps() {
        let histogram = Histogram::new();
        histogram.observe(0, 1);
        histogram.observe(10, 1);
        histogram.observe(11, 3);
        histogram.observe(5_000_000, 1);
        histogram.observe(5_000_001, 2);
        let reading = histogram.read();
        let mut wanted = [0; BUCKETS];
        (
            wanted[0],
            wanted[1],
            wanted[BUCKETS - 2],
            wanted[BUCKETS - 1],
        ) = (2, 3, 1, 2);
        assert_eq!(reading.counts, wanted);
        assert_eq!(reading.micros, 10 + 33 + 5_000_000 + 10_000_002);
    }

    #[test]
    fn histograms_add_up() {
        let histogram = Histogram::new();
        histogram.observe(100, 4);
        let mut both = histogram.read();
        both.add(&histogram.read());
        assert_eq!((both.counts[3], both.micros), (8, 800));
    }

    #[test]
    fn bounds_ascend() {
        assert!(BOUNDS_MICROS.is_sorted_by(|a, b| a < b));
    }
}
