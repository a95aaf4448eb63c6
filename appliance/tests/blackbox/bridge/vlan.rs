//! A bridge that looks at VLAN tags, with addresses on itself and on a VLAN device of its own.
//!
//! ```text
//!  p1  trunk: VLAN 1 without a tag, VLAN 10 with one ─┐        ┌─ br9     in VLAN 1
//!  p2  access port of VLAN 10                        ─┼─ br9 ──┤
//!  p3  access port of VLAN 1                         ─┘        └─ br9.10  in VLAN 10
//! ```
//!
//! These tests need CONFIG_BRIDGE_VLAN_FILTERING and VLAN devices: those of VLANs run in a guest that has both
//! (`cargo xtask boot "tests of VLANs"`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::HOST_INTERFACE;
use xdnsd_lab::wait::wait_until;

use super::SILENT;
use super::lan::{self, BRIDGE, BRIDGE_V4, BRIDGE_V6, Lan, Station};
use crate::support::TIMEOUT;
use crate::support::client::{DNS_PORT, Family, mac};
use crate::support::frame::{TPID_VLAN, UdpFrame};
use crate::support::message::{query, wire};
use crate::support::metrics::Metric;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;
use crate::vlan::has_vlan_devices;

/// The VLAN and its device.
const ID: u16 = 10;
const DEVICE: &str = "br9.10";
const DEVICE_V4: Ipv4Addr = Ipv4Addr::new(10, 57, 0, 1);
const DEVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd57, 0, 0, 0, 0, 0, 0, 1);
/// Where the tag stands in a frame.
const TAG: std::ops::Range<usize> = 12..16;
/// Headers that make the program pass a datagram to the kernel: options of IPv4 that do nothing, padding of IPv6.
const NO_OPERATIONS: [u8; 4] = [1; 4];
const DESTINATION_OPTIONS: [u8; 8] = [17, 0, 1, 4, 0, 0, 0, 0];
/// Queries in a row that make a name hot.
const OFTEN: usize = 16;

/// Serves the bridge and its VLAN device.
fn setup() -> Setup {
    lan::setup().sections(&format!(
        "[[interface]]\nname = \"{BRIDGE}\"\nvlan = {ID}\n"
    ))
}

/// A host, one of its VLANs, and the tag that its frames have there.
struct Client<'l> {
    station: &'l Station,
    is_in_vlan: bool,
    tags: Vec<(u16, u16)>,
}

impl Client<'_> {
    /// Address of the host in its VLAN, and of the server there.
    fn addresses(&self, family: Family) -> (IpAddr, IpAddr) {
        let [v4, v6] = self.station.addresses;
        let local = family.of(v4, v6);
        if !self.is_in_vlan {
            return (local, family.of(BRIDGE_V4.into(), BRIDGE_V6.into()));
        }
        (moved(local), family.of(DEVICE_V4.into(), DEVICE_V6.into()))
    }

    /// A frame with this message to the server.
    fn frame(&self, family: Family, message: &[u8]) -> Result<UdpFrame> {
        let (local, server) = self.addresses(family);
        let to = SocketAddr::new(server, DNS_PORT);
        let mut frame = self.station.client.frame(to, message)?;
        frame.source.set_ip(local);
        frame.tags.clone_from(&self.tags);
        Ok(frame)
    }

    /// Sends a frame that is to get no answer with its own tags, and returns the tag of the one that it gets.
    fn tag_of_answer(&self, frame: &UdpFrame) -> Result<Option<u16>> {
        let client = &self.station.client;
        client.send(&frame.to_bytes())?;
        let port = frame.source.port().to_be_bytes();
        let is_answer = |heard: &[u8]| {
            let at = if heard.get(TAG.start..TAG.start + 2) == Some(&[0x81, 0]) {
                40
            } else {
                36
            };
            heard.get(at..at + 2) == Some(&port)
        };
        let heard = client.next_frame(TIMEOUT, is_answer)?;
        let heard = heard.context("no answer at all")?;
        let tag = &heard[TAG];
        let id = u16::from_be_bytes([tag[2], tag[3]]) & 0xfff;
        Ok((tag[..2] == [0x81, 0]).then_some(id))
    }
}

