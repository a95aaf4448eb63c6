//! Processes that hold an address that we want, by name and PID, from the socket lists in /proc.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};

use super::files::place::Obstacle;
use crate::text;

/// Most bytes read of a socket list. Sockets beyond are not found.
const BYTES_MAX: usize = 4 << 20;
/// Most sockets of other processes that are remembered.
const REMEMBERED_MAX: usize = 16;
/// Lowest unprivileged port, unless the kernel says otherwise.
const FREE_PORT: u16 = 1024;

/// The two protocols over which queries arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Datagrams: several sockets may share an address.
    Udp,
    /// Connections: one socket listens on an address.
    Tcp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }

    /// The kernel's lists of sockets: IPv4, and IPv6, whose wildcard may hold IPv4 as well.
    fn lists(self) -> [&'static str; 2] {
        match self {
            Self::Udp => ["/proc/net/udp", "/proc/net/udp6"],
            Self::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        }
    }
}

/// Explains why `address` cannot be listened on, and what to do about it.
#[must_use]
pub fn explain(protocol: Protocol, address: SocketAddr, error: &io::Error) -> String {
    let what = format!("{} {address}", protocol.name());
    if error.kind() == io::ErrorKind::AddrInUse {
        let holders = holders(protocol, address);
        let by = if holders.is_empty() {
            "another process has it; as root `ss -lnp` says which".to_owned()
        } else {
            format!("{} has it", holders.join(" and "))
        };
        return format!("{what}: bind: Address already in use: {by}");
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        let free = free_port();
        return format!(
            "{what}: bind: Permission denied: needs CAP_NET_BIND_SERVICE, root, or a port from {free} on"
        );
    }
    format!("{what}: {error}")
}

/// The obstacle to listening on `address`, if any, other than xdnsd itself, which ends before this one starts. Binds the address
/// for a moment.
#[must_use]
pub fn obstacle(protocol: Protocol, address: SocketAddr) -> Option<Obstacle> {
    let bound = match protocol {
        Protocol::Udp => UdpSocket::bind(address).map(drop),
        Protocol::Tcp => TcpListener::bind(address).map(drop),
    };
    let error = bound.err().filter(|error| {
        [io::ErrorKind::AddrInUse, io::ErrorKind::PermissionDenied].contains(&error.kind())
    })?;
    if is_shared(protocol, address) {
        return None;
    }
    let own = fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let is_own = |holder: &String| holder.split(" (").next() == Some(own.trim());
    let holders = holders(protocol, address);
    let is_ours = !holders.is_empty() && holders.iter().all(is_own);
    (!is_ours).then(|| Obstacle {
        what: explain(protocol, address, &error),
        kind: error.kind(),
    })
}

/// The process that shares an address with us: each gets a part of the datagrams.
#[must_use]
pub fn sharer(protocol: Protocol, address: SocketAddr) -> Option<String> {
    let is_free = || UdpSocket::bind(address).is_ok();
    if protocol == Protocol::Tcp || is_free() || !is_shared(protocol, address) {
        return None;
    }
    let own = fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let others = holders(protocol, address);
    let is_own = |holder: &String| holder.split(" (").next() == Some(own.trim());
    if !others.is_empty() && others.iter().all(is_own) {
        return None;
    }
    let by = match others.as_slice() {
        [] => "another process".to_owned(),
        names => names.join(" and "),
    };
    Some(format!(
        "{} {address}: {by} has it too and shares it (SO_REUSEPORT): a part of the queries goes there",
        protocol.name()
    ))
}

/// True if the holder lets other sockets of the same account share the address.
fn is_shared(protocol: Protocol, address: SocketAddr) -> bool {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let shared = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(family, SockType::Datagram, flags, None)?;
        setsockopt(&socket, sockopt::ReusePort, &true)?;
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        }
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
    };
    protocol == Protocol::Udp && shared().is_ok()
}

fn free_port() -> u16 {
    let set = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    set.ok()
        .and_then(|port| port.trim().parse().ok())
        .unwrap_or(FREE_PORT)
}

/// `name (pid N)` of the processes that listen on `address`, or on the wildcard.
fn holders(protocol: Protocol, address: SocketAddr) -> Vec<String> {
    let inodes = inodes(protocol, |found| {
        let addr = found.address.ip().to_canonical();
        found.address.port() == address.port() && (addr == address.ip() || addr.is_unspecified())
    });
    let holders = processes_with(&inodes);
    if !holders.is_empty() {
        return holders;
    }
    let remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = remembered
        .iter()
        .filter(|(inode, _)| inodes.contains(inode));
    let mut holders: Vec<String> = known.flat_map(|(_, holders)| holders.clone()).collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

/// Sockets on the wanted ports with their processes, as found by [`remember`].
static REMEMBERED: Mutex<Vec<(String, Vec<String>)>> = Mutex::new(Vec::new());

/// Notes which processes have a socket on these ports, while /proc of others is still visible: under Landlock it is not.
pub fn remember(ports: &[u16]) {
    let is_meant = |found: &Socket<'_>| ports.contains(&found.address.port());
    let found = [Protocol::Udp, Protocol::Tcp].map(|protocol| inodes(protocol, is_meant));
    let found = found.into_iter().flatten().take(REMEMBERED_MAX);
    let found = found.map(|inode| {
        let holders = processes_with(std::slice::from_ref(&inode));
        (inode, holders)
    });
    *REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner) = found.collect();
}

