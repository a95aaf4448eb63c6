//! A query's frame understood from end to end: where the message is, and the way back.
//!
//! ```text
//!  0          14      18      22                 header_len           header_len + message
//!  | Ethernet | (tag) | (tag) | IPv4 20 / IPv6 40 | UDP 8 | message ... | padding ...
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;

use super::ethernet::{self, ethertype};
use super::{PROTOCOL_UDP, Truncated, ipv4, ipv6, udp, vlan};

/// Most VLAN tags that a frame may carry: a service tag and a customer tag.
pub const VLAN_TAGS_MAX: usize = 2;

/// Why a frame is not a query that can be answered from its own bytes.
///
/// The XDP program passes all of these to the kernel, so none is seen here unless program and worker disagree. The
/// words are those of its pass reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Shorter than its own headers say.
    Truncated,
    /// Neither IPv4 nor IPv6.
    Ethertype,
    /// More than [`VLAN_TAGS_MAX`] VLAN tags.
    VlanDepth,
    /// The IP header names another version than the EtherType.
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

/// The two ends of a query, in their address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Over IPv4.
    V4 {
        /// Who asked.
        client: ipv4::Address,
        /// Whom it asked: us.
        local: ipv4::Address,
    },
    /// Over IPv6.
    V6 {
        /// Who asked.
        client: ipv6::Address,
        /// Whom it asked: us.
        local: ipv6::Address,
    },
}

/// All that is needed to answer a query later, when its frame is gone.
///
/// It is kept for each client that waits for an upstream, so it has to stay small. The reply leaves as the query
/// came: to the MAC address that sent it, with the same VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Ethernet source of the query.
    pub(crate) client_mac: ethernet::Address,
    /// Ethernet destination of the query.
    pub(crate) local_mac: ethernet::Address,
    /// The tags, outermost first. Valid values: those below `tag_count`; the others are zero.
    pub(crate) tags: [vlan::Tag; VLAN_TAGS_MAX],
    /// How many tags there are.
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
    /// The VLAN tags that the query came with, outermost first.
    #[must_use]
    pub fn tags(&self) -> &[vlan::Tag] {
        &self.tags[..usize::from(self.tag_count)]
    }

    /// Who asked.
    #[must_use]
    pub const fn client(&self) -> SocketAddr {
        let address = match self.addresses {
            Addresses::V4 { client, .. } => ipv4_addr(client),
            Addresses::V6 { client, .. } => ipv6_addr(client),
        };
        SocketAddr::new(address, self.client_port)
    }

    /// Whom it asked: our address and port.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        let address = match self.addresses {
            Addresses::V4 { local, .. } => ipv4_addr(local),
            Addresses::V6 { local, .. } => ipv6_addr(local),
        };
        SocketAddr::new(address, self.local_port)
    }

    /// Bytes in front of the message: the same in the query and in the reply.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.ip_offset() + self.ip_header_len() + udp::HEADER_LEN
    }

    /// Where the IP header begins.
    pub(crate) const fn ip_offset(&self) -> usize {
        ethernet::HEADER_LEN + vlan::HEADER_LEN * self.tag_count as usize
    }

    /// Bytes of the IP header.
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

/// Understands the frame of a query: Ethernet, up to two VLAN tags, IPv4 without options or fragments or IPv6 without
/// extension headers, and UDP, all lengths consistent. Gives the way back and where the message stands in the frame.
///
/// The padding of Ethernet after the packet is left out. Checksums are not looked at: the XDP program has summed up
/// every byte before, and what does not add up goes to the kernel, which knows a partial sum from damage.
///
/// # Errors
/// [`Reject`] says what is not understood.
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

/// What stands before the IP header.
struct Tagged {
    tags: [vlan::Tag; VLAN_TAGS_MAX],
    tag_count: u8,
    /// EtherType after the last tag.
    ethertype: u16,
    /// Offset of what the EtherType names; never past the frame.
    payload: usize,
}

fn parse_tags(frame: &[u8], ethertype: u16) -> Result<Tagged, Reject> {
    let mut tagged = Tagged {
        tags: [vlan::Tag::default(); VLAN_TAGS_MAX],
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

/// What the IP header says.
struct Internet {
    addresses: Addresses,
    /// The datagram inside the packet; never past it.
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
    if packet.protocol() != PROTOCOL_UDP {
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
    if packet.next_header() != PROTOCOL_UDP {
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

/// Client's and our port. The datagram has to fill the packet: what IP carries beyond it nobody has summed up.
fn parse_udp(bytes: &[u8]) -> Result<(u16, u16), Reject> {
    let Ok(datagram) = udp::Datagram::new_checked(bytes) else {
        return Err(Reject::Length);
    };
    if usize::from(datagram.length()) != bytes.len() {
        return Err(Reject::Length);
    }
    Ok((datagram.source_port(), datagram.destination_port()))
}
