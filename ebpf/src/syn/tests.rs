use super::*;
use crate::classify::NextHop;
use crate::flow::link::Mac;
use std::cell::{Cell, RefCell};
use xdnsd_abi::RestoredOptions;
use xdnsd_abi::headers::tcp::HEADER_LEN_MAX;

/// A SYN as Linux sends it from 192.0.2.1, port 40000, to 192.0.2.53, port 53, but for its TCP checksum.
const SYN_V4: [u8; 74] = [
    0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00, 0x45, 0x00,
    0x00, 0x3c, 0x12, 0x34, 0x40, 0x00, 0x40, 0x06, 0xa4, 0x51, 0xc0, 0x00, 0x02, 0x01, 0xc0, 0x00,
    0x02, 0x35, 0x9c, 0x40, 0x00, 0x35, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02,
    0xfa, 0xf0, 0x00, 0x00, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a, 0x12, 0x34,
    0x56, 0x78, 0x00, 0x00, 0x00, 0x00, 0x01, 0x03, 0x03, 0x07,
];
const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const OUR_INDEX: u32 = 3;
const COOKIE: u32 = 0x8123_4567;
const MSS: u16 = 1452;
const ASKED: u32 = 77;
/// 0x1_0000_1050 ms, and some.
const NOW_NS: u64 = 0x1_0000_1050 * 1_000_000 + 999_999;

/// A kernel with fixed answers.
struct FakeKernel {
    frame: Vec<u8>,
    ingress: u32,
    drops_garbage: bool,
    egress_ifindex: u32,
    next_hop: Option<NextHop>,
    orders: Orders,
    /// Seconds since the client brought a cookie back.
    proved_secs: Option<u32>,
    is_large: bool,
    cookie: Option<u32>,
    /// Number of segments that were handed on.
    strays: Cell<u32>,
    /// Requests for a cookie: the header and its length.
    asked: RefCell<Vec<(Vec<u8>, u64)>>,
}

impl FrameContext for FakeKernel {
    fn next_hop(&self, reply: &ReplyFlow) -> Option<NextHop> {
        assert_eq!(reply.protocol, 6);
        assert_eq!(reply.source_port, 53_u16.to_be());
        assert_eq!(reply.destination_port, 40_000_u16.to_be());
        self.next_hop
    }
    fn ingress(&self) -> u32 {
        self.ingress
    }
    fn drops_garbage(&self) -> bool {
        self.drops_garbage
    }
}

impl Guarded for FakeKernel {
    fn guarded(&self, listen: &Listen) -> Option<PathCheck> {
        let check = PathCheck::new(self.egress_ifindex, OUR_INDEX, OUR_MAC).with_mss(MSS);
        let check = check.with_own(ASKED);
        let is_ours = [53, 0x53, 99].contains(&listen.addr[15]);
        (is_ours && listen.port == 53_u16.to_be_bytes()).then_some(check)
    }
    fn orders(&self) -> Orders {
        self.orders
    }
    fn is_large(&self) -> bool {
        self.is_large
    }
    fn zero(&self) -> u32 {
        0
    }
    fn has_proved(&self, _: &Ends, secs: u32) -> bool {
        self.proved_secs.is_some_and(|ago| ago <= secs)
    }
    fn copy(&self, at: u32, len: u32, header: &mut SynHeader) -> Option<u64> {
        assert!((tcp::HEADER_LEN..=HEADER_LEN_MAX).contains(&(len as usize)));
        let bytes = self.frame.get(at as usize..)?.get(..len as usize)?;
        for (word, bytes) in header.iter_mut().zip(bytes.chunks(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().expect("whole words"));
        }
        Some(len.into())
    }
}

impl Cookies for FakeKernel {
    fn hand_on_stray(&self) {
        self.strays.set(self.strays.get() + 1);
    }
    fn walk(&self, walk: &mut OptionWalk) {
        for _ in 0..COUNT_MAX {
            if !walk.step() {
                break;
            }
        }
    }
    fn now(&self) -> u64 {
        NOW_NS
    }
    fn cookie(
        &self,
        ends: &Ends,
        port: &Port<'_>,
        header: &mut SynHeader,
        len: u64,
    ) -> Option<u32> {
        assert_eq!((port.key.port, port.asked), ([0, 53], ASKED));
        assert_eq!(ends.destination_port, 53_u16.to_be());
        let bytes = header.iter().flat_map(|word| word.to_ne_bytes());
        self.asked.borrow_mut().push((bytes.collect(), len));
        self.cookie
    }
}

