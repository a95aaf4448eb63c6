use super::*;
use std::cell::{Cell, RefCell};

/// Query for www.example.com, type A, from 192.0.2.1 to 192.0.2.53, computed by another implementation.
const QUERY_V4: [u8; 75] = [
    0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00, 0x45, 0x00,
    0x00, 0x3d, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0xa4, 0x45, 0xc0, 0x00, 0x02, 0x01, 0xc0, 0x00,
    0x02, 0x35, 0x9c, 0x40, 0x00, 0x35, 0x00, 0x29, 0xd5, 0xa3, 0xbe, 0xef, 0x01, 0x00, 0x00, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x77, 0x77, 0x77, 0x07, 0x65, 0x78, 0x61, 0x6d, 0x70,
    0x6c, 0x65, 0x03, 0x63, 0x6f, 0x6d, 0x00, 0x00, 0x01, 0x00, 0x01,
];

/// The same from 2001:db8::1 to 2001:db8::53.
const QUERY_V6: [u8; 95] = [
    0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x86, 0xdd, 0x60, 0x00,
    0x00, 0x00, 0x00, 0x29, 0x11, 0x40, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x53, 0x9c, 0x40, 0x00, 0x35, 0x00, 0x29, 0xfe, 0x14, 0xbe, 0xef,
    0x01, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x77, 0x77, 0x77, 0x07, 0x65,
    0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x03, 0x63, 0x6f, 0x6d, 0x00, 0x00, 0x01, 0x00, 0x01,
];

const NOW: u64 = 77_000_000_000;
/// Interface of our sockets.
const OUR_INDEX: u32 = 3;
const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const CLIENT: Mac = Mac([
    u16::from_ne_bytes([0x02, 0x00]),
    u16::from_ne_bytes([0x00, 0x00]),
    u16::from_ne_bytes([0x00, 0x02]),
]);

/// Last bytes of our addresses.
const OURS: [u8; 3] = [53, 0x53, 99];

/// A kernel with fixed answers, which remembers the listen key of the look-up.
struct FakeKernel {
    egress_ifindex: u32,
    ingress: u32,
    drops_garbage: bool,
    mac: [u8; 6],
    is_large: bool,
    /// The frame comes by a port of a bridge, which has seen its sender or not; and the station that was looked up.
    is_by_port: bool,
    is_resting: bool,
    has_heard: bool,
    heard: Cell<Option<Mac>>,
    next_hop: Option<NextHop>,
    heartbeat: Option<u64>,
    asked: RefCell<Option<Listen>>,
    /// Number of look-ups.
    looks: Cell<u32>,
    /// Number of SYNs that were handed on.
    syns: Cell<u32>,
    strays: Cell<u32>,
    odd: Cell<u32>,
}

impl FrameContext for FakeKernel {
    fn ingress(&self) -> u32 {
        self.ingress
    }
    fn drops_garbage(&self) -> bool {
        self.drops_garbage
    }
    fn next_hop(&self, reply: &ReplyFlow) -> Option<NextHop> {
        assert_eq!(reply.protocol, 17);
        assert_eq!(
            reply.source.octets(),
            [[0; 8], [0, 0, 0xff, 0xff, 192, 0, 2, 53]].concat()[..]
        );
        assert_eq!(
            reply.destination.octets(),
            [[0; 8], [0, 0, 0xff, 0xff, 192, 0, 2, 1]].concat()[..]
        );
        assert_eq!(reply.source_port.to_ne_bytes(), 53u16.to_be_bytes());
        assert_eq!(reply.destination_port.to_ne_bytes(), 40000u16.to_be_bytes());
        self.next_hop
    }
}

