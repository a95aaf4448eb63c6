//! Opens a socket: the system calls in the order that the kernel requires (af_xdp.rst).
//!
//! socket, UMEM (for the first of the sockets that share it), ring sizes, ring mappings, first fill, bind. Rings must be mapped
//! before bind, and some drivers take buffers from the fill ring while they bind, so it is primed before.

use super::error::SetupStep;
use super::mapping::Mapping;
use super::pool::{Pool, SharedUmem, address_of};
use super::ring::{AddressEntry, Consumer, DescriptorEntry, Producer};
use super::shape::Shape;
use super::slot::{ChunkSet, RxQueue, UmemSlot};
use super::sys::errno;
use super::umem::{self, SLOT_SIZE};
use super::{BindMode, CopyMode, Options, sys};
use crate::os::keeper::SocketKind;
use crate::os::{device, socket};
use nix::errno::Errno;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem};
use rustix::net::{self, sockopt};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use xdnsd_core::limits::CHUNK_SIZE;

/// Our ends of a bound socket's rings.
pub struct Rings {
    pub fill: Producer<Mapping<AddressEntry>>,
    pub rx: Consumer<Mapping<DescriptorEntry>>,
    pub tx: Producer<Mapping<DescriptorEntry>>,
    pub completion: Consumer<Mapping<AddressEntry>>,
}

/// A bound socket.
pub struct Opened {
    pub rings: Rings,
    pub fd: OwnedFd,
    /// Chunks that its fill ring was primed with.
    pub primed: ChunkSet,
    pub mode: CopyMode,
}

pub type StepResult<T> = Result<T, (SetupStep, Errno)>;

/// Makes a bound socket with a primed fill ring, on the UMEM that `other` has registered, or on the memory of `shared`,
/// registered now.
pub fn open(
    options: &Options<'_>,
    shared: &SharedUmem,
    other: Option<BorrowedFd<'_>>,
) -> StepResult<Opened> {
    let ifindex =
        device::index(options.interface).map_err(|errno| (SetupStep::Interface, errno))?;
    let queue = RxQueue {
        ifindex,
        queue: options.queue,
    };
    if !shared.slot.is_for(queue) {
        return Err((SetupStep::Bind(options.mode), Errno::EBUSY));
    }
    let fd = socket::obtain(SocketKind::Xdp).map_err(|errno| (SetupStep::Socket, errno))?;
    if other.is_none() {
        register_umem(fd.as_fd(), &shared.slot)
            .map_err(|errno| (SetupStep::UmemReg(SLOT_SIZE), errno))?;
    }
    let shape = shared.shape;
    set_ring_sizes(fd.as_fd(), shape)?;
    let mut rings = map_rings(fd.as_fd(), shape)?;
    let primed = prime(&mut rings.fill, shared);
    let target = Target {
        ifindex,
        queue: options.queue,
        // With zero copy the driver writes for a while after the socket's close, when other sockets have its chunks.
        mode: match shared.shape.sharers {
            1 => options.mode,
            _ => BindMode::Copy,
        },
        other,
    };
    let mode = bind(fd.as_fd(), &target)
        .map_err(|errno| (SetupStep::Bind(target.mode), errno))
        .and_then(|()| {
            sys::tune(fd.as_fd(), shape.tx);
            let mode = sys::mode(fd.as_fd());
            match mode {
                Ok(CopyMode::Copy) => shared.slot.take_back(),
                // If the mode cannot be read, zero copy is assumed, since it needs more care.
                Ok(CopyMode::ZeroCopy) | Err(_) => shared.slot.lend(queue),
            }
            mode.map_err(|errno| (SetupStep::Options, errno))
        });
    match mode {
        Ok(mode) => Ok(Opened {
            rings,
            fd,
            primed,
            mode,
        }),
        Err(error) => {
            drop((rings, fd));
            std::iter::from_fn(|| primed.take()).for_each(|index| shared.spare.put(index));
            Err(error)
        }
    }
}

/// Primes the fill ring with spare chunks, as many as the socket's own share.
fn prime(ring: &mut Producer<Mapping<AddressEntry>>, shared: &SharedUmem) -> ChunkSet {
    let primed = ChunkSet::new();
    for _ in 0..shared.shape.own {
        // A socket that was closed a moment ago may not be reclaimed yet: the worker fills the ring up.
        let Some(index) = shared.spare.take() else {
            break;
        };
        primed.put(index);
        let pushed = ring.push(address_of(index));
        debug_assert!(pushed, "the fill ring had room");
    }
    ring.submit();
    primed
}

