//! Tests of whole files: what is accepted, what is refused and with which message.

mod include;
mod lists;
mod messages;
mod nft_sets;
mod old_names;
mod policy;
mod protect;
mod rows;
mod syntax;
mod views;

use std::net::IpAddr;

use xdnsd_abi::rate::Rate;
use xdnsd_core::forward::via::Egress;
use xdnsd_core::policy::on_link::Network;

use super::*;

const SMALLEST: &str = "[interface]\nname = \"lan0\"\n[upstream]\nservers = [\"192.0.2.1\"]\n";

fn errors_of(text: &str) -> Vec<String> {
    match Config::parse("f", text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(errors) => errors.faults().iter().map(Fault::to_string).collect(),
    }
}

/// The smallest file with `line` after the heading of its interface section.
fn with_interface_key(line: &str) -> String {
    SMALLEST.replace("[interface]\n", &format!("[interface]\n{line}\n"))
}

fn devices() -> Devices {
    let length = |addr: IpAddr| match addr {
        IpAddr::V4(_) => 24,
        IpAddr::V6(v6) if v6.is_loopback() => 128,
        IpAddr::V6(_) => 64,
    };
    let device = |name: &str, index, vlan_of: Option<(&str, u16)>, addresses: &[&str]| Device {
        name: name.into(),
        index,
        vlan_of: vlan_of.map(|(name, id)| (name.into(), id)),
        port_of: None,
        bridge: None,
        port: None,
        addresses: addresses
            .iter()
            .map(|addr| addr.parse().expect("an address"))
            .collect(),
        broadcasts: Vec::new(),
        mac: Some([2, 0, 0, 0, 0, index as u8]),
        tentative: Vec::new(),
        is_strict: false,
        forwarding: Forwarding::default(),
        networks: addresses
            .iter()
            .map(|addr| addr.parse().expect("an address"))
            .map(|addr: IpAddr| Network::of(addr, length(addr)))
            .collect(),
    };
    Devices(vec![
        device("lo", 1, None, &["127.0.0.1", "::1"]),
        device("lan0", 2, None, &["10.53.0.1", "fd53::1", "fe80::1"]),
        device("wan0.10", 6, Some(("wan0", 10)), &["192.0.2.10"]),
        device("lan0.10", 3, Some(("lan0", 10)), &["10.53.10.1"]),
        device("deep", 4, Some(("lan0.10", 7)), &["10.53.7.1"]),
        device("bare", 5, None, &[]),
    ])
}

/// For a port of a bridge the message names the bridge, and the port is not served; the others are.
#[test]
fn a_port_of_a_bridge_serves_nobody_and_its_bridge_is_named() {
    let text = SMALLEST.replace(
        "[interface]\nname = \"lan0\"\n",
        "[[interface]]\nname = \"lan0\"\n[[interface]]\nname = \"lan0\"\nvlan = 10\n",
    );
    let config = Config::parse("f", &text).expect("valid");
    let mut devices = devices();
    let served = |devices: &Devices| {
        let plan = config.plan(devices);
        let on = plan
            .endpoints
            .iter()
            .map(|endpoint| endpoint.device.clone());
        let on: std::collections::BTreeSet<_> = on.collect();
        let missing: Vec<_> = plan.missing.faults().iter().map(Fault::to_string).collect();
        (on.into_iter().collect::<Vec<_>>(), missing)
    };
    assert_eq!(served(&devices).0, ["lan0", "lan0.10"]);
    for (port, rest, line) in [("lan0", "lan0.10", 2), ("lan0.10", "lan0", 4)] {
        let device = devices.0.iter_mut().find(|device| device.name == port);
        let device = device.expect("it is there");
        device.port_of = Some("bridge br-lan".into());
        let (on, missing) = served(&devices);
        assert_eq!(on, [rest]);
        let [fault] = missing.as_slice() else {
            panic!("{missing:?}")
        };
        let says = format!(
            "{port} is a port of bridge br-lan, which has the addresses and gets the queries"
        );
        assert!(
            fault.contains(&says) && fault.contains(&format!("f:{line}:")),
            "{fault}"
        );
        let device = devices.0.iter_mut().find(|device| device.name == port);
        device.expect("it is there").port_of = None;
    }
}

