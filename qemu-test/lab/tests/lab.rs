//! The lab works as specified: packets cross it, settings take effect, and nothing stays behind.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use xdnsd_lab::frames::FrameSocket;
use xdnsd_lab::lab::bridge::{BRIDGE, BridgeSpec, GUEST_V4, GUEST_V6};
use xdnsd_lab::lab::named::{self, Lifetime, NamedLab};
use xdnsd_lab::lab::*;
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::nsd::Upstream;
use xdnsd_lab::privilege::root_or_skip;
use xdnsd_lab::process::Process;
use xdnsd_lab::wait::wait_until;
use xdnsd_lab::zone;

const TIMEOUT: Duration = Duration::from_secs(5);
/// More than the background traffic of a few milliseconds.
const DATAGRAMS: u64 = 40;

/// Sends one datagram to an address of the other host, and one back to its source.
fn cross(from: &Namespace, to: &Namespace, address: impl Into<IpAddr>) -> Result<()> {
    let address = address.into();
    let unspecified: IpAddr = if address.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    let server = to.run(|| UdpSocket::bind((address, 0)))?;
    let client = from.run(|| UdpSocket::bind((unspecified, 0)))?;
    let mut buffer = [0; 8];
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(TIMEOUT))?;
    }
    client.send_to(b"there", server.local_addr()?)?;
    let (_, peer) = server.recv_from(&mut buffer)?;
    server.send_to(b"back", peer)?;
    assert_eq!(client.recv_from(&mut buffer)?, (4, server.local_addr()?));
    Ok(())
}

#[test]
fn hosts_reach_each_other_over_both_families() -> Result<()> {
    if !root_or_skip("hosts_reach_each_other_over_both_families") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let Lab {
        client,
        router,
        upstream,
        ..
    } = &lab;
    cross(client, router, LAN_V4)?;
    cross(client, router, LAN_V6)?;
    cross(upstream, router, WAN_V4)?;
    cross(upstream, router, WAN_V6)?;
    // Through the router, both ways.
    cross(client, upstream, UPSTREAM_V4)?;
    cross(client, upstream, UPSTREAM_V6)?;
    cross(upstream, client, CLIENT_V4)?;
    cross(upstream, client, CLIENT_V6)?;
    Ok(())
}

#[test]
fn stations_of_a_bridge_reach_each_other_and_a_guest_the_router() -> Result<()> {
    if !root_or_skip("stations_of_a_bridge_reach_each_other_and_a_guest_the_router") {
        return Ok(());
    }
    let lab = Lab::up(&Spec {
        bridge: Some(BridgeSpec {
            ports: 3,
            filters_vlans: false,
            has_bond: false,
            has_guest: true,
        }),
        ..Spec::default()
    })?;
    let [second, third, guest] = &lab.stations[..] else {
        unreachable!("two beside the client, and a guest");
    };
    for (from, to) in [
        (&lab.client, &lab.router),
        (second, &lab.router),
        (third, &lab.router),
    ] {
        cross(from, to, LAN_V4)?;
        cross(from, to, LAN_V6)?;
    }
    cross(second, &lab.client, CLIENT_V4)?;
    cross(third, &lab.client, CLIENT_V6)?;
    cross(guest, &lab.router, GUEST_V4)?;
    cross(guest, &lab.router, GUEST_V6)?;
    cross(guest, &lab.upstream, UPSTREAM_V4)?;
    let shown = lab
        .router
        .output(&["ip", "-brief", "link", "show", "master", BRIDGE])?;
    let ports = shown
        .lines()
        .filter_map(|line| line.split(['@', ' ']).next());
    assert!(ports.eq(["lan0", "lan1", "lan2"]), "{shown}");
    Ok(())
}

