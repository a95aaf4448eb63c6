//! Driver name, VLAN offload and counters of an interface: the fence around the ethtool ioctl.
//!
//! rx-vlan-offload moves the tag out of the frame before XDP sees it: a query of VLAN 5 then looks untagged, and a reply made
//! from it would leave untagged. veth always does so if its peer's VLAN device offloads. So on an interface with VLAN devices the
//! program asks the FIB, and passes frames whose reply would take another way.

use crate::os::keeper::{self, InterfaceName};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// From include/uapi/linux/sockios.h and ethtool.h; libc lacks them.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_SS_STATS: u32 = 1;
/// Bytes of a driver's name.
const DRIVER_LEN: usize = 32;
/// Bytes of a name of a counter.
const ETH_GSTRING_LEN: usize = 32;
/// Upper bound of a driver's counters: those with many queues have some thousands.
const STATS_MAX: usize = 8_192;
/// Slack for counters that appear while they are read, beside doubling.
const STATS_MORE: usize = 1_024;
/// Names of drivers' counters for frames sent by an XDP program and dropped: veth, virtio-net and others.
const LOST: [&str; 2] = ["xdp_tx_errors", "xdp_tx_drops"];

/// struct ethtool_value.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

const _: () = assert!(size_of::<EthtoolValue>() == 8);

/// struct ethtool_drvinfo.
#[repr(C)]
struct EthtoolDrvinfo {
    cmd: u32,
    driver: [u8; DRIVER_LEN],
    /// Versions and addresses, unused here.
    texts: [u8; 172 - DRIVER_LEN],
    n_priv_flags: u32,
    n_stats: u32,
    lens: [u32; 3],
}

const _: () = assert!(size_of::<EthtoolDrvinfo>() == 196);

/// Outcome of turning rx-vlan-offload off.
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
/// SIOCETHTOOL failed: no such interface, or no CAP_NET_ADMIN. A driver without ethtool counts as [`RxVlanOffload::Off`].
pub fn turn_off_rx_vlan_offload(interface: &str) -> io::Result<RxVlanOffload> {
    if keeper::is_there() {
        return ask_to_turn_off(interface);
    }
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

fn ask_to_turn_off(interface: &str) -> io::Result<RxVlanOffload> {
    let name = InterfaceName::new(interface).ok_or(Errno::ENODEV)?;
    let asked = keeper::ask(keeper::Request::ShowTags(name), None);
    match asked.map_err(|refusal| refusal.errno)?.value {
        0 => Ok(RxVlanOffload::Off),
        1 => Ok(RxVlanOffload::TurnedOff),
        errno => {
            let errno = Errno::from_raw(errno.cast_signed() - 2);
            Ok(RxVlanOffload::StillOn(errno.into()))
        }
    }
}

/// Counters of an interface for lost XDP_TX frames, found by name once.
#[derive(Debug, Default)]
pub struct LostByXdpTx {
    /// Number of counters when the names were read.
    count: usize,
    /// Indices of per-queue counters.
    of_queues: Vec<usize>,
    /// Indices of totals over all queues.
    of_all: Vec<usize>,
}

impl LostByXdpTx {
    /// Frames lost so far; 0 if the driver does not count them.
    ///
    /// # Errors
    ///
    /// As [`turn_off_rx_vlan_offload`], or the driver lacks counters.
    pub fn read(&mut self, interface: &str) -> io::Result<u64> {
        let count = count(interface)?;
        if count != self.count {
            *self = Self::of(names(interface, count)?.iter().map(String::as_str));
        }
        let values = values(interface, count)?;
        Ok(self.sum(&values))
    }

    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for (at, name) in names.enumerate() {
            found.count = at + 1;
            if !LOST.iter().any(|lost| name.ends_with(lost)) {
                continue;
            }
            let is_of_queue = name.contains(|char: char| char.is_ascii_digit());
            let list = if is_of_queue {
                &mut found.of_queues
            } else {
                &mut found.of_all
            };
            list.push(at);
        }
        found
    }

    /// Sum over all queues; a driver with a total as well reports each loss twice, hence the maximum.
    fn sum(&self, values: &[u64]) -> u64 {
        let sum = |list: &[usize]| {
            let values = list.iter().filter_map(|at| values.get(*at));
            values.fold(0_u64, |sum, value| sum.saturating_add(*value))
        };
        sum(&self.of_queues).max(sum(&self.of_all))
    }
}

/// Name of the interface's driver.
///
/// # Errors
///
/// As [`turn_off_rx_vlan_offload`], or the driver does not report it.
pub fn driver(interface: &str) -> io::Result<String> {
    Ok(text(&info(interface)?.driver))
}

fn info(interface: &str) -> Result<EthtoolDrvinfo, Errno> {
    let mut info = EthtoolDrvinfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; DRIVER_LEN],
        texts: [0; 172 - DRIVER_LEN],
        n_priv_flags: 0,
        n_stats: 0,
        lens: [0; 3],
    };
    ethtool(interface, &mut info)?;
    Ok(info)
}

