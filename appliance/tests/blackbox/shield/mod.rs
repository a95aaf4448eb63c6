//! SYN cookies by the XDP program: real clients get through, floods do not, and the kernel's setting is restored.

mod clients;
mod flood;
mod log;
mod operate;
mod options;
pub mod protect;
mod settings;
mod stray;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use smoltcp::wire::{EthernetFrame, Ipv4Packet, TcpPacket};
use xdnsd_abi::Reason;
use xdnsd_lab::bpf::{Link, attach_pass};
use xdnsd_lab::frames::FrameSocket;
use xdnsd_lab::lab::{
    CLIENT_V4, CLIENT_V6, HOST_INTERFACE, LAN, LAN_V4, LAN_V6, UPSTREAM_V4, UPSTREAM_V6,
};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient, listen};
use crate::support::daemon::{BINARY, Daemon};
use crate::support::message::{addresses, query, read_answer, wire};
use crate::support::metrics::Metric;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;

use options::Shown;

const SYSCTL: &str = "/proc/sys/net/ipv4/tcp_syncookies";
const TIMESTAMPS: &str = "/proc/sys/net/ipv4/tcp_timestamps";
/// Another guarded port of the router; below, one that is not guarded.
const GUARDED: u16 = 2222;
const UNGUARDED: u16 = 2223;
/// Flag of TCP.
const ACK: u8 = 0x10;

/// A setup of the section with these lines.
fn setup(lines: &str) -> Setup {
    let section = format!(
        "[shield]\nstate_file = \"{{directory}}/syncookies\"\nports = [{GUARDED}]\n{lines}\n"
    );
    Setup::default().sections(&section)
}

fn always() -> Setup {
    setup("syn_cookies = \"always\"")
}

/// Metric: whether cookies are given, and if not, why not.
#[derive(Debug)]
struct Given(&'static str);

impl Metric for Given {
    fn family(&self) -> String {
        "xdnsd_syn_cookies".to_owned()
    }

    fn label(&self) -> String {
        match self.0 {
            "" => String::new(),
            reason => format!("reason=\"{reason}\""),
        }
    }
}

/// Waits until cookies are given, or are not given for this reason.
pub fn wait_state(daemon: &Daemon, reason: &'static str) -> Result<()> {
    let expected = Some(u64::from(reason.is_empty()));
    wait_until(&format!("syn_cookies: {reason:?}"), TIMEOUT, || {
        daemon
            .metrics()
            .is_ok_and(|metrics| metrics.get(&Given(reason)) == expected)
    })
}

/// On a veth pair frames that XDP sends arrive only if there is a program at the other end as well.
pub fn with_program(host: &Namespace) -> Result<Link> {
    with_program_on(host, HOST_INTERFACE)
}

/// The same at another interface.
pub fn with_program_on(host: &Namespace, interface: &str) -> Result<Link> {
    attach_pass(host, interface).context("a program at the other end of the pair")
}

/// Counter of the router's kernel with this name: of the protocol, or of Linux' extensions.
fn counted(scene: &Scene, name: &str) -> Result<u64> {
    for file in ["netstat", "snmp"] {
        let text = scene
            .lab
            .router
            .read(&format!("/proc/thread-self/net/{file}"))?;
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks(2) {
            let [names, numbers] = pair else { continue };
            if !names.starts_with("Tcp") {
                continue;
            }
            let mut both = names.split(' ').zip(numbers.split(' '));
            if let Some((_, number)) = both.find(|(known, _)| *known == name) {
                return Ok(number.parse()?);
            }
        }
    }
    anyhow::bail!("no counter {name}")
}

fn sysctl(scene: &Scene) -> Result<String> {
    setting(scene, SYSCTL)
}

fn setting(scene: &Scene, path: &str) -> Result<String> {
    Ok(scene.lab.router.read(path)?.trim().to_owned())
}

pub fn state_file(scene: &Scene) -> PathBuf {
    scene.directory.path().join("syncookies")
}

fn prepare(scene: &Scene) {
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule);
}