#[test]
fn the_smallest_file_has_every_default() {
    let config = Config::parse("f", SMALLEST).expect("valid");
    let [interface] = config.interfaces.as_slice() else {
        panic!("one interface")
    };
    assert_eq!(
        (interface.vlan, interface.port, interface.xdp),
        (0, 53, XdpMode::Auto)
    );
    assert!(interface.listen.is_empty() && interface.zero_copy == ZeroCopy::Off);
    assert_eq!(config.upstreams[0].name, "default");
    assert_eq!(
        config.upstreams[0].servers,
        ["192.0.2.1".parse().expect("a server")]
    );
    assert_eq!(
        config.cache.entries as usize,
        xdnsd_core::limits::CACHE_ENTRIES
    );
    assert_eq!(config.cache.snapshot.as_deref(), None);
    assert_eq!(
        config.control.socket.as_deref(),
        Some(Path::new("/run/xdnsd/control.sock"))
    );
    assert_eq!(config.log.level, LogLevel::Info);
}

#[test]
fn every_fault_has_its_line_its_key_and_what_is_allowed() {
    let text = "[[interface]]\nname = \"lan0\"\nvlan = 5000\nprot = 53\nlisten = [\"10.53.0.1\", \"10.53.0\"]\n\
                xdp = \"fast\"\n[upstream]\nservers = []\n[cashe]\n[cache]\nentries = -1\nmax_ttl = \"1d\"\n";
    let errors = errors_of(text);
    let allowed = "name, vlan, inner_vlan, listen, port, xdp, zero_copy, route_check";
    assert_eq!(errors, [
        "f:3:8: interface.vlan: 5000 is out of range; allowed: an integer from 0 to 4094".to_owned(),
        format!("f:4:1: interface.prot: unknown key, did you mean \"port\"?; allowed: {allowed}"),
        "f:5:24: interface.listen: \"10.53.0\" is not an IP address; allowed: a list of 0 to 256, each an IPv4 or IPv6 address in quotes".to_owned(),
        "f:6:7: interface.xdp: `fast` is not a word that is known here; allowed: \"auto\", \"native\", \"generic\", \"off\"".to_owned(),
        "f:8:1: upstream.servers: the list is empty; allowed: at least one server, or resolv_file = \"/etc/resolv.conf\", for example".to_owned(),
        "f:9:2: cashe: unknown section, did you mean \"cache\"?; allowed: interface, upstream, forward, cache, memory, local, filter, rebind, dns64, nftset, access, view, edns, tcp, rate_limit, shield, protect, identity, log, statistics, control, web, security, include".to_owned(),
        "f:11:11: cache.entries: -1 is out of range; allowed: an integer from 0 to 65536".to_owned(),
        "f:12:11: cache.max_ttl: \"1d\": seconds, an integer from 1 to 604800, such as 86400".to_owned(),
    ]);
}

