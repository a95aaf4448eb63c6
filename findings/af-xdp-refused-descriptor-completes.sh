#!/usr/bin/env bash
# AF_XDP, TX in aligned mode, Linux 6.18 on veth.
# Guess: a descriptor that the kernel refuses, since its frame crosses the end of a chunk, is counted in tx_invalid_descs and
#   never comes back on the completion ring, as nothing was sent.
# Seen: it is counted, and it comes back as completed. Whoever takes each completion for a frame that has left, or takes the chunk
#   back after reading tx_invalid_descs, has it twice.
# Needs root.
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
libc = "=0.2.191"
xdpilone = "=1.3.0"
TOML
cat > src/main.rs <<'RUST'
use std::num::NonZeroU32;
use std::ptr::NonNull;

use xdpilone::xdp::XdpDesc;
use xdpilone::{DeviceQueue, IfInfo, RingTx, Socket, SocketConfig, Umem, UmemConfig};

const CHUNK: u32 = 2048;
const XDP_COPY: u16 = 2;

fn put(tx: &mut RingTx, addresses: &[u64]) {
    let mut writer = tx.transmit(addresses.len() as u32);
    writer.insert(addresses.iter().map(|&addr| XdpDesc { addr, len: 64, options: 0 }));
    writer.commit();
}

/// One wake-up for the TX ring: "ok", or the number of the error.
fn wake(tx: &RingTx) -> String {
    let sent = unsafe { libc::sendto(tx.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    match sent {
        0 => "ok".into(),
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(0).to_string(),
    }
}

#[allow(dead_code)]
fn completed(device: &mut DeviceQueue) -> u32 {
    let mut reader = device.complete(1024);
    let mut count = 0;
    while reader.read().is_some() {
        count += 1;
    }
    reader.release();
    count
}

fn main() {
    let layout = std::alloc::Layout::from_size_align(1 << 20, 4096).expect("a layout");
    let memory = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory");
    for chunk in 0..(1 << 20) / CHUNK as usize {
        // To everybody, of the type for experiments.
        let head = [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
        unsafe { memory.as_ptr().add(chunk * CHUNK as usize).copy_from(head.as_ptr(), head.len()) };
    }
    let config = UmemConfig { frame_size: CHUNK, ..UmemConfig::default() };
    let umem = unsafe { Umem::new(config, NonNull::slice_from_raw_parts(memory, 1 << 20)) }.expect("a UMEM");
    let mut device = IfInfo::invalid();
    device.from_name(c"va").expect("a device");
    let socket = Socket::with_shared(&device, &umem).expect("a socket");
    #[allow(unused_mut, unused_variables)]
    let mut device = umem.fq_cq(&socket).expect("fill and completion ring");
    let rings = SocketConfig { rx_size: None, tx_size: NonZeroU32::new(256), bind_flags: XDP_COPY };
    let user = umem.rx_tx(&socket, &rings).expect("a TX ring");
    umem.bind(&user).expect("bound");
    let mut tx = user.map_tx().expect("mapped");
    put(&mut tx, &[u64::from(CHUNK) - 32]);
    let result = wake(&tx);
    let mut statistics = [0_u64; 6];
    let mut len = 48;
    unsafe { libc::getsockopt(tx.as_raw_fd(), libc::SOL_XDP, libc::XDP_STATISTICS, statistics.as_mut_ptr().cast(), &mut len) };
    println!("{result}: {} invalid, {} completed", statistics[2], completed(&mut device));
}
RUST
cargo build --quiet
seen=$(unshare --net sh -c '
    ip link set lo up
    ip link add va type veth peer name vb
    ip link set va up
    ip link set vb up
    until ip link show va | grep -q "state UP"; do sleep 0.1; done
    target/debug/finding')
echo "$seen"
[ "$seen" = "ok: 1 invalid, 1 completed" ]
