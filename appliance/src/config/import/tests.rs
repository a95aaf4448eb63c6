//! dnsmasq's files: each line is translated or listed, and what comes out is valid.

use super::*;
use crate::config::{Config, Device};
use crate::testing::Folder;

fn devices() -> Devices {
    let device = |name: &str, index, vlan_of: Option<(&str, u16)>, address: &str| Device {
        name: name.into(),
        index,
        vlan_of: vlan_of.map(|(name, id)| (name.into(), id)),
        addresses: vec![address.parse().expect("an address")],
        ..Device::default()
    };
    Devices(vec![
        device("lo", 1, None, "127.0.0.1"),
        device("br-lan", 2, None, "192.168.1.1"),
        device("guests", 3, Some(("br-lan", 7)), "192.168.7.1"),
        device("wan0", 4, None, "192.0.2.7"),
    ])
}

/// The file's name is taken out of what is listed, and so is what is listed for every file.
fn imported(written: &str) -> Imported {
    let folder = Folder::new();
    let file = folder.write("dnsmasq.conf", written);
    let Imported { config, listed } = import(&[file], &devices()).expect("read");
    Config::parse("config", &config).unwrap_or_else(|errors| panic!("{errors}\n{config}"));
    let here = format!("{}/dnsmasq.conf:", folder.path().display());
    Imported {
        config: config.replace(&here[..here.len() - 1], "FILE"),
        listed: listed
            .iter()
            .filter(|line| !line.ends_with(complete::SEE_SPECIAL))
            .map(|line| line.replace(&here, ""))
            .collect(),
    }
}

/// A config in one line.
fn joined(config: &str) -> String {
    let lines = config.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join(" ")
}

/// The names of dnsmasq 2.90's options, as `dnsmasq --help` has them.
const OPTIONS: &str = "listen-address address bogus-priv bogus-nxdomain cache-size conf-file no-daemon domain-needed selfmx \
    expand-hosts filterwin2k filter-A filter-AAAA filter-rr dhcp-range group dhcp-host dhcp-hostsfile dhcp-optsfile \
    dhcp-hostsdir dhcp-optsdir tag-if no-hosts addn-hosts hostsdir interface except-interface dhcp-userclass dhcp-circuitid \
    dhcp-remoteid dhcp-subscrid dhcp-pxe-vendor dhcp-ignore dhcp-broadcast keep-in-foreground dhcp-authoritative \
    dhcp-leasefile localmx mx-host dhcp-boot no-poll no-negcache use-stale-cache strict-order dhcp-option dhcp-option-force \
    port edns-packet-max log-queries query-port port-limit no-resolv resolv-file servers-file server rev-server local domain \
    mx-target local-ttl neg-ttl max-ttl max-cache-ttl min-cache-ttl fast-dns-retry user dhcp-vendorclass version alias \
    srv-host help pid-file dhcp-lease-max localise-queries txt-record ptr-record interface-name bind-interfaces read-ethers \
    enable-dbus enable-ubus no-dhcp-interface no-dhcpv6-interface no-dhcpv4-interface bootp-dynamic dhcp-mac \
    bridge-interface shared-network no-ping dhcp-script dhcp-luascript dhcp-scriptuser script-arp conf-dir conf-script \
    log-facility leasefile-ro dns-forward-max clear-on-reload dhcp-ignore-names dhcp-no-override enable-tftp tftp-root \
    tftp-unique-root tftp-secure tftp-no-fail tftp-max tftp-mtu tftp-no-blocksize tftp-lowercase tftp-port-range \
    tftp-single-port log-dhcp log-async stop-dns-rebind rebind-localhost-ok rebind-domain-ok all-servers dhcp-match \
    dhcp-name-match dhcp-alternate-port naptr-record min-port max-port dhcp-fqdn dhcp-generate-names dhcp-proxy dhcp-relay \
    cname pxe-prompt pxe-service test add-mac strip-mac add-subnet strip-subnet add-cpe-id proxy-dnssec dhcp-sequential-ip \
    dhcp-ignore-clid conntrack dhcp-client-update enable-ra dhcp-duid host-record dynamic-host caa-record dns-rr bind-dynamic \
    auth-server auth-zone auth-ttl auth-soa auth-sec-servers auth-peer ipset nftset connmark-allowlist-enable \
    connmark-allowlist synth-domain dnssec trust-anchor dnssec-debug dnssec-check-unsigned dnssec-no-timecheck \
    dnssec-timestamp dnssec-limits ra-param quiet-dhcp quiet-dhcp6 quiet-ra log-debug local-service dns-loop-detect \
    ignore-address dhcp-ttl dhcp-reply-delay dhcp-rapid-commit dumpfile dumpmask script-on-renewal umbrella quiet-tftp \
    no-round-robin no-ident cache-rr max-tcp-connections";