/// Asks over a new connection.
fn ask_over_tcp(scene: &Scene, family: Family) -> Result<Stream> {
    let mut stream = Stream::open(&scene.lab, family)?;
    let query = wire(&query("www.test.", RecordType::A));
    for _ in 0..2 {
        let answer = read_answer(&query, &stream.exchange(&query)?)?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
    Ok(stream)
}

/// A SYN with any source, in a frame of the client's.
fn syn(client: &RawClient, source: SocketAddr, destination: SocketAddr) -> Result<Vec<u8>> {
    let frame = client.frame(destination, &[])?;
    let mut bytes = [frame.destination_mac, frame.source_mac].concat();
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend([0x08, 0, 0x45, 0, 0, 44, 0, 1, 0x40, 0, 61, 6, 0, 0]);
            bytes.extend([source.octets(), destination.octets()].concat());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 6, 61]);
            bytes.extend([source.octets(), destination.octets()].concat());
        }
        families => anyhow::bail!("two families: {families:?}"),
    }
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend([
        0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0x60, 0x02, 0xfa, 0xf0, 0, 0, 0, 0,
    ]);
    bytes.extend([2, 4, 0x05, 0xb4]);
    seal(&mut bytes, source, destination);
    Ok(bytes)
}

/// Corrects the checksums.
fn seal(frame: &mut [u8], source: SocketAddr, destination: SocketAddr) {
    let header = match source.is_ipv4() {
        true => 20,
        false => 40,
    };
    if source.is_ipv4() {
        Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    }
    let (from, to) = (source.ip().into(), destination.ip().into());
    TcpPacket::new_unchecked(&mut frame[14 + header..]).fill_checksum(&from, &to);
}

/// Cookie in the answer to a SYN from this port.
fn cookie(client: &RawClient, source: SocketAddr, server: SocketAddr) -> Result<u32> {
    client.send(&syn(client, source, server)?)?;
    let is_answer = |bytes: &[u8]| {
        let frame = EthernetFrame::new_checked(bytes).ok();
        let packet = frame.and_then(|frame| Ipv4Packet::new_checked(frame.payload()).ok());
        packet.is_some_and(|packet| {
            let segment = TcpPacket::new_checked(packet.payload());
            segment.is_ok_and(|segment| segment.syn() && segment.dst_port() == source.port())
        })
    };
    let answer = client.next_frame(TIMEOUT, is_answer)?.context("a cookie")?;
    let number = TcpPacket::new_checked(&answer[34..])?.seq_number();
    Ok(number.0 as u32)
}

/// Segment that returns a cookie.
fn proof(
    client: &RawClient,
    source: SocketAddr,
    server: SocketAddr,
    cookie: u32,
) -> Result<Vec<u8>> {
    let mut frame = syn(client, source, server)?;
    let number = u32::from_be_bytes([0x11, 0x22, 0x33, 0x45]);
    frame[38..42].copy_from_slice(&number.to_be_bytes());
    frame[42..46].copy_from_slice(&cookie.wrapping_add(1).to_be_bytes());
    frame[47] = ACK;
    // Without the option.
    frame.truncate(54);
    frame[46] = 0x50;
    frame[16..18].copy_from_slice(&40_u16.to_be_bytes());
    seal(&mut frame, source, server);
    Ok(frame)
}

/// A SYN from a host that does not exist, another one for each number.
fn forged(client: &RawClient, number: u32) -> Result<Vec<u8>> {
    let [_, b, c, d] = number.to_be_bytes();
    let port = 1024 + (number % 50_000) as u16;
    if number.is_multiple_of(2) {
        let source = Ipv4Addr::new(100, 64 | b & 0x3f, c, d);
        return syn(client, (source, port).into(), listen(Family::V4));
    }
    let source = Ipv6Addr::new(
        0x2001,
        0xdb8,
        0,
        0,
        0,
        0,
        u16::from(b),
        u16::from_be_bytes([c, d]),
    );
    syn(client, (source, port).into(), listen(Family::V6))
}

