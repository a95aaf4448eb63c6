//! The pool by itself: the tests play the kernel's part.

use super::*;
use crate::os::xsk::shape::Shape;
use std::collections::VecDeque;
use std::sync::Mutex;
use xdnsd_core::limits::WORKERS;

/// Slots are shared by the whole process, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn with_slot(sharers: usize, test: impl FnOnce(Arc<SharedUmem>, &mut Pool)) {
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let shared = Arc::new(SharedUmem {
        slot: UmemSlot::claim(0).expect("slot 0 is free"),
        shape: Shape::of(sharers),
        spare: ChunkSet::new(),
    });
    let mut pool = Pool::new(Arc::clone(&shared));
    test(shared, &mut pool);
    assert!(pool.holds());
}

/// Primes as an opener does.
fn prime(shared: &SharedUmem) -> ChunkSet {
    let primed = ChunkSet::new();
    let spare = std::iter::from_fn(|| shared.spare.take());
    spare
        .take(shared.shape.own)
        .for_each(|index| primed.put(index));
    primed
}

/// Runs `test` with a single socket.
fn with_pool(test: impl FnOnce(&mut Pool)) {
    with_slot(1, |shared, pool| {
        pool.adopt(0, &prime(&shared));
        let primed = pool.count(ChunkOwner::rx(0));
        assert_eq!(primed as usize, Shape::of(1).own);
        test(pool);
        let free = pool.count(ChunkOwner::FREE) + pool.count(ChunkOwner::rx(0));
        assert_eq!(free as usize, CHUNKS_PER_QUEUE, "nobody has any");
    });
}

fn descriptor(address: u64, len: u32) -> Descriptor {
    Descriptor {
        address: address + HEADROOM as u64,
        len,
    }
}

#[test]
fn a_slot_has_one_owner_at_a_time() {
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let slot = UmemSlot::claim(1).expect("slot 1 is free");
    assert!(UmemSlot::claim(1).is_none());
    drop(slot);
    assert!(UmemSlot::claim(1).is_some());
    assert!(UmemSlot::claim(WORKERS).is_none(), "there is no such slot");
}

#[test]
fn slots_are_page_aligned_and_do_not_overlap() {
    use crate::os::xsk::umem::{SLOT_SIZE, address_of};
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let slots: std::vec::Vec<_> = (0..WORKERS).filter_map(UmemSlot::claim).collect();
    assert_eq!(slots.len(), WORKERS);
    for (index, slot) in slots.iter().enumerate() {
        assert_eq!(address_of(slot) as usize % 4096, 0);
        assert_eq!(
            address_of(slot) as usize,
            address_of(&slots[0]) as usize + index * SLOT_SIZE
        );
    }
}

#[test]
fn a_chunk_goes_round_in_place() {
    with_pool(|pool| {
        let before = pool.wanted(0, 0);
        let address = pool.refill(0).expect("a chunk is free");
        let mut frame = pool
            .received(0, descriptor(address, 60))
            .expect("the kernel had it");
        assert_eq!(
            (frame.len(), frame.bytes_mut().len()),
            (60, CHUNK_SIZE - HEADROOM)
        );
        frame.bytes_mut().fill(0x5a);
        assert_eq!(frame.data(), [0x5a; 60]);
        let sent = pool.transmit(0, frame, 1000).expect("it fits");
        assert_eq!(sent, descriptor(address, 1000));
        assert_eq!(pool.wanted(0, 0), before - 1);
        assert!(pool.completed(0, sent.address));
        assert_eq!(
            pool.wanted(0, 0),
            before,
            "an RX chunk returns to the RX side"
        );
    });
}

#[test]
fn neither_side_can_starve_the_other() {
    with_pool(|pool| {
        let mut late = std::vec::Vec::new();
        while let Some(frame) = pool.take_free() {
            late.push(frame);
        }
        assert_eq!(late.len(), TX_CHUNKS);
        let rest = RX_CHUNKS - Shape::of(1).own;
        assert_eq!(pool.wanted(0, 0) as usize, rest, "receiving goes on");
        let refilled = std::iter::from_fn(|| pool.refill(0)).count();
        assert_eq!(refilled, rest);
        late.drain(..).for_each(|frame| pool.release(frame));
        assert!(pool.refill(0).is_none(), "no TX chunk goes to a fill ring");
        assert_eq!(pool.tx_free.len(), TX_CHUNKS, "but to the reserve");
    });
}