/// Those that change no line of the config by themselves: they say what others mean. And files that are followed, where none is named.
const SILENT: &[&str] = &[];

#[test]
fn every_option_of_dnsmasq_is_translated_or_listed() {
    let empty = imported("");
    for option in OPTIONS.split_whitespace() {
        for value in ["", "=x", "=1"] {
            let found = imported(&format!("{option}{value}\n"));
            let is_told = found
                .listed
                .iter()
                .any(|line| line.starts_with(&format!("1: {option}: ")));
            let is_other = found.config != empty.config;
            let is_flag = SILENT.contains(&option);
            assert!(
                is_told || is_other || is_flag,
                "{option}{value}: {}\n{:?}",
                found.config,
                found.listed
            );
            let is_known = found
                .listed
                .iter()
                .all(|line| !line.contains("is not known of dnsmasq"));
            assert!(is_known, "{option}: {:?}", found.listed);
        }
    }
    let unknown = imported("dhcpx\nno-such=1\n").listed;
    assert!(
        unknown
            .iter()
            .any(|line| line == "1: dhcpx: is not known of dnsmasq 2.90"),
        "{unknown:?}"
    );
    assert!(
        unknown
            .iter()
            .any(|line| line == "2: no-such: is not known of dnsmasq 2.90"),
        "{unknown:?}"
    );
}

