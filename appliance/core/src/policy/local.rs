//! Local data: records from the config, from hosts files and from DHCP leases.
//!
//! ```text
//!  0            4
//! | table length | table of names (value: where the name's node begins) | node | node | …
//!
//! node    | flags u16 | records u16 | wildcard's node u32, or NONE | record | record | …
//! record  | type u16  | length u16  | TTL u32 | RDATA without compression |
//! ```
//! Node positions count from the end of the table. Records stand in the order of their source, an RRset may therefore be
//! answered in that order.
//!
//! A *local zone* is answered from here alone: names in it that have no data do not exist (NXDOMAIN), and their parents
//! up to the apex do (NODATA, RFC 8020). Outside local zones only what has data is answered: another type of the same name
//! is NODATA, another name is asked upstream. A plain host name outside local zones, such as `nas`, may hide a top-level
//! domain: what its zone cut says (NS, SOA, DS, DNSKEY) is then asked upstream, so that validators behind us find their
//! way. The DS of a local zone is asked there, too (`Policy::decide`): it is its parent's.
//!
//! Owners are in lower case, names in RDATA as they were written. Where that is not lower case, an alias is followed by
//! its target in lower case: a record of type [`TARGET`].
//!
//! `*.dev.lan` covers what is below `dev.lan` by RFC 4592: not names that exist, nor what is below those.

use super::bytes::{u16_at, u32_at};
use super::name::Labels;
use super::table::{NameTable, TableError};
use crate::dns::rtype;

/// Bytes of a node in front of its records.
pub const NODE_HEAD: usize = 8;
/// Bytes of a record in front of its RDATA.
pub const RECORD_HEAD: usize = 8;
/// What a node without a wildcard has in place of the wildcard's node.
pub const NONE: u32 = u32::MAX;
/// The type of the record that follows an alias with its target in lower case. Nothing has type 0 (RFC 6895 section 3.1),
/// so no answer contains it.
pub const TARGET: u16 = 0;
/// CNAME steps that [`LocalData::resolve`] takes. A longer chain ends unanswered.
pub const CHAIN_MAX: usize = 8;

/// Flags of a node.
pub mod flag {
    /// The name exists: it has data, or is the parent of a name in a local zone.
    pub const EXISTS: u16 = 1;
    /// The apex of a local zone.
    pub const ZONE: u16 = 2;
    /// What the zone cut says ([`is_of_zone_cut`](super::is_of_zone_cut)) is asked upstream, unless the node has it.
    pub const CUT_ELSEWHERE: u16 = 4;
}

/// Whether a type says something about a zone as such: where it is cut off its parent, and whether it is signed.
#[must_use]
pub const fn is_of_zone_cut(qtype: u16) -> bool {
    matches!(qtype, rtype::NS | rtype::SOA | rtype::DS | rtype::DNSKEY)
}

/// A local record. Its owner is the name that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRecord<'a> {
    /// TYPE (RFC 1035 section 3.2.2).
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl_secs: u32,
    /// RDATA, names in it uncompressed.
    pub rdata: &'a [u8],
}

/// What local data says about a question.
#[derive(Clone, Copy, Debug)]
pub enum Local<'q> {
    /// Nothing: to be asked upstream.
    Unknown,
    /// The records of the type that was asked for: one at least.
    Records(LocalRecords<'q>),
    /// The name is an alias, to be answered with what its target has.
    Alias(Alias<'q>),
    /// The name exists, the type does not.
    Nodata {
        /// The local zone that the name is in, for the SOA record.
        zone: Option<&'q [u8]>,
    },
    /// The name does not exist.
    Nxdomain {
        /// The local zone that the name would be in, for the SOA record.
        zone: &'q [u8],
    },
}

/// A local alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias<'a> {
    /// The CNAME record, its target as it was written.
    pub record: LocalRecord<'a>,
    /// The target in lower case.
    pub target: &'a [u8],
}

/// How a chain of aliases ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<'q> {
    /// With records: all have been handed out.
    Records,
    /// With a name that is not local. The name itself where no alias was followed.
    Upstream(&'q [u8]),
    /// With a name without the type that was asked for, in this local zone.
    Nodata(Option<&'q [u8]>),
    /// With a name that does not exist in this local zone.
    Nxdomain(&'q [u8]),
    /// Never: the aliases go in a circle, or further than [`CHAIN_MAX`].
    Endless,
}

/// Records of one node.
#[derive(Clone, Copy, Debug)]
pub struct LocalRecords<'a> {
    bytes: &'a [u8],
    left: u16,
    rtype: u16,
}

impl LocalRecords<'_> {
    /// The type of all of them.
    #[must_use]
    pub const fn rtype(&self) -> u16 {
        self.rtype
    }
}

impl<'a> Iterator for LocalRecords<'a> {
    type Item = LocalRecord<'a>;

    fn next(&mut self) -> Option<LocalRecord<'a>> {
        // Bound: the node's number of records.
        while let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            let (record, rest) = cut_record(self.bytes)?;
            self.bytes = rest;
            if record.rtype == self.rtype {
                return Some(record);
            }
        }
        None
    }
}

fn cut_record(bytes: &[u8]) -> Option<(LocalRecord<'_>, &[u8])> {
    let len = usize::from(u16_at(bytes, 2)?);
    let (rdata, rest) = bytes.get(RECORD_HEAD..)?.split_at_checked(len)?;
    Some((
        LocalRecord {
            rtype: u16_at(bytes, 0)?,
            ttl_secs: u32_at(bytes, 4)?,
            rdata,
        },
        rest,
    ))
}