#[test]
fn a_shield_is_off_by_default_and_its_faults_are_named() {
    let config = Config::parse("f", SMALLEST).expect("valid");
    assert_eq!(config.shield.syn_cookies, SynCookiesWord::Off);
    assert!(config.shield.ports.is_empty());
    let state_file = config.shield.state_file.as_deref();
    assert_eq!(state_file, Some(Path::new("/var/lib/xdnsd/tcp_syncookies")));
    let with = |lines: &str| format!("{SMALLEST}[shield]\n{lines}\n");
    let all = "syn_cookies = \"auto\"\nports = [22, 443]\nsyn_threshold = 9\ncalm_secs = 5\nstate_file = \"\"";
    let config = Config::parse("f", &with(all)).expect("valid").shield;
    assert_eq!(config.syn_cookies, SynCookiesWord::Auto);
    assert_eq!((config.syn_threshold, config.calm_secs), (9, 5));
    assert_eq!(
        (config.ports, config.state_file.as_deref()),
        (vec![22, 443], None)
    );
    let once = "each port from 1 to 65535, once";
    for (lines, problem) in [
        ("ports = [0]", "shield.ports: nobody listens on port 0"),
        ("ports = [22, 22]", "shield.ports: this port stands twice"),
        (
            "ports = [53]",
            "shield.ports: it is answered on, and guarded anyway",
        ),
    ] {
        let errors = errors_of(&with(lines));
        assert!(
            errors[0].contains(problem) && errors[0].ends_with(once),
            "{errors:?}"
        );
    }
    let without =
        SMALLEST
            .replacen('\n', "\nxdp = \"off\"\n", 2)
            .replacen("xdp = \"off\"\n", "", 1);
    let errors = errors_of(&format!("{without}[shield]\nsyn_cookies = \"always\"\n"));
    assert!(errors[0].contains("no interface has one"), "{errors:?}");
    assert!(Config::parse("f", &without).is_ok());
}

#[test]
fn rate_limits_are_off_by_default_and_hits_are_not_limited_before_misses() {
    let rules = |lines: &str| {
        let config = Config::parse("f", &format!("{SMALLEST}[rate_limit]\n{lines}\n"));
        config.map(|config| config.settings().rates)
    };
    let rules_of = |lines| rules(lines).unwrap_or_else(|errors| panic!("{errors}"));
    let off = rules_of("");
    assert_eq!((off.queries, off.misses), (Rate::NONE, Rate::NONE));
    let misses = rules_of("misses = 20\nburst_secs = 3\nslips = 0");
    assert_eq!(
        (misses.queries, misses.misses, misses.slips),
        (Rate::NONE, Rate::new(20, 3), Rate::NONE)
    );
    let both = rules_of("queries = 20\nmisses = 20");
    assert_eq!(
        (both.queries, both.slips),
        (Rate::new(20, 5), Rate::new(5, 1))
    );
    let allowed = "at least rate_limit.misses, which is to be at least 1; or 0";
    for (lines, problem) in [
        ("queries = 20", "hits would be limited where misses are not"),
        (
            "misses = 21\nqueries = 20",
            "hits would be limited before 21 misses are",
        ),
    ] {
        let errors = errors_of(&format!("{SMALLEST}[rate_limit]\n{lines}\n"));
        let line = 5 + lines.lines().count();
        let expected = format!("f:{line}:1: rate_limit.queries: {problem}; allowed: {allowed}");
        assert_eq!(errors, [expected]);
    }
    let errors = errors_of(&format!("{SMALLEST}[rate_limit]\nburst_secs = 0\n"));
    assert!(
        errors[0].starts_with("f:6:14: rate_limit.burst_secs: 0 "),
        "{errors:?}"
    );
}

#[test]
fn what_is_not_toml_has_its_line() {
    let errors = errors_of("[interface]\nname = \"lan0\"\nport = \n");
    assert!(errors[0].starts_with("f:3:"), "{errors:?}");
    let errors = errors_of(&format!("{SMALLEST}servers = [\"192.0.2.2\"]\n"));
    assert_eq!(
        errors,
        ["f:5:1: upstream.servers: `servers` stands twice, first in line 4"]
    );
    let errors = errors_of(&format!("{SMALLEST}[cache]\n[cache]\n"));
    assert_eq!(errors, ["f:6:2: `cache` stands twice, first in line 5"]);
}

#[test]
fn a_missing_key_and_a_missing_section_are_named() {
    let errors = errors_of("[[interface]]\nport = 53\n");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with("f: upstream: no section says whom to ask"),
        "{errors:?}"
    );
    assert!(
        errors[1].starts_with("f:1:1: interface.name: is missing and has no default"),
        "{errors:?}"
    );
}

