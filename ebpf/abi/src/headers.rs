//! Formats of a frame's headers: lengths, fields, masks and numbers.
//!
//! A field is a range of bytes from the start of its header. Numbers are big-endian.

/// Position of a field in its header.
pub type Field = core::ops::Range<usize>;

/// Ethernet II frames (IEEE 802.3), without the frame check sequence.
///
/// ```text
///  0             6             12          14
///  | destination | source      | EtherType | payload, padded to 46 ...
/// ```
pub mod ethernet {
    /// Length of the header in bytes.
    pub const HEADER_LEN: usize = 14;
    /// Bit of an address's first octet that marks a group: multicast or broadcast.
    pub const GROUP: u8 = 0x01;

    /// The fields.
    pub mod field {
        use super::super::Field;
        /// Destination address.
        pub const DESTINATION: Field = 0..6;
        /// Source address.
        pub const SOURCE: Field = 6..12;
        /// EtherType of the payload.
        pub const ETHERTYPE: Field = 12..14;
    }

    /// EtherTypes that matter here.
    pub mod ethertype {
        /// IPv4 (RFC 894).
        pub const IPV4: u16 = 0x0800;
        /// IPv6 (RFC 2464).
        pub const IPV6: u16 = 0x86dd;
        /// Customer VLAN tag (IEEE 802.1Q).
        pub const VLAN: u16 = 0x8100;
        /// Service VLAN tag, the outer of two (IEEE 802.1ad).
        pub const SERVICE_VLAN: u16 = 0x88a8;
    }
}

/// VLAN tags (IEEE 802.1Q), seen as the bytes between the EtherType that announces a tag and the next EtherType.
///
/// ```text
///  ... | TPID |  0     2           4
///      12     |  | TCI | EtherType | payload ...
///                  3 bits priority, 1 bit drop eligible, 12 bits VLAN ID
/// ```
pub mod vlan {
    use super::ethernet::ethertype;

    /// Bytes that a tag adds to a frame.
    pub const HEADER_LEN: usize = 4;
    /// Most tags of a frame: a service tag and a customer tag.
    pub const TAGS_MAX: usize = 2;
    /// VLAN ID in the tag control information.
    pub const ID: u16 = 0x0fff;

    /// The fields.
    pub mod field {
        use super::super::Field;
        /// Tag control information.
        pub const TCI: Field = 0..2;
        /// EtherType of the payload.
        pub const ETHERTYPE: Field = 2..4;
    }

    /// True if `ethertype` announces a tag.
    #[inline(always)]
    #[must_use]
    pub const fn is_tag(ethertype: u16) -> bool {
        matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN)
    }
}

/// IPv4 headers without options (RFC 791).
///
/// ```text
///  0      1     2           4    6               8     9          10         12       16            20
///  | V IHL | TOS | total len | ID | flags, offset | TTL | protocol | checksum | source | destination | payload ...
/// ```
pub mod ipv4 {
    /// Length in bytes of a header without options, the only kind that we accept and emit.
    pub const HEADER_LEN: usize = 20;
    /// Version 4, five words of header.
    pub const VERSION_4_IHL_5: u8 = 0x45;
    /// "Don't fragment" (RFC 791 section 3.1).
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// "More fragments" and the fragment offset: a fragment has one of them set.
    pub const FRAGMENT: u16 = 0x3fff;
    /// The fragment offset.
    pub const OFFSET: u16 = 0x1fff;

    /// The fields.
    pub mod field {
        use super::super::Field;
        /// Version, and header length in words.
        pub const VERSION_IHL: usize = 0;
        /// Type of service.
        pub const TOS: usize = 1;
        /// Length of header and payload in bytes.
        pub const TOTAL_LEN: Field = 2..4;
        /// Identification of a packet's fragments.
        pub const ID: Field = 4..6;
        /// Three flags and the fragment offset.
        pub const FLAGS_OFFSET: Field = 6..8;
        /// Remaining hops.
        pub const TTL: usize = 8;
        /// Protocol of the payload, see [`super::super::protocol`].
        pub const PROTOCOL: usize = 9;
        /// Checksum of the header.
        pub const CHECKSUM: Field = 10..12;
        /// Source address.
        pub const SOURCE: Field = 12..16;
        /// Destination address.
        pub const DESTINATION: Field = 16..20;
    }
}

/// IPv6 headers without extension headers (RFC 8200).
///
/// ```text
///  0                     4             6             7           8        24            40
///  | V | class | flow    | payload len | next header | hop limit | source | destination | payload ...
///   4b    8b      20b
/// ```
pub mod ipv6 {
    /// Length of the header in bytes.
    pub const HEADER_LEN: usize = 40;
    /// Version 6, traffic class 0, flow label 0.
    pub const VERSION_6: [u8; 4] = [0x60, 0, 0, 0];