impl Kernel for FakeKernel {
    fn path_check(&self, listen: &Listen) -> Option<PathCheck> {
        self.asked.borrow_mut().get_or_insert(*listen);
        self.looks.set(self.looks.get() + 1);
        let is_port = [53, 153].map(u16::to_be_bytes).contains(&listen.port);
        let own = OURS.map(|last| {
            let addr = [&listen.addr[..15], &[last]].concat();
            let addr = addr.try_into().expect("an address");
            Listen { addr, ..*listen }.address_bit()
        });
        let check = PathCheck::new(self.egress_ifindex, OUR_INDEX, self.mac);
        let check = match self.is_by_port {
            true if self.is_resting => check.by_port(0),
            true => check.by_port(OUR_INDEX),
            false => check,
        };
        let is_ours = is_port && OURS.contains(&listen.addr[15]);
        is_ours.then_some(check.with_own(own[0] | own[1] | own[2]))
    }
    fn hand_on_stray(&self) {
        self.strays.set(self.strays.get() + 1);
    }
    fn hand_on_odd(&self) {
        self.odd.set(self.odd.get() + 1);
    }
    fn hand_on_syn(&self) {
        self.syns.set(self.syns.get() + 1);
    }
    fn is_large(&self) -> bool {
        self.is_large
    }
    fn has_heard(&self, station: Mac) -> bool {
        self.heard.set(Some(station));
        self.has_heard
    }
    fn heartbeat(&self) -> Option<u64> {
        self.heartbeat
    }
    fn now(&self) -> u64 {
        NOW
    }
}

fn alive() -> FakeKernel {
    FakeKernel {
        egress_ifindex: 0,
        ingress: OUR_INDEX,
        drops_garbage: true,
        mac: OUR_MAC,
        is_large: false,
        is_by_port: false,
        is_resting: false,
        has_heard: false,
        heard: Cell::new(None),
        next_hop: None,
        heartbeat: Some(NOW),
        asked: RefCell::new(None),
        looks: Cell::new(0),
        syns: Cell::new(0),
        strays: Cell::new(0),
        odd: Cell::new(0),
    }
}

fn run(bytes: &[u8], kernel: &FakeKernel) -> Result<(), Reason> {
    // Exactly as long as the frame, so that a memory checker sees a read of any byte behind it.
    let frame = bytes.to_vec().into_boxed_slice();
    let range = frame.as_ptr_range();
    // SAFETY: the range of a live slice.
    classify(unsafe { Cursor::new(range.start, range.end) }, kernel).map(drop)
}

fn changed(frame: &[u8], at: usize, to: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    assert_ne!(frame[at], to, "a change changes something");
    frame[at] = to;
    frame
}

fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], tags.concat().as_slice(), &frame[12..]].concat()
}

#[test]
fn a_source_is_looked_up_only_where_it_may_be_an_address_of_ours() {
    // The lowest five bits of the exclusive or of all bytes are the same for 192.0.2.21 and 192.0.2.53, an address of ours.
    for (frame, at, source, looks) in [
        (&QUERY_V4[..], 29, 1, 1),
        (&QUERY_V4[..], 29, 2, 1),
        (&QUERY_V4[..], 29, 21, 2),
        (&QUERY_V4[..], 29, 99, 2),
        (&QUERY_V6[..], 37, 1, 1),
        (&QUERY_V6[..], 37, 0x73, 2),
    ] {
        let kernel = alive();
        let mut frame = frame.to_vec();
        frame[at] = source;
        let _ = run(&frame, &kernel);
        assert_eq!(kernel.looks.get(), looks, "from {source}");
    }
}

#[test]
fn a_query_to_us_is_ours() {
    assert_eq!(run(&QUERY_V4, &alive()), Ok(()));
    assert_eq!(run(&QUERY_V6, &alive()), Ok(()));
}

#[test]
fn the_key_is_the_destination() {
    let kernel = alive();
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 53];
    let mut key = Listen {
        addr: mapped,
        vlan_outer: [0; 2],
        vlan_inner: [0; 2],
        port: [0, 53],
        padding: [0; 2],
    };
    assert_eq!(run(&QUERY_V4, &kernel), Ok(()));
    assert_eq!(kernel.asked.take(), Some(key));

    let tags = [[0x88, 0xa8, 0x61, 0x23], [0x81, 0x00, 0xe0, 0x05]];
    assert_eq!(run(&tagged(&QUERY_V4, &tags), &kernel), Ok(()));
    (key.vlan_outer, key.vlan_inner) = ([0x01, 0x23], [0x00, 0x05]);
    assert_eq!(kernel.asked.take(), Some(key));

    assert_eq!(run(&QUERY_V6, &kernel), Ok(()));
    let asked = kernel.asked.take().map(|listen| listen.addr);
    assert_eq!(asked, QUERY_V6[38..54].first_chunk().copied());
}