#[test]
fn a_section_that_is_no_section_is_refused() {
    assert!(
        errors_of(&format!("cache = 3\n{SMALLEST}"))[0].starts_with("f:1:9: cache: is a section")
    );
    assert!(
        errors_of(&format!("{SMALLEST}[[log]]\n"))[0]
            .contains("log: is a section that stands once")
    );
    assert!(
        errors_of(&format!("interface = [3]\n{}", &SMALLEST[26..]))[0]
            .contains("interface: is a section")
    );
}

#[test]
fn both_ends_of_every_range_hold() {
    for (line, valid) in [
        ("vlan = 0", true),
        ("vlan = 4094", true),
        ("vlan = 4095", false),
        ("port = 0", false),
        ("port = 1", true),
        ("port = 65535", true),
        ("port = 65536", false),
        ("vlan = 10\ninner_vlan = 20", true),
        ("inner_vlan = 20", false),
        ("listen = []", true),
        ("listen = [\"0.0.0.0\"]", false),
        ("listen = [\"::\"]", false),
        ("listen = [\"224.0.0.251\"]", false),
        ("listen = [\"::ffff:10.53.0.1\"]", false),
        ("listen = [\"10.53.0.1\", \"10.53.0.1\"]", false),
        ("listen = \"10.53.0.1\"", false),
        ("zero_copy = true", true),
        ("zero_copy = \"auto\"", true),
        ("zero_copy = \"yes\"", false),
    ] {
        assert_eq!(
            Config::parse("f", &with_interface_key(line)).is_ok(),
            valid,
            "{line}"
        );
    }
}

#[test]
fn sections_of_one_device_agree() {
    let second = |lines: &str| {
        format!(
            "[[interface]]\nname = \"lan0\"\nport = 53\n[[interface]]\nname = \"lan0\"\n{lines}\n[upstream]\nservers = [\"192.0.2.1\"]\n"
        )
    };
    assert!(Config::parse("f", &second("vlan = 10")).is_ok());
    assert!(Config::parse("f", &second("port = 5353")).is_ok());
    assert!(
        errors_of(&second("listen = [\"10.53.0.1\"]"))[0].contains("each once"),
        "the first takes all addresses"
    );
    assert_eq!(
        errors_of(&second("vlan = 10\nxdp = \"off\"")),
        [
            "f:7:1: interface.xdp: lan0 has another value in an earlier section; allowed: \"auto\" here too"
        ]
    );
    for (written, as_before) in [("true", false), ("\"auto\"", false), ("false", true)] {
        let text = second(&format!("vlan = 10\nzero_copy = {written}"));
        let problem = "f:7:1: interface.zero_copy: lan0 has another value in an earlier section; allowed: false here too";
        let expected: &[&str] = if as_before { &[] } else { &[problem] };
        let found = Config::parse("f", &text).err();
        let found: Vec<String> = found.map(|_| errors_of(&text)).unwrap_or_default();
        assert_eq!(found, expected, "{written}");
    }
}

#[test]
fn asking_ourselves_is_refused() {
    let text = with_interface_key("listen = [\"192.0.2.1\"]");
    assert_eq!(
        errors_of(&text),
        [
            "f:5:12: upstream.servers: 192.0.2.1:53 is this forwarder itself, on lan0; allowed: servers elsewhere"
        ]
    );
    let other_port = text.replace("[interface]", "[interface]\nport = 54");
    assert!(Config::parse("f", &other_port).is_ok(), "another port");
}

