//! Segments to guarded ports other than SYNs: connections and proofs pass, and a few strays.

use crate::bench::Bench;
use crate::syn::{Syn, guarded};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use xdnsd_abi::{Orders, Reason, few};

/// Number of strays that pass per second.
const STRAYS_MAX: u64 = few::STRAYS.1;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// The same bench, which drops segments without a connection.
fn dropping(test: &str) -> Option<(Bench, TcpListener)> {
    let (mut bench, listener) = guarded(test)?;
    tell(&mut bench, Orders::give(None).without_strays());
    Some((bench, listener))
}

fn tell(bench: &mut Bench, orders: Orders) {
    let told = bench.program.set_syn_cookies(orders);
    told.expect("the maps take it");
}

/// A segment between the same ends.
fn segment(syn: &Syn, flags: u8, sequence: u32, acknowledgment: u32) -> Vec<u8> {
    let segment = Syn {
        sequence,
        ..syn.clone()
    };
    let tcp = segment.tcp();
    segment.resealed(|frame| {
        frame[tcp + 8..tcp + 12].copy_from_slice(&acknowledgment.to_be_bytes());
        frame[tcp + 13] = flags;
    })
}

/// Segment that returns the cookie from the answer to the SYN.
fn proof(bench: &mut Bench, syn: &Syn) -> Vec<u8> {
    let cookie = syn.check(&bench.answer(&syn.frame()));
    let next = syn.sequence.wrapping_add(1);
    segment(syn, ACK, next, cookie.wrapping_add(1))
}

/// Sends strays until one is dropped: then the few of this second have passed. Returns their number.
fn drop_strays(bench: &mut Bench, frame: &[u8]) -> u64 {
    // On a slow machine several seconds may begin.
    for passed in 0..STRAYS_MAX * 100 {
        let reason = bench.reason(frame);
        if reason == Reason::DropStray {
            return passed;
        }
        assert_eq!(reason, Reason::PassStray);
    }
    panic!("none was dropped");
}

#[test]
fn a_cookie_that_is_brought_back_passes_and_says_who_the_client_is() {
    let Some((mut bench, _listener)) = dropping("a_cookie_that_is_brought_back") else {
        return;
    };
    let with_priority = Syn::both().map(Syn::with_priority);
    for syn in Syn::both().into_iter().chain(with_priority) {
        let proof = proof(&mut bench, &syn);
        let next = syn.sequence.wrapping_add(1);
        // The client's next segments may arrive before its connection is established.
        let behind = segment(&syn, ACK | PSH, next.wrapping_add(1_000), 77);
        drop_strays(&mut bench, &behind);
        let mut with_data = syn.clone();
        with_data.data = b"query".to_vec();
        let acknowledgment = proof[syn.tcp() + 8..syn.tcp() + 12].try_into();
        let acknowledgment = u32::from_be_bytes(acknowledgment.expect("four bytes"));
        for frame in [
            proof.clone(),
            segment(&with_data, ACK | PSH, next, acknowledgment),
        ] {
            bench.expect(&frame, Reason::PassCookie);
        }
        for _ in 0..2 * STRAYS_MAX {
            bench.expect(&behind, Reason::PassVerified);
        }
        // A cookie for other numbers or another port is invalid.
        let mut other = syn.clone();
        other.source_port += 1;
        for wrong in [
            segment(&other, ACK, next, acknowledgment),
            segment(&syn, ACK, next, acknowledgment ^ 1 << 20),
            segment(&syn, ACK, next ^ 1 << 20, acknowledgment),
        ] {
            bench.expect(&wrong, Reason::PassVerified);
        }
        bench.expect(&segment(&syn, RST, next, 0), Reason::DropReset);
    }
}

#[test]
fn a_client_that_brought_a_cookie_back_is_not_asked_again_where_that_is_wanted() {
    let Some((mut bench, _listener)) = dropping("a_client_that_brought_a_cookie_back") else {
        return;
    };
    for syn in Syn::both() {
        let proof = proof(&mut bench, &syn);
        bench.expect(&proof, Reason::PassCookie);
        let mut other_port = syn.clone();
        other_port.source_port += 1;
        bench.answer(&other_port.frame());
        let verified = Orders::give(None).without_strays().verified_for(300);
        tell(&mut bench, verified);
        bench.expect(&other_port.frame(), Reason::PassVerified);
        bench.expect(&syn.frame(), Reason::PassVerified);
        let mut other = syn.clone();
        other.source = match syn.source {
            IpAddr::V4(_) => "192.0.2.2".parse().expect("an address"),
            IpAddr::V6(_) => "2001:db8::2".parse().expect("an address"),
        };
        bench.answer(&other.frame());
        tell(&mut bench, Orders::give(None).without_strays());
    }
}

