//! The image and its network device.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::bench::{Bench, Router, ask_once, check};
use crate::image::Arch;
use crate::qemu::cable::{Cable, DEVICE, SECOND};
use crate::qemu::machine::{GUEST, HOST};
use crate::qemu::run::{ANSWERED, FRAMES, HOT_NAMES, configuration};
use xdnsd_abi::checksum::Sum;
use xdnsd_lab::frames::{FrameSocket, parse_mac};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::output_of;

/// Questions from different ports, so that every queue gets some.
const QUESTIONS: u32 = 40;
/// Least length of a frame; shorter ones are padded.
const ETHERNET_MIN: usize = 60;
/// Question for the root's name servers. Its frame has 59 bytes, one less than Ethernet's minimum.
const ROOT: &[u8] = &[0, 0, 2, 0, 1];
/// Bytes of a datagram's first fragment, a multiple of 8, and the flag that more follow.
const FRAGMENT_LEN: usize = 16;
const MORE_FRAGMENTS: u16 = 0x2000;
/// Attempts for a question without an answer, and the time limit of each.
const TRIES: u32 = 5;
const REPLY_LIMIT: Duration = Duration::from_secs(4);
/// Queries in a second for a name to become hot: more than enough. A slow guest may need several attempts.
const HOT: u32 = 50;
const HOT_TRIES: u32 = 3;
/// Connections until one begins with a cookie.
const COOKIE_TRIES: u32 = 10;
/// How often a port goes.
const GOES: usize = 3;
const ANSWERED_XDP: &str = "xdnsd_answers_xdp_total";
const ANSWERED_UDP: &str = "xdnsd_answers_udp_total";
/// Capabilities of the server's account in `/proc/PID/status`: port 53, interfaces, raw sockets, locked memory, BPF.
const RIGHTS: &str = "000000c000007400";
/// Those that the first thread keeps: port 53, interfaces, raw sockets.
const FIRST_THREAD: &str = "0000000000003400";
/// The guest cannot switch off offloads that exclude XDP.
const NO_OFFLOAD_CONTROL: &str = ",ctrl_guest_offloads=off";
/// Allows the driver to share its buffers with AF_XDP, if the kernel supports it.
const ZERO_COPY: &str = ",disable-legacy=on,iommu_platform=on";

/// Behind [`HOT_NAMES`]: SYNs are answered by the XDP program.
const SYN_COOKIES: &str =
    "[shield]\nsyn_cookies = \"always\"\nstate_file = \"/data/xdnsd/syncookies\"\n";
const SYN_COOKIE: &str = "reason=\"syn_cookie\"";

/// Attached in the driver: AF_XDP answers a name, and the program itself answers one that is asked for often, and SYNs.
pub fn native(bench: &Bench) -> Result<()> {
    // An emulated aarch64 is slow enough without the programs for SYNs.
    let has_cookies = bench.image.arch == Arch::X86_64;
    let cookies = if has_cookies { SYN_COOKIES } else { "" };
    let config = bench.configuration("") + HOT_NAMES + cookies;
    let mut router = bench.router_with(&config, "")?;
    router.console_will_say("br-lan/eth0 queue 0: AF_XDP socket")?;
    router.console_will_say("br-lan: served by its ports: eth0 native; eth1 native")?;
    router.console_says("XDP program attached, mode native")?;
    is_answered_by_xdp(&mut router)?;
    is_answered_by_the_program(&mut router)?;
    has_few_rights(&mut router)?;
    if has_cookies {
        return begins_with_a_cookie(&mut router);
    }
    router.ask_tcp("over-tcp.test")
}

/// This kernel takes back what the program has given, as its own: the connection that comes of it is an ordinary one.
fn begins_with_a_cookie(router: &mut Router) -> Result<()> {
    // Whether answers leave is known a second after the start.
    for _ in 0..COOKIE_TRIES {
        router.ask_tcp("over-tcp.test")?;
        if router.guest.counter_with(FRAMES, SYN_COOKIE)? > 0 {
            break;
        }
    }
    let given = router.guest.counter_with(FRAMES, SYN_COOKIE)?;
    let netstat = router.guest.shell("cat /proc/net/netstat")?;
    let taken = tcp_counter(&netstat, "SyncookiesRecv");
    ensure!(
        given > 0 && taken.is_some_and(|taken| taken > 0),
        "{given} cookies of the program's, {taken:?} taken back. The console:\n{}",
        router.guest.console()
    );
    Ok(())
}

