//! Maps and helpers: the fence around what the kernel lends the program. Built for the kernel only.

mod bridge;
mod cookies;
mod forward;
mod log;
mod prefixes;
mod rate;

pub use rate::{charge, judge, judge_newcomer};

use crate::classify::{FrameContext, Kernel, NextHop, ReplyFlow};
use crate::clients::ClientSlot;
use crate::context::{self, opaque};
use crate::flow::link::Mac;
use crate::flow::network::Address;
use crate::flow::transport::Segment;
use crate::frame::Cursor;
use crate::stray::{Owners, SegmentOwner};
use crate::syn::{Ends, Guarded, SegmentAnswer, SynHeader};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_F_MMAPABLE, bpf_fib_lookup as FibLookup, bpf_sock as Socket,
    bpf_sock_tuple as Tuple, xdp_action, xdp_md,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_ktime_get_coarse_ns, bpf_sk_release, bpf_skc_lookup_tcp,
    bpf_tcp_check_syncookie, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, ProgramArray, XskMap};
use aya_ebpf::programs::XdpContext;
use core::mem::MaybeUninit;
use xdnsd_abi::headers::{ipv4, ipv6, tcp};
use xdnsd_abi::{
    CLIENT_SETS, ClientSet, FRAME_MAX, GUARDED_MAX, LISTEN_MAX, Listen, Orders, PathCheck,
    QUEUES_MAX, Reason, SYN_FRAME_MAX, few, hash, secret, shield, tail,
};

// The names are those of `xdnsd_abi::map`; the macro takes literals only. Loading fails if they differ.

#[map(name = "xsks_map")]
static XSKS: XskMap = XskMap::with_max_entries(QUEUES_MAX, 0);
#[map(name = "listen")]
static LISTEN: HashMap<Listen, PathCheck> = HashMap::with_max_entries(LISTEN_MAX, 0);
#[map(name = "counters")]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT, 0);
/// Mappable, so that a worker's heartbeat is one store to memory.
#[map(name = "heartbeat")]
static HEARTBEAT: Array<u64> = Array::with_max_entries(QUEUES_MAX, BPF_F_MMAPABLE);
#[map(name = "tails")]
static TAILS: ProgramArray = ProgramArray::with_max_entries(tail::COUNT, 0);
#[map(name = "guarded")]
static GUARDED: HashMap<Listen, PathCheck> = HashMap::with_max_entries(GUARDED_MAX, 0);
#[map(name = "shield")]
static SHIELD: Array<u32> = Array::with_max_entries(shield::COUNT, 0);

#[map(name = "secrets")]
static SECRETS: Array<hash::HashKey> = Array::with_max_entries(secret::COUNT, 0);
#[map(name = "clients")]
static CLIENTS: Array<ClientSet> = Array::with_max_entries(CLIENT_SETS, 0);
#[map(name = "few")]
static FEW: PerCpuArray<u64> = PerCpuArray::with_max_entries(few::COUNT, 0);
#[map(name = "addresses")]
static ADDRESSES: HashMap<Listen, PathCheck> = HashMap::with_max_entries(LISTEN_MAX, 0);

/// Address families, by the kernel's numbers.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Index of `lo` in every network namespace. To the FIB a packet from there is one of this machine's own.
const LOOPBACK_IFINDEX: u32 = 1;
/// The FIB has interface, next hop and MAC address.
const FIB_SUCCESS: i64 = 0;

/// TCP_LISTEN, by the kernel's numbers.
const LISTENING: u32 = 10;

/// Counts a verdict on this CPU.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the look-up returned this CPU's own slot, aligned and alive as long as the program; nothing else runs on
        // this CPU's slot while the program does.
        unsafe { *counter = (*counter).wrapping_add(1) }
    }
}

pub use log::{tell_reader, write_record};

