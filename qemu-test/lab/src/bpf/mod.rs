//! Tiny XDP programs, assembled by hand, so that tests and benchmarks depend on nothing of the appliance's program.
//!
//! Everything goes when its owner drops it: the kernel detaches a program with the last descriptor of its link.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

pub mod assembler;
pub mod cost;
pub mod instruction;
pub mod maps;
mod reflector;

use nix::net::if_::if_nametoindex;

use crate::netns::Namespace;
use instruction::{Instruction, R0, R1, R2, R3};

/// Set to an object's path, the eBPF tests run that one instead of the committed one.
pub const OBJECT_VARIABLE: &str = "XDNSD_EBPF_OBJECT";

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_ATTACH_TYPE_XDP: u32 = 37;
/// The program takes frames in several buffers. Tail calls lead only to programs that agree in this.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// Frames that a live run hands on at once; the kernel's default.
pub const LIVE_BATCH: u32 = 64;
/// Offset of rx_queue_index in struct xdp_md.
const RX_QUEUE_INDEX: i16 = 16;
/// What a program says to have a frame thrown away.
pub const XDP_DROP: i32 = 1;
/// What a program says to have a frame go on to the kernel.
pub const XDP_PASS: i32 = 2;
/// What a program says to have a frame sent back by the device that it came by.
pub const XDP_TX: i32 = 3;
/// What a program says to have a frame go where it has told the kernel.
pub const XDP_REDIRECT: i32 = 4;
/// Offset of `data`, the address of a frame's first byte, in struct xdp_md.
pub const DATA: i16 = 0;
/// Offset of `data_end`, the address behind its last one.
pub const DATA_END: i16 = 4;
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
        Self::load_with(instructions, 0)
    }

    /// The same of one that takes frames in several buffers (Linux 5.18).
    pub fn load_frags(instructions: &[Instruction]) -> io::Result<Self> {
        Self::load_with(instructions, BPF_F_XDP_HAS_FRAGS)
    }

    fn load_with(instructions: &[Instruction], flags: u32) -> io::Result<Self> {
        let mut attributes = ProgLoad {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"MIT".as_ptr() as u64,
            flags,
            attach_type: BPF_ATTACH_TYPE_XDP,
            ..ProgLoad::default()
        };
        bpf(BPF_PROG_LOAD, &mut attributes).map(owned).map(Self)
    }

    /// The program that the kernel knows by this number, such as one that another process has attached.
    pub fn by_id(id: u32) -> io::Result<Self> {
        let mut attributes = ById {
            id,
            next: 0,
            flags: 0,
        };
        bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes)
            .map(owned)
            .map(Self)
    }

    /// One that leaves every frame to the kernel. On a veth it has a purpose: the pair takes frames that XDP sends
    /// only where the receiving end has a program.
    pub fn pass() -> io::Result<Self> {
        Self::load(&[Instruction::set(R0, XDP_PASS), Instruction::exit()])
    }

    /// One that says the same of every frame, and takes those in several buffers.
    pub fn verdict(action: i32) -> io::Result<Self> {
        Self::load_frags(&[Instruction::set(R0, action), Instruction::exit()])
    }

    /// The bare XDP_TX reflector: swaps MAC addresses, IPv4 addresses and ports, and sends the frame back. Packets
    /// other than IPv4 pass to the kernel; it looks at nothing else.
    pub fn reflector() -> io::Result<Self> {
        Self::load_frags(&reflector::code())
    }

    /// One that answers as little as that, and writes as much as an answer: to a frame of `len` bytes it adds these, at the
    /// head, where there is room, so that all of it moves. Its lengths and checksums are those of the query.
    pub fn growing_reflector(len: usize, answer: &[u8]) -> io::Result<Self> {
        Self::load_frags(&reflector::growing_code(len, answer))
    }

    /// Attaches it to an interface of the calling thread's network namespace, for as long as the result lives.
    pub fn attach(&self, ifindex: u32, attach: Attach) -> io::Result<Link> {
        let mut attributes = LinkCreate {
            program: self.0.as_raw_fd(),
            ifindex,
            attach_type: BPF_ATTACH_TYPE_XDP,
            flags: attach as u32,
        };
        bpf(BPF_LINK_CREATE, &mut attributes).map(owned).map(Link)
    }

    /// Runs it on `count` frames, and the kernel does with each what the program says, `batch` at a time. Returns when all are
    /// on their way. Needs Linux 5.18.
    ///
    /// Frames begin as copies of `frame`, but memory comes back as the last user left it: a program that sends has to write every
    /// byte that may have changed.
    pub fn run_live(&self, frame: &[u8], count: u32, batch: u32) -> io::Result<()> {
        let mut attributes = TestRun {
            program: self.0.as_raw_fd(),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: count,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: batch,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut attributes).map(drop)
    }

    /// Runs it `count` times on the same frame, as if it came by `ifindex` of the calling thread's network namespace, and gives
    /// the nanoseconds that a run took, and the last run's verdict. What it writes to the frame stays for the next run.
    fn run_timed(&self, frame: &[u8], ifindex: u32, count: u32) -> io::Result<(u32, i32)> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, ifindex, 0, 0];
        let mut attributes = TestRun {
            program: self.0.as_raw_fd(),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            context_size_in: size_of_val(&context) as u32,
            context_in: context.as_ptr() as u64,
            repeat: count,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
        Ok((attributes.duration, attributes.result as i32))
    }
}

/// Attaches [`Program::pass`] to an interface of a host, in its driver.
pub fn attach_pass(host: &Namespace, interface: &str) -> io::Result<Link> {
    host.run(|| Program::pass()?.attach(if_nametoindex(interface)?, Attach::Native))
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
        // The name is the one that libbpf, under the `afxdp` crate, looks for.
        let map = maps::create(
            BPF_MAP_TYPE_XSKMAP,
            size_of::<RawFd>(),
            QUEUES_MAX,
            "xsks_map",
        )?;
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
        maps::set(self.map.as_fd(), queue, &socket.to_ne_bytes())
    }
}

/// Leading parts of the kernel's `union bpf_attr`, one per command. The kernel takes what is beyond them as zero.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and its pointers lead to values that live while it is used.
unsafe trait Attributes {}

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
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}
// SAFETY: no padding; load_with points instructions at its argument, with its count, and license at a static.
unsafe impl Attributes for ProgLoad {}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}
// SAFETY: 12 bytes of integers without padding, no pointers.
unsafe impl Attributes for ById {}

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
// SAFETY: padding is a field; run_live and run_timed point data_in at their argument, with its length, run_timed points context_in
// at a local that outlives the call, and the rest leads nowhere.
unsafe impl Attributes for TestRun {}

fn bpf<T: Attributes>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    let size = size_of::<T>();
    // SAFETY: attributes is what the command reads and writes, size bytes of it; its pointers are valid (see Attributes).
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    RawFd::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: bpf(2) has just made this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