#[test]
fn spec_sets_queues_mtu_and_offload() -> Result<()> {
    if !root_or_skip("spec_sets_queues_mtu_and_offload") {
        return Ok(());
    }
    let lab = Lab::up(&Spec {
        queues: 3,
        mtu: 1400,
        offload: Offload::On,
        ..Spec::default()
    })?;
    for (host, interface) in [(&lab.client, HOST_INTERFACE), (&lab.router, LAN)] {
        let queues = host.output(&["ls", &format!("/sys/class/net/{interface}/queues")])?;
        assert_eq!(
            queues.split_whitespace().collect::<Vec<_>>(),
            ["rx-0", "rx-1", "rx-2", "tx-0", "tx-1", "tx-2"]
        );
        assert_eq!(
            host.read(&format!("/sys/class/net/{interface}/mtu"))?
                .trim(),
            "1400"
        );
    }
    let is_offload_on = |lab: &Lab| -> Result<bool> {
        Ok(lab
            .client
            .output(&["ethtool", "-k", HOST_INTERFACE])?
            .contains("tx-checksumming: on"))
    };
    assert!(is_offload_on(&lab)?);
    assert!(!is_offload_on(&Lab::up(&Spec::default())?)?);
    Ok(())
}

#[test]
fn spec_out_of_range_names_the_knob() -> Result<()> {
    if !root_or_skip("spec_out_of_range_names_the_knob") {
        return Ok(());
    }
    let error = Lab::up(&Spec {
        queues: 0,
        ..Spec::default()
    })
    .expect_err("no queue, no lab");
    assert_eq!(error.to_string(), "queues: 0 is not in 1..=64");
    let error = Lab::up(&Spec {
        mtu: 9217,
        ..Spec::default()
    })
    .expect_err("XDP refuses that MTU");
    assert_eq!(error.to_string(), "MTU: 9217 is not in 1280..=9216");
    Ok(())
}

/// UDP checksum, in the frame, of a datagram that the client's kernel sends.
fn checksum_from_client(offload: Offload) -> Result<u16> {
    let lab = Lab::up(&Spec {
        offload,
        ..Spec::default()
    })?;
    let frames = FrameSocket::open(&lab.router, LAN)?;
    let socket = lab.client.run(|| UdpSocket::bind((CLIENT_V4, 5000)))?;
    socket.send_to(&[0xa5; 20], (LAN_V4, 9))?;
    let frame = frames.receive(TIMEOUT, |frame| {
        frame.get(12..14) == Some(&[0x08, 0x00]) && frame.get(23) == Some(&17)
    })?;
    let frame = frame.expect("the datagram arrives");
    Ok(u16::from_be_bytes([frame[40], frame[41]]))
}

#[test]
fn offload_decides_whether_checksums_are_full() -> Result<()> {
    if !root_or_skip("offload_decides_whether_checksums_are_full") {
        return Ok(());
    }
    let sum = |words: &[u32]| {
        let sum: u32 = words.iter().sum();
        u16::try_from((sum & 0xffff) + (sum >> 16)).expect("two folds fit")
    };
    // Pseudo header: addresses, protocol 17, length 28. Then ports, length, payload.
    let pseudo = [0x0a35, 0x0002, 0x0a35, 0x0001, 17, 28];
    assert_eq!(
        checksum_from_client(Offload::On)?,
        sum(&pseudo),
        "a partial sum is the pseudo header's"
    );
    let whole = [&pseudo[..], &[5000, 9, 28], &[0xa5a5; 10]].concat();
    assert_eq!(
        checksum_from_client(Offload::Off)?,
        !sum(&whole),
        "a full checksum covers the datagram"
    );
    Ok(())
}

#[test]
fn steering_chooses_the_rx_queue() -> Result<()> {
    if !root_or_skip("steering_chooses_the_rx_queue") {
        return Ok(());
    }
    let spec = Spec {
        queues: 2,
        ..Spec::default()
    };
    let lab = Lab::up(&spec)?;
    cross(&lab.client, &lab.router, LAN_V4)?;
    // veth counts per queue what passes NAPI, which GRO enables.
    lab.router.output(&["ethtool", "-K", LAN, "gro", "on"])?;
    let count = |queue: u32| -> Result<u64> {
        let statistics = lab.router.output(&["ethtool", "-S", LAN])?;
        let name = format!("rx_queue_{queue}_xdp_packets:");
        let value = statistics
            .lines()
            .find_map(|line| line.trim().strip_prefix(&name));
        Ok(value.expect("veth counts per queue").trim().parse()?)
    };
    for queue in [1, 0, 1] {
        lab.steer_client_to_queue(&spec, queue)?;
        let (before, before_other) = (count(queue)?, count(1 - queue)?);
        for _ in 0..DATAGRAMS {
            let socket = lab.client.run(|| UdpSocket::bind((CLIENT_V4, 0)))?;
            socket.send_to(b"steer", (LAN_V4, 9))?;
        }
        wait_until("the queue counts them", TIMEOUT, || {
            count(queue).is_ok_and(|now| now >= before + DATAGRAMS)
        })?;
        // ARP and neighbour discovery may use either queue in the meantime, a datagram may not.
        assert!(count(1 - queue)? < before_other + DATAGRAMS / 2);
    }
    Ok(())
}

