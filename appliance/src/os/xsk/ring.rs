//! The four rings between user space and the kernel: single producer, single consumer, in shared memory.
//!
//! This file is safe code and knows no system call. Counters run freely through all of `u32` and wrap; the index of an
//! entry is its counter masked by the ring's size. Entries are atomics with relaxed ordering (plain moves on the
//! machines we run on), so even a peer that breaks the protocol causes wrong values, never undefined behaviour.
//!
//! ```text
//!        consumer                 producer
//!           |                        |
//!   . . . . X  X  X  X  X  X  X  X  . . . .      X: submitted by the producer, not yet released by the consumer
//! ```

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// One entry in shared memory.
pub trait RingEntry {
    /// Type of the value.
    type Value: Copy;
    /// Reads the entry; ordered by the counters, not by itself.
    fn load(&self) -> Self::Value;
    /// Writes the entry; ordered by the counters, not by itself.
    fn store(&self, value: Self::Value);
}

/// Entry of the fill and completion ring: a UMEM address.
#[repr(transparent)]
#[derive(Debug)]
pub struct AddressEntry(AtomicU64);

impl RingEntry for AddressEntry {
    type Value = u64;

    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn store(&self, address: u64) {
        self.0.store(address, Ordering::Relaxed);
    }
}

/// Entry of the RX and TX ring: the kernel's `struct xdp_desc`.
#[repr(C)]
#[derive(Debug)]
pub struct DescriptorEntry {
    address: AtomicU64,
    len: AtomicU32,
    options: AtomicU32,
}
const _: () = assert!(size_of::<DescriptorEntry>() == size_of::<libc::xdp_desc>());
const _: () = assert!(size_of::<AddressEntry>() == size_of::<u64>());

/// Location of a frame in the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First byte, relative to the UMEM's start.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
}

impl RingEntry for DescriptorEntry {
    type Value = Descriptor;

    fn load(&self) -> Descriptor {
        Descriptor {
            address: self.address.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
        }
    }

    fn store(&self, descriptor: Descriptor) {
        self.address.store(descriptor.address, Ordering::Relaxed);
        self.len.store(descriptor.len, Ordering::Relaxed);
        self.options.store(0, Ordering::Relaxed);
    }
}

/// The memory of one ring. `entries().len()` is a power of two and never changes.
pub trait RingMemory {
    /// Type of the ring's entries.
    type Entry: RingEntry;
    /// Counter of submitted entries.
    fn producer(&self) -> &AtomicU32;
    /// Counter of released entries.
    fn consumer(&self) -> &AtomicU32;
    /// Flags, written by the kernel.
    fn flags(&self) -> &AtomicU32;
    /// The entries.
    fn entries(&self) -> &[Self::Entry];
}

/// Our end of a ring that the kernel consumes: fill or TX. Full: `push` returns false and writes nothing.
pub struct Producer<M> {
    memory: M,
    size: u32,
    /// Entries written so far, submitted or not.
    head: u32,
    /// The consumer's counter at the last read; it can only have advanced.
    tail_seen: u32,
}

impl<M: RingMemory> Producer<M> {
    /// Starts at the ring's present counters.
    pub fn new(memory: M) -> Self {
        let size = ring_size(&memory);
        let head = memory.producer().load(Ordering::Relaxed);
        let tail_seen = memory.consumer().load(Ordering::Acquire);
        Self {
            memory,
            size,
            head,
            tail_seen,
        }
    }

    /// Entries that can be pushed now. Reads the consumer's counter only if the last value leaves fewer than `want`.
    pub fn free(&mut self, want: u32) -> u32 {
        let free = self
            .size
            .saturating_sub(self.head.wrapping_sub(self.tail_seen));
        if free >= want {
            return free;
        }
        // Acquire pairs with the consumer's release: it has read the entries that we are about to overwrite.
        self.tail_seen = self.memory.consumer().load(Ordering::Acquire);
        self.size
            .saturating_sub(self.head.wrapping_sub(self.tail_seen))
    }

