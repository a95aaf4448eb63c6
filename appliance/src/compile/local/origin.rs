//! Finds the source of a record of local data. The image does not have it, so the sources are read again on request.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use xdnsd_core::dns::rtype;

use super::node::{NodeRecord, RecordSource};
use super::{LocalBuilder, LocalInput, is_wildcard, texts};
use crate::compile::claims::{Claims, Others};
use crate::compile::hosts::{Host, Lease, parse_hosts, parse_leases};
use crate::compile::name;
use crate::compile::prefix::pointer_name;
use crate::compile::problem::Notes;

/// A record of local data that is given in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenRecord {
    /// Owner name, in lower case.
    pub owner: Vec<u8>,
    /// TYPE.
    pub rtype: u16,
    /// TTL, in seconds.
    pub ttl_secs: u32,
    /// RDATA.
    pub rdata: Vec<u8>,
}

/// Source of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Index in `local.records`.
    Record(usize),
    /// Hosts file, line number and text.
    Hosts(PathBuf, usize, String),
    /// Lease file, line number and text.
    Lease(PathBuf, usize, String),
}

impl GivenRecord {
    /// First source that gives the record, in the order of trust. `None` if none does by now.
    #[must_use]
    pub fn origin(&self, input: &LocalInput) -> Option<Origin> {
        let of_config = input.records.iter().position(|text| {
            let is_added = |builder: &mut LocalBuilder| builder.add_text(text, 0).is_ok();
            self.is_made(input, is_added)
        });
        of_config
            .map(Origin::Record)
            .or_else(|| self.of_hosts(input))
            .or_else(|| self.of_leases(input))
    }

    fn of_hosts(&self, input: &LocalInput) -> Option<Origin> {
        let gives = |path: &Path, line: &str| {
            let hosts = parse_hosts(path, line, &mut Notes::default());
            hosts.iter().any(|host| self.is_of_host(input, host))
        };
        let mut files = input.hosts.iter();
        let (path, number, line) = files.find_map(|path| line_of(path, gives))?;
        Some(Origin::Hosts(path, number, line))
    }

    fn of_leases(&self, input: &LocalInput) -> Option<Origin> {
        let mut files = input.leases.iter();
        let (path, number, line) = files.find_map(|lease_file| {
            line_of(&lease_file.path, |path, line| {
                let notes = &mut Notes::default();
                let leases = parse_leases(path, line, lease_file.format, None, notes);
                leases.iter().any(|lease| self.is_of_lease(input, lease))
            })
        })?;
        Some(Origin::Lease(path, number, line))
    }

    fn is_of_host(&self, input: &LocalInput, host: &Host) -> bool {
        self.may_be_of(host.address)
            && self.is_made(input, |builder| {
                // Names that it may not define come from elsewhere.
                let _ = builder.add_host(host, 0, &Rc::from(""), &Others::NONE);
                true
            })
    }

    fn is_of_lease(&self, input: &LocalInput, lease: &Lease) -> bool {
        self.may_be_of(lease.address)
            && self.is_made(input, |builder| {
                let record =
                    NodeRecord::of_address(lease.address, 0, RecordSource::Lease, &Rc::from(""));
                let mut claims = Claims::default();
                builder.add_lease(lease, &record, &mut claims, &Others::NONE, |_, _| {});
                true
            })
    }

    /// Cheap check that excludes most lines: whether a machine with this address may be the source.
    fn may_be_of(&self, address: IpAddr) -> bool {
        match (self.rtype, address) {
            (rtype::A, IpAddr::V4(v4)) => self.rdata == v4.octets(),
            (rtype::AAAA, IpAddr::V6(v6)) => self.rdata == v6.octets(),
            (rtype::PTR, address) => self.owner == pointer_name(address),
            _ => false,
        }
    }

