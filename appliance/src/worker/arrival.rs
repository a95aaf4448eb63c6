//! By which device a query came to a kernel socket. An address of ours is answered whatever device a packet for it arrives
//! by (RFC 1122 section 3.3.4.2, the weak model), so a socket on the LAN's address hears the WAN, too. Over IPv4 the
//! kernel names the device that has the address where a query came by the loopback device (`rt_iif`).

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use nix::net::if_::if_nameindex;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

/// Devices that are told apart. Served ones beyond that: queries that come by them are strangers' where the config answers
/// neighbours alone, and are counted with those of all others.
const DEVICES_MAX: usize = 64;
/// Index of the loopback device in every network namespace: what comes by it is of this machine.
const LOOPBACK: u32 = 1;
/// Room for one control message of either family.
const CONTROL: usize = 64;

/// A device that is served, or was.
struct Device {
    /// 0: none.
    index: AtomicU32,
    is_served: AtomicBool,
    /// Queries that came by it to the kernel's UDP sockets.
    queries: AtomicU64,
}

static DEVICES: [Device; DEVICES_MAX] = [const {
    Device {
        index: AtomicU32::new(0),
        is_served: AtomicBool::new(false),
        queries: AtomicU64::new(0),
    }
}; DEVICES_MAX];
/// Queries of this machine itself.
static OWN: AtomicU64 = AtomicU64::new(0);
/// Queries that came by devices which are not served.
static OTHERS: AtomicU64 = AtomicU64::new(0);

impl Device {
    fn is(&self, index: u32) -> bool {
        self.index.load(Relaxed) == index
    }

    /// The place becomes that of another device; what was counted is kept with that of the others.
    fn become_another(&self, index: u32) {
        OTHERS.fetch_add(self.queries.swap(0, Relaxed), Relaxed);
        self.index.store(index, Relaxed);
    }
}

/// These devices are served from now on, and no others. One thread calls this at a time.
pub fn serve(devices: &[u32]) {
    for place in &DEVICES {
        let is_served = devices.contains(&place.index.load(Relaxed));
        place.is_served.store(is_served, Relaxed);
    }
    for &index in devices {
        if DEVICES.iter().any(|place| place.is(index)) {
            continue;
        }
        let was_served = || DEVICES.iter().find(|place| !place.is_served.load(Relaxed));
        let free = DEVICES.iter().find(|place| place.is(0));
        if let Some(place) = free.or_else(was_served) {
            place.become_another(index);
            place.is_served.store(true, Relaxed);
        }
    }
}

/// Whether a query that came by `device` may be a neighbour's. 0: the kernel does not say, and the address alone decides.
pub fn is_served(device: u32) -> bool {
    let is_it = |place: &Device| place.is(device) && place.is_served.load(Relaxed);
    matches!(device, 0 | LOOPBACK) || DEVICES.iter().any(is_it)
}

/// Counts a query that came by `device` to a kernel socket. One from an address of ours came by the loopback device, though
/// the kernel names the device that has the address which was asked.
pub fn count(device: u32, is_own: bool) {
    let place = DEVICES.iter().find(|place| device != 0 && place.is(device));
    let queries = match place {
        _ if is_own || device == LOOPBACK => &OWN,
        Some(place) => &place.queries,
        None => &OTHERS,
    };
    queries.fetch_add(1, Relaxed);
}

/// Queries to the kernel's UDP sockets by name of the device that they came in by: `lo`, the served ones, `other`.
pub fn queries() -> Vec<(String, u64)> {
    let mut others = OTHERS.load(Relaxed);
    let mut all = vec![("lo".to_owned(), OWN.load(Relaxed))];
    let devices = if_nameindex().ok();
    let name_of = |index| -> Option<String> {
        let mut devices = devices.iter().flat_map(|devices| devices.iter());
        let device = devices.find(|device| device.index() == index)?;
        Some(device.name().to_string_lossy().into_owned())
    };
    for place in &DEVICES {
        let (index, queries) = (place.index.load(Relaxed), place.queries.load(Relaxed));
        if matches!(index, 0 | LOOPBACK) {
            continue;
        }
        // A device that has gone has no name.
        match name_of(index) {
            Some(name) => all.push((name, queries)),
            None => others += queries,
        }
    }
    all.push(("other".to_owned(), others));
    all
}

/// Where control messages may stand.
#[repr(align(8))]
struct Control([u8; CONTROL]);

/// Receives a datagram: its length, where it comes from, and the device.
pub fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> nix::Result<Option<(usize, SocketAddr, u32)>> {
    let mut control = Control([0; CONTROL]);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control.0),
        MsgFlags::empty(),
    )?;
    let Some(from) = received.address.as_ref().and_then(address) else {
        return Ok(None);
    };
    let mut device = 0;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
            device = info.ipi_ifindex.cast_unsigned();
        } else if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
            device = info.ipi6_ifindex;
        }
    }
    Ok(Some((received.bytes, from, device)))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in();
    let v4 = v4.map(|addr| std::net::SocketAddrV4::from(*addr).into());
    let v6 = storage.as_sockaddr_in6();
    v4.or_else(|| v6.map(|addr| std::net::SocketAddrV6::from(*addr).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_by_another_device_is_a_strangers() {
        serve(&[7, 9]);
        for (device, expected) in [(0, true), (1, true), (7, true), (9, true), (8, false)] {
            assert_eq!(is_served(device), expected, "{device}");
        }
        serve(&[8]);
        assert!(is_served(8) && !is_served(7) && !is_served(9));
        let total = || queries().iter().map(|(_, queries)| queries).sum::<u64>();
        let before = total();
        count(8, false);
        // More devices than places, one after the other: no query is lost.
        for device in 0..2 * DEVICES_MAX as u32 {
            serve(&[1_000_000 + device]);
            count(1_000_000 + device, false);
        }
        assert_eq!(total() - before, 1 + 2 * DEVICES_MAX as u64);
        // Devices that are not there have no name, and are `other`.
        assert!(queries().iter().all(|(name, _)| !name.is_empty()));
        serve(&[]);
    }
}
