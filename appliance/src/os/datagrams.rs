//! Datagrams with their control messages, one or several per system call: recvmsg(2), recvmmsg(2), sendmmsg(2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::ptr;

use nix::errno::Errno;

use super::socket::{arrival_in, control_message};

/// Most datagrams per call.
pub const DATAGRAMS_MAX: usize = 16;
/// Bytes of the longest address, a `sockaddr_in6`.
const ADDRESS: usize = size_of::<libc::sockaddr_in6>();
/// Bytes for the control messages of one datagram.
const CONTROL: usize = 64;

/// Sends packets through a connected socket. Returns how many were sent, at least one; the packet after them failed. Packets
/// beyond [`DATAGRAMS_MAX`] are left for another call.
///
/// # Errors
/// The first packet could not be sent.
pub fn send_all<'p>(
    socket: &impl AsRawFd,
    packets: impl Iterator<Item = &'p [u8]>,
) -> nix::Result<usize> {
    let parts: heapless::Vec<libc::iovec, DATAGRAMS_MAX> = packets
        .take(DATAGRAMS_MAX)
        .map(|packet| libc::iovec {
            iov_base: packet.as_ptr().cast_mut().cast(),
            iov_len: packet.len(),
        })
        .collect();
    let mut messages = empty_messages();
    for (message, part) in messages.iter_mut().zip(&parts) {
        message.msg_hdr.msg_iov = ptr::from_ref(part).cast_mut();
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: each of the first `parts.len()` messages points to one part, and the part to a packet's bytes; all outlive the
    // call, which writes only the messages' lengths.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            parts.len() as _,
            0,
        )
    };
    Errno::result(sent).map(|sent| sent as usize)
}

/// Metadata of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramInfo {
    /// Bytes in its part of the buffer.
    pub len: usize,
    /// True if the datagram was longer than its part.
    pub is_truncated: bool,
    /// Sender.
    pub from: SocketAddr,
    /// Address and port that it was sent to (IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR).
    pub to: SocketAddr,
}

/// A datagram from a single receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes in the buffer.
    pub len: usize,
    /// Sender.
    pub from: SocketAddr,
    /// Index of the ingress device (IP_PKTINFO, IPV6_RECVPKTINFO). 0 if the kernel does not report it.
    pub device: u32,
}

/// Datagrams received by one call, each with the index of its part of the buffer.
pub type DatagramBatch = heapless::Vec<(usize, DatagramInfo), DATAGRAMS_MAX>;

/// Buffers for what the kernel writes about one datagram, aligned for addresses and control messages.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct MessageBuffers {
    control: [u8; CONTROL],
    from: [u8; ADDRESS],
}

impl MessageBuffers {
    const EMPTY: Self = Self {
        control: [0; CONTROL],
        from: [0; ADDRESS],
    };

    /// A message header that receives a datagram into `part`, and its metadata into `self`.
    fn header(&mut self, part: &mut libc::iovec) -> libc::msghdr {
        let mut header = empty_header();
        header.msg_iov = ptr::from_mut(part);
        header.msg_iovlen = 1;
        header.msg_name = self.from.as_mut_ptr().cast();
        header.msg_namelen = ADDRESS as _;
        header.msg_control = self.control.as_mut_ptr().cast();
        header.msg_controllen = CONTROL as _;
        header
    }

    /// The datagram of `message`. `None` if it lacks an address.
    fn of(&self, message: &libc::mmsghdr) -> Option<DatagramInfo> {
        Some(DatagramInfo {
            len: message.msg_len as usize,
            is_truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            from: address(&self.from)?,
            // Zeros after the kernel's control messages parse as the end.
            to: sent_to(&self.control)?,
        })
    }
}

/// Receives a datagram. `None` if it has no address.
///
/// # Errors
/// recvmsg(2) failed, or nothing is there and the socket is non-blocking.
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> nix::Result<Option<Datagram>> {
    let mut about = MessageBuffers::EMPTY;
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut header = about.header(&mut part);
    // SAFETY: `header` points to a part, which is `buffer` with its length, and to buffers for address and control messages with
    // their lengths. All outlive the call; any bytes are valid.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let len = Errno::result(len)? as usize;
    Ok(address(&about.from).map(|from| Datagram {
        len,
        from,
        device: arrival_in(&about.control),
    }))
}

