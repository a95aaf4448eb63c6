use super::*;
use crate::classify::{NextHop, ReplyFlow};

/// Ethernet from 02:00:00:00:00:02 to 02:00:00:00:00:01, without its EtherType.
const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUR_INDEX: u32 = 3;
/// ICMP from 192.0.2.1 to 192.0.2.53.
const IPV4: [u8; 20] = [
    0x45, 0x00, 0x00, 0x14, 0x12, 0x34, 0x40, 0x00, 0x40, 0x01, 0xa4, 0x5d, 0xc0, 0x00, 0x02, 0x01,
    0xc0, 0x00, 0x02, 0x35,
];
/// No payload, from 2001:db8::1 to 2001:db8::53.
const IPV6: [u8; 40] = [
    0x60, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3b, 0x40, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x53,
];

/// A kernel where addresses that end with 53 in a VLAN are ours, port 53 of them is served, and each trie has one verdict on all
/// sources.
struct FakeKernel {
    vlan: u16,
    tries: u32,
    ingress: u32,
    verdicts: [u8; trie::COUNT as usize],
}

impl FakeKernel {
    fn is_ours(&self, address: &Listen) -> bool {
        [53, 0x53].contains(&address.addr[15])
            && address.vlan_outer == self.vlan.to_be_bytes()
            && address.vlan_inner == [0, 0]
    }
}

impl FrameContext for FakeKernel {
    fn next_hop(&self, _: &ReplyFlow) -> Option<NextHop> {
        None
    }
    fn ingress(&self) -> u32 {
        self.ingress
    }
    fn drops_garbage(&self) -> bool {
        false
    }
}

impl PrefixKernel for FakeKernel {
    fn tries(&self) -> u32 {
        self.tries
    }
    fn own(&self, address: &Listen) -> Option<PathCheck> {
        let is_asked = self.tries & trie::bit(trie::DENIED) != 0;
        assert!(is_asked, "nothing is asked without prefixes");
        assert_eq!((address.port, address.padding), ([0; 2], [0; 2]));
        let check = PathCheck::new(0, OUR_INDEX, OUR_MAC);
        self.is_ours(address).then_some(check)
    }
    fn served(&self, destination: &Listen) -> Option<PathCheck> {
        let is_asked = self.tries & trie::bit(trie::ACCESS) != 0;
        assert!(is_asked, "nothing is asked without clients");
        let is_served = self.is_ours(destination) && destination.port == 53_u16.to_be_bytes();
        is_served.then_some(PathCheck::new(0, OUR_INDEX, OUR_MAC))
    }
    fn verdict(&self, trie: u32, source: Address) -> u8 {
        assert_eq!(source.octets()[15], 1);
        self.verdicts[trie as usize]
    }
}

const DENY: FakeKernel = FakeKernel {
    vlan: 5,
    tries: trie::bit(trie::DENIED),
    ingress: OUR_INDEX,
    verdicts: [verdict::DENY, verdict::NONE],
};

const DROP: FakeKernel = FakeKernel {
    tries: trie::bit(trie::ACCESS),
    verdicts: [verdict::NONE, verdict::DENY],
    ..DENY
};

fn frames() -> [Vec<u8>; 2] {
    let tag = [0x81, 0x00, 0x60, 0x05];
    [
        [&ETHERNET[..], &tag, &[0x08, 0x00], &IPV4].concat(),
        [&ETHERNET[..], &tag, &[0x86, 0xdd], &IPV6].concat(),
    ]
}

/// Result for exactly these bytes.
fn run(bytes: &[u8], kernel: &FakeKernel) -> Result<(), Reason> {
    let bytes = bytes.to_vec().into_boxed_slice();
    let range = bytes.as_ptr_range();
    // SAFETY: the range of a live slice.
    check(unsafe { Cursor::new(range.start, range.end) }, kernel)
}

#[test]
fn what_comes_from_a_denied_prefix_to_us_is_dropped() {
    for frame in frames() {
        assert_eq!(run(&frame, &DENY), Err(Reason::DropDenied));
        for verdict in [verdict::NONE, verdict::ALLOW] {
            let verdicts = [verdict; 2];
            assert_eq!(run(&frame, &FakeKernel { verdicts, ..DENY }), Ok(()));
        }
        assert_eq!(run(&frame, &FakeKernel { tries: 0, ..DENY }), Ok(()));
    }
}