/// What a kernel counts under this name among the extensions of TCP: names and numbers stand in two lines.
fn tcp_counter(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut both = names.split_whitespace().zip(numbers.split_whitespace());
    both.find(|(known, _)| *known == name)?.1.parse().ok()
}

/// The server is no longer root, and neither it nor a program that it executes can become root again.
fn has_few_rights(router: &mut Router) -> Result<()> {
    let status = router
        .guest
        .shell("cat /proc/$(cat /run/xdnsd-server.pid)/status")?;
    let value = |key: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim))
    };
    ensure!(
        value("Uid").is_some_and(|ids| !ids.split_whitespace().any(|id| id == "0")),
        "{status}"
    );
    for (key, wanted) in [
        ("CapEff", FIRST_THREAD),
        ("CapPrm", FIRST_THREAD),
        ("CapBnd", RIGHTS),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Groups", ""),
    ] {
        ensure!(
            value(key) == Some(wanted),
            "{key} is not {wanted}: {status}"
        );
    }
    Ok(())
}

/// Attached in generic mode: the same.
pub fn generic(bench: &Bench) -> Result<()> {
    let config = bench.configuration("xdp = \"generic\"") + HOT_NAMES;
    let mut router = bench.router_with(&config, "")?;
    router.console_will_say("br-lan queue 0: AF_XDP socket")?;
    router.console_says("br-lan: XDP program attached, mode generic")?;
    is_answered_by_xdp(&mut router)?;
    is_answered_by_the_program(&mut router)
}

/// Switched off: the kernel's sockets answer everything.
pub fn off(bench: &Bench) -> Result<()> {
    let mut router = bench.router("xdp = \"off\"", "")?;
    is_answered_without_xdp(&mut router)
}

/// A driver refuses the program in native mode: the service comes up all the same. Only a tap device has offloads that can be
/// locked.
pub fn refused(bench: &Bench) -> Result<()> {
    let cable = Cable::new(false)?;
    let router = cable.router_with(bench, 1, NO_OFFLOAD_CONTROL)?;
    let console = router.guest.console();
    ensure!(
        !console.contains("br-lan/eth0: XDP program attached, mode native"),
        "the driver took the program:\n{console}"
    );
    for name in ["refused.test", "refused.test"] {
        check(name, &cable.dig(&["@192.168.1.1", name, "A"])?)?;
    }
    Ok(())
}

/// AF_XDP in zero-copy mode, found by trying.
pub fn zero_copy(bench: &Bench) -> Result<()> {
    let config = bench.configuration("zero_copy = \"auto\"") + HOT_NAMES;
    let mut router = bench.router_with(&config, ZERO_COPY)?;
    router.console_will_say("AF_XDP socket, zero-copy mode")?;
    is_answered_by_xdp(&mut router)?;
    // The driver silently drops XDP_TX frames from such a queue.
    router.console_says("virtio-net sends none from zero-copy queues")?;
    router.ask_often("hot.test", HOT)?;
    let answered = router.guest.counter_with(FRAMES, ANSWERED)?;
    ensure!(answered == 0, "{answered} answers that went nowhere");
    Ok(())
}

/// Two queues on two processors: both have a socket, and all questions are answered.
pub fn two_queues(bench: &Bench) -> Result<()> {
    let cable = Cable::new(true)?;
    let mut router = cable.router(bench, 2)?;
    router.console_will_say("br-lan/eth0 queue 1: AF_XDP socket")?;
    let processors = router.guest.shell(
        "sed -n 's/^ *\\([0-9]*\\):.*-input\\.[0-9]*$/\\1/p' /proc/interrupts | \
         while read -r irq; do cat /proc/irq/$irq/smp_affinity_list; done | sort -u | xargs",
    )?;
    ensure!(
        processors.trim() == "0 1",
        "the interrupts of the two queues go to {processors}"
    );
    // The bridge has to hear of the client first.
    check("n.test", &cable.dig(&["@192.168.1.1", "n.test", "A"])?)?;
    let before = router.guest.counter(ANSWERED_XDP)?;
    cable.ask_from_many_ports()?;
    let answered = router.guest.counter(ANSWERED_XDP)? - before;
    ensure!(
        answered >= u64::from(QUESTIONS),
        "{answered} answers from AF_XDP, {QUESTIONS} asked"
    );
    Ok(())
}

