//! Records before they go into the image, with their sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::local::{NONE, TARGET};

use crate::compile::name;

/// Sources of records, in the order of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RecordSource {
    /// The config's records.
    Records,
    /// A hosts file.
    Hosts,
    /// A client of a DHCP server.
    Lease,
}

/// A record that goes into the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeRecord {
    pub rtype: u16,
    pub ttl_secs: u32,
    pub rdata: Vec<u8>,
    pub source: RecordSource,
    /// Key of the config, or file.
    pub place: Rc<str>,
}

impl NodeRecord {
    /// Record of a machine's address.
    pub fn of_address(
        address: IpAddr,
        ttl_secs: u32,
        source: RecordSource,
        place: &Rc<str>,
    ) -> Self {
        let (rtype, rdata) = match address {
            IpAddr::V4(address) => (rtype::A, address.octets().to_vec()),
            IpAddr::V6(address) => (rtype::AAAA, address.octets().to_vec()),
        };
        Self {
            rtype,
            ttl_secs,
            rdata,
            source,
            place: Rc::clone(place),
        }
    }

    pub fn address(&self) -> Option<IpAddr> {
        match self.rtype {
            rtype::A => {
                let octets: &[u8; 4] = self.rdata.first_chunk()?;
                Some(IpAddr::V4(Ipv4Addr::from(*octets)))
            }
            rtype::AAAA => {
                let octets: &[u8; 16] = self.rdata.first_chunk()?;
                Some(IpAddr::V6(Ipv6Addr::from(*octets)))
            }
            _ => None,
        }
    }

    /// True if two records are equal. The letter case of names is ignored.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_name = matches!(self.rtype, rtype::NS | rtype::CNAME | rtype::PTR);
        let same_name = || is_name && self.rdata.eq_ignore_ascii_case(&other.rdata);
        self.rtype == other.rtype && (self.rdata == other.rdata || same_name())
    }
}

/// Data of one name, before it has a place in the image.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub flags: u16,
    pub has_wildcard: bool,
    pub records: Vec<NodeRecord>,
}

/// Appends a node with its records.
pub(super) fn emit_node(nodes: &mut Vec<u8>, node: &Node) {
    let alias = node.records.iter().find(|r| r.rtype == rtype::CNAME);
    let target = alias.map(|alias| name::lower(&alias.rdata));
    let target = target.filter(|target| alias.is_some_and(|alias| alias.rdata != *target));
    let count = node.records.len() + usize::from(target.is_some());
    nodes.extend(node.flags.to_le_bytes());
    nodes.extend((count as u16).to_le_bytes());
    nodes.extend(NONE.to_le_bytes());
    for record in &node.records {
        emit_record(nodes, record.rtype, record.ttl_secs, &record.rdata);
    }
    if let Some(target) = target {
        emit_record(nodes, TARGET, 0, &target);
    }
}

fn emit_record(nodes: &mut Vec<u8>, rtype: u16, ttl_secs: u32, rdata: &[u8]) {
    nodes.extend(rtype.to_le_bytes());
    nodes.extend((rdata.len() as u16).to_le_bytes());
    nodes.extend(ttl_secs.to_le_bytes());
    nodes.extend(rdata);
}