/// The address of a host in the VLAN, by that in the bridge's own one.
fn moved(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, _, c, d] = v4.octets();
            Ipv4Addr::new(a, 57, c, d).into()
        }
        IpAddr::V6(v6) => {
            let [_, rest @ ..] = v6.segments();
            let [a, b, c, d, e, f, g] = rest;
            Ipv6Addr::new(0xfd57, a, b, c, d, e, f, g).into()
        }
    }
}

/// The bridge with its ports and the VLAN device.
fn make(scene: &Scene) -> Result<Lan<'_>> {
    let lan = Lan::make(scene, 3, "vlan_filtering 1")?;
    bridge(&lan, &format!("vlan add dev {BRIDGE} vid {ID} self"))?;
    bridge(&lan, &format!("vlan add dev p1 vid {ID}"))?;
    bridge(&lan, "vlan del dev p2 vid 1")?;
    bridge(&lan, &format!("vlan add dev p2 vid {ID} pvid untagged"))?;
    lan.ip(&format!(
        "link add link {BRIDGE} name {DEVICE} type vlan id {ID}
         link set {DEVICE} up
         address add {DEVICE_V4}/24 dev {DEVICE}
         address add {DEVICE_V6}/64 dev {DEVICE} nodad\n"
    ))?;
    for station in &lan.stations {
        know(&lan, station)?;
    }
    Ok(lan)
}

/// Tells the router the station's MAC address, which the FIB has to know.
fn know(lan: &Lan<'_>, station: &Station) -> Result<()> {
    let octets = mac(&station.host, HOST_INTERFACE)?.map(|octet| format!("{octet:02x}"));
    let octets = octets.join(":");
    for address in station.addresses {
        let other = moved(address);
        lan.ip(&format!(
            "neighbour replace {address} lladdr {octets} nud permanent dev {BRIDGE}
             neighbour replace {other} lladdr {octets} nud permanent dev {DEVICE}\n"
        ))?;
    }
    Ok(())
}

/// Runs `bridge` in the router.
fn bridge(lan: &Lan<'_>, words: &str) -> Result<()> {
    let command: Vec<&str> = ["bridge"].into_iter().chain(words.split(' ')).collect();
    lan.scene.lab.router.output(&command).map(drop)
}

/// Every host in every of its VLANs.
fn clients<'l>(lan: &'l Lan<'_>) -> Vec<Client<'l>> {
    let [trunk, access, own] = &lan.stations[..] else {
        unreachable!("three");
    };
    let of = |station, is_in_vlan, has_tag: bool| Client {
        station,
        is_in_vlan,
        tags: has_tag.then_some((TPID_VLAN, ID)).into_iter().collect(),
    };
    vec![
        of(trunk, false, false),
        of(trunk, true, true),
        of(access, true, false),
        of(own, false, false),
    ]
}

/// Asks until the answer comes by this way.
fn ask_until(
    lan: &Lan<'_>,
    client: &Client<'_>,
    frame: &UdpFrame,
    way: &dyn Metric,
) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    wait_until(&format!("{way:?} of {frame:02x?}"), TIMEOUT, || {
        let Ok(before) = lan.count(way) else {
            return false;
        };
        for _ in 0..OFTEN {
            match client.station.client.exchange(frame) {
                Ok(bytes) => answer = bytes,
                Err(_) => return false,
            }
        }
        lan.count(way).is_ok_and(|after| after > before)
    })?;
    Ok(answer)
}

/// The same with a header that makes the program pass it to the kernel.
fn by_kernel(frame: &UdpFrame) -> UdpFrame {
    let mut passes = frame.clone();
    passes.extra = match frame.source.is_ipv4() {
        true => NO_OPERATIONS.to_vec(),
        false => DESTINATION_OPTIONS.to_vec(),
    };
    passes
}

/// An answer without what may differ: the age of its only record, which is the last one.
fn without_age(mut answer: Vec<u8>) -> Vec<u8> {
    let end = answer.len();
    answer[end - 10..end - 6].fill(0);
    answer
}

