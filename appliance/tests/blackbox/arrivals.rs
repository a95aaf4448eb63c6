//! Items of the config that are missing: each is reported, the rest is served, and each is served when it comes.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
#[cfg(not(feature = "afxdp"))]
use xdnsd::os::xsk::{BindMode, Opener, Options};
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_core::dns::rtype;
use xdnsd_core::limits;
use xdnsd_lab::bpf::{Attach, Program};
use xdnsd_lab::lab::{LAN, LAN_V4};
use xdnsd_lab::wait::wait_until;

use crate::support::ask::Ask;
use crate::support::client::{DNS_PORT, UdpClient};
use crate::support::daemon::{BINARY, Daemon, run};
use crate::support::message::{addresses, query, wire};
use crate::support::run::{Run, only};
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;
use crate::support::view::View;
use crate::support::{ANSWER_TIMEOUT, TIMEOUT};

/// Maximum number of sockets: the other backend has one for each worker.
const SOCKETS: usize = if cfg!(feature = "afxdp") {
    limits::WORKERS
} else {
    limits::SOCKETS
};
/// An address that the router gets later.
const LATE: &str = "10.53.0.99";
/// Another network that the router gets later, with its interface.
const OTHER: &str = "10.55.0.1";

fn at(address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse()?, DNS_PORT))
}

/// Asks over UDP and TCP.
fn ask_at(scene: &Scene, address: &str) -> Result<()> {
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = UdpClient::open_to(&scene.lab, at(address)?)?;
    let answer = client.ask(&query("www.test.", RecordType::A))?;
    ensure!(addresses(&answer) == ["192.0.2.1"]);
    let message = Ask::of("www.test.", rtype::A).bytes();
    let reply = Stream::open_to(&scene.lab, at(address)?)?.exchange(&message)?;
    ensure!(View::parse(&reply)?.data(rtype::A).len() == 1);
    Ok(())
}

/// Makes the link `name` between router and client, with the addresses of another network.
pub fn plug(scene: &Scene, name: &str, queues: u32) -> Result<()> {
    let (client, router) = (&scene.lab.client, &scene.lab.router);
    router.ip(&format!(
        "link add name {name} numrxqueues {queues} numtxqueues {queues} type veth peer name late0 numrxqueues {queues} numtxqueues {queues} netns {}
         link set {name} up
         address add {OTHER}/24 dev {name}\n",
        client.path()
    ))?;
    client.ip("link set late0 up\naddress add 10.55.0.2/24 dev late0\n")?;
    client.output(&["ethtool", "-K", "late0", "tx", "off"])?;
    router.output(&["ethtool", "-K", name, "tx", "off"])?;
    Ok(())
}

/// `ethtool -L` has no notification; queues that had sockets before get smaller rings; and the places of an interface that goes
/// are free for another one's queues.
#[test]
fn an_rx_queue_gets_a_socket_when_it_is_made_and_when_there_is_a_place() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let scene = scene!(Setup::default().sections("[[interface]]\nname = \"lan9\"\n"));
    let (client, router) = (&scene.lab.client, &scene.lab.router);
    let queues = u32::try_from(SOCKETS)?;
    plug(&scene, "lan8", queues)?;
    client.output(&["ethtool", "-L", "late0", "tx", "1"])?;
    router.output(&["ethtool", "-L", "lan8", "rx", "1", "tx", "1"])?;
    router.ip("link set lan8 down\nlink set lan8 name lan9\nlink set lan9 up\n")?;
    let wait = |text: &str| scene.daemon.wait_log_count(&format!("lan9{text}"), 1);
    wait(" queue 0: AF_XDP socket")?;
    let queues = queues.to_string();
    router.output(&["ethtool", "-L", "lan9", "rx", &queues, "tx", &queues])?;
    wait(" queue 1: AF_XDP socket")?;
    wait(&format!(": 1 of {queues} RX queues have no socket"))?;
    ask_at(&scene, OTHER)?;
    scene.unplug()?;
    wait(&format!(" queue {}: AF_XDP socket", SOCKETS - 1))
}

