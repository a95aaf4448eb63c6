//! Tests of loading, attaching and the maps.

use crate::bench::{self, Bench, QUEUE_TOO_HIGH, listen};
use crate::frames::Query;
use std::collections::HashSet;
use std::process::Command;
use xdnsd::os::ethtool::{self, RxVlanOffload};
use xdnsd::os::xdp::{AttachMode, Attached, Error, OBJECT, Program};
use xdnsd_abi::{LISTEN_MAX, PathCheck, Reason};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::privilege;

/// Output of `ip link` about XDP on the interface, in this thread's namespace.
fn attached(interface: &str) -> String {
    let mut ip = Command::new("ip");
    let output = ip
        .args(["-o", "link", "show", "dev", interface])
        .output()
        .expect("ip runs");
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).expect("text");
    let xdp = shown
        .split_whitespace()
        .find(|word| word.starts_with("xdp"));
    xdp.unwrap_or("").to_owned()
}

fn veth() -> Namespace {
    let namespace = Namespace::unnamed().expect("root makes namespaces");
    namespace
        .ip("link add name v0 type veth peer name v1\nlink set v0 up\nlink set v1 up")
        .expect("a veth pair");
    namespace
}

#[test]
fn attaches_natively_and_generically_and_detaches_when_dropped() {
    if !privilege::root_or_skip("attaches_natively_and_generically_and_detaches_when_dropped") {
        return;
    }
    let namespace = veth();
    namespace.run(|| {
        let mut program = bench::load();
        let outcome = program.attach("v0", AttachMode::Native);
        assert!(matches!(outcome, Ok(Attached::Native)), "{outcome:?}");
        assert_eq!(attached("v0"), "xdp");
        let outcome = program.attach("v0", AttachMode::Generic);
        assert!(matches!(outcome, Ok(Attached::Generic)), "{outcome:?}");
        assert_eq!(attached("v0"), "xdpgeneric");
        program.detach();
        assert_eq!(attached("v0"), "");
        let outcome = program.attach("v0", AttachMode::Auto);
        assert!(matches!(outcome, Ok(Attached::Native)), "{outcome:?}");
        drop(program);
        assert_eq!(attached("v0"), "");
    });
}

#[test]
fn a_driver_without_xdp_gets_generic_mode_only_if_asked_or_auto() {
    if !privilege::root_or_skip("a_driver_without_xdp_gets_generic_mode_only_if_asked_or_auto") {
        return;
    }
    let namespace = Namespace::unnamed().expect("root makes namespaces");
    namespace.ip("link set lo up").expect("lo is there");
    namespace.run(|| {
        let mut program = bench::load();
        let error = program
            .attach("lo", AttachMode::Native)
            .expect_err("lo has no native XDP");
        let text = error.to_string();
        for word in ["lo", "native", "bpf_link_create", "generic"] {
            assert!(text.contains(word), "{word:?} in {text:?}");
        }
        let outcome = program.attach("lo", AttachMode::Auto);
        assert!(
            matches!(&outcome, Ok(Attached::GenericInstead(Error::Attach { .. }))),
            "{outcome:?}"
        );
        assert_eq!(attached("lo"), "xdpgeneric");
    });
}

#[test]
fn another_program_on_the_interface_is_an_error_that_says_so() {
    if !privilege::root_or_skip("another_program_on_the_interface_is_an_error_that_says_so") {
        return;
    }
    let namespace = veth();
    namespace.run(|| {
        let mut first = bench::load();
        first
            .attach("v0", AttachMode::Auto)
            .expect("the place is free");
        let error = bench::load()
            .attach("v0", AttachMode::Auto)
            .expect_err("the place is taken");
        assert_eq!(error.errno(), Some(nix::errno::Errno::EBUSY));
        assert!(error.to_string().contains("another XDP program"), "{error}");
    });
}

#[test]
fn jumbo_frames_leave_the_program_in_the_driver() {
    if !privilege::root_or_skip("jumbo_frames_leave_the_program_in_the_driver") {
        return;
    }
    let namespace = veth();
    let both = |mtu| format!("link set v0 mtu {mtu}\nlink set v1 mtu {mtu}");
    namespace.ip(&both(9000)).expect("veth takes any MTU");
    namespace.run(|| {
        let mut program = bench::load();
        assert!(program.takes_several_buffers());
        let outcome = program.attach("v0", AttachMode::Auto);
        assert!(matches!(outcome, Ok(Attached::Native)), "{outcome:?}");
        assert_eq!(attached("v0"), "xdp");
    });
}