/// Both ports of the bridge have the program in their drivers. While one goes and comes again, a host behind the other one loses no
/// query; after that it is served by its driver again. The provider's card is no port.
pub fn port_comes_and_goes(bench: &Bench) -> Result<()> {
    const SERVED: &str = "br-lan: served by its ports: eth0 native; eth1 native";
    let cable = Cable::new(false)?;
    let second = cable.second()?;
    let config = configuration(&format!("{HOST}:{}", cable.upstream.port), "");
    let data = bench.data_disk(&config)?;
    let mut machine = bench.machine(cable.link(), &data);
    machine.second = Some(SECOND);
    let mut router = bench.boot(&machine)?;
    router.console_will_say(SERVED)?;
    router.guest.log_in()?;
    let is_leased = "ip -o addr show dev wan | grep -q 'inet 10.0.2.'";
    router.guest.shell(&format!(
        "[ ! -e /sys/class/net/wan/brport ] && tries=0; until {is_leased} || [ $tries -eq 20 ]; do \
         tries=$((tries + 1)); sleep 1; done; {is_leased}"
    ))?;
    let (first, behind) = (Client::of(&cable.namespace)?, Client::of(&second)?);
    // The bridge hears of both.
    first.ask(0)?;
    behind.ask(0)?;
    let is_over = AtomicBool::new(false);
    let asked = thread::scope(|scope| -> Result<u32> {
        let load = scope.spawn(|| first.ask_until(&is_over));
        let changed = change_ports(&mut router, &behind, SERVED);
        is_over.store(true, Ordering::Relaxed);
        let asked = load
            .join()
            .map_err(|_| anyhow::anyhow!("the load has panicked"))?;
        changed.and(asked)
    })?;
    println!(
        "     {}: {asked} queries meanwhile, all answered",
        bench.name
    );
    Ok(())
}

/// Takes the second port out of the bridge and puts it back, a few times. `behind` is a client behind it.
fn change_ports(router: &mut Router, behind: &Client, served: &str) -> Result<()> {
    for turn in 1..=GOES {
        router.guest.shell("ip link set eth1 nomaster")?;
        let left = "br-lan: served by its ports: eth0 native\n";
        router.guest.wait_for_nth(left, turn, REPLY_LIMIT * TRIES)?;
        router.guest.shell("ip link set eth1 master br-lan")?;
        router
            .guest
            .wait_for_nth(served, turn + 1, REPLY_LIMIT * TRIES)?;
        let port = "interface=\"br-lan/eth1\"";
        behind.ask(1)?;
        let before = router.guest.counter_with(FRAMES, port)?;
        behind.ask(2)?;
        let seen = router.guest.counter_with(FRAMES, port)?;
        ensure!(seen > before, "turn {turn}: no program at the port");
    }
    Ok(())
}

/// A host on a cable that asks by a socket, and does not ask again.
struct Client(UdpSocket);

impl Client {
    fn of(host: &Namespace) -> Result<Self> {
        let socket = host.run(|| UdpSocket::bind(("0.0.0.0", 0)))?;
        socket.connect((GUEST, 53))?;
        socket.set_read_timeout(Some(REPLY_LIMIT))?;
        Ok(Self(socket))
    }

    /// Asks for one of a few names.
    fn ask(&self, number: u32) -> Result<()> {
        let name = format!("n{}.test", number % 4);
        let is_answered = ask_once(&self.0, number as u16, &name)?;
        ensure!(is_answered, "query {number} has no answer");
        Ok(())
    }

    /// Asks as fast as answers come; returns how often, or the first query without an answer.
    fn ask_until(&self, is_over: &AtomicBool) -> Result<u32> {
        let mut asked = 0;
        while !is_over.load(Ordering::Relaxed) {
            self.ask(asked)?;
            asked += 1;
        }
        Ok(asked)
    }
}

/// When a program is attached, the driver requests one more queue per processor, and gets it for receiving only: a socket on such
/// a queue could not send. No question may be lost on any of them.
pub fn growing_queues(bench: &Bench) -> Result<()> {
    let cable = Cable::new(true)?;
    let mut router = cable.router(bench, 4)?;
    // The bridge answers before the program stands at its port.
    router.console_will_say("br-lan/eth0 queue 0: AF_XDP socket")?;
    let mut count = |direction: &str| -> Result<u32> {
        let said = router.guest.shell(&format!(
            "ls -d /sys/class/net/eth0/queues/{direction}-* | wc -l"
        ))?;
        said.trim()
            .parse()
            .with_context(|| format!("a number of queues: {said:?}"))
    };
    let (receiving, sending) = (count("rx")?, count("tx")?);
    ensure!(
        receiving == 4,
        "{receiving} receive queues after the attach"
    );
    for queue in 0..receiving.min(sending) {
        router.console_will_say(&format!("br-lan/eth0 queue {queue}: AF_XDP socket"))?;
    }
    cable.ask_from_many_ports()?;
    let udp = router.guest.counter(ANSWERED_UDP)?;
    let xdp = router.guest.counter(ANSWERED_XDP)?;
    ensure!(
        xdp > 0 && xdp + udp >= u64::from(QUESTIONS),
        "{xdp} answers from AF_XDP, {udp} from the kernel's sockets, {QUESTIONS} asked"
    );
    Ok(())
}

