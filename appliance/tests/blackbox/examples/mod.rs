//! The examples of `config/`, each unchanged, in a router that has what the example mentions: devices, lease files as dnsmasq
//! and odhcpd write them, folders. Names of each kind are asked for, and the log has no unexplained lines.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use xdnsd_lab::bpf::{Link, attach_pass};
use xdnsd_lab::lab::{HOST_INTERFACE, Lab, UPSTREAM_V4, UPSTREAM_V6, WAN};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::peer::{Peer, Site};
use xdnsd_lab::privilege::root_or_skip;
use xdnsd_lab::wait::wait_until;

use crate::support::daemon::{BINARY, Daemon};
use crate::support::message::{answers, query, wire};
use crate::support::run::only;
use crate::support::scene::Directory;
use crate::support::script::Rule;
use crate::support::upstream::Upstream;
use crate::support::{ANSWER_TIMEOUT, TIMEOUT};

const NX: ResponseCode = ResponseCode::NXDomain;
const OK: ResponseCode = ResponseCode::NoError;
const REFUSED: ResponseCode = ResponseCode::Refused;
/// Public servers of the examples.
const PUBLIC: [&str; 3] = ["9.9.9.9", "149.112.112.112", "2620:fe::fe"];
/// Folders of this machine in the router's root, if they exist. The rest is the example's.
const SHARED: &str = "usr bin sbin lib lib64 proc sys dev";
/// Script in the router: builds its root, and runs the server in it.
const START: &str = r#"set -eu
root="$1"
for folder in $2; do
    [ -d "/$folder" ] || continue
    mkdir -p "$root/$folder"
    mount -o rbind "/$folder" "$root/$folder"
done
touch "$root/xdnsd"
mount -o bind "$3" "$root/xdnsd"
exec chroot "$root" /xdnsd run /etc/xdnsd/xdnsd.toml
"#;
/// Leases in the format of Debian's dnsmasq 2.90 and OpenWrt's: expiry, MAC address, address, name, client identifier; then the
/// same for DHCPv6.
const DNSMASQ: &str = "4102444800 02:00:00:00:00:50 192.168.1.50 laptop 01:02:00:00:00:00:50
4102444800 02:00:00:00:00:51 192.168.1.51 * *
duid 00:01:00:01:2c:aa:bb:cc:02:00:00:00:00:01
4102444800 33554512 fd00:1::50 laptop 00:01:00:01:2c:aa:bb:cd:02:00:00:00:00:50
";
/// `/tmp/hosts/odhcpd` in odhcpd's format: a comment for each lease, and lines of a hosts file.
const ODHCPD: &str =
    "# br-lan 000100012caabbce020000000060 60 tablet 4102444800 60 128 fd00:1::60/128
fd00:1::60\ttablet
# br-lan 000100012caabbcf020000000061 61 - 4102444800 61 128 fd00:1::61/128
# br-lan 020000000062 ipv4 desk 4102444800 62 32 192.168.1.62/32
192.168.1.62\tdesk
";
/// Hosts file of Debian's installer and OpenWrt, with a machine added.
const HOSTS: &str = "127.0.0.1\tlocalhost
127.0.1.1\tgateway.example.net\tgateway

# The following lines are desirable for IPv6 capable hosts
::1     localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
192.168.1.9 nas
";

/// A router that runs an example. Dropped in the order of its fields.
struct Router {
    daemon: Daemon,
    upstream: Upstream,
    lab: Lab,
    directory: Directory,
    /// Program at the other end of `wan0`, if the shield answers clients: a cable needs none.
    #[expect(dead_code, reason = "held for its drop, which detaches")]
    other_end: Option<Link>,
}

impl Router {
    /// Makes the lab, runs these lines of `ip` in the router and in the client, starts an upstream at `servers`, writes the
    /// example's files, runs `before`, then starts the server. `None` if `test` has to be skipped.
    fn start(test: &str, example: &Example) -> Result<Option<Self>> {
        Self::start_by(test, example, START, &[])
    }

