//! Loops of aliases, and chains that are too long.

use std::collections::HashSet;

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::local::{CHAIN_MAX, End, Local, LocalData};
use xdnsd_core::policy::name::Labels;

use super::{LocalBuilder, shown};
use crate::compile::name;
use crate::compile::table::random_key;

impl LocalBuilder {
    /// Loops and long chains of aliases that begin at these names, each with its index among them. A loop is reported once, at its
    /// first name, and again at names that lead into it.
    #[must_use]
    pub fn dead_ends(self, owners: &[Vec<u8>]) -> Vec<(usize, String)> {
        let image = self.build(random_key);
        let Ok(data) = LocalData::view(&image) else {
            return Vec::new();
        };
        let mut told = HashSet::new();
        let mut found = Vec::new();
        for (index, owner) in owners.iter().enumerate() {
            if told.contains(owner) {
                continue;
            }
            if let Some(path) = dead_end(&data, owner) {
                found.push((index, in_words(&path)));
                told.extend(path);
            }
        }
        found
    }
}

/// Names on the path of the aliases behind a name, if it is endless: up to the first that is there twice, or to the longest chain
/// that is followed.
fn dead_end(data: &LocalData<'_>, owner: &[u8]) -> Option<Vec<Vec<u8>>> {
    let labels = Labels::new(owner)?;
    let mut path = vec![owner.to_vec()];
    let nobody_else = |_: &Labels<'_>, _: &Local<'_>| false;
    let end = data.resolve(&labels, rtype::A, nobody_else, |_, record| {
        let is_round = path
            .last()
            .is_some_and(|last| path[..path.len() - 1].contains(last));
        if !is_round && record.rtype == rtype::CNAME {
            path.push(name::lower(record.rdata));
        }
    });
    (end == End::Endless).then_some(path)
}

fn in_words(path: &[Vec<u8>]) -> String {
    let all: Vec<String> = path.iter().map(|name| shown(name)).collect();
    let all = all.join(" -> ");
    match path.split_last() {
        Some((last, before)) if before.contains(last) => {
            format!("aliases (CNAME) in a circle, answered SERVFAIL: {all}")
        }
        _ => format!("more than {CHAIN_MAX} aliases (CNAME) in a row, answered SERVFAIL: {all}"),
    }
}