/// Lines of dnsmasq's, and what is in the config that is made of them.
const TRANSLATED: &[(&str, &str)] = &[
    ("interface=br-lan", "name = \"br-lan\""),
    ("interface=guests", "vlan = 7"),
    ("interface=eth1.20", "name = \"eth1\" vlan = 20"),
    (
        "listen-address=192.168.1.1",
        "listen = [ \"192.168.1.1\", ]",
    ),
    ("interface=lo\nport=5353", "port = 5353"),
    ("server=192.0.2.1", "servers = [ \"192.0.2.1\", ]"),
    ("server=192.0.2.1#5353", "servers = [ \"192.0.2.1:5353\", ]"),
    (
        "server=2001:db8::1#5353",
        "servers = [ \"[2001:db8::1]:5353\", ]",
    ),
    ("server=fe80::1%wan0", "servers = [ \"fe80::1%wan0\", ]"),
    ("server=192.0.2.1@wan0", "servers = [ \"192.0.2.1@wan0\", ]"),
    (
        "server=192.0.2.1#5353@198.51.100.7#0",
        "servers = [ \"192.0.2.1:5353@198.51.100.7\", ]",
    ),
    (
        "server=/corp.example/2001:db8::1#5353@wan0@2001:db8::7",
        "servers = [ \"[2001:db8::1]:5353@wan0@2001:db8::7\", ]",
    ),
    (
        "rev-server=10.1.0.0/16,192.0.2.1@wan0",
        "servers = [ \"192.0.2.1@wan0\", ]",
    ),
    (
        "server=/corp.example/x.example/192.0.2.1\nserver=/corp.example/192.0.2.2",
        "name = \"corp.example\" servers = [ \"192.0.2.1\", \"192.0.2.2\", ] domains = [ \"corp.example\", ] \
             [[upstream]] name = \"x.example\" servers = [ \"192.0.2.1\", ] domains = [ \"x.example\", ]",
    ),
    (
        "server=/a.example/b.example/192.0.2.1",
        "servers = [ \"192.0.2.1\", ] domains = [ \"a.example\", \"b.example\", ]",
    ),
    (
        "rev-server=10.1.0.0/16,192.0.2.1",
        "name = \"10.1.0.0/16\" servers = [ \"192.0.2.1\", ] domains = [ \"10.1.0.0/16\", ]",
    ),
    ("local=/lan/", "zones = [ \"lan\", ]"),
    ("server=/lan/", "zones = [ \"lan\", ]"),
    ("resolv-file=/run/resolv", "resolv_file = \"/run/resolv\""),
    ("proxy-dnssec", "trusted = true"),
    ("all-servers", "strategy = \"race\""),
    ("strict-order", "strategy = \"ordered\""),
    ("domain=lan", "search = [ \"lan\", ]"),
    ("domain-needed", "forward_plain_names = false"),
    ("addn-hosts=/etc/more", "\"/etc/more\","),
    ("hostsdir=/etc/hosts.d", "\"/etc/hosts.d\","),
    (
        "dhcp-leasefile=/tmp/leases",
        "dnsmasq_leases = [ \"/tmp/leases\", ]",
    ),
    (
        "dhcp-range=192.168.1.9,192.168.1.99",
        "dnsmasq_leases = [ \"/var/lib/misc/dnsmasq.leases\", ]",
    ),
    ("local-ttl=7", "ttl = 7"),
    ("dhcp-ttl=7", "lease_ttl = 7"),
    (
        "address=/ads.example/",
        "[filter] block = [ \"ads.example\", ]",
    ),
    (
        "address=/ads.example/#",
        "[filter] block = [ \"ads.example\", ] answer = \"zero\"",
    ),
    (
        "address=/ads.example/0.0.0.0\naddress=/ads.example/::",
        "[filter] block = [ \"ads.example\", ] answer = \"zero\"",
    ),
    (
        "address=/nas.lan/192.168.1.2",
        "records = [ \"nas.lan A 192.168.1.2\", \"*.nas.lan A 192.168.1.2\", ]",
    ),
    (
        "host-record=nas,nas.lan,192.168.1.2,fd00::2,60",
        "records = [ \"nas 60 A 192.168.1.2\", \"nas 60 AAAA fd00::2\", \"nas.lan 60 A 192.168.1.2\", \"nas.lan 60 AAAA fd00::2\", ]",
    ),
    (
        "cname=a.lan,b.lan,nas.lan,60",
        "records = [ \"a.lan 60 CNAME nas.lan\", \"b.lan 60 CNAME nas.lan\", ]",
    ),
    (
        "ptr-record=2.1.168.192.in-addr.arpa,nas.lan",
        "\"2.1.168.192.in-addr.arpa PTR nas.lan\",",
    ),
    (
        "ptr-record=_http._tcp.lan,\"New Employee Page._http._tcp.lan\"",
        "\"_http._tcp.lan PTR New\\\\032Employee\\\\032Page._http._tcp.lan\",",
    ),
    (
        "txt-record=a.lan,\"v=1, \\\"x\\\"\",y",
        "\"a.lan TXT \\\"v=1, \\\\\\\"x\\\\\\\"\\\" \\\"y\\\"\",",
    ),
    (
        "srv-host=_ldap._tcp.lan,nas.lan,389,1,2",
        "\"_ldap._tcp.lan SRV 1 2 389 nas.lan\",",
    ),
    ("srv-host=_ldap._tcp.lan", "\"_ldap._tcp.lan SRV 0 0 1 .\","),
    ("mx-host=lan,mail.lan,5", "\"lan MX 5 mail.lan\","),
    (
        "txt-record=a.lan,\" x\\ty\"",
        "\"a.lan TXT \\\" x\\\\009y\\\"\",",
    ),
    ("txt-record=a.lan", "records = [ \"a.lan TXT \\\"\\\"\", ]"),
    (
        "srv-host=_ldap._tcp,nas.lan,389\nsrv-host=_x._tcp.b.lan\ndomain=lan",
        "records = [ \"_ldap._tcp.lan SRV 0 0 389 nas.lan\", \"_x._tcp.b.lan SRV 0 0 1 .\", ]",
    ),
    (
        "srv-host=_ldap._tcp,nas.lan,389",
        "\"_ldap._tcp SRV 0 0 389 nas.lan\",",
    ),
    (
        "address=/*.star.example/192.168.1.2",
        "records = [ \"*.star.example A 192.168.1.2\", ]",
    ),
    (
        "address=/*.star.example/",
        "block = [ \"*.star.example\", ]",
    ),
    ("cache-size=\"150\"", "entries = 150"),
    (
        "server=\"/corp.example/192.0.2.1#5353\"",
        "servers = [ \"192.0.2.1:5353\", ] domains = [ \"corp.example\", ]",
    ),
    ("addn-hosts=\"/etc/a,b\"", "\"/etc/a,b\","),
    (
        "stop-dns-rebind\nrebind-localhost-ok",
        "ranges = [ \"private\", \"link-local\", \"unique-local\", ]",
    ),
    (
        "rebind-domain-ok=/plex.direct/x.example/",
        "allow = [ \"plex.direct\", \"x.example\", ]",
    ),
    (
        "bogus-nxdomain=192.0.2.0/24",
        "bogus_nxdomain = [ \"192.0.2.0/24\", ]",
    ),
    (
        "filter-A\nfilter-AAAA",
        "filter_a = true filter_aaaa = true",
    ),
    (
        "nftset=/vpn.example/.x.example/4#inet#fw4#vpn4, 6#inet#fw4#vpn6\nnftset=/#/t#all",
        "[[nftset]] names = [ \"vpn.example\", \"x.example\", ] sets = [ \"4#inet#fw4#vpn4\", \"6#inet#fw4#vpn6\", ] \
             [[nftset]] names = [ \".\", ] sets = [ \"t#all\", ]",
    ),
    ("cache-size=0", "entries = 0"),
    ("no-negcache", "negative_max_ttl = 0"),
    (
        "max-cache-ttl=60\nmin-cache-ttl=7",
        "max_ttl = 60 min_ttl = 7",
    ),
    ("use-stale-cache=60", "stale_max_ttl = 60"),
    ("no-round-robin", "rotate = false"),
];

