#!/usr/bin/env bash
# heapless 0.9.3, FnvIndexMap, release build.
# Guess: a map whose capacity compiles (a power of two, as the documentation asks) holds so many entries; `insert` gives an
#   error where it does not.
# Seen: with a capacity of 131,072 every one of 100,000 insertions succeeds and `len` is 100,000, but only 65,536 keys are
#   found afterwards: positions are kept in 16 bits, and nothing checks the capacity against that.
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
heapless = "=0.9.3"
TOML
cat > src/main.rs <<'RUST'
use heapless::index_map::FnvIndexMap;
use std::sync::Mutex;

static MAP: Mutex<FnvIndexMap<u32, u32, 131_072>> = Mutex::new(FnvIndexMap::new());

fn main() {
    let mut map = MAP.lock().expect("one thread");
    let inserted = (0..100_000).filter(|&key| map.insert(key, key) == Ok(None)).count();
    let found = (0..100_000).filter(|key| map.get(key) == Some(key)).count();
    println!("inserted {inserted}, len {}, found {found}", map.len());
}
RUST
seen=$(cargo run --quiet --release)
echo "$seen"
[ "$seen" = "inserted 100000, len 100000, found 65536" ]
