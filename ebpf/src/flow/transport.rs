//! UDP and TCP.

use super::take;
use crate::frame::{Cursor, View};
use xdnsd_abi::Reason;
use xdnsd_abi::headers::{tcp, udp};

/// A UDP header, and where the datagram and its message begin. Ports are big-endian in memory.
#[derive(Clone, Copy)]
pub struct Datagram<'a> {
    header: View<'a, { udp::HEADER_LEN }>,
    /// At the header.
    pub start: Cursor<'a>,
    /// Behind it.
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

    /// Bytes of header and message, as the header says.
    #[inline(always)]
    pub fn len(&self) -> u16 {
        self.header.be16::<{ udp::field::LENGTH.start }>()
    }

    /// False: the sender computed no checksum (RFC 768).
    #[inline(always)]
    pub fn has_checksum(&self) -> bool {
        self.header.get::<{ udp::field::CHECKSUM.start }, u16>() != 0
    }
}

/// A TCP header. Ports are big-endian in memory.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no verdict depends on it yet: SYN cookies will")
)]
pub struct Segment<'a> {
    header: View<'a, { tcp::HEADER_LEN }>,
    /// Bytes of options behind the header, which are all in the frame.
    options_len: u8,
    /// At the options.
    options: Cursor<'a>,
}

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no verdict depends on it yet: SYN cookies will")
)]
impl<'a> Segment<'a> {
    /// `None`: the frame ends before the header does, or the header says to be shorter than itself.
    #[inline(always)]
    pub fn parse(start: Cursor<'a>) -> Option<Self> {
        let (header, options) = start.take::<{ tcp::HEADER_LEN }>()?;
        let len = (header.get::<{ tcp::field::OFFSET }, u8>() >> 4) * 4;
        let options_len = len.checked_sub(tcp::HEADER_LEN as u8)?;
        let is_whole = options.holds::<{ tcp::OPTIONS_LEN_MAX }>(options_len.into());
        is_whole.then_some(Self {
            header,
            options_len,
            options,
        })
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

    /// True for the segment that asks for a connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        use tcp::flag::{ACK, FIN, RST, SYN};
        self.header.get::<{ tcp::field::FLAGS }, u8>() & (SYN | ACK | FIN | RST) == SYN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: [u8; 28] = [
        0x9c, 0x40, 0x00, 0x35, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00, 0x70, 0x02, 0xfa,
        0xf0, 0x00, 0x00, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x01, 0x01, 0x04, 0x02,
    ];

    /// What is found in exactly these bytes.
    fn parse(bytes: &[u8], read: impl FnOnce(Option<Segment<'_>>)) {
        let bytes = bytes.to_vec().into_boxed_slice();
        let range = bytes.as_ptr_range();
        // SAFETY: the range of a live slice.
        read(Segment::parse(unsafe {
            Cursor::new(range.start, range.end)
        }));
    }

    #[test]
    fn a_segment_is_its_header_with_all_options() {
        let padded = [&SYN[..], &[0xa5; 6]].concat();
        for bytes in [&SYN[..], &padded] {
            parse(bytes, |segment| {
                let segment = segment.expect("it is whole");
                assert_eq!(segment.source_port().to_ne_bytes(), [0x9c, 0x40]);
                assert_eq!(segment.destination_port().to_ne_bytes(), [0x00, 0x35]);
                assert_eq!(segment.options_len, 8);
                let (options, _) = segment.options.take::<8>().expect("they are there");
                assert_eq!(options.be16::<2>(), 1460, "the MSS");
                assert!(segment.opens());
            });
        }
        for len in 0..SYN.len() {
            parse(&SYN[..len], |segment| {
                assert!(segment.is_none(), "{len} bytes");
            });
        }
    }

    #[test]
    fn a_header_is_as_long_as_it_says() {
        let mut bytes = [0xa5; 60];
        for words in 0..16_u8 {
            bytes[tcp::field::OFFSET] = words << 4 | 0x0f;
            let options_len = (words * 4).checked_sub(20);
            parse(&bytes, |segment| {
                assert_eq!(segment.map(|s| s.options_len), options_len, "{words}");
            });
            let cut = &bytes[..usize::from(words).max(1) * 4 - 1];
            parse(cut, |segment| assert!(segment.is_none(), "{words}"));
        }
    }

    #[test]
    fn a_connection_is_asked_for_by_syn_alone() {
        for flags in 0..=u8::MAX {
            let mut bytes = SYN;
            bytes[tcp::field::FLAGS] = flags;
            // PSH, URG and the two of ECN say nothing about it.
            let opens = flags & 0b01_0111 == 0b00_0010;
            parse(&bytes, |segment| {
                let segment = segment.expect("it is whole");
                assert_eq!(segment.opens(), opens, "{flags:#010b}");
            });
        }
    }
}
