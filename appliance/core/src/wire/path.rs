//! Parser for a query's frame: position of the message, and the way back to the client.
//!
//! ```text
//!  0          14      18      22                 header_len           header_len + message
//!  | Ethernet | (tag) | (tag) | IPv4 20 / IPv6 40 | UDP 8 | message ... | padding ...
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;

use super::ethernet::{self, ethertype};
use super::{Truncated, ipv4, ipv6, udp, vlan};
use xdnsd_abi::headers::protocol;

/// Reason why a frame is not a query that can be answered from its own bytes.
///
/// The XDP program passes all of these to the kernel, so none occurs here unless program and worker disagree. The words are
/// those of its pass reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The frame is shorter than its headers say.
    Truncated,
    /// Neither IPv4 nor IPv6.
    Ethertype,
    /// More than [`vlan::TAGS_MAX`] VLAN tags.
    VlanDepth,
    /// The IP header has another version than the EtherType.
    Version,
    /// IPv4 with options: IHL is not 5.
    Ipv4Options,
    /// IPv4 fragment.
    Fragment,
    /// Neither UDP over IPv4 nor next header UDP over IPv6.
    Protocol,
    /// Lengths of IP and UDP disagree.
    Length,
}

impl From<Truncated> for Reject {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// Addresses of a query, client and local, in their family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Over IPv4.
    V4 {
        /// Source: the client's address.
        client: ipv4::Address,
        /// Destination: our address.
        local: ipv4::Address,
    },
    /// Over IPv6.
    V6 {
        /// Source: the client's address.
        client: ipv6::Address,
        /// Destination: our address.
        local: ipv6::Address,
    },
}

/// Everything needed to answer a query later, when its frame is gone.
///
/// One is kept for each client that waits for an upstream, so it has to stay small. The reply leaves the way the query
/// came: to the MAC address that sent it, with the same VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Ethernet source of the query.
    pub(crate) client_mac: ethernet::Address,
    /// Ethernet destination of the query.
    pub(crate) local_mac: ethernet::Address,
    /// Tags, outermost first. Those from `tag_count` on are zero.
    pub(crate) tags: [vlan::Tag; vlan::TAGS_MAX],
    /// Number of tags.
    pub(crate) tag_count: u8,
    /// IP source and destination of the query.
    pub(crate) addresses: Addresses,
    /// UDP source port of the query.
    pub(crate) client_port: u16,
    /// UDP destination port of the query.
    pub(crate) local_port: u16,
}

const _: () = assert!(size_of::<Path>() <= 64, "one per waiting client");

impl Path {
    /// VLAN tags of the query, outermost first.
    #[must_use]
    pub fn tags(&self) -> &[vlan::Tag] {
        &self.tags[..usize::from(self.tag_count)]
    }

    /// Address and port of the client.
    #[must_use]
    pub const fn client(&self) -> SocketAddr {
        let address = match self.addresses {
            Addresses::V4 { client, .. } => ipv4_addr(client),
            Addresses::V6 { client, .. } => ipv6_addr(client),
        };
        SocketAddr::new(address, self.client_port)
    }

    /// Address and port that were asked: ours.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        let address = match self.addresses {
            Addresses::V4 { local, .. } => ipv4_addr(local),
            Addresses::V6 { local, .. } => ipv6_addr(local),
        };
        SocketAddr::new(address, self.local_port)
    }

    /// True if the query's Ethernet source is a group address, so that an answer would go to many hosts.
    #[must_use]
    pub const fn is_client_group(&self) -> bool {
        self.client_mac[0] & ethernet::GROUP != 0
    }

    /// Length of the headers before the message, the same for query and reply, in bytes.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.ip_offset() + self.ip_header_len() + udp::HEADER_LEN
    }

    /// Offset of the IP header.
    pub(crate) const fn ip_offset(&self) -> usize {
        ethernet::HEADER_LEN + vlan::HEADER_LEN * self.tag_count as usize
    }

    /// Length of the IP header in bytes.
    pub(crate) const fn ip_header_len(&self) -> usize {
        match self.addresses {
            Addresses::V4 { .. } => ipv4::HEADER_LEN,
            Addresses::V6 { .. } => ipv6::HEADER_LEN,
        }
    }

    /// EtherType of the packet inside the tags.
    pub(crate) const fn ethertype(&self) -> u16 {
        match self.addresses {
            Addresses::V4 { .. } => ethertype::IPV4,
            Addresses::V6 { .. } => ethertype::IPV6,
        }
    }
}

