//! Local data: records from the config, hosts files and DHCP leases.
//!
//! ```text
//!  0            4
//! | table length | table of names (value: where the name's node begins) | node | node | …
//!
//! node    | flags u16 | records u16 | wildcard's node u32, or NONE | record | record | …
//! record  | type u16  | length u16  | TTL u32 | RDATA without compression |
//! ```
//! Node positions count from the end of the table. Records keep the order of their source, so that RRsets are answered in
//! that order.
//!
//! A *local zone* is answered from local data alone: names in it without data do not exist (NXDOMAIN), and their parents up
//! to the apex do (NODATA, RFC 8020). Outside local zones only names with data are answered: another type of the same name
//! is NODATA, another name is asked upstream. A plain host name outside local zones, such as `nas`, may hide a top-level
//! domain: its types at a zone cut (NS, SOA, DS, DNSKEY) are then asked upstream, for validators behind us. So is the DS of
//! a local zone, which belongs to its parent (`Policy::decide`).
//!
//! Owners are in lower case, names in RDATA keep their letter case. If the target of an alias is not in lower case, a
//! record of type [`TARGET`] with the lower-case target follows the alias.
//!
//! `*.dev.lan` covers names below `dev.lan` as in RFC 4592, except existing names and names below those.

use super::bytes::{u16_at, u32_at};
use super::name::Labels;
use super::table::{NameTable, TableError};
use crate::dns::rtype;

/// Length of a node before its records, in bytes.
pub const NODE_HEAD: usize = 8;
/// Length of a record before its RDATA, in bytes.
pub const RECORD_HEAD: usize = 8;
/// Value in place of the wildcard's node if there is no wildcard.
pub const NONE: u32 = u32::MAX;
/// Type of the record that follows an alias and holds its target in lower case. Type 0 is reserved (RFC 6895 section 3.1),
/// so no answer contains it.
pub const TARGET: u16 = 0;
/// Most CNAME steps of [`LocalData::resolve`]. A longer chain ends unanswered.
pub const CHAIN_MAX: usize = 8;

/// Flags of a node.
pub mod flag {
    /// The name exists: it has data, or is the parent of a name in a local zone.
    pub const EXISTS: u16 = 1;
    /// The apex of a local zone.
    pub const ZONE: u16 = 2;
    /// Types at a zone cut ([`is_of_zone_cut`](super::is_of_zone_cut)) are asked upstream, unless the node has them.
    pub const CUT_ELSEWHERE: u16 = 4;
    /// Names below it have data, so it exists where nothing but a denial of ours says otherwise (RFC 8020): below a special-use name,
    /// or as a plain name.
    pub const PARENT: u16 = 8;
}

/// True for types about a zone as such: where it is cut off from its parent, and whether it is signed.
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

/// Result of a look-up in local data.
#[derive(Clone, Copy, Debug)]
pub enum Local<'q> {
    /// No data: the question is asked upstream.
    Unknown,
    /// Records of the asked type, one at least.
    Records(LocalRecords<'q>),
    /// The name is an alias, to be answered with the records of its target.
    Alias(Alias<'q>),
    /// The name exists, the type does not.
    Nodata {
        /// Local zone of the name, for the SOA record.
        zone: Option<&'q [u8]>,
    },
    /// The name does not exist.
    Nxdomain {
        /// Local zone of the name, for the SOA record.
        zone: &'q [u8],
    },
}

/// A local alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias<'a> {
    /// The CNAME record, with the target in its original letter case.
    pub record: LocalRecord<'a>,
    /// Target in lower case.
    pub target: &'a [u8],
}

/// End of a chain of aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<'q> {
    /// Records, all of which have been emitted.
    Records,
    /// A name that is not local; the name itself if no alias was followed.
    Upstream(&'q [u8]),
    /// A name without the asked type, in this local zone.
    Nodata(Option<&'q [u8]>),
    /// A name that does not exist in this local zone.
    Nxdomain(&'q [u8]),
    /// None: the aliases form a loop or exceed [`CHAIN_MAX`].
    Endless,
}

/// Iterator over records of one type in a node.
#[derive(Clone, Copy, Debug)]
pub struct LocalRecords<'a> {
    bytes: &'a [u8],
    left: u16,
    rtype: u16,
}

impl LocalRecords<'_> {
    /// Type of the records.
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

/// Records and flags of one name.
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

    /// The node's answer for a type, for a name in `zone`.
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
    /// Data without names: every question is asked upstream.
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

    /// Looks one name up, without following aliases.
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

    /// Answers from local data as far as possible: emits each record with its owner, following aliases. The owner is the
    /// name that was asked for, or an alias's target in its original letter case. `is_open` tells of what is found at a name
    /// whether another source is believed instead.
    pub fn resolve<'q>(
        &self,
        name: &Labels<'q>,
        qtype: u16,
        is_open: impl Fn(&Labels<'q>, &Local<'q>) -> bool,
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
                found if is_open(&name, &found) => return End::Upstream(name.name()),
                Local::Nodata { zone } => return End::Nodata(zone),
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

    /// True if names below this one have data, and a denial of ours would deny them as well.
    #[must_use]
    pub fn is_parent(&self, name: &Labels<'_>) -> bool {
        let found = self.find(name);
        found.is_some_and(|found| found.is_name && found.node.has(flag::PARENT))
    }

    /// True if the name itself has records, or a wildcard gives it some. Else it exists at most as a part of a local zone.
    #[must_use]
    pub fn has_records(&self, name: &Labels<'_>) -> bool {
        let node = self.find(name).and_then(|found| match found.is_name {
            true => Some(found.node),
            false => found.wildcard,
        });
        node.is_some_and(|node| node.count > 0)
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

/// The node of the name, or of its closest encloser (RFC 4592).
struct Found<'a> {
    node: Node<'a>,
    is_name: bool,
    wildcard: Option<Node<'a>>,
    zone_depth: Option<usize>,
}