#[test]
fn a_connection_begins_with_a_cookie_and_is_an_ordinary_one() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    assert_eq!(sysctl(&scene)?, "2");
    let before = scene.daemon.metrics()?;
    let received = counted(&scene, "SyncookiesRecv")?;
    let mut open = Vec::new();
    for family in Family::ALL {
        for _ in 0..3 {
            open.push(ask_over_tcp(&scene, family)?);
        }
    }
    scene.daemon.wait_growth(
        &before,
        &[(&Reason::SynCookie, 6), (&Reason::PassNoCookie, 0)],
    )?;
    assert_eq!(counted(&scene, "SyncookiesRecv")? - received, 6);
    assert_eq!(
        counted(&scene, "SyncookiesSent")?,
        0,
        "the kernel answered none"
    );
    // Minus the timestamp in each segment.
    let shown = Shown::of(&scene, 6)?;
    shown.expect(&["ts sack ", " mss:1448 "], 3);
    shown.expect(&["ts sack ", " mss:1428 "], 3);
    assert_eq!(setting(&scene, TIMESTAMPS)?, "2");
    Ok(())
}

#[test]
fn ports_of_the_routers_own_hide_behind_it_and_others_do_not() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let listeners = [GUARDED, UNGUARDED].map(|port| {
        let listener = scene
            .lab
            .router
            .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
        listener.expect("the port is free")
    });
    let servers = listeners.map(|listener| {
        std::thread::spawn(move || -> std::io::Result<()> {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept()?;
                let mut bytes = [0; 2];
                stream.read_exact(&mut bytes)?;
                stream.write_all(&[&[0, 5][..], b"hello"].concat())?;
            }
            Ok(())
        })
    });
    let hello = |port: u16| -> Result<()> {
        for address in [IpAddr::from(LAN_V4), IpAddr::from(LAN_V6)] {
            let mut stream = Stream::open_to(&scene.lab, SocketAddr::new(address, port))?;
            stream.write(b"hi")?;
            assert_eq!(stream.receive()?, b"hello");
        }
        Ok(())
    };
    let before = scene.daemon.metrics()?;
    hello(GUARDED)?;
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::SynCookie, 2)])?;
    hello(UNGUARDED)?;
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::SynCookie, 2)])?;
    for server in servers {
        server.join().expect("it only serves")?;
    }
    // Without a listener the kernel says so.
    assert!(Stream::open_to(&scene.lab, (LAN_V4, GUARDED).into()).is_err());
    scene.daemon.wait_growth(
        &before,
        &[(&Reason::SynCookie, 2), (&Reason::PassNoCookie, 1)],
    )
}

/// A listener without an address would match any: connections of the router's other clients would be taken over.
#[test]
fn connections_to_others_are_left_alone() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always().on_all_addresses());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let port = GUARDED;
    let _ours = scene
        .lab
        .router
        .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
    let _theirs = scene
        .lab
        .upstream
        .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
    let before = scene.daemon.metrics()?;
    for server in [IpAddr::from(UPSTREAM_V4), IpAddr::from(UPSTREAM_V6)] {
        for port in [port, 53] {
            drop(Stream::open_to(&scene.lab, SocketAddr::new(server, port))?);
        }
    }
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::SynCookie, 0), (&Reason::PassSyn, 0)])
}

#[test]
fn off_means_untouched() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(setup(""));
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "off")?;
    let (before, setting) = (scene.daemon.metrics()?, sysctl(&scene)?);
    assert_eq!(setting, "1", "the kernel's default");
    for family in Family::ALL {
        ask_over_tcp(&scene, family)?;
    }
    let seen = [
        Reason::SynCookie,
        Reason::PassSyn,
        Reason::PassNoCookie,
        Reason::PassTcpChecksum,
        Reason::PassSynLength,
    ];
    let none: Vec<(&dyn Metric, u64)> = seen.iter().map(|reason| (reason as _, 0)).collect();
    scene.daemon.wait_growth(&before, &none)?;
    assert_eq!(counted(&scene, "SyncookiesRecv")?, 0);
    assert_eq!(sysctl(&scene)?, setting);
    assert!(!state_file(&scene).exists());
    assert!(
        !scene.daemon.log().contains("syncookies"),
        "{}",
        scene.daemon.log()
    );
    Ok(())
}