#[test]
fn tags_that_name_no_vlan_and_too_many_tags() {
    let priority = tagged(&QUERY_V4, &[[0x81, 0x00, 0xe0, 0x00]]);
    let kernel = alive();
    assert_eq!(run(&priority, &kernel), Err(Reason::PassVlanPriority));
    assert_eq!(kernel.syns.get(), 1, "it may be a segment");
    let three = tagged(&QUERY_V4, &[[0x81, 0x00, 0x00, 0x05]; 3]);
    assert_eq!(run(&three, &alive()), Err(Reason::PassVlanDepth));
}

/// TCP is the kernel's, whatever a segment contains and wherever it is cut.
#[test]
fn tcp_passes_as_no_datagram() {
    for (frame, protocol, payload) in [(&QUERY_V4[..], 23, 34), (&QUERY_V6[..], 20, 54)] {
        let segment = changed(frame, protocol, 6);
        for len in payload..=segment.len() {
            let cut = &segment[..len];
            assert_eq!(run(cut, &alive()), Err(Reason::PassProtocol), "{len}");
        }
        for offset in 0..=u8::MAX {
            let mut segment = segment.clone();
            segment[payload + 12] = offset;
            let passed = run(&segment, &alive());
            assert_eq!(passed, Err(Reason::PassProtocol), "{offset:#04x}");
        }
    }
}

/// The segment has to be complete as far as it is read here; the other program checks its options and owner.
#[test]
fn a_syn_is_handed_on_and_nothing_else_is() {
    for (frame, protocol, payload) in [(&QUERY_V4[..], 23, 34), (&QUERY_V6[..], 20, 54)] {
        let handed_on = |frame: &[u8]| {
            let kernel = alive();
            let _ = run(frame, &kernel);
            let odd = kernel.odd.get();
            (kernel.syns.get() + 10 * odd, kernel.strays.get())
        };
        for flags in 0..=u8::MAX {
            let mut segment = changed(frame, protocol, 6);
            segment[payload + 13] = flags;
            let opens = flags & 0b01_0111 == 0b00_0010;
            let expected = (opens.into(), (!opens).into());
            assert_eq!(handed_on(&segment), expected, "{flags:#010b}");
            assert_eq!(handed_on(&segment[..payload + 19]), (10, 0), "cut");
            let datagram = changed(&segment, protocol, 17);
            assert_eq!(handed_on(&datagram), (0, 0));
        }
    }
    let mut fragment = changed(&QUERY_V4, 23, 6);
    fragment[47] = 0x02;
    for (at, to) in [(20, 0x20), (21, 0x01)] {
        let kernel = alive();
        assert_eq!(
            run(&changed(&fragment, at, to), &kernel),
            Err(Reason::PassProtocol)
        );
        assert_eq!((kernel.syns.get(), kernel.strays.get()), (0, 0));
        assert_eq!(kernel.odd.get(), 1);
    }
}

/// A frame, and the changes to it.
type Changed<'a> = (&'a [u8], &'a [(usize, u8)]);

/// Results for a query after these changes, with garbage dropped and without.
fn both_ways(frame: &[u8], changes: &[(usize, u8)]) -> [Result<(), Reason>; 2] {
    let mut frame = frame.to_vec();
    changes.iter().for_each(|(at, to)| frame[*at] = *to);
    [true, false].map(|drops_garbage| {
        let kernel = FakeKernel {
            drops_garbage,
            ..alive()
        };
        run(&frame, &kernel)
    })
}

