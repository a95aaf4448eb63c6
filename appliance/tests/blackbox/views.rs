//! Clients with another policy: names known in one view are not told in another, whatever their source.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_lab::lab::UPSTREAM_V4;
use xdnsd_lab::wait::wait_until;

use crate::shield::with_program;
use crate::support::TIMEOUT;
use crate::support::client::{DNS_PORT, Family, UdpClient, client_address, listen};
use crate::support::message::{answers, query, wire};
use crate::support::run::{Run, only};
use crate::support::scene::{Directory, Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;
use crate::support::upstream::SECOND_V4;
use crate::support::ways::Way;

const OK: ResponseCode = ResponseCode::NoError;
const NX: ResponseCode = ResponseCode::NXDomain;
/// A second address of the client host, for a guest.
const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 53, 0, 77));

/// A leases file, a hosts file, two lists, a route; guests have names of their own, one of the lists, and a server.
const SECTIONS: &str = r#"
[cache]
rotate = false
[local]
zones = ["lan"]
search = ["lan"]
records = ["nas.lan A 192.168.1.9", "out.lan CNAME cdn.test"]
hosts = ["{directory}/hosts"]
dnsmasq_leases = ["{directory}/leases"]
[filter]
block = ["never.test"]
block_files = ["{directory}/ads", "{directory}/games"]
[[upstream]]
name = "guests"
servers = ["10.54.0.3"]
[[upstream]]
name = "vpn"
servers = ["10.54.0.3"]
domains = ["corp.test"]
"#;

const VIEW: &str = r#"
[[view]]
name = "guests"
clients = ["10.53.0.77"]
lists = ["{directory}/ads"]
block = ["work.test"]
allow = ["fine.ads.test"]
upstreams = "guests"
local_names = false
"#;

fn write(directory: &Directory) -> Result<()> {
    for (name, text) in [
        ("hosts", "192.168.1.7 scanner.lan printer.example\n"),
        (
            "leases",
            "4102444800 02:00:00:00:00:50 192.168.1.50 laptop *\n",
        ),
        ("ads", "||ads.test^\n"),
        ("games", "||games.test^\n"),
    ] {
        fs::write(directory.path().join(name), text)?;
    }
    Ok(())
}

/// An address of the client host, and the server that it asks, by the way of this run.
pub struct Client<'s> {
    scene: &'s Scene,
    local: IpAddr,
    server: SocketAddr,
}

/// A client in no view, and a guest.
pub fn clients(scene: &Scene) -> Result<[Client<'_>; 2]> {
    let host = &scene.lab.client;
    host.ip(&format!("address add {GUEST}/24 dev eth0\n"))?;
    Ok([client_address(Family::V4), GUEST].map(|local| Client {
        scene,
        local,
        server: listen(Family::V4),
    }))
}

/// One server has 192.0.2.1 for every name, the other one 192.0.2.2.
fn answer_by_server(scene: &Scene) {
    for (server, address) in [
        (IpAddr::V4(UPSTREAM_V4), "192.0.2.1"),
        (SECOND_V4, "192.0.2.2"),
    ] {
        let rule = Rule::addresses(300, &[address]);
        scene.upstream.on_server(server, "*.test.", rule);
        let rule = Rule::addresses(300, &[address]);
        scene.upstream.on_server(server, "printer.example.", rule);
    }
}

/// Code and addresses that the client gets.
fn told(client: &Client<'_>, name: &str) -> Result<(ResponseCode, Vec<String>)> {
    client.told(name, RecordType::A)
}

impl Client<'_> {
    /// Code and data of this type.
    pub fn told(&self, name: &str, rtype: RecordType) -> Result<(ResponseCode, Vec<String>)> {
        let answer = self.ask(&wire(&query(name, rtype)))?;
        Ok((answer.response_code(), answers(&answer, rtype)))
    }

    fn ask(&self, question: &[u8]) -> Result<Message> {
        let Client {
            scene,
            local,
            server,
        } = *self;
        let answer = match Run::this().way() {
            Way::Tcp => {
                let host = &scene.lab.client;
                Stream::open_in(host, local, server, TIMEOUT)?.exchange(question)?
            }
            Way::Xdp | Way::Udp => {
                UdpClient::open_from(&scene.lab, local, server)?.exchange(question)?
            }
        };
        Ok(Message::from_vec(&answer)?)
    }
}

