//! The XDP program in this machine's kernel: a frame for every reason, with action, bytes and counter asserted.

mod bench;
mod conditions;
mod cookie;
mod fib;
mod forward;
mod frames;
mod garbage;
mod generated;
mod hot;
mod loader;
mod log;
mod prefixes;
mod rate;
mod stray;
mod syn;
mod verifier;

use bench::{Bench, FRAME_LEN_MIN, LOOPBACK, QUEUE_TOO_HIGH, listen};
use frames::{OUR_MAC, Query, flipped};
use std::time::Duration;
use xdnsd_abi::{FRAME_MAX, HEARTBEAT_STALE_NS, MESSAGE_MAX, PathCheck, Reason};

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const STALE: Duration = Duration::from_nanos(HEARTBEAT_STALE_NS);

fn both() -> [Query; 2] {
    [Query::v4(), Query::v6()]
}

#[test]
fn a_good_query_is_redirected() {
    let Some(mut bench) = Bench::new("a_good_query_is_redirected") else {
        return;
    };
    for query in both() {
        bench.expect(&query.frame(), Reason::Redirected);
    }
}

#[test]
fn every_message_length_up_to_the_longest_is_redirected() {
    let Some(mut bench) = Bench::new("every_message_length_up_to_the_longest_is_redirected") else {
        return;
    };
    for query in both() {
        for len in 12..=MESSAGE_MAX {
            bench.expect(
                &query.clone().with_message_len(len).frame(),
                Reason::Redirected,
            );
        }
        for len in [MESSAGE_MAX + 1, 1232] {
            bench.expect(
                &query.clone().with_message_len(len).frame(),
                Reason::PassLong,
            );
        }
        for len in 0..12 {
            bench.expect(
                &query.clone().with_message_len(len).frame(),
                Reason::PassLength,
            );
        }
    }
}

#[test]
fn ethernet_padding_is_no_matter() {
    let Some(mut bench) = Bench::new("ethernet_padding_is_no_matter") else {
        return;
    };
    for query in both() {
        for padding in 1..40 {
            let padded = [query.frame(), vec![0xa5; padding]].concat();
            bench.expect(&padded, Reason::Redirected);
        }
    }
}

/// The kernel drops frames that exceed a chunk of the UMEM, or are in several buffers.
#[test]
fn a_frame_that_no_chunk_holds_passes() {
    let name = "a_frame_that_no_chunk_holds_passes";
    for bench in [Bench::new(name), Bench::single(name)] {
        let Some(mut bench) = bench else { return };
        for query in both() {
            let padded = |len| {
                let mut frame = query.frame();
                frame.resize(len, 0xa5);
                frame
            };
            bench.expect(&padded(FRAME_MAX), Reason::Redirected);
            bench.expect(&padded(FRAME_MAX + 1), Reason::PassLargeFrame);
            bench.expect(&padded(1514), Reason::PassLargeFrame);
        }
    }
}

/// BPF_PROG_TEST_RUN splits a frame that is longer than a page into several buffers.
#[test]
fn a_frame_in_several_buffers_passes() {
    let Some(mut bench) = Bench::new("a_frame_in_several_buffers_passes") else {
        return;
    };
    for query in both() {
        let padded = |len: usize, at: usize| {
            let mut frame = query.frame();
            frame.splice(at..at, vec![0xa5; len]);
            frame
        };
        let end = query.frame().len();
        for len in [5_000, 8_900] {
            bench.expect(&padded(len, end), Reason::PassLargeFrame);
            let long = query.clone().with_message_len(len).frame();
            bench.expect(&long, Reason::PassLong);
            let mut foreign = query.clone();
            foreign.destination_port = 54;
            bench.expect(&foreign.with_message_len(len).frame(), Reason::PassForeign);
        }
    }
}