    /// The fields.
    pub mod field {
        use super::super::Field;
        /// Version, traffic class, flow label.
        pub const VERSION_CLASS_FLOW: Field = 0..4;
        /// Length in bytes behind the header.
        pub const PAYLOAD_LEN: Field = 4..6;
        /// Protocol of the payload, see [`super::super::protocol`], or type of an extension header.
        pub const NEXT_HEADER: usize = 6;
        /// Remaining hops.
        pub const HOP_LIMIT: usize = 7;
        /// Source address.
        pub const SOURCE: Field = 8..24;
        /// Destination address.
        pub const DESTINATION: Field = 24..40;
    }
}

/// Extension headers of IPv6 that may come before a segment (RFC 8200 section 4).
///
/// ```text
///  0             1       2
///  | next header | length | ...            fragment: | offset, flags | identification
/// ```
pub mod extension {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
    /// Fragment offset, in the third and fourth byte.
    pub const OFFSET: u16 = 0xfff8;

    /// True if a next header is one of these.
    #[inline(always)]
    #[must_use]
    pub const fn is_one(next_header: u8) -> bool {
        matches!(
            next_header,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
        )
    }
}

/// IP protocol numbers, which are IPv6's next headers too.
pub mod protocol {
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
}

/// UDP headers (RFC 768).
///
/// ```text
///  0             2                  4        6          8
///  | source port | destination port | length | checksum | payload ...
/// ```
pub mod udp {
    /// Length of the header in bytes.
    pub const HEADER_LEN: usize = 8;

    /// The fields.
    pub mod field {
        use super::super::Field;
        /// Source port.
        pub const SOURCE_PORT: Field = 0..2;
        /// Destination port.
        pub const DESTINATION_PORT: Field = 2..4;
        /// Length of header and payload in bytes.
        pub const LENGTH: Field = 4..6;
        /// Checksum of pseudo-header, header and payload; 0 over IPv4 if there is none.
        pub const CHECKSUM: Field = 6..8;
    }
}

/// TCP headers (RFC 9293 section 3.1).
///
/// ```text
///  0             2                  4          8                12       13      14       16         18       20
///  | source port | destination port | sequence | acknowledgment | offset | flags | window | checksum | urgent | options ...
///                                                                4b
/// ```
pub mod tcp {
    /// Length of a header without options in bytes.
    pub const HEADER_LEN: usize = 20;
    /// Longest header with options in bytes: the offset has four bits.
    pub const HEADER_LEN_MAX: usize = 60;

    /// The fields.
    pub mod field {
        use super::super::Field;
        /// Source port.
        pub const SOURCE_PORT: Field = 0..2;
        /// Destination port.
        pub const DESTINATION_PORT: Field = 2..4;
        /// Sequence number of the first byte.
        pub const SEQUENCE: Field = 4..8;
        /// Sequence number of the byte that is expected next.
        pub const ACKNOWLEDGMENT: Field = 8..12;
        /// Header length in words, in the upper half.
        pub const OFFSET: usize = 12;
        /// Flags, see [`super::flag`].
        pub const FLAGS: usize = 13;
        /// Receive window in bytes.
        pub const WINDOW: Field = 14..16;
        /// Checksum of pseudo-header, header and payload.
        pub const CHECKSUM: Field = 16..18;
        /// End of urgent data.
        pub const URGENT: Field = 18..20;
    }

    /// The option for the maximum segment size (RFC 9293 section 3.7.1).
    pub mod mss {
        /// Length of the option in bytes.
        pub const LEN: usize = 4;
        /// Kind and length of the option.
        pub const KIND_LEN: [u8; 2] = [2, LEN as u8];
        /// Position of its value.
        pub const VALUE: super::super::Field = 2..4;
    }

    /// Kinds of options. All but the first two have a length behind the kind, which counts both.
    pub mod option {
        /// End of options.
        pub const END: u8 = 0;
        /// No operation, for padding.
        pub const NOP: u8 = 1;
        /// Window scale (RFC 7323 section 2.2).
        pub const SCALE: [u8; 2] = [3, 3];
        /// Selective acknowledgments permitted (RFC 2018 section 2).
        pub const SACK_PERMITTED: [u8; 2] = [4, 2];
        /// Timestamps: the sender's, and an echo of the latest one received (RFC 7323 section 3.2).
        pub const TIMESTAMPS: [u8; 2] = [8, 10];
        /// Largest window scale (RFC 7323 section 2.3).
        pub const SCALE_MAX: u8 = 14;
    }

    /// Flags that open and close a connection.
    pub mod flag {
        /// The sender has no more data.
        pub const FIN: u8 = 0x01;
        /// Synchronizes sequence numbers: first segment of either side.
        pub const SYN: u8 = 0x02;
        /// Resets the connection.
        pub const RST: u8 = 0x04;
        /// The acknowledgment number is valid.
        pub const ACK: u8 = 0x10;
    }
}

