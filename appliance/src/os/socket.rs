//! Sockets that take a right, socket options that nix has no type for, and control messages of a connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind as bind_to, setsockopt,
    socket, sockopt,
};
use nix::{setsockopt_impl, sockopt_impl};
use rustix::net::{SocketFlags, socket_with};

use super::keeper::{self, Request, SocketKind};

/// Makes a socket that takes CAP_NET_RAW, by this process itself.
///
/// # Errors
/// socket(2) failed: the right is missing, or the kernel lacks the kind.
pub fn make(kind: SocketKind) -> nix::Result<OwnedFd> {
    let (family, protocol) = match kind {
        SocketKind::Xdp => return make_xdp(),
        SocketKind::Sender4 => (AddressFamily::Inet, SockProtocol::Raw),
        SocketKind::Sender6 => (AddressFamily::Inet6, SockProtocol::Raw),
        SocketKind::Icmp4 => (AddressFamily::Inet, SockProtocol::Icmp),
        SocketKind::Icmp6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(family, SockType::Raw, flags, protocol)
}

fn make_xdp() -> nix::Result<OwnedFd> {
    let kind = (rustix::net::SocketType::RAW, SocketFlags::CLOEXEC);
    let made = socket_with(rustix::net::AddressFamily::XDP, kind.0, kind.1, None);
    made.map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

/// Makes a socket that takes CAP_NET_RAW, or has the keeper make it, if there is one.
///
/// # Errors
/// As [`make`].
pub fn obtain(kind: SocketKind) -> nix::Result<OwnedFd> {
    if !keeper::is_there() {
        return make(kind);
    }
    let granted = keeper::ask(Request::Socket(kind), None);
    let mut granted = granted.map_err(|refusal| refusal.errno)?;
    granted.descriptors.pop().ok_or(Errno::EPROTO)
}

/// Binds a socket to a port that clients ask (bind(2)), or has the keeper do it: a port below 1024 takes a right.
///
/// # Errors
/// bind(2) failed, or the config does not name the port.
pub fn bind(socket: &impl AsFd, address: SocketAddr) -> nix::Result<()> {
    let socket = socket.as_fd();
    if !keeper::is_there() {
        return bind_to(socket.as_raw_fd(), &SockaddrStorage::from(address));
    }
    let asked = keeper::ask(Request::Bind(address), Some(socket));
    asked.map(drop).map_err(|refusal| refusal.errno)
}

/// Most bytes of a UNIX socket's path, without the closing zero (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Index of the device on which the handshake of an accepted connection arrived. 0 if the kernel does not report it. The listener
/// has IP_PKTINFO or IPV6_RECVPKTINFO set, which its connections inherit.
#[must_use]
pub fn arrival_of(stream: &impl AsRawFd, is_v6: bool) -> u32 {
    /// linux/in.h and linux/in6.h; libc lacks them.
    const IP_PKTOPTIONS: libc::c_int = 9;
    const IPV6_2292PKTOPTIONS: libc::c_int = 6;
    let (level, option) = match is_v6 {
        true => (libc::IPPROTO_IPV6, IPV6_2292PKTOPTIONS),
        false => (libc::IPPROTO_IP, IP_PKTOPTIONS),
    };
    let mut bytes = [0u8; 128];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: pointer and length are those of `bytes`, and `len` is ours; both outlive the call, which writes at most `len`
    // bytes. Any bytes are valid.
    let code = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            level,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let told = bytes.get(..len as usize).filter(|_| code == 0);
    told.map_or(0, arrival_in)
}

/// Index of the device in these control messages (IP_PKTINFO, IPV6_PKTINFO). 0 if they have none.
pub(super) fn arrival_in(told: &[u8]) -> u32 {
    /// Level, type, and offset of the index in the payload: first in in_pktinfo, after the address in in6_pktinfo.
    const INFOS: [(libc::c_int, libc::c_int, usize); 2] = [
        (libc::IPPROTO_IP, libc::IP_PKTINFO, 0),
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 16),
    ];
    let index = |(level, kind, at): (_, _, usize)| {
        let info = control_message(told, level, kind)?;
        info.get(at..)?.first_chunk().copied()
    };
    let found = INFOS.into_iter().find_map(index);
    found.map_or(0, u32::from_ne_bytes)
}

/// Payload of the first control message (cmsg(3)) of this level and kind, and all bytes after it.
pub(super) fn control_message(
    mut told: &[u8],
    level: libc::c_int,
    kind: libc::c_int,
) -> Option<&[u8]> {
    const WORD: usize = size_of::<usize>();
    const HEADER: usize = WORD + 8;
    // Bound: each message is at least a header long.
    while let Some(header) = told.get(..HEADER) {
        let len = usize::from_ne_bytes(*header.first_chunk()?);
        let of_level = i32::from_ne_bytes(*header.get(WORD..)?.first_chunk()?);
        let of_kind = i32::from_ne_bytes(*header.get(WORD + 4..)?.first_chunk()?);
        if (of_level, of_kind) == (level, kind) {
            return told.get(HEADER..);
        }
        told = told.get(len.max(HEADER).next_multiple_of(WORD)..)?;
    }
    None
}

/// linux/icmp.h and linux/icmpv6.h; libc lacks them.
const ICMP_FILTER: libc::c_int = 1;
const ICMPV6_FILTER: libc::c_int = 1;

sockopt_impl!(
    /// Types of ICMP messages that a raw socket blocks, one bit each (raw(7)).
    IcmpFilter,
    SetOnly,
    libc::SOL_RAW,
    ICMP_FILTER,
    u32
);
sockopt_impl!(
    /// [`IcmpFilter`] for ICMPv6 (RFC 3542 section 3.2).
    Icmpv6Filter,
    SetOnly,
    libc::IPPROTO_ICMPV6,
    ICMPV6_FILTER,
    [u32; 8]
);

sockopt_impl!(
    /// Index of the interface that a socket sends and receives by: SO_BINDTODEVICE (socket(7)) without its name.
    BindToIfindex,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_BINDTOIFINDEX,
    i32
);

sockopt_impl!(
    /// Bytes that must be available before select(2), poll(2) and epoll(7) report a socket as readable (socket(7)). A TCP socket
    /// makes room for them.
    RcvLowat,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    i32
);

/// Attaches a classic BPF program that chooses among the sockets of `socket`'s reuseport group (SO_ATTACH_REUSEPORT_CBPF).
///
/// # Errors
/// setsockopt(2) failed: the program is invalid or too long.
pub fn attach_reuseport_filter(
    socket: &impl AsFd,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // The kernel copies the program, and writes to neither.
    Ok(setsockopt(socket, sockopt::AttachReusePortCbpf, &filter)?)
}