const fn ipv4_addr(address: ipv4::Address) -> IpAddr {
    let [a, b, c, d] = address;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn ipv6_addr(address: ipv6::Address) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(address)))
}

/// Parses the frame of a query: Ethernet, up to two VLAN tags, IPv4 without options or fragments or IPv6 without extension
/// headers, and UDP, with consistent lengths. Returns the way back, and the range of the message in the frame.
///
/// Ethernet's padding after the packet is left out. Checksums are not verified: the XDP program has summed up every byte
/// before, and passes what does not add up to the kernel, which can tell a partial sum from damage.
///
/// # Errors
/// [`Reject`] is the reason.
pub fn parse(frame: &[u8]) -> Result<(Path, Range<usize>), Reject> {
    let ethernet = ethernet::Frame::new_checked(frame)?;
    let tagged = parse_tags(frame, ethernet.ethertype())?;
    let packet = &frame[tagged.payload..];
    let internet = match tagged.ethertype {
        ethertype::IPV4 => parse_ipv4(packet)?,
        ethertype::IPV6 => parse_ipv6(packet)?,
        _ => return Err(Reject::Ethertype),
    };
    let (client_port, local_port) = parse_udp(&packet[internet.payload.clone()])?;
    let path = Path {
        client_mac: ethernet.source(),
        local_mac: ethernet.destination(),
        tags: tagged.tags,
        tag_count: tagged.tag_count,
        addresses: internet.addresses,
        client_port,
        local_port,
    };
    Ok((
        path,
        path.header_len()..tagged.payload + internet.payload.end,
    ))
}

/// Headers before the IP header.
struct Tagged {
    tags: [vlan::Tag; vlan::TAGS_MAX],
    tag_count: u8,
    /// EtherType after the last tag.
    ethertype: u16,
    /// Offset of the payload, never past the end of the frame.
    payload: usize,
}

fn parse_tags(frame: &[u8], ethertype: u16) -> Result<Tagged, Reject> {
    let mut tagged = Tagged {
        tags: [vlan::Tag::default(); vlan::TAGS_MAX],
        tag_count: 0,
        ethertype,
        payload: ethernet::HEADER_LEN,
    };
    for tag in &mut tagged.tags {
        if !vlan::is_tag(tagged.ethertype) {
            return Ok(tagged);
        }
        let header = vlan::Header::new_checked(&frame[tagged.payload..])?;
        *tag = vlan::Tag {
            tpid: tagged.ethertype,
            tci: header.tci(),
        };
        tagged.tag_count += 1;
        tagged.ethertype = header.ethertype();
        tagged.payload += vlan::HEADER_LEN;
    }
    if vlan::is_tag(tagged.ethertype) {
        Err(Reject::VlanDepth)
    } else {
        Ok(tagged)
    }
}

/// Fields of the IP header.
struct Internet {
    addresses: Addresses,
    /// Range of the datagram inside the packet, never past its end.
    payload: Range<usize>,
}

fn parse_ipv4(bytes: &[u8]) -> Result<Internet, Reject> {
    let packet = ipv4::Packet::new_checked(bytes)?;
    if packet.version() != 4 {
        return Err(Reject::Version);
    }
    if packet.has_options() {
        return Err(Reject::Ipv4Options);
    }
    if packet.is_fragment() {
        return Err(Reject::Fragment);
    }
    if packet.protocol() != protocol::UDP {
        return Err(Reject::Protocol);
    }
    let end = usize::from(packet.total_len());
    if end > bytes.len() {
        return Err(Reject::Truncated);
    }
    if end < ipv4::HEADER_LEN {
        return Err(Reject::Length);
    }
    let addresses = Addresses::V4 {
        client: packet.source(),
        local: packet.destination(),
    };
    Ok(Internet {
        addresses,
        payload: ipv4::HEADER_LEN..end,
    })
}

fn parse_ipv6(bytes: &[u8]) -> Result<Internet, Reject> {
    let packet = ipv6::Packet::new_checked(bytes)?;
    if packet.version() != 6 {
        return Err(Reject::Version);
    }
    if packet.next_header() != protocol::UDP {
        return Err(Reject::Protocol);
    }
    let end = ipv6::HEADER_LEN + usize::from(packet.payload_len());
    if end > bytes.len() {
        return Err(Reject::Truncated);
    }
    let addresses = Addresses::V6 {
        client: packet.source(),
        local: packet.destination(),
    };
    Ok(Internet {
        addresses,
        payload: ipv6::HEADER_LEN..end,
    })
}