#[test]
fn vlan_is_made_or_refused_with_a_reason() -> Result<()> {
    if !root_or_skip("vlan_is_made_or_refused_with_a_reason") {
        return Ok(());
    }
    for tag in [VlanTag::InFrame, VlanTag::BesideFrame] {
        match Lab::up(&Spec {
            vlan: Some(tag),
            ..Spec::default()
        }) {
            Ok(lab) => {
                cross(&lab.client, &lab.router, VLAN_V4)?;
                cross(&lab.client, &lab.router, VLAN_V6)?;
            }
            Err(error) => assert!(
                format!("{error:#}").contains("CONFIG_VLAN_8021Q"),
                "{error:#}"
            ),
        }
    }
    Ok(())
}

#[test]
fn frame_socket_shows_tags_and_not_its_own_frames() -> Result<()> {
    if !root_or_skip("frame_socket_shows_tags_and_not_its_own_frames") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let (client, router) = (
        FrameSocket::open(&lab.client, HOST_INTERFACE)?,
        FrameSocket::open(&lab.router, LAN)?,
    );
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 0x81, 0x00, 0x60, 0x0a, 0x88, 0xb5]);
    frame.resize(60, 0xa5);
    let is_ours = |seen: &[u8]| seen.ends_with(&[0xa5; 40]);
    client.send(&frame)?;
    assert_eq!(
        router.receive(TIMEOUT, is_ours)?.as_deref(),
        Some(&frame[..])
    );
    assert_eq!(client.receive(Duration::from_millis(50), is_ours)?, None);
    Ok(())
}

/// Frames of other hosts neither prolong a wait, nor displace frames that arrive between two reads.
#[test]
fn a_frame_is_waited_for_as_long_as_was_said_and_kept_until_it_is_looked_for() -> Result<()> {
    const NAME: &str = "a_frame_is_waited_for_as_long_as_was_said_and_kept_until_it_is_looked_for";
    if !root_or_skip(NAME) {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let frames = FrameSocket::open(&lab.router, LAN)?;
    let socket = lab.client.run(|| UdpSocket::bind((CLIENT_V4, 0)))?;
    let to = (LAN_V4, 9);
    // More than a socket's default buffer holds.
    for _ in 0..2_000 {
        let _ = socket.send_to(b"other", to);
    }
    socket.send_to(b"wanted", to)?;
    let wanted = frames.receive(TIMEOUT, |frame| frame.ends_with(b"wanted"))?;
    assert!(wanted.is_some());
    let is_over = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    // So that another one is always waiting.
    let slow = |_: &[u8]| {
        thread::sleep(Duration::from_millis(1));
        false
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = socket.send_to(b"other", to);
            }
        });
        scope.spawn(move || tell.send(frames.receive(TIMEOUT / 20, slow).is_ok()));
        let came = told.recv_timeout(TIMEOUT);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(came, Ok(true), "the wait ends");
    });
    Ok(())
}

#[test]
fn upstream_serves_the_zone_and_ends_with_its_guard() -> Result<()> {
    if !root_or_skip("upstream_serves_the_zone_and_ends_with_its_guard") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let directory = directory("upstream")?;
    let upstream = Upstream::start(&lab, &directory)?;
    for server in [format!("@{UPSTREAM_V4}"), format!("@{UPSTREAM_V6}")] {
        let dig =
            |name: &str, kind: &str| lab.client.output(&["dig", &server, "+norec", name, kind]);
        let big = dig("big.lab.test", "TXT")?;
        assert_eq!(
            big.matches("300\tIN\tTXT").count(),
            usize::try_from(zone::BIG_STRINGS)?,
            "{big}"
        );
        assert!(dig("host-999.lab.test", "AAAA")?.contains(&zone::host_v6(999).to_string()));
        assert!(dig("missing.lab.test", "A")?.contains("NXDOMAIN"));
        assert!(dig("nonterminal.lab.test", "A")?.contains("NOERROR"));
    }
    drop(upstream);
    let bind = || UdpSocket::bind((UPSTREAM_V4, 53)).is_ok();
    wait_until("the port is free", TIMEOUT, || lab.upstream.run(bind))?;
    Ok(())
}

