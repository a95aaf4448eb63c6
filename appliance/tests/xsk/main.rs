//! The AF_XDP socket against a real kernel, in whichever backend is compiled in.
//!
//! ```text
//!  +------- one namespace per test ------+
//!  |  FrameSocket - peer === near - Xsk  |     near: XDP program that redirects everything
//!  +-------------------------------------+
//! ```
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where by panicking"
)]

mod alone;
#[cfg(not(feature = "afxdp"))]
mod shared;

use alone::Alone;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xdnsd::os::xsk::{Batch, BindMode, CopyMode, Frame, Kick, Opener, Options, SetupError};
use xdnsd_core::limits::{CHUNK_SIZE, RX_RING, TX_CHUNKS};
use xdnsd_lab::bpf::{Attach, Redirect};
use xdnsd_lab::frames::FrameSocket;
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::privilege::root_or_skip;
use xdnsd_lab::wait::wait_until;

/// Longest frame that fits a chunk behind the kernel's headroom.
const FRAME_MAX: usize = CHUNK_SIZE - 256;
/// IEEE 802 local experimental: no stack answers it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
const HEADER_LEN: usize = 14;
const PATIENCE: Duration = Duration::from_secs(10);

/// The UMEM slots belong to the process: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

struct Bench {
    // Fields drop in this order: the socket first, while its interface is there.
    xsk: Option<Alone>,
    redirect: Redirect,
    peer: FrameSocket,
    namespace: Namespace,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Self {
        Self::attached(Attach::Native)
    }

    fn attached(attach: Attach) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = Namespace::unnamed().unwrap();
        add_links(&namespace);
        let redirect = namespace
            .run(|| Redirect::attach(index("near"), attach))
            .unwrap();
        let peer = FrameSocket::open(&namespace, "peer").unwrap();
        let xsk = open(&namespace, 0, BindMode::Copy).unwrap();
        redirect.set_socket(0, &xsk).unwrap();
        Self {
            xsk: Some(xsk),
            redirect,
            peer,
            namespace,
            _turn: turn,
        }
    }

    fn xsk(&mut self) -> &mut Alone {
        self.xsk.as_mut().unwrap()
    }

    /// Receives exactly `count` frames, at most a batch.
    fn receive(&mut self, count: usize) -> Batch {
        let xsk = self.xsk();
        let mut batch = Batch::new();
        wait_until("the frames arrive", PATIENCE, || {
            xsk.receive(&mut batch);
            batch.len() >= count
        })
        .unwrap();
        assert_eq!(batch.len(), count);
        batch
    }

    /// Sends `count` numbered frames from the peer.
    fn send(&self, count: usize) {
        for number in 0..count {
            self.peer.send(&numbered(number)).unwrap();
        }
    }

    /// The next of our frames that reaches the peer.
    fn arrived(&self) -> Vec<u8> {
        self.peer
            .receive(PATIENCE, is_ours)
            .unwrap()
            .expect("a frame arrives")
    }

    /// Waits until the kernel has returned every sent chunk.
    fn settle(&mut self) {
        let xsk = self.xsk();
        wait_until("all sent frames are completed", PATIENCE, || {
            let _ = xsk.flush();
            let counters = xsk.counters();
            counters.completed == counters.transmitted
        })
        .unwrap();
        let census = xsk.census();
        assert!(census.holds(), "{census:?}");
        assert_eq!(
            (
                census.worker,
                census.tx,
                census.kernel_tx,
                census.completion
            ),
            (0, 0, 0, 0),
            "{census:?}"
        );
        assert_eq!(xsk.counters().stray, 0);
        assert_eq!(xsk.counters().dropped, 0);
    }
}

fn add_links(namespace: &Namespace) {
    let mtu = FRAME_MAX + 100;
    let script = format!(
        "link add near mtu {mtu} numrxqueues 1 numtxqueues 1 type veth \
         peer name peer mtu {mtu} numrxqueues 1 numtxqueues 1\n\
         link set near addrgenmode none up\nlink set peer addrgenmode none up\n"
    );
    namespace.ip(&script).unwrap();
}

fn index(interface: &str) -> u32 {
    if_nametoindex(interface).unwrap()
}