#[test]
fn options_and_parts_make_no_difference() {
    let [mut v4, mut v6] = frames();
    v4[18] = 0x46;
    v4[24] = 0x20;
    v6[24] = 44;
    for frame in [v4, v6] {
        assert_eq!(run(&frame, &DENY), Err(Reason::DropDenied));
    }
}

/// The kernel takes a tag with ID 0 for none, so a denied prefix is not let in by one.
#[test]
fn a_priority_makes_no_difference() {
    for frame in frames() {
        let mut priority = frame.clone();
        priority.splice(12..12, [0x81, 0x00, 0xe0, 0]);
        assert_eq!(run(&priority, &DENY), Err(Reason::DropDenied));
        let mut alone = frame.clone();
        alone[14..16].copy_from_slice(&[0xe0, 0]);
        let untagged = FakeKernel { vlan: 0, ..DENY };
        assert_eq!(run(&alone, &untagged), Err(Reason::DropDenied));
        assert_eq!(run(&alone, &DENY), Ok(()), "untagged is another VLAN");
        // Another one inside our VLAN is a VLAN of its own.
        let mut inside = frame;
        inside.splice(16..16, [0x81, 0x00, 0, 6]);
        assert_eq!(run(&inside, &DENY), Ok(()));
    }
}

#[test]
fn what_is_not_to_us_or_is_cut_passes() {
    for frame in frames() {
        let last = frame.len() - 1;
        // Another address, station, VLAN and protocol; a group of stations.
        for (at, bits) in [(last, 2), (5, 4), (15, 1), (16, 0xff), (0, 1)] {
            let mut frame = frame.clone();
            frame[at] ^= bits;
            assert_eq!(run(&frame, &DENY), Ok(()), "{at}");
        }
        for len in 0..frame.len() {
            assert_eq!(run(&frame[..len], &DENY), Ok(()), "{len}");
        }
        let elsewhere = FakeKernel {
            ingress: OUR_INDEX + 1,
            ..DENY
        };
        assert_eq!(run(&frame, &elsewhere), Ok(()));
    }
    // Our IPv4 address in mapped form over the other family.
    let [_, mut v6] = frames();
    v6[42..58].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 53]);
    assert_eq!(run(&v6, &DENY), Ok(()));
}

/// The same with a datagram to port 53 from port 40000.
fn queries() -> [Vec<u8>; 2] {
    let datagram = [0x9c, 0x40, 0, 53, 0, 8, 0, 0];
    let [mut v4, mut v6] = frames().map(|frame| [&frame[..], &datagram].concat());
    (v4[27], v6[24]) = (17, 17);
    [v4, v6]
}

#[test]
fn a_query_of_a_client_without_access_is_dropped_and_nothing_else_of_it() {
    for frame in queries() {
        assert_eq!(run(&frame, &DROP), Err(Reason::DropAccess));
        for verdict in [verdict::NONE, verdict::ALLOW] {
            let verdicts = [verdict::DENY, verdict];
            assert_eq!(run(&frame, &FakeKernel { verdicts, ..DROP }), Ok(()));
        }
        assert_eq!(run(&frame, &FakeKernel { tries: 0, ..DROP }), Ok(()));
        let both = FakeKernel {
            tries: DENY.tries | DROP.tries,
            ..DROP
        };
        assert_eq!(run(&frame, &both), Err(Reason::DropAccess));
        let verdicts = [verdict::DENY; 2];
        let denied = FakeKernel { verdicts, ..both };
        assert_eq!(run(&frame, &denied), Err(Reason::DropDenied));
        // Another port.
        let mut frame = frame.clone();
        let port = frame.len() - 5;
        frame[port] = 54;
        assert_eq!(run(&frame, &DROP), Ok(()));
        for len in 0..frame.len() {
            assert_eq!(run(&frame[..len], &DROP), Ok(()), "{len}");
        }
    }
    for frame in frames() {
        assert_eq!(run(&frame, &DROP), Ok(()), "no datagram");
    }
    // Options, a part of a datagram, another station.
    let [v4, _] = queries();
    for (at, value) in [(18, 0x46), (24, 0x20), (5, 9)] {
        let mut frame = v4.clone();
        frame[at] = value;
        assert_eq!(run(&frame, &DROP), Ok(()), "{at}");
    }
}