#[test]
fn an_interface_that_is_not_there_keeps_no_other_from_its_service_and_is_served_when_it_comes()
-> Result<()> {
    only!(
        IN_DATAGRAMS,
        "it waits for AF_XDP on an interface that says so"
    );
    let scene = scene!(
        Setup::three_ways()
            .on_all_addresses()
            .sections("[[interface]]\nname = \"lan9\"\nxdp = \"native\"\n")
    );
    let log = scene.daemon.log();
    ensure!(log.contains("no interface lan9 on this machine"), "{log}");
    // What is there is served in every way while the other is missing, also an address that comes now.
    wait_for_answer(&scene, &LAN_V4.to_string())?;
    let router = &scene.lab.router;
    router.ip(&format!("address add {LATE}/24 dev {LAN}\n"))?;
    wait_until("kernel sockets serve the new address", TIMEOUT, || {
        ask_at(&scene, LATE).is_ok()
    })?;
    for round in 1..=2 {
        plug(&scene, "lan9", 2)?;
        scene
            .daemon
            .wait_log_count("lan9 queue 1: AF_XDP socket", round)?;
        if round == 1 {
            scene
                .daemon
                .wait_log_count(&format!("listening on {OTHER}:53, too"), 1)?;
        }
        wait_until("it answers over AF_XDP", TIMEOUT, || {
            let before = scene.daemon.metrics();
            let asked = ask_at(&scene, OTHER);
            let now = scene.daemon.metrics();
            let grew = before.and_then(|before| Ok(now?.growth(&before, &Counter::AnswersXdp)));
            asked.is_ok() && grew.is_ok_and(|grew| grew > 0)
        })?;
        ask_at(&scene, &LAN_V4.to_string())?;
        scene.lab.router.ip("link delete lan9\n")?;
        scene
            .daemon
            .wait_log_count("lan9: the interface is gone", round)?;
        ask_at(&scene, &LAN_V4.to_string())?;
    }
    let stats = scene.daemon.control("stats")?;
    ensure!(stats.contains("interface=\"lan9\",queue=\"1\""), "{stats}");
    Ok(())
}

#[test]
fn an_address_that_is_not_there_is_said_once_and_served_when_it_comes() -> Result<()> {
    let setup = Setup {
        listen: format!("listen = [\"{LATE}\", \"{LAN_V4}\"]"),
        ..Setup::three_ways()
    };
    let scene = scene!(setup);
    ask_at(&scene, &LAN_V4.to_string())?;
    let router = &scene.lab.router;
    router.ip(&format!("address add {LATE}/24 dev {LAN}\n"))?;
    scene
        .daemon
        .wait_log_count(&format!("listening on {LATE}:53, too"), 1)?;
    ask_at(&scene, LATE)?;
    ensure!(scene.daemon.log().matches("is not an address of").count() == 1);
    // A removed address is not answered.
    router.ip(&format!("address delete {LATE}/24 dev {LAN}\n"))?;
    scene.daemon.wait_log_count("is not an address of", 2)?;
    ask_at(&scene, &LAN_V4.to_string())
}