#[test]
fn options_become_keys() {
    for (line, expected) in TRANSLATED {
        let found = imported(line);
        let config = joined(&found.config);
        assert!(config.contains(expected), "{line}\n{config}\n{expected}");
    }
    assert!(!imported("no-hosts\n").config.contains("/etc/hosts"));
    let alone = imported("no-resolv\nserver=192.0.2.1\n").config;
    assert!(!alone.contains("resolv_file"), "{alone}");
    let all = imported("no-resolv\nserver=/#/192.0.2.1\ninterface=lo\n");
    let expected = "[[upstream]] servers = [ \"192.0.2.1\", ] [forward]";
    assert!(joined(&all.config).contains(expected), "{}", all.config);
    assert_eq!(all.listed, [""; 0]);
}

/// dnsmasq forwards them.
#[test]
fn what_is_special_here_and_not_there_is_listed() {
    let folder = Folder::new();
    for (written, has_private) in [("", true), ("bogus-priv\n", false)] {
        let file = folder.write("dnsmasq.conf", written);
        let listed = import(&[file], &devices()).expect("read").listed;
        let told = listed.iter().find(|line| line.contains("home.arpa"));
        let told = told.unwrap_or_else(|| panic!("{listed:?}"));
        assert_eq!(told.contains("no bogus-priv"), has_private, "{told}");
    }
}

#[test]
fn what_is_not_dnsmasqs_makes_no_config() {
    let folder = Folder::new();
    for (written, what) in [
        (
            "config dnsmasq\n\toption domain 'lan'\n",
            "looks like OpenWrt's UCI, ",
        ),
        ("server:\n  interface: 0.0.0.0\n", "looks like unbound's "),
        (
            "[[interface]]\nname = \"lo\"\n",
            "is a config of xdnsd's already; ",
        ),
        ("\0", "is no text file; "),
    ] {
        let file = folder.write("a.conf", written);
        let begin = format!("{}: this {what}", file.display());
        let error = import(&[file], &devices()).expect_err(what);
        assert!(error.starts_with(&begin), "{error}");
        assert!(error.ends_with("dnsmasq's configuration is wanted here"));
    }
    assert!(
        imported("")
            .config
            .starts_with("# Made by `xdnsd import` of FILE.\n")
    );
}

/// What the reader of configs refuses is left out, and the line that it comes from is told.
#[test]
fn what_cannot_be_taken_is_listed_with_its_line_and_the_rest_is_taken() {
    let found = imported(
        "server=192.0.2.1\n\nserver=dns.example\nserver=/a.example/b..example/192.0.2.2\nserver=/c.example/nowhere\n\
         interface=no/such\naddress=/bad name/192.168.1.2\nhost-record=nas.lan,192.168.1.2\nbogus-nxdomain=x\n\
         cache-size=100000\nmin-cache-ttl=9999\nlocal-ttl=x\nport=0\naddress=/#/192.0.2.1\ncache-size=7\n\
         server=192.0.2.9@nowhere@\nlisten-address=198.51.100.1\nserver=192.0.2.3@192.0.2.4#55\n",
    );
    for expected in [
        "3: server: upstream.servers: \"dns.example\" is not a server: ",
        "4: server: upstream.domains: ",
        "5: server: upstream.servers: \"nowhere\" is not a server: ",
        "6: interface: interface.name: \"no/such\" cannot be the name of an interface",
        "7: address: local.records: ",
        "9: bogus-nxdomain: forward.bogus_nxdomain: ",
        "10: cache-size: 100000 became 8192, the most that fits into the memory of the default; up to 65536 with memory.mib, see `xdnsd memory`",
        "10: cache-size: FILE:15 says otherwise, and is what counts",
        "11: min-cache-ttl: cache.min_ttl: 9999 is out of range",
        "12: local-ttl: \"x\" is not a number",
        "13: port: DNS is off there; ",
        "14: address: there is no answer for all names",
        "16: server: upstream.servers: \"\" is not the address of one host",
        "18: server: each question has a random port of its own",
        "17: listen-address: no interface of this machine has 198.51.100.1: ",
    ] {
        let is_it = |line: &String| {
            line.replace("15 says", "FILE:15 says")
                .replace("FILE:FILE:", "FILE:")
                .starts_with(expected)
        };
        assert!(
            found.listed.iter().any(is_it),
            "{expected}\n{:#?}",
            found.listed
        );
    }
    for kept in [
        "\"192.0.2.1\",",
        "\"192.0.2.3@192.0.2.4\",",
        "\"a.example\",",
        "\"nas.lan A 192.168.1.2\",",
        "entries = 7",
    ] {
        assert!(found.config.contains(kept), "{kept}\n{}", found.config);
    }
    assert!(
        !found.config.contains("c.example") && !found.config.contains("bogus"),
        "{}",
        found.config
    );
}

