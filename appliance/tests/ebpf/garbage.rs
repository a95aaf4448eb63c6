//! Frames that can only be an attack are dropped if so configured, and pass otherwise; merely unusual ones always pass.

use crate::bench::{Bench, LOOPBACK, listen};
use crate::frames::{OUR_MAC, Query};
use xdnsd_abi::{PathCheck, Reason};

/// A bench that drops garbage, and one that does not; each with a second address of ours.
fn benches(test: &str) -> Option<[Bench; 2]> {
    let bench = |is_dropped| {
        let mut bench = Bench::new(test)?;
        let told = bench.program.set_drop_garbage(is_dropped);
        told.expect("the map takes it");
        let ours = ["192.0.2.53", "192.0.2.99", "2001:db8::53", "2001:db8::99"];
        bench.listen(&ours.map(|address| (listen(address, 0, 0), 0)));
        Some(bench)
    };
    Some([bench(true)?, bench(false)?])
}

/// Each frame with its reasons when it is dropped and when it passes.
fn expect(test: &str, cases: &[(Vec<u8>, Reason, Reason)]) {
    let Some([mut dropping, mut passing]) = benches(test) else {
        return;
    };
    for (frame, dropped, passed) in cases {
        dropping.expect(frame, *dropped);
        passing.expect(frame, *passed);
    }
}

fn both() -> [Query; 2] {
    [Query::v4(), Query::v6()]
}

#[test]
fn a_response_to_port_53_of_ours_is_garbage() {
    let responses = both().map(|mut query| {
        query.message[2] |= 0x80;
        (query.frame(), Reason::DropResponse, Reason::PassResponse)
    });
    expect("a_response_to_port_53_of_ours_is_garbage", &responses);
}

#[test]
fn what_comes_from_an_address_of_ours_is_garbage() {
    let cases = [
        ("192.0.2.53", "192.0.2.53"),
        ("192.0.2.99", "192.0.2.53"),
        ("2001:db8::53", "2001:db8::53"),
        ("2001:db8::99", "2001:db8::53"),
    ];
    let cases = cases.map(|(from, to)| {
        let frame = Query::between(from, to).frame();
        (frame, Reason::DropSource, Reason::PassSource)
    });
    expect("what_comes_from_an_address_of_ours_is_garbage", &cases);
}

#[test]
fn a_datagram_that_its_packet_does_not_hold_or_that_holds_no_header_is_garbage() {
    let mut cases = Vec::new();
    for query in both() {
        let at = query.udp() + 4;
        let len = 8 + query.message.len() as u16;
        for lie in [1, 7, 8, 19, len + 1, 0x7fff, 0xffff] {
            let lies = |frame: &mut [u8]| frame[at..at + 2].copy_from_slice(&lie.to_be_bytes());
            cases.push(query.resealed(lies));
        }
        cases.extend((0..12).map(|len| query.clone().with_message_len(len).frame()));
    }
    let cases: Vec<_> = cases
        .into_iter()
        .map(|frame| (frame, Reason::DropTruncated, Reason::PassLength))
        .collect();
    let name = "a_datagram_that_its_packet_does_not_hold_or_that_holds_no_header_is_garbage";
    expect(name, &cases);
}

/// The rest of the frame may be in another buffer, the port may not be ours, the packet may be longer than its datagram.
#[test]
fn what_is_merely_unusual_passes() {
    let Some([mut bench, _]) = benches("what_is_merely_unusual_passes") else {
        return;
    };
    for query in both() {
        let mut elsewhere = query.clone();
        elsewhere.destination_port = 5353;
        elsewhere.message[2] |= 0x80;
        let key = xdnsd_abi::Listen {
            port: 5353_u16.to_be_bytes(),
            ..listen(&query.destination.to_string(), 0, 0)
        };
        let check = PathCheck::new(0, LOOPBACK, OUR_MAC);
        let ours = [
            (listen(&query.destination.to_string(), 0, 0), check),
            (key, check),
        ];
        bench.program.set_listen(&ours).expect("there is room");
        bench.expect(&elsewhere.frame(), Reason::PassResponse);
        let at = query.udp() + 4;
        for len in [0, 7 + query.message.len() as u16] {
            let says = |frame: &mut [u8]| frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
            bench.expect(&query.resealed(says), Reason::PassLength);
        }
        let mut response = query.clone();
        response.message[2] |= 0x80;
        let mut to_another_station = response.frame();
        to_another_station[5] ^= 0x40;
        bench.expect(&to_another_station, Reason::PassOtherMac);
        response.destination_port = 54;
        bench.expect(&response.frame(), Reason::PassForeign);
        let cut = query.frame();
        bench.expect(&cut[..query.udp() + 8], Reason::PassTruncated);
    }
}
