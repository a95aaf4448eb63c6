//! Segments without SYN to guarded ports. Those of connections and those that bring a cookie back pass. Strays, which
//! belong to no connection, are dropped, except for a few.
//!
//! This is a program of its own behind a tail call, loaded only while cookies are given. It reads the frame and never
//! writes. Segments of a connection in any state pass. So do segments without ACK and RST, which the kernel does not
//! answer.

use crate::classify::{check_ours, check_source, listen};
use crate::flow::transport::Segment;
use crate::flow::{self, Flow};
use crate::frame::Cursor;
use crate::syn::{Ends, Guarded};
use xdnsd_abi::headers::tcp::{self, flag};
use xdnsd_abi::{PROVED_SECS, Reason};

/// Owner of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SegmentOwner {
    /// A connection that is open, about to open, or just closed.
    Connection,
    /// None: no listener has the port.
    Nobody,
    /// A listener, whose cookie the segment brings back.
    Proof,
    /// A listener without such a connection.
    Stray,
}

/// Further access that the program needs.
pub trait Owners: Guarded {
    /// Owner of a segment.
    fn owner(&self, ends: &Ends, segment: &Segment<'_>) -> SegmentOwner;
    /// Notes that the client is verified.
    fn prove(&self, ends: &Ends);
    /// True if this is one of the strays of a second that pass.
    fn may_pass(&self) -> bool;
    /// True if this is one of the RSTs of a second that are looked up.
    fn may_look(&self) -> bool;
}

/// The reason to pass or drop a segment without SYN. `Err`: it is not to a guarded port, or not judged.
#[inline(always)]
pub fn classify(frame: Cursor<'_>, kernel: &impl Owners) -> Result<Reason, Reason> {
    let Flow {
        link,
        packet,
        transport: segment,
    } = flow::segment(frame)?;
    let flags = segment.flags() & (flag::SYN | flag::ACK | flag::RST);
    let is_reset = flags & flag::RST != 0;
    if flags & flag::SYN != 0 || flags == 0 {
        return Err(Reason::PassProtocol);
    }
    let ends = Ends::of(&packet, &segment);
    let key = listen(&link, packet.destination, ends.destination_port);
    let check = kernel.guarded(&key).ok_or(Reason::PassProtocol)?;
    check_ours(&link, &check, kernel)?;
    // A connection of a link-local address is bound to the device with that address, and not found from a device below it.
    if packet.destination.is_link_local() || !kernel.orders().drops_strays() {
        return Err(Reason::PassProtocol);
    }
    check_source(&packet, ends.source_port, kernel)?;
    if segment.header_len() < tcp::HEADER_LEN as u8 {
        return Err(Reason::PassProtocol);
    }
    // So many are a flood, meant to make us pay for the look-up.
    if is_reset && !kernel.may_look() {
        return Ok(Reason::DropReset);
    }
    Ok(match kernel.owner(&ends, &segment) {
        SegmentOwner::Connection | SegmentOwner::Nobody => Reason::PassProtocol,
        SegmentOwner::Proof => {
            kernel.prove(&ends);
            Reason::PassCookie
        }
        // A listener has no use for an RST.
        SegmentOwner::Stray if is_reset => Reason::DropReset,
        SegmentOwner::Stray if kernel.has_proved(&ends, PROVED_SECS) => Reason::PassVerified,
        SegmentOwner::Stray if kernel.may_pass() => Reason::PassStray,
        SegmentOwner::Stray => Reason::DropStray,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syn::SynHeader;
    use crate::testing::{FLAGS, OUR_MAC, segment, without_routes};
    use std::cell::Cell;
    use xdnsd_abi::{Listen, Orders, PathCheck};

    /// An ACK from 192.0.2.1, port 40000, to 192.0.2.53, port 53.
    const ACK: [u8; 54] = segment([0x50, 0x10, 0xfa, 0xf0]);

    /// A kernel with fixed answers.
    struct FakeKernel {
        owner: SegmentOwner,
        orders: Orders,
        has_proved: bool,
        may_pass: bool,
        may_look: bool,
        proofs: Cell<u32>,
    }

    without_routes!(FakeKernel);

    impl Guarded for FakeKernel {
        fn guarded(&self, listen: &Listen) -> Option<PathCheck> {
            let check = PathCheck::new(0, 3, OUR_MAC);
            (listen.port == 53_u16.to_be_bytes()).then_some(check)
        }
        fn orders(&self) -> Orders {
            self.orders
        }
        fn is_large(&self) -> bool {
            false
        }
        fn zero(&self) -> u32 {
            0
        }
        fn has_proved(&self, ends: &Ends, secs: u32) -> bool {
            assert_eq!((ends.source_port, secs), (40_000_u16.to_be(), PROVED_SECS));
            self.has_proved
        }
        fn copy(&self, _: u32, _: u32, _: &mut SynHeader) -> Option<u64> {
            panic!("the header is in the frame's first buffer")
        }
    }

    impl Owners for FakeKernel {
        fn owner(&self, _: &Ends, segment: &Segment<'_>) -> SegmentOwner {
            assert!(segment.header_len() >= 20);
            self.owner
        }
        fn prove(&self, _: &Ends) {
            self.proofs.set(self.proofs.get() + 1);
        }
        fn may_pass(&self) -> bool {
            self.may_pass
        }
        fn may_look(&self) -> bool {
            self.may_look
        }
    }

    fn told(owner: SegmentOwner) -> FakeKernel {
        FakeKernel {
            owner,
            orders: Orders::give(None).without_strays(),
            has_proved: false,
            may_pass: false,
            may_look: true,
            proofs: Cell::new(0),
        }
    }

    fn run(frame: &[u8], kernel: &FakeKernel) -> Reason {
        let frame = frame.to_vec().into_boxed_slice();
        let range = frame.as_ptr_range();
        // SAFETY: the range of a live slice.
        let frame = unsafe { Cursor::new(range.start, range.end) };
        let (Ok(reason) | Err(reason)) = classify(frame, kernel);
        reason
    }

    fn changed(at: usize, to: u8) -> [u8; 54] {
        let mut frame = ACK;
        assert_ne!(frame[at], to, "a change changes something");
        frame[at] = to;
        frame
    }

    #[test]
    fn what_becomes_of_a_segment_is_its_owners_to_say() {
        let reset = changed(FLAGS, flag::RST);
        for (owner, of_ack, of_reset) in [
            (
                SegmentOwner::Connection,
                Reason::PassProtocol,
                Reason::PassProtocol,
            ),
            (
                SegmentOwner::Nobody,
                Reason::PassProtocol,
                Reason::PassProtocol,
            ),
            (SegmentOwner::Stray, Reason::DropStray, Reason::DropReset),
        ] {
            let kernel = told(owner);
            assert_eq!(run(&ACK, &kernel), of_ack);
            assert_eq!(run(&reset, &kernel), of_reset);
            assert_eq!(kernel.proofs.get(), 0);
        }
        let kernel = told(SegmentOwner::Proof);
        assert_eq!(run(&ACK, &kernel), Reason::PassCookie);
        assert_eq!(kernel.proofs.get(), 1);
    }

    #[test]
    fn a_stray_passes_where_the_client_is_known_and_else_while_there_are_few() {
        let mut kernel = told(SegmentOwner::Stray);
        kernel.may_pass = true;
        assert_eq!(run(&ACK, &kernel), Reason::PassStray);
        kernel.has_proved = true;
        assert_eq!(run(&ACK, &kernel), Reason::PassVerified);
        // With both flags, a reset of no connection.
        assert_eq!(run(&changed(FLAGS, flag::RST), &kernel), Reason::DropReset);
    }

    /// An ACK may be anybody's, however many there are.
    #[test]
    fn a_reset_too_many_is_nobodys() {
        let kernel = FakeKernel {
            may_look: false,
            ..told(SegmentOwner::Connection)
        };
        assert_eq!(run(&changed(FLAGS, flag::RST), &kernel), Reason::DropReset);
        let with_ack = changed(FLAGS, flag::RST | flag::ACK);
        assert_eq!(run(&with_ack, &kernel), Reason::DropReset);
        assert_eq!(run(&ACK, &kernel), Reason::PassProtocol);
        // Not to another host, nor while cookies are off.
        let mut foreign = changed(FLAGS, flag::RST);
        foreign[37] = 54;
        assert_eq!(run(&foreign, &kernel), Reason::PassProtocol);
        let kernel = FakeKernel {
            orders: Orders::REST,
            ..kernel
        };
        let reset = changed(FLAGS, flag::RST);
        assert_eq!(run(&reset, &kernel), Reason::PassProtocol);
    }

    #[test]
    fn what_is_not_ours_or_not_plain_passes() {
        let kernel = told(SegmentOwner::Stray);
        for flags in [0, flag::FIN, flag::SYN, flag::SYN | flag::ACK, 0x08] {
            assert_eq!(run(&changed(FLAGS, flags), &kernel), Reason::PassProtocol);
        }
        for (at, to, reason) in [
            (37, 54, Reason::PassProtocol),
            (5, 0x09, Reason::PassOtherMac),
            (46, 0x40, Reason::PassProtocol),
            (26, 127, Reason::PassSource),
        ] {
            assert_eq!(run(&changed(at, to), &kernel), reason, "{at}");
        }
        for orders in [
            Orders::REST,
            Orders::give(None),
            Orders::REST.without_strays(),
        ] {
            let kernel = FakeKernel {
                orders,
                ..told(SegmentOwner::Stray)
            };
            assert_eq!(run(&ACK, &kernel), Reason::PassProtocol);
        }
    }

    /// There the kernel's look-up from another device finds the listener, and not the connection.
    #[test]
    fn to_a_link_local_address_everything_passes() {
        let mut frame = ACK[..12].to_vec();
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        let address = |first: [u8; 2]| [&first[..], &[0; 13], &[1]].concat();
        let (source, segment) = (address([0x20, 0x01]), &ACK[34..]);
        for (first, reason) in [
            ([0xfe, 0x80], Reason::PassProtocol),
            ([0xfe, 0xbf], Reason::PassProtocol),
            ([0xfe, 0xc0], Reason::DropStray),
            ([0xfd, 0x80], Reason::DropStray),
        ] {
            let frame = [&frame[..], &source, &address(first), segment].concat();
            let kernel = told(SegmentOwner::Stray);
            assert_eq!(run(&frame, &kernel), reason, "{first:x?}");
        }
    }
}