fn open(namespace: &Namespace, slot: usize, mode: BindMode) -> Result<Alone, SetupError> {
    open_at(namespace, "near", 0, slot, mode)
}

fn open_at(
    namespace: &Namespace,
    interface: &str,
    queue: u32,
    slot: usize,
    mode: BindMode,
) -> Result<Alone, SetupError> {
    let (mut opener, mut pool) = Opener::claim(slot, 1).expect("the slot is free");
    let options = Options {
        interface,
        queue,
        mode,
    };
    let mut xsk = namespace.run(|| opener.open(&options))?;
    xsk.join(&mut pool);
    let xsk = Some(xsk);
    Ok(Alone { xsk, pool, opener })
}

/// A frame of `len` bytes that differs in every byte from its neighbours.
fn frame_of(len: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ETHER_TYPE);
    frame.extend((HEADER_LEN..len).map(|byte| (byte * 7 + len) as u8));
    frame
}

/// A frame that carries a number.
fn numbered(number: usize) -> Vec<u8> {
    let mut frame = frame_of(60);
    frame[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&(number as u32).to_be_bytes());
    frame
}

fn number_of(frame: &[u8]) -> usize {
    u32::from_be_bytes(frame[HEADER_LEN..HEADER_LEN + 4].try_into().unwrap()) as usize
}

fn is_ours(frame: &[u8]) -> bool {
    frame.len() >= HEADER_LEN && frame[12..HEADER_LEN] == ETHER_TYPE
}