/// Blocked names have one answer.
#[test]
fn names_with_another_answer_than_most_are_listed() {
    let found = imported("address=/a.example/#\naddress=/b.example/\naddress=/c.example/0.0.0.0\n");
    assert!(found.config.contains("answer = \"zero\""));
    let why = "2: address: is blocked and gets 0.0.0.0 and :: as most others do (filter.answer)";
    assert!(
        found.listed.iter().any(|line| line == why),
        "{:?}",
        found.listed
    );
}

/// As OpenWrt's init script writes it.
const OPENWRT: &str = "# auto-generated config file from /etc/config/dhcp\nconf-file=/etc/dnsmasq.conf\n\
    dhcp-authoritative\ndomain-needed\nlocalise-queries\nread-ethers\nenable-ubus=dnsmasq\nexpand-hosts\nbind-dynamic\n\
    local-service\nedns-packet-max=1232\ndomain=lan\nlocal=/lan/\naddn-hosts=/tmp/hosts\ndhcp-leasefile=/tmp/dhcp.leases\n\
    resolv-file=/tmp/resolv.conf.d/resolv.conf.auto\nstop-dns-rebind\nrebind-localhost-ok\ndhcp-broadcast=tag:needs-broadcast\n\
    conf-dir=/tmp/dnsmasq.d\nuser=dnsmasq\ngroup=dnsmasq\n\n\ndhcp-ignore-names=tag:dhcp_bogus_hostname\n\
    conf-file=/usr/share/dnsmasq/dhcpbogushostname.conf\n\n\nsrv-host=_vlmcs._tcp,br-lan,1688,0,100\n\
    no-dhcp-interface=pppoe-wan\n";

#[test]
fn openwrts_file_is_a_whole_config() {
    let found = imported(OPENWRT);
    let config = Config::parse("config", &found.config).expect("valid");
    assert_eq!(config.local.zones[0].to_string(), "lan");
    assert_eq!(config.local.search[0].to_string(), "lan");
    assert_eq!(
        config.local.dnsmasq_leases[0].to_string(),
        "/tmp/dhcp.leases"
    );
    let hosts: Vec<_> = config.local.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["/tmp/hosts", "/etc/hosts"]);
    assert_eq!(config.rebind.ranges.len(), 3);
    assert!(!config.local.forward_plain_names);
    let resolv = config.upstreams[0].resolv_file.as_deref();
    assert_eq!(
        resolv,
        Some(std::path::Path::new("/tmp/resolv.conf.d/resolv.conf.auto"))
    );
    for place in [2, 3, 5, 6, 7, 8, 9, 10, 11, 19, 20, 21, 22, 25, 26, 30] {
        let place = format!("{place}: ");
        assert!(
            found.listed.iter().any(|line| line.starts_with(&place)),
            "{place}{:#?}",
            found.listed
        );
    }
}

/// As Pi-hole 5 writes 01-pihole.conf.
const PI_HOLE: &str = "addn-hosts=/etc/pihole/local.list\naddn-hosts=/etc/pihole/custom.list\n\nlocalise-queries\n\nno-resolv\n\n\
    log-queries\nlog-facility=/var/log/pihole/pihole.log\n\nlog-async\ncache-size=10000\nserver=9.9.9.9\nserver=149.112.112.112\n\
    domain-needed\nexpand-hosts\nbogus-priv\nlocal-service\nrev-server=192.168.1.0/24,192.168.1.254\nserver=/lan/192.168.1.254\n\
    server=//192.168.1.254\n";

#[test]
fn pi_holes_file_is_a_whole_config() {
    let found = imported(PI_HOLE);
    let config = Config::parse("config", &found.config).expect("valid");
    assert_eq!(config.upstreams[0].servers.len(), 2);
    assert_eq!(config.upstreams[0].resolv_file.as_deref(), None);
    let names: Vec<_> = config
        .upstreams
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    assert_eq!(names, ["default", "192.168.1.0/24"]);
    let domains = config.upstreams[1].domains.iter().map(ToString::to_string);
    assert_eq!(domains.collect::<Vec<_>>(), ["192.168.1.0/24", "lan"]);
    assert_eq!(config.cache.entries, 8192);
    for place in [4, 8, 9, 11, 12, 16, 17, 18, 21] {
        let place = format!("{place}: ");
        assert!(
            found.listed.iter().any(|line| line.starts_with(&place)),
            "{place}{:#?}",
            found.listed
        );
    }
}

