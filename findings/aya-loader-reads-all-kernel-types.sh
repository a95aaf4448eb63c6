#!/usr/bin/env bash
# aya 0.14.0, on a kernel with BTF (/sys/kernel/btf/vmlinux); seen with Linux 6.18, whose types take 5.5 MB.
# Guess: a program without CO-RE relocations is loaded without the kernel's types, at the latest after `loader.btf(None)`.
# Seen: `EbpfLoader::new()` itself reads and parses the types of the whole kernel, before it can be told not to: the peak of
#   resident memory grows to more than three times the size of the file. On a router with 64 MiB that is much.
set -euo pipefail
[ -r /sys/kernel/btf/vmlinux ] || { echo "this kernel has no BTF"; exit 1; }
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
aya = "=0.14.0"
TOML
cat > src/main.rs <<'RUST'
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
    line.split_whitespace().nth(1).expect("a number").parse().expect("KiB")
}

fn main() {
    let before = peak_kib();
    let mut loader = aya::EbpfLoader::new();
    loader.btf(None);
    println!("{}", peak_kib() - before);
}
RUST
grown=$(cargo run --quiet --release)
types=$(($(stat -c %s /sys/kernel/btf/vmlinux) / 1024))
echo "the loader took $grown KiB, the kernel's types are $types KiB"
[ "$grown" -gt $((3 * types)) ]