#[test]
fn servers_out_of_a_long_file_leave_a_place_to_other_groups() {
    let text = "[[interface]]\nname = \"lo\"\n[[upstream]]\nresolv_file = \"/many\"\n\
                [[upstream]]\nname = \"corp\"\nresolv_file = \"/one\"\ndomains = [\"corp.example\"]\n\
                [[upstream]]\nname = \"stat\"\nservers = [\"192.0.2.1\", \"192.0.2.2\"]\ndomains = [\"stat.example\"]\n";
    let config = Config::parse("f", text).expect("valid");
    let server = |number: usize| format!("198.51.100.{number}").parse().expect("a server");
    let many: Vec<_> = (1..=21).map(server).collect();
    let plan = config.plan_with(&devices(), &[many, vec![server(99)], Vec::new()]);
    let counts: Vec<usize> = plan.servers.iter().map(Vec::len).collect();
    let places = xdnsd_core::limits::UPSTREAMS;
    assert_eq!(counts, [places - 3, 1, 2]);
    let told: Vec<&String> = plan.left_out.iter().map(|left| &left.problem).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&format!("{} servers are too many", 21 - (places - 3))));
}

/// A DHCP client wrote the file: whoever wrote the config can do nothing about it.
#[test]
fn servers_of_a_file_that_cannot_be_asked_are_no_fault_of_the_config() {
    let folder = crate::testing::Folder::new();
    let file = folder.write(
        "resolv.conf",
        "nameserver 198.51.100.1\nnameserver 10.53.0.1\nnameserver fe80::2%nodev\n",
    );
    let text = "[[interface]]\nname = \"lan0\"\n[[upstream]]\nresolv_file = \"/r\"\n";
    let config = Config::parse("f", text).expect("valid");
    let found = ResolvConf::read(&file).expect("read");
    let plan = config.plan_with(&devices(), std::slice::from_ref(&found.servers));
    let told = plan
        .left_out
        .iter()
        .map(|left| found.told(left).to_string());
    let told: Vec<_> = told.collect();
    let file = file.display();
    assert_eq!(
        told,
        [
            format!("{file}:2: 10.53.0.1:53 is this forwarder itself: it is not asked"),
            format!("{file}:3: [fe80::2%nodev]:53: no such interface: it is not asked"),
        ]
    );
    assert_eq!(plan.missing.faults(), []);
    assert_eq!(plan.servers[0].len(), 1);
}

#[test]
fn bounds_that_cross_are_refused() {
    let errors = errors_of(&format!("{SMALLEST}[cache]\nmin_ttl = 60\nmax_ttl = 30\n"));
    assert_eq!(
        errors,
        ["f:6:1: cache.min_ttl: 60 is more than max_ttl; allowed: at most 30"]
    );
    let equal = format!("{SMALLEST}[cache]\nmin_ttl = 60\nmax_ttl = 60\n");
    assert!(Config::parse("f", &equal).is_ok());
    let late = |keys: &str| format!("{SMALLEST}[forward]\ngive_up_ms = 1000\n[cache]\n{keys}\n");
    assert_eq!(
        errors_of(&late("stale_after_ms = 1000")),
        [
            "f:8:1: cache.stale_after_ms: 1000 is not before forward.give_up_ms; allowed: less than 1000"
        ]
    );
    assert!(Config::parse("f", &late("stale_after_ms = 999")).is_ok());
    assert!(Config::parse("f", &late("serve_stale = false")).is_ok());
    // The place is that of the key that is written.
    assert_eq!(
        errors_of(&late("")),
        [
            "f:6:1: forward.give_up_ms: 1000 is not after cache.stale_after_ms, by default 1800; allowed: more than 1800"
        ]
    );
}

#[test]
fn an_empty_listen_is_every_address_of_the_device() {
    let config = Config::parse("f", SMALLEST).expect("valid");
    let plan = config.plan(&devices());
    let shown: Vec<String> = plan
        .endpoints
        .iter()
        .map(|end| format!("{} {} {}", end.addr, end.ifindex, end.device_ifindex))
        .collect();
    assert_eq!(shown, ["10.53.0.1 2 2", "fd53::1 2 2", "fe80::1 2 2"]);
    let on_link = plan
        .links
        .on_link
        .iter()
        .map(|network| network.first().to_string());
    let on_link: Vec<String> = on_link.collect();
    assert_eq!(on_link, ["10.53.0.0", "fd53::", "fe80::"]);
    assert_eq!(
        plan.servers,
        [[std::net::SocketAddr::from(([192, 0, 2, 1], 53)).into()]]
    );
}

