//! Headers of a datagram before its message, for query and answer.

use super::Flow;
use super::answer::{self, AnswerHeader, write_macs};
use super::link::{Link, Mac};
use super::network::Address;
use super::transport::Datagram;
use crate::frame::Cursor;
use crate::frame::write::{CursorMut, ViewMut};
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::{ethernet, ipv4, ipv6, protocol, udp, vlan};

/// Headers before a message, for query and answer.
pub struct Envelope {
    /// MAC address of the client.
    pub client_mac: Mac,
    local_mac: Mac,
    /// TPID and control information of each tag, in frame order.
    tags: [u32; vlan::TAGS_MAX],
    tag_count: usize,
    pub client: Address,
    local: Address,
    /// Port of the client, big-endian in memory.
    pub client_port: u16,
    local_port: u16,
    /// Sum of the addresses.
    addresses_sum: u64,
}

impl Envelope {
    /// The envelope of a query in this frame.
    #[inline(always)]
    pub fn of(frame: Cursor<'_>, flow: &Flow<Datagram<'_>>) -> Option<Self> {
        const TAGS: usize = ethernet::field::ETHERTYPE.start;
        const TAG: usize = vlan::HEADER_LEN;
        let (start, _) = frame.take::<{ TAGS + vlan::TAGS_MAX * TAG }>()?;
        let Link {
            destination,
            source,
            vlan_outer,
            vlan_inner,
            ..
        } = flow.link;
        Some(Self {
            client_mac: source,
            local_mac: destination,
            tags: [start.get::<TAGS, u32>(), start.get::<{ TAGS + TAG }, u32>()],
            tag_count: usize::from(vlan_outer != 0) + usize::from(vlan_inner != 0),
            client: flow.packet.source,
            local: flow.packet.destination,
            client_port: flow.transport.source_port(),
            local_port: flow.transport.destination_port(),
            addresses_sum: flow.packet.addresses_sum,
        })
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        let ip_len = match self.local.ipv4() {
            Some(_) => ipv4::HEADER_LEN,
            None => ipv6::HEADER_LEN,
        };
        ethernet::HEADER_LEN + self.tag_count * vlan::HEADER_LEN + ip_len + udp::HEADER_LEN
    }

    /// Writes it in front of a message of `len` bytes, which add up to `sum`, and gives the place of that. `None`: the frame is shorter
    /// than [`Self::len`].
    #[inline(always)]
    pub fn write<'f>(&self, frame: CursorMut<'f>, len: usize, sum: u64) -> Option<CursorMut<'f>> {
        let udp_len = (udp::HEADER_LEN + len) as u16;
        let (mut addresses, mut rest) = frame.take::<{ ethernet::field::ETHERTYPE.start }>()?;
        write_macs(&mut addresses, self.client_mac, self.local_mac);
        for (at, tag) in self.tags.into_iter().enumerate() {
            if at < self.tag_count {
                let (mut place, behind) = rest.take::<{ vlan::HEADER_LEN }>()?;
                place.set::<0, u32>(tag);
                rest = behind;
            }
        }
        let (mut ethertype, rest) = rest.take::<2>()?;
        let ip = AnswerHeader {
            source: self.local,
            destination: self.client,
            addresses_sum: self.addresses_sum,
            protocol: protocol::UDP,
            payload_len: udp_len,
        };
        let rest = match (self.local.ipv4(), self.client.ipv4()) {
            (Some(source), Some(destination)) => {
                ethertype.set_be16::<0>(ethernet::ethertype::IPV4);
                let (header, rest) = rest.take::<{ ipv4::HEADER_LEN }>()?;
                ip.write_ipv4(header, source, destination);
                rest
            }
            _ => {
                ethertype.set_be16::<0>(ethernet::ethertype::IPV6);
                let (header, rest) = rest.take::<{ ipv6::HEADER_LEN }>()?;
                ip.write_ipv6(header);
                rest
            }
        };
        let (header, message) = rest.take::<{ udp::HEADER_LEN }>()?;
        self.write_udp(header, udp_len, sum);
        Some(message)
    }

    #[inline(always)]
    fn write_udp(&self, mut header: ViewMut<'_, { udp::HEADER_LEN }>, len: u16, sum: u64) {
        use udp::field;
        // The length counts twice: in the header, and in the pseudo-header.
        let sum = sum
            + self.addresses_sum
            + answer::word(protocol::UDP.into())
            + 2 * answer::word(len)
            + u64::from(self.client_port)
            + u64::from(self.local_port);
        header.set::<{ field::SOURCE_PORT.start }, u16>(self.local_port);
        header.set::<{ field::DESTINATION_PORT.start }, u16>(self.client_port);
        header.set_be16::<{ field::LENGTH.start }>(len);
        header.set_be16::<{ field::CHECKSUM.start }>(Sum::of_few(sum).finish_udp());
    }
}
