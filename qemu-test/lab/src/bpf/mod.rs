//! Tiny XDP programs, assembled by hand, so that tests and benchmarks are independent of the appliance's program.
//!
//! Everything ends when its owner drops it: the kernel detaches a program with the last descriptor of its link.

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

/// Environment variable: path of an object that the eBPF tests run instead of the committed one.
pub const OBJECT_VARIABLE: &str = "XDNSD_EBPF_OBJECT";

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_ATTACH_TYPE_XDP: u32 = 37;
/// Flag of a program that takes multi-buffer frames. Tail calls require that both programs agree in it.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// Frames that a live run passes on at once; the kernel's default.
pub const LIVE_BATCH: u32 = 64;
/// Offset of rx_queue_index in struct xdp_md.
const RX_QUEUE_INDEX: i16 = 16;
/// Action: drop the frame.
pub const XDP_DROP: i32 = 1;
/// Action: pass the frame to the kernel.
pub const XDP_PASS: i32 = 2;
/// Action: send the frame back by the device that it arrived on.
pub const XDP_TX: i32 = 3;
/// Action: redirect the frame to where a helper was told.
pub const XDP_REDIRECT: i32 = 4;
/// Offset of `data`, the address of a frame's first byte, in struct xdp_md.
pub const DATA: i16 = 0;
/// Offset of `data_end`, the address after its last one.
pub const DATA_END: i16 = 4;
const HELPER_REDIRECT_MAP: i32 = 51;
/// Entries of the XSKMAP.
const QUEUES_MAX: u32 = 64;

/// Mode of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// In the driver (`XDP_FLAGS_DRV_MODE`).
    Native = 1 << 2,
    /// Generic (`XDP_FLAGS_SKB_MODE`).
    Generic = 1 << 1,
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads a program, which the verifier checks.
    pub fn load(instructions: &[Instruction]) -> io::Result<Self> {
        Self::load_with(instructions, 0)
    }

    /// Loads a program that takes multi-buffer frames (Linux 5.18).
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

    /// Opens the kernel's program with this ID, such as one that another process has attached.
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

    /// A program that passes every frame to the kernel. On a veth it serves a purpose: the pair takes frames that XDP sends only
    /// if the receiving end has a program.
    pub fn pass() -> io::Result<Self> {
        Self::load(&[Instruction::set(R0, XDP_PASS), Instruction::exit()])
    }

    /// A program that returns `action` for every frame, multi-buffer frames included.
    pub fn verdict(action: i32) -> io::Result<Self> {
        Self::load_frags(&[Instruction::set(R0, action), Instruction::exit()])
    }

    /// The bare XDP_TX reflector: swaps MAC addresses, IPv4 addresses and ports, and sends the frame back. Packets other than
    /// IPv4 pass to the kernel; it checks nothing else.
    pub fn reflector() -> io::Result<Self> {
        Self::load_frags(&reflector::code())
    }

    /// A reflector that writes as much as an answer: to a frame of `len` bytes it adds `answer`. The frame grows at its head,
    /// where there is room, so all of it moves. Lengths and checksums stay those of the query.
    pub fn growing_reflector(len: usize, answer: &[u8]) -> io::Result<Self> {
        Self::load_frags(&reflector::growing_code(len, answer))
    }

    /// Attaches the program to an interface of the calling thread's network namespace, for as long as the result lives.
    pub fn attach(&self, ifindex: u32, attach: Attach) -> io::Result<Link> {
        let mut attributes = LinkCreate {
            program: self.0.as_raw_fd(),
            ifindex,
            attach_type: BPF_ATTACH_TYPE_XDP,
            flags: attach as u32,
        };
        bpf(BPF_LINK_CREATE, &mut attributes).map(owned).map(Link)
    }

    /// Runs the program on `count` frames, `batch` at a time, and the kernel acts on each as the program says. Returns when all
    /// are on their way. Needs Linux 5.18.
    ///
    /// Frames begin as copies of `frame`, but recycled memory is as the last user left it: a program that sends has to write
    /// every byte that may have changed.
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

    /// Runs the program `count` times on the same frame, received on `ifindex` of the calling thread's network namespace; returns
    /// the nanoseconds per run and the last run's action. What it writes to the frame stays for the next run.
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

/// Attaches a program that passes every frame to an interface of a host, in its driver, whatever its MTU.
pub fn attach_pass(host: &Namespace, interface: &str) -> io::Result<Link> {
    host.run(|| Program::verdict(XDP_PASS)?.attach(if_nametoindex(interface)?, Attach::Native))
}

/// An attached program; detached when dropped.
#[derive(Debug)]
pub struct Link(#[expect(dead_code, reason = "held for its drop, which detaches")] OwnedFd);

/// An attached program that redirects every frame to the AF_XDP socket of its RX queue, and its XSKMAP.
#[derive(Debug)]
pub struct Redirect {
    map: OwnedFd,
    #[expect(dead_code, reason = "held for its drop, which detaches")]
    link: Link,
}

impl Redirect {
    /// Attaches the program to an interface of the calling thread's network namespace. Frames of a queue without a socket pass to
    /// the kernel.
    pub fn attach(ifindex: u32, attach: Attach) -> io::Result<Self> {
        // libbpf, under the `afxdp` crate, looks for this name.
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

    /// Redirects the frames of `queue` to `socket`.
    pub fn set_socket(&self, queue: u32, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd().as_raw_fd();
        maps::set(self.map.as_fd(), queue, &socket.to_ne_bytes())
    }
}

/// Leading parts of the kernel's `union bpf_attr`, one per command. The kernel takes the rest as zero.
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
// SAFETY: padding is a field; run_live and run_timed point data_in at their argument, with its length, run_timed points
// context_in at a local that outlives the call, and the other pointers are null.
unsafe impl Attributes for TestRun {}

fn bpf<T: Attributes>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    let size = size_of::<T>();
    // SAFETY: the command reads and writes `size` bytes of `attributes`; its pointers are valid (see Attributes).
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    RawFd::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: bpf(2) has just made this descriptor, so we are its only owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
