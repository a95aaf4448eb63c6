//! Tiny XDP programs, assembled by hand, so that tests and benchmarks depend on nothing of the appliance's program.
//!
//! Everything goes when its owner drops it: the kernel detaches a program with the last descriptor of its link.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

pub mod instruction;

use instruction::{Instruction, R0, R1, R2, R3};

/// Set to an object's path, the eBPF tests run that one instead of the committed one.
pub const OBJECT_VARIABLE: &str = "XDNSD_EBPF_OBJECT";

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_ATTACH_TYPE_XDP: u32 = 37;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// Frames that a live run hands on at once; the kernel's default.
const LIVE_BATCH: u32 = 64;
/// Offset of rx_queue_index in struct xdp_md.
const RX_QUEUE_INDEX: i16 = 16;
/// What a program says to have a frame go on to the kernel.
const XDP_PASS: i32 = 2;
const HELPER_REDIRECT_MAP: i32 = 51;
/// Queues that the map has room for.
const QUEUES_MAX: u32 = 64;

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// In the driver (`XDP_FLAGS_DRV_MODE`).
    Native = 1 << 2,
    /// Behind the driver (`XDP_FLAGS_SKB_MODE`).
    Generic = 1 << 1,
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads it; the kernel's verifier has the last word.
    pub fn load(instructions: &[Instruction]) -> io::Result<Self> {
        let attributes = ProgLoad {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"MIT".as_ptr() as u64,
            ..ProgLoad::default()
        };
        bpf(BPF_PROG_LOAD, &attributes).map(owned).map(Self)
    }

    /// One that leaves every frame to the kernel. On a veth it has a purpose: the pair takes frames that XDP sends
    /// only where the receiving end has a program.
    pub fn pass() -> io::Result<Self> {
        Self::load(&[Instruction::set(R0, XDP_PASS), Instruction::exit()])
    }

    /// Attaches it to an interface of the calling thread's network namespace, for as long as the result lives.
    pub fn attach(&self, ifindex: u32, attach: Attach) -> io::Result<Link> {
        let attributes = LinkCreate {
            program: self.0.as_raw_fd(),
            ifindex,
            attach_type: BPF_ATTACH_TYPE_XDP,
            flags: attach as u32,
        };
        bpf(BPF_LINK_CREATE, &attributes).map(owned).map(Link)
    }

    /// Runs it on `count` copies of `frame`, and the kernel does with each what the program says. Returns when all are
    /// on their way. Needs Linux 5.18.
    pub fn run_live(&self, frame: &[u8], count: u32) -> io::Result<()> {
        let attributes = TestRun {
            program: self.0.as_raw_fd(),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: count,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: LIVE_BATCH,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &attributes).map(drop)
    }
}

/// A program that is attached.
#[derive(Debug)]
pub struct Link(#[expect(dead_code, reason = "held for its drop, which detaches")] OwnedFd);

/// An attached program that gives every frame to the AF_XDP socket of its RX queue, and its XSKMAP.
#[derive(Debug)]
pub struct Redirect {
    map: OwnedFd,
    #[expect(dead_code, reason = "held for its drop, which detaches")]
    link: Link,
}

impl Redirect {
    /// Attaches it to an interface of the calling thread's network namespace. Without a socket a frame goes on to the
    /// kernel.
    pub fn attach(ifindex: u32, attach: Attach) -> io::Result<Self> {
        let map = create_xskmap()?;
        let [map_low, map_high] = Instruction::set_map(R1, map.as_raw_fd());
        let program = Program::load(&[
            Instruction::load_u32(R2, R1, RX_QUEUE_INDEX),
            map_low,
            map_high,
            Instruction::set(R3, XDP_PASS),
            Instruction::call(HELPER_REDIRECT_MAP),
            Instruction::exit(),
        ])?;
        let link = program.attach(ifindex, attach)?;
        Ok(Self { map, link })
    }

    /// Gives the frames of `queue` to `socket`.
    pub fn set_socket(&self, queue: u32, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd().as_raw_fd();
        let attributes = MapUpdate {
            map: self.map.as_raw_fd(),
            padding: 0,
            key: &raw const queue as u64,
            value: &raw const socket as u64,
            flags: 0,
        };
        bpf(BPF_MAP_UPDATE_ELEM, &attributes).map(drop)
    }
}

/// The name is the one that libbpf, under the `afxdp` crate, looks for.
fn create_xskmap() -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type: BPF_MAP_TYPE_XSKMAP,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<RawFd>() as u32,
        max_entries: QUEUES_MAX,
        name: *b"xsks_map\0\0\0\0\0\0\0\0",
        ..MapCreate::default()
    };
    bpf(BPF_MAP_CREATE, &attributes).map(owned)
}

/// Leading parts of the kernel's `union bpf_attr`, one per command. The kernel takes what is beyond them as zero.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and its pointers lead to values that live while it is used.
unsafe trait Attributes {}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}
// SAFETY: 44 bytes of integers without padding, no pointers.
unsafe impl Attributes for MapCreate {}

#[repr(C)]
struct MapUpdate {
    map: RawFd,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}
// SAFETY: padding is a field; set_socket points key and value at locals that outlive the call.
unsafe impl Attributes for MapUpdate {}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}
// SAFETY: no padding; load points instructions at its argument, with its count, and license at a static.
unsafe impl Attributes for ProgLoad {}

#[repr(C)]
struct LinkCreate {
    program: RawFd,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}
// SAFETY: 16 bytes of integers without padding, no pointers.
unsafe impl Attributes for LinkCreate {}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: RawFd,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}
// SAFETY: padding is a field; run_live points data_in at its argument, with its length, and the rest nowhere.
unsafe impl Attributes for TestRun {}

fn bpf<T: Attributes>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    let size = size_of::<T>();
    // SAFETY: attributes is what the command reads, size bytes of it; its pointers are valid (see Attributes).
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    RawFd::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: bpf(2) has just made this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