/// A function of its own, because a tail call in it returns here, with the other program's return value.
#[inline(never)]
fn try_hot(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    // SAFETY: no value here has a drop that the tail call would skip, and the other program begins anew.
    unsafe { TAILS.tail_call(&context, tail::HOT) }
    // Without the other program: XDP_PASS. Compiler and verifier must not know that it is the only value here, or they
    // would omit the code for the others. No queue has these numbers, nor would it have a heartbeat.
    match context.rx_queue_index() {
        u32::MAX => xdp_action::XDP_TX,
        0xffff_fffe => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_PASS,
    }
}

/// Tail-calls the program at this place. Returns only if there is none.
#[inline(always)]
fn hand_on(ctx: &XdpContext, place: u32) {
    // SAFETY: no value of the caller's has a drop that the tail call would skip, and the other program begins anew.
    unsafe { TAILS.tail_call(ctx, place) }
}

/// One frame's run of the program. `FRAGS`: the frame may be in several buffers.
pub struct Run<'a, const FRAGS: bool> {
    ctx: &'a XdpContext,
}

impl<'a, const FRAGS: bool> Run<'a, FRAGS> {
    /// The run for this frame.
    #[inline(always)]
    pub const fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Redirects the frame to the socket of its RX queue, or passes it to the stack if there is none.
    #[inline(always)]
    pub fn redirect(&self) -> Reason {
        let fallback = u64::from(xdp_action::XDP_PASS);
        match XSKS.redirect(self.ctx.rx_queue_index(), fallback) {
            Ok(_) => Reason::Redirected,
            Err(_) => Reason::PassNoSocket,
        }
    }

    /// Calls the program for hot names, and redirects the frame to user space unless that has answered. For a new client
    /// `may_go_on` decides about the redirect.
    #[inline(always)]
    pub fn answer_or_redirect(&self, may_go_on: impl FnOnce() -> Result<(), Reason>) -> Reason {
        let hot = try_hot(self.ctx.ctx);
        if hot == xdp_action::XDP_TX {
            return Reason::Answered;
        }
        if hot == xdp_action::XDP_DROP
            && let Err(reason) = may_go_on()
        {
            return reason;
        }
        self.redirect()
    }

    /// The first buffer, as if nothing of it had been looked at: read anew, so that the verifier sees one and the same
    /// position behind every path that leads here.
    #[inline(always)]
    pub fn first_buffer(&self) -> Cursor<'_> {
        context::frame(self.ctx)
    }
}

impl<const FRAGS: bool> FrameContext for Run<'_, FRAGS> {
    #[inline(always)]
    fn drops_garbage(&self) -> bool {
        told(shield::DROP_GARBAGE) != 0
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context is the one that the kernel called us with; the field is an aligned u32 in it.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn next_hop(&self, reply: &ReplyFlow) -> Option<NextHop> {
        let mut fib = MaybeUninit::uninit();
        let fib = fib_lookup(&mut fib, reply);
        let len = size_of::<FibLookup>() as i32;
        // SAFETY: `fib` is initialized to its last byte, lives through the call and has the size that is passed; the
        // context is the one that the kernel called us with.
        let result = unsafe { bpf_fib_lookup(self.ctx.as_ptr(), fib, len, 0) };
        if result != FIB_SUCCESS {
            return None;
        }
        let mac = (&raw const fib.dmac).cast::<[u16; 3]>();
        // SAFETY: `dmac` is six initialized bytes at an even offset of an aligned structure. The verifier accepts only
        // aligned loads from the stack, and volatile ones are not merged into a wider one.
        let mac = unsafe { mac.read_volatile() };
        Some(NextHop {
            ifindex: fib.ifindex,
            mac: Mac(mac),
        })
    }
}

/// A setting of the shield.
#[inline(always)]
fn told(place: u32) -> u32 {
    let Some(word) = SHIELD.get_ptr(place) else {
        return 0;
    };
    // SAFETY: the look-up returned an aligned value that lives as long as the map. User space writes all of it at once.
    unsafe { word.read_volatile() }
}

/// A word of an element of a mapped array. User space and other processors store to it at any time.
#[inline(always)]
fn word<const WORDS: usize>(element: *mut [u64; WORDS], at: usize) -> u64 {
    // SAFETY: the look-up returned an aligned element that lives as long as the map, and the offset is within it. Others
    // store to it at any time, so the load is volatile; aligned eight bytes are never torn on a 64-bit machine, and any
    // bits are a word.
    unsafe { element.cast::<u64>().add(at % WORDS).read_volatile() }
}