/// By AF_XDP, by the kernel's UDP and TCP sockets and by the XDP program, over both families, the same bytes in frames with the tag
/// of the question.
#[test]
fn clients_with_and_without_a_tag_get_the_same_answers_by_all_ways() -> Result<()> {
    only!(ONCE, "it counts frames");
    if !has_vlan_devices("clients_with_and_without_a_tag_get_the_same_answers_by_all_ways")? {
        return Ok(());
    }
    let scene = scene!(setup().sections("[cache]\ntier0 = \"on\"\nrotate = false\n"));
    scene
        .upstream
        .on("www.test.", Rule::addresses(3_000, &["192.0.2.1"]));
    let lan = make(&scene)?;
    for (station, device) in [(0, "eth0.10"), (1, HOST_INTERFACE)] {
        let station: &Station = &lan.stations[station];
        let [v4, v6] = station.addresses.map(moved);
        if device != HOST_INTERFACE {
            station.host.ip(&format!(
                "link add link {HOST_INTERFACE} name {device} type vlan id {ID}\nlink set {device} up\n"
            ))?;
        }
        station.host.ip(&format!(
            "address add {v4}/24 dev {device}\naddress add {v6}/64 dev {device} nodad\n"
        ))?;
    }
    let message = wire(&query("www.test.", RecordType::A));
    let mut answers = Vec::new();
    for client in clients(&lan) {
        for family in Family::ALL {
            let frame = client.frame(family, &message)?;
            answers.push(ask_until(&lan, &client, &frame, &Reason::Redirected)?);
            answers.push(ask_until(
                &lan,
                &client,
                &by_kernel(&frame),
                &Counter::AnswersUdp,
            )?);
            let (local, server) = client.addresses(family);
            let to = SocketAddr::new(server, DNS_PORT);
            let mut stream = Stream::open_in(&client.station.host, local, to, TIMEOUT)?;
            answers.push(stream.exchange(&message)?);
            answers.push(ask_until(&lan, &client, &frame, &Reason::Answered)?);
        }
    }
    let first = without_age(answers[0].clone());
    for answer in answers {
        assert_eq!(without_age(answer), first);
    }
    let log = scene.daemon.log();
    let line = format!("{BRIDGE}: served by its ports: p1 native; p2 native; p3 native");
    ensure!(log.contains(&line), "{log}");
    Ok(())
}

/// A port of the VLAN whose untagged frames come in and whose tagged ones leave, and tags that a port does not have for the VLAN.
#[test]
fn what_leaves_with_another_tag_than_it_came_with_is_the_bridges() -> Result<()> {
    only!(ONCE, "it counts frames");
    if !has_vlan_devices("what_leaves_with_another_tag_than_it_came_with_is_the_bridges")? {
        return Ok(());
    }
    let scene = scene!(setup());
    let lan = make(&scene)?;
    let mixed = lan.connect(4)?;
    know(&lan, &mixed)?;
    bridge(&lan, "vlan del dev p4 vid 1")?;
    bridge(&lan, &format!("vlan add dev p4 vid {ID} pvid"))?;
    lan.wait_port("p4", "")?;
    let message = wire(&query("localhost.", RecordType::A));
    let tagged = vec![(TPID_VLAN, ID)];
    let of = |station, tags: &[(u16, u16)]| Client {
        station,
        is_in_vlan: true,
        tags: tags.to_vec(),
    };
    let (with, without) = (of(&mixed, &tagged), of(&mixed, &[]));
    let frame = with.frame(Family::V4, &message)?;
    ask_until(&lan, &with, &frame, &Reason::Redirected)?;
    ask_until(&lan, &with, &by_kernel(&frame), &Counter::AnswersUdp)?;
    // As the bridge has it: to a question without a tag an answer with one, and the other way round.
    let access = of(&lan.stations[1], &tagged);
    for (client, expected) in [(&without, Some(ID)), (&access, None)] {
        let frame = client.frame(Family::V4, &message)?;
        let before = scene.daemon.metrics()?;
        assert_eq!(client.tag_of_answer(&frame)?, expected);
        let after = scene.daemon.metrics()?;
        assert_eq!(after.growth(&before, &Reason::PassPort), 1, "{frame:?}");
    }
    // The bridge drops what is of no VLAN of the port.
    let own = of(&lan.stations[2], &tagged);
    let frame = own.frame(Family::V4, &message)?;
    let before = lan.count(&Reason::PassPort)?;
    own.station.client.send(&frame.to_bytes())?;
    ensure!(own.station.client.gets_nothing(&frame)?, "answered");
    assert_eq!(lan.count(&Reason::PassPort)?, before + 1);
    Ok(())
}