/// Which interfaces are served, and what is said of it.
#[test]
fn interfaces_are_served_as_dnsmasq_does() {
    for (written, expected, told) in [
        (
            "except-interface=wan0",
            &["lo", "br-lan", "br-lan"][..],
            vec![
                "no interface is named: these are served, of which those towards the Internet are to be taken out: lo, br-lan, guests",
            ],
        ),
        (
            "except-interface=wan*,lo\nexcept-interface=ppp*",
            &["br-lan", "br-lan"][..],
            vec![
                "no interface is named: these are served, of which those towards the Internet are to be taken out: br-lan, guests",
                "2: except-interface: is not served anyway",
            ],
        ),
        (
            "interface=br-lan\nexcept-interface=lo",
            &["br-lan"][..],
            vec![],
        ),
        (
            "except-interface=wan0\ninterface=wan0\ninterface=br-lan",
            &["br-lan", "lo"][..],
            vec!["2: interface: except-interface says otherwise, and is what counts"],
        ),
        ("interface=br-lan", &["br-lan", "lo"][..], vec![]),
        (
            "interface=br*",
            &["br-lan", "lo"][..],
            vec!["1: interface: br* is br-lan"],
        ),
        // What is not understood, or not here, has nothing else served.
        (
            "interface=ppp*",
            &["lo"][..],
            vec![
                "1: interface: ppp* is no interface of this machine: write the interface's section",
                "none of the interfaces that are named is here: lo alone is served",
            ],
        ),
        (
            "interface=br-lan:1",
            &["lo"][..],
            vec![
                "1: interface: br-lan:1: each interface is named here, as `ip link` shows it",
                "none of the interfaces that are named is here: lo alone is served",
            ],
        ),
        (
            "listen-address=198.51.100.1",
            &["lo"][..],
            vec![
                "1: listen-address: no interface of this machine has 198.51.100.1: write the interface's section",
                "none of the interfaces that are named is here: lo alone is served",
            ],
        ),
        ("listen-address=192.168.1.1", &["br-lan"][..], vec![]),
        (
            "listen-address=192.168.1.1\nexcept-interface=br-lan",
            &["br-lan"][..],
            vec!["2: except-interface: is not served anyway"],
        ),
        (
            "interface=wan0\nlisten-address=192.168.1.1",
            &["wan0", "br-lan", "lo"][..],
            vec![],
        ),
    ] {
        let found = imported(written);
        let config = Config::parse("config", &found.config).expect("valid");
        let served = config
            .interfaces
            .iter()
            .map(|interface| interface.name.as_str());
        assert_eq!(served.collect::<Vec<_>>(), expected, "{written}");
        assert_eq!(found.listed, told, "{written}");
    }
}

/// dnsmasq adds loopback to the interfaces that are named, with all of its addresses.
#[test]
fn loopback_is_served_whole_beside_an_interface_whatever_address_of_it_is_named() {
    for (written, listen) in [
        ("interface=wan0\nlisten-address=127.0.0.1", &[][..]),
        (
            "interface=wan0\nlisten-address=127.0.0.1\nexcept-interface=lo",
            &["127.0.0.1"][..],
        ),
        ("listen-address=127.0.0.1", &["127.0.0.1"][..]),
    ] {
        let config = Config::parse("config", &imported(written).config).expect("valid");
        let mut interfaces = config.interfaces.iter();
        let lo = interfaces.find(|interface| interface.name.as_str() == "lo");
        let found = &lo.expect("lo is served").listen;
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, listen, "{written}");
    }
}

/// dnsmasq leaves them out, too.
#[test]
fn servers_at_addresses_that_are_served_are_left_out() {
    let found = imported(
        "interface=br-lan\nno-resolv\nserver=192.168.1.1\nserver=192.0.2.1\nserver=127.0.0.1#5353\n\
         server=/own.example/127.0.0.1\n",
    );
    let config = Config::parse("config", &found.config).expect("valid");
    assert_eq!(config.upstreams.len(), 1);
    let servers = config.upstreams[0].servers.iter();
    let servers: Vec<_> = servers.map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.1:53", "127.0.0.1:5353"]);
    let why = "server: is at an address that is served here: it is left out";
    for line in [3, 6] {
        let told = format!("{line}: {why}");
        assert!(found.listed.contains(&told), "{told}: {:?}", found.listed);
    }
}

#[test]
fn servers_beyond_the_most_are_listed_once_with_their_domains() {
    let most = xdnsd_core::limits::UPSTREAMS;
    let mut written = "server=dns.example\nserver=/a.example/192.0.2.200\n".to_owned();
    for number in 1..=most + 1 {
        written += &format!("server=192.0.2.{number}\n");
    }
    written += "interface=lo\n";
    let found = imported(&written);
    let config = Config::parse("config", &found.config).expect("valid");
    assert_eq!(config.upstreams.len(), 1);
    assert_eq!(config.upstreams[0].servers.len(), most);
    let why = format!("server: is too much: at most {most} servers over all groups");
    let is_over = |line: &&String| line.ends_with(&why);
    let over: Vec<_> = found.listed.iter().filter(is_over).collect();
    assert_eq!(
        over,
        [&format!("{}: {why}", most + 3), &format!("2: {why}")]
    );
    assert_eq!(found.listed.len(), 3, "{:#?}", found.listed);
    let found = imported("server=/c.example/d.example/nowhere\ninterface=lo\n").listed;
    assert_eq!(found.len(), 1, "{found:#?}");
}

