//! Frames.

use std::ops::Range;

use smoltcp::wire::{EthernetFrame, Ipv4Packet, Ipv6Packet, UdpPacket};
use xdnsd_core::limits::UDP_MESSAGE_MAX;
use xdnsd_core::wire;

/// A frame is refused, or it is a query that an independent network stack sees in the same place, and a reply goes back by the
/// way that it came.
pub fn frame(frame: &[u8]) -> bool {
    let Ok((path, message)) = wire::parse(frame) else {
        return false;
    };
    assert_eq!(message.start, path.header_len());
    assert!(message.start <= message.end && message.end <= frame.len());
    if path.tags().is_empty() {
        let ports = [path.client().port(), path.local().port()];
        assert_eq!(stack(frame), (ports, message.clone()));
    }
    round_trip(&path, &frame[message]);
    true
}

/// What smoltcp sees: the ports, and where the message stands.
fn stack(frame: &[u8]) -> ([u16; 2], Range<usize>) {
    let frame = EthernetFrame::new_checked(frame).expect("a frame");
    let payload = frame.payload();
    let (header_len, datagram) = if payload[0] >> 4 == 4 {
        let packet = Ipv4Packet::new_checked(payload).expect("an IPv4 packet");
        (usize::from(packet.header_len()), packet.payload())
    } else {
        let packet = Ipv6Packet::new_checked(payload).expect("an IPv6 packet");
        (packet.header_len(), packet.payload())
    };
    let datagram = UdpPacket::new_checked(datagram).expect("a datagram");
    let start = 14 + header_len + 8;
    let ports = [datagram.src_port(), datagram.dst_port()];
    (ports, start..start + datagram.payload().len())
}

/// The reply's frame is one that we understand, and it goes back by the way that the query came.
fn round_trip(path: &wire::Path, message: &[u8]) {
    let mut reply = vec![0xa5; path.header_len() + message.len() + 1];
    let start = path.header_len();
    reply[start..start + message.len()].copy_from_slice(message);
    match path.emit(&mut reply, message.len()) {
        Ok(len) => {
            let (back, range) = wire::parse(&reply[..len]).expect("our own frame");
            assert_eq!((back.client(), back.local()), (path.local(), path.client()));
            assert_eq!((back.tags(), &reply[range]), (path.tags(), message));
            assert_eq!(reply[len..], [0xa5], "no byte behind it is touched");
        }
        Err(_) => assert!(message.len() > UDP_MESSAGE_MAX),
    }
}