/// The main thread reports that it lives once a second, and looks after interfaces as often even without a change. Waiting for
/// that would be too slow for more addresses, one after the other.
#[test]
fn an_address_that_comes_is_served_at_once() -> Result<()> {
    const COUNT: usize = 12;
    let mut scene = scene!(Setup::three_ways().on_all_addresses());
    let folder = scene.directory.path();
    let manager = UnixDatagram::bind(folder.join("notify"))?;
    manager.set_nonblocking(true)?;
    scene.daemon.terminate()?;
    let config = folder.join("config.toml");
    let mut command = scene.lab.router.command(BINARY);
    command.arg("run").arg(&config);
    command.env("NOTIFY_SOCKET", folder.join("notify"));
    scene.daemon = Daemon::start_command(command, &config, &folder.join("sock"))?;
    let beats = || {
        let told = std::iter::from_fn(|| {
            let mut room = [0; 256];
            let len = manager.recv(&mut room).ok()?;
            Some(room[..len] == *b"WATCHDOG=1")
        });
        told.filter(|is_beat| *is_beat).count()
    };
    wait_until("it tells that it lives", TIMEOUT, || beats() > 0)?;
    let mut meanwhile = 0;
    for last in 100..100 + COUNT {
        let address = format!("10.53.0.{last}");
        let added = format!("address add {address}/24 dev {LAN}\n");
        scene.lab.router.ip(&added)?;
        let said = format!("listening on {address}:53, too");
        scene.daemon.wait_log_count(&said, 1)?;
        meanwhile += beats();
    }
    ensure!(
        meanwhile < COUNT / 2,
        "{COUNT} addresses, {meanwhile} beats"
    );
    wait_for_answer(&scene, "10.53.0.100")
}

/// Waits until a query to `address` is answered by the way of this run.
fn wait_for_answer(scene: &Scene, address: &str) -> Result<()> {
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = UdpClient::open_to(&scene.lab, at(address)?)?;
    wait_until(&format!("{address} answers"), TIMEOUT, || {
        let before = scene.daemon.metrics();
        let answer = client.ask(&query("www.test.", RecordType::A));
        let now = scene.daemon.metrics();
        let answers = Run::this().answers();
        let grew = before.and_then(|before| Ok(now?.growth(&before, &answers)));
        answer.is_ok() && matches!(grew, Ok(1))
    })
}

/// Labels come from ifupdown and ifconfig, and from the kernel for all but the first address of a device that is renamed.
#[test]
fn an_address_with_a_label_is_its_interfaces() -> Result<()> {
    let setup = Setup {
        listen: format!("listen = [\"{LATE}\", \"{LAN_V4}\"]"),
        ..Setup::three_ways()
    };
    let scene = scene!(setup);
    let router = &scene.lab.router;
    router.ip(&format!("address add {LATE}/24 dev {LAN} label {LAN}:1\n"))?;
    wait_for_answer(&scene, LATE)?;
    // Renamed, and back: the kernel's labels.
    router.ip(&format!(
        "address delete {LATE}/24 dev {LAN}
         address add {LATE}/24 dev {LAN}
         link set {LAN} down
         link set {LAN} name other0
         link set other0 name {LAN}
         link set {LAN} up\n"
    ))?;
    let shown = router.output(&["ip", "-4", "address", "show", LAN])?;
    ensure!(shown.contains(&format!("{LAN}:")), "{shown}");
    wait_for_answer(&scene, LATE)?;
    ask_at(&scene, LATE)
}

/// An address that the router has lost is not answered over AF_XDP, however many there are.
#[test]
fn more_addresses_than_the_program_takes_are_the_kernels_and_a_lost_one_is_nobodys() -> Result<()> {
    only!(ONCE, "it says its own modes");
    const MANY: u32 = xdnsd_abi::LISTEN_MAX;
    let scene = scene!(Setup::three_ways().on_all_addresses());
    let router = &scene.lab.router;
    let change = |verb: &str, numbers: std::ops::Range<u32>| {
        let lines = numbers.map(|last| format!("address {verb} 10.53.0.{last}/24 dev {LAN}\n"));
        router.ip(&lines.collect::<String>())
    };
    let first = "10.53.0.10";
    change("add", 10..11)?;
    wait_for_answer(&scene, first)?;
    change("add", 11..10 + MANY)?;
    scene.daemon.wait_log_count(
        "over AF_XDP (memory.addresses); the kernel's sockets alone serve",
        1,
    )?;
    wait_for_answer(&scene, &LAN_V4.to_string())?;
    wait_for_answer(&scene, first)?;
    // Still too many without it.
    change("add", 10 + MANY..15 + MANY)?;
    change("delete", 10..11)?;
    let client = scene.raw_client()?;
    let frame = client.frame(at(first)?, &wire(&query("www.test.", RecordType::A)))?;
    wait_until("it is not ours any more", TIMEOUT, || {
        let before = scene.daemon.metrics();
        let sent = client.send(&frame.to_bytes());
        let is_silent = sent.and_then(|()| client.gets_nothing(&frame));
        let now = scene.daemon.metrics();
        let passed = before.and_then(|before| {
            let now = now?;
            let grew = |reason: Reason| now.growth(&before, &reason);
            Ok((grew(Reason::PassForeign), grew(Reason::Redirected)))
        });
        matches!(is_silent, Ok(true)) && matches!(passed, Ok((1.., 0)))
    })?;
    wait_for_answer(&scene, "10.53.0.11")
}

