//! What the machine's devices say of clients, as policy takes it.

use std::net::IpAddr;

use xdnsd_core::policy::on_link::{Carried, Network};

/// What the devices of this machine say of clients. The config does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Addresses that no query from the wire can come from: ascending.
    pub martian_sources: Vec<IpAddr>,
    /// The machine's own among them.
    pub own_addresses: Vec<IpAddr>,
    /// The networks of the served devices: ascending, none within another.
    pub on_link: Vec<Network>,
    /// The indices of the served devices.
    pub served: Vec<u32>,
    /// Devices, and the number of the view of who asks by them.
    pub views: Vec<(u32, u8)>,
    /// Devices whose frames come by others.
    pub carried: Vec<Carried>,
    /// The networks of those devices by which somebody is in a view.
    pub networks: Vec<(u32, Network)>,
}

impl Links {
    /// There are none.
    pub const NONE: Self = Self {
        martian_sources: Vec::new(),
        own_addresses: Vec::new(),
        on_link: Vec::new(),
        served: Vec::new(),
        views: Vec::new(),
        carried: Vec::new(),
        networks: Vec::new(),
    };

    /// The same with the devices of views that `other` has.
    #[must_use]
    pub fn with_views_of(self, other: &Self) -> Self {
        Self {
            views: other.views.clone(),
            networks: other.networks.clone(),
            ..self
        }
    }
}
