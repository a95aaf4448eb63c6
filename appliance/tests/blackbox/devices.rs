//! Devices of each kind that this kernel can make: each is served by the best way that works there, and the log says which.

use anyhow::{Result, ensure};
use hickory_proto::rr::RecordType;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{LAN, LAN_V4};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, UdpClient};
use crate::support::message::{addresses, query};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;

const GENERIC: &str = "XDP program attached, mode generic: the driver has no native XDP, or its offloads stand in the way";
const BOND: &str =
    "XDP program attached, mode generic: it is a bond, whose ports' frames no AF_XDP socket gets";
const NATIVE: &str = "XDP program attached, mode native";
const TUNNEL: &str =
    "no XDP program, the kernel's sockets serve: its packets are in no Ethernet frames";

/// A kind of device: the words of `ip link add NAME` behind the name, its name here, and what the log says of it.
const KINDS: [(&str, &str, &str); 10] = [
    ("type veth peer name veth8", "veth9", NATIVE),
    ("type bridge", "br9", GENERIC),
    ("type vxlan id 9 dstport 4789", "vxlan9", GENERIC),
    ("link wan0 type macvlan mode bridge", "macvlan9", GENERIC),
    ("link wan0 type vlan id 9", "vlan9", GENERIC),
    ("type bond mode active-backup", "bond9", BOND),
    ("type dummy", "dummy9", GENERIC),
    ("type wireguard", "wg9", TUNNEL),
    ("mode tun", "tun9", TUNNEL),
    ("mode tap", "tap9", NATIVE),
];

#[test]
fn each_kind_of_device_is_served_by_its_best_way_and_the_log_says_which() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let section = |name: &str| format!("[[interface]]\nname = \"{name}\"\n");
    let sections: String = KINDS.iter().map(|(_, name, _)| section(name)).collect();
    let scene = scene!(Setup::default().xdp("off").sections(&sections));
    let mut found = 0;
    for (number, (kind, name, said)) in KINDS.into_iter().enumerate() {
        if !make(&scene, name, kind)? {
            println!("without {name}: this kernel has no such device");
            continue;
        }
        scene.lab.router.ip(&format!(
            "link set {name} up\naddress add 10.9.{number}.1/24 dev {name}\n"
        ))?;
        scene
            .daemon
            .wait_log_count(&format!("{name}: {said}\n"), 1)?;
        found += 1;
    }
    ensure!(found >= 3, "{found} of {} kinds", KINDS.len());
    let log = scene.daemon.log();
    ensure!(!log.contains("no AF_XDP"), "{log}");
    Ok(())
}

/// Makes a device in the router; false if the kernel has no such kind.
fn make(scene: &Scene, name: &str, kind: &str) -> Result<bool> {
    let router = &scene.lab.router;
    if kind.starts_with("mode ") {
        let words = ["ip", "tuntap", "add", name];
        let words: Vec<&str> = words.into_iter().chain(kind.split(' ')).collect();
        return router.output(&words).map(|_| true);
    }
    match router.ip(&format!("link add name {name} {kind}\n")) {
        Ok(()) => Ok(true),
        Err(error) if error.to_string().contains("Unknown device type") => Ok(false),
        Err(error) if error.to_string().contains("not supported") => Ok(false),
        Err(error) => Err(error),
    }
}

/// The bond has the address, `lan0` is its port.
#[test]
fn a_bond_is_answered_over_af_xdp() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let section = format!("[[interface]]\nname = \"bond9\"\nlisten = [\"{LAN_V4}\"]\n");
    let setup = Setup::default().xdp("off").sections(&section);
    let scene = scene!(Setup {
        listen: "listen = [\"fd53::1\"]".into(),
        ..setup
    });
    if !make(&scene, "bond9", "type bond mode active-backup miimon 20")? {
        println!("this kernel has no bonds");
        return Ok(());
    }
    scene.lab.router.ip(&format!(
        "address delete {LAN_V4}/24 dev {LAN}
         link set {LAN} down
         link set {LAN} master bond9
         link set bond9 up
         address add {LAN_V4}/24 dev bond9\n"
    ))?;
    scene
        .daemon
        .wait_log_count(&format!("bond9: {BOND}\n"), 1)?;
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client: UdpClient = scene.udp_client(Family::V4)?;
    wait_until("it answers over AF_XDP", TIMEOUT, || {
        let before = scene.daemon.metrics();
        let answer = client.ask(&query("www.test.", RecordType::A));
        let now = scene.daemon.metrics();
        let grew = before.and_then(|before| Ok(now?.growth(&before, &Counter::AnswersXdp)));
        answer.is_ok_and(|answer| addresses(&answer) == ["192.0.2.1"])
            && grew.is_ok_and(|grew| grew > 0)
    })
}