/// Frames on a cable: both families, TCP, an answer too big for UDP, a tagged frame, padding after a short one, a query in two
/// fragments.
pub fn frames(bench: &Bench) -> Result<()> {
    let cable = Cable::new(false)?;
    let mut router = cable.router(bench, 1)?;
    check(
        "four.test",
        &cable.dig(&["@192.168.1.1", "four.test", "A"])?,
    )?;
    check("six.test", &cable.dig(&["@fd00:53::1", "six.test", "A"])?)?;
    check(
        "tcp.test",
        &cable.dig(&["@192.168.1.1", "+tcp", "tcp.test", "A"])?,
    )?;
    check(
        "tcp6.test",
        &cable.dig(&["@fd00:53::1", "+tcp", "tcp6.test", "A"])?,
    )?;
    let big = cable.dig(&["@192.168.1.1", "big.test", "TXT"])?;
    ensure!(
        big.matches('x').count() == 2400,
        "{} bytes of a big answer",
        big.matches('x').count()
    );
    cable.ask_tagged(&mut router)?;
    cable.ask_with_padding(&mut router)?;
    cable.ask_in_fragments(&mut router)
}

/// Asked twice: the second answer comes from the cache, over AF_XDP.
fn is_answered_by_xdp(router: &mut Router) -> Result<()> {
    router.ask("first.test")?;
    router.ask("first.test")?;
    let answered = router.guest.counter(ANSWERED_XDP)?;
    ensure!(
        answered >= 1,
        "no answer came from AF_XDP. The console:\n{}",
        router.guest.console()
    );
    Ok(())
}

/// Asked often: the last answers come from the XDP program.
fn is_answered_by_the_program(router: &mut Router) -> Result<()> {
    for _ in 0..HOT_TRIES {
        router.ask_often("hot.test", HOT)?;
        if router.guest.counter_with(FRAMES, ANSWERED)? > 0 {
            return Ok(());
        }
    }
    bail!(
        "no answer came from the XDP program. The console:\n{}",
        router.guest.console()
    )
}

fn is_answered_without_xdp(router: &mut Router) -> Result<()> {
    router.ask("first.test")?;
    router.ask("first.test")?;
    let (xdp, udp) = (
        router.guest.counter(ANSWERED_XDP)?,
        router.guest.counter(ANSWERED_UDP)?,
    );
    ensure!(
        xdp == 0 && udp >= 2,
        "{xdp} answers from AF_XDP, {udp} from the kernel's sockets"
    );
    Ok(())
}

impl Cable {
    fn router(&self, bench: &Bench, queues: u32) -> Result<Router> {
        self.router_with(bench, queues, "")
    }

    fn router_with(&self, bench: &Bench, queues: u32, nic: &str) -> Result<Router> {
        let data = bench.data_disk(&configuration(
            &format!("{HOST}:{}", self.upstream.port),
            "",
        ))?;
        let mut machine = bench.machine(self.link(), &data);
        machine.queues = queues;
        machine.nic = nic;
        let mut router = bench.boot(&machine)?;
        router.guest.log_in()?;
        Ok(router)
    }

    fn dig(&self, words: &[&str]) -> Result<String> {
        let mut command: Command = self.namespace.command("dig");
        output_of(command.args(["+short", "+tries=3", "+time=4"]).args(words))
    }

    /// Each dig uses a different port, and the guest's queues are chosen by port.
    fn ask_from_many_ports(&self) -> Result<()> {
        for number in 0..QUESTIONS {
            let name = format!("n{}.test", number % 4);
            check(&name, &self.dig(&["@192.168.1.1", &name, "A"])?)?;
        }
        Ok(())
    }

