//! By which device a query came to a kernel socket. An address of ours is answered whatever device a packet for it arrives
//! by (RFC 1122 section 3.3.4.2, the weak model), so a socket on the LAN's address hears the WAN, too. Over IPv4 the
//! kernel names the device that has the address where a query came by the loopback device (`rt_iif`).

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

/// Devices that the config serves at once. More: queries that come by the others are strangers' where the config answers
/// neighbours alone.
const DEVICES_MAX: usize = 64;
/// Index of the loopback device in every network namespace: what comes by it is of this machine.
const LOOPBACK: u32 = 1;
/// Room for one control message of either family.
const CONTROL: usize = 64;

/// Indices of the devices that are served; 0: none.
static SERVED: [AtomicU32; DEVICES_MAX] = [const { AtomicU32::new(0) }; DEVICES_MAX];

/// These devices are served from now on, and no others.
pub fn serve(devices: impl Iterator<Item = u32>) {
    let all = devices.chain(std::iter::repeat(0));
    for (slot, device) in SERVED.iter().zip(all) {
        slot.store(device, Ordering::Relaxed);
    }
}

/// Whether a query that came by `device` may be a neighbour's. 0: the kernel does not say, and the address alone decides.
pub fn is_served(device: u32) -> bool {
    let is_it = |slot: &AtomicU32| slot.load(Ordering::Relaxed) == device;
    matches!(device, 0 | LOOPBACK) || SERVED.iter().any(is_it)
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
        serve([7, 9].into_iter());
        for (device, expected) in [(0, true), (1, true), (7, true), (9, true), (8, false)] {
            assert_eq!(is_served(device), expected, "{device}");
        }
        serve([8].into_iter());
        assert!(is_served(8) && !is_served(7) && !is_served(9));
    }
}