/// Also if the first buffer ends early: directly after the datagram, or within it.
#[test]
fn what_lies_behind_the_first_buffer_is_never_read() {
    let Some(mut bench) = Bench::new("what_lies_behind_the_first_buffer_is_never_read") else {
        return;
    };
    for query in both() {
        let whole = query.frame();
        let padded = [whole.as_slice(), &[0xa5; 10]].concat();
        if !bench.expect_split(&padded, padded.len(), Reason::Redirected) {
            eprintln!("this kernel cannot split a test frame (before Linux 6.18)");
            return;
        }
        for first in FRAME_LEN_MIN..padded.len() {
            let reason = if first < whole.len() {
                Reason::PassTruncated
            } else {
                Reason::PassLargeFrame
            };
            assert!(bench.expect_split(&padded, first, reason), "{first}");
        }
    }
}

#[test]
fn a_frame_to_another_mac_passes() {
    let name = "a_frame_to_another_mac_passes";
    for bench in [Bench::new(name), Bench::single(name)] {
        let Some(mut bench) = bench else { return };
        for query in both() {
            bench.listen(&[(listen(&query.destination.to_string(), 0, 0), 0)]);
            for at in 0..6 {
                let mut other = query.frame();
                other[at] ^= 0x40;
                bench.expect(&other, Reason::PassOtherMac);
            }
            // The device gets another address, and then its own back.
            let key = listen(&query.destination.to_string(), 0, 0);
            let moved = [0x02, 0, 0, 0, 0, 0x77];
            let mut to_moved = query.frame();
            to_moved[..6].copy_from_slice(&moved);
            for (mac, ours, other) in [
                (moved, &to_moved, &query.frame()),
                (OUR_MAC, &query.frame(), &to_moved),
            ] {
                let set = bench
                    .program
                    .set_listen(&[(key, PathCheck::new(0, LOOPBACK, mac))]);
                set.expect("the map has room");
                bench.expect(ours, Reason::Redirected);
                bench.expect(other, Reason::PassOtherMac);
            }
        }
    }
}

/// The program of a bond runs for its ports' frames, too, and the kernel drops what it redirects from there.
#[test]
fn a_frame_that_another_interface_received_passes() {
    let name = "a_frame_that_another_interface_received_passes";
    for bench in [Bench::new(name), Bench::single(name)] {
        let Some(mut bench) = bench else { return };
        let script = "link add name port type veth peer name far\nlink set port up";
        bench.namespace.ip(script).expect("another interface");
        let index = || nix::net::if_::if_nametoindex("port");
        let port = bench.namespace.run(index).expect("it is there");
        for query in both() {
            let key = listen(&query.destination.to_string(), 0, 0);
            for (ours, reason) in [
                (LOOPBACK, Reason::PassOtherDevice),
                (port, Reason::Redirected),
            ] {
                let set = bench
                    .program
                    .set_listen(&[(key, PathCheck::new(0, ours, OUR_MAC))]);
                set.expect("the map has room");
                let at = Some((port, 0));
                bench.expect_at(&query.frame(), reason, Duration::ZERO, at);
            }
        }
    }
}

#[test]
fn what_is_not_for_us_passes() {
    let Some(mut bench) = Bench::new("what_is_not_for_us_passes") else {
        return;
    };
    for query in both() {
        let good = query.frame();
        let mut other_port = query.clone();
        other_port.destination_port = 54;
        bench.expect(&other_port.frame(), Reason::PassForeign);
        bench.expect(&flipped(good.clone(), 0), Reason::PassMulticast);
        bench.expect(&flipped(good.clone(), 13), Reason::PassEthertype);
        let mut broadcast = good;
        broadcast[..6].fill(0xff);
        bench.expect(&broadcast, Reason::PassMulticast);
    }
    bench.expect(
        &Query::between("192.0.2.1", "8.8.8.8").frame(),
        Reason::PassForeign,
    );
    bench.expect(
        &Query::between("2001:db8::1", "2001:4860:4860::8888").frame(),
        Reason::PassForeign,
    );
    // The IPv4 listener's address in IPv4-mapped form.
    bench.expect(
        &Query::between("2001:db8::1", "::ffff:192.0.2.53").frame(),
        Reason::PassForeign,
    );
}