    /// A tag that the configuration does not name is left to the kernel: its VLAN device still answers.
    fn ask_tagged(&self, router: &mut Router) -> Result<()> {
        router.guest.shell(
            "ip link add link br-lan name br-lan.7 type vlan id 7 && ip addr add 192.168.7.1/24 dev br-lan.7 && ip link set br-lan.7 up",
        )?;
        let socket = FrameSocket::open(&self.namespace, DEVICE)?;
        let is_reply = |frame: &[u8]| {
            frame.get(12..18) == Some(&[0x81, 0, 0, 7, 0x08, 0x06]) && frame.get(25) == Some(&2)
        };
        for _ in 0..TRIES {
            socket.send(&tagged_arp_request())?;
            if socket.receive(REPLY_LIMIT, is_reply)?.is_some() {
                return Ok(());
            }
        }
        bail!(
            "no reply to an ARP request in VLAN 7. The console:\n{}",
            router.guest.console()
        )
    }

    /// Ethernet pads short frames: bytes after the packet may be anything, and are not part of the message.
    fn ask_with_padding(&self, router: &mut Router) -> Result<()> {
        self.ask_in_frames(router, "a padded frame", 0xabcd, |mac| {
            let mut frame = frame_of(mac, &datagram(0xabcd, ROOT), 0);
            frame.resize(frame.len().max(ETHERNET_MIN), 0xa5);
            vec![frame]
        })
    }

    /// A fragment of a query is left to the kernel, which reassembles it for its sockets.
    fn ask_in_fragments(&self, router: &mut Router) -> Result<()> {
        self.ask_in_frames(router, "two fragments", 0xbcde, |mac| {
            let whole = datagram(0xbcde, ROOT);
            let (first, second) = whole.split_at(FRAGMENT_LEN);
            let offset = u16::try_from(FRAGMENT_LEN / 8).unwrap_or(0);
            vec![
                frame_of(mac, first, MORE_FRAGMENTS),
                frame_of(mac, second, offset),
            ]
        })
    }

    /// Sends frames that make up one query with this `id`, until its response is seen on the cable.
    fn ask_in_frames(
        &self,
        router: &mut Router,
        what: &str,
        id: u16,
        frames: impl Fn(&[u8]) -> Vec<Vec<u8>>,
    ) -> Result<()> {
        let mac = parse_mac(&router.guest.shell("cat /sys/class/net/br-lan/address")?)?;
        let socket = FrameSocket::open(&self.namespace, DEVICE)?;
        // Source port 53, destination port, ID, and QR.
        let is_response = |frame: &[u8]| {
            frame.get(34..38) == Some(&[0, 53, 0x9c, 0x40])
                && frame.get(42..44) == Some(&id.to_be_bytes())
                && frame.get(44).is_some_and(|flags| flags & 0x80 != 0)
        };
        for _ in 0..TRIES {
            for frame in frames(&mac) {
                socket.send(&frame)?;
            }
            if socket.receive(REPLY_LIMIT, is_response)?.is_some() {
                return Ok(());
            }
        }
        bail!(
            "no response to {what}. The console:\n{}",
            router.guest.console()
        )
    }
}

/// Asks who has 192.168.7.1, in VLAN 7 (RFC 826).
fn tagged_arp_request() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0, 0, 0, 0, 2, 0x81, 0, 0, 7, 0x08, 0x06]);
    frame.extend([
        0, 1, 0x08, 0, 6, 4, 0, 1, 0x02, 0, 0, 0, 0, 2, 192, 168, 7, 2,
    ]);
    frame.extend([0, 0, 0, 0, 0, 0, 192, 168, 7, 1]);
    frame.resize(ETHERNET_MIN, 0);
    frame
}

/// A query in a UDP datagram from port 40000, without a checksum, which IPv4 allows (RFC 768).
fn datagram(id: u16, question: &[u8]) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(question);
    let len = u16::try_from(8 + message.len()).unwrap_or(u16::MAX);
    let mut datagram: Vec<u8> = [40000, 53, len, 0]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect();
    datagram.extend(message);
    datagram
}

/// A frame to the guest with an IPv4 packet from the host, or with a fragment of one.
fn frame_of(mac: &[u8], payload: &[u8], fragment: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend(
        u16::try_from(20 + payload.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    ip.extend([0, 1]);
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, 17, 0, 0, 192, 168, 1, 2, 192, 168, 1, 1]);
    let checksum = Sum::new().add_bytes(&ip).finish().to_be_bytes();
    ip[10..12].copy_from_slice(&checksum);
    [mac, &[0x02, 0, 0, 0, 0, 2, 0x08, 0x00], &ip, payload].concat()
}
