//! What an interface's driver does with VLAN tags, and who stands on the interface: the fence around the ioctls.
//!
//! rx-vlan-offload moves the tag out of the frame before XDP sees it. Nothing here runs after set-up.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Linux: include/uapi/linux/sockios.h, ethtool.h and if_vlan.h, which libc does not carry.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const SIOCGIFVLAN: libc::c_ulong = 0x8982;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const GET_VLAN_REALDEV_NAME_CMD: libc::c_int = 8;
const GET_VLAN_VID_CMD: libc::c_int = 9;

/// struct ethtool_value.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// struct vlan_ioctl_args, its union as the longest member.
#[repr(C)]
struct VlanArgs {
    cmd: libc::c_int,
    device: [u8; VLAN_NAME_LEN],
    answer: [u8; VLAN_NAME_LEN],
    qos: libc::c_short,
}
const VLAN_NAME_LEN: usize = 24;
const _: () = assert!(size_of::<VlanArgs>() == 56 && size_of::<EthtoolValue>() == 8);

/// A device that carries one VLAN of a lower interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanDevice {
    /// Its name, such as `eth0.5`.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Name of the interface that it stands on.
    pub lower: String,
    /// VLAN ID.
    pub id: u16,
}

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

/// Whether rx-vlan-offload is on.
///
/// # Errors
///
/// As [`turn_off_rx_vlan_offload`].
pub fn has_rx_vlan_offload(interface: &str) -> io::Result<bool> {
    Ok(flags(interface)?.is_some_and(|flags| flags & ETH_FLAG_RXVLAN != 0))
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

/// Every VLAN device of this network namespace.
///
/// # Errors
///
/// The interfaces cannot be listed.
pub fn vlan_devices() -> io::Result<Vec<VlanDevice>> {
    let socket = control_socket()?;
    let mut devices = Vec::new();
    for interface in &nix::net::if_::if_nameindex()? {
        let name = interface.name().to_string_lossy().into_owned();
        if let Some((lower, id)) = vlan_of(&socket, &name) {
            devices.push(VlanDevice {
                name,
                index: interface.index(),
                lower,
                id,
            });
        }
    }
    Ok(devices)
}

/// Lower interface and VLAN ID, if the interface is a VLAN device. A kernel without VLANs has none of them.
fn vlan_of(socket: &OwnedFd, interface: &str) -> Option<(String, u16)> {
    let lower = vlan_ioctl(socket, GET_VLAN_REALDEV_NAME_CMD, interface).ok()?;
    let lower = CStr::from_bytes_until_nul(&lower).ok()?;
    let id = vlan_ioctl(socket, GET_VLAN_VID_CMD, interface).ok()?;
    let id = i32::from_ne_bytes([id[0], id[1], id[2], id[3]]);
    Some((
        lower.to_string_lossy().into_owned(),
        u16::try_from(id).ok()?,
    ))
}

fn vlan_ioctl(
    socket: &OwnedFd,
    cmd: libc::c_int,
    interface: &str,
) -> Result<[u8; VLAN_NAME_LEN], Errno> {
    let mut args = VlanArgs {
        cmd,
        device: [0; VLAN_NAME_LEN],
        answer: [0; VLAN_NAME_LEN],
        qos: 0,
    };
    copy_name(&mut args.device, interface)?;
    // SAFETY: SIOCGIFVLAN reads and writes one struct vlan_ioctl_args, whose layout is asserted above; `args` is
    // ours alone for the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGIFVLAN as _, &raw mut args) };
    Errno::result(result)?;
    Ok(args.answer)
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