    /// Starts it by `script`, with the arguments `more` after the router's root, the shared folders, and the server.
    fn start_by(
        test: &str,
        example: &Example,
        script: &str,
        more: &[String],
    ) -> Result<Option<Self>> {
        if !root_or_skip(test) {
            return Ok(None);
        }
        let lab = Lab::up(&xdnsd_lab::lab::Spec::default())?;
        lab.router
            .ip(&example.router.replace("{client}", &lab.client.path()))?;
        lab.client.ip(example.client)?;
        lab.router.ip(&format!(
            "route add default via {UPSTREAM_V4} dev {WAN}\nroute add ::/0 via {UPSTREAM_V6} dev {WAN}\n"
        ))?;
        let other_end = match example.config.contains("[[protect]]") {
            true => Some(attach_pass(&lab.upstream, HOST_INTERFACE)?),
            false => None,
        };
        let mut upstream = Upstream::start(&lab)?;
        for server in example.servers {
            upstream.serve_also(&lab, server.parse()?)?;
        }
        rules(&upstream);
        let directory = Directory::new()?;
        let root = directory.path().join("root");
        let files = [("etc/xdnsd/xdnsd.toml", example.config)];
        for (path, text) in files.iter().chain(example.files) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        for folder in [
            "run/xdnsd",
            "var/lib/xdnsd",
            "data/xdnsd",
            "tmp/hosts",
            "etc",
        ] {
            fs::create_dir_all(root.join(folder))?;
        }
        let mut command = lab.router.command("sh");
        command.args(["-c", script, "sh"]).arg(&root);
        command.arg(SHARED).arg(BINARY).args(more);
        let config = directory.path().join("daemon");
        let daemon = Daemon::start_command(command, &config, &root.join("run/xdnsd/control.sock"))?;
        Ok(Some(Self {
            daemon,
            upstream,
            lab,
            directory,
            other_end,
        }))
    }

    /// Answer of `server` to a host at `local` in `host`.
    fn ask(&self, host: &Namespace, local: &str, server: &str, name: &str) -> Result<Message> {
        let (name, kind) = name.split_once(' ').context("a name and a type")?;
        let kind: RecordType = kind.parse()?;
        let local: IpAddr = local.parse()?;
        let server = SocketAddr::new(server.parse()?, 53);
        let socket = host.run(|| UdpSocket::bind((local, 0)))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let asked = wire(&query(name, kind));
        socket.send(&asked)?;
        let mut buffer = [0; 1500];
        let len = socket
            .recv(&mut buffer)
            .with_context(|| format!("{name} {kind:?} of {server} from {local}"))?;
        // Not `read_answer`: local answers have AA.
        let answer = Message::from_vec(&buffer[..len])?;
        ensure!(answer.id() == asked_id(&asked), "another answer: {answer}");
        Ok(answer)
    }

    /// Asserts that each name, asked by a host at `local` of `server`, has this code and these data.
    fn expect(
        &self,
        local: &str,
        server: &str,
        cases: &[(&str, ResponseCode, &[&str])],
    ) -> Result<()> {
        for (name, code, data) in cases {
            let answer = self.ask(&self.lab.client, local, server, name)?;
            let (_, kind) = name.split_once(' ').context("a name and a type")?;
            let found = answers(&answer, kind.parse()?);
            assert_eq!(
                (answer.response_code(), found.as_slice()),
                (
                    *code,
                    data.iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .as_slice()
                ),
                "{name} of {server}: {answer}"
            );
        }
        Ok(())
    }

    /// Checks of every example: the snapshot can be written if it names one, and every line of the log is expected.
    fn leaves_no_riddle(&self) -> Result<()> {
        let state = self.directory.path().join("root/var/lib/xdnsd/cache");
        if self
            .config()
            .contains("\nsnapshot = \"/var/lib/xdnsd/cache\"\n")
        {
            let said = self.daemon.control("cache save")?;
            ensure!(state.exists(), "no snapshot: {said}");
        }
        // The first worker answers before that.
        self.daemon.wait_log_count("ready: ", 1)?;
        let log = self.daemon.log();
        let riddles: Vec<_> = log.lines().filter(|line| is_riddle(line)).collect();
        assert!(riddles.is_empty(), "{riddles:#?}");
        Ok(())
    }

    fn config(&self) -> String {
        let path = self.directory.path().join("root/etc/xdnsd/xdnsd.toml");
        fs::read_to_string(path).unwrap_or_default()
    }
}

/// True for a line of the log that reports a problem. There is none: the example is ours.
fn is_riddle(line: &str) -> bool {
    ["WARN", "ERROR", "panicked"]
        .iter()
        .any(|word| line.contains(word))
}

/// A file of `config/` with its environment.
struct Example {
    config: &'static str,
    /// Lines of `ip` for the router and the client. `{client}` is the client's namespace.
    router: &'static str,
    client: &'static str,
    servers: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
}

/// The LAN as a bridge, as in OpenWrt and most others.
const BRIDGE: &str = "address flush dev lan0
link add name br-lan type bridge
link set lan0 master br-lan
link set br-lan up
address add 192.168.1.1/24 dev br-lan
address add fd00:1::1/64 dev br-lan nodad
";
const BRIDGE_CLIENT: &str = "address add 192.168.1.2/24 dev eth0
address add fd00:1::2/64 dev eth0 nodad
";
const LEASES: &[(&str, &str)] = &[
    ("tmp/dhcp.leases", DNSMASQ),
    ("tmp/hosts/odhcpd", ODHCPD),
    ("etc/hosts", HOSTS),
    ("etc/group", "xdnsd:x:65534:\n"),
];

