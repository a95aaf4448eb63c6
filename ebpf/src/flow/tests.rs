use super::*;
use network::Address;

/// Ethernet from 02:00:00:00:00:02 to 02:00:00:00:00:01, without its EtherType.
const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
/// From 192.0.2.1 to 192.0.2.53.
const IPV4_TCP: [u8; 20] = [
    0x45, 0x00, 0x00, 0x30, 0x12, 0x34, 0x40, 0x00, 0x40, 0x06, 0xa4, 0x5d, 0xc0, 0x00, 0x02, 0x01,
    0xc0, 0x00, 0x02, 0x35,
];
/// From 2001:db8::1 to 2001:db8::53.
const IPV6_TCP: [u8; 40] = [
    0x60, 0x00, 0x00, 0x00, 0x00, 0x1c, 0x06, 0x40, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x53,
];
/// From port 40000 to port 53, with the options MSS, NOP, NOP, SACK permitted.
const SYN: [u8; 28] = [
    0x9c, 0x40, 0x00, 0x35, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00, 0x70, 0x02, 0xfa, 0xf0,
    0x00, 0x00, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x01, 0x01, 0x04, 0x02,
];

fn syn_v4() -> Vec<u8> {
    [&ETHERNET[..], &[0x08, 0x00], &IPV4_TCP, &SYN].concat()
}

fn syn_v6() -> Vec<u8> {
    [&ETHERNET[..], &[0x86, 0xdd], &IPV6_TCP, &SYN].concat()
}

/// Parses exactly these bytes.
fn parse<T>(bytes: &[u8], read: impl FnOnce(Result<Frame<'_>, Reason>) -> T) -> T {
    let bytes = bytes.to_vec().into_boxed_slice();
    let range = bytes.as_ptr_range();
    // SAFETY: the range of a live slice, which outlives what is found in it.
    read(Frame::parse(unsafe { Cursor::new(range.start, range.end) }))
}

/// Parses exactly these bytes as a segment.
fn parse_segment<T>(bytes: &[u8], read: impl FnOnce(Result<Flow<Segment<'_>>, Reason>) -> T) -> T {
    let bytes = bytes.to_vec().into_boxed_slice();
    let range = bytes.as_ptr_range();
    // SAFETY: the range of a live slice, which outlives what is found in it.
    read(segment(unsafe { Cursor::new(range.start, range.end) }))
}

/// Reason why these bytes are no segment.
fn why_no_segment(bytes: &[u8]) -> Option<Reason> {
    parse_segment(bytes, |flow| flow.err())
}

fn what(bytes: &[u8]) -> Result<&'static str, Reason> {
    parse(bytes, |frame| {
        frame.map(|frame| match frame {
            Frame::Udp(_) => "UDP",
            Frame::Tcp(_) => "TCP",
            Frame::Other => "other",
        })
    })
}

fn changed(frame: &[u8], at: usize, to: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    assert_ne!(frame[at], to, "a change changes something");
    frame[at] = to;
    frame
}

#[test]
fn a_segment_is_found_with_its_way_and_its_ports() {
    let ipv4 = |octets| Address::mapped(u32::from_ne_bytes(octets));
    let ipv6 = |last| {
        let high = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0];
        let low = [0, 0, 0, 0, 0, 0, 0, last];
        Address(u64::from_ne_bytes(high), u64::from_ne_bytes(low))
    };
    let v4 = (ipv4([192, 0, 2, 1]), ipv4([192, 0, 2, 53]));
    let v6 = (ipv6(0x01), ipv6(0x53));
    let tag = [0x81, 0x00, 0x60, 0x05];
    for (frame, (source, destination)) in [(syn_v4(), v4), (syn_v6(), v6)] {
        let tagged = [&frame[..12], &tag, &frame[12..]].concat();
        for (frame, vlan) in [(frame, 0), (tagged, 5)] {
            assert_eq!(what(&frame), Ok("TCP"));
            parse_segment(&frame, |flow| {
                let flow = flow.unwrap_or_else(|reason| panic!("a segment, not {reason:?}"));
                assert_eq!((flow.link.vlan_outer, flow.link.vlan_inner), (vlan, 0));
                assert!(flow.packet.source == source && flow.packet.destination == destination);
                assert_eq!(flow.packet.payload_len, SYN.len() as i32);
                assert_eq!(flow.transport.source_port(), 40_000_u16.to_be());
                assert_eq!(flow.transport.destination_port(), 53_u16.to_be());
                assert!(flow.transport.opens());
            });
        }
    }
}

/// A header that is cut off is no segment, and no byte behind the end is read.
#[test]
fn a_cut_segment_is_none() {
    for frame in [syn_v4(), syn_v6()] {
        let payload = frame.len() - SYN.len();
        for len in 0..frame.len() {
            let found = what(&frame[..len]);
            let expected = if len < payload {
                Err(Reason::PassTruncated)
            } else if len < payload + 20 {
                Ok("other")
            } else {
                Ok("TCP")
            };
            assert_eq!(found, expected, "{len} of {}", frame.len());
            let expected = match expected {
                Ok("TCP") => None,
                Ok(_) => Some(Reason::PassProtocol),
                Err(reason) => Some(reason),
            };
            assert_eq!(why_no_segment(&frame[..len]), expected, "{len}");
        }
        let padded = [&frame[..], &[0xa5; 7]].concat();
        assert_eq!(what(&padded), Ok("TCP"));
    }
}

#[test]
fn what_is_no_whole_datagram_or_segment_is_another_thing() {
    let (v4, v6) = (syn_v4(), syn_v6());
    // More fragments, and an offset; "don't fragment" alone is no fragment.
    for (at, to) in [(20, 0x20), (21, 0x01)] {
        let fragment = changed(&v4, at, to);
        assert_eq!(what(&fragment), Ok("other"));
        assert_eq!(why_no_segment(&fragment), Some(Reason::PassProtocol));
        let fragment = changed(&fragment, 23, 17);
        assert_eq!(what(&fragment), Err(Reason::PassFragment));
    }
    // ICMP, IPv6's fragments, and ICMPv6.
    for protocol in [0, 1, 44, 58, 255] {
        assert_eq!(what(&changed(&v4, 23, protocol)), Ok("other"));
        assert_eq!(what(&changed(&v6, 20, protocol)), Ok("other"));
        for (frame, at) in [(&v4, 23), (&v6, 20)] {
            let other = changed(frame, at, protocol);
            assert_eq!(why_no_segment(&other), Some(Reason::PassProtocol));
        }
    }
    assert_eq!(what(&changed(&v4, 23, 17)), Ok("UDP"));
    assert_eq!(what(&changed(&v6, 20, 17)), Ok("UDP"));
    assert_eq!(what(&changed(&v4, 14, 0x46)), Err(Reason::PassIpv4Options));
    assert_eq!(what(&changed(&v6, 14, 0x40)), Err(Reason::PassProtocol));
    // To a mapped address over IPv6: a segment to nobody, and a datagram that would match IPv4's listener.
    let mut mapped = v6;
    mapped[38..46].fill(0);
    assert_eq!(what(&mapped), Ok("TCP"));
    assert_eq!(why_no_segment(&mapped), Some(Reason::PassProtocol));
    mapped[20] = 17;
    assert_eq!(what(&mapped), Err(Reason::PassForeign));
}
