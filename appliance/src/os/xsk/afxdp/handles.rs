//! Opens and closes sockets through the crate, around its pitfalls.

use super::{Buffer, Pending};
use crate::os::xsk::error::{SetupError, SetupStep};
use crate::os::xsk::{BindMode, Options, sys};
use afxdp::mmap_area::{MmapArea, MmapAreaOptions};
use afxdp::socket::{Socket, SocketNewError, SocketOptions, SocketRx, SocketTx};
use afxdp::umem::{Umem, UmemCompletionQueue, UmemFillQueue, UmemNewError};
use core::mem::{self, ManuallyDrop};
use nix::errno::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread;
use xdnsd_core::limits::{CHUNK_SIZE, CHUNKS_PER_QUEUE, RX_RING, TX_RING};

/// Stack for the crate's 4096-entry queues, which it makes on the stack, in bytes.
const QUEUE_STACK: usize = 2 << 20;

/// The crate's parts of one socket.
pub struct Handles {
    pub rx: ManuallyDrop<SocketRx<'static, ()>>,
    pub tx: ManuallyDrop<SocketTx<'static, ()>>,
    pub fill: UmemFillQueue<'static, ()>,
    pub completion: UmemCompletionQueue<'static, ()>,
    socket: ManuallyDrop<Arc<Socket<'static, ()>>>,
    umem: Arc<Umem<'static, ()>>,
    area: Arc<MmapArea<'static, ()>>,
}

impl Handles {
    /// Opens a socket and returns the buffers of its UMEM. The kernel releases a closed socket's queue in a work queue, so EBUSY
    /// is retried; from the start, because a failed `Socket::new` unmaps the UMEM's rings.
    pub fn open(options: &Options<'_>) -> Result<(Self, Vec<Buffer>), SetupError> {
        sys::raise_memlock();
        let mut result = Self::try_open(options);
        for _ in 1..sys::BIND_TRIES {
            if !matches!(result, Err((_, Errno::EBUSY))) {
                break;
            }
            thread::sleep(sys::BIND_PAUSE);
            result = Self::try_open(options);
        }
        result.map_err(|(function, errno)| SetupError {
            interface: options.interface.to_owned(),
            queue: options.queue,
            step: SetupStep::Crate(function),
            errno,
        })
    }

    fn try_open(options: &Options<'_>) -> Result<(Self, Vec<Buffer>), (&'static str, Errno)> {
        let (area, buffers) = MmapArea::new(
            CHUNKS_PER_QUEUE,
            CHUNK_SIZE,
            MmapAreaOptions { huge_tlb: false },
        )
        .map_err(|_| ("afxdp::MmapArea::new", Errno::ENOMEM))?;
        let (umem, completion, fill) = Umem::new(area.clone(), TX_RING as u32, RX_RING as u32)
            .map_err(|error| ("afxdp::Umem::new", umem_errno(&error)))?;
        let (socket, rx, tx) = Socket::new(
            umem.clone(),
            options.interface,
            options.queue as usize,
            RX_RING as u32,
            TX_RING as u32,
            SocketOptions {
                zero_copy_mode: options.mode == BindMode::ZeroCopy,
                copy_mode: options.mode == BindMode::Copy,
                ..SocketOptions::default()
            },
        )
        .map_err(|error| ("afxdp::Socket::new", socket_errno(&error)))?;
        let handles = Self {
            rx: ManuallyDrop::new(rx),
            tx: ManuallyDrop::new(tx),
            fill,
            completion,
            socket: ManuallyDrop::new(socket),
            umem,
            area,
        };
        Ok((handles, buffers))
    }

    /// The socket's descriptor, which the crate keeps private.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: get_ptr is the UMEM that self keeps alive; libbpf reads its descriptor. The first socket of a UMEM shares the
        // UMEM's descriptor, which stays open as long as the UMEM, hence as long as the borrow of self.
        unsafe { BorrowedFd::borrow_raw(libbpf_sys::xsk_umem__fd(self.umem.get_ptr())) }
    }

    /// First byte of the packet memory.
    pub fn base(&self) -> usize {
        self.area.get_ptr() as usize
    }

    /// Keeps the packet memory mapped for good, because a frame of it still exists.
    pub fn leak_memory(&self) {
        mem::forget(self.area.clone());
    }
}

impl Drop for Handles {
    /// libbpf keeps pointers to the ring structs inside `SocketRx` and `SocketTx` and follows them when the socket is deleted,
    /// but the crate frees them before. So their two strong counts are decremented by hand while the structs stay allocated:
    /// about 100 bytes per socket are never freed.
    fn drop(&mut self) {
        let socket = Arc::as_ptr(&self.socket);
        // SAFETY: rx and tx each hold one strong count of this Arc and, being in ManuallyDrop and never taken out, never release
        // it themselves. self.socket holds a third, so the pointer is alive in both calls.
        unsafe {
            Arc::decrement_strong_count(socket);
            Arc::decrement_strong_count(socket);
        }
        // SAFETY: the last strong count, dropped once; the field is not used after this. The rings that xsk_socket__delete
        // follows live on: RX and TX as said, fill and completion until our fields drop.
        unsafe { ManuallyDrop::drop(&mut self.socket) };
    }
}

/// An empty queue of the crate. It is 160 KiB, built on the stack and then moved, so a thread with a large stack makes it: the
/// caller may be a worker.
pub fn queue() -> Result<Box<Pending>, SetupError> {
    let failed = |errno| SetupError {
        interface: String::new(),
        queue: 0,
        step: SetupStep::Crate("thread for a queue"),
        errno,
    };
    thread::Builder::new()
        .stack_size(QUEUE_STACK)
        .spawn(|| Box::new(Pending::new()))
        .map_err(|error| failed(errno_of(&error)))?
        .join()
        .map_err(|_| failed(Errno::ENOMEM))
}

fn umem_errno(error: &UmemNewError) -> Errno {
    match error {
        UmemNewError::Create(error) => errno_of(error),
        UmemNewError::RingNotPowerOfTwo => Errno::EINVAL,
    }
}

fn socket_errno(error: &SocketNewError) -> Errno {
    match error {
        SocketNewError::Create(error) => errno_of(error),
        SocketNewError::RingNotPowerOfTwo => Errno::EINVAL,
    }
}

/// The crate passes libbpf's negative errno on as it is.
fn errno_of(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, |raw| Errno::from_raw(raw.abs()))
}