/// Receives pending datagrams, each into `part` bytes of `buffer`, at most [`DATAGRAMS_MAX`]. True if every part was used.
/// Datagrams without an address are left out. Does not wait.
///
/// # Errors
/// Nothing is there, or the call failed.
pub fn receive_all(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
    part: usize,
) -> nix::Result<(DatagramBatch, bool)> {
    let mut about = [MessageBuffers::EMPTY; DATAGRAMS_MAX];
    let mut parts: heapless::Vec<libc::iovec, DATAGRAMS_MAX> = buffer
        .chunks_exact_mut(part)
        .take(DATAGRAMS_MAX)
        .map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        })
        .collect();
    let mut messages = empty_messages();
    for ((message, part), about) in messages.iter_mut().zip(&mut parts).zip(&mut about) {
        message.msg_hdr = about.header(part);
    }
    // SAFETY: each of the first `parts.len()` messages points to one part, and the part to its own disjoint bytes of `buffer`,
    // and to its own buffers for address and control messages, with their lengths. All outlive the call; any bytes are valid. The
    // timeout is null.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            parts.len() as _,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let count = Errno::result(count)? as usize;
    let mut batch = DatagramBatch::new();
    for (at, (message, about)) in messages.iter().zip(&about).take(count).enumerate() {
        let received = about.of(message);
        // Has room: there are no more datagrams than messages.
        let _ = received.map(|received| batch.push((at, received)));
    }
    Ok((batch, count == parts.len()))
}

fn empty_header() -> libc::msghdr {
    // SAFETY: msghdr is integers and pointers, for which all zero bits are a value.
    unsafe { std::mem::zeroed() }
}

fn empty_messages() -> [libc::mmsghdr; DATAGRAMS_MAX] {
    [libc::mmsghdr {
        msg_hdr: empty_header(),
        msg_len: 0,
    }; DATAGRAMS_MAX]
}

fn sent_to(told: &[u8]) -> Option<SocketAddr> {
    let v4 = control_message(told, libc::IPPROTO_IP, libc::IP_ORIGDSTADDR);
    let found = v4.or_else(|| control_message(told, libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR));
    address(found?)
}