#[test]
fn a_vlan_has_listeners_of_its_own() {
    let Some(mut bench) = Bench::new("a_vlan_has_listeners_of_its_own") else {
        return;
    };
    for (outer, inner, tags) in [
        (5, 0, vec![[VLAN, 0xe005]]),
        // Drop Eligible Indicator (IEEE 802.1Q section 9.6): not part of the VLAN ID.
        (5, 0, vec![[VLAN, 0x1005]]),
        (6, 5, vec![[QINQ, 0xf006], [VLAN, 0x1005]]),
        (5, 0, vec![[QINQ, 0x0005]]),
        (0x123, 5, vec![[QINQ, 0x0123], [VLAN, 0x6005]]),
        (0xffe, 5, vec![[VLAN, 0x0ffe], [VLAN, 0x0005]]),
    ] {
        for query in both() {
            let frame = query.clone().tagged(&tags).frame();
            let address = query.destination.to_string();
            bench.listen(&[(listen(&address, outer, inner), 0)]);
            bench.expect(&frame, Reason::Redirected);
            bench.expect(&query.frame(), Reason::PassForeign);
            for (outer, inner) in [
                (0, 0),
                (outer ^ 1, inner),
                (outer, inner ^ 1),
                (inner, outer),
            ] {
                bench.listen(&[(listen(&address, outer, inner), 0)]);
                bench.expect(&frame, Reason::PassForeign);
            }
        }
    }
}

#[test]
fn tags_that_are_not_understood_pass() {
    let Some(mut bench) = Bench::new("tags_that_are_not_understood_pass") else {
        return;
    };
    bench.listen(&[
        (listen("192.0.2.53", 0, 0), 0),
        (listen("192.0.2.53", 5, 0), 0),
        (listen("192.0.2.53", 5, 6), 0),
    ]);
    let tagged = |tags: &[[u16; 2]]| Query::v4().tagged(tags).frame();
    bench.expect(&tagged(&[[VLAN, 0xe000]]), Reason::PassVlanPriority);
    bench.expect(&tagged(&[[VLAN, 5], [VLAN, 0]]), Reason::PassVlanPriority);
    bench.expect(
        &tagged(&[[VLAN, 5], [VLAN, 6], [VLAN, 7]]),
        Reason::PassVlanDepth,
    );
    bench.expect(
        &tagged(&[[QINQ, 5], [QINQ, 6], [QINQ, 7], [VLAN, 8]]),
        Reason::PassVlanDepth,
    );
}

#[test]
fn ip_that_is_not_plain_udp_passes() {
    let Some(mut bench) = Bench::new("ip_that_is_not_plain_udp_passes") else {
        return;
    };
    let (v4, v6) = both().into();
    let ip = v4.ip();
    bench.expect(&v4.with_ipv4_options(), Reason::PassIpv4Options);
    bench.expect(
        &v4.resealed(|frame| frame[ip] = 0x65),
        Reason::PassIpv4Options,
    );
    for (fragment, reason) in [
        (0x2000u16, Reason::PassFragment),
        (0x2001, Reason::PassFragment),
        (0x0001, Reason::PassFragment),
        (0x1fff, Reason::PassFragment),
        (0x4000, Reason::Redirected),
    ] {
        let set = |frame: &mut [u8]| frame[ip + 6..ip + 8].copy_from_slice(&fragment.to_be_bytes());
        bench.expect(&v4.resealed(set), reason);
    }
    for protocol in [1, 6, 41, 136] {
        bench.expect(
            &v4.resealed(|frame| frame[ip + 9] = protocol),
            Reason::PassProtocol,
        );
    }
    // Hop-by-hop, TCP, routing, fragment, ICMPv6, destination options.
    for next_header in [0, 6, 43, 44, 58, 60] {
        bench.expect(
            &v6.resealed(|frame| frame[ip + 6] = next_header),
            Reason::PassProtocol,
        );
    }
    bench.expect(&v6.resealed(|frame| frame[ip] = 0x45), Reason::PassProtocol);
}

