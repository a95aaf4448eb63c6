//! The kernel's UDP echo: what recvmmsg and sendmmsg can do, beside `xsk_echo` in `cargo xtask bench xsk`.
//!
//! `udp_echo ADDRESS:PORT` sends every datagram back to where it came from, a batch at a time. IPv4 only.

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use std::error::Error;
use std::io;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use xdnsd_core::limits::{BATCH, UDP_MESSAGE_MAX};

/// A page is charged for each datagram that waits, and a batch of them has to wait while the one before is answered.
const RECEIVE_BUFFER: usize = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .ok_or("usage: udp_echo ADDRESS:PORT")?;
    let socket = UdpSocket::bind(&address)?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
    println!("ready: {address}");
    let mut datagrams = Datagrams::new();
    loop {
        let received = datagrams.receive(&socket)?;
        datagrams.send(&socket, received);
    }
}

/// A batch of datagrams with the addresses they came from.
struct Datagrams {
    bytes: Box<[[u8; UDP_MESSAGE_MAX]; BATCH]>,
    peers: Box<[libc::sockaddr_storage; BATCH]>,
    lens: [usize; BATCH],
}

impl Datagrams {
    fn new() -> Self {
        // SAFETY: sockaddr_storage is plain integers, for which zero is a value.
        let peer = unsafe { zeroed() };
        Self {
            bytes: Box::new([[0; UDP_MESSAGE_MAX]; BATCH]),
            peers: Box::new([peer; BATCH]),
            lens: [0; BATCH],
        }
    }

    /// Waits for at least one datagram and takes what is there.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.lens = [UDP_MESSAGE_MAX; BATCH];
        let mut parts = self.parts();
        let mut messages = self.messages(&mut parts);
        // SAFETY: every message points to its own part and peer, which point to bytes of self; all outlive the call, and
        // the count is that of the array.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (len, message) in self.lens.iter_mut().zip(&messages[..received]) {
            *len = message.msg_len as usize;
        }
        Ok(received)
    }

    /// Sends the first `count` back. One that the kernel does not take is lost, as UDP is, and the rest goes on.
    fn send(&mut self, socket: &UdpSocket, count: usize) {
        let mut parts = self.parts();
        let mut messages = self.messages(&mut parts);
        let mut rest = &mut messages[..count];
        while !rest.is_empty() {
            // SAFETY: as in `receive`; the count is that of the slice.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0)
            };
            rest = &mut rest[sent.max(1) as usize..];
        }
    }

    fn parts(&mut self) -> [libc::iovec; BATCH] {
        std::array::from_fn(|index| libc::iovec {
            iov_base: self.bytes[index].as_mut_ptr().cast(),
            iov_len: self.lens[index],
        })
    }

    fn messages(&mut self, parts: &mut [libc::iovec; BATCH]) -> [libc::mmsghdr; BATCH] {
        std::array::from_fn(|index| {
            // SAFETY: mmsghdr is pointers and integers, for which zero is a value.
            let mut message: libc::mmsghdr = unsafe { zeroed() };
            message.msg_hdr.msg_name = (&raw mut self.peers[index]).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            message.msg_hdr.msg_iov = &raw mut parts[index];
            message.msg_hdr.msg_iovlen = 1;
            message
        })
    }
}
