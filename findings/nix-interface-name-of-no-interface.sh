#!/usr/bin/env bash
# nix 0.31.3, net::if_::if_indextoname, on Linux.
# Guess: for an index that no interface has it gives Err(ENXIO), as if_indextoname(3) says and as the signature promises.
# Seen: it gives Ok with an empty name. The C function gives NULL for an error, and the result is compared with the pointer that
#   mmap(2) gives for one. if_nametoindex and if_nameindex of the same module tell errors.
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
use nix::net::if_::{if_indextoname, if_nametoindex};

fn main() {
    println!("{:?} {:?} {:?}", if_indextoname(1), if_indextoname(999_999), if_nametoindex("no-such-thing"));
}
RUST
seen=$(cargo run --quiet)
echo "$seen"
[ "$seen" = 'Ok("lo") Ok("") Err(ENODEV)' ]