#[test]
fn a_wrong_checksum_passes_and_an_absent_one_is_legal_over_ipv4() {
    let Some(mut bench) =
        Bench::new("a_wrong_checksum_passes_and_an_absent_one_is_legal_over_ipv4")
    else {
        return;
    };
    for query in both() {
        let (good, udp) = (query.frame(), query.udp());
        for at in udp + 6..good.len() {
            // Other tests cover the response bit and the low bits of the checksum.
            bench.expect(&flipped(good.clone(), at), Reason::PassUdpChecksum);
        }
        // As left by partial checksum offload: the sum of the pseudo-header, not inverted. The message may be any.
        let mut partial = good.clone();
        let sum = pseudo_header_sum(&query);
        partial[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
        bench.expect(&partial, Reason::Redirected);
        let last = partial.len() - 1;
        bench.expect(&flipped(partial.clone(), last), Reason::Redirected);
        for other in [sum ^ 1, !sum, sum.swap_bytes()] {
            partial[udp + 6..udp + 8].copy_from_slice(&other.to_be_bytes());
            bench.expect(&flipped(partial.clone(), last), Reason::PassUdpChecksum);
        }
        let mut absent = good.clone();
        absent[udp + 6..udp + 8].fill(0);
        let reason = if query.source.is_ipv4() {
            Reason::Redirected
        } else {
            Reason::PassUdpChecksum
        };
        bench.expect(&absent, reason);
        absent.pop();
        bench.expect(&absent, Reason::PassTruncated);
    }
    let (good, ip) = (Query::v4().frame(), Query::v4().ip());
    // Type of service, identification, time to live, the checksum itself.
    for at in [ip + 1, ip + 4, ip + 5, ip + 8, ip + 10, ip + 11] {
        bench.expect(&flipped(good.clone(), at), Reason::PassIpv4Checksum);
    }
}

/// RFC 768, word by word.
fn pseudo_header_sum(query: &Query) -> u16 {
    let octets = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let len = 8 + query.message.len() as u16;
    let words = [
        octets(query.source),
        octets(query.destination),
        vec![0, 17],
        len.to_be_bytes().to_vec(),
    ]
    .concat();
    let add = |sum: u32, word: &[u8]| {
        let sum = sum + u32::from(u16::from_be_bytes([word[0], word[1]]));
        (sum & 0xffff) + (sum >> 16)
    };
    words.chunks(2).fold(0, add) as u16
}

#[test]
fn a_response_passes() {
    let Some(mut bench) = Bench::new("a_response_passes") else {
        return;
    };
    for query in both() {
        let mut response = query.clone();
        response.message[2] |= 0x80;
        bench.expect(&response.frame(), Reason::PassResponse);
    }
}

#[test]
fn a_source_that_cannot_be_answered_passes() {
    let Some(mut bench) = Bench::new("a_source_that_cannot_be_answered_passes") else {
        return;
    };
    for source in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.251",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.53",
    ] {
        bench.expect(
            &Query::between(source, "192.0.2.53").frame(),
            Reason::PassSource,
        );
    }
    for source in [
        "::",
        "::1",
        "::ffff:192.0.2.1",
        "ff02::1",
        "ff05::2",
        "2001:db8::53",
    ] {
        bench.expect(
            &Query::between(source, "2001:db8::53").frame(),
            Reason::PassSource,
        );
    }
    for mut query in both() {
        query.source_port = 0;
        bench.expect(&query.frame(), Reason::PassSource);
        // Old resolvers ask from port 53.
        query.source_port = 53;
        bench.expect(&query.frame(), Reason::Redirected);
    }
    bench.expect(
        &Query::between("fe80::1", "2001:db8::53").frame(),
        Reason::Redirected,
    );
}