#[test]
fn the_kernel_is_not_believed() {
    with_slot(2, |shared, pool| {
        for member in 0..2 {
            pool.adopt(member, &prime(&shared));
        }
        let address = pool.refill(0).expect("a chunk is free");
        let free = pool.rx_free.last().map(|index| address_of(*index));
        let free = free.expect("another is free");
        assert!(
            pool.received(0, descriptor(free, 60)).is_none(),
            "it was not refilled"
        );
        assert!(
            pool.received(1, descriptor(address, 60)).is_none(),
            "another socket's"
        );
        assert!(
            pool.received(0, descriptor(u64::MAX / 2, 60)).is_none(),
            "no such chunk"
        );
        assert!(!pool.completed(0, address), "it was not sent");
        let room = (CHUNK_SIZE - HEADROOM) as u32;
        assert!(
            pool.received(0, descriptor(address, room + 1)).is_none(),
            "beyond the chunk"
        );
        let address = pool.refill(0).expect("it is free again");
        let frame = pool
            .received(0, descriptor(address, 60))
            .expect("the kernel had it");
        assert!(
            pool.received(0, descriptor(address, 60)).is_none(),
            "it gave it to us already"
        );
        // A frame may be sent by any socket, and is completed by the same one.
        let sent = pool.transmit(1, frame, 60).expect("it fits");
        assert!(!pool.completed(0, sent.address));
        assert!(pool.completed(1, sent.address));
    });
}

#[test]
fn a_frame_that_is_too_long_comes_back() {
    with_pool(|pool| {
        let frame = pool.take_free().expect("the reserve is full");
        let frame = pool
            .transmit(0, frame, CHUNK_SIZE)
            .expect_err("longer than the chunk");
        let sent = pool
            .transmit(0, frame, CHUNK_SIZE - HEADROOM)
            .expect("it fits");
        assert!(pool.completed(0, sent.address));
    });
}

#[test]
fn a_dropped_frame_is_counted_and_comes_back() {
    with_pool(|pool| {
        let frame = pool.take_free().expect("the reserve is full");
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(frame)));
        assert_eq!(
            dropped.is_err(),
            cfg!(debug_assertions),
            "the mistake is loud in debug builds"
        );
        assert_eq!(pool.count(ChunkOwner::WORKER), 1);
        assert_eq!((pool.recover(), pool.recover()), (1, 0));
    });
}

#[test]
#[should_panic(expected = "returns to the UMEM that it came from")]
fn a_frame_of_another_slot_is_refused() {
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let pool = |slot| {
        Pool::new(Arc::new(SharedUmem {
            slot: UmemSlot::claim(slot).expect("it is free"),
            shape: Shape::of(1),
            spare: ChunkSet::new(),
        }))
    };
    let (mut pool, mut other) = (pool(2), pool(3));
    pool.release(other.take_free().expect("the reserve is full"));
}

/// The kernel's side of one socket: contents of its rings.
#[derive(Default)]
struct Rings {
    is_open: bool,
    fill: VecDeque<u64>,
    sent: VecDeque<u64>,
    arrived: u32,
}

/// Sockets of one UMEM, and a kernel controlled by the test.
struct Model<'a> {
    shared: Arc<SharedUmem>,
    pool: &'a mut Pool,
    rings: std::vec::Vec<Rings>,
    held: std::vec::Vec<Frame>,
}

