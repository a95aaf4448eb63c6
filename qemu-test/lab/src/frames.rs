//! Raw Ethernet frames on an interface: those that a UDP socket cannot send or receive.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::netns::Namespace;

/// Longer than any frame of the lab, in bytes.
const FRAME_LEN_MAX: usize = 4096;
/// Offset of the EtherType, or of a VLAN tag.
const ETHER_TYPE_OFFSET: usize = 12;
/// Receive buffer in bytes, with the kernel's overhead per frame.
const BUFFER_BYTES: usize = 16 << 20;
/// Room for one control message with auxiliary data.
const CONTROL_LEN: usize = 64;

/// Parses an Ethernet address as the kernel writes it: six octets in hexadecimal, separated by colons.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let octets: Result<Vec<u8>, _> = text
        .trim()
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect();
    let octets = octets.with_context(|| format!("the MAC address {text:?}"))?;
    octets.try_into().ok().context("a MAC address has 6 octets")
}

/// An AF_PACKET socket on one interface of one namespace.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
}

impl FrameSocket {
    /// Opens a socket: from now on it receives every frame that arrives at the interface, and none that leaves.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let opened = namespace.run(|| {
            let socket = open(interface)?;
            // It also receives other hosts' traffic, and may be left unread for seconds.
            setsockopt(&socket.fd, sockopt::RcvBufForce, &BUFFER_BYTES)?;
            Ok::<_, io::Error>(socket)
        });
        opened.with_context(|| format!("open an AF_PACKET socket on {interface}"))
    }

    /// Sends a frame as it is, from the destination address to the last byte, without a frame check sequence.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = nix::sys::socket::send(
            self.fd.as_raw_fd(),
            frame,
            nix::sys::socket::MsgFlags::empty(),
        );
        let sent = sent.with_context(|| format!("send a frame of {} bytes", frame.len()))?;
        anyhow::ensure!(sent == frame.len(), "sent {sent} of {} bytes", frame.len());
        Ok(())
    }

    /// Receives the next frame that `is_wanted`, or `None` after `timeout`. Frames that arrived in time may be examined for as
    /// long again, since other frames may come without a pause.
    pub fn receive(
        &self,
        timeout: Duration,
        mut is_wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline + timeout {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.is_readable(left)? {
                return Ok(None);
            }
            if let Some(frame) = self.receive_now().context("receive a frame")?
                && is_wanted(&frame)
            {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn is_readable(&self, timeout: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, timeout).context("poll an AF_PACKET socket")? > 0)
    }

    /// Receives one frame with its VLAN tag put back: the kernel removes the outer tag before a packet socket sees the frame, and
    /// passes it as auxiliary data. Frames that this host sends are skipped.
    fn receive_now(&self) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; FRAME_LEN_MAX];
        let mut control = [0u64; CONTROL_LEN / size_of::<u64>()];
        // SAFETY: both structures are plain integers, pointers and lengths, for which all zeroes is a valid value.
        let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) =
            unsafe { (zeroed(), zeroed()) };
        let mut parts = libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: frame.len(),
        };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = socklen::<libc::sockaddr_ll>();
        message.msg_iov = &raw mut parts;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_LEN;
        // SAFETY: `message` points to `from`, `parts` and `control`, and `parts` to `frame`; each length is the size of
        // what it points to, nothing else refers to them during the call, and all live until after it.
        let len =
            unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let Ok(len) = usize::try_from(len) else {
            return Err(io::Error::last_os_error());
        };
        frame.truncate(len);
        if from.sll_pkttype == libc::PACKET_OUTGOING {
            return Ok(None);
        }
        if let Some(tag) = tag_beside(&message) {
            frame.splice(ETHER_TYPE_OFFSET..ETHER_TYPE_OFFSET, tag);
        }
        Ok(Some(frame))
    }
}

/// The four bytes of the VLAN tag that the kernel removed from the frame.
fn tag_beside(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: `message` was filled by recvmsg, so that msg_control points to msg_controllen initialised bytes of
    // 8-byte aligned control messages, which live as long as `message`.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if header.cmsg_level != libc::SOL_PACKET || header.cmsg_type != libc::PACKET_AUXDATA {
        return None;
    }
    // SAFETY: a control message of this level and type carries one tpacket_auxdata (packet(7)), and CONTROL_LEN has
    // room for all of it; read_unaligned asks for no alignment.
    let data =
        unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>()) };
    if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let [tpid_high, tpid_low] = data.tp_vlan_tpid.to_be_bytes();
    let [tci_high, tci_low] = data.tp_vlan_tci.to_be_bytes();
    Some([tpid_high, tpid_low, tci_high, tci_low])
}

fn open(interface: &str) -> io::Result<FrameSocket> {
    let all = u16::try_from(libc::ETH_P_ALL)
        .map_err(io::Error::other)?
        .to_be();
    // SAFETY: no pointers; a descriptor that is not negative is new, so we are its only owner.
    let fd = unsafe {
        let fd = libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            i32::from(all),
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: sockaddr_ll is plain integers and bytes, for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = all;
    address.sll_ifindex = i32::try_from(if_nametoindex(interface)?).map_err(io::Error::other)?;
    let on: libc::c_int = 1;
    // SAFETY: both calls read a value of the size that is passed with it, and keep no pointer to it.
    let failed = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            socklen::<libc::sockaddr_ll>(),
        ) != 0
            || libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const on).cast(),
                socklen::<libc::c_int>(),
            ) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(FrameSocket { fd })
}

const fn socklen<T>() -> libc::socklen_t {
    assert!(size_of::<T>() <= 256, "an address or an option is small");
    size_of::<T>() as libc::socklen_t
}