/// As on a kernel before 5.18.
#[test]
fn the_program_for_one_buffer_names_a_large_mtu_and_auto_goes_generic() {
    if !privilege::root_or_skip(
        "the_program_for_one_buffer_names_a_large_mtu_and_auto_goes_generic",
    ) {
        return;
    }
    let namespace = veth();
    namespace
        .ip("link set v0 mtu 9000\nlink set v1 mtu 9000")
        .expect("veth takes any MTU");
    namespace.run(|| {
        let mut program = Program::load_single(OBJECT).expect("loads");
        assert!(!program.takes_several_buffers());
        let error = program
            .attach("v0", AttachMode::Native)
            .expect_err("too large");
        assert!(error.to_string().contains("MTU"), "{error}");
        let outcome = program.attach("v0", AttachMode::Auto);
        assert!(
            matches!(outcome, Ok(Attached::GenericInstead(_))),
            "{outcome:?}"
        );
    });
}

/// An object with a first program that the kernel refuses, like the flag of `xdp.frags` before 5.18.
#[test]
fn a_kernel_that_refuses_several_buffers_gets_the_other_program() {
    if !privilege::root_or_skip("a_kernel_that_refuses_several_buffers_gets_the_other_program") {
        return;
    }
    // `exit` as its first instruction: R0 is not set then, which every kernel refuses.
    let program = Program::load_object(&with_first_program_spoilt()).expect("the other one loads");
    assert!(!program.takes_several_buffers());
}

/// The object with the section `xdp.frags` overwritten from its start.
fn with_first_program_spoilt() -> Vec<u8> {
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut object = OBJECT.to_vec();
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([OBJECT[at], OBJECT[at + 1]]));
    let u64_at = |at: usize| {
        let bytes = OBJECT[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes) as usize
    };
    // ELF64: e_shoff, e_shentsize, e_shnum, e_shstrndx.
    let (table, size, count, names) = (u64_at(0x28), u16_at(0x3a), u16_at(0x3c), u16_at(0x3e));
    let names = u64_at(table + names * size + 0x18);
    let section = (0..count)
        .map(|index| table + index * size)
        .find(|&header| {
            let name = names + u16_at(header);
            OBJECT[name..].starts_with(b"xdp.frags\0")
        });
    let start = u64_at(section.expect("the section is there") + 0x18);
    object[start..start + 8].copy_from_slice(&EXIT);
    object
}

#[test]
fn no_such_interface_is_an_error() {
    if !privilege::root_or_skip("no_such_interface_is_an_error") {
        return;
    }
    let error = bench::load()
        .attach("no-such-if", AttachMode::Auto)
        .expect_err("no such interface");
    assert_eq!(
        error.to_string(),
        "interface \"no-such-if\": No such device"
    );
}

#[test]
fn the_listen_map_becomes_what_is_asked_for() {
    let Some(mut bench) = Bench::new("the_listen_map_becomes_what_is_asked_for") else {
        return;
    };
    let entry = |last: u32, egress_ifindex| {
        let address = format!("10.0.{}.{}", last / 256, last % 256);
        let mac = [2, 0, 0, 0, 1, last as u8];
        (
            listen(&address, 0, 0),
            PathCheck::new(egress_ifindex, 1000 + last, mac),
        )
    };
    let full: Vec<_> = (0..LISTEN_MAX).map(|last| entry(last, last)).collect();
    // All new, from full to full; then one changed, one gone, one new; then none.
    let shifted: Vec<_> = (LISTEN_MAX..2 * LISTEN_MAX)
        .map(|last| entry(last, 1))
        .collect();
    let mixed = [entry(LISTEN_MAX, 7), entry(500, 0)];
    for wanted in [&full[..], &shifted, &mixed, &[]] {
        bench.program.set_listen(wanted).expect("the map has room");
        let present: HashSet<_> = bench
            .program
            .listen()
            .expect("readable")
            .into_iter()
            .map(plain)
            .collect();
        let expected: HashSet<_> = wanted
            .iter()
            .map(|(key, check)| plain((key.to_bytes(), *check)))
            .collect();
        assert_eq!(present, expected);
        // A query from any of these sources is looked up, whatever its destination.
        let own = wanted
            .iter()
            .fold(0, |own, (key, _)| own | key.address_bit());
        let held = bench.program.listen().expect("readable");
        assert!(held.iter().all(|(_, check)| check.own == own));
    }
    let too_many: Vec<_> = (0..=LISTEN_MAX).map(|last| entry(last, 0)).collect();
    let error = bench
        .program
        .set_listen(&too_many)
        .expect_err("one too many");
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
    let said = format!(
        "{} entries for one interface, at most {LISTEN_MAX}",
        LISTEN_MAX + 1
    );
    assert_eq!(error.to_string(), format!("eBPF map listen: {said}"));
}

