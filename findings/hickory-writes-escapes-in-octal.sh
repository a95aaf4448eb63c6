#!/usr/bin/env bash
# hickory-proto 0.26.3 (0.25.2 as well), beside domain 0.12.3.
# Guess: a byte that has to be escaped in a name is written \DDD in decimal (RFC 1035 section 5.1), so what one crate writes the
#   other reads as the same name.
# Seen: hickory-proto writes and reads octal. It writes the DNS-SD instance "My Printer" as My\040Printer, which domain, as any
#   reader of zone files, takes for "My(Printer"; and it refuses
#   My\032Printer, which is right.
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
domain = "=0.12.3"
hickory-proto = { version = "=0.26.3", default-features = false, features = ["std"] }
TOML
cat > src/main.rs <<'RUST'
use std::str::FromStr;

fn main() {
    let hickory = hickory_proto::rr::Name::from_labels([&b"My Printer"[..], b"lan"]).expect("a name");
    let written = hickory.to_string();
    let domain = domain::base::Name::<Vec<u8>>::from_str(&written).expect("a name");
    let first = String::from_utf8_lossy(domain.first().as_slice()).into_owned();
    let decimal = r"My\032Printer.lan.";
    let right = domain::base::Name::<Vec<u8>>::from_str(decimal).expect("a name");
    let right = String::from_utf8_lossy(right.first().as_slice()).into_owned();
    let refused = hickory_proto::rr::Name::from_ascii(decimal).is_err();
    println!("written {written} read {first:?}; {decimal} is {right:?} to domain, refused by hickory: {refused}");
}
RUST
seen=$(cargo run --quiet)
echo "$seen"
[ "$seen" = 'written My\040Printer.lan. read "My(Printer"; My\032Printer.lan. is "My Printer" to domain, refused by hickory: true' ]