/// The header of a DNS message (RFC 1035 section 4.1.1).
///
/// ```text
///  0    2       4         6         8         10        12
///  | ID | flags | QDCOUNT | ANCOUNT | NSCOUNT | ARCOUNT | question ...
/// ```
pub mod dns {
    /// Length of the header in bytes.
    pub const HEADER_LEN: usize = 12;
    /// Longest name in wire form in bytes (RFC 1035 section 3.1).
    pub const NAME_MAX: usize = 255;
    /// Longest label in bytes. Higher length bytes are pointers or reserved.
    pub const LABEL_MAX: u8 = 63;
    /// Length of QTYPE and QCLASS, behind QNAME, in bytes (RFC 1035 section 4.1.2).
    pub const QUESTION_FIXED_LEN: usize = 4;
    /// The message is a response.
    pub const QR: u16 = 0x8000;
    /// All bits of the opcode.
    pub const OPCODE: u16 = 0x7800;
    /// The message is truncated.
    pub const TC: u16 = 0x0200;
    /// The client wants recursion.
    pub const RD: u16 = 0x0100;
    /// The server offers recursion.
    pub const RA: u16 = 0x0080;
    /// The server has validated the answer; in a query: the client understands AD (RFC 6840 section 5.7).
    pub const AD: u16 = 0x0020;
    /// The client validates by itself.
    pub const CD: u16 = 0x0010;

    /// The fields.
    pub mod field {
        use super::super::Field;
        /// QR, opcode, AA, TC, RD, RA, Z, AD, CD, RCODE.
        pub const FLAGS: Field = 2..4;
        /// Number of additional records.
        pub const ADDITIONALS: Field = 10..12;
    }

    /// The OPT record (RFC 6891 section 6.1).
    ///
    /// ```text
    ///  0      1      3      5                6         7                  9
    ///  | root | type | size | extended RCODE | version | DO and reserved | length | options ...
    /// ```
    pub mod opt {
        /// Length of a record without options in bytes.
        pub const LEN: usize = 11;
        /// Low byte of its type; the high byte is zero.
        pub const TYPE: u8 = 41;
        /// DO in the high byte of the flags (RFC 3225).
        pub const DNSSEC_OK: u8 = 0x80;
        /// Code of the DNS cookie option (RFC 7873).
        pub const COOKIE: u16 = 10;
        /// Length in bytes of a cookie with a server cookie as in RFC 9018: the client's 8, and 16.
        pub const COOKIE_LEN: usize = 24;
        /// Length of an option with such a cookie in bytes.
        pub const COOKIE_OPTION_LEN: usize = 4 + COOKIE_LEN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Fields of a header follow one another without gaps, except for fields that are not read here.
    #[test]
    fn fields_stand_side_by_side() {
        let byte = |at: usize| at..at + 1;
        let headers: [(&str, usize, Vec<Field>); 6] = [
            ("Ethernet", ethernet::HEADER_LEN, {
                use ethernet::field::*;
                [DESTINATION, SOURCE, ETHERTYPE].to_vec()
            }),
            ("VLAN", vlan::HEADER_LEN, {
                use vlan::field::*;
                [TCI, ETHERTYPE].to_vec()
            }),
            ("IPv4", ipv4::HEADER_LEN, {
                use ipv4::field::*;
                let first = [byte(VERSION_IHL), byte(TOS), TOTAL_LEN, ID, FLAGS_OFFSET];
                let last = [byte(TTL), byte(PROTOCOL), CHECKSUM, SOURCE, DESTINATION];
                [first, last].concat()
            }),
            ("IPv6", ipv6::HEADER_LEN, {
                use ipv6::field::*;
                let first = [VERSION_CLASS_FLOW, PAYLOAD_LEN, byte(NEXT_HEADER)];
                let last = [byte(HOP_LIMIT), SOURCE, DESTINATION];
                [first, last].concat()
            }),
            ("UDP", udp::HEADER_LEN, {
                use udp::field::*;
                [SOURCE_PORT, DESTINATION_PORT, LENGTH, CHECKSUM].to_vec()
            }),
            ("TCP", tcp::HEADER_LEN, {
                use tcp::field::*;
                let first = [SOURCE_PORT, DESTINATION_PORT, SEQUENCE, ACKNOWLEDGMENT];
                let last = [byte(OFFSET), byte(FLAGS), WINDOW, CHECKSUM, URGENT];
                [&first[..], &last[..]].concat()
            }),
        ];
        for (name, len, fields) in headers {
            let end = fields.iter().fold(0, |end, field| {
                assert_eq!(field.start, end, "{name}");
                field.end
            });
            assert_eq!(end, len, "{name}");
        }
    }
}