/// Name, answer for clients in no view, and answer for guests: a code, or an address.
const NAMES: &[(&str, &str, &str)] = &[
    ("nas.lan.", "192.168.1.9", "NX"),
    ("nas.", "192.168.1.9", "192.0.2.2"),
    ("laptop.lan.", "192.168.1.50", "NX"),
    ("scanner.lan.", "192.168.1.7", "NX"),
    ("printer.example.", "192.168.1.7", "192.0.2.2"),
    ("out.lan.", "192.0.2.1", "NX"),
    ("cdn.test.", "192.0.2.1", "192.0.2.2"),
    ("localhost.", "127.0.0.1", "127.0.0.1"),
    ("a.corp.test.", "192.0.2.2", "192.0.2.2"),
    ("never.test.", "NX", "NX"),
    ("ads.test.", "NX", "NX"),
    ("fine.ads.test.", "NX", "192.0.2.2"),
    ("games.test.", "NX", "192.0.2.2"),
    ("work.test.", "192.0.2.1", "NX"),
    ("www.test.", "192.0.2.1", "192.0.2.2"),
];

fn expected(text: &str) -> (ResponseCode, Vec<String>) {
    match text {
        "NX" => (NX, Vec::new()),
        address => (OK, vec![address.to_owned()]),
    }
}

#[test]
fn each_source_of_names_says_to_each_view_what_is_its_own() -> Result<()> {
    let directory = Directory::new()?;
    write(&directory)?;
    let config = format!("{SECTIONS}{VIEW}");
    let folder = directory.path().display().to_string();
    let scene = scene!(Setup::default().sections(&config.replace("{directory}", &folder)));
    answer_by_server(&scene);
    let rule = Rule::addresses(300, &["192.0.2.2"]);
    scene.upstream.on_server(SECOND_V4, "nas.", rule);
    let [one, guest] = clients(&scene)?;
    // The second time from the cache; each view is the first for half of the names.
    for round in 0..2 {
        for (index, (name, in_none, in_view)) in NAMES.iter().enumerate() {
            let mut asks = [(&one, in_none), (&guest, in_view)];
            if index % 2 == 0 {
                asks.reverse();
            }
            for (client, text) in asks {
                let told = told(client, name)?;
                let whose = client.local;
                assert_eq!(told, expected(text), "{name} {whose} round {round}");
            }
        }
    }
    let why = |client: &str, name: &str| scene.daemon.control(&format!("why {name} A {client}"));
    let of_guest = why("10.53.0.77", "work.test")?;
    for part in [
        "work.test. A: blocked",
        "view: 10.53.0.77 is in the view `guests`; view.clients",
        "block: blocked; view.block",
    ] {
        assert!(of_guest.contains(part), "{part}: {of_guest}");
    }
    let of_guest = why("10.53.0.77", "www.test")?;
    for part in ["group `guests`: 10.54.0.3:53; view.upstreams", "192.0.2.2"] {
        assert!(of_guest.contains(part), "{part}: {of_guest}");
    }
    assert!(!of_guest.contains("192.0.2.1"), "{of_guest}");
    let of_other = why("10.53.0.2", "www.test")?;
    assert!(of_other.contains("192.0.2.1"), "{of_other}");
    assert!(!of_other.contains("192.0.2.2"), "{of_other}");
    Ok(())
}

#[test]
fn lists_are_paused_for_one_client_and_views_come_and_go_by_a_reload() -> Result<()> {
    let directory = Directory::new()?;
    write(&directory)?;
    let folder = directory.path().display().to_string();
    let scene = scene!(Setup::default().sections(
        &SECTIONS.replace("{directory}", &folder).replace(
            "[[upstream]]\nname = \"guests\"\nservers = [\"10.54.0.3\"]\n",
            "",
        )
    ));
    answer_by_server(&scene);
    let [one, guest] = clients(&scene)?;
    let control = |request: &str| scene.daemon.control(request);
    assert_eq!(told(&guest, "ads.test.")?, expected("NX"));
    let paused = "lists are paused for 10.53.0.77/32 for 3600 s\n";
    assert_eq!(control("pause 1h 10.53.0.77")?, paused);
    for _ in 0..2 {
        assert_eq!(told(&guest, "ads.test.")?, expected("192.0.2.1"));
        assert_eq!(told(&one, "ads.test.")?, expected("NX"));
    }
    assert_eq!(told(&guest, "nas.lan.")?, expected("192.168.1.9"));
    let why = control("why ads.test 10.53.0.77")?;
    assert!(
        why.contains("view: lists are paused for 10.53.0.77"),
        "{why}"
    );
    // Its clients are in a view from now on, and their lists stay paused.
    let path = scene.directory.path().join("config.toml");
    let config = fs::read_to_string(&path)?;
    let view = VIEW.replace("upstreams = \"guests\"", "upstreams = \"vpn\"");
    fs::write(
        &path,
        format!("{config}{}", view.replace("{directory}", &folder)),
    )?;
    assert!(control("reload")?.contains("[[view]]"));
    assert_eq!(told(&guest, "nas.lan.")?, expected("NX"));
    for _ in 0..2 {
        assert_eq!(told(&guest, "ads.test.")?, expected("192.0.2.2"));
        assert_eq!(told(&one, "ads.test.")?, expected("NX"));
    }
    let resumed = "lists are in force again for 10.53.0.77/32\n";
    assert_eq!(control("resume 10.53.0.77")?, resumed);
    assert_eq!(told(&guest, "ads.test.")?, expected("NX"));
    assert_eq!(told(&guest, "games.test.")?, expected("192.0.2.2"));
    // A changed list is reported in each view that has it.
    fs::write(directory.path().join("ads"), "||ads.test^\n||new.test^\n")?;
    control("reload")?;
    assert_eq!(told(&guest, "new.test.")?, expected("NX"));
    fs::write(&path, config)?;
    control("reload")?;
    assert_eq!(told(&guest, "nas.lan.")?, expected("192.168.1.9"));
    assert_eq!(told(&guest, "games.test.")?, expected("NX"));
    assert_eq!(told(&guest, "www.test.")?, expected("192.0.2.1"));
    Ok(())
}

