//! Opening a socket: the system calls in the order in which the kernel wants them (af_xdp.rst).
//!
//! socket, UMEM, ring sizes, ring mappings, first fill, bind. Rings must be mapped before bind, and some drivers take
//! buffers from the fill ring while they bind, so it is primed before.

use super::error::{SetupError, SetupStep};
use super::mapping::Mapping;
use super::ring::{AddressEntry, Consumer, DescriptorEntry, Producer};
use super::slot::{RxQueue, UmemSlot};
use super::sys::errno;
use super::umem::{SLOT_SIZE, Umem, address_of};
use super::{BindMode, CopyMode, Options, sys};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use xdnsd_core::limits::{CHUNK_SIZE, RX_RING, TX_RING};

/// The rings of a bound socket, our ends.
pub struct Rings {
    pub fill: Producer<Mapping<AddressEntry>>,
    pub rx: Consumer<Mapping<DescriptorEntry>>,
    pub tx: Producer<Mapping<DescriptorEntry>>,
    pub completion: Consumer<Mapping<AddressEntry>>,
}

/// Makes a bound socket with a primed fill ring.
pub fn open(options: &Options<'_>, slot: UmemSlot) -> Result<(Rings, OwnedFd, Umem), SetupError> {
    let failed = |(step, errno)| SetupError {
        interface: options.interface.to_owned(),
        queue: options.queue,
        step,
        errno,
    };
    try_open(options, slot).map_err(failed)
}

type StepResult<T> = Result<T, (SetupStep, Errno)>;

fn try_open(options: &Options<'_>, slot: UmemSlot) -> StepResult<(Rings, OwnedFd, Umem)> {
    let ifindex =
        if_nametoindex(options.interface).map_err(|errno| (SetupStep::Interface, errno))?;
    let queue = RxQueue {
        ifindex,
        queue: options.queue,
    };
    if !slot.is_for(queue) {
        return Err((SetupStep::Bind(options.mode), Errno::EBUSY));
    }
    let mut umem = Umem::new(slot);
    let fd = new_socket().map_err(|errno| (SetupStep::Socket, errno))?;
    sys::raise_memlock();
    register_umem(fd.as_fd(), umem.slot())
        .map_err(|errno| (SetupStep::UmemReg(SLOT_SIZE), errno))?;
    set_ring_sizes(fd.as_fd())?;
    let mut rings = map_rings(fd.as_fd())?;
    fill(&mut rings.fill, &mut umem);
    bind(fd.as_fd(), ifindex, options).map_err(|errno| (SetupStep::Bind(options.mode), errno))?;
    sys::tune(fd.as_fd());
    match sys::mode(fd.as_fd()) {
        Ok(CopyMode::Copy) => umem.slot().take_back(),
        // A mode that cannot be told is taken for the one with more to mind.
        Ok(CopyMode::ZeroCopy) | Err(_) => umem.slot().lend(queue),
    }
    Ok((rings, fd, umem))
}

/// Moves free RX chunks into the fill ring until one of the two is exhausted.
pub fn fill(ring: &mut Producer<Mapping<AddressEntry>>, umem: &mut Umem) {
    let wanted = umem.refillable();
    if wanted == 0 {
        return;
    }
    for _ in 0..ring.free(wanted).min(wanted) {
        let Some(address) = umem.refill() else { break };
        let pushed = ring.push(address);
        debug_assert!(pushed, "the fill ring had room");
    }
    ring.submit();
}

fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    net::socket_with(AddressFamily::XDP, SocketType::RAW, flags, None).map_err(errno)
}

/// By a call of our own although rustix has a safe function: this option hands memory to the kernel, which is ours to argue.
fn register_umem(fd: BorrowedFd<'_>, slot: &UmemSlot) -> nix::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: address_of(slot) as u64,
        len: SLOT_SIZE as u64,
        chunk_size: CHUNK_SIZE as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    let value = (&raw const registration).cast::<libc::c_void>();
    let len = size_of::<libc::xdp_umem_reg>() as libc::socklen_t;
    // SAFETY: value lives through the call and len is its size. It names the memory of a slot that was claimed for this
    // socket alone: a static, so it outlives the socket, page-aligned, and reached by us only through frames, which
    // exist only for chunks that are in none of the kernel's rings.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_UMEM_REG,
            value,
            len,
        )
    };
    Errno::result(result).map(drop)
}

fn set_ring_sizes(fd: BorrowedFd<'_>) -> StepResult<()> {
    let failed = |name| move |error| (SetupStep::RingSize(name), errno(error));
    sockopt::set_xdp_umem_fill_ring_size(fd, RX_RING as u32)
        .map_err(failed("XDP_UMEM_FILL_RING"))?;
    sockopt::set_xdp_umem_completion_ring_size(fd, TX_RING as u32)
        .map_err(failed("XDP_UMEM_COMPLETION_RING"))?;
    sockopt::set_xdp_rx_ring_size(fd, RX_RING as u32).map_err(failed("XDP_RX_RING"))?;
    sockopt::set_xdp_tx_ring_size(fd, TX_RING as u32).map_err(failed("XDP_TX_RING"))
}

fn map_rings(fd: BorrowedFd<'_>) -> StepResult<Rings> {
    let offsets =
        sockopt::xdp_mmap_offsets(fd).map_err(|error| (SetupStep::MmapOffsets, errno(error)))?;
    let fill_page = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;
    let completion_page = libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t;
    let failed = |ring| move |errno| (SetupStep::MapRing(ring), errno);
    Ok(Rings {
        fill: Producer::new(
            Mapping::new(fd, fill_page, &offsets.fr, RX_RING).map_err(failed("fill"))?,
        ),
        rx: Consumer::new(
            Mapping::new(fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, RX_RING)
                .map_err(failed("RX"))?,
        ),
        tx: Producer::new(
            Mapping::new(fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, TX_RING)
                .map_err(failed("TX"))?,
        ),
        completion: Consumer::new(
            Mapping::new(fd, completion_page, &offsets.cr, TX_RING)
                .map_err(failed("completion"))?,
        ),
    })
}

fn bind(fd: BorrowedFd<'_>, ifindex: u32, options: &Options<'_>) -> nix::Result<()> {
    let flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | mode_flags(options.mode);
    let address = SocketAddrXdp::new(flags, ifindex, options.queue);
    for _ in 1..sys::BIND_TRIES {
        match net::bind(fd, &address) {
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(sys::BIND_PAUSE),
            result => return result.map_err(errno),
        }
    }
    net::bind(fd, &address).map_err(errno)
}

/// Neither flag lets the kernel try zero copy first and fall back to copying.
const fn mode_flags(mode: BindMode) -> SocketAddrXdpFlags {
    match mode {
        BindMode::Copy => SocketAddrXdpFlags::XDP_COPY,
        BindMode::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
        BindMode::Auto => SocketAddrXdpFlags::empty(),
    }
}