/// One of our sockets holds the queue when the interface gets its address, which is when it is served. The library under the
/// other backend would attach a program of its own with that socket, and this would be another test.
#[cfg(not(feature = "afxdp"))]
#[test]
fn a_queue_that_another_socket_holds_is_had_when_that_one_goes() -> Result<()> {
    let scene =
        scene!(Setup::three_ways().sections("[[interface]]\nname = \"lan9\"\nxdp = \"native\"\n"));
    let (client, router) = (&scene.lab.client, &scene.lab.router);
    router.ip(&format!(
        "link add name lan9 numrxqueues 2 numtxqueues 2 type veth peer name late0 numrxqueues 2 numtxqueues 2 netns {}
         link set lan9 addrgenmode none up\n",
        client.path()
    ))?;
    client.ip("link set late0 up\naddress add 10.55.0.2/24 dev late0\n")?;
    let (mut opener, _pool) = Opener::claim(0, 1).context("nobody else here has sockets")?;
    let options = Options {
        interface: "lan9",
        queue: 1,
        mode: BindMode::Copy,
    };
    let holder = router.run(|| opener.open(&options))?;
    router.ip(&format!("address add {OTHER}/24 dev lan9\n"))?;
    scene
        .daemon
        .wait_log_count("lan9 queue 0: AF_XDP socket", 1)?;
    scene
        .daemon
        .wait_log_count("lan9 queue 1 has no AF_XDP", 1)?;
    scene
        .daemon
        .wait_log_count(&format!("listening on {OTHER}:53, too"), 1)?;
    // Its network is let in first, unless that takes long.
    wait_until("it is answered", TIMEOUT, || ask_at(&scene, OTHER).is_ok())?;
    // The retry failed; the log has said it once.
    drop(holder);
    scene
        .daemon
        .wait_log_count("lan9 queue 1: AF_XDP socket", 1)?;
    let log = scene.daemon.log();
    ensure!(log.matches("has no AF_XDP").count() == 1, "{log}");
    ensure!(
        log.matches("lan9: XDP program attached").count() == 1,
        "{log}"
    );
    ask_at(&scene, OTHER)
}

/// The program of another process, in either mode, when the interface gets its address.
#[test]
fn an_interface_with_another_program_is_had_when_that_one_goes() -> Result<()> {
    let scene =
        scene!(Setup::three_ways().sections("[[interface]]\nname = \"lan9\"\nxdp = \"native\"\n"));
    let (client, router) = (&scene.lab.client, &scene.lab.router);
    router.ip(&format!(
        "link add name lan9 type veth peer name late0 netns {}
         link set lan9 addrgenmode none up\n",
        client.path()
    ))?;
    client.ip("link set late0 up\naddress add 10.55.0.2/24 dev late0\n")?;
    for (round, attach) in [(1, Attach::Native), (2, Attach::Generic)] {
        let other = router.run(|| {
            let index = nix::net::if_::if_nametoindex("lan9")?;
            Program::pass()?.attach(index, attach)
        })?;
        router.ip(&format!("address add {OTHER}/24 dev lan9\n"))?;
        let refused = "lan9: no XDP, the kernel's sockets serve";
        scene.daemon.wait_log_count(refused, round)?;
        wait_until("it is served", TIMEOUT, || ask_at(&scene, OTHER).is_ok())?;
        drop(other);
        let attached = "lan9: XDP program attached";
        scene.daemon.wait_log_count(attached, round)?;
        ask_at(&scene, OTHER)?;
        ensure!(scene.daemon.log().matches(refused).count() == round);
        // Renamed, so that it is attached anew.
        router.ip("link set lan9 name away9\n")?;
        scene
            .daemon
            .wait_log_count("lan9: the interface is gone", round)?;
        router.ip(&format!(
            "address delete {OTHER}/24 dev away9\nlink set away9 down\nlink set away9 name lan9\nlink set lan9 up\n"
        ))?;
    }
    Ok(())
}

