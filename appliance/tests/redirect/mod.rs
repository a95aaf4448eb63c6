//! The smallest XDP program that feeds an AF_XDP socket: every frame goes to the socket of its RX queue.
//!
//! Six instructions, assembled by hand, so that tests and benchmarks of sockets depend on nothing of the daemon's
//! program. Detaches when dropped.

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_ATTACH_TYPE_XDP: u32 = 37;
/// Queues that the map has room for.
const QUEUES_MAX: u32 = 64;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// In the driver (`XDP_FLAGS_DRV_MODE`).
    Native = 1 << 2,
    /// Behind the driver (`XDP_FLAGS_SKB_MODE`).
    Generic = 1 << 1,
}

/// The attached program and its XSKMAP.
#[derive(Debug)]
pub struct Redirect {
    map: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    /// Loads the program and attaches it to an interface of the calling thread's network namespace.
    pub fn attach(ifindex: u32, attach: Attach) -> io::Result<Self> {
        let map = create_map()?;
        let program = load_program(map.as_raw_fd())?;
        let link = bpf(
            BPF_LINK_CREATE,
            &LinkCreate {
                program: program.as_raw_fd(),
                ifindex,
                attach_type: BPF_ATTACH_TYPE_XDP,
                flags: attach as u32,
            },
        )?;
        Ok(Self {
            map,
            _link: owned(link),
        })
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

#[repr(C)]
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

#[repr(C)]
struct MapUpdate {
    map: RawFd,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
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

#[repr(C)]
struct LinkCreate {
    program: RawFd,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// One instruction: opcode, destination and source register, offset, immediate.
const fn instruction(opcode: u8, dst: u8, src: u8, offset: u16, immediate: u32) -> u64 {
    opcode as u64
        | (dst as u64) << 8
        | (src as u64) << 12
        | (offset as u64) << 16
        | (immediate as u64) << 32
}

fn load_program(map: RawFd) -> io::Result<OwnedFd> {
    const XDP_PASS: u32 = 2;
    const REDIRECT_MAP: u32 = 51;
    const MAP_FD: u8 = 1;
    let instructions = [
        instruction(0x61, 2, 1, 16, 0), // r2 = ctx->rx_queue_index
        instruction(0x18, 1, MAP_FD, 0, map as u32), // r1 = the map, in two slots
        instruction(0, 0, 0, 0, 0),
        instruction(0xb7, 3, 0, 0, XDP_PASS), // r3 = what happens without a socket
        instruction(0x85, 0, 0, 0, REDIRECT_MAP), // r0 = bpf_redirect_map(r1, r2, r3)
        instruction(0x95, 0, 0, 0, 0),        // return r0
    ];
    let program = bpf(
        BPF_PROG_LOAD,
        &ProgLoad {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"MIT".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        },
    )?;
    Ok(owned(program))
}

/// The name is the one that libbpf, under the `afxdp` crate, looks for.
fn create_map() -> io::Result<OwnedFd> {
    let map = bpf(
        BPF_MAP_CREATE,
        &MapCreate {
            map_type: BPF_MAP_TYPE_XSKMAP,
            key_size: size_of::<u32>() as u32,
            value_size: size_of::<u32>() as u32,
            max_entries: QUEUES_MAX,
            flags: 0,
            inner_map: 0,
            numa_node: 0,
            name: *b"xsks_map\0\0\0\0\0\0\0\0",
        },
    )?;
    Ok(owned(map))
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: attributes is the leading part of the kernel's union for this command, its size says how much of it, and
    // the pointers in it lead to values that the caller keeps alive during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of_val(attributes),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as RawFd)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: bpf(2) has just made this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
