//! What the config allows the server to ask for.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use crate::config::{Config, LandlockWord, SeccompWord, SynCookiesWord};
use crate::os::keeper::InterfaceName;
use crate::os::system_calls::DeniedCall;
use crate::os::{account, capabilities};

/// Objects beside those of interfaces and ports of bridges.
const MORE_OBJECTS: usize = 4;

/// Names and numbers of the config that requests may name.
#[derive(Debug, Default)]
pub struct Permitted {
    /// Interfaces that are served or protected, and bridges whose ports are.
    interfaces: Vec<String>,
    /// Ports that clients ask.
    ports: Vec<u16>,
    /// True if settings of the kernel may be changed.
    pub sets: bool,
    /// The control socket, and the group that is to have it.
    pub group: Option<(PathBuf, u32)>,
    /// Room for addresses of an interface.
    addresses: u32,
    /// Objects at once: those of the XDP programs, and some more for hot names, source ports, and one that takes another's place.
    objects: usize,
    /// What a system call leads to that is not in the list; `None`: there is no list.
    pub denied: Option<DeniedCall>,
    /// True if there are sets of nf_tables to fill.
    pub fills_sets: bool,
    /// True if the keeper itself may write to those settings alone.
    pub is_fenced: bool,
}

impl Permitted {
    pub fn of(config: &Config) -> Self {
        let served = config.interfaces.iter();
        let protected = config.protects.iter();
        let names = served.map(|served| served.name.as_str());
        let names = names.chain(protected.map(|protected| protected.interface.as_str()));
        let control = &config.control;
        let is_left = |state: &Path| state.symlink_metadata().is_ok();
        let group = control.socket.as_deref().and_then(|path| {
            let group = account::group(&control.group).ok()?;
            Some((path.to_owned(), group.as_raw()))
        });
        Self {
            interfaces: names.map(str::to_owned).collect(),
            ports: config.interfaces.iter().map(|served| served.port).collect(),
            // Settings that a killed process left are restored as well.
            sets: config.shield.syn_cookies != SynCookiesWord::Off
                || config.shield.state_file.as_deref().is_some_and(is_left),
            group,
            addresses: config.memory.addresses.into(),
            objects: usize::from(config.memory.programs) + MORE_OBJECTS,
            denied: match config.security.seccomp {
                SeccompWord::On => Some(DeniedCall::End),
                SeccompWord::Log => Some(DeniedCall::Log),
                SeccompWord::Off => None,
            },
            fills_sets: !config.nft_sets.is_empty(),
            is_fenced: config.security.landlock == LandlockWord::On,
        }
    }

    /// The rights of the thread for objects.
    pub fn rights(&self) -> CapabilitySet {
        let mut rights = capabilities::KEEPER_OBJECTS;
        if self.group.is_none() {
            rights.remove(CapabilitySet::CHOWN);
        }
        rights
    }

    /// True if the config names the interface, or the bridge that it is a port of.
    pub fn has_interface(&self, name: &InterfaceName) -> bool {
        let name = name.as_str();
        let is_named = |name: &str| self.interfaces.iter().any(|known| known == name);
        is_named(name) || bridge_of(name).is_some_and(|bridge| is_named(&bridge))
    }

    /// True if clients may ask on the address: any one with a port of the config.
    pub fn has_port(&self, address: SocketAddr) -> bool {
        self.ports.contains(&address.port())
    }

    /// True if an object may have room for so many addresses.
    pub const fn has_room(&self, addresses: u32) -> bool {
        addresses <= self.addresses
    }

    /// True if there may be an object with this number.
    pub const fn has_object(&self, number: usize) -> bool {
        number < self.objects && number <= u8::MAX as usize
    }
}

/// Name of the bridge or bond that an interface is a port of.
fn bridge_of(name: &str) -> Option<String> {
    let path = Path::new("/sys/class/net").join(name).join("master");
    let master = fs::read_link(path).ok()?;
    Some(master.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_config_does_not_name_is_not_permitted() {
        let text = "[[interface]]\nname = \"lan0\"\nport = 5353\n[[protect]]\ninterface = \"wan0\"\naddresses = [\"192.0.2.7\"]\n\
                    ports = [443]\n[[upstream]]\nservers = [\"192.0.2.1\"]\n[memory]\naddresses = 32\n[shield]\nstate_file = \"\"\n";
        let config = Config::parse("f", text).expect("valid");
        let permitted = Permitted::of(&config);
        let has = |name| permitted.has_interface(&InterfaceName::new(name).expect("a name"));
        assert_eq!(
            ["lan0", "wan0", "lan", "lan00", "lo"].map(has),
            [true, true, false, false, false]
        );
        let port = |text: &str| permitted.has_port(text.parse().expect("an address"));
        assert!(port("192.0.2.1:5353") && port("[::1]:5353"));
        assert!(!port("192.0.2.1:53") && !port("192.0.2.1:443"));
        assert!(permitted.has_room(32) && !permitted.has_room(33));
        assert!(permitted.has_object(0) && !permitted.has_object(256));
        assert!(!permitted.sets && permitted.group.is_none());
    }
}
