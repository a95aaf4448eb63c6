//! The image's treatment of an edited `/etc/network/interfaces`: static addresses of eth0 are set before the server starts,
//! anything else is left to ifup.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const OVERLAY: &str = "buildroot/board/xdnsd/rootfs-overlay";
const STATIC: &str = "iface eth0 inet static\n\taddress 192.168.1.1\n\tnetmask 255.255.255.0\n";
const STATIC_V6: &str = "iface eth0 inet6 static\n\tpre-up echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad\n\
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

/// Commands by which `early-start` sets addresses before the server starts. Empty if eth0 is left to ifup as a whole.
fn set_early(name: &str, interfaces: &str) -> String {
    let file = File::new(name, interfaces);
    let script = fs::read_to_string(overlay("usr/libexec/xdnsd/early-start")).expect("it is there");
    let (_, function) = script
        .split_once("\nread_addresses() {")
        .expect("a function");
    let (body, _) = function.split_once("\n}\n").expect("its end");
    let script = format!(
        "INTERFACES={}\nread_addresses() {{{body}\n}}\nread_addresses\necho $addresses",
        file.0.display()
    );
    shell(&script).trim().to_owned()
}

/// Whatever `early-start` does not do is left to ifup, so nothing stays undone.
#[test]
fn only_static_addresses_are_set_early() {
    let shipped = fs::read_to_string(overlay("etc/network/interfaces")).expect("it is there");
    let both = "192.168.1.1/255.255.255.0 fd00:53::1/64";
    assert_eq!(set_early("shipped", &shipped), both);
    let leased = shipped.replace(STATIC, "iface eth0 inet dhcp\n");
    assert_ne!(leased, shipped);
    assert_eq!(set_early("leased", &leased), "");
    let cases = [
        (
            "one word",
            "iface eth0 inet dhcp\n\taddress 192.168.1.1\n",
            "",
        ),
        ("automatic", "auto eth0\niface eth0 inet dhcp\n", ""),
        ("none", "iface eth1 inet dhcp\n", ""),
        (
            "bridge",
            "auto br0\niface br0 inet static\n\taddress 10.0.0.1\n\tnetmask 255.0.0.0\n",
            "",
        ),
        (
            "manual",
            "iface eth0 inet manual\n\tup ip link set eth0 up\n",
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
        "auto lo eth0\n{STATIC_V6}# a comment\n\n{STATIC}\nauto eth1\niface eth1 inet dhcp\n\tmtu 9000\n"
    );
    assert_eq!(
        set_early("order", &text),
        "fd00:53::1/64 192.168.1.1/255.255.255.0"
    );
    let text = "iface eth0 inet static\n\taddress 10.0.0.1/24\n\tnetmask 255.255.255.0\n";
    assert_eq!(set_early("prefix", text), "10.0.0.1/24");
    let text = "iface eth0 inet static\n\tnetmask 255.255.255.0\n\taddress 10.0.0.1\n";
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
    let up = "Starting home: ifup eth0\nOK\n";
    assert_eq!(brought_up("dhcp", "iface eth0 inet dhcp\n", ""), up);
    assert_eq!(
        brought_up("other", "iface eth0 inet dhcp\n", "lo=lo\neth01=eth01\n"),
        up
    );
    assert_eq!(brought_up("done", STATIC, "eth0=eth0\n"), "");
    assert_eq!(
        brought_up(
            "none",
            "iface eth01 inet dhcp\n# iface eth0 inet dhcp\n",
            ""
        ),
        ""
    );
}