fn write(frame: &mut Frame, bytes: &[u8]) -> usize {
    frame.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

fn is_readable(xsk: &Alone) -> bool {
    let mut fds = [PollFd::new(xsk.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    fds[0].revents().unwrap().contains(PollFlags::POLLIN)
}

#[test]
fn frames_of_every_size_are_echoed_in_place() {
    if !root_or_skip("frames_of_every_size_are_echoed_in_place") {
        return;
    }
    let mut bench = Bench::new();
    for len in HEADER_LEN..=FRAME_MAX {
        let query = frame_of(len);
        bench.peer.send(&query).unwrap();
        let mut frame = bench.receive(1).pop().unwrap();
        assert_eq!((frame.len(), frame.data()), (len, &query[..]));
        assert_eq!(
            frame.bytes_mut().len(),
            FRAME_MAX,
            "room to the chunk's end"
        );
        frame.bytes_mut()[..12].rotate_left(6);
        bench.xsk().transmit(frame, len).unwrap();
        assert_eq!(bench.xsk().flush(), Kick::Done);
        let reply = bench.arrived();
        assert_eq!(
            (&reply[..6], &reply[6..12], &reply[12..]),
            (&query[6..12], &query[..6], &query[12..])
        );
    }
    bench.settle();
}

#[test]
fn a_reply_may_be_longer_than_its_query() {
    if !root_or_skip("a_reply_may_be_longer_than_its_query") {
        return;
    }
    let mut bench = Bench::new();
    bench.peer.send(&frame_of(60)).unwrap();
    let mut frame = bench.receive(1).pop().unwrap();
    let reply = frame_of(FRAME_MAX);
    let len = write(&mut frame, &reply);
    let frame = bench
        .xsk()
        .transmit(frame, len + 1)
        .expect_err("one byte more than the chunk holds");
    bench.xsk().transmit(frame, len).unwrap();
    assert_eq!(bench.xsk().flush(), Kick::Done);
    assert_eq!(bench.arrived(), reply);
    bench.settle();
}

#[test]
fn one_flush_sends_more_than_the_kernels_budget_of_32() {
    if !root_or_skip("one_flush_sends_more_than_the_kernels_budget_of_32") {
        return;
    }
    let mut bench = Bench::new();
    limit_budget(bench.xsk());
    for number in 0..TX_CHUNKS {
        let mut frame = bench.xsk().take_free().expect("the reserve is TX_CHUNKS");
        let len = write(&mut frame, &numbered(number));
        bench.xsk().transmit(frame, len).unwrap();
    }
    assert!(bench.xsk().take_free().is_none(), "the reserve is empty");
    assert_eq!(bench.xsk().flush(), Kick::Done);
    for number in 0..TX_CHUNKS {
        assert_eq!(number_of(&bench.arrived()), number);
    }
    bench.settle();
    let counters = bench.xsk().counters();
    assert_eq!(counters.transmitted as usize, TX_CHUNKS);
    assert!(counters.kicks as usize >= TX_CHUNKS / 32, "{counters:?}");
}

/// Sets the budget of kernels before 6.17, so that the loop around it is tested on later ones too.
fn limit_budget(xsk: &Alone) {
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
    let budget: u32 = 32;
    // SAFETY: the option is read from four bytes that live through the call.
    let result = unsafe {
        libc::setsockopt(
            xsk.as_fd().as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const budget).cast(),
            4,
        )
    };
    let error = std::io::Error::last_os_error().raw_os_error();
    assert!(result == 0 || error == Some(libc::ENOPROTOOPT), "{error:?}");
}

#[test]
fn nothing_leaves_before_the_flush() {
    if !root_or_skip("nothing_leaves_before_the_flush") {
        return;
    }
    let mut bench = Bench::new();
    let mut frame = bench.xsk().take_free().unwrap();
    let len = write(&mut frame, &frame_of(60));
    bench.xsk().transmit(frame, len).unwrap();
    assert_eq!(bench.xsk().census().tx, 1);
    assert_eq!(
        bench
            .peer
            .receive(Duration::from_millis(50), is_ours)
            .unwrap(),
        None
    );
    assert_eq!(bench.xsk().flush(), Kick::Done);
    bench.arrived();
    assert_eq!(bench.xsk().flush(), Kick::Idle);
    bench.settle();
}

#[test]
fn the_descriptor_is_readable_while_frames_wait() {
    if !root_or_skip("the_descriptor_is_readable_while_frames_wait") {
        return;
    }
    let mut bench = Bench::new();
    assert!(!is_readable(bench.xsk()));
    bench.send(1);
    let xsk = bench.xsk();
    wait_until("the descriptor is readable", PATIENCE, || is_readable(xsk)).unwrap();
    let frame = bench.receive(1).pop().unwrap();
    assert!(!is_readable(bench.xsk()));
    bench.xsk().release(frame);
    bench.settle();
}

#[test]
fn rings_go_round_many_times_in_order() {
    if !root_or_skip("rings_go_round_many_times_in_order") {
        return;
    }
    const BURST: usize = 48;
    let mut bench = Bench::new();
    let mut echoed = 0;
    while echoed < 8 * RX_RING {
        bench.send(BURST);
        for (number, frame) in bench.receive(BURST).into_iter().enumerate() {
            assert_eq!(number_of(frame.data()), number);
            let len = frame.len();
            bench.xsk().transmit(frame, len).unwrap();
        }
        assert_eq!(bench.xsk().flush(), Kick::Done);
        for number in 0..BURST {
            assert_eq!(number_of(&bench.arrived()), number);
        }
        echoed += BURST;
    }
    bench.settle();
    assert_eq!(bench.xsk().counters().received as usize, echoed);
    assert_eq!(bench.xsk().counters().transmitted as usize, echoed);
}

#[test]
fn receiving_goes_on_while_every_reserved_frame_is_held() {
    if !root_or_skip("receiving_goes_on_while_every_reserved_frame_is_held") {
        return;
    }
    let mut bench = Bench::new();
    let mut held: Vec<Frame> = std::iter::from_fn(|| bench.xsk().take_free()).collect();
    assert_eq!(held.len(), TX_CHUNKS);
    for _ in 0..3 * RX_RING / 32 {
        bench.send(32);
        for frame in bench.receive(32) {
            bench.xsk().release(frame);
        }
        let _ = bench.xsk().flush();
    }
    assert_eq!(
        bench.xsk().statistics().unwrap().rx_fill_ring_empty_descs,
        0
    );
    assert_eq!(bench.xsk().census().worker as usize, TX_CHUNKS);
    held.drain(..).for_each(|frame| bench.xsk().release(frame));
    bench.settle();
}

#[test]
fn a_full_rx_ring_drops_counts_and_recovers() {
    if !root_or_skip("a_full_rx_ring_drops_counts_and_recovers") {
        return;
    }
    let mut bench = Bench::new();
    bench.send(RX_RING + 100);
    let xsk = bench.xsk();
    let lost = |xsk: &Alone| {
        let statistics = xsk.statistics().unwrap();
        statistics.rx_ring_full + statistics.rx_fill_ring_empty_descs + statistics.rx_dropped
    };
    wait_until("the kernel counts the loss", PATIENCE, || lost(xsk) >= 100).unwrap();
    let mut received = 0;
    let mut batch = Batch::new();
    while xsk.receive(&mut batch) > 0 {
        received += batch.len();
        while let Some(frame) = batch.pop() {
            xsk.release(frame);
        }
    }
    assert_eq!(received, RX_RING, "a whole ring was waiting");
    let _ = xsk.flush();
    bench.send(1);
    let frame = bench.receive(1).pop().unwrap();
    bench.xsk().release(frame);
    bench.settle();
}

#[test]
fn a_frame_too_long_for_a_chunk_is_dropped_and_counted() {
    if !root_or_skip("a_frame_too_long_for_a_chunk_is_dropped_and_counted") {
        return;
    }
    let mut bench = Bench::new();
    bench.peer.send(&frame_of(FRAME_MAX + 1)).unwrap();
    let xsk = bench.xsk();
    wait_until("rx_dropped counts it", PATIENCE, || {
        xsk.statistics().unwrap().rx_dropped == 1
    })
    .unwrap();
    bench.send(1);
    let frame = bench.receive(1).pop().unwrap();
    bench.xsk().release(frame);
    bench.settle();
}

#[test]
fn a_link_that_is_down_keeps_frames_until_it_is_up() {
    if !root_or_skip("a_link_that_is_down_keeps_frames_until_it_is_up") {
        return;
    }
    let mut bench = Bench::new();
    bench.namespace.ip("link set near down\n").unwrap();
    assert_eq!(bench.xsk().probe(), Kick::Down);
    let mut frame = bench.xsk().take_free().unwrap();
    let len = write(&mut frame, &frame_of(60));
    bench.xsk().transmit(frame, len).unwrap();
    assert_eq!(bench.xsk().flush(), Kick::Down);
    assert!(bench.xsk().census().holds());
    bench.namespace.ip("link set near up\n").unwrap();
    let xsk = bench.xsk();
    wait_until("the frame leaves", PATIENCE, || xsk.flush() == Kick::Done).unwrap();
    assert_eq!(bench.arrived(), frame_of(60));
    bench.settle();
}

#[test]
fn a_deleted_interface_is_gone_and_its_slot_opens_again() {
    if !root_or_skip("a_deleted_interface_is_gone_and_its_slot_opens_again") {
        return;
    }
    let mut bench = Bench::new();
    bench.send(4);
    let mut batch = bench.receive(4);
    assert_eq!(bench.xsk().probe(), Kick::Done);
    bench.namespace.ip("link delete near\n").unwrap();
    assert_eq!(bench.xsk().probe(), Kick::Gone);
    while let Some(frame) = batch.pop() {
        bench.xsk().transmit(frame, 60).unwrap();
    }
    assert_eq!(bench.xsk().flush(), Kick::Gone);
    assert_eq!(bench.xsk().flush(), Kick::Gone, "and stays so");
    assert_eq!(bench.xsk().receive(&mut batch), 0);
    assert!(bench.xsk().census().holds());

    bench.xsk = None;
    add_links(&bench.namespace);
    bench.redirect = bench
        .namespace
        .run(|| Redirect::attach(index("near"), Attach::Native))
        .unwrap();
    bench.peer = FrameSocket::open(&bench.namespace, "peer").unwrap();
    let xsk = open(&bench.namespace, 0, BindMode::Copy).unwrap();
    bench.redirect.set_socket(0, &xsk).unwrap();
    bench.xsk = Some(xsk);
    bench.send(1);
    let frame = bench.receive(1).pop().unwrap();
    bench.xsk().transmit(frame, 60).unwrap();
    assert_eq!(bench.xsk().flush(), Kick::Done);
    bench.arrived();
    bench.settle();
}

#[test]
fn a_slot_and_a_queue_open_again_at_once() {
    if !root_or_skip("a_slot_and_a_queue_open_again_at_once") {
        return;
    }
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.send(2);
        for frame in bench.receive(2) {
            bench.xsk().transmit(frame, 60).unwrap();
        }
        let _ = bench.xsk().flush();
        bench.xsk = None;
        let xsk = open(&bench.namespace, 0, BindMode::Copy).unwrap();
        bench.redirect.set_socket(0, &xsk).unwrap();
        bench.xsk = Some(xsk);
    }
}

#[test]
fn a_socket_dropped_before_its_frames_retires_the_slot() {
    if !root_or_skip("a_socket_dropped_before_its_frames_retires_the_slot") {
        return;
    }
    let mut bench = Bench::new();
    drop(bench.xsk.take());
    let mut xsk = open(&bench.namespace, 3, BindMode::Copy).unwrap();
    let mut frame = xsk.take_free().unwrap();
    drop(xsk);
    assert!(
        Opener::claim(3, 1).is_none(),
        "the frame still reaches its bytes"
    );
    frame.bytes_mut().fill(0);
    std::mem::forget(frame);
}

#[test]
fn a_frame_dropped_by_mistake_is_counted_and_comes_back() {
    if !root_or_skip("a_frame_dropped_by_mistake_is_counted_and_comes_back") {
        return;
    }
    let mut bench = Bench::new();
    bench.send(1);
    let received = bench.receive(1).pop().unwrap();
    let reserved = bench.xsk().take_free().unwrap();
    for frame in [received, reserved] {
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(frame)));
        assert_eq!(dropped.is_err(), cfg!(debug_assertions));
    }
    assert_eq!(bench.xsk().census().worker, 2);
    let _ = bench.xsk().flush();
    assert_eq!(bench.xsk().census().worker, 0);
    assert!(bench.xsk().census().holds());
    assert_eq!(bench.xsk().counters().dropped, 2);
    let reserve: Vec<Frame> = std::iter::from_fn(|| bench.xsk().take_free()).collect();
    assert_eq!(reserve.len(), TX_CHUNKS);
    reserve
        .into_iter()
        .for_each(|frame| bench.xsk().release(frame));
}

