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

/// A kernel where addresses that end with 53 in a VLAN are ours, and one verdict is on all sources.
struct FakeKernel {
    vlan: u16,
    has_prefixes: bool,
    ingress: u32,
    verdict: u8,
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
    fn has_prefixes(&self) -> bool {
        self.has_prefixes
    }
    fn own(&self, address: &Listen) -> Option<PathCheck> {
        assert!(self.has_prefixes, "nothing is asked without prefixes");
        assert_eq!((address.port, address.padding), ([0; 2], [0; 2]));
        let is_ours = [53, 0x53].contains(&address.addr[15])
            && address.vlan_outer == self.vlan.to_be_bytes()
            && address.vlan_inner == [0, 0];
        is_ours.then_some(PathCheck::new(0, OUR_INDEX, OUR_MAC))
    }
    fn verdict(&self, source: Address) -> u8 {
        assert_eq!(source.octets()[15], 1);
        self.verdict
    }
}

const DENY: FakeKernel = FakeKernel {
    vlan: 5,
    has_prefixes: true,
    ingress: OUR_INDEX,
    verdict: verdict::DENY,
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
            assert_eq!(run(&frame, &FakeKernel { verdict, ..DENY }), Ok(()));
        }
        let none = FakeKernel {
            has_prefixes: false,
            ..DENY
        };
        assert_eq!(run(&frame, &none), Ok(()));
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