/// Ports of client and server. The datagram has to fill the packet: bytes of the packet behind it have not been summed up.
fn parse_udp(bytes: &[u8]) -> Result<(u16, u16), Reject> {
    let Ok(datagram) = udp::Datagram::new_checked(bytes) else {
        return Err(Reject::Length);
    };
    if usize::from(datagram.length()) != bytes.len() {
        return Err(Reject::Length);
    }
    Ok((datagram.source_port(), datagram.destination_port()))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use smoltcp::wire::{EthernetFrame, Ipv4Packet, Ipv6Packet, UdpPacket};

    use super::*;
    use crate::testing::{QUERY_IPV4, QUERY_IPV6, Random, tagged};

    const C_TAG: (u16, u16) = (0x8100, 0x6064);
    const S_TAG: (u16, u16) = (0x88a8, 0xa00a);
    const IPV4: usize = 14;
    const IPV6: usize = 14;

    /// The captured queries with 0, 1 and 2 tags.
    fn queries() -> impl Iterator<Item = Vec<u8>> {
        [QUERY_IPV4, QUERY_IPV6]
            .into_iter()
            .flat_map(|query| [&[][..], &[C_TAG], &[S_TAG, C_TAG]].map(|tags| tagged(query, tags)))
    }

    /// Result of parsing a captured query with other bytes at an offset.
    fn rejected(query: &[u8], at: usize, bytes: &[u8]) -> Option<Reject> {
        let mut frame = query.to_vec();
        frame[at..][..bytes.len()].copy_from_slice(bytes);
        parse(&frame).err()
    }

    #[test]
    fn an_ethernet_group_is_known_as_one() {
        for (first, is_group) in [(0x02, false), (0x01, true), (0xff, true), (0x33, true)] {
            let mut frame = QUERY_IPV4.to_vec();
            frame[6] = first;
            let (path, _) = parse(&frame).expect("a query");
            assert_eq!(path.is_client_group(), is_group);
        }
    }

    #[test]
    fn a_captured_query_over_ipv4() {
        let (path, message) = parse(QUERY_IPV4).expect("a query");
        assert_eq!(
            path.client(),
            "192.0.2.77:59820".parse().expect("an address")
        );
        assert_eq!(path.local(), "192.0.2.1:53".parse().expect("an address"));
        assert_eq!(path.client_mac, [0x02, 0, 0, 0, 0, 0x11]);
        assert_eq!(path.local_mac, [0x02, 0, 0, 0, 0, 0x22]);
        assert_eq!((path.tags(), path.header_len()), (&[][..], 42));
        assert_eq!(message, 42..QUERY_IPV4.len());
    }

    #[test]
    fn a_captured_query_over_ipv6() {
        let (path, message) = parse(QUERY_IPV6).expect("a query");
        assert_eq!(
            path.client(),
            "[2001:db8::11]:39800".parse().expect("an address")
        );
        assert_eq!(
            path.local(),
            "[2001:db8::1]:53".parse().expect("an address")
        );
        assert_eq!((path.tags(), path.header_len()), (&[][..], 62));
        assert_eq!(message, 62..QUERY_IPV6.len());
    }

    #[test]
    fn tags_are_kept_with_their_priority() {
        let (path, message) = parse(&tagged(QUERY_IPV4, &[S_TAG, C_TAG])).expect("a query");
        let tags = [
            vlan::Tag {
                tpid: 0x88a8,
                tci: 0xa00a,
            },
            vlan::Tag {
                tpid: 0x8100,
                tci: 0x6064,
            },
        ];
        assert_eq!(path.tags(), tags);
        assert_eq!(message, 50..QUERY_IPV4.len() + 8);
        let (path, message) = parse(&tagged(QUERY_IPV6, &[C_TAG])).expect("a query");
        assert_eq!(path.tags(), &tags[1..]);
        assert_eq!(message, 66..QUERY_IPV6.len() + 4);
    }

    #[test]
    fn truncated_at_every_length() {
        for query in queries() {
            for len in 0..query.len() {
                assert_eq!(parse(&query[..len]), Err(Reject::Truncated), "{len} bytes");
            }
        }
    }

    #[test]
    fn padding_is_left_out() {
        for query in queries() {
            let whole = parse(&query);
            assert!(whole.is_ok());
            for padding in 1..64 {
                let mut padded = query.clone();
                padded.resize(query.len() + padding, 0xa5);
                assert_eq!(parse(&padded), whole);
            }
        }
    }

    #[test]
    fn an_empty_message_is_one() {
        // Whether it is a DNS message is another layer's question.
        let mut frame = QUERY_IPV4.to_vec();
        frame[IPV4 + 2..][..2].copy_from_slice(&28u16.to_be_bytes());
        frame[IPV4 + 24..][..2].copy_from_slice(&8u16.to_be_bytes());
        assert_eq!(parse(&frame).expect("a query").1, 42..42);
    }

    #[test]
    fn what_is_not_understood() {
        assert_eq!(
            rejected(QUERY_IPV4, 12, &[0x08, 0x06]),
            Some(Reject::Ethertype)
        );
        assert_eq!(
            rejected(QUERY_IPV4, 12, &[0x86, 0xdd]),
            Some(Reject::Version)
        );
        assert_eq!(
            rejected(QUERY_IPV6, 12, &[0x08, 0x00]),
            Some(Reject::Version)
        );
        let three = tagged(QUERY_IPV4, &[S_TAG, C_TAG, C_TAG]);
        assert_eq!(parse(&three), Err(Reject::VlanDepth));
        for ihl in (0..16).filter(|ihl| *ihl != 5) {
            assert_eq!(
                rejected(QUERY_IPV4, IPV4, &[0x40 | ihl]),
                Some(Reject::Ipv4Options)
            );
        }
        for flags_offset in [[0x20, 0], [0, 1], [0x1f, 0xff], [0x60, 0]] {
            assert_eq!(
                rejected(QUERY_IPV4, IPV4 + 6, &flags_offset),
                Some(Reject::Fragment)
            );
        }
        assert_eq!(rejected(QUERY_IPV4, IPV4 + 9, &[6]), Some(Reject::Protocol));
        for extension in [0, 43, 44, 60, 6, 58] {
            assert_eq!(
                rejected(QUERY_IPV6, IPV6 + 6, &[extension]),
                Some(Reject::Protocol)
            );
        }
    }

    #[test]
    fn every_length_but_the_right_one() {
        let ipv4 = |at, len: u16| rejected(QUERY_IPV4, IPV4 + at, &len.to_be_bytes());
        let ipv6 = |at, len: u16| rejected(QUERY_IPV6, IPV6 + at, &len.to_be_bytes());
        for len in 0..=u16::MAX {
            let ip = if len > 68 {
                Reject::Truncated
            } else {
                Reject::Length
            };
            assert_eq!(ipv4(2, len), (len != 68).then_some(ip), "IPv4 {len}");
            let ip = if len > 48 {
                Reject::Truncated
            } else {
                Reject::Length
            };
            assert_eq!(ipv6(4, len), (len != 48).then_some(ip), "IPv6 {len}");
            assert_eq!(
                ipv4(24, len),
                (len != 48).then_some(Reject::Length),
                "UDP {len}"
            );
            assert_eq!(
                ipv6(44, len),
                (len != 48).then_some(Reject::Length),
                "UDP {len}"
            );
        }
    }

    /// The message that smoltcp finds in a frame without tags.
    fn smoltcp_message(frame: &[u8]) -> Option<Vec<u8>> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let datagram = match u16::from(ethernet.ethertype()) {
            ethertype::IPV4 => Ipv4Packet::new_checked(ethernet.payload())
                .ok()?
                .payload()
                .to_vec(),
            ethertype::IPV6 => Ipv6Packet::new_checked(ethernet.payload())
                .ok()?
                .payload()
                .to_vec(),
            _ => return None,
        };
        Some(
            UdpPacket::new_checked(&datagram[..])
                .ok()?
                .payload()
                .to_vec(),
        )
    }

    #[test]
    fn damage_never_leads_out_of_the_frame() {
        let mut random = Random::new(3);
        let queries: Vec<_> = queries().collect();
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut frame = queries[random.below(queries.len())].clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(62);
                frame[at] = random.next() as u8;
            }
            frame.truncate(frame.len() - random.below(8) * random.below(2));
            let Ok((path, message)) = parse(&frame) else {
                continue;
            };
            accepted += 1;
            assert_eq!(message.start, path.header_len());
            let bytes = frame.get(message).expect("inside the frame");
            if path.tags().is_empty() {
                assert_eq!(smoltcp_message(&frame).as_deref(), Some(bytes));
            }
        }
        assert!(accepted > 1000, "only {accepted} frames were accepted");
    }
}
