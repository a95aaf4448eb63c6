//! Counters of the daemon, as `xdnsd stats` gives them: Prometheus' text format.

use std::fmt::Debug;

use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;

/// The text at one moment.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

/// A metric that can be read from it.
pub trait Metric: Debug {
    /// Name of the metric family.
    fn family(&self) -> String;
    /// Label of its samples; empty: the sum over all samples of the family.
    fn label(&self) -> String {
        String::new()
    }
}

impl Metric for Counter {
    fn family(&self) -> String {
        format!("xdnsd_{}_total", self.name())
    }
}

/// Allocations after start-up in a sealed thread.
#[derive(Debug)]
pub struct SealedAllocations;

impl Metric for SealedAllocations {
    fn family(&self) -> String {
        "xdnsd_sealed_allocations_total".to_owned()
    }
}

/// Frames by reason in the XDP program, over all CPUs.
impl Metric for Reason {
    fn family(&self) -> String {
        "xdnsd_xdp_frames_total".to_owned()
    }

    fn label(&self) -> String {
        format!("reason=\"{}\"", self.name())
    }
}

/// One counter of one RX queue.
#[derive(Debug)]
pub struct OfQueue(pub u32, pub Counter);

impl Metric for OfQueue {
    fn family(&self) -> String {
        self.1.family()
    }

    fn label(&self) -> String {
        format!("queue=\"{}\"", self.0)
    }
}

impl Metrics {
    /// Parses the daemon's text.
    pub fn new(text: String) -> Self {
        Self { text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Sum of the samples of `metric`; `None` if there is no such sample.
    pub fn get(&self, metric: &dyn Metric) -> Option<u64> {
        let (family, label) = (metric.family(), metric.label());
        let samples = self.text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let wanted = name == family && labels.contains(&label);
            wanted.then(|| value.parse::<u64>().ok()).flatten()
        });
        samples.fold(None, |sum, value| Some(sum.unwrap_or(0) + value))
    }

    /// Growth of `metric` since `earlier`. A missing sample counts as 0.
    pub fn growth(&self, earlier: &Self, metric: &dyn Metric) -> u64 {
        let of = |metrics: &Self| metrics.get(metric).unwrap_or(0);
        of(self).wrapping_sub(of(earlier))
    }
}
