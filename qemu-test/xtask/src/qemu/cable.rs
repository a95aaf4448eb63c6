//! A cable to the guest: a tap device, on which frames are visible as the guest sends them.

use anyhow::{Context, Result};

use super::machine::{HOST, Link};
use super::upstream::Upstream;
use xdnsd_lab::netns::Namespace;

/// Name of the device, the host's end.
pub const DEVICE: &str = "tap0";
/// Name of the device of a second port.
pub const SECOND: &str = "tap1";
/// Address of the host behind it.
const SECOND_HOST: &str = "192.168.1.3";

/// A tap device in its own namespace, with the upstream behind it. Needs root.
pub struct Cable {
    /// Namespace of the device.
    pub namespace: Namespace,
    /// The name server on it.
    pub upstream: Upstream,
}

impl Cable {
    /// Makes all of it, with multiple queues or a single one.
    pub fn new(is_multi_queue: bool) -> Result<Self> {
        let namespace = Namespace::unnamed()?;
        let multi_queue = if is_multi_queue { " multi_queue" } else { "" };
        namespace.ip(&format!(
            "tuntap add dev {DEVICE} mode tap{multi_queue}\naddr add {HOST}/24 dev {DEVICE}\n\
             addr add fd00:53::2/64 dev {DEVICE} nodad\nlink set lo up\nlink set {DEVICE} up\n"
        ))?;
        let address = HOST.parse().context("the host's address")?;
        let upstream = namespace.run(|| Upstream::start(address))?;
        Ok(Self {
            namespace,
            upstream,
        })
    }

    /// Makes a second tap device, and a host behind it, whose namespace this returns.
    pub fn second(&self) -> Result<Namespace> {
        let host = Namespace::unnamed()?;
        // QEMU opens both devices in one namespace, and no namespace has two devices of one network.
        self.namespace.ip(&format!(
            "tuntap add dev {SECOND} mode tap
             link add name lead type veth peer name eth0 netns {}
             link add name joint type bridge
             link set {SECOND} master joint
             link set lead master joint
             link set {SECOND} up
             link set lead up
             link set joint up\n",
            host.path()
        ))?;
        host.ip(&format!(
            "addr add {SECOND_HOST}/24 dev eth0\nlink set lo up\nlink set eth0 up\n"
        ))?;
        Ok(host)
    }

    /// The guest's end.
    #[must_use]
    pub fn link(&self) -> Link<'_> {
        Link::Tap {
            namespace: &self.namespace,
            device: DEVICE,
        }
    }
}