/// What the longest name says counts in dnsmasq.
#[test]
fn names_below_blocked_ones_and_below_routes_are_asked_as_their_lines_say() {
    for (written, expected, told) in [
        (
            "address=/ads.example/\nserver=/good.ads.example/192.0.2.2",
            "[filter] allow = [ \"good.ads.example\", ] block = [ \"ads.example\", ]",
            vec![],
        ),
        (
            "address=/168.192.in-addr.arpa/\nrev-server=192.168.6.0/23,192.0.2.2",
            "allow = [ \"6.168.192.in-addr.arpa\", \"7.168.192.in-addr.arpa\", ]",
            vec![],
        ),
        // Of one name NXDOMAIN goes behind servers, and addresses before them.
        (
            "address=/ads.example/\nserver=/ads.example/192.0.2.2",
            "[filter] allow = [ \"ads.example\", ] [forward]",
            vec![
                "1: address: FILE:2 has servers for it, or for a name above it: filter.allow goes first",
            ],
        ),
        (
            "address=/ads.example/#\nserver=/ads.example/192.0.2.2",
            "[filter] block = [ \"ads.example\", ] answer = \"zero\" [forward]",
            vec![],
        ),
        (
            "address=/ads.example/a.good.ads.example/\nserver=/good.ads.example/192.0.2.2",
            "[filter] allow = [ \"good.ads.example\", ] block = [ \"ads.example\", ] [forward]",
            vec![
                "1: address: FILE:2 has servers for it, or for a name above it: filter.allow goes first",
            ],
        ),
        (
            "address=/ads.example/\nserver=/good.ads.example/nowhere",
            "[filter] block = [ \"ads.example\", ] [forward]",
            vec!["2: server: upstream.servers: \"nowhere\" is not a server"],
        ),
        (
            "address=/ads.example/\nserver=/ok.ads.example/#",
            "[filter] allow = [ \"ok.ads.example\", ] block = [ \"ads.example\", ]",
            vec![],
        ),
        (
            "server=192.0.2.1\nlocal=/lan/\nserver=/ok.lan/#\nserver=/corp.example/192.0.2.2\nserver=/www.corp.example/#",
            "[[upstream]] name = \"ok.lan\" servers = [ \"192.0.2.1\", ] resolv_file = \"/etc/resolv.conf\" domains = [ \"ok.lan\", \"www.corp.example\", ]",
            vec![],
        ),
        (
            "server=/x.example/#",
            "",
            vec![
                "1: server: changes nothing: what is of no other group is asked of the default one",
            ],
        ),
        (
            "server=/x.example/192.0.2.2\nserver=/x.example/#",
            "domains = [ \"x.example\", ]",
            vec!["2: server: FILE:1 has other servers for it"],
        ),
        (
            "server=/*.star.example/192.0.2.2\nlocal=/*.star.lan/",
            "domains = [ \"star.example\", ]",
            vec![
                "1: server: star.example itself belongs to it as well here",
                "2: local: star.lan itself belongs to it as well here",
            ],
        ),
    ] {
        let found = imported(&format!("{written}\ninterface=lo\n"));
        let config = joined(&found.config);
        assert!(config.contains(expected), "{written}\n{config}");
        assert_eq!(found.listed.len(), told.len(), "{:#?}", found.listed);
        for (listed, told) in found.listed.iter().zip(told) {
            let told = told.replace("FILE:", "");
            assert!(listed.starts_with(&told), "{listed}\n{told}");
        }
    }
}

#[test]
fn names_with_an_address_have_all_types_here_which_is_said_once() {
    let why = "address: other types of names with an address are not asked upstream here, and an address ends at a name that a \
               lease or a later line of a hosts file has below it";
    let told = |written: &str| imported(&format!("interface=lo\n{written}\n")).listed;
    assert_eq!(
        told("address=/a.example/192.0.2.1\naddress=/b.example/192.0.2.1"),
        [format!("2: {why}")]
    );
    assert_eq!(told("address=/nas.lan/192.0.2.1\nlocal=/lan/"), [""; 0]);
    assert_eq!(
        told("host-record=,192.0.2.1"),
        ["2: host-record: a name and an address are wanted"]
    );
    assert_eq!(
        told("mx-host=lan"),
        [
            "2: mx-host: without a target it is mx-target's, or this machine's name, there: write the MX record into local.records"
        ]
    );
}