    /// True if local data with only what `add` adds has the record.
    fn is_made(&self, input: &LocalInput, add: impl FnOnce(&mut LocalBuilder) -> bool) -> bool {
        let Ok(mut builder) = LocalBuilder::new(input) else {
            return false;
        };
        if !add(&mut builder) {
            return false;
        }
        if input.reverse {
            builder.add_pointers();
        }
        let is_same =
            |record: &NodeRecord| record.rtype == self.rtype && record.rdata == self.rdata;
        let covers = |owner: &[u8]| {
            let below = is_wildcard(owner);
            *owner == *self.owner || below.is_some_and(|parent| self.is_below(parent))
        };
        let mut nodes = builder.nodes.iter();
        nodes.any(|(owner, node)| covers(owner) && node.records.iter().any(is_same))
    }

    fn is_below(&self, parent: &[u8]) -> bool {
        let parents = std::iter::successors(name::parent(&self.owner), |name| name::parent(name));
        parents.into_iter().any(|above| above == parent)
    }
}

/// First line, of the files behind a path, that `gives` the record: its file, its number from 1, and its text.
fn line_of(path: &Path, gives: impl Fn(&Path, &str) -> bool) -> Option<(PathBuf, usize, String)> {
    texts(path, &mut Notes::default())
        .into_iter()
        .find_map(|(file, text)| {
            let found = text
                .lines()
                .enumerate()
                .find(|(_, line)| gives(&file, line));
            found.map(|(index, line)| (file.clone(), index + 1, line.trim().to_owned()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::hosts::LeaseFormat;
    use crate::compile::local::LeaseFile;
    use crate::testing::Folder;

    fn given(owner: &str, rtype: u16, rdata: &[u8]) -> GivenRecord {
        GivenRecord {
            owner: name::parse(owner).expect("a name"),
            rtype,
            ttl_secs: 60,
            rdata: rdata.into(),
        }
    }

    #[test]
    fn each_record_is_traced_to_who_gives_it() {
        let folder = Folder::new();
        let hosts = folder.write("hosts", "# none\n192.0.2.3 nas\n192.0.2.4 tv nas\n");
        let leases = folder.write(
            "leases",
            "0 m1 192.0.2.5 phone *\n0 m2 192.0.2.6 tablet *\n",
        );
        let input = LocalInput {
            records: vec!["a.lan A 192.0.2.1".into(), "*.dev.lan A 192.0.2.2".into()],
            hosts: vec![hosts.clone()],
            leases: vec![LeaseFile {
                path: leases.clone(),
                format: LeaseFormat::Dnsmasq,
            }],
            search_domain: Some("lan".into()),
            ..LocalInput::default()
        };
        let of_hosts = |number, line: &str| Some(Origin::Hosts(hosts.clone(), number, line.into()));
        let of_lease =
            |number, line: &str| Some(Origin::Lease(leases.clone(), number, line.into()));
        let nas = b"\x03nas\x03lan\0";
        for (given, origin) in [
            (
                given("a.lan", rtype::A, &[192, 0, 2, 1]),
                Some(Origin::Record(0)),
            ),
            (
                given("a", rtype::A, &[192, 0, 2, 1]),
                Some(Origin::Record(0)),
            ),
            (
                given("x.y.dev.lan", rtype::A, &[192, 0, 2, 2]),
                Some(Origin::Record(1)),
            ),
            (
                given("nas.lan", rtype::A, &[192, 0, 2, 4]),
                of_hosts(3, "192.0.2.4 tv nas"),
            ),
            (
                given("nas", rtype::A, &[192, 0, 2, 3]),
                of_hosts(2, "192.0.2.3 nas"),
            ),
            (
                given("3.2.0.192.in-addr.arpa", rtype::PTR, nas),
                of_hosts(2, "192.0.2.3 nas"),
            ),
            (
                given("tablet.lan", rtype::A, &[192, 0, 2, 6]),
                of_lease(2, "0 m2 192.0.2.6 tablet *"),
            ),
            (given("tablet.lan", rtype::A, &[192, 0, 2, 7]), None),
            (given("dev.lan", rtype::A, &[192, 0, 2, 2]), None),
        ] {
            assert_eq!(given.origin(&input), origin, "{given:?}");
        }
    }
}
