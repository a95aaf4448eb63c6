//! UDP and TCP.

use super::take;
use crate::frame::{Cursor, View};
use xdnsd_abi::Reason;
use xdnsd_abi::headers::{tcp, udp};

/// A UDP header, and where the datagram and its message begin. Ports are big-endian in memory.
#[derive(Clone, Copy)]
pub struct Datagram<'a> {
    header: View<'a, { udp::HEADER_LEN }>,
    /// Start of the header.
    pub start: Cursor<'a>,
    /// Start of the message.
    pub message: Cursor<'a>,
}

impl<'a> Datagram<'a> {
    #[inline(always)]
    pub fn parse(start: Cursor<'a>) -> Result<Self, Reason> {
        let (header, message) = take::<{ udp::HEADER_LEN }>(start)?;
        Ok(Self {
            header,
            start,
            message,
        })
    }

    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        self.header.get::<{ udp::field::SOURCE_PORT.start }, u16>()
    }

    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        self.header
            .get::<{ udp::field::DESTINATION_PORT.start }, u16>()
    }

    /// Length of header and message in bytes, from the header.
    #[inline(always)]
    pub fn len(&self) -> u16 {
        self.header.be16::<{ udp::field::LENGTH.start }>()
    }

    /// False if the sender computed no checksum (RFC 768).
    #[inline(always)]
    pub fn has_checksum(&self) -> bool {
        self.checksum() != 0
    }

    /// The checksum as it lies in the frame. 0: there is none.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        self.header.get::<{ udp::field::CHECKSUM.start }, u16>()
    }
}

/// A TCP header without its options. Ports and numbers are big-endian in memory.
pub struct Segment<'a> {
    header: View<'a, { tcp::HEADER_LEN }>,
}

impl<'a> Segment<'a> {
    /// Parses the header; `None` if the frame ends before its end.
    #[inline(always)]
    pub fn parse(start: Cursor<'a>) -> Option<Self> {
        let (header, _) = start.take::<{ tcp::HEADER_LEN }>()?;
        Some(Self { header })
    }

    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        self.header.get::<{ tcp::field::SOURCE_PORT.start }, u16>()
    }

    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        self.header
            .get::<{ tcp::field::DESTINATION_PORT.start }, u16>()
    }

    /// Sequence number of its first byte.
    #[inline(always)]
    pub fn sequence(&self) -> u32 {
        self.header.get::<{ tcp::field::SEQUENCE.start }, u32>()
    }

    /// Sequence number of the byte that is expected next.
    #[inline(always)]
    pub fn acknowledgment(&self) -> u32 {
        self.header
            .get::<{ tcp::field::ACKNOWLEDGMENT.start }, u32>()
    }

    /// Length of header and options in bytes, from the header: 0 to 60. The frame may be shorter.
    #[inline(always)]
    pub fn header_len(&self) -> u8 {
        (self.header.get::<{ tcp::field::OFFSET }, u8>() >> 4) * 4
    }

    /// The header in frame order.
    #[inline(always)]
    pub fn words(&self) -> [u32; tcp::HEADER_LEN / size_of::<u32>()] {
        [
            self.header.get::<0, u32>(),
            self.header.get::<4, u32>(),
            self.header.get::<8, u32>(),
            self.header.get::<12, u32>(),
            self.header.get::<16, u32>(),
        ]
    }

    /// Flags, see [`xdnsd_abi::headers::tcp::flag`].
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.header.get::<{ tcp::field::FLAGS }, u8>()
    }

    /// True for a segment that opens a connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        use tcp::flag::{ACK, FIN, RST, SYN};
        self.flags() & (SYN | ACK | FIN | RST) == SYN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: [u8; 28] = [
        0x9c, 0x40, 0x00, 0x35, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00, 0x70, 0x02, 0xfa,
        0xf0, 0x00, 0x00, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x01, 0x01, 0x04, 0x02,
    ];

    /// Parses exactly these bytes.
    fn parse(bytes: &[u8], read: impl FnOnce(Option<Segment<'_>>)) {
        let bytes = bytes.to_vec().into_boxed_slice();
        let range = bytes.as_ptr_range();
        // SAFETY: the range of a live slice.
        read(Segment::parse(unsafe {
            Cursor::new(range.start, range.end)
        }));
    }

    #[test]
    fn a_segment_is_its_header_and_says_how_long_it_is() {
        parse(&SYN, |segment| {
            let segment = segment.expect("it is whole");
            assert_eq!(segment.source_port().to_ne_bytes(), [0x9c, 0x40]);
            assert_eq!(segment.destination_port().to_ne_bytes(), [0x00, 0x35]);
            assert_eq!(segment.sequence().to_ne_bytes(), [0x11, 0x22, 0x33, 0x44]);
            assert_eq!(segment.header_len(), 28);
            assert!(segment.opens());
            let words = segment.words().map(u32::to_ne_bytes).concat();
            assert_eq!(words, SYN[..20]);
        });
        for len in 0..SYN.len() {
            parse(&SYN[..len], |segment| {
                assert_eq!(segment.is_some(), len >= 20, "{len} bytes");
            });
        }
        for words in 0..16_u8 {
            let mut bytes = SYN;
            bytes[tcp::field::OFFSET] = words << 4 | 0x0f;
            parse(&bytes, |segment| {
                let len = segment.map(|segment| segment.header_len());
                assert_eq!(len, Some(words * 4));
            });
        }
    }

    #[test]
    fn a_connection_is_asked_for_by_syn_alone() {
        for flags in 0..=u8::MAX {
            let mut bytes = SYN;
            bytes[tcp::field::FLAGS] = flags;
            // PSH, URG and the two of ECN make no difference.
            let opens = flags & 0b01_0111 == 0b00_0010;
            parse(&bytes, |segment| {
                let segment = segment.expect("it is whole");
                assert_eq!(segment.opens(), opens, "{flags:#010b}");
            });
        }
    }
}