/// The FDB has an entry for each VLAN of a station, and each ages by itself.
#[test]
fn a_bridge_hears_of_a_station_in_each_of_its_vlans() -> Result<()> {
    only!(ONCE, "it counts frames");
    if !has_vlan_devices("a_bridge_hears_of_a_station_in_each_of_its_vlans")? {
        return Ok(());
    }
    let scene = scene!(setup());
    let lan = make(&scene)?;
    let message = wire(&query("localhost.", RecordType::A));
    let clients = clients(&lan);
    let client = &clients[0].station.client;
    let silent = |client: &Client<'_>, address: Ipv4Addr, device: &str| -> Result<UdpFrame> {
        let mut frame = client.frame(Family::V4, &message)?;
        frame.source_mac = SILENT;
        frame.source.set_ip(address.into());
        let octets = SILENT.map(|octet| format!("{octet:02x}")).join(":");
        lan.ip(&format!(
            "neighbour add {address} lladdr {octets} nud permanent dev {device}\n"
        ))?;
        Ok(frame)
    };
    // Both are served before the station is heard of.
    for client in &clients[..2] {
        let frame = client.frame(Family::V4, &message)?;
        ask_until(&lan, client, &frame, &Reason::Redirected)?;
        ask_until(&lan, client, &by_kernel(&frame), &Counter::AnswersUdp)?;
    }
    let own = silent(&clients[0], [10, 56, 0, 77].into(), BRIDGE)?;
    let tagged = silent(&clients[1], [10, 57, 0, 77].into(), DEVICE)?;
    for frame in [own, tagged] {
        for (heard, redirected) in [(1, 0), (0, 1)] {
            let before = scene.daemon.metrics()?;
            client.exchange(&frame)?;
            let after = scene.daemon.metrics()?;
            assert_eq!(
                after.growth(&before, &Reason::PassStation),
                heard,
                "{frame:?}"
            );
            assert_eq!(after.growth(&before, &Reason::Redirected), redirected);
        }
    }
    let router = &scene.lab.router;
    let shown = router.output(&["bridge", "fdb", "show", "br", BRIDGE])?;
    let octets = SILENT.map(|octet| format!("{octet:02x}")).join(":");
    for vlan in [1, ID] {
        let line = format!("{octets} dev p1 vlan {vlan} ");
        ensure!(shown.contains(&line), "{line}: {shown}");
    }
    Ok(())
}

/// The interface by which a client asks decides its view, also where no tag says which one that is, and a port may change its VLAN.
#[test]
fn a_client_of_an_access_port_is_in_the_view_of_its_vlans_device() -> Result<()> {
    only!(ONCE, "it counts frames");
    if !has_vlan_devices("a_client_of_an_access_port_is_in_the_view_of_its_vlans_device")? {
        return Ok(());
    }
    let scene = scene!(setup().sections(&format!(
        "[[view]]\nname = \"guests\"\ninterfaces = [\"{DEVICE}\"]\nlocal_names = false\n\
         [local]\nzones = [\"lan\"]\nrecords = [\"nas.lan A 192.168.1.9\"]\n"
    )));
    let lan = make(&scene)?;
    let message = wire(&query("nas.lan.", RecordType::A));
    let is_known = |client: &Client<'_>| -> Result<bool> {
        let frame = client.frame(Family::V4, &message)?;
        let answer = ask_until(&lan, client, &frame, &Reason::Redirected)?;
        Ok(Message::from_vec(&answer)?.response_code() == ResponseCode::NoError)
    };
    for client in clients(&lan) {
        ensure!(is_known(&client)? != client.is_in_vlan, "{:?}", client.tags);
    }
    bridge(&lan, &format!("vlan del dev p2 vid {ID}"))?;
    bridge(&lan, "vlan add dev p2 vid 1 pvid untagged")?;
    let home = Client {
        station: &lan.stations[1],
        is_in_vlan: false,
        tags: Vec::new(),
    };
    ensure!(is_known(&home)?, "in the VLAN still");
    Ok(())
}
