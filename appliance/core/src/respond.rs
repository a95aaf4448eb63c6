//! Headers of a reply. The query's own frame becomes the reply, or a fresh chunk does.

use crate::limits::UDP_MESSAGE_MAX;
use crate::wire::{Addresses, ethernet, ipv4, ipv6, udp, vlan};
use xdnsd_abi::checksum;

pub use crate::wire::Path;

/// Reason why a reply cannot be emitted: a bug of ours, not the client's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// Headers and message do not fit the buffer.
    BufferTooShort,
    /// The message is longer than [`UDP_MESSAGE_MAX`]: it would need fragmentation, which AF_XDP cannot do.
    MessageTooLong,
}

impl Path {
    /// Writes the reply's headers in front of the message at `frame[header_len()..][..message_len]`, and returns the length
    /// of the frame. The old bytes there are not read: they may be the query's own headers (a hit) or those of the chunk's
    /// last use (a miss).
    ///
    /// Addresses and ports are swapped, VLAN tags and their priority kept. TTL and hop limit are new, TOS, traffic class
    /// and flow label 0; IPv4 gets ID 0 and DF, see [`ipv4::Packet::fill`]. Both checksums are computed in full, because
    /// those of the query may be partial sums left by offload, which cannot be updated.
    ///
    /// A frame below Ethernet's 60 bytes is not padded. As for the kernel's own packets, the driver or the MAC does that
    /// (`skb_padto`, or in hardware), and only they know whether the medium needs it. So no byte behind the message leaves.
    ///
    /// # Errors
    /// [`EmitError`]; `frame` is then unchanged.
    pub fn emit(&self, frame: &mut [u8], message_len: usize) -> Result<usize, EmitError> {
        if message_len > UDP_MESSAGE_MAX {
            return Err(EmitError::MessageTooLong);
        }
        let frame_len = self.header_len() + message_len;
        let frame = frame
            .get_mut(..frame_len)
            .ok_or(EmitError::BufferTooShort)?;
        let (link, packet) = frame.split_at_mut(self.ip_offset());
        self.emit_link(link);
        self.emit_packet(packet);
        Ok(frame_len)
    }

    /// Writes Ethernet header and VLAN tags.
    fn emit_link(&self, link: &mut [u8]) {
        let (ethernet, tags) = link.split_at_mut(ethernet::HEADER_LEN);
        let mut ethernet = ethernet::Frame::new_unchecked(ethernet);
        ethernet.set_destination(self.client_mac);
        ethernet.set_source(self.local_mac);
        ethernet.set_ethertype(self.ethertype_at(0));
        for (depth, header) in tags.chunks_exact_mut(vlan::HEADER_LEN).enumerate() {
            let mut header = vlan::Header::new_unchecked(header);
            header.set_tci(self.tags[depth].tci);
            header.set_ethertype(self.ethertype_at(depth + 1));
        }
    }

    /// EtherType before the tag at `depth`, or before the packet if there is no such tag.
    fn ethertype_at(&self, depth: usize) -> u16 {
        self.tags()
            .get(depth)
            .map_or(self.ethertype(), |tag| tag.tpid)
    }

    /// IP and UDP header in front of the message, which fills the rest of `packet`.
    fn emit_packet(&self, packet: &mut [u8]) {
        let (header, datagram) = packet.split_at_mut(self.ip_header_len());
        let udp_len = datagram.len() as u16;
        let pseudo_header = match self.addresses {
            Addresses::V4 { client, local } => {
                ipv4::Packet::new_unchecked(header).fill(
                    local,
                    client,
                    ipv4::HEADER_LEN as u16 + udp_len,
                );
                checksum::pseudo_header(&local, &client, udp_len)
            }
            Addresses::V6 { client, local } => {
                ipv6::Packet::new_unchecked(header).fill(local, client, udp_len);
                checksum::pseudo_header(&local, &client, udp_len)
            }
        };
        udp::Datagram::new_unchecked(datagram).fill(
            self.local_port,
            self.client_port,
            udp_len,
            pseudo_header,
        );
    }
}