/// Stores a word of an element.
#[inline(always)]
fn set_word<const WORDS: usize>(element: *mut [u64; WORDS], at: usize, word: u64) {
    // SAFETY: the look-up returned an aligned element that lives as long as the map, and the offset is within it. A store
    // by another processor at the same time is lost.
    unsafe {
        element.cast::<u64>().add(at % WORDS).write_volatile(word);
    }
}

/// The checks of a map for a destination.
#[inline(always)]
fn check_of(map: &HashMap<Listen, PathCheck>, listen: &Listen) -> Option<PathCheck> {
    let check = map.get_ptr(listen)?;
    // SAFETY: the look-up returned an aligned, initialized value whose memory the map keeps while the program runs. User
    // space may reuse it for another entry at the same time, so the fields may belong to two entries. Any bytes are a
    // PathCheck, and both entries are ours: one frame is then passed, or answered as one of the other address.
    Some(unsafe { *check })
}

impl<const FRAGS: bool> Kernel for Run<'_, FRAGS> {
    #[inline(always)]
    fn path_check(&self, listen: &Listen) -> Option<PathCheck> {
        check_of(&LISTEN, listen)
    }

    /// The kernel allows this between programs of one kind only: one for single buffers cannot call one for several.
    #[inline(always)]
    fn hand_on_syn(&self) {
        if FRAGS {
            hand_on(self.ctx, tail::SYN);
        }
    }

    #[inline(always)]
    fn hand_on_stray(&self) {
        if FRAGS {
            hand_on(self.ctx, tail::STRAY);
        }
    }

    #[inline(always)]
    fn hand_on_odd(&self) {
        if FRAGS {
            hand_on(self.ctx, tail::FORWARD);
        }
    }

    #[inline(always)]
    fn is_large(&self) -> bool {
        let first = self.first_buffer();
        if !FRAGS {
            return first.take::<{ FRAME_MAX + 1 }>().is_some();
        }
        !first.holds::<FRAME_MAX>(context::frame_len(self.ctx))
    }

    #[inline(always)]
    fn has_heard(&self, station: Mac) -> bool {
        bridge::has_heard(self.ctx.ctx, station)
    }

    #[inline(always)]
    fn heartbeat(&self) -> Option<u64> {
        let beat = HEARTBEAT.get_ptr(self.ctx.rx_queue_index())?;
        // SAFETY: the look-up returned an aligned value that lives as long as the map. A worker stores to it through its
        // mapping at any time, so the load is volatile. Aligned eight bytes are never torn on a 64-bit machine; elsewhere a
        // torn value moves the heartbeat by the lower word only, which makes one frame wrongly fresh or stale.
        Some(unsafe { beat.read_volatile() })
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }
}

/// Mask for the length of a TCP header. No buffer is shorter.
const MASK: u64 = 63;
const _: () = assert!(tcp::HEADER_LEN_MAX as u64 <= MASK && MASK < size_of::<SynHeader>() as u64);