/// The records of one name, and what is said of the name itself.
#[derive(Clone, Copy, Debug)]
struct Node<'a> {
    flags: u16,
    count: u16,
    wildcard: u32,
    records: &'a [u8],
}

impl<'a> Node<'a> {
    const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    const fn records(&self, rtype: u16) -> LocalRecords<'a> {
        LocalRecords {
            bytes: self.records,
            left: self.count,
            rtype,
        }
    }

    /// What the node says about a type, in a name that lies in `zone`.
    fn answer(&self, qtype: u16, zone: Option<&'a [u8]>) -> Local<'a> {
        let records = self.records(qtype);
        if qtype != TARGET && records.clone().next().is_some() {
            return Local::Records(records);
        }
        if let Some(record) = self.records(rtype::CNAME).next() {
            let target = self.records(TARGET).next();
            let target = target.map_or(record.rdata, |target| target.rdata);
            return Local::Alias(Alias { record, target });
        }
        if self.has(flag::CUT_ELSEWHERE) && is_of_zone_cut(qtype) {
            return Local::Unknown;
        }
        Local::Nodata { zone }
    }
}

/// All local data.
#[derive(Clone, Copy, Debug)]
pub struct LocalData<'a> {
    names: NameTable<'a>,
    nodes: &'a [u8],
}

impl<'a> LocalData<'a> {
    /// No names: every question is asked upstream.
    pub const EMPTY: Self = Self {
        names: NameTable::EMPTY,
        nodes: &[],
    };

    /// Views `bytes` as local data. Empty bytes are empty data.
    ///
    /// # Errors
    /// The bytes do not begin with a table of names.
    pub fn view(bytes: &'a [u8]) -> Result<Self, TableError> {
        if bytes.is_empty() {
            return Ok(Self::EMPTY);
        }
        let table_len = u32_at(bytes, 0).ok_or(TableError)? as usize;
        let rest = bytes.get(4..).ok_or(TableError)?;
        let (table, nodes) = rest.split_at_checked(table_len).ok_or(TableError)?;
        Ok(Self {
            names: NameTable::view(table)?,
            nodes,
        })
    }

    /// What is known about one name, without following aliases.
    #[must_use]
    pub fn lookup<'q>(&self, name: &Labels<'q>, qtype: u16) -> Local<'q>
    where
        'a: 'q,
    {
        let Some(found) = self.find(name) else {
            return Local::Unknown;
        };
        let zone = found.zone_depth.map(|depth| name.suffix(depth));
        let node = match found.wildcard {
            _ if found.is_name && found.node.has(flag::EXISTS) => Some(found.node),
            Some(wildcard) if !found.is_name => Some(wildcard),
            _ => None,
        };
        match (node, zone) {
            (Some(node), zone) => node.answer(qtype, zone),
            (None, Some(zone)) => Local::Nxdomain { zone },
            (None, None) => Local::Unknown,
        }
    }

    /// Answers from local data as far as it goes: hands out each record with its owner, following aliases. The owner is the
    /// name that was asked for, or an alias' target as it was written. `is_elsewhere`
    /// says of a name that local data denies whether somebody else was named for that part of the zone.
    pub fn resolve<'q>(
        &self,
        name: &Labels<'q>,
        qtype: u16,
        is_elsewhere: impl Fn(&Labels<'q>, &'q [u8]) -> bool,
        mut emit: impl FnMut(&'q [u8], LocalRecord<'q>),
    ) -> End<'q>
    where
        'a: 'q,
    {
        let mut owner = name.name();
        let mut name = *name;
        for _ in 0..=CHAIN_MAX {
            match self.lookup(&name, qtype) {
                Local::Unknown => return End::Upstream(name.name()),
                Local::Nodata { zone } => return End::Nodata(zone),
                Local::Nxdomain { zone } if is_elsewhere(&name, zone) => {
                    return End::Upstream(name.name());
                }
                Local::Nxdomain { zone } => return End::Nxdomain(zone),
                Local::Records(records) => {
                    records.for_each(|record| emit(owner, record));
                    return End::Records;
                }
                Local::Alias(alias) => {
                    emit(owner, alias.record);
                    let Some(target) = Labels::new(alias.target) else {
                        return End::Endless;
                    };
                    (owner, name) = (alias.record.rdata, target);
                }
            }
        }
        End::Endless
    }

    fn find(&self, name: &Labels<'_>) -> Option<Found<'a>> {
        let mut closest = None;
        let mut zone_depth = None;
        self.names.visit_suffixes(name, |depth, at| {
            let Some(node) = self.node(at) else { return };
            if node.has(flag::ZONE) {
                zone_depth = Some(depth);
            }
            closest = Some((depth, node));
        });
        let (depth, node) = closest?;
        Some(Found {
            node,
            is_name: depth == name.count(),
            wildcard: self.node(node.wildcard),
            zone_depth,
        })
    }

    fn node(&self, at: u32) -> Option<Node<'a>> {
        let bytes = self.nodes.get(at as usize..)?;
        Some(Node {
            flags: u16_at(bytes, 0)?,
            count: u16_at(bytes, 2)?,
            wildcard: u32_at(bytes, 4)?,
            records: bytes.get(NODE_HEAD..)?,
        })
    }
}

/// The name, or its closest parent that is known (the closest encloser of RFC 4592).
struct Found<'a> {
    node: Node<'a>,
    is_name: bool,
    wildcard: Option<Node<'a>>,
    zone_depth: Option<usize>,
}