#[test]
fn the_loopback_device_has_no_program_unless_the_config_insists() -> Result<()> {
    for (line, is_attached) in [("", false), ("xdp = \"generic\"\n", true)] {
        let section = format!("[[interface]]\nname = \"lo\"\n{line}");
        let scene = scene!(Setup::three_ways().sections(&section));
        ask_at(&scene, &LAN_V4.to_string())?;
        let shown = scene.lab.router.output(&["ip", "link", "show", "lo"])?;
        ensure!(shown.contains("xdp") == is_attached, "{shown}");
        let log = scene.daemon.log();
        ensure!(
            log.contains("lo: XDP program attached") == is_attached,
            "{log}"
        );
        let server = SocketAddr::from(([127, 0, 0, 1], DNS_PORT));
        let socket = scene
            .lab
            .router
            .run(|| std::net::UdpSocket::bind("127.0.0.1:0"))?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        socket.send_to(&wire(&query("www.test.", RecordType::A)), server)?;
        socket
            .recv(&mut [0; 512])
            .context("the router itself asks")?;
    }
    Ok(())
}

#[test]
fn where_nothing_is_there_it_waits_and_says_that_it_is_not_ready() -> Result<()> {
    let setup = Setup {
        listen: format!("listen = [\"{LATE}\"]"),
        ..Setup::three_ways()
    };
    let scene = scene!(setup);
    scene.daemon.wait_log_count("not ready:", 1)?;
    ensure!(
        !scene.daemon.log().contains("] ready: "),
        "{}",
        scene.daemon.log()
    );
    scene
        .lab
        .router
        .ip(&format!("address add {LATE}/24 dev {LAN}\n"))?;
    scene.daemon.wait_log_count("] ready: 1 endpoint,", 1)?;
    // The policy thread tells workers about new neighbours a moment later.
    wait_until("it is served", TIMEOUT, || ask_at(&scene, LATE).is_ok())
}

#[test]
fn a_vlan_device_that_comes_late_is_served() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let scene = scene!(
        Setup::three_ways()
            .sections("[[interface]]\nname = \"lan0\"\nvlan = 55\nxdp = \"native\"\n")
    );
    ask_at(&scene, &LAN_V4.to_string())?;
    for (host, device, address) in [
        (&scene.lab.router, LAN, OTHER),
        (&scene.lab.client, "eth0", "10.55.0.2"),
    ] {
        let made = host.ip(&format!(
            "link add link {device} name late55 type vlan id 55
             link set late55 up
             address add {address}/24 dev late55\n"
        ));
        if let Err(error) = made {
            eprintln!("SKIPPED: no VLAN devices: {error:#}");
            return Ok(());
        }
    }
    scene
        .daemon
        .wait_log_count(&format!("listening on {OTHER}:53, too"), 1)?;
    ask_at(&scene, OTHER)
}

#[test]
fn a_server_behind_an_interface_that_is_not_there_keeps_no_other_from_being_asked() -> Result<()> {
    let servers = ["fe80::53%wan9", "10.54.0.2"];
    let scene = scene!(Setup::three_ways().servers(&servers));
    let log = scene.daemon.log();
    ensure!(
        log.contains("[fe80::53%wan9]:53: no such interface"),
        "{log}"
    );
    ask_at(&scene, &LAN_V4.to_string())
}

