//! Frames as a client sends them, and strict parsing of those that come back, both by an independent network stack.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet,
    Ipv6Packet, UdpPacket, UdpRepr,
};

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
/// Ethernet's least, without the frame check sequence.
pub const ETHERNET_MIN: usize = 60;
/// 802.1Q.
pub const TPID_VLAN: u16 = 0x8100;
/// Hop limit of the appliance (RFC 1700's recommended default, as in Linux).
const HOP_LIMIT: u8 = 64;

/// One UDP datagram in one frame, with all fields open to a test.
#[derive(Clone, Debug)]
pub struct UdpFrame {
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    /// VLAN tags from the outside in: TPID and TCI.
    pub tags: Vec<(u16, u16)>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// IPv4 options, or a whole IPv6 extension header whose first byte is the protocol number of UDP. A multiple of 4, or 8
    /// bytes.
    pub extra: Vec<u8>,
    pub message: Vec<u8>,
}

impl UdpFrame {
    /// Bytes of the frame, with full and correct checksums, and without padding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.link();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => bytes.extend(self.ipv4(&self.datagram())),
            (IpAddr::V6(_), IpAddr::V6(_)) => bytes.extend(self.ipv6(&self.datagram())),
            families => panic!("two families: {families:?}"),
        }
        bytes
    }

    /// Offset of the IP header.
    pub fn ip_offset(&self) -> usize {
        ETHERNET_LEN + 4 * self.tags.len()
    }

    /// Offset of the UDP header.
    pub fn udp_offset(&self) -> usize {
        let header_len = if self.source.is_ipv4() {
            IPV4_LEN
        } else {
            IPV6_LEN
        };
        self.ip_offset() + header_len + self.extra.len()
    }

    /// The datagram in two fragments, the first with `first_len` bytes of it (a multiple of 8).
    pub fn to_fragments(&self, first_len: usize, ident: u16) -> [Vec<u8>; 2] {
        let datagram = self.datagram();
        let (first, second) = datagram.split_at(first_len);
        [(0, first, true), (first_len, second, false)].map(|(offset, part, more)| {
            let mut bytes = self.link();
            if self.source.is_ipv4() {
                let mut packet = self.ipv4(part);
                let mut header = Ipv4Packet::new_unchecked(&mut packet);
                header.set_ident(ident);
                header.set_dont_frag(false);
                header.set_more_frags(more);
                header.set_frag_offset(u16::try_from(offset).expect("a short datagram"));
                header.fill_checksum();
                bytes.extend(packet);
            } else {
                let offset = u16::try_from(offset).expect("a short datagram") | u16::from(more);
                let mut fragment = vec![u8::from(IpProtocol::Udp), 0];
                fragment.extend(offset.to_be_bytes());
                fragment.extend(u32::from(ident).to_be_bytes());
                fragment.extend(part);
                bytes.extend(self.ipv6_of(IpProtocol::Ipv6Frag, &fragment));
            }
            bytes
        })
    }

    fn link(&self) -> Vec<u8> {
        let mut bytes = [self.destination_mac, self.source_mac].concat();
        for (tpid, tci) in &self.tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        let ethertype = if self.source.is_ipv4() {
            EthernetProtocol::Ipv4
        } else {
            EthernetProtocol::Ipv6
        };
        bytes.extend(u16::from(ethertype).to_be_bytes());
        bytes
    }

    fn datagram(&self) -> Vec<u8> {
        let repr = UdpRepr {
            src_port: self.source.port(),
            dst_port: self.destination.port(),
        };
        let mut bytes = vec![0; UDP_LEN + self.message.len()];
        repr.emit(
            &mut UdpPacket::new_unchecked(&mut bytes),
            &self.source.ip().into(),
            &self.destination.ip().into(),
            self.message.len(),
            |payload| payload.copy_from_slice(&self.message),
            &ChecksumCapabilities::default(),
        );
        bytes
    }

    fn ipv4(&self, payload: &[u8]) -> Vec<u8> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (self.source.ip(), self.destination.ip())
        else {
            panic!("IPv4 on both ends");
        };
        let header_len = IPV4_LEN + self.extra.len();
        let mut bytes = vec![0; header_len + payload.len()];
        bytes[IPV4_LEN..header_len].copy_from_slice(&self.extra);
        let total_len = u16::try_from(bytes.len()).expect("a short packet");
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        packet.set_version(4);
        packet.set_header_len(u8::try_from(header_len).expect("at most 60"));
        packet.set_total_len(total_len);
        packet.set_ident(0x5a17);
        packet.set_dont_frag(true);
        packet.set_hop_limit(61);
        packet.set_next_header(IpProtocol::Udp);
        packet.set_src_addr(source);
        packet.set_dst_addr(destination);
        packet.payload_mut().copy_from_slice(payload);
        packet.fill_checksum();
        bytes
    }

    fn ipv6(&self, datagram: &[u8]) -> Vec<u8> {
        if self.extra.is_empty() {
            return self.ipv6_of(IpProtocol::Udp, datagram);
        }
        let payload = [self.extra.as_slice(), datagram].concat();
        self.ipv6_of(IpProtocol::Ipv6Opts, &payload)
    }

    fn ipv6_of(&self, next_header: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) =
            (self.source.ip(), self.destination.ip())
        else {
            panic!("IPv6 on both ends");
        };
        let mut bytes = vec![0; IPV6_LEN + payload.len()];
        let mut packet = Ipv6Packet::new_unchecked(&mut bytes);
        packet.set_version(6);
        packet.set_payload_len(u16::try_from(payload.len()).expect("a short packet"));
        packet.set_next_header(next_header);
        packet.set_hop_limit(61);
        packet.set_src_addr(source);
        packet.set_dst_addr(destination);
        packet.payload_mut().copy_from_slice(payload);
        bytes
    }
}