/// Listening sockets among those that `is_meant` selects, as link targets of descriptors in /proc.
fn inodes(protocol: Protocol, is_meant: impl Fn(&Socket<'_>) -> bool) -> Vec<String> {
    let mut inodes = Vec::new();
    for list in protocol.lists() {
        let Ok(bytes) = fs::read(list) else { continue };
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX)]);
        let listens = |found: &Socket<'_>| protocol == Protocol::Udp || found.state == "0A";
        let found = text.lines().filter_map(socket);
        let found = found.filter(|found| listens(found) && is_meant(found));
        inodes.extend(found.map(|found| format!("socket:[{}]", found.inode)));
    }
    inodes
}

/// A line of /proc/net/udp or tcp (proc_net(5)).
struct Socket<'a> {
    address: SocketAddr,
    state: &'a str,
    inode: &'a str,
}

fn socket(line: &str) -> Option<Socket<'_>> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let address = local_address(columns.next()?)?;
    let state = columns.nth(1)?;
    let inode = columns.nth(5)?;
    Some(Socket {
        address,
        state,
        inode,
    })
}

/// Parses an address of 32-bit words in native byte order, in hexadecimal, and the port.
fn local_address(column: &str) -> Option<SocketAddr> {
    let (addr, port) = column.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..addr.len()).step_by(8) {
        let word = u32::from_str_radix(addr.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
    let v6 = || <[u8; 16]>::try_from(bytes.as_slice()).map(|bytes| Ipv6Addr::from(bytes).into());
    Some(SocketAddr::new(v4.or_else(|_| v6()).ok()?, port))
}

/// Processes that have one of these descriptors open. Only root sees those of other accounts.
fn processes_with(targets: &[String]) -> Vec<String> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_one = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors
            .into_iter()
            .flatten()
            .flatten()
            .any(|descriptor| {
                let target = fs::read_link(descriptor.path()).unwrap_or_default();
                targets
                    .iter()
                    .any(|wanted| target.as_os_str() == wanted.as_str())
            })
    };
    let mut pids: Vec<u32> = pids
        .filter(|&pid| pid != own && !targets.is_empty())
        .filter(has_one)
        .collect();
    pids.sort_unstable();
    let name = |pid: &u32| {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} (pid {pid})", text::bytes(name.trim_ascii()))
    };
    pids.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_of_sockets_is_read() {
        let little = cfg!(target_endian = "little");
        let v4 = if little {
            "0101A8C0:0035"
        } else {
            "C0A80101:0035"
        };
        let v6 = if little {
            "000011FD000000000000000001000000:0035"
        } else {
            "FD110000000000000000000000000001:0035"
        };
        for (column, address) in [(v4, "192.168.1.1:53"), (v6, "[fd11::1]:53")] {
            let line = format!(
                "  12: {column} 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 2 0"
            );
            let found = socket(&line).expect("a socket");
            assert_eq!(found.address.to_string(), address);
            assert_eq!((found.state, found.inode), ("0A", "4711"));
        }
        assert!(socket("  sl  local_address rem_address   st tx_queue").is_none());
        assert!(socket("").is_none());
    }

    #[test]
    fn a_right_that_is_missing_is_named() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let told = explain(
            Protocol::Udp,
            "192.168.1.1:53".parse().expect("an address"),
            &error,
        );
        assert!(
            told.starts_with("UDP 192.168.1.1:53: bind: Permission denied: needs CAP_NET_BIND_SERVICE, root, or a port from "),
            "{told}"
        );
    }

    /// This process itself is left out.
    #[test]
    fn an_address_that_is_free_or_ours_is_no_obstacle() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let udp = UdpSocket::bind(loopback).expect("a free port");
        let tcp = TcpListener::bind(loopback).expect("a free port");
        let addresses = (udp.local_addr(), tcp.local_addr());
        let (Ok(for_udp), Ok(for_tcp)) = addresses else {
            panic!("{addresses:?}")
        };
        let said = obstacle(Protocol::Udp, for_udp).expect("it is in use");
        assert!(
            said.what
                .contains("Address already in use: another process has it"),
            "{said:?}"
        );
        assert!(obstacle(Protocol::Tcp, for_tcp).is_some());
        drop((udp, tcp));
        assert_eq!(obstacle(Protocol::Udp, for_udp), None);
        assert_eq!(obstacle(Protocol::Tcp, for_tcp), None);
    }

    #[test]
    fn an_address_that_somebody_shares_is_no_obstacle_and_told() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = socket::socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        );
        let socket = socket.expect("a socket");
        setsockopt(&socket, sockopt::ReusePort, &true).expect("set");
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).expect("bound");
        let socket = UdpSocket::from(socket);
        let address = socket.local_addr().expect("its address");
        assert_eq!(obstacle(Protocol::Udp, address), None);
        let told = sharer(Protocol::Udp, address).expect("told");
        assert!(
            told.ends_with("shares it (SO_REUSEPORT): a part of the queries goes there"),
            "{told}"
        );
        assert_eq!(sharer(Protocol::Tcp, address), None);
        drop(socket);
        assert_eq!(sharer(Protocol::Udp, address), None);
        // A socket that does not share the address is an obstacle, as before.
        let alone = UdpSocket::bind(address).expect("free again");
        assert!(obstacle(Protocol::Udp, address).is_some());
        assert_eq!(sharer(Protocol::Udp, address), None);
        drop(alone);
    }
}
