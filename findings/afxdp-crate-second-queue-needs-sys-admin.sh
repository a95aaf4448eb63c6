#!/usr/bin/env bash
# Crate afxdp 0.4.0 with libbpf-sys 0.3.0-2, Linux 6.18 on veth.
# Guess: with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON, which are all that AF_XDP and an XDP program ask for, a process
#   that can open a socket on one queue of an interface can open one on the next.
# Seen: the first socket opens, and its library attaches a program. For the second one the library looks for that program by its
#   number, with BPF_PROG_GET_FD_BY_ID, which the kernel leaves to CAP_SYS_ADMIN: EPERM, until the process has that as well.
# Needs root, a C compiler, make, and the headers of libelf and zlib.
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
afxdp = "=0.4.0"
libbpf-sys = "=0.3.0-2"
libc = "=0.2.191"
TOML
cat > src/main.rs <<'RUST'
use afxdp::mmap_area::{MmapArea, MmapAreaOptions};
use afxdp::socket::{Socket, SocketOptions};
use afxdp::umem::Umem;

/// Opens a socket on a queue of `va`, keeps it, and says what came of it.
fn open(queue: usize) -> String {
    let (area, _buffers) = MmapArea::<()>::new(1024, 2048, MmapAreaOptions { huge_tlb: false }).ok().expect("memory");
    let (umem, _completion, _fill) = Umem::new(area, 256, 512).ok().expect("a UMEM");
    let options = SocketOptions { copy_mode: true, ..SocketOptions::default() };
    match Socket::new(umem, "va", queue, 512, 256, options) {
        Ok(parts) => {
            std::mem::forget((parts, _completion, _fill));
            "ok".into()
        }
        Err(_) => std::io::Error::last_os_error().raw_os_error().unwrap_or(0).to_string(),
    }
}

fn main() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) };
    println!("{} {}", open(0), open(1));
    // As the process ends: what the crate does where a socket is dropped is another story.
    unsafe { libc::_exit(0) };
}
RUST
cargo build -q
# What each says of queue 0 and of queue 1.
cat > try.sh <<'SH2'
set -eu
ip link add va numrxqueues 2 numtxqueues 2 type veth peer name vb numrxqueues 2 numtxqueues 2
ip link set va up
ip link set vb up
setpriv --bounding-set "-all,$1" target/debug/finding
SH2
try() {
    unshare --net bash try.sh "$1"
}
caps=+net_admin,+net_raw,+bpf,+perfmon,+sys_resource
EPERM=1
without=$(try "$caps" 2>> log) || { cat log; exit 1; }
with=$(try "$caps,+sys_admin" 2>> log) || { cat log; exit 1; }
echo "without CAP_SYS_ADMIN: $without; with it: $with"
[ "$without" = "ok $EPERM" ] && [ "$with" = "ok ok" ]