/// A UDP datagram that came back.
#[derive(Clone, Debug)]
pub struct Received {
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    pub tags: Vec<(u16, u16)>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub message: Vec<u8>,
}

impl Received {
    /// Parses a frame that has to be a whole UDP datagram: correct checksums, exact lengths, TTL 64, never a fragment.
    pub fn parse(frame: &[u8]) -> Result<Self> {
        let ethernet = EthernetFrame::new_checked(frame).ok().context("Ethernet")?;
        let (tags, ethertype, packet) = split_tags(&ethernet)?;
        let (source, destination, datagram) = match ethertype {
            EthernetProtocol::Ipv4 => parse_ipv4(packet)?,
            EthernetProtocol::Ipv6 => parse_ipv6(packet)?,
            EthernetProtocol::Arp | EthernetProtocol::Unknown(_) => bail!("EtherType {ethertype}"),
        };
        let udp = UdpPacket::new_checked(datagram).ok().context("UDP")?;
        ensure!(udp.checksum() != 0, "UDP: no checksum");
        ensure!(
            udp.verify_checksum(&source, &destination),
            "UDP: checksum {:04x}",
            udp.checksum()
        );
        ensure!(
            usize::from(udp.len()) == datagram.len(),
            "UDP: length {} in a packet with {}",
            udp.len(),
            datagram.len()
        );
        Ok(Self {
            source_mac: ethernet.src_addr().0,
            destination_mac: ethernet.dst_addr().0,
            tags,
            source: SocketAddr::new(source.into(), udp.src_port()),
            destination: SocketAddr::new(destination.into(), udp.dst_port()),
            message: udp.payload().to_vec(),
        })
    }

    /// Checks that this answers `query`: all addresses and ports swapped, the tags kept.
    pub fn check_answers(&self, query: &UdpFrame) -> Result<()> {
        let swapped =
            (self.destination_mac, self.source_mac) == (query.source_mac, query.destination_mac);
        ensure!(
            swapped,
            "MAC addresses: from {} to {}",
            EthernetAddress(self.source_mac),
            EthernetAddress(self.destination_mac)
        );
        ensure!(
            (self.destination, self.source) == (query.source, query.destination),
            "addresses: from {} to {}",
            self.source,
            self.destination
        );
        ensure!(self.tags == query.tags, "VLAN tags: {:04x?}", self.tags);
        Ok(())
    }
}

type Tags = Vec<(u16, u16)>;

fn split_tags<'f>(
    ethernet: &EthernetFrame<&'f [u8]>,
) -> Result<(Tags, EthernetProtocol, &'f [u8])> {
    let (mut tags, mut ethertype) = (Vec::new(), u16::from(ethernet.ethertype()));
    let mut rest = ethernet.payload();
    while matches!(ethertype, TPID_VLAN | 0x88a8) {
        let (tag, packet) = rest.split_first_chunk::<4>().context("a VLAN tag")?;
        let [tci_high, tci_low, type_high, type_low] = *tag;
        tags.push((ethertype, u16::from_be_bytes([tci_high, tci_low])));
        ethertype = u16::from_be_bytes([type_high, type_low]);
        rest = packet;
    }
    Ok((tags, ethertype.into(), rest))
}

fn parse_ipv4(bytes: &[u8]) -> Result<(IpAddress, IpAddress, &[u8])> {
    let packet = Ipv4Packet::new_checked(bytes).ok().context("IPv4")?;
    ensure!(
        packet.verify_checksum(),
        "IPv4: checksum {:04x}",
        packet.checksum()
    );
    ensure!(
        usize::from(packet.total_len()) == bytes.len(),
        "IPv4: length {} in a frame with {}",
        packet.total_len(),
        bytes.len()
    );
    ensure!(
        packet.hop_limit() == HOP_LIMIT,
        "IPv4: TTL {}",
        packet.hop_limit()
    );
    ensure!(
        !packet.more_frags() && packet.frag_offset() == 0,
        "IPv4: a fragment"
    );
    ensure!(
        packet.next_header() == IpProtocol::Udp,
        "IPv4: {}",
        packet.next_header()
    );
    Ok((
        packet.src_addr().into(),
        packet.dst_addr().into(),
        packet.payload(),
    ))
}

fn parse_ipv6(bytes: &[u8]) -> Result<(IpAddress, IpAddress, &[u8])> {
    let packet = Ipv6Packet::new_checked(bytes).ok().context("IPv6")?;
    ensure!(packet.version() == 6, "IPv6: version {}", packet.version());
    ensure!(
        packet.total_len() == bytes.len(),
        "IPv6: length {} in a frame with {}",
        packet.total_len(),
        bytes.len()
    );
    ensure!(
        packet.hop_limit() == HOP_LIMIT,
        "IPv6: hop limit {}",
        packet.hop_limit()
    );
    ensure!(
        packet.next_header() == IpProtocol::Udp,
        "IPv6: {}",
        packet.next_header()
    );
    Ok((
        packet.src_addr().into(),
        packet.dst_addr().into(),
        packet.payload(),
    ))
}
