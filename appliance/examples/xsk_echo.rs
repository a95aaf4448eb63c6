//! The bare AF_XDP echo: what the socket alone can do, the yardstick of `cargo xtask bench xsk`.
//!
//! `xsk_echo INTERFACE` redirects every frame of queue 0 to itself, swaps addresses and ports where an IPv4 or IPv6
//! UDP datagram has them, and sends the frame back. It looks at nothing else; the checksums stay right, because a sum
//! does not depend on the order of its parts.

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::error::Error;
use std::os::fd::AsFd;
use xdnsd::os::xsk::{Batch, BindMode, Frame, Kick, Opener, Options, Pool, Xsk};
use xdnsd_lab::bpf::{Attach, Redirect};

const ETHERNET_LEN: usize = 14;
const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Source addresses of IPv4 and IPv6, and the source port, counted from the start of the IP header without options.
const IPV4_SOURCE: usize = 12;
const IPV6_SOURCE: usize = 8;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// How long the kernel is given to take more frames.
const AGAIN_MS: u8 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: xsk_echo INTERFACE")?;
    let redirect = Redirect::attach(if_nametoindex(interface.as_str())?, Attach::Native)?;
    let options = Options {
        interface: &interface,
        queue: 0,
        mode: BindMode::Copy,
    };
    let claimed = Opener::claim(0, 1);
    let (mut opener, mut pool) = claimed.ok_or("the slot is free at the start")?;
    let mut xsk = opener.open(&options)?;
    xsk.join(&mut pool);
    redirect.set_socket(0, &xsk)?;
    println!("ready: {} mode", xsk.mode());
    let mut batch = Batch::new();
    loop {
        if xsk.receive(&mut pool, &mut batch) == 0 {
            let mut fds = [PollFd::new(xsk.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE)?;
            continue;
        }
        // From the back: the order of a batch makes no difference here.
        while let Some(frame) = batch.pop() {
            echo(&mut xsk, &mut pool, frame);
        }
        if !flush(&mut xsk, &mut pool)? {
            return Ok(());
        }
    }
}

fn echo(xsk: &mut Xsk, pool: &mut Pool, mut frame: Frame) {
    let len = frame.len();
    turn_around(&mut frame.bytes_mut()[..len]);
    if let Err(frame) = xsk.transmit(pool, frame, len) {
        xsk.release(pool, frame);
    }
}

/// Sends the batch. False: the interface is gone.
fn flush(xsk: &mut Xsk, pool: &mut Pool) -> Result<bool, Box<dyn Error>> {
    match xsk.flush(pool) {
        Kick::Idle | Kick::Done | Kick::Down => Ok(true),
        Kick::Again => {
            let mut fds = [PollFd::new(xsk.as_fd(), PollFlags::POLLOUT)];
            poll(&mut fds, AGAIN_MS)?;
            Ok(true)
        }
        Kick::Gone => Ok(false),
        Kick::Failed(errno) => Err(errno.into()),
    }
}

/// Swaps MAC addresses, IP addresses and ports.
fn turn_around(frame: &mut [u8]) {
    let Some((ethernet, packet)) = frame.split_at_mut_checked(ETHERNET_LEN) else {
        return;
    };
    swap(ethernet, 0, 6);
    if ethernet[12..] == ETHER_TYPE_IPV6 {
        swap(packet, IPV6_SOURCE, 16);
        swap(packet, IPV6_LEN, 2);
    } else {
        swap(packet, IPV4_SOURCE, 4);
        swap(packet, IPV4_LEN, 2);
    }
}

/// Swaps two neighbouring fields of `len` bytes, if they are there.
fn swap(bytes: &mut [u8], at: usize, len: usize) {
    if let Some(fields) = bytes.get_mut(at..at + 2 * len) {
        fields.rotate_left(len);
    }
}
