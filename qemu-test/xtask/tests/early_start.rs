//! The image's network: which cards are ports of the home's bridge, and the treatment of an edited `/etc/network/interfaces`:
//! static addresses of br-lan are set before the server starts, anything else is left to ifup.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const OVERLAY: &str = "buildroot/board/xdnsd/rootfs-overlay";
const STATIC: &str = "iface br-lan inet static\n\taddress 192.168.1.1\n\tnetmask 255.255.255.0\n";
const STATIC_V6: &str = "iface br-lan inet6 static\n\tpre-up echo 0 >/proc/sys/net/ipv6/conf/br-lan/accept_dad\n\
                         \taddress fd00:53::1\n\tnetmask 64\n";

fn overlay(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(OVERLAY)
        .join(path)
}

/// A temporary file, removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = name.replace(' ', "-");
        let name = format!("xdnsd-early-{}-{name}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::write(&path, text).expect("a temporary file");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output();
    let output = output.expect("sh runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{script}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A function of `early-start`.
fn function(name: &str) -> String {
    let script = fs::read_to_string(overlay("usr/libexec/xdnsd/early-start")).expect("it is there");
    let begin = format!("\n{name}() {{");
    let (_, function) = script.split_once(&begin).expect("a function");
    let (body, _) = function.split_once("\n}\n").expect("its end");
    format!("{name}() {{{body}\n}}\n")
}

/// What `early-start` does with this number of cards, if `wan` is set.
fn bridged(cards: u32, wan: &str) -> String {
    let folder = env::temp_dir().join(format!("xdnsd-cards-{}-{cards}{wan}", std::process::id()));
    for number in 0..cards {
        let card = folder.join(format!("eth{number}"));
        fs::create_dir_all(&card).expect("a card");
        fs::write(card.join("address"), format!("02::{number}\n")).expect("its address");
    }
    let settings = File::new(&format!("wan-{cards}{wan}"), &format!("XDNSD_WAN={wan}\n"));
    let function = function("bridge")
        .replace("/sys/class/net", &folder.display().to_string())
        .replace("/etc/default/xdnsd", &settings.0.display().to_string());
    let said = shell(&format!(
        "ip() {{ echo \"$*\"; [ \"$2\" != add ] || mkdir {}/br-lan; }}\n{function}bridge",
        folder.display()
    ));
    // Without a card there is no folder.
    let _ = fs::remove_dir_all(&folder);
    said.replace("link ", "").trim().replace('\n', "; ")
}

#[test]
fn all_cards_but_the_providers_are_ports_of_the_homes_bridge() {
    let made = |mac| format!("add br-lan address 02::{mac} type bridge");
    let port = |card| format!("set eth{card} master br-lan up");
    assert_eq!(bridged(0, ""), "");
    assert_eq!(bridged(1, ""), format!("{}; {}", made(0), port(0)));
    let two = format!("{}; {}; set eth1 name wan", made(0), port(0));
    assert_eq!(bridged(2, ""), two);
    let three = format!("{}; {}; {}", made(0), port(0), port(1));
    assert_eq!(bridged(3, ""), format!("{three}; set eth2 name wan"));
    let first = format!("set eth0 name wan; {}; {}; {}", made(1), port(1), port(2));
    assert_eq!(bridged(3, "eth0"), first);
    assert_eq!(
        bridged(2, "usb0"),
        format!("{}; {}; {}", made(0), port(0), port(1))
    );
}

/// Commands by which `early-start` sets addresses before the server starts. Empty if br-lan is left to ifup as a whole.
fn set_early(name: &str, interfaces: &str) -> String {
    let file = File::new(name, interfaces);
    let script = format!(
        "INTERFACES={}\n{}read_addresses\necho $addresses",
        file.0.display(),
        function("read_addresses")
    );
    shell(&script).trim().to_owned()
}

/// Whatever `early-start` does not do is left to ifup, so nothing stays undone.
#[test]
fn only_static_addresses_are_set_early() {
    let shipped = fs::read_to_string(overlay("etc/network/interfaces")).expect("it is there");
    let both = "192.168.1.1/255.255.255.0 fd00:53::1/64";
    assert_eq!(set_early("shipped", &shipped), both);
    let leased = shipped.replace(STATIC, "iface br-lan inet dhcp\n");
    assert_ne!(leased, shipped);
    assert_eq!(set_early("leased", &leased), "");
    let cases = [
        (
            "one word",
            "iface br-lan inet dhcp\n\taddress 192.168.1.1\n",
            "",
        ),
        ("automatic", "auto br-lan\niface br-lan inet dhcp\n", ""),
        ("none", "iface eth1 inet dhcp\n", ""),
        (
            "bridge",
            "auto br0\niface br0 inet static\n\taddress 10.0.0.1\n\tnetmask 255.0.0.0\n",
            "",
        ),
        (
            "manual",
            "iface br-lan inet manual\n\tup ip link set br-lan up\n",
            "",
        ),
    ];
    for (name, text, expected) in cases {
        assert_eq!(set_early(name, text), expected, "{text}");
    }
    for line in [
        "gateway 192.168.1.254",
        "mtu 9000",
        "up echo up",
        "hwaddress 02:00:00:00:00:01",
    ] {
        let text = format!("{STATIC}\t{line}\n{STATIC_V6}");
        assert_eq!(set_early("more", &text), "", "{text}");
        // Some editors omit the last line's end.
        let text = format!("{STATIC_V6}{STATIC}\t{line}");
        assert_eq!(set_early("last", &text), "", "{text}");
    }
    let text = format!("{STATIC_V6}{STATIC}");
    assert_eq!(
        set_early("last-plain", text.trim_end()),
        "fd00:53::1/64 192.168.1.1/255.255.255.0"
    );
    let text = format!(
        "auto lo br-lan\n{STATIC_V6}# a comment\n\n{STATIC}\nauto eth1\niface eth1 inet dhcp\n\tmtu 9000\n"
    );
    assert_eq!(
        set_early("order", &text),
        "fd00:53::1/64 192.168.1.1/255.255.255.0"
    );
    let text = "iface br-lan inet static\n\taddress 10.0.0.1/24\n\tnetmask 255.255.255.0\n";
    assert_eq!(set_early("prefix", text), "10.0.0.1/24");
    let text = "iface br-lan inet static\n\tnetmask 255.255.255.0\n\taddress 10.0.0.1\n";
    assert_eq!(set_early("netmask-first", text), "");
}

/// Interfaces for which `S39home` calls ifup.
fn brought_up(name: &str, interfaces: &str, ifstate: &str) -> String {
    let (interfaces, ifstate) = (
        File::new(&format!("{name}-interfaces"), interfaces),
        File::new(&format!("{name}-ifstate"), ifstate),
    );
    let script = fs::read_to_string(overlay("etc/init.d/S39home")).expect("it is there");
    let script = script
        .replace(
            "/etc/network/interfaces\n",
            &format!("{}\n", interfaces.0.display()),
        )
        .replace("=/run/ifstate\n", &format!("={}\n", ifstate.0.display()));
    shell(&format!(
        "ifup() {{ echo \"ifup $*\"; }}\nset -- start\n{script}"
    ))
}

#[test]
fn home_is_brought_up_where_it_is_not_yet() {
    let up = "Starting home: ifup br-lan\nOK\n";
    assert_eq!(brought_up("dhcp", "iface br-lan inet dhcp\n", ""), up);
    assert_eq!(
        brought_up(
            "other",
            "iface br-lan inet dhcp\n",
            "lo=lo\nbr-lan1=br-lan1\n"
        ),
        up
    );
    assert_eq!(brought_up("done", STATIC, "br-lan=br-lan\n"), "");
    assert_eq!(
        brought_up(
            "none",
            "iface br-lan1 inet dhcp\n# iface br-lan inet dhcp\n",
            ""
        ),
        ""
    );
}