fn plain<K>((key, check): (K, PathCheck)) -> (K, u32, u32, [u8; 6]) {
    let PathCheck {
        egress_ifindex,
        ingress_ifindex,
        mac,
        ..
    } = check;
    (key, egress_ifindex, ingress_ifindex, mac)
}

#[test]
fn the_listen_map_has_the_room_that_it_is_loaded_with() {
    let name = "the_listen_map_has_the_room_that_it_is_loaded_with";
    if !privilege::root_or_skip(name) {
        return;
    }
    let entry = |last: u8| {
        let check = PathCheck::new(0, 1, [2, 0, 0, 0, 0, 1]);
        (listen(&format!("10.0.0.{last}"), 0, 0), check)
    };
    for room in [1_u8, 200] {
        let mut program = Program::load(room.into()).expect("loads");
        let full: Vec<_> = (0..room).map(entry).collect();
        program.set_listen(&full).expect("the map has room");
        assert_eq!(program.listen().expect("readable").len(), full.len());
        let error = program.set_listen(&[&full[..], &[entry(room)]].concat());
        let error = error.expect_err("one too many").to_string();
        assert!(error.ends_with(&format!(", at most {room}")), "{error}");
    }
}

#[test]
fn the_key_of_the_map_is_the_struct_of_the_contract() {
    let key = listen("2001:db8::53", 0x123, 0x456);
    let bytes = key.to_bytes();
    assert_eq!(bytes[..16], key.addr);
    assert_eq!(bytes[16..], [0x01, 0x23, 0x04, 0x56, 0, 53, 0, 0]);
}

#[test]
fn queues_and_sockets_that_do_not_fit_are_refused() {
    let Some(mut bench) = Bench::new("queues_and_sockets_that_do_not_fit_are_refused") else {
        return;
    };
    let socket = bench::xdp_socket();
    let program = &mut bench.program;
    program
        .set_socket(QUEUE_TOO_HIGH - 1, &socket)
        .expect("the last slot");
    assert!(matches!(
        program.set_socket(QUEUE_TOO_HIGH, &socket),
        Err(Error::Queue(_))
    ));
    assert!(program.heartbeat(QUEUE_TOO_HIGH).is_err());
    assert!(matches!(
        program.set_socket(1, bench::udp_socket()),
        Err(Error::Map { .. })
    ));
}

#[test]
fn a_heartbeat_beats_from_another_thread_and_outlives_the_program() {
    let Some(mut bench) =
        Bench::new("a_heartbeat_beats_from_another_thread_and_outlives_the_program")
    else {
        return;
    };
    let heartbeat = bench.program.heartbeat(0).expect("queue 0 is in the map");
    bench.expect(&Query::v4().frame(), Reason::Redirected);
    let heartbeat = std::thread::spawn(move || {
        heartbeat.stop();
        heartbeat
    });
    let heartbeat = heartbeat.join().expect("it only beats");
    drop(bench);
    heartbeat.beat(1);
}

#[test]
fn rx_vlan_offload_is_turned_off_once() {
    if !privilege::root_or_skip("rx_vlan_offload_is_turned_off_once") {
        return;
    }
    veth().run(|| {
        let turn_off = || ethtool::turn_off_rx_vlan_offload("v0").expect("v0 is there");
        let first = turn_off();
        assert!(
            matches!(first, RxVlanOffload::TurnedOff),
            "veth starts with it on: {first:?}"
        );
        assert!(matches!(turn_off(), RxVlanOffload::Off));
        assert!(ethtool::turn_off_rx_vlan_offload("no-such-if").is_err());
        let loopback = ethtool::turn_off_rx_vlan_offload("lo").expect("lo is there");
        assert!(matches!(loopback, RxVlanOffload::Off));
    });
}