#[test]
fn a_flood_of_forged_syns_leaves_the_stack_alone_and_clients_get_through() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    const FORGED: u32 = 20_000;
    let scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let client = scene.raw_client()?;
    // Work of the stack for connections without a flood.
    let all = [
        "InSegs",
        "PassiveOpens",
        "ListenDrops",
        "ListenOverflows",
        "SyncookiesSent",
        "OutRsts",
    ];
    let counts = || -> Result<Vec<u64>> { all.iter().map(|name| counted(&scene, name)).collect() };
    let (before, start) = (scene.daemon.metrics()?, counts()?);
    // All that comes by the stack's first hook: what tcpdump shows.
    let stack = FrameSocket::open(&scene.lab.router, LAN)?;
    let mut connections = 0;
    for number in 0..FORGED {
        client.send(&forged(&client, number)?)?;
        if number % 2_000 == 1_000 {
            let family = Family::ALL[connections % 2];
            drop(ask_over_tcp(&scene, family)?);
            connections += 1;
        }
    }
    let now = scene.daemon.metrics()?;
    let answered = now.growth(&before, &Reason::SynCookie);
    assert!(answered >= u64::from(FORGED), "{answered}");
    let end = counts()?;
    let grown: Vec<u64> = start
        .iter()
        .zip(&end)
        .map(|(start, end)| end - start)
        .collect();
    // A connection has some ten segments, and none of them is a SYN.
    let connections = connections as u64;
    assert!(grown[0] < connections * 20, "segments: {grown:?}");
    assert_eq!(grown[1], connections, "connections: {grown:?}");
    assert_eq!(
        grown[2..5],
        [0; 3],
        "drops, overflows, the kernel's cookies: {grown:?}"
    );
    let waiting = scene
        .lab
        .router
        .output(&["ss", "-tnH", "state", "syn-recv"])?;
    assert_eq!(waiting, "", "no connection request is kept");
    let mut heard = 0;
    let forged = stack.receive(Duration::from_millis(100), |frame| {
        heard += 1;
        matches!(
            (&frame[12..14], &frame[22..]),
            ([0x08, 0x00], [_, _, _, _, 100, ..]) | ([0x86, 0xdd], [0x20, 0x01, 0x0d, 0xb9, ..])
        )
    })?;
    assert_eq!(forged, None, "a forged SYN came to the stack");
    assert!(heard > 0, "connections do");
    Ok(())
}

/// Sends forged SYNs, up to a maximum, until `is_enough`.
fn flood_until(scene: &Scene, is_enough: impl Fn() -> bool) -> Result<()> {
    const MOST: u32 = 300;
    let client = scene.raw_client()?;
    for round in 0..MOST {
        if is_enough() {
            return Ok(());
        }
        for number in 0..100 {
            client.send(&forged(&client, round * 100 + number)?)?;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("not enough after {MOST} rounds")
}

#[test]
fn auto_begins_with_a_flood_and_ends_when_it_is_calm() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(setup(
        "syn_cookies = \"auto\"\nsyn_threshold = 100\ncalm_secs = 2"
    ));
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "calm")?;
    assert_eq!(sysctl(&scene)?, "1");
    let before = scene.daemon.metrics()?;
    // Completed connections are no flood, however many there are: for some looks, as fast as they come.
    let start = Instant::now();
    let mut connections = 0;
    while start.elapsed() < Duration::from_millis(3_500) {
        drop(Stream::open(&scene.lab, Family::V4)?);
        connections += 1;
    }
    let now = scene.daemon.metrics()?;
    ensure!(now.growth(&before, &Reason::PassSyn) >= connections);
    assert_eq!(now.growth(&before, &Reason::SynCookie), 0);
    assert!(
        !scene.daemon.log().contains("SYNs a second"),
        "{connections} in 3.5 s"
    );
    for turn in 1..3 {
        flood_until(&scene, || {
            scene
                .daemon
                .metrics()
                .is_ok_and(|metrics| metrics.get(&Given("")) == Some(1))
        })?;
        assert_eq!(sysctl(&scene)?, "2");
        scene
            .daemon
            .wait_log_count("uncompleted SYNs a second", turn)?;
        let before = scene.daemon.metrics()?;
        for family in Family::ALL {
            drop(ask_over_tcp(&scene, family)?);
        }
        ensure!(scene.daemon.metrics()?.growth(&before, &Reason::SynCookie) >= 2);
        wait_state(&scene.daemon, "calm")?;
        scene.daemon.wait_log_count("it is calm again", turn)?;
        wait_until("it is put back", TIMEOUT, || {
            sysctl(&scene).is_ok_and(|value| value == "1")
        })?;
    }
    Ok(())
}

