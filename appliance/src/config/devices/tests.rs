//! Tests of parsing the kernel's descriptions of devices.

use super::*;
use crate::testing::Folder;
use std::os::unix::fs::symlink;

#[test]
fn the_kernels_vlan_list_is_read() {
    let list = "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                lan0.10        | 10  | lan0\nqinq           | 7  | lan0.10\n";
    let devices: Vec<_> = vlan_devices(list).collect();
    assert_eq!(devices, [("lan0.10", 10, "lan0"), ("qinq", 7, "lan0.10")]);
    assert_eq!(vlan_devices("").count(), 0);
}

#[test]
fn an_address_with_a_label_is_its_devices() {
    for (label, device) in [
        ("lan0", "lan0"),
        ("lan0:1", "lan0"),
        ("lan0.10:a:b", "lan0.10"),
    ] {
        assert_eq!(device_of(label), device);
    }
}

#[test]
fn whatever_has_ports_but_a_vrf_takes_what_they_receive() {
    let folder = Folder::new();
    let device = |name: &str, kind: &str, master: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir_all(&place).expect("a folder");
        let uevent = format!("{kind}INTERFACE={name}\nIFINDEX=5\n");
        std::fs::write(place.join("uevent"), uevent).expect("written");
        if !master.is_empty() {
            let link = place.join("master");
            symlink(format!("../{master}"), link).expect("a link");
        }
    };
    for (name, kind, master, expected) in [
        ("br-lan", "DEVTYPE=bridge\n", "", None),
        ("bond0", "DEVTYPE=bond\n", "br-lan", Some("bridge br-lan")),
        ("team0", "", "", None),
        ("blue", "DEVTYPE=vrf\n", "", None),
        ("lan0", "", "br-lan", Some("bridge br-lan")),
        ("lan0.10", "DEVTYPE=vlan\n", "br-lan", Some("bridge br-lan")),
        ("eth1", "", "bond0", Some("bond bond0")),
        ("eth2", "", "team0", Some("team0")),
        ("eth3", "", "blue", None),
        ("eth4", "", "", None),
        // Its bridge was deleted just now.
        ("eth5", "", "gone", None),
    ] {
        device(name, kind, master);
        let found = port_of(folder.path(), name);
        assert_eq!(found.as_deref(), expected, "{name}");
    }
    assert_eq!(port_of(folder.path(), "nobody"), None);
}

#[test]
fn the_kernels_list_of_ipv6_addresses_is_read() {
    let list = "fd530000000000000000000000000001 02 40 00 80     lan0\n\
                fd530000000000000000000000000002 02 40 00 c0     lan0\n\
                fd530000000000000000000000000003 02 40 00 c8     lan0\n\
                fd530000000000000000000000000004 02 40 00 88     lan0\n\
                fd530000000000000000000000000005 02 40 00 44     lan0\n\
                fe800000000000000000000000000001 03 40 20 a0     wan0\n\
                fe800000000000000000000000000002 03 40 20 40     wan0\nx\n\n";
    let found: Vec<String> = tentative(list)
        .map(|(name, addr)| format!("{addr} {name}"))
        .collect();
    let expected = [
        "fd53::2 lan0",
        "fd53::3 lan0",
        "fd53::4 lan0",
        "fe80::2 wan0",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_last_address_of_a_subnet_is_its_broadcast_address() {
    let of = |addr: &str, mask: &str| {
        let parse = |text: &str| text.parse::<IpAddr>().ok();
        broadcast(parse(addr)?, parse(mask)).map(|addr| addr.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of("10.53.0.1", "255.255.255.0"), some("10.53.0.255"));
    assert_eq!(of("10.53.1.1", "255.255.252.0"), some("10.53.3.255"));
    assert_eq!(of("10.53.0.1", "255.255.255.252"), some("10.53.0.3"));
    // RFC 3021: two hosts and no broadcast address.
    assert_eq!(of("10.53.0.1", "255.255.255.254"), None);
    assert_eq!(of("10.53.0.1", "255.255.255.255"), None);
    assert_eq!(of("10.53.0.1", ""), None);
    assert_eq!(of("fd53::1", "ffff:ffff:ffff:ffff::"), None);
}

#[test]
fn on_link_are_the_networks_of_addresses_and_of_peers() {
    let of = |addr: &str, mask: &str, peer: &str| {
        let parse = |text: &str| text.parse::<IpAddr>().ok();
        let addr = parse(addr).expect("an address");
        let found: Vec<Network> = networks(addr, parse(mask), parse(peer)).collect();
        let shown = disjoint(found.iter());
        let shown = shown.iter();
        let shown = shown.map(|network| format!("{}/{}", network.first(), network.length()));
        shown.collect::<Vec<_>>().join(" ")
    };
    let lan = ("192.168.1.1", "255.255.255.0");
    assert_eq!(of(lan.0, lan.1, ""), "192.168.1.0/24");
    let host = "255.255.255.255";
    assert_eq!(of("10.0.0.1", host, "10.9.0.2"), "10.0.0.1/32 10.9.0.2/32");
    assert_eq!(of("fd00::1", "ffff:ffff:ffff:ffff::", ""), "fd00::/64");
    assert_eq!(of("10.0.0.1", "0.0.0.0", "10.0.0.2"), "");
    assert_eq!(of("fd00::1", "::", ""), "");
    assert_eq!(of("10.0.0.1", "", ""), "");
}

#[test]
fn networks_that_another_one_holds_are_left_out() {
    let network = |text: &str, length| Network::of(text.parse().expect("an address"), length);
    let all = [
        network("192.168.1.1", 24),
        network("10.0.0.1", 8),
        network("fd00::1", 64),
        network("10.1.0.1", 16),
        network("10.0.0.1", 32),
        network("192.168.2.1", 24),
        network("192.168.1.1", 24),
        network("fd00::1", 128),
    ];
    let kept = [
        network("10.0.0.0", 8),
        network("192.168.1.0", 24),
        network("192.168.2.0", 24),
        network("fd00::", 64),
    ];
    assert_eq!(disjoint(all.iter()), kept);
}

#[test]
fn this_machine_has_a_loopback_device() {
    let devices = Devices::read().expect("the kernel answers");
    let loopback = devices.named("lo").expect("every namespace has lo");
    assert_eq!(loopback.index, 1);
    assert_eq!(loopback.mac, Some([0; 6]));
    assert_eq!(loopback.vlan_of, None);
    let own = Network::of(Ipv4Addr::LOCALHOST.into(), 8);
    let is_up = loopback.addresses.contains(&Ipv4Addr::LOCALHOST.into());
    assert!(!is_up || loopback.networks.contains(&own), "{loopback:?}");
}

/// Another link may have the same link-local address, so those of devices that are not served do not exclude a client.
#[test]
fn a_link_local_address_is_ours_on_a_served_device_alone() {
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
    let device = |index: u32, addresses: [&str; 3]| Device {
        name: format!("lan{index}"),
        index,
        addresses: addresses.map(parse).into(),
        ..Device::default()
    };
    let served = device(1, ["fe80::1", "169.254.0.1", "192.168.1.1"]);
    let other = device(2, ["fe80::2", "169.254.0.2", "203.0.113.5"]);
    let devices = Devices(vec![served.clone(), other]);
    let ours = ["fe80::1", "169.254.0.1", "192.168.1.1", "203.0.113.5"].map(parse);
    assert_eq!(own_addresses(&devices, &[&served]), ours);
    let martians = martian_sources(&devices, &[&served]);
    assert_eq!(
        martians,
        BTreeSet::from(ours).into_iter().collect::<Vec<_>>()
    );
}