#[test]
fn named_lab_is_found_by_ip_and_leaves_nothing() -> Result<()> {
    if !root_or_skip("named_lab_is_found_by_ip_and_leaves_nothing") {
        return Ok(());
    }
    let prefix = format!("xdnsd-test-{}", std::process::id());
    let lab = NamedLab::up(&prefix, &Spec::default(), Lifetime::ThisProcess)?;
    let client = named::namespace_name(&prefix, Host::Client);
    let route = Command::new("ip")
        .args(["netns", "exec", &client, "ip", "route", "get", "10.54.0.2"])
        .output()?;
    assert!(String::from_utf8(route.stdout)?.contains("via 10.53.0.1 dev eth0"));
    assert!(named::all()?.contains(&prefix));
    let again = NamedLab::up(&prefix, &Spec::default(), Lifetime::ThisProcess)
        .expect_err("it is up already");
    assert!(again.to_string().contains("is up already"), "{again}");
    cross(&lab.lab().client, &lab.lab().router, LAN_V4)?;
    drop(lab);
    assert!(!named::all()?.contains(&prefix));
    assert!(
        Host::ALL
            .into_iter()
            .all(|host| !Namespace::exists(&named::namespace_name(&prefix, host)))
    );
    named::down(&prefix).expect_err("nothing is left to take down");
    Ok(())
}

#[test]
fn lab_of_a_killed_process_is_replaced() -> Result<()> {
    if !root_or_skip("lab_of_a_killed_process_is_replaced") {
        return Ok(());
    }
    let prefix = format!("xdnsd-killed-{}", std::process::id());
    let lab = NamedLab::up(&prefix, &Spec::default(), Lifetime::ThisProcess)?;
    let path = format!("/run/xdnsd-labs/{prefix}");
    // A killed owner leaves the names, and a file with a PID that is gone.
    std::mem::forget(lab);
    NamedLab::up(&prefix, &Spec::default(), Lifetime::ThisProcess).expect_err("its owner lives");
    std::fs::write(&path, format!("{} 1", std::process::id()))?;
    let lab = NamedLab::up(&prefix, &Spec::default(), Lifetime::ThisProcess)?;
    cross(&lab.lab().client, &lab.lab().router, LAN_V4)?;
    drop(lab);
    assert!(!std::path::Path::new(&path).exists());
    Ok(())
}

#[test]
fn foreign_namespaces_are_left_alone() -> Result<()> {
    if !root_or_skip("foreign_namespaces_are_left_alone") {
        return Ok(());
    }
    let prefix = format!("xdnsd-foreign-{}", std::process::id());
    let name = named::namespace_name(&prefix, Host::Router);
    Namespace::named(&name)?;
    NamedLab::up(&prefix, &Spec::default(), Lifetime::ThisProcess).expect_err("that name is taken");
    named::down(&prefix).expect_err("not ours");
    assert!(Namespace::exists(&name));
    Namespace::delete(&name)
}

#[test]
fn process_is_killed_with_its_guard() -> Result<()> {
    let directory = directory("process")?;
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; exec sleep 1000"]);
    let mut process = Process::spawn(command, &directory.join("log"))?;
    let log = directory.join("log");
    process.wait_until("it says ready", TIMEOUT, || {
        std::fs::read_to_string(&log).is_ok_and(|text| text == "ready\n")
    })?;
    let proc = PathBuf::from(format!("/proc/{}", process.pid()));
    assert!(proc.exists());
    drop(process);
    assert!(!proc.exists());
    Ok(())
}

#[test]
fn process_that_exits_early_ends_the_wait() -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "echo cannot bind; exit 3"]);
    let mut process = Process::spawn(command, &directory("early")?.join("log"))?;
    let error = process
        .wait_until("it answers", Duration::from_secs(60), || false)
        .expect_err("it never answers");
    assert!(error.to_string().contains("cannot bind"), "{error}");
    assert_eq!(process.wait_exit(TIMEOUT)?.code(), Some(3));
    wait_until("the sky falls", Duration::from_millis(20), || false).expect_err("it does not");
    Ok(())
}

fn directory(name: &str) -> Result<PathBuf> {
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}
