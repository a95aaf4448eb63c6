#!/usr/bin/env bash
# AF_XDP, Linux 6.18 on veth.
# Guess: poll() on a socket whose device has been deleted says POLLERR or POLLHUP, as it does for a packet socket (ENETDOWN).
# Seen: it says nothing at all, before and after sendto() has failed with ENXIO. A server that waits in poll() waits for ever: only
#   rtnetlink tells.
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
    let mut poll = libc::pollfd { fd: tx.as_raw_fd(), events: libc::POLLIN | libc::POLLOUT, revents: 0 };
    let mut look = || {
        let ready = unsafe { libc::poll(&mut poll, 1, 500) };
        format!("{ready} ready, events {:#x}", poll.revents)
    };
    println!("there: {}", look());
    let status = std::process::Command::new("ip").args(["link", "delete", "va"]).status();
    assert!(status.expect("ip").success());
    println!("gone: {}", look());
    put(&mut tx, &[0]);
    println!("sendto: {}", wake(&tx));
    println!("gone: {}", look());
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
[ "$seen" = "there: 1 ready, events 0x4
gone: 0 ready, events 0x0
sendto: 6
gone: 0 ready, events 0x0" ]
