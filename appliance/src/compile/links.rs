//! Facts about clients from the machine's devices, as input to policy.

use std::net::IpAddr;

use xdnsd_core::policy::on_link::{Network, VlanDevice};

/// Facts about clients from the devices of this machine. They are not part of the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Addresses that no query from the wire can have as its source, ascending.
    pub martian_sources: Vec<IpAddr>,
    /// Those that are the machine's own.
    pub own_addresses: Vec<IpAddr>,
    /// Networks of the served devices: ascending, none within another.
    pub on_link: Vec<Network>,
    /// Indices of the served devices.
    pub served: Vec<u32>,
    /// Devices with the number of the view of their clients.
    pub views: Vec<(u32, u8)>,
    /// Devices whose frames arrive by others.
    pub carried: Vec<VlanDevice>,
    /// Networks of devices with clients in a view.
    pub networks: Vec<(u32, Network)>,
}

impl Links {
    /// No devices.
    pub const NONE: Self = Self {
        martian_sources: Vec::new(),
        own_addresses: Vec::new(),
        on_link: Vec::new(),
        served: Vec::new(),
        views: Vec::new(),
        carried: Vec::new(),
        networks: Vec::new(),
    };

    /// The same, with the views of devices that `other` has.
    #[must_use]
    pub fn with_views_of(self, other: &Self) -> Self {
        Self {
            views: other.views.clone(),
            networks: other.networks.clone(),
            ..self
        }
    }
}
