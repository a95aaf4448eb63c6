//! Ports that belong to others: bound by a socket, or reserved by the administrator (`net.ipv4.ip_local_reserved_ports`).
//!
//! The thread for interfaces reads them once a second; a worker checks one with one load. A socket that binds a port in between
//! still gets its packets: the kernel looks for a connected socket first, and a question receives only from its server, and only
//! while its answer is due.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// One bit per port.
static TAKEN: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
const WORDS: usize = (u16::MAX as usize + 1) / 64;

/// Bytes of [`TAKEN`], for the memory budget.
pub const BYTES: usize = size_of::<[AtomicU64; WORDS]>();

/// Where the kernel lists UDP sockets: the second column is ADDRESS:PORT in hexadecimal (proc_net_udp(5)).
const SOCKETS: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];
/// Ports and ranges with commas between them (ip-sysctl.rst).
const KEPT: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// True if the port belongs to another socket or is reserved.
#[must_use]
pub fn is_taken(port: u16) -> bool {
    let word = &TAKEN[usize::from(port) / 64];
    word.load(Ordering::Relaxed) >> (port % 64) & 1 != 0
}

/// Reads both lists from the kernel. A file that cannot be read contributes no ports.
pub fn look_again() {
    let mut taken = [0; WORDS];
    for file in SOCKETS {
        bound(&fs::read_to_string(file).unwrap_or_default(), &mut taken);
    }
    kept(&fs::read_to_string(KEPT).unwrap_or_default(), &mut taken);
    for (word, bits) in TAKEN.iter().zip(taken) {
        word.store(bits, Ordering::Relaxed);
    }
}

fn put(port: u16, taken: &mut [u64; WORDS]) {
    taken[usize::from(port) / 64] |= 1 << (port % 64);
}

/// Adds the ports of bound sockets.
fn bound(list: &str, taken: &mut [u64; WORDS]) {
    for line in list.lines() {
        let local = line.split_whitespace().nth(1);
        let port = local.and_then(|local| local.rsplit_once(':'));
        if let Some(port) = port.and_then(|(_, port)| u16::from_str_radix(port, 16).ok()) {
            put(port, taken);
        }
    }
}

/// Adds reserved ports.
fn kept(list: &str, taken: &mut [u64; WORDS]) {
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
            (first..=last).for_each(|port| put(port, taken));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(read: impl Fn(&mut [u64; WORDS])) -> Vec<u16> {
        let mut taken = [0; WORDS];
        read(&mut taken);
        (0..=u16::MAX)
            .filter(|port| taken[usize::from(*port) / 64] >> (port % 64) & 1 != 0)
            .collect()
    }

    #[test]
    fn ports_of_bound_sockets_are_read() {
        let list = "   sl  local_address rem_address   st tx_queue rx_queue\n\
                    \x20 77: 0100007F:14E9 00000000:0000 07 00000000:00000000 00:00000000\n\
                    \x20 78: 00000000000000000000000001000000:FFFF 0000:0000 07\n\
                    \x20 79: broken\n";
        assert_eq!(ports(|taken| bound(list, taken)), [5353, 65535]);
    }

    #[test]
    fn ports_that_the_administrator_keeps_are_read() {
        assert_eq!(
            ports(|taken| kept("8080,9148-9150,65535\n", taken)),
            [8080, 9148, 9149, 9150, 65535]
        );
        for nothing in ["", "\n", "x", "1-", "-1", "70000"] {
            assert!(
                ports(|taken| kept(nothing, taken)).is_empty(),
                "{nothing:?}"
            );
        }
    }

    #[test]
    fn a_socket_that_is_bound_is_seen() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("bound").port();
        look_again();
        assert!(is_taken(port));
    }
}
