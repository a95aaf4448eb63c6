//! Image of local data, for `xdnsd_core::policy::local`.

use std::collections::HashMap;

use xdnsd_abi::hash::HashKey;
use xdnsd_core::dns::rtype;
use xdnsd_core::policy::local::{NONE, flag};
use xdnsd_core::policy::name::Labels;
use xdnsd_core::policy::special::{self, Kinds, private_reverse_zone};

use super::node::{Node, RecordSource, emit_node};
use super::{LocalBuilder, is_wildcard};
use crate::compile::name::{self, cut_label};
use crate::compile::table::TableBuilder;

/// Top-level domains that clients might have as names. Those of two letters and the internationalised ones are recognised
/// without a list.
const TOP_LEVEL: [&[u8]; 20] = [
    b"arpa", b"com", b"net", b"org", b"edu", b"gov", b"mil", b"int", b"info", b"biz", b"name",
    b"app", b"dev", b"page", b"cloud", b"online", b"site", b"shop", b"xyz", b"top",
];

impl LocalBuilder {
    /// The image. Without names and zones it is empty.
    #[must_use]
    pub fn build(mut self, draw_key: impl FnMut() -> HashKey) -> Vec<u8> {
        if self.names.is_empty() && self.rules.zones.is_empty() {
            return Vec::new();
        }
        self.mark_zones();
        self.mark_wildcards();
        self.mark_parents();
        self.mark_plain_names();
        self.emit(draw_key)
    }

    fn mark_zones(&mut self) {
        for zone in self.rules.zones.clone() {
            self.node(&zone).flags |= flag::ZONE | flag::EXISTS;
        }
    }

    fn mark_wildcards(&mut self) {
        let parents: Vec<Vec<u8>> = self
            .names
            .iter()
            .filter_map(|name| Some(is_wildcard(name)?.to_vec()))
            .collect();
        for parent in parents {
            self.node(&parent).has_wildcard = true;
        }
    }

    /// Marks the parents of every name as existing, as far up as the data around them is ours: up to the apex of a local zone,
    /// below the parent of a wildcard, below the apex of a reverse zone of private addresses (RFC 4592 section 2.2.2, RFC
    /// 8020). Other parents are marked as such if policy may deny them.
    fn mark_parents(&mut self) {
        for owner in self.names.clone() {
            let has_records = self
                .nodes
                .get(&owner)
                .is_some_and(|node| !node.records.is_empty());
            let mut name = is_wildcard(&owner).unwrap_or(&owner);
            // Bounded: a name has at most 127 parents.
            loop {
                let is_ours = self.is_ours(name);
                if is_ours {
                    self.node(name).flags |= flag::EXISTS;
                }
                // What an RFC fixes is denied in a local zone as well, and a zone alone has no names.
                if (has_records || !is_ours) && may_be_denied(name) {
                    self.node(name).flags |= flag::PARENT;
                }
                match name::parent(name) {
                    Some(parent) => name = parent,
                    None => break,
                }
            }
        }
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        let is_private = |labels: Labels<'_>| {
            private_reverse_zone(&labels).is_some_and(|zone| labels.count() > zone)
        };
        if Labels::new(name).is_some_and(is_private) {
            return true;
        }
        let has = |name: &[u8], what: fn(&Node) -> bool| self.nodes.get(name).is_some_and(what);
        let parents = std::iter::successors(name::parent(name), |name| name::parent(name));
        has(name, |node| node.flags & flag::ZONE != 0)
            || parents.into_iter().any(|name| {
                has(name, |node| {
                    node.flags & flag::ZONE != 0 || node.has_wildcard
                })
            })
    }

    /// Marks the plain names for which types at a zone cut go upstream. If plain names stay local, those of the operator hide
    /// all types; a client named like a top-level domain does not hide that domain's keys.
    fn mark_plain_names(&mut self) {
        for name in &self.names {
            let Some((label, [0])) = cut_label(name) else {
                continue;
            };
            let Some(node) = self.nodes.get_mut(name) else {
                continue;
            };
            let is_lease = node.records.iter().all(|r| r.source == RecordSource::Lease);
            let is_open = self.forward_plain_names || (is_lease && is_top_level(label));
            if is_open && node.flags & flag::ZONE == 0 {
                node.flags |= flag::CUT_ELSEWHERE;
            }
        }
    }

    fn emit(&self, draw_key: impl FnMut() -> HashKey) -> Vec<u8> {
        let mut places: HashMap<&[u8], u32> = HashMap::new();
        let mut nodes = Vec::new();
        let mut table = TableBuilder::default();
        for name in &self.names {
            let at = nodes.len() as u32;
            places.insert(name, at);
            table.insert(name, at);
            emit_node(&mut nodes, &self.nodes[name]);
        }
        for name in self
            .names
            .iter()
            .filter(|name| self.nodes[*name].has_wildcard)
        {
            let wildcard = name::child(b"*", name)
                .and_then(|wildcard| places.get(wildcard.as_slice()).copied());
            let at = places[name.as_slice()] as usize + 4;
            nodes[at..][..4].copy_from_slice(&wildcard.unwrap_or(NONE).to_le_bytes());
        }
        let table = table.build(draw_key);
        let mut image = Vec::from((table.len() as u32).to_le_bytes());
        image.extend(table);
        image.extend(nodes);
        image
    }
}

/// True for names that policy denies by itself: special-use names, whichever of them are switched on, and plain names.
fn may_be_denied(name: &[u8]) -> bool {
    let is_denied = |labels: Labels<'_>| {
        labels.count() == 1 || special::lookup(&labels, rtype::A, Kinds::EVERY).is_some()
    };
    Labels::new(name).is_some_and(is_denied)
}

/// True if a label may be that of a top-level domain.
fn is_top_level(label: &[u8]) -> bool {
    let is_of_country = label.len() == 2 && label.iter().all(u8::is_ascii_alphabetic);
    is_of_country || label.starts_with(b"xn--") || TOP_LEVEL.contains(&label)
}
