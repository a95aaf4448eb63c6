#!/usr/bin/env bash
# Linux 6.18.44, IPv4 addresses of a device that is renamed; nix 0.31.3, ifaddrs::getifaddrs, with glibc's getifaddrs(3).
# Guess: after `ip link set a name b` all addresses of the device are listed with the interface name b, as if_nameindex has it.
# Seen: the first address gets the name, every further one a label of the kernel's own making (b:2), though nobody ever set a
#   label. getifaddrs gives the label as the interface's name, and no interface in if_nameindex is called that: who matches
#   addresses to interfaces by name loses them. if_nametoindex takes the label all the same, and gives the right index.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
nix = { version = "=0.31.3", features = ["net"] }
TOML
cat > src/main.rs <<'RUST'
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{if_nameindex, if_nametoindex};

fn main() {
    let interfaces = if_nameindex().unwrap();
    for found in getifaddrs().unwrap() {
        let v4 = found.address.and_then(|address| address.as_sockaddr_in().map(|v4| v4.ip()));
        if let Some(v4) = v4.filter(|v4| v4.octets()[0] == 192) {
            let name = found.interface_name;
            let is_listed = interfaces.iter().any(|interface| interface.name().to_str() == Ok(&name[..]));
            println!("{v4} {name} {is_listed} {}", if_nametoindex(&name[..]).is_ok());
        }
    }
}
RUST
cargo build --quiet
seen=$(unshare --net bash -euc '
    ip link add before type veth peer name other
    ip address add 192.0.2.1/24 dev before
    ip address add 192.0.2.2/24 dev before
    ip address add 192.0.2.3/24 dev before
    ip link set before name after
    target/debug/finding')
echo "$seen"
[ "$seen" = "192.0.2.1 after true true
192.0.2.2 after:2 false true
192.0.2.3 after:3 false true" ]