/// Moves up to `wanted` free RX chunks into the fill ring, as far as it has room.
pub fn fill(ring: &mut Producer<Mapping<AddressEntry>>, pool: &mut Pool, member: u8, wanted: u32) {
    if wanted == 0 {
        return;
    }
    for _ in 0..ring.free(wanted).min(wanted) {
        let Some(address) = pool.refill(member) else {
            break;
        };
        let pushed = ring.push(address);
        debug_assert!(pushed, "the fill ring had room");
    }
    ring.submit();
}

/// Without rustix's safe function: this option gives memory to the kernel, whose safety is ours to argue.
fn register_umem(fd: BorrowedFd<'_>, slot: &UmemSlot) -> nix::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: umem::address_of(slot) as u64,
        len: SLOT_SIZE as u64,
        chunk_size: CHUNK_SIZE as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    let value = (&raw const registration).cast::<libc::c_void>();
    let len = size_of::<libc::xdp_umem_reg>() as libc::socklen_t;
    // SAFETY: value lives through the call and len is its size. It names the memory of a slot that was claimed for this socket
    // and those that share it: a static, so it outlives the socket, page-aligned, and reached by us only through frames, which
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

fn set_ring_sizes(fd: BorrowedFd<'_>, shape: Shape) -> StepResult<()> {
    let failed = |name| move |error| (SetupStep::RingSize(name), errno(error));
    sockopt::set_xdp_umem_fill_ring_size(fd, shape.rx as u32)
        .map_err(failed("XDP_UMEM_FILL_RING"))?;
    sockopt::set_xdp_umem_completion_ring_size(fd, shape.completion as u32)
        .map_err(failed("XDP_UMEM_COMPLETION_RING"))?;
    sockopt::set_xdp_rx_ring_size(fd, shape.rx as u32).map_err(failed("XDP_RX_RING"))?;
    sockopt::set_xdp_tx_ring_size(fd, shape.tx as u32).map_err(failed("XDP_TX_RING"))
}

fn map_rings(fd: BorrowedFd<'_>, shape: Shape) -> StepResult<Rings> {
    let offsets =
        sockopt::xdp_mmap_offsets(fd).map_err(|error| (SetupStep::MmapOffsets, errno(error)))?;
    let fill_page = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;
    let completion_page = libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t;
    let failed = |ring| move |errno| (SetupStep::MapRing(ring), errno);
    Ok(Rings {
        fill: Producer::new(
            Mapping::new(fd, fill_page, &offsets.fr, shape.rx).map_err(failed("fill"))?,
        ),
        rx: Consumer::new(
            Mapping::new(fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, shape.rx)
                .map_err(failed("RX"))?,
        ),
        tx: Producer::new(
            Mapping::new(fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, shape.tx)
                .map_err(failed("TX"))?,
        ),
        completion: Consumer::new(
            Mapping::new(fd, completion_page, &offsets.cr, shape.completion)
                .map_err(failed("completion"))?,
        ),
    })
}

/// What a socket is bound to, and how.
struct Target<'a> {
    ifindex: u32,
    queue: u32,
    mode: BindMode,
    /// The socket that it shares the UMEM with.
    other: Option<BorrowedFd<'a>>,
}

fn bind(fd: BorrowedFd<'_>, target: &Target<'_>) -> nix::Result<()> {
    for _ in 1..sys::BIND_TRIES {
        match bind_once(fd, target) {
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(sys::BIND_PAUSE),
            result => return result.map_err(errno),
        }
    }
    bind_once(fd, target).map_err(errno)
}

fn bind_once(fd: BorrowedFd<'_>, target: &Target<'_>) -> rustix::io::Result<()> {
    let address = |flags| SocketAddrXdp::new(flags, target.ifindex, target.queue);
    let Some(other) = target.other else {
        let flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | mode_flags(target.mode);
        return net::bind(fd, &address(flags));
    };
    // The kernel allows no other flag here: all others are as in that socket.
    let shared = SocketAddrXdpWithSharedUmem {
        addr: address(SocketAddrXdpFlags::XDP_SHARED_UMEM),
        shared_umem_fd: other,
    };
    net::bind(fd, &shared)
}

/// Without a flag the kernel tries zero copy first and falls back to copying.
const fn mode_flags(mode: BindMode) -> SocketAddrXdpFlags {
    match mode {
        BindMode::Copy => SocketAddrXdpFlags::XDP_COPY,
        BindMode::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
        BindMode::Auto => SocketAddrXdpFlags::empty(),
    }
}
