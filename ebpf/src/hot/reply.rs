//! The answer: its message, put together beside the frame, and what stands in front of it.

use super::{Message, OPT_LEN, QUESTION_FIXED_LEN, Question, Scratch};
use crate::flow::Flow;
use crate::flow::answer::{self, Header, write_macs};
use crate::flow::link::{Link, Mac};
use crate::flow::network::Address;
use crate::flow::transport::Datagram;
use crate::frame::Cursor;
use crate::frame::write::{CursorMut, ViewMut};
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::{dns, ethernet, ipv4, ipv6, protocol, udp, vlan};
use xdnsd_abi::hot::{BODY_MAX, BODY_WORDS, NAME_MAX, RECORDS_MAX, Shape, Words, kind, word};

/// The size that an OPT record of ours names, as the forwarder's own does.
const UDP_SIZE: u16 = 1232;
/// The longest question, with the header.
const END_MAX: usize = dns::HEADER_LEN + NAME_MAX + QUESTION_FIXED_LEN;

/// Makes the answer of the query that stands in the scratch, and gives its length. `None`: the answer is not one.
#[inline(always)]
pub fn put_together(
    scratch: &mut Scratch,
    question: &Question,
    words: &Words,
    age_secs: u32,
) -> Option<usize> {
    let shape = Shape::from_word(words[word::SHAPE]);
    let (end, body_len) = (question.end, usize::from(shape.body_len));
    if end > END_MAX || body_len > BODY_MAX {
        return None;
    }
    let message = &mut scratch.message;
    for at in 0..BODY_WORDS {
        if at * size_of::<u64>() >= body_len {
            break;
        }
        put(
            message,
            end + at * size_of::<u64>(),
            words[word::BODY + at].to_ne_bytes(),
        )?;
    }
    write_ttls(message, end, words[word::TTLS], age_secs)?;
    let body_end = end + body_len;
    let has_edns = question.kind & kind::EDNS != 0;
    let len = if has_edns {
        let [size_high, size_low] = UDP_SIZE.to_be_bytes();
        let flags = if question.kind & kind::DNSSEC_OK != 0 {
            0x80
        } else {
            0
        };
        let opt = [0, 0, 41, size_high, size_low, 0, 0, flags, 0, 0, 0];
        put::<OPT_LEN>(message, body_end, opt)?;
        body_end + OPT_LEN
    } else {
        body_end
    };
    // What a sum in words takes for a part of it.
    put(message, len, [0; 4])?;
    write_header(message, question, &shape, has_edns)?;
    Some(len)
}

#[inline(always)]
fn put<const N: usize>(message: &mut Message, at: usize, bytes: [u8; N]) -> Option<()> {
    *message.get_mut(at..at + N)?.first_chunk_mut()? = bytes;
    Some(())
}

/// Counts the TTLs down. `places` are those of an answer, from `end` on.
#[inline(always)]
fn write_ttls(message: &mut Message, end: usize, places: u64, age_secs: u32) -> Option<()> {
    let places = places.to_ne_bytes();
    for place in places.into_iter().take(RECORDS_MAX) {
        if place == 0 {
            break;
        }
        let at = end + usize::from(place);
        let ttl: &mut [u8; 4] = message.get_mut(at..at + 4)?.first_chunk_mut()?;
        *ttl = u32::from_be_bytes(*ttl)
            .saturating_sub(age_secs)
            .to_be_bytes();
    }
    Some(())
}

/// The ID stays, and so do RD and CD.
#[inline(always)]
fn write_header(
    message: &mut Message,
    question: &Question,
    shape: &Shape,
    has_edns: bool,
) -> Option<()> {
    // RFC 6840 section 5.7: AD is for who asks for it, or for DNSSEC records.
    let understands = question.flags & dns::AD != 0 || question.kind & kind::DNSSEC_OK != 0;
    let of_answer = if understands {
        shape.flags
    } else {
        shape.flags & !dns::AD
    };
    let flags = dns::QR | dns::RA | question.flags & (dns::RD | dns::CD) | of_answer;
    put(message, dns::field::FLAGS.start, flags.to_be_bytes())?;
    put(message, 6, shape.answers.to_be_bytes())?;
    put(message, 8, shape.authorities.to_be_bytes())?;
    put(message, 10, u16::from(has_edns).to_be_bytes())
}

/// What stands in front of a message, there and back.
pub struct Envelope {
    /// Of the query.
    client_mac: Mac,
    local_mac: Mac,
    /// TPID and control information of each tag, as they lie in the frame.
    tags: [u32; vlan::TAGS_MAX],
    tag_count: usize,
    client: Address,
    local: Address,
    /// Big-endian in memory.
    client_port: u16,
    local_port: u16,
    /// What the addresses add to a checksum.
    addresses_sum: u64,
}

impl Envelope {
    /// Of a query in this frame.
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

    /// Its bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        let ip_len = match self.local.ipv4() {
            Some(_) => ipv4::HEADER_LEN,
            None => ipv6::HEADER_LEN,
        };
        ethernet::HEADER_LEN + self.tag_count * vlan::HEADER_LEN + ip_len + udp::HEADER_LEN
    }

    /// Writes it in front of a message of `len` bytes, which add up to `sum`. `None`: the frame is shorter than [`Self::len`].
    #[inline(always)]
    pub fn write(&self, frame: CursorMut<'_>, len: usize, sum: u64) -> Option<()> {
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
        let ip = Header {
            source: self.local,
            destination: self.client,
            addresses_sum: self.addresses_sum,
            protocol: protocol::UDP,
            payload_len: udp_len,
        };
        match (self.local.ipv4(), self.client.ipv4()) {
            (Some(source), Some(destination)) => {
                ethertype.set_be16::<0>(ethernet::ethertype::IPV4);
                let (header, rest) = rest.take::<{ ipv4::HEADER_LEN }>()?;
                ip.write_ipv4(header, source, destination);
                self.write_udp(rest.take::<{ udp::HEADER_LEN }>()?.0, udp_len, sum);
            }
            _ => {
                ethertype.set_be16::<0>(ethernet::ethertype::IPV6);
                let (header, rest) = rest.take::<{ ipv6::HEADER_LEN }>()?;
                ip.write_ipv6(header);
                self.write_udp(rest.take::<{ udp::HEADER_LEN }>()?.0, udp_len, sum);
            }
        }
        Some(())
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