fn told(frame: &[u8]) -> FakeKernel {
    FakeKernel {
        frame: frame.to_vec(),
        ingress: OUR_INDEX,
        drops_garbage: true,
        egress_ifindex: 0,
        next_hop: None,
        orders: Orders::give(None),
        proved_secs: None,
        is_large: false,
        cookie: Some(COOKIE),
        strays: Cell::default(),
        asked: RefCell::default(),
    }
}

/// The SYN with its checksum.
fn syn() -> Vec<u8> {
    let mut frame = SYN_V4.to_vec();
    seal(&mut frame, 34);
    frame
}

/// RFC 1071 literally, over the pseudo-header of IPv4 and the segment at `tcp`.
fn sum(frame: &[u8], tcp: usize) -> u16 {
    let segment = &frame[tcp..];
    let len = (segment.len() as u16).to_be_bytes();
    let pseudo = [&frame[tcp - 8..tcp], &[0, 6], &len].concat();
    let words = [&pseudo, segment].concat();
    let sum: u32 = words
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

fn seal(frame: &mut [u8], tcp: usize) {
    frame[tcp + 16..tcp + 18].fill(0);
    let checksum = !sum(frame, tcp);
    frame[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
}

fn run(kernel: &FakeKernel) -> Result<SegmentAnswer, Reason> {
    // Exactly as long as the frame, so that a memory checker sees a read of any byte behind it.
    let frame = kernel.frame.clone().into_boxed_slice();
    let range = frame.as_ptr_range();
    // SAFETY: the range of a live slice.
    classify(unsafe { Cursor::new(range.start, range.end) }, kernel)
}

/// Writes the answer over the first `len` bytes of the frame.
fn written(answer: &SegmentAnswer, frame: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut bytes = frame.to_vec();
    bytes.resize(len, 0xa5);
    let mut bytes = bytes.into_boxed_slice();
    let range = bytes.as_mut_ptr_range();
    // SAFETY: the range of a slice that is borrowed as long.
    answer.write(unsafe { CursorMut::new(range.start, range.end) })?;
    Some(bytes.into_vec())
}

#[test]
fn the_answer_says_what_it_should_and_fits_to_the_byte() {
    for tags in [
        vec![],
        vec![0x81, 0x00, 0xa0, 0x0a],
        vec![0x88, 0xa8, 0, 5, 0x81, 0, 0, 6],
    ] {
        let mut frame = syn();
        frame.splice(12..12, tags.clone());
        let kernel = told(&frame);
        let answer = run(&kernel).unwrap_or_else(|reason| panic!("{reason:?}"));
        let (ip, tcp) = (14 + tags.len(), 34 + tags.len());
        assert_eq!(answer.len(), tcp + 24);
        for len in 0..answer.len() {
            assert!(written(&answer, &frame, len).is_none(), "{len}");
        }
        let bytes = written(&answer, &frame, answer.len()).expect("it fits");
        assert_eq!(bytes[..6], frame[6..12]);
        assert_eq!(bytes[6..12], frame[..6]);
        assert_eq!(bytes[12..ip], frame[12..ip]);
        assert_eq!(bytes[ip..ip + 4], [0x45, 0, 0, 44]);
        assert_eq!(bytes[ip + 4..ip + 10], [0, 0, 0x40, 0, 64, 6]);
        let header = Sum::new().add_bytes(&bytes[ip..tcp]);
        assert!(header.adds_up());
        assert_eq!(bytes[ip + 12..tcp], [192, 0, 2, 53, 192, 0, 2, 1]);
        assert_eq!(bytes[tcp..tcp + 4], [0, 53, 0x9c, 0x40]);
        assert_eq!(bytes[tcp + 4..tcp + 8], COOKIE.to_be_bytes());
        assert_eq!(
            bytes[tcp + 8..tcp + 12],
            [0; 4],
            "the number behind 0xffffffff"
        );
        assert_eq!(bytes[tcp + 12..tcp + 16], [0x60, 0x12, 0xfa, 0xf0]);
        assert_eq!(bytes[tcp + 18..tcp + 22], [0, 0, 2, 4]);
        assert_eq!(bytes[tcp + 22..], MSS.to_be_bytes());
        assert_eq!(sum(&bytes, tcp), 0xffff);
        let asked = kernel.asked.take();
        let mut header = frame[tcp..].to_vec();
        header.resize(size_of::<SynHeader>(), 0);
        assert_eq!(asked, [(header, 40)], "zero behind the header");
    }
}

/// The timestamp is the latest one up to now with these bits, also when milliseconds exceed 32 bits.
#[test]
fn the_answer_keeps_what_it_may_of_the_options() {
    let sack = true;
    for (scale, stamp, scale_option) in [
        (Some(9), 0x0000_1017_u32, [1, 3, 3, 9]),
        (None, 0x0000_101f, [1; 4]),
    ] {
        let mut kernel = told(&syn());
        kernel.orders = Orders::give(Some(RestoredOptions { sack, scale }));
        let answer = run(&kernel).unwrap_or_else(|reason| panic!("{reason:?}"));
        assert_eq!(answer.len(), 74);
        for len in 0..answer.len() {
            assert!(written(&answer, &kernel.frame, len).is_none(), "{len}");
        }
        let bytes = written(&answer, &kernel.frame, 74).expect("it fits");
        assert_eq!(bytes[14..18], [0x45, 0, 0, 60]);
        assert_eq!(bytes[46..48], [0xa0, 0x12]);
        let options = [
            &[2, 4][..],
            &MSS.to_be_bytes(),
            &[4, 2, 8, 10],
            &stamp.to_be_bytes(),
            &[0x12, 0x34, 0x56, 0x78],
            &scale_option,
        ];
        assert_eq!(bytes[54..], options.concat());
        assert_eq!(sum(&bytes, 34), 0xffff);
    }
}

#[test]
fn each_thing_that_is_not_as_it_should_be_is_a_reason_and_asks_the_kernel_nothing() {
    type Change = fn(&mut FakeKernel);
    let cases: [(Change, Reason); 15] = [
        (|told| told.frame[29] = 53, Reason::DropSource),
        (|told| told.frame[29] = 99, Reason::DropSource),
        (
            |told| (told.frame[29], told.drops_garbage) = (99, false),
            Reason::PassSource,
        ),
        (|told| told.frame[0] ^= 0x40, Reason::PassOtherMac),
        (|told| told.ingress = 9, Reason::PassOtherDevice),
        (|told| told.frame[37] = 54, Reason::PassProtocol),
        (|told| told.frame[47] = 0x12, Reason::PassProtocol),
        (|told| told.frame[23] = 17, Reason::PassProtocol),
        (|told| told.frame[34..36].fill(0), Reason::PassSource),
        (|told| told.frame[46] = 0x90, Reason::PassSynLength),
        (|told| told.frame[17] = 0x38, Reason::PassSynLength),
        (|told| told.frame[25] ^= 1, Reason::PassIpv4Checksum),
        (|told| told.frame[73] ^= 1, Reason::PassTcpChecksum),
        (|told| told.is_large = true, Reason::PassLargeFrame),
        (|told| told.orders = Orders::REST, Reason::PassSyn),
    ];
    for (change, reason) in cases {
        let mut kernel = told(&syn());
        change(&mut kernel);
        assert_eq!(run(&kernel).err(), Some(reason));
        assert!(kernel.asked.take().is_empty());
    }
    let mut kernel = told(&syn());
    kernel.frame.pop();
    assert_eq!(run(&kernel).err(), Some(Reason::PassTruncated));
    let mut kernel = told(&syn());
    kernel.cookie = None;
    assert_eq!(run(&kernel).err(), Some(Reason::PassNoCookie));
}

#[test]
fn a_client_that_has_proved_its_address_lately_is_not_asked_again() {
    for (verified_secs, proved_secs, reason) in [
        (0, Some(0), None),
        (60, None, None),
        (60, Some(61), None),
        (60, Some(60), Some(Reason::PassVerified)),
    ] {
        let mut kernel = told(&syn());
        kernel.orders = Orders::give(None).verified_for(verified_secs);
        kernel.proved_secs = proved_secs;
        assert_eq!(run(&kernel).err(), reason);
        assert_eq!(kernel.asked.take().is_empty(), reason.is_some());
        kernel.orders = Orders::REST.verified_for(verified_secs);
        assert_eq!(run(&kernel).err(), Some(Reason::PassSyn));
    }
}

#[test]
fn the_answer_has_to_leave_as_the_syn_came() {
    let back = |ifindex| {
        let mac = Mac::of([0x02, 0, 0, 0, 0, 0x02]);
        Some(NextHop { ifindex, mac })
    };
    for (next_hop, reason) in [
        (back(7), None),
        (back(8), Some(Reason::PassRoute)),
        (None, Some(Reason::PassRoute)),
    ] {
        let mut kernel = told(&syn());
        (kernel.egress_ifindex, kernel.next_hop) = (7, next_hop);
        assert_eq!(run(&kernel).err(), reason);
    }
}