/// As dnsmasq 2.90 answers.
#[test]
fn names_of_one_label_and_all_names_are_no_names() {
    let plain = "is for names of one label there, which have no address of their own here; see local.forward_plain_names";
    for (written, expected, told) in [
        ("address=//1.2.3.4", "", vec![plain]),
        ("address=//#", "", vec![plain]),
        ("address=//", "forward_plain_names = false", vec![]),
        ("server=//", "forward_plain_names = false", vec![]),
        (
            "domain-needed\nlocal=/lan//",
            "forward_plain_names = false zones = [ \"lan\", ]",
            vec![],
        ),
        (
            "address=//x.example/1.2.3.4",
            "records = [ \"x.example A 1.2.3.4\", \"*.x.example A 1.2.3.4\", ]",
            vec![
                plain,
                "other types of names with an address are not asked upstream here, and an address ends at a name that a lease or \
                 a later line of a hosts file has below it",
            ],
        ),
        (
            "address=/#/x.example/",
            "block = [ \"x.example\", ]",
            vec!["there is no answer for all names"],
        ),
        (
            "address=/./1.2.3.4",
            "",
            vec!["there is no answer for all names"],
        ),
        (
            "server=/./192.0.2.2",
            "[[upstream]] servers = [ \"192.0.2.2\", ]",
            vec![],
        ),
        (
            "server=//x.example/192.0.2.2",
            "domains = [ \"x.example\", ]",
            vec!["names of one label have no servers of their own; see local.forward_plain_names"],
        ),
    ] {
        let found = imported(&format!("{written}\ninterface=lo\n"));
        let config = joined(&found.config);
        assert!(config.contains(expected), "{written}\n{config}");
        assert!(!config.contains("*. "), "{written}\n{config}");
        let listed = found.listed.iter();
        let reasons: Vec<&str> = listed
            .filter_map(|line| line.splitn(3, ": ").nth(2))
            .collect();
        assert_eq!(reasons, told, "{written}");
    }
}

/// In dnsmasq a name with addresses of its own has those, and all that is below it the others.
#[test]
fn an_address_is_for_all_below_names_that_are_there() {
    let folder = Folder::new();
    let hosts = folder.write(
        "hosts",
        "192.168.1.9 nas.h.example\n192.168.1.8 a.b.h.example H.Example\n",
    );
    let written = format!(
        "interface=lo\nno-hosts\naddn-hosts={}\nhost-record=r.h.example,fd00::7\naddress=/h.example/192.0.2.1\n\
         address=/x.h.example/192.0.2.2\nserver=/ok.h.example/192.0.2.53\n\
         server=/usual.h.example/#\n",
        hosts.display()
    );
    let found = imported(&written);
    let config = joined(&found.config);
    let expected = "records = [ \"r.h.example AAAA fd00::7\", \"*.h.example A 192.0.2.1\", \"x.h.example A 192.0.2.2\", \
                    \"*.x.h.example A 192.0.2.2\", \"*.a.b.h.example A 192.0.2.1\", \"b.h.example A 192.0.2.1\", \
                    \"*.b.h.example A 192.0.2.1\", \"*.r.h.example A 192.0.2.1\", \"*.nas.h.example A 192.0.2.1\", ]";
    assert!(config.contains(expected), "{config}\n{expected}");
    assert_eq!(
        found.listed[..4],
        [
            "8: server: changes nothing: what is of no other group is asked of the default one",
            "5: address: has an address of its own, which goes first; below it this one counts",
            "7: server: 5 has an address for all below a name above it, which goes first here",
            "8: server: 5 has an address for all below a name above it, which goes first here"
        ]
    );
}

/// dnsmasq withholds private addresses of every server.
#[test]
fn what_is_withheld_is_withheld_of_groups_as_well() {
    let found = imported("interface=lo\nstop-dns-rebind\nserver=/corp.example/192.0.2.1\n");
    assert!(
        found.config.contains("allow_routed = false"),
        "{}",
        found.config
    );
    assert_eq!(
        found.listed,
        [
            "2: stop-dns-rebind: addresses of documentation (192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24) and 255.255.255.255 \
             are not withheld here"
        ]
    );
}

#[test]
fn every_refused_line_has_its_own_reason() {
    let mut written = "interface=lo\n".to_owned();
    for number in 0..30 {
        written += &format!("address=/bad..{number}/\n");
    }
    let listed = imported(&written).listed;
    assert_eq!(listed.len(), 30, "{listed:#?}");
    for (number, line) in listed.iter().enumerate() {
        let begin = format!("{}: address: filter.block: \"bad..{number}\"", number + 2);
        assert!(line.starts_with(&begin), "{line}\n{begin}");
    }
}

#[test]
fn a_config_that_is_too_large_is_told_to_be_so() {
    let path = "x".repeat(1 << 20);
    let listed = imported(&format!("interface=lo\naddn-hosts=/{path}\n")).listed;
    assert_eq!(listed.len(), 1, "{}", listed.len());
    let begin = "the config has 1048";
    assert!(listed[0].starts_with(begin), "{listed:?}");
    assert!(listed[0].contains(" and no more than 1048576 are read"));
}