impl Guarded for Run<'_, true> {
    #[inline(always)]
    fn guarded(&self, listen: &Listen) -> Option<PathCheck> {
        // The key is made first, so that both paths have the same stack.
        let listen = core::hint::black_box(listen);
        if told(shield::GUARDED_BITS) & listen.address_bit() == 0 {
            return None;
        }
        check_of(&GUARDED, listen)
    }

    #[inline(always)]
    fn orders(&self) -> Orders {
        Orders::from_word(told(shield::SYN_COOKIES))
    }

    #[inline(always)]
    fn is_large(&self) -> bool {
        let len = context::frame_len(self.ctx);
        !self.first_buffer().holds::<SYN_FRAME_MAX>(len)
    }

    #[inline(always)]
    fn zero(&self) -> u32 {
        opaque(0) as u32
    }

    #[inline(always)]
    fn has_proved(&self, ends: &Ends, secs: u32) -> bool {
        has_proved(ends.source, secs)
    }

    #[inline(always)]
    fn copy(&self, at: u32, len: u32, header: &mut SynHeader) -> Option<u64> {
        // The compiler knows these bounds already, and would omit the instructions that tell the verifier.
        let len = opaque(len.into()) & MASK;
        if len < tcp::HEADER_LEN as u64 {
            return None;
        }
        // Hidden again: to the verifier of Linux 6.1 a copy from before the comparison has no lower bound.
        let len = opaque(len);
        let to = header.as_mut_ptr().cast();
        // SAFETY: the helper writes `len` bytes, fewer than the buffer has; the context is the kernel's.
        let result = unsafe { bpf_xdp_load_bytes(self.ctx.ctx, at, to, len as u32) };
        (result == 0).then_some(len)
    }
}

impl Owners for Run<'_, true> {
    #[inline(always)]
    fn owner(&self, ends: &Ends, segment: &Segment<'_>) -> SegmentOwner {
        let (mut tuple, mut ip) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        let mut header = MaybeUninit::<TcpHeader>::uninit();
        let len = store(&mut header, segment.words());
        let (tuple_len, ip_len) = describe(ends, &mut tuple, &mut ip);
        let Some(socket) = self.socket(&mut tuple, tuple_len) else {
            return SegmentOwner::Nobody;
        };
        // SAFETY: the kernel holds a reference to the socket for us until it is released, exactly once and last. Both
        // headers are initialized as far as their lengths say.
        unsafe {
            let owner = if (&raw const (*socket).state).read_volatile() != LISTENING {
                SegmentOwner::Connection
            } else {
                let ip = ip.as_mut_ptr().cast();
                let header = header.as_mut_ptr().cast();
                match bpf_tcp_check_syncookie(socket.cast(), ip, ip_len, header, len) {
                    0 => SegmentOwner::Proof,
                    _ => SegmentOwner::Stray,
                }
            };
            bpf_sk_release(socket.cast());
            owner
        }
    }

    #[inline(always)]
    fn prove(&self, ends: &Ends) {
        prove(ends.source);
    }

    #[inline(always)]
    fn may_pass(&self) -> bool {
        is_one_of(few::STRAYS)
    }

    #[inline(always)]
    fn may_look(&self) -> bool {
        is_one_of(few::RESETS)
    }
}

/// Number of low bits of a time in nanoseconds that make up about a second (1.07 s).
const SECOND_BITS: u32 = 30;

/// True for the first `max` events of a second on this CPU.
#[inline(always)]
fn is_one_of((place, max): (u32, u64)) -> bool {
    let Some(counted) = FEW.get_ptr_mut(place) else {
        return false;
    };
    // The low bits count events, the others are the second.
    let begun = now() >> SECOND_BITS << SECOND_BITS;
    // SAFETY: this CPU's own slot, aligned and alive as long as the program; nothing else runs on it while the program does.
    unsafe {
        let count = if *counted >> SECOND_BITS << SECOND_BITS == begun {
            *counted
        } else {
            begun
        };
        let is_one = count - begun < max;
        if is_one {
            *counted = count + 1;
        }
        is_one
    }
}
const _: () = assert!(few::STRAYS.1 < 1 << SECOND_BITS);
const _: () = assert!(few::SYNS.1 < 1 << SECOND_BITS && few::RESETS.1 < 1 << SECOND_BITS);

/// CLOCK_MONOTONIC in nanoseconds. The coarse clock costs a load; the fine one reads the timer. It lags by at most a tick.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments, which every XDP program may call since Linux 5.11.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Notes that a client is verified.
#[inline(always)]
fn prove(client: Address) {
    let Some(place) = place(client) else {
        return;
    };
    let Some(set) = set_of(place) else { return };
    let (is_second, entry) = place.prove(read_set(set), now());
    let to = set.cast::<u64>();
    // SAFETY: one of the two aligned numbers of a set that lives as long as the map. Another processor may write it at the
    // same time; one of the two clients is then forgotten.
    unsafe {
        let to = if is_second { to.add(1) } else { to };
        to.write_volatile(entry);
    }
}

