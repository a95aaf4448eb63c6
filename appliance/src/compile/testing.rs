//! Helpers of this wing's tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::Labels;
use xdnsd_core::policy::local::End;

use super::name;
use super::prefix::pointer_name;
use super::set::PolicySet;

/// RDATA of the records in local data for a question.
fn rdata_of(set: &PolicySet, name: &[u8], qtype: u16) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let labels = Labels::new(name).expect("well-formed");
    let view = set.view();
    let end = view.resolve(&labels, qtype, |_, record| {
        if record.rtype == qtype {
            found.push(record.rdata.to_vec());
        }
    });
    if end != End::Records {
        found.clear();
    }
    found
}

/// Addresses of a name in local data, IPv4 first.
pub(crate) fn address_of(set: &PolicySet, text: &str) -> Option<String> {
    let name = name::parse(text).ok()?;
    let v4 = rdata_of(set, &name, rtype::A);
    let v4 = v4.iter().filter_map(|rdata| rdata.first_chunk().copied());
    let v6 = rdata_of(set, &name, rtype::AAAA);
    let v6 = v6.iter().filter_map(|rdata| rdata.first_chunk().copied());
    let all = v4.map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets)));
    let all = all.chain(v6.map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets))));
    let texts: Vec<String> = all.map(|address| address.to_string()).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// Name that an address points to in local data.
pub(crate) fn pointer_of(set: &PolicySet, address: &str) -> Option<String> {
    let owner = pointer_name(address.parse().expect("an address"));
    let rdata = rdata_of(set, &owner, rtype::PTR);
    rdata.first().map(|target| name::display(target))
}
