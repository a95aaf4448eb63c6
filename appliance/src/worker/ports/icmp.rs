//! ICMP errors about datagrams sent through a raw socket: no UDP socket would receive them, so a raw ICMP socket does.
//!
//! Anybody can send them. Only an error that quotes addresses and ports of a question in flight is believed; where the quote
//! reaches the ID, that must match too (RFC 5927 section 5).

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use xdnsd_abi::checksum::Sum;

use super::datagram::Quoted;
use crate::os::datagrams::{self, Datagram};
use crate::os::keeper::SocketKind;
use crate::os::socket::{IcmpFilter, Icmpv6Filter, obtain};

/// Destination unreachable (RFC 792, RFC 4443 section 3.1).
const UNREACHABLE_V4: u8 = 3;
/// Errors that mean a lost datagram: destination unreachable; time exceeded, caused by a routing loop; and parameter problem. The
/// kernel reports the same ones to a connected socket.
const LOST_V4: [u8; 3] = [UNREACHABLE_V4, 11, 12];
const LOST_V6: [u8; 3] = [1, 3, 4];
/// "Fragmentation needed": path MTU; smaller packets arrive.
const TOO_BIG_V4: u8 = 4;
/// Bytes of an ICMP error before the quoted packet.
const HEADER_LEN: usize = 8;
/// Most errors read per call.
const LOOKS: usize = 16;

/// Opens a raw ICMP socket that receives only errors about lost datagrams.
///
/// # Errors
/// The socket cannot be opened: CAP_NET_RAW is missing.
pub fn open(v6: bool) -> nix::Result<OwnedFd> {
    let socket = obtain(match v6 {
        true => SocketKind::Icmp6,
        false => SocketKind::Icmp4,
    })?;
    if v6 {
        let mut unwanted = [u32::MAX; 8];
        unwanted[0] = all_but(LOST_V6);
        setsockopt(&socket, Icmpv6Filter, &unwanted)?;
    } else {
        setsockopt(&socket, IcmpFilter, &all_but(LOST_V4))?;
    }
    Ok(socket)
}

/// Filter bits of ICMP types: 1 blocks.
fn all_but(types: [u8; 3]) -> u32 {
    types
        .iter()
        .fold(u32::MAX, |bits, kind| bits & !(1 << kind))
}

/// Receives the next error that quotes a datagram.
pub fn receive(socket: &OwnedFd, v6: bool, buffer: &mut [u8]) -> Option<Quoted> {
    for _ in 0..LOOKS {
        match datagrams::receive(socket, buffer) {
            Ok(None) => {}
            Ok(Some(Datagram { len, from, .. })) => {
                let message = &buffer[..len];
                let quoted = if v6 {
                    read_v6(message)
                } else {
                    read_v4(message)
                };
                let Some(mut quoted) = quoted else {
                    continue;
                };
                if let (SocketAddr::V6(remote), SocketAddr::V6(from)) = (&mut quoted.remote, from) {
                    // A link-local server is on the link that the error arrived on.
                    remote.set_scope_id(from.scope_id());
                }
                return Some(quoted);
            }
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    // The rest comes with the next event: a flood of errors must not keep the worker from its clients.
    None
}

/// Reads an ICMPv4 message, which the kernel delivers with its IP header and an unverified checksum.
fn read_v4(packet: &[u8]) -> Option<Quoted> {
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    let message = packet.get(header_len..)?;
    let is_sound = Sum::new().add_bytes(message).finish() == 0;
    let [kind, code, ..] = *message else {
        return None;
    };
    let quoted = message.get(HEADER_LEN..)?;
    let is_lost = LOST_V4.contains(&kind) && (kind, code) != (UNREACHABLE_V4, TOO_BIG_V4);
    (is_sound && is_lost)
        .then(|| Quoted::read(quoted))
        .flatten()
}

/// Reads an ICMPv6 message, which the kernel delivers without IP header, after it has verified the checksum.
fn read_v6(message: &[u8]) -> Option<Quoted> {
    let kind = message.first()?;
    let quoted = message.get(HEADER_LEN..)?;
    LOST_V6
        .contains(kind)
        .then(|| Quoted::read(quoted))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::super::datagram::OutgoingPacket;
    use super::*;

    fn error(code: u8) -> Vec<u8> {
        error_of(UNREACHABLE_V4, code)
    }

    fn error_of(kind: u8, code: u8) -> Vec<u8> {
        let remote = "192.0.2.53:53".parse().expect("an address");
        let local = "192.0.2.1".parse().expect("an address");
        let packet = OutgoingPacket::new(local, 4000, remote, b"\x12\x34").expect("fits");
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        message.extend(packet.as_bytes());
        let sum = Sum::new().add_bytes(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut header = vec![0; 20];
        header[0] = 0x45;
        header.extend(message);
        header
    }

    #[test]
    fn an_error_is_read_if_its_sum_is_right() {
        for code in [0, 1, 3, 13] {
            let quoted = read_v4(&error(code)).expect("an error");
            assert_eq!((quoted.local.port(), quoted.id), (4000, Some(0x1234)));
        }
        assert_eq!(read_v4(&error(TOO_BIG_V4)), None);
        for at in 20..error(3).len() {
            let mut damaged = error(3);
            damaged[at] ^= 1;
            assert_eq!(read_v4(&damaged), None, "{at}");
        }
    }

    /// Time exceeded and parameter problem are read; fragmentation needed, redirect and echo are not.
    #[test]
    fn what_says_that_a_question_did_not_arrive_is_read_and_nothing_else() {
        let lost = |read: &dyn Fn(u8) -> Option<Quoted>| -> Vec<u8> {
            (0..=u8::MAX).filter(|kind| read(*kind).is_some()).collect()
        };
        assert_eq!(lost(&|kind| read_v4(&error_of(kind, 0))), [3, 11, 12]);
        // The code of "fragmentation needed" means something else with another type.
        assert!(read_v4(&error_of(11, TOO_BIG_V4)).is_some());
        let of_v6 = |kind| {
            let remote = "[2001:db8::53]:53".parse().expect("an address");
            let local = "2001:db8::1".parse().expect("an address");
            let packet = OutgoingPacket::new(local, 4000, remote, b"\x12\x34").expect("fits");
            let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            message.extend(packet.as_bytes());
            read_v6(&message)
        };
        assert_eq!(lost(&of_v6), [1, 3, 4]);
        let heard =
            |filter: u32| -> Vec<u8> { (0..32).filter(|kind| filter & 1 << kind == 0).collect() };
        assert_eq!(heard(all_but(LOST_V4)), LOST_V4);
        assert_eq!(heard(all_but(LOST_V6)), LOST_V6);
    }

    #[test]
    fn an_error_that_ends_early_quotes_nothing() {
        let whole = error(3);
        for len in 0..20 + HEADER_LEN + 28 {
            assert_eq!(read_v4(&whole[..len]), None, "{len}");
            assert_eq!(read_v6(&whole[..len]), None, "{len}");
        }
    }
}
