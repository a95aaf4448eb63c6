//! States of the whole process that metrics show.

use std::sync::Arc;

use super::shield::Prefixes;
use crate::compile::set::PolicySet;
use crate::control::metrics;
use crate::store::{CACHE, HOT, TAP};

/// Gauges of the whole process.
pub(super) fn gauges(
    prefixes: &Prefixes,
    policy: impl Fn() -> Arc<PolicySet> + Send + Sync + 'static,
) -> Vec<metrics::Gauge> {
    let (denied, allowed) = (prefixes.clone(), prefixes.clone());
    vec![
        metrics::Gauge {
            name: "shield_prefixes_denied",
            help: "Prefixes that the XDP programs deny",
            value: Box::new(move || denied.counts().denied as u64),
        },
        metrics::Gauge {
            name: "shield_prefixes_allowed",
            help: "Prefixes that they let in, though a shorter one is denied",
            value: Box::new(move || allowed.counts().allowed as u64),
        },
        metrics::Gauge {
            name: "cache_entries",
            help: "Answers in the cache",
            value: Box::new(|| CACHE.len() as u64),
        },
        metrics::Gauge {
            name: "lists_paused",
            help: "1 while lists are paused: xdnsd pause",
            value: Box::new(move || policy().is_paused().into()),
        },
        metrics::Gauge {
            name: "tap_readers",
            help: "Who reads of queries as they are answered: xdnsd tail and its like",
            value: Box::new(|| TAP.readers() as u64),
        },
        metrics::Gauge {
            name: "tier0_entries",
            help: "Answers that the program for hot names has",
            value: Box::new(|| HOT.len() as u64),
        },
    ]
}