impl Model<'_> {
    fn open(&mut self, member: u8) {
        let primed = prime(&self.shared);
        let rings = &mut self.rings[usize::from(member)];
        rings.is_open = true;
        // Primed into the fill ring; the pool learns of it later.
        let chunks: std::vec::Vec<u16> = std::iter::from_fn(|| primed.take()).collect();
        rings
            .fill
            .extend(chunks.iter().map(|index| address_of(*index)));
        chunks.iter().for_each(|index| primed.put(*index));
        self.pool.adopt(member, &primed);
        self.flush(member);
    }

    /// Chunks in the kernel are missing until the pool learns of the close.
    fn close(&mut self, member: u8) {
        self.rings[usize::from(member)] = Rings::default();
        let slot = self.pool.slot();
        self.pool.reclaim(&Closed { slot, member });
    }

    /// Receives at most so many frames.
    fn receive(&mut self, member: u8, most: usize) -> usize {
        let rings = &mut self.rings[usize::from(member)];
        let count = most.min(rings.fill.len());
        for _ in 0..count {
            let address = rings.fill.pop_front().expect("it was counted");
            let frame = self.pool.received(member, descriptor(address, 60));
            self.held.push(frame.expect("the kernel had it"));
        }
        rings.arrived += count as u32;
        count
    }

    fn answer(&mut self, member: u8, leave: usize) {
        while self.held.len() > leave {
            let frame = self.held.pop().expect("it was counted");
            let sent = self.pool.transmit(member, frame, 60).expect("it fits");
            self.rings[usize::from(member)].sent.push_back(sent.address);
        }
    }

    fn flush(&mut self, member: u8) {
        let rings = &mut self.rings[usize::from(member)];
        let _ = self.pool.recover();
        while let Some(address) = rings.sent.pop_front() {
            assert!(self.pool.completed(member, address));
        }
        let wanted = self.pool.wanted(member, std::mem::take(&mut rings.arrived));
        for _ in 0..wanted {
            let address = self.pool.refill(member);
            rings.fill.push_back(address.expect("as many are free"));
        }
        let entries = self.shared.shape.rx;
        assert!(
            self.shared.shape.sharers == 1 || rings.fill.len() <= entries,
            "they fit"
        );
    }

    fn flush_all(&mut self) {
        let open = |rings: &Rings| rings.is_open;
        for member in 0..self.rings.len() as u8 {
            if open(&self.rings[usize::from(member)]) {
                self.flush(member);
            }
        }
    }

    /// No chunk is lost or listed twice, and each open socket has at least its own share, once no frame is held.
    fn check(&mut self) {
        assert!(self.pool.holds());
        let open: std::vec::Vec<_> = self.rings.iter().filter(|rings| rings.is_open).collect();
        for rings in &open {
            assert!(rings.fill.len() >= self.shared.shape.own);
        }
        let closed = self.shared.shape.sharers - open.len();
        let spare = match open.len() {
            0 => RX_CHUNKS,
            _ => closed * self.shared.shape.own,
        };
        assert_eq!(self.shared.spare.len(), spare, "for those that may come");
        let in_fill: usize = open.iter().map(|rings| rings.fill.len()).sum();
        let left = self.pool.count(ChunkOwner::FREE) as usize;
        assert_eq!(in_fill + left + spare, CHUNKS_PER_QUEUE);
    }
}

fn with_model(sharers: usize, test: impl FnOnce(&mut Model<'_>)) {
    with_slot(sharers, |shared, pool| {
        let mut model = Model {
            rings: (0..sharers).map(|_| Rings::default()).collect(),
            shared,
            pool,
            held: std::vec::Vec::new(),
        };
        test(&mut model);
        model
            .held
            .drain(..)
            .for_each(|frame| model.pool.release(frame));
    });
}

#[test]
fn sockets_that_come_and_go_under_load_lose_no_chunk_and_starve_nobody() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut sharers = 1;
    while sharers <= SHARERS_MAX {
        with_model(sharers, |model| {
            for _ in 0..2_000 {
                let member = random(sharers) as u8;
                match (model.rings[usize::from(member)].is_open, random(20)) {
                    (false, _) => model.open(member),
                    // The worker may hold frames of it.
                    (true, 0) => model.close(member),
                    (true, _) => {
                        model.receive(member, random(64));
                        model.answer(member, random(8));
                        model.flush(member);
                    }
                }
                assert!(model.pool.holds());
            }
            for member in 0..sharers as u8 {
                if model.rings[usize::from(member)].is_open {
                    model.answer(member, 0);
                }
            }
            model
                .held
                .drain(..)
                .for_each(|frame| model.pool.release(frame));
            // After the first flush, surplus of other sockets is spare.
            model.flush_all();
            model.flush_all();
            model.check();
            for member in 0..sharers as u8 {
                if model.rings[usize::from(member)].is_open {
                    model.close(member);
                }
            }
            model.check();
            assert!(model.pool.is_empty());
        });
        sharers *= 2;
    }
}

/// The busy socket gets the remaining chunks, and gives them up when another becomes busy.
#[test]
fn chunks_go_where_frames_arrive_and_an_idle_socket_keeps_its_own() {
    let sharers = SHARERS_MAX.min(8);
    let Shape { rx, own, .. } = Shape::of(sharers);
    if sharers < 8 || own >= rx {
        return;
    }
    with_model(sharers, |model| {
        (0..sharers as u8).for_each(|member| model.open(member));
        model.check();
        for member in 0..sharers as u8 {
            let mut batches = std::vec::Vec::new();
            for _ in 0..8 {
                batches.push(model.receive(member, 64));
                model.answer(member, 0);
                model.flush(member);
            }
            assert_eq!(batches[0], own.min(64), "what is its own at least");
            let busy = model.rings[usize::from(member)].fill.len();
            // As long as each earlier socket has had a turn since.
            assert!(member > 0 || busy == rx, "{member}: {busy}");
            // One query now and then.
            for _ in 0..2 * rx {
                assert_eq!(model.receive(member, 1), 1);
                model.answer(member, 0);
                model.flush(member);
            }
            let quiet = model.rings[usize::from(member)].fill.len();
            assert!(quiet <= own + 2, "{member}: {quiet}");
            model.check();
        }
    });
}
