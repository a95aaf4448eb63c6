//! Frames by smoltcp, an independent implementation.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, IpRepr,
    Ipv4Packet, UdpPacket, UdpRepr,
};
use std::net::IpAddr;

/// Ethernet address of the client.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// Ethernet address of ours.
pub const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const ETHERNET_LEN: usize = 14;
const TPID: usize = 12;

/// www.example.com, type A, recursion desired.
pub const MESSAGE: &[u8] =
    b"\xbe\xef\x01\x00\x00\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";

/// A query that can be modified.
#[derive(Clone)]
pub struct Query {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub message: Vec<u8>,
    /// EtherType and control information of each tag, outermost first.
    pub tags: Vec<[u16; 2]>,
}

impl Query {
    /// The good query over IPv4.
    pub fn v4() -> Self {
        Self::between("192.0.2.1", "192.0.2.53")
    }

    /// The good query over IPv6.
    pub fn v6() -> Self {
        Self::between("2001:db8::1", "2001:db8::53")
    }

    /// A query from one address to another.
    pub fn between(source: &str, destination: &str) -> Self {
        Self {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            source_port: 40000,
            destination_port: 53,
            message: MESSAGE.to_vec(),
            tags: Vec::new(),
        }
    }

    /// With these tags.
    pub fn tagged(mut self, tags: &[[u16; 2]]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    /// With a message of `len` bytes.
    pub fn with_message_len(mut self, len: usize) -> Self {
        self.message = (0..len)
            .map(|at| MESSAGE.get(at).copied().unwrap_or(at as u8))
            .collect();
        self
    }

    /// Offset of the IP header.
    pub fn ip(&self) -> usize {
        ETHERNET_LEN + 4 * self.tags.len()
    }

    /// Offset of the UDP header.
    pub fn udp(&self) -> usize {
        self.ip() + if self.source.is_ipv4() { 20 } else { 40 }
    }

    /// The frame, without padding, with all checksums correct.
    pub fn frame(&self) -> Vec<u8> {
        let udp = UdpRepr {
            src_port: self.source_port,
            dst_port: self.destination_port,
        };
        let (source, destination) = (
            IpAddress::from(self.source),
            IpAddress::from(self.destination),
        );
        let payload_len = udp.header_len() + self.message.len();
        let ip = IpRepr::new(source, destination, IpProtocol::Udp, payload_len, 64);
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(CLIENT_MAC),
            dst_addr: EthernetAddress(OUR_MAC),
            ethertype: match self.source {
                IpAddr::V4(_) => EthernetProtocol::Ipv4,
                IpAddr::V6(_) => EthernetProtocol::Ipv6,
            },
        };
        let checksums = ChecksumCapabilities::default();
        let mut bytes = vec![0xa5; ETHERNET_LEN + ip.header_len() + payload_len];
        ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
        ip.emit(&mut bytes[ETHERNET_LEN..], &checksums);
        let mut datagram = UdpPacket::new_unchecked(&mut bytes[ETHERNET_LEN + ip.header_len()..]);
        let fill = |payload: &mut [u8]| payload.copy_from_slice(&self.message);
        udp.emit(
            &mut datagram,
            &source,
            &destination,
            self.message.len(),
            fill,
            &checksums,
        );
        bytes.splice(
            TPID..TPID,
            self.tags
                .iter()
                .flatten()
                .flat_map(|word| word.to_be_bytes()),
        );
        bytes
    }

    /// The frame after `change`, with the checksums corrected.
    pub fn resealed(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut frame = self.frame();
        change(&mut frame);
        let (source, destination) = (
            IpAddress::from(self.source),
            IpAddress::from(self.destination),
        );
        if self.source.is_ipv4() {
            Ipv4Packet::new_unchecked(&mut frame[self.ip()..]).fill_checksum();
        }
        let udp = self.udp();
        let len = usize::from(u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]));
        if (8..=frame.len() - udp).contains(&len) {
            let mut datagram = UdpPacket::new_unchecked(&mut frame[udp..]);
            datagram.fill_checksum(&source, &destination);
        }
        frame
    }

    /// The IPv4 frame with one option word (four times No Operation), and all checksums correct.
    pub fn with_ipv4_options(&self) -> Vec<u8> {
        let (mut frame, ip) = (self.frame(), self.ip());
        frame.splice(ip + 20..ip + 20, [1; 4]);
        frame[ip] = 0x46;
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[ip..]);
        packet.set_total_len(packet.total_len() + 4);
        packet.fill_checksum();
        frame
    }
}

/// A frame with one byte changed, and checksums not corrected.
pub fn flipped(mut frame: Vec<u8>, at: usize) -> Vec<u8> {
    frame[at] ^= 0x01;
    frame
}