/// Text up to the first zero.
fn text(octets: &[u8]) -> String {
    let len = octets.iter().position(|octet| *octet == 0);
    String::from_utf8_lossy(&octets[..len.unwrap_or(octets.len())]).into_owned()
}

/// Number of counters.
fn count(interface: &str) -> io::Result<usize> {
    let info = info(interface)?;
    let count = info.n_stats as usize;
    if count > STATS_MAX {
        return Err(io::Error::other("too many counters"));
    }
    Ok(count)
}

/// Buffer size for `count` counters, with slack for those that appear meanwhile.
///
/// The kernel writes as many counters as there are by now, whatever number it is given (Linux 6.18 and before). So the buffer
/// holds twice the number read a moment ago, and more: queues do not double in between.
const fn room(count: usize) -> usize {
    2 * count + STATS_MORE
}

fn names(interface: &str, count: usize) -> io::Result<Vec<String>> {
    // struct ethtool_gstrings: command, set, number, names.
    let mut words = vec![0_u32; 3 + room(count) * ETH_GSTRING_LEN / size_of::<u32>()];
    words[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_STATS, count as u32]);
    ethtool_words(interface, &mut words)?;
    let words = &words[3..][..count * ETH_GSTRING_LEN / size_of::<u32>()];
    let octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(octets.chunks(ETH_GSTRING_LEN).map(text).collect())
}

fn values(interface: &str, count: usize) -> io::Result<Vec<u64>> {
    // struct ethtool_stats: command and number, values.
    let mut words = vec![0_u64; 1 + room(count)];
    let [a, b, c, d] = ETHTOOL_GSTATS.to_ne_bytes();
    let [e, f, g, h] = (count as u32).to_ne_bytes();
    words[0] = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    ethtool_words(interface, &mut words)?;
    words.truncate(1 + count);
    words.remove(0);
    Ok(words)
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

/// A structure that begins with a command, whose length the command implies.
///
/// # Safety
///
/// `repr(C)`, without pointers, and as long as each command used with it reads and writes.
unsafe trait Request {}

// SAFETY: ETHTOOL_GFLAGS and ETHTOOL_SFLAGS read and write a struct ethtool_value.
unsafe impl Request for EthtoolValue {}
// SAFETY: ETHTOOL_GDRVINFO writes a struct ethtool_drvinfo, whose size is asserted above.
unsafe impl Request for EthtoolDrvinfo {}

fn ethtool<T: Request>(interface: &str, request: &mut T) -> Result<(), Errno> {
    // SAFETY: by the trait's contract the command accesses exactly this structure.
    unsafe { ioctl(interface, std::ptr::from_mut(request).cast()) }
}

/// Runs ETHTOOL_GSTRINGS or ETHTOOL_GSTATS: a header, followed by [`room`] for names or values.
fn ethtool_words<T: Copy>(interface: &str, words: &mut [T]) -> Result<(), Errno> {
    // SAFETY: the buffer is larger than any driver fills, see [`room`], and of integers, for which any bits are a value.
    unsafe { ioctl(interface, words.as_mut_ptr().cast()) }
}

/// # Safety
///
/// `request` points to what its command reads and writes.
unsafe fn ioctl(interface: &str, request: *mut libc::c_char) -> Result<(), Errno> {
    let socket = control_socket()?;
    let mut name = [0; libc::IFNAMSIZ];
    copy_name(&mut name, interface)?;
    let mut request = libc::ifreq {
        ifr_name: name.map(|octet| octet as libc::c_char),
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: request },
    };
    // SAFETY: SIOCETHTOOL reads one ifreq and follows ifru_data, which the caller vouches for; both outlive the call.
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

/// Any socket will do: the ioctl addresses the device.
fn control_socket() -> Result<OwnedFd, Errno> {
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_the_sum_of_the_queues_and_counted_once() {
        let lost = |counters: &[(&str, u64)]| {
            let found = LostByXdpTx::of(counters.iter().map(|(name, _)| *name));
            assert_eq!(found.count, counters.len());
            let values: Vec<u64> = counters.iter().map(|(_, value)| *value).collect();
            assert_eq!(found.sum(&[]), 0, "fewer than there were");
            found.sum(&values)
        };
        let veth = [
            ("peer_ifindex", 7),
            ("rx_queue_0_xdp_tx", 9),
            ("rx_queue_0_xdp_tx_errors", 3),
            ("rx_queue_1_xdp_tx_errors", 4),
            ("tx_queue_0_xdp_xmit_errors", 50),
        ];
        assert_eq!(lost(&veth), 7);
        let virtio = [
            ("rx_xdp_drops", 8),
            ("tx_xdp_tx_drops", 5),
            ("tx0_xdp_tx_drops", 2),
            ("tx1_xdp_tx_drops", 3),
        ];
        assert_eq!(lost(&virtio), 5);
        let most = [("tx_xdp_tx_drops", u64::MAX), ("xdp_tx_errors", 1)];
        assert_eq!(lost(&most), u64::MAX);
        assert_eq!(lost(&[]), 0);
    }
}