/// Reads a `sockaddr_in` or `sockaddr_in6` (ip(7), ipv6(7)).
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match i32::from(u16::from_ne_bytes(*bytes.first_chunk()?)) {
        libc::AF_INET => {
            let octets: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some((Ipv4Addr::from(octets), port).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::net::UdpSocket;

    const PART: usize = 64;

    fn pair(local: &str) -> (UdpSocket, UdpSocket) {
        let to = UdpSocket::bind(local).expect("a socket");
        let from = UdpSocket::bind(local).expect("a socket");
        from.connect(to.local_addr().expect("an address"))
            .expect("loopback");
        if from.local_addr().is_ok_and(|address| address.is_ipv6()) {
            setsockopt(&to, sockopt::Ipv6OrigDstAddr, &true).expect("the option");
        } else {
            setsockopt(&to, sockopt::Ipv4OrigDstAddr, &true).expect("the option");
        }
        (from, to)
    }

    #[test]
    fn what_is_sent_at_once_comes_at_once() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = pair(local);
            let packets: Vec<Vec<u8>> = (1..=DATAGRAMS_MAX + 3)
                .map(|at| vec![at as u8; at])
                .collect();
            let sent = send_all(&from, packets.iter().map(Vec::as_slice));
            assert_eq!(sent, Ok(DATAGRAMS_MAX));
            let mut buffer = [0; 5 * PART + 1];
            let mut seen = Vec::new();
            let rounds = loop {
                let Ok((batch, is_full)) = receive_all(&to, &mut buffer, PART) else {
                    break seen.len();
                };
                assert_eq!(is_full, batch.len() == 5);
                for (at, received) in batch {
                    let bytes = &buffer[at * PART..][..received.len];
                    assert!(
                        !received.is_truncated
                            && bytes.iter().all(|byte| *byte as usize == bytes.len())
                    );
                    assert_eq!(received.from, from.local_addr().expect("an address"));
                    assert_eq!(received.to, to.local_addr().expect("an address"));
                    seen.push(received.len);
                }
            };
            assert_eq!(rounds, DATAGRAMS_MAX);
            assert_eq!(seen, (1..=DATAGRAMS_MAX).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_datagram_comes_with_its_sender_and_its_device() {
        const LOOPBACK: u32 = 1;
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = pair(local);
            if local.starts_with('[') {
                setsockopt(&to, sockopt::Ipv6RecvPacketInfo, &true).expect("the option");
            } else {
                setsockopt(&to, sockopt::Ipv4PacketInfo, &true).expect("the option");
            }
            from.send(b"one").expect("loopback");
            from.send(b"two, and longer").expect("loopback");
            let mut buffer = [0; 8];
            let mut receive = || receive(&to, &mut buffer).expect("a datagram");
            let mut expected = Datagram {
                len: 3,
                from: from.local_addr().expect("an address"),
                device: LOOPBACK,
            };
            assert_eq!(receive(), Some(expected));
            expected.len = 8;
            assert_eq!(receive(), Some(expected));
            assert_eq!(buffer, *b"two, and");
            to.set_nonblocking(true).expect("set");
            assert_eq!(super::receive(&to, &mut buffer), Err(Errno::EAGAIN));
        }
    }

    #[test]
    fn an_address_is_read_as_far_as_it_is_there() {
        let v4 = [2, 0, 0, 53, 192, 0, 2, 1];
        let v6 = [
            &[10, 0, 0x14, 0xe9, 0, 0, 0, 0][..],
            &"fe80::53".parse::<Ipv6Addr>().expect("an address").octets(),
            &7_u32.to_ne_bytes(),
        ]
        .concat();
        // The family is in native byte order.
        let in_order = |bytes: &[u8]| {
            let family = u16::from(bytes[0]).to_ne_bytes();
            [&family, &bytes[2..]].concat()
        };
        for (bytes, expected) in [(v4.to_vec(), "192.0.2.1:53"), (v6, "[fe80::53%7]:5353")] {
            let bytes = in_order(&bytes);
            let read = address(&bytes).map(|address| address.to_string());
            assert_eq!(read.as_deref(), Some(expected));
            for len in 0..bytes.len() {
                assert_eq!(address(&bytes[..len]), None, "{len}");
            }
        }
        assert_eq!(address(&in_order(&[1; 28])), None, "AF_UNIX");
        assert_eq!(address(&[0; 28]), None);
    }

    #[test]
    fn a_datagram_that_is_too_long_is_said_to_be() {
        let (from, to) = pair("127.0.0.1:0");
        from.send(&[1; PART]).expect("loopback");
        from.send(&[2; PART + 1]).expect("loopback");
        let mut buffer = [0; 2 * PART];
        let (batch, _) = receive_all(&to, &mut buffer, PART).expect("two datagrams");
        let lens: Vec<_> = batch
            .iter()
            .map(|(_, one)| (one.len, one.is_truncated))
            .collect();
        assert_eq!(lens, [(PART, false), (PART, true)]);
        assert_eq!(receive_all(&to, &mut buffer, PART), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_packet_that_cannot_be_sent_ends_the_call() {
        let (from, to) = pair("127.0.0.1:0");
        let long = vec![0; 1 << 17];
        let packets: [&[u8]; 3] = [b"one", &long, b"three"];
        assert_eq!(send_all(&from, packets.into_iter()), Ok(1));
        assert_eq!(
            send_all(&from, packets[1..].iter().copied()),
            Err(Errno::EMSGSIZE)
        );
        let mut buffer = [0; 4 * PART];
        assert_eq!(
            receive_all(&to, &mut buffer, PART)
                .expect("one datagram")
                .0
                .len(),
            1
        );
    }
}
