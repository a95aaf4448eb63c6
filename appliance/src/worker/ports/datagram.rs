//! UDP datagrams with their IP headers, as a raw socket sends them and as an ICMP error quotes them.

use std::net::{IpAddr, SocketAddr};

use xdnsd_abi::checksum::pseudo_header;
use xdnsd_abi::headers::protocol;
use xdnsd_core::wire::{ipv4, ipv6, udp};

/// Longest message sent, in bytes: the longest question has 282.
const MESSAGE_MAX: usize = 288;
/// Longest packet, in bytes.
const PACKET_MAX: usize = ipv6::HEADER_LEN + udp::HEADER_LEN + MESSAGE_MAX;

/// A packet to send.
#[derive(Debug)]
pub struct OutgoingPacket {
    bytes: [u8; PACKET_MAX],
    len: usize,
}

impl OutgoingPacket {
    /// `message` from `port` of `local` to `remote`. `None` if it is too long, or if the addresses are of different families.
    #[must_use]
    pub fn new(local: IpAddr, port: u16, remote: SocketAddr, message: &[u8]) -> Option<Self> {
        if message.len() > MESSAGE_MAX {
            return None;
        }
        let mut bytes = [0; PACKET_MAX];
        let udp_len = (udp::HEADER_LEN + message.len()) as u16;
        let (header_len, sum) = match (local, remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let (local, remote) = (local.octets(), remote.octets());
                let total_len = ipv4::HEADER_LEN as u16 + udp_len;
                ipv4::Packet::new_unchecked(&mut bytes).fill(local, remote, total_len);
                (ipv4::HEADER_LEN, pseudo_header(&local, &remote, udp_len))
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                let (local, remote) = (local.octets(), remote.octets());
                ipv6::Packet::new_unchecked(&mut bytes).fill(local, remote, udp_len);
                (ipv6::HEADER_LEN, pseudo_header(&local, &remote, udp_len))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let len = header_len + usize::from(udp_len);
        let datagram = &mut bytes[header_len..len];
        datagram[udp::HEADER_LEN..].copy_from_slice(message);
        udp::Datagram::new_unchecked(datagram).fill(port, remote.port(), udp_len, sum);
        Some(Self { bytes, len })
    }

    /// Bytes of the packet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Our datagram as quoted by an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Our address and port.
    pub local: SocketAddr,
    /// Destination of the datagram.
    pub remote: SocketAddr,
    /// ID of its message, if the quote reaches that far.
    pub id: Option<u16>,
}

impl Quoted {
    /// Reads the start of an IP packet. `None` if it is not UDP, or if a header is incomplete.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (local, remote, header_len) = match packet.first()? >> 4 {
            4 => {
                let header = ipv4::Packet::new_checked(packet).ok()?;
                let is_plain = header.protocol() == protocol::UDP && !header.is_fragment();
                let addresses = (header.source().into(), header.destination().into());
                (is_plain && !header.has_options()).then_some((
                    addresses.0,
                    addresses.1,
                    ipv4::HEADER_LEN,
                ))?
            }
            6 => {
                let header = ipv6::Packet::new_checked(packet).ok()?;
                let addresses: (IpAddr, IpAddr) =
                    (header.source().into(), header.destination().into());
                (header.next_header() == protocol::UDP).then_some((
                    addresses.0,
                    addresses.1,
                    ipv6::HEADER_LEN,
                ))?
            }
            _ => return None,
        };
        let datagram = udp::Datagram::new_checked(packet.get(header_len..)?).ok()?;
        let message = packet.get(header_len + udp::HEADER_LEN..)?;
        Some(Self {
            local: SocketAddr::new(local, datagram.source_port()),
            remote: SocketAddr::new(remote, datagram.destination_port()),
            id: message.first_chunk().map(|id| u16::from_be_bytes(*id)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_quoted() {
        for (local, remote) in [
            ("192.0.2.1", "198.51.100.53:5353"),
            ("2001:db8::1", "[2001:db8::53]:53"),
        ] {
            let (local, remote): (IpAddr, SocketAddr) = (
                local.parse().expect("an address"),
                remote.parse().expect("an address"),
            );
            let packet =
                OutgoingPacket::new(local, 40_000, remote, b"\x12\x34 and so on").expect("fits");
            let whole = packet.as_bytes();
            let quoted = Quoted {
                local: SocketAddr::new(local, 40_000),
                remote,
                id: Some(0x1234),
            };
            assert_eq!(Quoted::read(whole), Some(quoted));
            let header_len = whole.len() - 12 - 8;
            // RFC 792: the header and eight bytes.
            let short = Quoted { id: None, ..quoted };
            assert_eq!(Quoted::read(&whole[..header_len + 8]), Some(short));
            for len in 0..header_len + 8 {
                assert_eq!(Quoted::read(&whole[..len]), None, "{len}");
            }
            let mut tcp = whole.to_vec();
            tcp[if local.is_ipv4() { 9 } else { 6 }] = 6;
            assert_eq!(Quoted::read(&tcp), None);
        }
    }

    #[test]
    fn two_families_and_long_messages_are_no_packets() {
        let v4 = "192.0.2.1".parse().expect("an address");
        let v6 = "[2001:db8::53]:53".parse().expect("an address");
        assert!(OutgoingPacket::new(v4, 1, v6, b"x").is_none());
        let remote = "192.0.2.2:53".parse().expect("an address");
        assert!(OutgoingPacket::new(v4, 1, remote, &[0; MESSAGE_MAX]).is_some());
        assert!(OutgoingPacket::new(v4, 1, remote, &[0; MESSAGE_MAX + 1]).is_none());
    }
}