#[test]
fn an_address_that_another_server_has_is_taken_when_that_one_goes() -> Result<()> {
    let scene = scene!(Setup {
        listen: format!("listen = [\"{LAN_V4}\", \"{LATE}\"]"),
        ..Setup::three_ways()
    });
    let router = &scene.lab.router;
    router.ip(&format!("address add {LATE}/32 dev lo\n"))?;
    let other = router.run(|| std::net::TcpListener::bind((LATE, DNS_PORT)))?;
    router.ip(&format!(
        "address delete {LATE}/32 dev lo\naddress add {LATE}/24 dev {LAN}\n"
    ))?;
    scene.daemon.wait_log_count("Address already in use", 1)?;
    ask_at(&scene, &LAN_V4.to_string())?;
    drop(other);
    scene
        .daemon
        .wait_log_count(&format!("listening on {LATE}:53, too"), 1)?;
    ask_at(&scene, LATE)?;
    ensure!(scene.daemon.log().matches("Address already in use").count() == 1);
    Ok(())
}

#[test]
fn a_port_of_a_bridge_is_told_from_the_bridge() -> Result<()> {
    let scene = scene!(Setup::three_ways().sections("[[interface]]\nname = \"port9\"\n"));
    let router = &scene.lab.router;
    router.ip("link add name br9 type bridge
         link set br9 up
         address add 10.56.0.1/24 dev br9
         link add name port9 type veth peer name port8
         link set port9 master br9
         link set port9 up\n")?;
    scene
        .daemon
        .wait_log_count("port9 is a port of bridge br9", 1)?;
    let config = scene.directory.path().join("config.toml");
    let checked = run(Some(&scene.lab), &["check", &config.display().to_string()])?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    ensure!(
        !checked.status.success() && said.contains("port9 is a port of bridge br9"),
        "{said}"
    );
    ensure!(said.contains("allowed: br9"), "{said}");
    // One that leaves the bridge is served.
    router.ip("link set port9 nomaster\naddress add 10.57.0.1/24 dev port9\n")?;
    scene
        .daemon
        .wait_log_count("listening on 10.57.0.1:53, too", 1)?;
    // A VRF leaves the addresses on its ports.
    let vrf = "link add name vrf9 type vrf table 9\nlink set vrf9 up\nlink set port9 master vrf9\n";
    if router.ip(vrf).is_ok() {
        let checked = run(Some(&scene.lab), &["check", &config.display().to_string()])?;
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        ensure!(!said.contains("is a port of"), "{said}");
    }
    ask_at(&scene, &LAN_V4.to_string())
}

#[test]
fn a_control_socket_whose_folder_is_not_there_is_served_when_it_comes() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let folder = scene.directory.path();
    // A file in the place of the folder.
    let blocked = folder.join("blocked");
    fs::write(&blocked, "")?;
    let config = fs::read_to_string(folder.join("config.toml"))?;
    let config = config
        .replace("/sock\"", "/blocked/sock\"")
        .replace("port = 53", "");
    let config = config.replace("[[interface]]\n", "[[interface]]\nport = 5399\n");
    fs::write(folder.join("other.toml"), config)?;
    let log = folder.join("other.log");
    let mut command = scene.lab.router.command(BINARY);
    command.arg("run").arg(folder.join("other.toml"));
    let mut other = xdnsd_lab::process::Process::spawn(command, &log)?;
    other.wait_for_log("ready: 2 endpoints", TIMEOUT)?;
    let said = other.log();
    ensure!(
        said.contains("control socket: ") && said.contains("tried again"),
        "{said}"
    );
    fs::remove_file(&blocked)?;
    let socket = blocked.join("sock");
    let asked = || xdnsd::control::ask(&socket, "stats", &mut std::io::sink()).is_ok();
    wait_until("the control socket is served", TIMEOUT, asked)?;
    let status = other.terminate().context("SIGTERM")?;
    ensure!(status.success(), "{status}");
    Ok(())
}
