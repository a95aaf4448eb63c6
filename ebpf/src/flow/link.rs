//! Ethernet and up to two VLAN tags.

use super::take;
use crate::frame::Cursor;
use xdnsd_abi::Reason;
use xdnsd_abi::headers::{ethernet, vlan};

/// An Ethernet address in frame order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u16; 3]);

impl Mac {
    /// From its octets.
    #[inline(always)]
    pub const fn of([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([c, d]),
            u16::from_ne_bytes([e, f]),
        ])
    }

    /// The address as one number.
    #[inline(always)]
    pub const fn number(self) -> u64 {
        let Self([a, b, c]) = self;
        (a as u64) << 32 | (b as u64) << 16 | c as u64
    }

    /// True for a group address, which no station sends from.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        let Self([a, ..]) = self;
        let [first, _] = a.to_ne_bytes();
        first & ethernet::GROUP != 0
    }
}

/// Headers before the packet.
pub struct Link {
    pub destination: Mac,
    pub source: Mac,
    /// EtherType behind the last tag.
    pub ethertype: u16,
    /// VLAN ID of the first tag; 0 if there is none.
    pub vlan_outer: u16,
    /// VLAN ID of the second tag, 0: there is none.
    pub vlan_inner: u16,
    /// How many tags there are, those without a VLAN among them.
    pub tags: u8,
}

impl Link {
    /// Compares the group bit of the destination first: ARP, neighbour discovery and mDNS leave here. A tag with ID 0 carries a
    /// priority alone (IEEE 802.1Q section 6.9) and is refused: in the listen map 0 stands for an untagged frame, whose answer has
    /// no tag.
    #[inline(always)]
    pub fn parse(frame: Cursor<'_>) -> Result<(Self, Cursor<'_>), Reason> {
        Self::parse_with::<false>(frame)
    }

    /// The same where no key of the listen map is made for an answer: a tag with ID 0 is as none, as the kernel has it.
    #[inline(always)]
    pub fn parse_any_priority(frame: Cursor<'_>) -> Result<(Self, Cursor<'_>), Reason> {
        Self::parse_with::<true>(frame)
    }

    /// True if a tag carries a priority and names no VLAN.
    #[inline(always)]
    pub const fn has_priority_alone(&self) -> bool {
        self.tags > (self.vlan_outer != 0) as u8 + (self.vlan_inner != 0) as u8
    }

    #[inline(always)]
    fn parse_with<const PRIORITY: bool>(frame: Cursor<'_>) -> Result<(Self, Cursor<'_>), Reason> {
        use ethernet::field::{DESTINATION, ETHERTYPE, SOURCE};
        let (header, mut rest) = take::<{ ethernet::HEADER_LEN }>(frame)?;
        if header.get::<{ DESTINATION.start }, u8>() & ethernet::GROUP != 0 {
            return Err(Reason::PassMulticast);
        }
        let mut link = Self {
            destination: Mac([
                header.get::<{ DESTINATION.start }, u16>(),
                header.get::<{ DESTINATION.start + 2 }, u16>(),
                header.get::<{ DESTINATION.start + 4 }, u16>(),
            ]),
            source: Mac([
                header.get::<{ SOURCE.start }, u16>(),
                header.get::<{ SOURCE.start + 2 }, u16>(),
                header.get::<{ SOURCE.start + 4 }, u16>(),
            ]),
            ethertype: header.be16::<{ ETHERTYPE.start }>(),
            vlan_outer: 0,
            vlan_inner: 0,
            tags: 0,
        };
        if vlan::is_tag(link.ethertype) {
            (link.vlan_outer, link.ethertype, rest) = tag::<PRIORITY>(rest)?;
            link.tags = 1;
            if vlan::is_tag(link.ethertype) {
                let id;
                (id, link.ethertype, rest) = tag::<PRIORITY>(rest)?;
                if PRIORITY && link.vlan_outer == 0 {
                    link.vlan_outer = id;
                } else {
                    link.vlan_inner = id;
                }
                link.tags = 2;
            }
            if vlan::is_tag(link.ethertype) {
                return Err(Reason::PassVlanDepth);
            }
        }
        Ok((link, rest))
    }
}

/// VLAN ID and inner EtherType of one tag.
#[inline(always)]
fn tag<const PRIORITY: bool>(rest: Cursor<'_>) -> Result<(u16, u16, Cursor<'_>), Reason> {
    use vlan::field::{ETHERTYPE, TCI};
    let (tag, rest) = take::<{ vlan::HEADER_LEN }>(rest)?;
    let id = tag.be16::<{ TCI.start }>() & vlan::ID;
    if id == 0 && !PRIORITY {
        return Err(Reason::PassVlanPriority);
    }
    Ok((id, tag.be16::<{ ETHERTYPE.start }>(), rest))
}