// The length of a datagram is converted to 16 bits.
const _: () = assert!(ipv6::HEADER_LEN + udp::HEADER_LEN + UDP_MESSAGE_MAX <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress};
    use smoltcp::wire::{Ipv4Packet, Ipv6Packet, UdpPacket, UdpRepr};

    use super::*;
    use crate::testing::Random;
    use crate::wire::parse;

    const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];
    const LOCAL_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x22];
    const V4: Addresses = Addresses::V4 {
        client: [192, 0, 2, 77],
        local: [192, 0, 2, 1],
    };
    const V6: Addresses = Addresses::V6 {
        client: [
            0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xdc, 0xba, 0x98,
        ],
        local: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    };
    /// An S-tag with priority 5 around a C-tag with priority 3 and the drop bit.
    const TAGS: [vlan::Tag; 2] = [
        vlan::Tag {
            tpid: 0x88a8,
            tci: 0xa064,
        },
        vlan::Tag {
            tpid: 0x8100,
            tci: 0x7007,
        },
    ];

    fn path(addresses: Addresses, tag_count: u8) -> Path {
        let mut tags = [vlan::Tag::default(); 2];
        // A single tag is the customer's.
        match tag_count {
            0 => {}
            1 => tags[0] = TAGS[1],
            _ => tags = TAGS,
        }
        Path {
            client_mac: CLIENT_MAC,
            local_mac: LOCAL_MAC,
            tags,
            tag_count,
            addresses,
            client_port: 40_123,
            local_port: 53,
        }
    }

    fn every_path() -> impl Iterator<Item = Path> {
        [V4, V6]
            .into_iter()
            .flat_map(|addresses| (0..=2).map(move |tags| path(addresses, tags)))
    }

    /// A reply's frame, emitted over a chunk full of other bytes.
    fn emitted(path: &Path, message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xa5; path.header_len() + message.len() + 64];
        frame[path.header_len()..][..message.len()].copy_from_slice(message);
        let len = path.emit(&mut frame, message.len()).expect("it fits");
        assert!(
            frame[len..].iter().all(|byte| *byte == 0xa5),
            "nothing past the frame"
        );
        frame.truncate(len);
        frame
    }

    /// Checks with smoltcp that `frame` is a reply on `path` that carries `message`.
    fn verify(path: &Path, frame: &[u8], message: &[u8]) {
        let ethernet = EthernetFrame::new_checked(frame).expect("Ethernet");
        assert_eq!(ethernet.dst_addr(), EthernetAddress(CLIENT_MAC));
        assert_eq!(ethernet.src_addr(), EthernetAddress(LOCAL_MAC));
        let mut ethertype = ethernet.ethertype();
        let mut rest = ethernet.payload();
        for tag in path.tags() {
            assert_eq!(u16::from(ethertype), tag.tpid);
            assert_eq!(rest[..2], tag.tci.to_be_bytes());
            ethertype = EthernetProtocol::from(u16::from_be_bytes([rest[2], rest[3]]));
            rest = &rest[4..];
        }
        let (source, destination, datagram) = match path.addresses {
            Addresses::V4 { .. } => {
                assert_eq!(ethertype, EthernetProtocol::Ipv4);
                verify_ipv4(rest)
            }
            Addresses::V6 { .. } => {
                assert_eq!(ethertype, EthernetProtocol::Ipv6);
                verify_ipv6(rest)
            }
        };
        assert_eq!(source, IpAddress::from(path.local().ip()));
        assert_eq!(destination, IpAddress::from(path.client().ip()));
        let udp = UdpPacket::new_checked(datagram).expect("UDP");
        assert_ne!(udp.checksum(), 0, "never \"no checksum\"");
        assert!(udp.verify_checksum(&source, &destination));
        let caps = ChecksumCapabilities::default();
        let repr = UdpRepr::parse(&udp, &source, &destination, &caps).expect("UDP");
        assert_eq!(
            repr,
            UdpRepr {
                src_port: 53,
                dst_port: 40_123
            }
        );
        assert_eq!(udp.payload(), message);
    }

    fn verify_ipv4(bytes: &[u8]) -> (IpAddress, IpAddress, &[u8]) {
        let packet = Ipv4Packet::new_checked(bytes).expect("IPv4");
        assert!(packet.verify_checksum());
        assert_eq!(usize::from(packet.total_len()), bytes.len(), "no padding");
        assert_eq!(
            (packet.header_len(), packet.hop_limit(), packet.ident()),
            (20, 64, 0)
        );
        assert_eq!(
            (packet.dscp(), packet.ecn(), packet.frag_offset()),
            (0, 0, 0)
        );
        assert!(packet.dont_frag() && !packet.more_frags());
        (
            packet.src_addr().into(),
            packet.dst_addr().into(),
            packet.payload(),
        )
    }

    fn verify_ipv6(bytes: &[u8]) -> (IpAddress, IpAddress, &[u8]) {
        let packet = Ipv6Packet::new_checked(bytes).expect("IPv6");
        assert_eq!(packet.version(), 6);
        assert_eq!(packet.total_len(), bytes.len(), "no padding");
        assert_eq!(
            (
                packet.hop_limit(),
                packet.traffic_class(),
                packet.flow_label()
            ),
            (64, 0, 0)
        );
        (
            packet.src_addr().into(),
            packet.dst_addr().into(),
            packet.payload(),
        )
    }

    #[test]
    fn smoltcp_verifies_every_length() {
        let mut random = Random::new(1);
        for path in every_path() {
            for len in 12..=UDP_MESSAGE_MAX {
                let message = random.bytes(len);
                verify(&path, &emitted(&path, &message), &message);
            }
        }
    }

    #[test]
    fn a_hit_overwrites_the_querys_own_headers() {
        let mut random = Random::new(2);
        for path in every_path() {
            let query = random.bytes(33);
            // A reply, read back, is a query from the other side.
            let (back, range) = parse(&emitted(&path, &query)).expect("a frame of ours");
            assert_eq!(range, path.header_len()..path.header_len() + query.len());
            let answer = random.bytes(100);
            let mut frame = emitted(&path, &query);
            frame.resize(2048, 0xa5);
            frame[back.header_len()..][..answer.len()].copy_from_slice(&answer);
            let len = back.emit(&mut frame, answer.len()).expect("it fits");
            let (there, range) = parse(&frame[..len]).expect("a frame of ours");
            assert_eq!(there, path, "swapped twice");
            assert_eq!(frame[range], answer);
        }
    }

    #[test]
    fn a_short_buffer_is_left_alone() {
        for path in every_path() {
            let frame_len = path.header_len() + 100;
            for len in 0..frame_len {
                let mut frame = vec![0xa5; len];
                assert_eq!(path.emit(&mut frame, 100), Err(EmitError::BufferTooShort));
                assert!(frame.iter().all(|byte| *byte == 0xa5));
            }
            assert_eq!(path.emit(&mut vec![0xa5; frame_len], 100), Ok(frame_len));
        }
    }

    #[test]
    fn an_impossible_length_is_refused() {
        for path in every_path() {
            let mut frame = vec![0xa5; 70_000];
            for len in [UDP_MESSAGE_MAX + 1, 65_500, 65_535, 65_536, usize::MAX] {
                assert_eq!(path.emit(&mut frame, len), Err(EmitError::MessageTooLong));
            }
            assert!(frame.iter().all(|byte| *byte == 0xa5));
        }
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_sent_as_ones() {
        for path in every_path() {
            // With its own checksum at the end of the message, the sum becomes all ones, whose complement is 0.
            let mut message = [0x5a; 40];
            message[38..].fill(0);
            let udp = path.header_len() - udp::HEADER_LEN;
            let checksum = |frame: &[u8]| [frame[udp + 6], frame[udp + 7]];
            let first = checksum(&emitted(&path, &message));
            message[38..].copy_from_slice(&first);
            let frame = emitted(&path, &message);
            assert_eq!(checksum(&frame), [0xff, 0xff]);
            verify(&path, &frame, &message);
        }
    }
}
