//! Network devices by their names.

use std::fmt::Write as _;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use xdnsd_core::forward::via::{Destination, Egress};

/// Index of the device that has this name now. if_nametoindex of the C library may fail with ENOENT if no descriptor is left.
///
/// # Errors
/// ENODEV: there is no such device. Other errors say nothing about the device.
pub fn index(name: &str) -> nix::Result<u32> {
    let ask = || {
        let kind = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::UNIX, kind.0, kind.1, None)?;
        netdevice::name_to_index(&socket, name)
    };
    ask().map_err(|errno: rustix::io::Errno| Errno::from_raw(errno.raw_os_error()))
}

/// Name of the device with this index. `None` if there is none.
#[must_use]
pub fn name(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?.into_string().ok()?;
    // For a removed device the C library may return an empty name.
    Some(name).filter(|name| !name.is_empty())
}

/// Formats an address with the zone (RFC 4007) as the device's name, or as its index if the device is gone.
#[must_use]
pub fn written(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => match name(v6.scope_id()) {
            Some(zone) => format!("[{}%{zone}]:{}", v6.ip(), v6.port()),
            None => address.to_string(),
        },
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.to_string(),
    }
}

/// Formats a server as the config has it: with `@INTERFACE` and `@SOURCE` if it is bound to them.
#[must_use]
pub fn written_server(to: Destination) -> String {
    let Egress { interface, source } = to.egress;
    let mut text = written(to.address);
    if interface != 0 {
        text.push('@');
        text += &name(interface).unwrap_or_else(|| interface.to_string());
    }
    if let Some(source) = source {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "@{source}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_name() {
        assert_eq!(index("lo"), Ok(1));
        for nobody in ["nobody", "", "a-name-that-no-device-could-have"] {
            assert_eq!(index(nobody), Err(Errno::ENODEV), "{nobody}");
        }
    }

    /// Every network namespace has `lo`, which is its first device.
    #[test]
    fn a_zone_is_written_by_the_name_of_its_device() {
        for (address, expected) in [
            ("[fe80::53%1]:53", "[fe80::53%lo]:53"),
            ("[fe80::53%4000000000]:53", "[fe80::53%4000000000]:53"),
            ("[2001:db8::53]:53", "[2001:db8::53]:53"),
            ("192.0.2.53:853", "192.0.2.53:853"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(written(address), expected);
        }
        let bound = |interface, source: Option<&str>| {
            let address: SocketAddr = "192.0.2.53:53".parse().expect("an address");
            let source = source.map(|source| source.parse().expect("an address"));
            let egress = Egress { interface, source };
            written_server(Destination { address, egress })
        };
        assert_eq!(bound(0, None), "192.0.2.53:53");
        assert_eq!(bound(1, None), "192.0.2.53:53@lo");
        assert_eq!(bound(0, Some("192.0.2.1")), "192.0.2.53:53@192.0.2.1");
        assert_eq!(bound(1, Some("192.0.2.1")), "192.0.2.53:53@lo@192.0.2.1");
        assert_eq!(name(1).as_deref(), Some("lo"));
        assert_eq!(name(4_000_000_000), None);
    }
}