#[test]
fn vlan_ids_lead_to_the_device_that_has_the_address() {
    let config =
        Config::parse("f", &with_interface_key("vlan = 10\ninner_vlan = 7")).expect("valid");
    let plan = config.plan(&devices());
    let [endpoint] = plan.endpoints.as_slice() else {
        panic!("one address: {plan:?}")
    };
    assert_eq!(
        (
            endpoint.device.as_str(),
            endpoint.ifindex,
            endpoint.device_ifindex
        ),
        ("deep", 2, 4)
    );
}

#[test]
fn what_this_machine_lacks_is_named_with_what_it_has() {
    let plan = |text: &str| {
        let config = Config::parse("f", text).expect("valid in itself");
        config.plan(&devices()).missing.to_string()
    };
    assert_eq!(
        plan(&SMALLEST.replace("lan0", "lan1")),
        "f:2:1: interface.name: no interface lan1 on this machine; allowed: lo, lan0, wan0.10, lan0.10, deep, bare"
    );
    assert_eq!(
        plan(&with_interface_key("vlan = 11")),
        "f:2:1: interface.vlan: no VLAN device with ID 11 on lan0; allowed: 0, 10"
    );
    assert_eq!(
        plan(&with_interface_key(
            "listen = [\"10.53.0.1\", \"10.53.0.2\"]"
        )),
        "f:2:24: interface.listen: 10.53.0.2 is not an address of lan0; allowed: 10.53.0.1, fd53::1, fe80::1"
    );
    assert_eq!(
        plan(&SMALLEST.replace("lan0", "bare")),
        "f:1:1: interface: bare has no address; allowed: a device with an address"
    );
    assert_eq!(
        plan(&SMALLEST.replace("192.0.2.1", "fe80::2%wan0")),
        "f:4:12: upstream.servers: [fe80::2%wan0]:53: no such interface; allowed: lo, lan0, wan0.10, lan0.10, deep, bare"
    );
    assert_eq!(
        plan(&SMALLEST.replace("192.0.2.1", "10.53.0.1")),
        "f:4:12: upstream.servers: 10.53.0.1:53 is this forwarder itself; allowed: servers elsewhere"
    );
}

/// A server is asked once the way that it names is there.
#[test]
fn the_way_to_a_server_is_one_of_this_machine() {
    let mut devices = devices();
    devices.0[1].addresses.push([10, 53, 0, 9].into());
    devices.0[5].port_of = Some("bridge br0".into());
    let plan = |server: &str| {
        let text = SMALLEST.replace("192.0.2.1", server);
        let plan = Config::parse("f", &text).expect("valid in itself");
        let plan = plan.plan(&devices);
        (plan.servers, plan.missing.to_string())
    };
    for (server, interface, source) in [
        ("192.0.2.1@lan0", 2, None),
        ("192.0.2.1@10.53.0.9", 0, Some("10.53.0.9")),
        ("192.0.2.1@lan0@10.53.0.9", 2, Some("10.53.0.9")),
        ("127.0.0.1@127.0.0.3", 0, Some("127.0.0.3")),
    ] {
        let (servers, missing) = plan(server);
        assert_eq!(missing, "", "{server}");
        let source = source.map(|source| source.parse().expect("an address"));
        let egress = Egress { interface, source };
        assert_eq!(servers[0][0].egress, egress, "{server}");
    }
    for (server, problem) in [
        (
            "192.0.2.1@wan0",
            "192.0.2.1:53@wan0: no such interface; allowed: lo, lan0, wan0.10, lan0.10, deep, bare",
        ),
        (
            "192.0.2.1@lan0@10.53.0.8",
            "192.0.2.1:53@lan0@10.53.0.8: 10.53.0.8 is not an address of this machine; allowed: ",
        ),
        (
            "192.0.2.1@bare",
            "192.0.2.1:53@bare: bare is a port of bridge br0, which has the addresses; allowed: br0",
        ),
    ] {
        let (servers, missing) = plan(server);
        let begin = format!("f:4:12: upstream.servers: {problem}");
        assert!(missing.starts_with(&begin), "{missing}");
        assert!(servers[0].is_empty(), "{server}");
    }
    let two = "192.0.2.1@lan0\", \"192.0.2.1";
    assert_eq!(plan(two).0[0].len(), 2);
}