impl Example {
    const fn on_bridge(config: &'static str) -> Self {
        Self {
            config,
            router: BRIDGE,
            client: BRIDGE_CLIENT,
            servers: &PUBLIC,
            files: LEASES,
        }
    }
}

/// Answers of the outside world.
fn rules(upstream: &Upstream) {
    upstream.on("no.example.", Rule::code(NX));
    upstream.on("www.example.", Rule::addresses(300, &["192.0.2.1"]));
    upstream.on("other.example.", Rule::addresses(300, &["192.0.2.2"]));
    upstream.on("telemetry.example.", Rule::addresses(300, &["192.0.2.3"]));
    upstream.on("inside.example.", Rule::addresses(300, &["192.168.1.9"]));
    upstream.on("a.plex.direct.", Rule::addresses(300, &["192.168.1.9"]));
    upstream.on("deep.corp.example.", Rule::addresses(300, &["10.1.2.3"]));
}

/// The ID of a message.
fn asked_id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// Runs the example, or ends the test that calls it as skipped.
macro_rules! router {
    ($example:expr) => {{
        fn here() {}
        let test = std::any::type_name_of_val(&here).trim_end_matches("::here");
        match Router::start(test, &$example)? {
            Some(router) => router,
            None => return Ok(()),
        }
    }};
}

#[test]
fn minimal() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let router = router!(Example {
        files: &[],
        ..Example::on_bridge(include_str!("../../../../config/minimal.toml"))
    });
    router.expect(
        "192.168.1.2",
        "192.168.1.1",
        &[
            ("www.example. A", OK, &["192.0.2.1"]),
            ("no.example. A", NX, &[]),
            ("localhost. A", OK, &["127.0.0.1"]),
        ],
    )?;
    router.expect(
        "fd00:1::2",
        "fd00:1::1",
        &[("www.example. A", OK, &["192.0.2.1"])],
    )?;
    router.leaves_no_riddle()
}

#[test]
fn home_router() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let router = router!(Example::on_bridge(include_str!(
        "../../../../config/home-router.toml"
    )));
    router.expect(
        "192.168.1.2",
        "192.168.1.1",
        &[
            ("www.example. A", OK, &["192.0.2.1"]),
            ("laptop. A", OK, &["192.168.1.50"]),
            ("laptop.lan. AAAA", OK, &["fd00:1::50"]),
            ("tablet.lan. AAAA", OK, &["fd00:1::60"]),
            ("desk.lan. A", OK, &["192.168.1.62"]),
            ("nas.lan. A", OK, &["192.168.1.9"]),
            ("router.lan. A", OK, &["192.168.1.1"]),
            ("50.1.168.192.in-addr.arpa. PTR", OK, &["laptop.lan."]),
            ("_ntp._udp.lan. SRV", OK, &["0 0 123 router.lan."]),
            ("nobody.lan. A", NX, &[]),
            ("nobody. A", NX, &[]),
            ("telemetry.example. A", NX, &[]),
            ("inside.example. A", OK, &[]),
            ("a.plex.direct. A", OK, &["192.168.1.9"]),
            ("localhost. A", OK, &["127.0.0.1"]),
        ],
    )?;
    let asked: Vec<_> = router.upstream.asked_all();
    let outside: Vec<String> = asked
        .iter()
        .map(|asked| asked.name().to_lowercase())
        .collect();
    assert!(
        outside
            .iter()
            .all(|name| !name.ends_with("lan.") && name != "nobody."),
        "{outside:?}"
    );
    router.leaves_no_riddle()
}

#[test]
fn guest_network() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let router = router!(Example {
        router: TWO_BRIDGES,
        client: "address add 192.168.1.2/24 dev eth0
address add 192.168.2.2/24 dev eth1
link set eth1 up
",
        ..Example::on_bridge(include_str!("../../../../config/guest-network.toml"))
    });
    router.expect(
        "192.168.1.2",
        "192.168.1.1",
        &[
            ("www.example. A", OK, &["192.0.2.1"]),
            ("laptop. A", OK, &["192.168.1.50"]),
            ("router.lan. A", OK, &["192.168.1.1"]),
            ("telemetry.example. A", NX, &[]),
        ],
    )?;
    router.expect(
        "192.168.2.2",
        "192.168.2.1",
        &[
            ("www.example. A", OK, &["192.0.2.1"]),
            ("other.example. A", OK, &["192.0.2.2"]),
            ("laptop.lan. A", NX, &[]),
            ("router.lan. A", NX, &[]),
            ("telemetry.example. A", OK, &["192.0.2.3"]),
        ],
    )?;
    router.leaves_no_riddle()
}