#[test]
fn garbage_is_dropped_where_that_is_wanted_and_else_passes() {
    let (v4, v6) = (&QUERY_V4[..], &QUERY_V6[..]);
    let cases: [(Changed<'_>, Reason, Reason); 12] = [
        // A response.
        (
            (v4, &[(44, 0x81)]),
            Reason::DropResponse,
            Reason::PassResponse,
        ),
        (
            (v6, &[(64, 0x80)]),
            Reason::DropResponse,
            Reason::PassResponse,
        ),
        // From its own destination, and from another address of ours.
        ((v4, &[(29, 53)]), Reason::DropSource, Reason::PassSource),
        ((v4, &[(29, 99)]), Reason::DropSource, Reason::PassSource),
        ((v6, &[(37, 0x53)]), Reason::DropSource, Reason::PassSource),
        ((v6, &[(37, 99)]), Reason::DropSource, Reason::PassSource),
        // The datagram is longer than its packet, and shorter than its own header, or than that header and a DNS header.
        (
            (v4, &[(39, 0x2a)]),
            Reason::DropTruncated,
            Reason::PassLength,
        ),
        (
            (v6, &[(58, 0xff)]),
            Reason::DropTruncated,
            Reason::PassLength,
        ),
        ((v4, &[(17, 19)]), Reason::DropTruncated, Reason::PassLength),
        ((v4, &[(39, 7)]), Reason::DropTruncated, Reason::PassLength),
        ((v4, &[(39, 19)]), Reason::DropTruncated, Reason::PassLength),
        ((v6, &[(59, 19)]), Reason::DropTruncated, Reason::PassLength),
    ];
    for ((frame, changes), dropped, passed) in cases {
        let both = [Err(dropped), Err(passed)];
        assert_eq!(both_ways(frame, changes), both, "{changes:?}");
    }
}

#[test]
fn what_is_only_unusual_passes() {
    let (v4, v6) = (&QUERY_V4[..], &QUERY_V6[..]);
    let cases: [(Changed<'_>, Reason); 7] = [
        // Port 153, where a response may be another program's.
        (
            (v4, &[(36, 0), (37, 153), (44, 0x81)]),
            Reason::PassResponse,
        ),
        // The packet continues behind its datagram, or is the only one to state the length (RFC 2675).
        ((v4, &[(39, 0x28)]), Reason::PassLength),
        ((v6, &[(59, 0)]), Reason::PassLength),
        // From our address to another station, and from one of ours to others.
        ((v4, &[(5, 9), (29, 53)]), Reason::PassOtherMac),
        ((v4, &[(33, 77), (29, 53)]), Reason::PassForeign),
        // An invalid source address, and source port 0.
        ((v4, &[(26, 127)]), Reason::PassSource),
        ((v4, &[(34, 0), (35, 0)]), Reason::PassSource),
    ];
    for ((frame, changes), passed) in cases {
        let both = [Err(passed); 2];
        assert_eq!(both_ways(frame, changes), both, "{changes:?}");
    }
}

#[test]
fn one_wrong_bit_anywhere_under_the_checksums_is_seen() {
    for (frame, from) in [(&QUERY_V4[..], 14), (&QUERY_V6[..], 22)] {
        for at in from..frame.len() {
            for bit in 0..8 {
                let damaged = changed(frame, at, frame[at] ^ (1 << bit));
                assert!(run(&damaged, &alive()).is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_cut_frame_is_never_ours_and_padding_is_no_matter() {
    for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
        for len in 0..frame.len() {
            assert_eq!(
                run(&frame[..len], &alive()),
                Err(Reason::PassTruncated),
                "{len}"
            );
        }
        let padded = [frame, &[0xa5; 9]].concat();
        assert_eq!(run(&padded, &alive()), Ok(()));
    }
}

/// A query that cannot be answered is not looked up.
#[test]
fn a_query_by_a_port_passes_until_the_bridge_has_heard_of_its_station() {
    for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
        for (is_by_port, has_heard, expected) in [
            (false, false, Ok(())),
            (true, false, Err(Reason::PassStation)),
            (true, true, Ok(())),
        ] {
            let kernel = FakeKernel {
                is_by_port,
                has_heard,
                ..alive()
            };
            assert_eq!(run(frame, &kernel), expected);
            assert!(kernel.heard.get() == is_by_port.then_some(CLIENT));
            let kernel = FakeKernel {
                is_large: true,
                ..kernel
            };
            kernel.heard.set(None);
            assert_eq!(run(frame, &kernel), Err(Reason::PassLargeFrame));
            assert!(kernel.heard.get().is_none(), "it passes anyway");
        }
    }
}

#[test]
fn a_query_by_a_port_whose_frames_are_the_bridges_passes() {
    for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
        let kernel = FakeKernel {
            is_resting: true,
            is_by_port: true,
            has_heard: true,
            ..alive()
        };
        assert_eq!(run(frame, &kernel), Err(Reason::PassPort));
    }
}

/// A port of a bridge also receives frames to other stations.
#[test]
fn a_frame_to_another_stations_mac_passes() {
    for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
        for at in 0..6 {
            for bit in 0..8 {
                let other = changed(frame, at, frame[at] ^ (1 << bit));
                let is_group = at == 0 && bit == 0;
                let reason = if is_group {
                    Reason::PassMulticast
                } else {
                    Reason::PassOtherMac
                };
                assert_eq!(run(&other, &alive()), Err(reason), "byte {at}, bit {bit}");
            }
        }
        let kernel = FakeKernel {
            mac: [0x02, 0, 0, 0, 0, 0x03],
            ..alive()
        };
        assert_eq!(run(frame, &kernel), Err(Reason::PassOtherMac));
        assert_eq!(
            run(&changed(frame, 5, 0x03), &kernel),
            Ok(()),
            "the address that the device has now"
        );
    }
}

/// The kernel drops frames that are redirected to a socket of another interface.
#[test]
fn a_frame_that_a_port_of_a_bond_received_passes() {
    for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
        for ingress in [0, 1, OUR_INDEX + 1, OUR_INDEX << 16] {
            let kernel = FakeKernel { ingress, ..alive() };
            assert_eq!(run(frame, &kernel), Err(Reason::PassOtherDevice));
        }
    }
}

#[test]
fn a_frame_in_several_buffers_passes() {
    let kernel = FakeKernel {
        is_large: true,
        ..alive()
    };
    for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
        assert_eq!(run(frame, &kernel), Err(Reason::PassLargeFrame));
    }
}

#[test]
fn a_buffer_holds_its_own_length_and_no_more() {
    const MAX: usize = 200;
    for len in [0, 1, 63, 64, 65, 127, 128, 191, 199, 200, 201, 300] {
        let bytes = vec![0; len].into_boxed_slice();
        let range = bytes.as_ptr_range();
        // SAFETY: the range of a live slice.
        let cursor = unsafe { Cursor::new(range.start, range.end) };
        for asked in (0..=300u64).chain([u64::MAX]) {
            let expected = asked <= len as u64 && asked <= MAX as u64;
            assert_eq!(cursor.holds::<MAX>(asked), expected, "{asked} of {len}");
        }
    }
}

#[test]
fn the_reply_has_to_leave_as_the_query_came() {
    let hop = |ifindex, mac| Some(NextHop { ifindex, mac });
    let other = Mac([1, 2, 3]);
    for (next_hop, verdict) in [
        (hop(7, CLIENT), Ok(())),
        (hop(8, CLIENT), Err(Reason::PassRoute)),
        (hop(7, other), Err(Reason::PassRoute)),
        (None, Err(Reason::PassRoute)),
    ] {
        let kernel = FakeKernel {
            egress_ifindex: 7,
            next_hop,
            ..alive()
        };
        assert_eq!(run(&QUERY_V4, &kernel), verdict);
    }
}

#[test]
fn a_heartbeat_far_away_in_either_direction_is_stale() {
    for (heartbeat, verdict) in [
        (Some(NOW - HEARTBEAT_STALE_NS), Ok(())),
        (Some(NOW + HEARTBEAT_STALE_NS), Ok(())),
        (Some(NOW - HEARTBEAT_STALE_NS - 1), Err(Reason::PassStale)),
        (Some(NOW + HEARTBEAT_STALE_NS + 1), Err(Reason::PassStale)),
        (Some(0), Err(Reason::PassNoSocket)),
        (None, Err(Reason::PassNoSocket)),
    ] {
        let kernel = FakeKernel {
            heartbeat,
            ..alive()
        };
        assert_eq!(run(&QUERY_V4, &kernel), verdict, "{heartbeat:?}");
    }
}

#[test]
fn an_address_is_mapped_and_back() {
    let ipv4 = u32::from_ne_bytes([192, 0, 2, 53]);
    assert_eq!(Address::mapped(ipv4).ipv4(), Some(ipv4));
    assert_eq!(Address(1, Address::mapped(ipv4).1).ipv4(), None);
    assert_eq!(Address(0, 1).ipv4(), None);
}