/// True if the client was verified in the last `secs` seconds.
#[inline(always)]
fn has_proved(client: Address, secs: u32) -> bool {
    let Some(place) = place(client) else {
        return false;
    };
    set_of(place).is_some_and(|set| place.has_proved(read_set(set), now(), secs))
}

/// Slot of a client in the table.
#[inline(always)]
fn place(client: Address) -> Option<ClientSlot> {
    let Address(high, low) = client;
    hash_by(secret::CLIENTS, [high, low]).map(ClientSlot::of)
}

/// Hash of the words by one of the secret keys.
#[inline(always)]
fn hash_by<const N: usize>(place: u32, words: [u64; N]) -> Option<u64> {
    let key = SECRETS.get_ptr(place)?;
    // SAFETY: the look-up returned an initialized value that lives as long as the map. User space may write it at the same
    // time: any bytes are a key, and a mix of two keys counts or asks this frame's client once more at worst.
    Some(hash::of_words(words, unsafe { &*key }))
}

#[inline(always)]
fn set_of(place: ClientSlot) -> Option<*mut ClientSet> {
    CLIENTS.get_ptr_mut(place.index)
}

#[inline(always)]
fn read_set(set: *mut ClientSet) -> ClientSet {
    let one = set.cast::<u64>();
    // SAFETY: both are aligned numbers of a set that lives as long as the map. Another processor may write them at any
    // time, so the loads are volatile. They are never torn on a 64-bit machine; elsewhere a torn one matches no
    // fingerprint, or has another second.
    unsafe { [one.read_volatile(), one.add(1).read_volatile()] }
}

impl Run<'_, true> {
    /// Tail-calls the program for hosts behind this one with a segment to another host; returns `reason` if it is not loaded.
    #[inline(always)]
    pub fn hand_on_forward(&self, reason: Reason) -> Reason {
        if matches!(reason, Reason::PassProtocol | Reason::PassVlanPriority) {
            hand_on(self.ctx, tail::FORWARD);
        }
        reason
    }

    /// Socket of a segment with these ends. It has to be released.
    #[inline(always)]
    fn socket(&self, tuple: &mut MaybeUninit<Tuple>, len: u32) -> Option<*mut Socket> {
        let netns = BPF_F_CURRENT_NETNS as i64 as u64;
        // SAFETY: the tuple is initialized as far as its length says, and the context is the kernel's.
        let socket =
            unsafe { bpf_skc_lookup_tcp(self.ctx.as_ptr(), tuple.as_mut_ptr(), len, netns, 0) };
        (!socket.is_null()).then_some(socket)
    }

    /// Sets the length of the frame. `None` if that fails, which leaves it unchanged.
    #[inline(always)]
    fn set_len(&self, len: usize) -> Option<()> {
        let more = len as i32 - context::frame_len(self.ctx) as i32;
        // SAFETY: the context is the kernel's. No earlier view of the frame is used from here on.
        (unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, more) } == 0).then_some(())
    }

    /// Sets the frame to the answer's length and writes the answer into it.
    #[inline(always)]
    pub fn answer(&self, answer: &SegmentAnswer, reason: Reason) -> Reason {
        if self.set_len(answer.len()).is_none() {
            return Reason::PassNoRoom;
        }
        // Exactly as long as the answer, in one buffer; the check is for the verifier.
        match answer.write(context::frame_mut(self.ctx)) {
            Some(()) => reason,
            None => Reason::PassTruncated,
        }
    }
}

/// A TCP header without options.
type TcpHeader = [u32; tcp::HEADER_LEN / size_of::<u32>()];
/// Room for the longer of both IP headers.
type IpHeader = [u32; ipv6::HEADER_LEN / size_of::<u32>()];