/// Two bridges: the family's on `lan0`, the guests' on a link of its own.
const TWO_BRIDGES: &str = "address flush dev lan0
link add name br-lan type bridge
link set lan0 master br-lan
link set br-lan up
address add 192.168.1.1/24 dev br-lan
address add fd00:1::1/64 dev br-lan nodad
link add name guest0 type veth peer name eth1 netns {client}
link add name br-guest type bridge
link set guest0 master br-guest
link set guest0 up
link set br-guest up
address add 192.168.2.1/24 dev br-guest
";

#[test]
fn router_itself() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let router = router!(Example::on_bridge(include_str!(
        "../../../../config/router-itself.toml"
    )));
    for (local, server) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        for (name, data) in [("www.example. A", "192.0.2.1"), ("nas. A", "192.168.1.9")] {
            let answer = router.ask(&router.lab.router, local, server, name)?;
            assert_eq!(
                answers(&answer, RecordType::A),
                [data],
                "{name} of {server}"
            );
        }
    }
    router.expect(
        "192.168.1.2",
        "192.168.1.1",
        &[("other.example. A", OK, &["192.0.2.2"])],
    )?;
    router.leaves_no_riddle()
}

/// The shield in front of the router and of servers behind it.
#[test]
fn servers_behind() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let router = router!(Example::on_bridge(include_str!(
        "../../../../config/servers-behind.toml"
    )));
    router.expect(
        "192.168.1.2",
        "192.168.1.1",
        &[("www.example. A", OK, &["192.0.2.1"])],
    )?;
    let shown = || router.daemon.control("shield status");
    let calm =
        "wan0: protects 192.0.2.80/32, port 80, 443: not in force (calm): all to it passes\n";
    wait_until("hosts behind can be protected", TIMEOUT, || {
        shown().is_ok_and(|shown| shown.contains(calm))
    })?;
    let listed = router.daemon.control("shield list")?;
    for line in ["deny  198.51.100.0/24 ", "allow 198.51.100.77/32 "] {
        assert!(listed.contains(line), "{listed}");
    }
    router.leaves_no_riddle()
}

#[test]
fn encrypted_upstream() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let router = router!(Example {
        servers: &[],
        ..Example::on_bridge(include_str!("../../../../config/encrypted-upstream.toml"))
    });
    // unbound as in the example's comment, but without TLS: there is no certificate here.
    let directory: PathBuf = router.directory.path().join("stub");
    fs::create_dir(&directory)?;
    let stub = start_stub(&router.lab, &directory)?;
    router.expect(
        "192.168.1.2",
        "192.168.1.1",
        &[
            ("www.example. A", OK, &["192.0.2.1"]),
            ("no.example. A", NX, &[]),
        ],
    )?;
    drop(stub);
    router.leaves_no_riddle()
}

fn start_stub(lab: &Lab, directory: &Path) -> Result<xdnsd_lab::process::Process> {
    let site = Site {
        host: &lab.router,
        address: "127.0.0.1:5353".parse()?,
        upstream: UPSTREAM_V4.into(),
        directory,
    };
    Peer::Unbound { threads: 1 }.start(&site, "")
}

/// The configuration of the image, whose LAN side is a bridge.
#[test]
fn image() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let router = router!(Example {
        files: &[],
        ..Example::on_bridge(include_str!(
            "../../../../buildroot/board/xdnsd/rootfs-overlay/etc/xdnsd/xdnsd.toml"
        ))
    });
    for (local, server) in [("192.168.1.2", "192.168.1.1"), ("fd00:1::2", "fd00:1::1")] {
        router.expect(
            local,
            server,
            &[
                ("www.example. A", OK, &["192.0.2.1"]),
                ("no.example. A", NX, &[]),
            ],
        )?;
    }
    router.leaves_no_riddle()
}

/// Shows that such a line is found.
#[test]
fn file_that_is_missing_is_a_riddle() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let router = router!(Example::on_bridge(
        "[[interface]]\nname = \"br-lan\"\n[[upstream]]\nservers = [\"9.9.9.9\"]\n\
         [filter]\ncompiled = [\"/var/lib/xdnsd/block.list\"]\n"
    ));
    let log = router.daemon.log();
    assert!(log.lines().any(is_riddle), "{log}");
    Ok(())
}

/// Every example has a test here, under its own name.
#[test]
fn every_example_is_run() {
    let this = include_str!("mod.rs");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let Ok(listed) = fs::read_dir(folder) else {
        // The guest of "tests of VLANs" has no sources.
        return;
    };
    for entry in listed.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // The lab's example is run by `cargo xtask run --lab`.
        let path = format!("/config/{name}\"");
        let is_run = [this, include_str!("vlan.rs")]
            .iter()
            .any(|tests| tests.contains(&path));
        assert!(
            is_run || name == "lab.toml",
            "config/{name} is run by no test"
        );
    }
}

// The other AF_XDP backend needs a right that the unit does not give.
#[cfg(not(feature = "afxdp"))]
mod unit;
mod vlan;