    /// Writes one entry, not yet visible to the consumer. False if the ring is full.
    #[must_use]
    pub fn push(&mut self, value: <M::Entry as RingEntry>::Value) -> bool {
        if self.free(1) == 0 {
            return false;
        }
        self.memory.entries()[masked(self.head, self.size)].store(value);
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Makes everything pushed so far visible to the consumer.
    pub fn submit(&mut self) {
        // Release: the entries are written before the counter that covers them.
        self.memory.producer().store(self.head, Ordering::Release);
    }

    /// Entries that the consumer has not released.
    pub fn pending(&self) -> u32 {
        self.head
            .wrapping_sub(self.memory.consumer().load(Ordering::Acquire))
            .min(self.size)
    }

    /// True if the kernel sleeps and needs a system call to continue.
    pub fn needs_wakeup(&self) -> bool {
        // The kernel sets the flag and then reads the counter once more; we wrote the counter and read the flag. Without a full
        // fence both may miss the other's store, and both would wait for ever.
        fence(Ordering::SeqCst);
        self.memory.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Our end of a ring that the kernel produces: RX or completion.
pub struct Consumer<M> {
    memory: M,
    size: u32,
    /// Entries read so far, released or not.
    tail: u32,
    /// The producer's counter at the last read; it can only have advanced.
    head_seen: u32,
}

impl<M: RingMemory> Consumer<M> {
    /// Starts at the ring's present counters.
    pub fn new(memory: M) -> Self {
        let size = ring_size(&memory);
        let tail = memory.consumer().load(Ordering::Relaxed);
        let head_seen = memory.producer().load(Ordering::Acquire);
        Self {
            memory,
            size,
            tail,
            head_seen,
        }
    }

    /// Entries that can be popped now. Reads the producer's counter only if the last value leaves fewer than `want`.
    pub fn available(&mut self, want: u32) -> u32 {
        let available = self.head_seen.wrapping_sub(self.tail);
        if available >= want {
            return available.min(self.size);
        }
        // Acquire pairs with the producer's release: the entries below the counter are written.
        self.head_seen = self.memory.producer().load(Ordering::Acquire);
        self.head_seen.wrapping_sub(self.tail).min(self.size)
    }

    /// Reads one entry; its place stays reserved until [`Self::release`].
    pub fn pop(&mut self) -> Option<<M::Entry as RingEntry>::Value> {
        if self.available(1) == 0 {
            return None;
        }
        let value = self.memory.entries()[masked(self.tail, self.size)].load();
        self.tail = self.tail.wrapping_add(1);
        Some(value)
    }

    /// Returns the places of everything popped to the producer.
    pub fn release(&mut self) {
        // Release: our reads of the entries come before the counter that lets them be overwritten.
        self.memory.consumer().store(self.tail, Ordering::Release);
    }

    /// Entries that the producer has submitted and we have not read.
    pub fn pending(&self) -> u32 {
        self.memory
            .producer()
            .load(Ordering::Acquire)
            .wrapping_sub(self.tail)
            .min(self.size)
    }
}

fn masked(counter: u32, size: u32) -> usize {
    (counter & (size - 1)) as usize
}

fn ring_size<M: RingMemory>(memory: &M) -> u32 {
    let size = u32::try_from(memory.entries().len()).expect("a ring of at most 2^31 entries");
    assert!(
        size.is_power_of_two(),
        "ring size {size} is not a power of two"
    );
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// A ring in ordinary memory: both ends in one process.
    struct Plain<E> {
        producer: AtomicU32,
        consumer: AtomicU32,
        flags: AtomicU32,
        entries: Box<[E]>,
    }

    impl<E: RingEntry> RingMemory for Arc<Plain<E>> {
        type Entry = E;
        fn producer(&self) -> &AtomicU32 {
            &self.producer
        }
        fn consumer(&self) -> &AtomicU32 {
            &self.consumer
        }
        fn flags(&self) -> &AtomicU32 {
            &self.flags
        }
        fn entries(&self) -> &[E] {
            &self.entries
        }
    }

    type Addresses = Arc<Plain<AddressEntry>>;

    /// A ring whose counters are at `start`, its entries dirty.
    fn addresses(size: usize, start: u32) -> (Addresses, Producer<Addresses>, Consumer<Addresses>) {
        let memory = Arc::new(Plain {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            entries: (0..size)
                .map(|_| AddressEntry(AtomicU64::new(0xa5a5_a5a5)))
                .collect(),
        });
        (
            memory.clone(),
            Producer::new(memory.clone()),
            Consumer::new(memory),
        )
    }

    #[test]
    fn nothing_is_visible_before_submit_nor_free_before_release() {
        let (_, mut producer, mut consumer) = addresses(4, 0);
        for value in 0..4 {
            assert!(producer.push(value));
        }
        assert!(!producer.push(4), "full");
        assert_eq!(consumer.pop(), None, "not submitted");

        producer.submit();
        for value in 0..4 {
            assert_eq!(consumer.pop(), Some(value));
        }
        assert_eq!(consumer.pop(), None);
        assert_eq!(producer.free(1), 0, "not released");

        consumer.release();
        assert_eq!(producer.free(1), 4);
    }

    #[test]
    fn counters_wrap() {
        for start in [u32::MAX - 1, u32::MAX, 0, 0x7fff_ffff] {
            let (_, mut producer, mut consumer) = addresses(4, start);
            for round in 0..8u64 {
                assert_eq!(producer.free(4), 4, "start {start} round {round}");
                for value in 0..3 {
                    assert!(producer.push(round * 10 + value));
                }
                assert_eq!(producer.pending(), 3);
                producer.submit();
                assert_eq!(consumer.pending(), 3);
                assert_eq!(consumer.available(3), 3);
                for value in 0..3 {
                    assert_eq!(
                        consumer.pop(),
                        Some(round * 10 + value),
                        "start {start} round {round}"
                    );
                }
                consumer.release();
                assert_eq!((producer.pending(), consumer.pending()), (0, 0));
            }
        }
    }

    #[test]
    fn full_is_full_across_the_wrap() {
        let (_, mut producer, mut consumer) = addresses(2, u32::MAX);
        assert!(producer.push(1) && producer.push(2) && !producer.push(3));
        producer.submit();
        assert_eq!(
            (consumer.pop(), consumer.pop(), consumer.pop()),
            (Some(1), Some(2), None)
        );
    }

    #[test]
    fn a_broken_peer_is_bounded_by_the_ring() {
        let (memory, mut producer, mut consumer) = addresses(4, 100);
        memory.producer.store(1_000_000, Ordering::Release);
        assert_eq!(consumer.available(8), 4);
        assert_eq!(consumer.pending(), 4);
        memory.consumer.store(7, Ordering::Release);
        assert_eq!(
            producer.free(8),
            0,
            "a consumer that runs backwards leaves no room"
        );
    }

    #[test]
    fn descriptors_keep_both_fields_and_clear_the_options() {
        let memory = Arc::new(Plain::<DescriptorEntry> {
            producer: AtomicU32::new(0),
            consumer: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            entries: Box::new([DescriptorEntry {
                address: AtomicU64::new(u64::MAX),
                len: AtomicU32::new(u32::MAX),
                options: AtomicU32::new(u32::MAX),
            }]),
        });
        let (mut producer, mut consumer) =
            (Producer::new(memory.clone()), Consumer::new(memory.clone()));
        let descriptor = Descriptor {
            address: 0x1_0000_0100,
            len: 60,
        };
        assert!(producer.push(descriptor));
        producer.submit();
        assert_eq!(consumer.pop(), Some(descriptor));
        assert_eq!(memory.entries[0].options.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn needs_wakeup_is_the_flag() {
        let (memory, producer, _) = addresses(2, 0);
        assert!(!producer.needs_wakeup());
        memory
            .flags
            .store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }

    #[test]
    fn two_threads_pass_every_value_once_and_in_order() {
        const VALUES: u64 = 200_000;
        let (_, mut producer, mut consumer) = addresses(8, u32::MAX - 1000);
        let sender = std::thread::spawn(move || {
            let mut value = 0;
            while value < VALUES {
                while value < VALUES && producer.push(value) {
                    value += 1;
                }
                producer.submit();
                std::thread::yield_now();
            }
        });
        let mut expected = 0;
        while expected < VALUES {
            while let Some(value) = consumer.pop() {
                assert_eq!(value, expected);
                expected += 1;
            }
            consumer.release();
            std::thread::yield_now();
        }
        sender.join().expect("the sender does not panic");
    }
}