/// Describes a SYN for the kernel's helpers: its tuple, and an IP header, of which they read version and addresses. Returns
/// the lengths of both.
#[inline(always)]
fn describe(
    ends: &Ends,
    tuple: &mut MaybeUninit<Tuple>,
    ip: &mut MaybeUninit<IpHeader>,
) -> (u32, u32) {
    let ([a, b], [c, d]) = (
        ends.source_port.to_ne_bytes(),
        ends.destination_port.to_ne_bytes(),
    );
    let ports = u32::from_ne_bytes([a, b, c, d]);
    match (ends.source.ipv4(), ends.destination.ipv4()) {
        (Some(source), Some(destination)) => {
            let version = u32::from_ne_bytes([ipv4::VERSION_4_IHL_5, 0, 0, 0]);
            let ip = store(ip, [version, 0, 0, source, destination]);
            (store(tuple, [source, destination, ports]), ip)
        }
        _ => {
            let version = u32::from_ne_bytes(ipv6::VERSION_6);
            let ([a, b, c, d], [e, f, g, h]) = (words(ends.source), words(ends.destination));
            let ip = store(ip, [version, 0, a, b, c, d, e, f, g, h]);
            (store(tuple, [a, b, c, d, e, f, g, h, ports]), ip)
        }
    }
}

/// Writes words to the start of a place on the stack, and returns their length in bytes.
///
/// One by one and volatile: the compiler would merge two words into eight bytes at any alignment, and the verifier accepts
/// only aligned stores to the stack.
#[inline(always)]
fn store<T, const N: usize>(place: &mut MaybeUninit<T>, words: [u32; N]) -> u32 {
    const { assert!(size_of::<[u32; N]>() <= size_of::<T>()) };
    const { assert!(align_of::<T>() >= align_of::<u32>()) };
    let start = place.as_mut_ptr().cast::<u32>();
    for (at, word) in words.into_iter().enumerate() {
        // SAFETY: inside the place, at its alignment; both are asserted above.
        unsafe { start.add(at).write_volatile(word) }
    }
    size_of::<[u32; N]>() as u32
}

/// FIB look-up of a reply: from us to the client, without a limit of its length.
#[inline(always)]
fn fib_lookup<'a>(fib: &'a mut MaybeUninit<FibLookup>, reply: &ReplyFlow) -> &'a mut FibLookup {
    let fib = zeroed(fib);
    fib.l4_protocol = reply.protocol;
    fib.sport = reply.source_port;
    fib.dport = reply.destination_port;
    fib.ifindex = LOOPBACK_IFINDEX;
    match (reply.source.ipv4(), reply.destination.ipv4()) {
        (Some(source), Some(destination)) => {
            fib.family = AF_INET;
            fib.__bindgen_anon_3.ipv4_src = source;
            fib.__bindgen_anon_4.ipv4_dst = destination;
        }
        _ => {
            fib.family = AF_INET6;
            fib.__bindgen_anon_3.ipv6_src = words(reply.source);
            fib.__bindgen_anon_4.ipv6_dst = words(reply.destination);
        }
    }
    fib
}

/// Fills the value with zeros to its last byte, since the helper reads all of it.
///
/// In place, word by word and volatile, because the compiler would call memset, whose pointer arithmetic on the stack the
/// verifier accepts only with CAP_PERFMON.
#[inline(always)]
fn zeroed(fib: &mut MaybeUninit<FibLookup>) -> &mut FibLookup {
    const WORDS: usize = size_of::<FibLookup>() / size_of::<u32>();
    const { assert!(WORDS * size_of::<u32>() == size_of::<FibLookup>()) };
    const { assert!(align_of::<FibLookup>() == align_of::<u32>()) };
    for word in 0..WORDS {
        // SAFETY: inside the value, at its alignment; both are asserted above.
        unsafe { fib.as_mut_ptr().cast::<u32>().add(word).write_volatile(0) }
    }
    // SAFETY: every byte is written above, and zero is a value of each integer and union of integers in it.
    unsafe { fib.assume_init_mut() }
}

#[inline(always)]
const fn words(address: Address) -> [u32; 4] {
    let Address(high, low) = address;
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
        (high.to_ne_bytes(), low.to_ne_bytes());
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}
