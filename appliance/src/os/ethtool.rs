//! What an interface's driver does with VLAN tags: the fence around the ioctl.
//!
//! rx-vlan-offload moves the tag out of the frame before XDP sees it: a query of VLAN 5 then looks untagged, and a reply
//! made from it would leave untagged. veth does so always where its peer's VLAN device offloads. So where VLAN devices
//! stand on an interface the program asks the FIB, and passes what would not return the way that it came.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Linux: include/uapi/linux/sockios.h and ethtool.h, which libc does not carry.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// struct ethtool_value.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

const _: () = assert!(size_of::<EthtoolValue>() == 8);

/// What became of rx-vlan-offload.
#[derive(Debug)]
pub enum RxVlanOffload {
    /// It was off, or the driver has none: tags are in the frames.
    Off,
    /// It was on and is off now.
    TurnedOff,
    /// It is on and the driver refuses to turn it off: tags are hidden from XDP.
    StillOn(io::Error),
}

/// Turns rx-vlan-offload off.
///
/// # Errors
///
/// SIOCETHTOOL cannot even be asked: no such interface, or no CAP_NET_ADMIN. A driver without ethtool has no offload.
pub fn turn_off_rx_vlan_offload(interface: &str) -> io::Result<RxVlanOffload> {
    let Some(flags) = flags(interface)? else {
        return Ok(RxVlanOffload::Off);
    };
    if flags & ETH_FLAG_RXVLAN == 0 {
        return Ok(RxVlanOffload::Off);
    }
    let mut value = EthtoolValue {
        cmd: ETHTOOL_SFLAGS,
        data: flags & !ETH_FLAG_RXVLAN,
    };
    match ethtool(interface, &mut value) {
        Ok(()) => Ok(RxVlanOffload::TurnedOff),
        Err(errno) => Ok(RxVlanOffload::StillOn(errno.into())),
    }
}

fn flags(interface: &str) -> io::Result<Option<u32>> {
    let mut value = EthtoolValue {
        cmd: ETHTOOL_GFLAGS,
        data: 0,
    };
    match ethtool(interface, &mut value) {
        Ok(()) => Ok(Some(value.data)),
        Err(Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn ethtool(interface: &str, value: &mut EthtoolValue) -> Result<(), Errno> {
    let socket = control_socket()?;
    let mut name = [0; libc::IFNAMSIZ];
    copy_name(&mut name, interface)?;
    let mut request = libc::ifreq {
        ifr_name: name.map(|octet| octet as libc::c_char),
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::from_mut(value).cast(),
        },
    };
    // SAFETY: SIOCETHTOOL reads one ifreq and follows ifru_data to a struct ethtool_value for the two commands that
    // are used here; both outlive the call, and `value` is borrowed mutably for it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    Errno::result(result).map(drop)
}

/// Copies a name and leaves at least one zero behind it.
fn copy_name(field: &mut [u8], name: &str) -> Result<(), Errno> {
    let room = field.len() - 1;
    let fits = name.len() <= room && !name.as_bytes().contains(&0);
    let to = field.get_mut(..name.len()).filter(|_| fits);
    to.ok_or(Errno::ENODEV)?.copy_from_slice(name.as_bytes());
    Ok(())
}

/// Any socket will do: the ioctls are the device's, not the protocol's.
fn control_socket() -> Result<OwnedFd, Errno> {
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}