#[test]
fn generic_mode_works_the_same() {
    if !root_or_skip("generic_mode_works_the_same") {
        return;
    }
    let mut bench = Bench::attached(Attach::Generic);
    bench.send(40);
    for frame in bench.receive(40) {
        let len = frame.len();
        bench.xsk().transmit(frame, len).unwrap();
    }
    assert_eq!(bench.xsk().flush(), Kick::Done);
    for number in 0..40 {
        assert_eq!(number_of(&bench.arrived()), number);
    }
    bench.settle();
}

#[test]
fn the_mode_is_what_the_driver_can() {
    if !root_or_skip("the_mode_is_what_the_driver_can") {
        return;
    }
    let mut bench = Bench::new();
    assert_eq!(bench.xsk().mode(), CopyMode::Copy);
    bench.xsk = None;
    let xsk = open(&bench.namespace, 0, BindMode::Auto).unwrap();
    assert_eq!(xsk.mode(), CopyMode::Copy, "veth copies");
    drop(xsk);
    let error = open(&bench.namespace, 0, BindMode::ZeroCopy)
        .err()
        .expect("veth has no zero copy");
    assert!(error.to_string().contains("near queue 0"), "{error}");
    assert!(Opener::claim(0, 1).is_some(), "the slot came back");
}

#[test]
fn set_up_errors_say_where() {
    if !root_or_skip("set_up_errors_say_where") {
        return;
    }
    let bench = Bench::new();
    for (interface, queue) in [("absent", 0), ("near", 7), ("near", 0)] {
        let error = open_at(&bench.namespace, interface, queue, 1, BindMode::Copy).err();
        let text = error.expect("it cannot be opened").to_string();
        assert!(
            text.starts_with(&format!("AF_XDP on {interface} queue {queue}: ")),
            "{text}"
        );
    }
}