#[test]
fn lengths_that_disagree_pass() {
    let Some(mut bench) = Bench::new("lengths_that_disagree_pass") else {
        return;
    };
    for query in both() {
        let (ip, udp) = (query.ip(), query.udp());
        let is_v4 = query.source.is_ipv4();
        let ip_len = if is_v4 { ip + 2 } else { ip + 4 };
        for (offset, len) in
            [(ip_len, ip_len + 2), (udp + 4, udp + 6)].map(|(from, _)| (from, read(&query, from)))
        {
            for lie in [
                0,
                1,
                7,
                8,
                19,
                20,
                27,
                len - 1,
                len + 1,
                len + 8,
                0x7fff,
                0x8000,
                0xffff,
            ] {
                let padded = |frame: &mut [u8]| {
                    frame[offset..offset + 2].copy_from_slice(&lie.to_be_bytes())
                };
                bench.expect(&query.resealed(padded), Reason::PassLength);
            }
        }
        // Both longer by the same: the packet is truncated, and the rest is not in the frame.
        let (ip_says, udp_says) = (read(&query, ip_len) + 9, read(&query, udp + 4) + 9);
        let longer = query.resealed(|frame| {
            frame[ip_len..ip_len + 2].copy_from_slice(&ip_says.to_be_bytes());
            frame[udp + 4..udp + 6].copy_from_slice(&udp_says.to_be_bytes());
        });
        bench.expect(&longer, Reason::PassTruncated);
    }
}

fn read(query: &Query, at: usize) -> u16 {
    let frame = query.frame();
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

#[test]
fn a_good_frame_cut_at_any_length_passes() {
    let Some(mut bench) = Bench::new("a_good_frame_cut_at_any_length_passes") else {
        return;
    };
    bench.listen(&[
        (listen("192.0.2.53", 0, 0), 0),
        (listen("192.0.2.53", 5, 6), 0),
        (listen("2001:db8::53", 0, 0), 0),
        (listen("2001:db8::53", 5, 6), 0),
    ]);
    for query in both() {
        for tags in [&[][..], &[[QINQ, 5], [VLAN, 6]]] {
            let frame = query.clone().tagged(tags).frame();
            for len in FRAME_LEN_MIN..frame.len() {
                bench.expect(&frame[..len], Reason::PassTruncated);
            }
            bench.expect(&frame, Reason::Redirected);
        }
    }
}

#[test]
fn a_worker_that_is_not_alive_gets_nothing() {
    let Some(mut bench) = Bench::new("a_worker_that_is_not_alive_gets_nothing") else {
        return;
    };
    let frame = Query::v4().frame();
    bench.expect_at(&frame, Reason::Redirected, STALE / 2, None);
    bench.expect_at(&frame, Reason::PassStale, STALE + STALE / 2, None);
    bench.expect(&frame, Reason::Redirected);
}

#[test]
fn a_queue_without_a_socket_passes() {
    let Some(mut bench) = Bench::new("a_queue_without_a_socket_passes") else {
        return;
    };
    let frame = Query::v4().frame();
    bench.close_socket();
    bench.expect(&frame, Reason::PassNoSocket);
    let socket = bench::xdp_socket();
    bench
        .program
        .set_socket(0, &socket)
        .expect("the slot is free");
    bench.expect(&frame, Reason::Redirected);
    // Closing the socket is enough: the kernel takes it out of the map.
    drop(socket);
    bench.expect(&frame, Reason::PassNoSocket);
}

#[test]
fn a_queue_beyond_the_maps_passes() {
    let Some(mut bench) = Bench::new("a_queue_beyond_the_maps_passes") else {
        return;
    };
    let queues = QUEUE_TOO_HIGH + 2;
    let script = format!(
        "link add name many numrxqueues {queues} type veth peer name few\nlink set many up"
    );
    bench
        .namespace
        .ip(&script)
        .expect("a device of many queues");
    let index = bench
        .namespace
        .run(|| nix::net::if_::if_nametoindex("many"))
        .expect("it is there");
    let frame = Query::v4().frame();
    let entry = (
        listen("192.0.2.53", 0, 0),
        PathCheck::new(0, index, OUR_MAC),
    );
    bench
        .program
        .set_listen(&[entry])
        .expect("the map has room");
    bench.expect_at(&frame, Reason::Redirected, Duration::ZERO, Some((index, 0)));
    // Queue 1 has a slot without a worker, the other has no slot.
    for queue in [1, QUEUE_TOO_HIGH] {
        let at = Some((index, queue));
        bench.expect_at(&frame, Reason::PassNoSocket, Duration::ZERO, at);
    }
}