#[test]
fn what_belongs_to_no_connection_is_dropped_but_for_a_few() {
    let Some((mut bench, listener)) = dropping("what_belongs_to_no_connection") else {
        return;
    };
    let stray = segment(&Syn::both()[0], ACK, 7, 9);
    assert!(drop_strays(&mut bench, &stray) >= STRAYS_MAX);
    for syn in Syn::both() {
        for flags in [ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN] {
            drop_strays(&mut bench, &segment(&syn, flags, 7, 9));
        }
        for flags in [RST, RST | ACK, RST | FIN, RST | PSH] {
            bench.expect(&segment(&syn, flags, 7, 9), Reason::DropReset);
        }
        // The kernel does not answer these; and a SYN is not handled by this program.
        for flags in [
            0,
            FIN,
            PSH,
            FIN | PSH | 0x20,
            SYN | ACK,
            SYN | RST,
            SYN | FIN,
        ] {
            bench.expect(&segment(&syn, flags, 7, 9), Reason::PassProtocol);
        }
        let frame = segment(&syn, ACK, 7, 9);
        for at in 0..6 {
            let mut other_mac = frame.clone();
            other_mac[at] ^= 0x40;
            bench.expect(&other_mac, Reason::PassOtherMac);
        }
        let other_port = syn.resealed(|frame| {
            frame[syn.tcp() + 3] = 54;
            frame[syn.tcp() + 13] = ACK;
        });
        bench.expect(&other_port, Reason::PassProtocol);
        for words in 0..5 {
            let cut = |frame: &mut [u8]| {
                frame[syn.tcp() + 12] = words << 4;
                frame[syn.tcp() + 13] = RST;
            };
            bench.expect(&syn.resealed(cut), Reason::PassProtocol);
        }
        // Without its options it suffices, wherever they are.
        for len in syn.tcp()..frame.len() {
            let reason = match len - syn.tcp() {
                ..20 => Reason::PassProtocol,
                _ => Reason::DropReset,
            };
            bench.expect(&segment(&syn, RST, 7, 9)[..len], reason);
        }
    }
    // Without a listener the kernel answers.
    drop(listener);
    for syn in Syn::both() {
        for flags in [ACK, RST] {
            bench.expect(&segment(&syn, flags, 7, 9), Reason::PassProtocol);
        }
    }
}

#[test]
fn a_connection_is_left_alone_whatever_it_sends() {
    let Some((mut bench, listener)) = dropping("a_connection_is_left_alone") else {
        return;
    };
    for address in ["192.0.2.1/24", "192.0.2.53/24"] {
        bench
            .namespace
            .ip(&format!("address add {address} dev lo\n"))
            .expect("it takes it");
    }
    bench
        .namespace
        .ip("link set lo up\naddress add 2001:db8::1/64 dev lo nodad\naddress add 2001:db8::53/64 dev lo nodad\n")
        .expect("it takes them");
    for mut syn in Syn::both() {
        let (client, accepted) = bench.namespace.run(|| {
            let server = SocketAddr::new(syn.destination, 53);
            let client = connected_from(syn.source, server);
            (client, listener.accept().expect("it is there").0)
        });
        syn.source_port = client.local_addr().expect("bound").port();
        for flags in [ACK, ACK | PSH, ACK | FIN, RST, RST | ACK] {
            bench.expect(&segment(&syn, flags, 7, 9), Reason::PassProtocol);
        }
        // Closed by the client, then by us, which leaves a TIME-WAIT only at its end: none is left here.
        drop((client, accepted));
    }
}

/// In a flood of resets they end here without a socket lookup; segments with data do not.
#[test]
fn in_a_flood_of_resets_none_is_looked_after() {
    let Some((mut bench, listener)) = dropping("in_a_flood_of_resets") else {
        return;
    };
    drop(listener);
    // Without a listener, which the kernel is to report.
    for syn in Syn::both() {
        bench.expect(&segment(&syn, RST, 7, 9), Reason::PassProtocol);
    }
    for syn in Syn::both() {
        let reset = segment(&syn, RST, 7, 9);
        // Another second may begin meanwhile, or another processor count.
        let is_dropped = (0..50).any(|_| bench.flood(&reset, 2 * few::RESETS.1).1);
        assert!(is_dropped);
        for flags in [ACK, ACK | PSH, ACK | FIN] {
            bench.expect(&segment(&syn, flags, 7, 9), Reason::PassProtocol);
        }
    }
}

/// A connection from this address.
fn connected_from(source: IpAddr, server: SocketAddr) -> TcpStream {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket,
    };
    use std::os::fd::AsRawFd as _;
    let family = match source.is_ipv4() {
        true => AddressFamily::Inet,
        false => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let local = SockaddrStorage::from(SocketAddr::new(source, 0));
    bind(socket.as_raw_fd(), &local).expect("the address is there");
    connect(socket.as_raw_fd(), &SockaddrStorage::from(server)).expect("somebody listens");
    socket.into()
}

#[test]
fn without_orders_to_drop_nothing_is_handed_on() {
    let Some((mut bench, _listener)) = dropping("without_orders_to_drop") else {
        return;
    };
    for orders in [
        Orders::give(None),
        Orders::REST,
        Orders::REST.without_strays(),
    ] {
        tell(&mut bench, orders);
        for syn in Syn::both() {
            for flags in [ACK, RST] {
                bench.expect(&segment(&syn, flags, 7, 9), Reason::PassProtocol);
            }
        }
    }
    tell(&mut bench, Orders::give(None).without_strays());
    bench.expect(&segment(&Syn::both()[0], RST, 7, 9), Reason::DropReset);
}