/// The second network of the lab, with a client that has the same address as one in the first.
#[test]
fn who_asks_by_an_interface_is_in_its_view_whatever_the_address_says() -> Result<()> {
    let view = "[[interface]]\nname = \"lan9\"\n[[view]]\nname = \"guests\"\ninterfaces = [\"lan9\"]\n\
         local_names = false\nblock = [\"work.test\"]\n[local]\nzones = [\"lan\"]\nrecords = [\"nas.lan A 192.168.1.9\"]\n";
    let scene = scene!(Setup::default().sections(view));
    answer_by_server(&scene);
    crate::arrivals::plug(&scene, "lan9", 1)?;
    let home = Client {
        scene: &scene,
        local: client_address(Family::V4),
        server: listen(Family::V4),
    };
    assert_eq!(told(&home, "nas.lan.")?, expected("192.168.1.9"));
    let server = SocketAddr::new([10, 55, 0, 1].into(), DNS_PORT);
    for local in [[10, 55, 0, 2].into(), client_address(Family::V4)] {
        let guest = Client {
            local,
            server,
            ..home
        };
        wait_until("the interface is served, and in its view", TIMEOUT, || {
            told(&guest, "nas.lan.").is_ok_and(|told| told == expected("NX"))
        })?;
        assert_eq!(told(&guest, "work.test.")?, expected("NX"), "{local}");
        assert_eq!(told(&guest, "www.test.")?, expected("192.0.2.1"));
    }
    for (name, text) in [("nas.lan.", "192.168.1.9"), ("work.test.", "192.0.2.1")] {
        assert_eq!(told(&home, name)?, expected(text));
    }
    let why = scene.daemon.control("why work.test 10.55.0.2")?;
    assert!(why.contains("in the view `guests`; view.name"), "{why}");
    Ok(())
}

#[test]
fn the_xdp_program_answers_nobody_of_a_view() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let sections = "[cache]\nrotate = false\ntier0 = \"on\"\n[[upstream]]\nname = \"guests\"\nservers = [\"10.54.0.3\"]\n\
         [[view]]\nname = \"guests\"\nclients = [\"10.53.0.77\"]\nupstreams = \"guests\"\n";
    let scene = scene!(Setup::default().sections(sections));
    let _program = with_program(&scene.lab.client)?;
    answer_by_server(&scene);
    let [one, guest] = clients(&scene)?;
    let answered = || -> Result<u64> {
        let metrics = scene.daemon.metrics()?;
        Ok(metrics.get(&Reason::Answered).unwrap_or(0))
    };
    // Hot for both.
    wait_until("it is hot", TIMEOUT, || {
        let hot = answered().is_ok_and(|count| count > 0);
        let asked = (0..16).try_for_each(|_| {
            ensure!(told(&one, "www.test.")? == expected("192.0.2.1"));
            ensure!(told(&guest, "www.test.")? == expected("192.0.2.2"));
            Ok(())
        });
        asked.is_ok() && hot
    })?;
    let before = answered()?;
    for _ in 0..64 {
        assert_eq!(told(&guest, "www.test.")?, expected("192.0.2.2"));
    }
    assert_eq!(answered()?, before, "none of the guest's");
    for _ in 0..16 {
        assert_eq!(told(&one, "www.test.")?, expected("192.0.2.1"));
    }
    assert!(answered()? > before, "it still is hot for the other one");
    Ok(())
}