#[test]
fn every_default_is_allowed_by_its_own_key() {
    for section in schema::SECTIONS {
        for key in section.keys {
            let Some(default) = key.default else { continue };
            // No servers at all are none in a file either.
            let beside = match key.name {
                "servers" => "resolv_file = \"/r\"\n",
                _ => "",
            };
            let text = format!("[{}]\n{} = {}\n{beside}", section.name, key.name, default());
            let errors = Config::parse("f", &text)
                .err()
                .map(|errors| errors.to_string())
                .unwrap_or_default();
            assert!(!errors.contains("f:2:"), "{text}{errors}");
        }
    }
}

fn examples() -> Vec<std::path::PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let examples = root.join("config").read_dir().expect("config/");
    let mut entries: Vec<_> = examples
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(entries.len() >= 4, "{entries:?}");
    entries.push(root.join("buildroot/board/xdnsd/rootfs-overlay/etc/xdnsd/xdnsd.toml"));
    entries
}

#[test]
fn the_examples_are_valid() {
    for path in examples() {
        if let Err(errors) = Config::load(&path) {
            panic!("{errors}");
        }
    }
}

/// Users copy the first section to add a second one.
#[test]
fn the_examples_have_double_brackets_where_a_section_may_stand_again() {
    let many = schema::SECTIONS.iter().filter(|section| section.many);
    let single: Vec<String> = many.map(|section| format!("[{}]", section.name)).collect();
    for path in examples() {
        let text = std::fs::read_to_string(&path).expect("text");
        let wrong = text
            .lines()
            .find(|line| single.contains(&line.trim().into()));
        assert_eq!(wrong, None, "{}", path.display());
    }
}

/// A source whose route is another one belongs to no client there. The other examples show the minimum.
#[test]
fn the_examples_for_a_network_check_sources_by_the_routes() {
    let least = ["minimal.toml", "lab.toml", "xdnsd.toml"];
    let whole = |path: &std::path::PathBuf| !least.iter().any(|name| path.ends_with(name));
    let examples: Vec<_> = examples().into_iter().filter(whole).collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for path in examples {
        let config = Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        let outside = |interface: &&Interface| interface.name.to_string() != "lo";
        for interface in config.interfaces.iter().filter(outside) {
            let check = interface.route_check;
            assert_eq!(check, RouteCheck::Always, "{}", path.display());
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let error = |path: &str| {
        Config::load(Path::new(path))
            .err()
            .map(|errors| errors.to_string())
    };
    assert_eq!(
        error("/nonexistent/x.toml").as_deref(),
        Some("/nonexistent/x.toml: is not there")
    );
    let directory = std::env::temp_dir();
    assert!(error(&directory.display().to_string()).is_some());
    let packed = directory.join(format!("xdnsd-packed-{}.toml", std::process::id()));
    std::fs::write(&packed, b"\x1f\x8b\x08\0").expect("a temporary file");
    let shown = error(&packed.display().to_string()).unwrap_or_default();
    std::fs::remove_file(&packed).expect("it was written");
    assert!(shown.contains(": is compressed (gzip): "), "{shown}");
    let path = directory.join(format!("xdnsd-latin1-{}.toml", std::process::id()));
    std::fs::write(&path, b"[log]\nlevel = \"\xfc\"\n").expect("a temporary file");
    let shown = error(&path.display().to_string()).unwrap_or_default();
    std::fs::remove_file(&path).expect("it was written");
    assert!(shown.ends_with(":2:10: not UTF-8"), "{shown}");
}