/// Without a program at its other end a veth pair loses what XDP sends: clients do not wait for that.
#[test]
fn where_answers_go_nowhere_the_kernel_answers() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always());
    prepare(&scene);
    wait_state(&scene.daemon, "answers_lost")?;
    scene.daemon.wait_log_count("answers do not leave", 1)?;
    for family in Family::ALL {
        drop(ask_over_tcp(&scene, family)?);
    }
    assert_eq!(sysctl(&scene)?, "1", "the kernel needs nothing");
    let metrics = scene.daemon.metrics()?;
    assert_eq!(metrics.get(&Reason::SynCookie), Some(0));
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    scene.daemon.wait_log_count("answers leave again", 1)?;
    let before = scene.daemon.metrics()?;
    for family in Family::ALL {
        drop(ask_over_tcp(&scene, family)?);
    }
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::SynCookie, 2)])
}

/// Generic XDP sends like the device itself: no program is needed at the other end.
#[test]
fn generic_mode_gives_cookies_too() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always().xdp("generic"));
    prepare(&scene);
    wait_state(&scene.daemon, "")?;
    let before = scene.daemon.metrics()?;
    for family in Family::ALL {
        drop(ask_over_tcp(&scene, family)?);
    }
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::SynCookie, 2)])
}

/// The server with /proc/sys mounted read-only, as by systemd for the unit, except for what `more` mounts.
fn behind_mounts(scene: &Scene, more: &str) -> Result<Daemon> {
    let config = scene.directory.path().join("config.toml");
    let script = format!(
        "mount --bind /proc/sys /proc/sys && {more} && mount -o remount,bind,ro /proc/sys && exec {BINARY} run {}",
        config.display()
    );
    let mut command = scene.lab.router.command("sh");
    command.args(["-c", &script]);
    Daemon::start_command(command, &config, &scene.directory.path().join("sock"))
}

#[test]
fn a_setting_that_cannot_be_had_is_refused_with_the_reason() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let mut scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    scene.daemon.terminate()?;
    let mut daemon = behind_mounts(&scene, "true")?;
    wait_state(&daemon, "sysctl")?;
    daemon.wait_log_count("no SYN cookies, the kernel answers SYNs", 1)?;
    let log = daemon.log();
    assert!(
        log.contains("needs ReadWritePaths=/proc/sys/net/ipv4/tcp_syncookies"),
        "{log}"
    );
    let before = daemon.metrics()?;
    drop(ask_over_tcp(&scene, Family::V4)?);
    daemon.wait_growth(&before, &[(&Reason::PassSyn, 1), (&Reason::SynCookie, 0)])?;
    assert_eq!(sysctl(&scene)?, "1");
    daemon.terminate()?;
    // As by ReadWritePaths= of the unit.
    let daemon = behind_mounts(&scene, &format!("mount --bind {SYSCTL} {SYSCTL}"))?;
    wait_state(&daemon, "")?;
    assert_eq!(sysctl(&scene)?, "2");
    // Only that one: no options then.
    daemon.wait_log_count("SYN cookies keep an MSS and no other option", 1)?;
    let _open = ask_over_tcp(&scene, Family::V4)?;
    Shown::of(&scene, 1)?.expect(&[" mss:1460 "], 1);
    Ok(())
}

#[test]
fn a_syn_within_a_connection_is_the_kernels_business() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    for (address, port) in [
        (IpAddr::from(CLIENT_V4), 40_001),
        (IpAddr::from(CLIENT_V6), 40_002),
    ] {
        let before = scene.daemon.metrics()?;
        let mut first = Stream::open_from(&scene.lab, address, port)?;
        // A SYN within a connection (RFC 5961 section 4): the kernel challenges it, and the connection goes on.
        let client = scene.raw_client()?;
        let server = listen(Family::of_address(address));
        client.send(&syn(&client, SocketAddr::new(address, port), server)?)?;
        scene.daemon.wait_growth(
            &before,
            &[(&Reason::SynCookie, 1), (&Reason::PassNoCookie, 1)],
        )?;
        let query = wire(&query("www.test.", RecordType::A));
        read_answer(&query, &first.exchange(&query)?)?;
    }
    Ok(())
}
