//! What clients of each view ask. Shown while there are views; what is counted for a view is summed over all workers.

use xdnsd_core::counters::{Counters, ViewCounter};

use super::Reading;
use super::exposition::Exposition;

/// Name of the view of all clients that are in no other.
const DEFAULT: &str = "default";

/// A view by its name, and its counts in the order of [`ViewCounter::ALL`].
pub type ViewReading = (String, [u64; ViewCounter::COUNT]);

/// Reads the counts of these views, which are numbered from 1 on. None if there are none.
pub fn read(names: Vec<String>, counters: &[&Counters]) -> Vec<ViewReading> {
    if names.is_empty() {
        return Vec::new();
    }
    let names = [DEFAULT.to_owned()].into_iter().chain(names);
    let of = |(view, name)| {
        let sum = |counter: &ViewCounter| {
            let counts = counters
                .iter()
                .map(|counters| counters.get_for(view, *counter));
            counts.fold(0, u64::wrapping_add)
        };
        (
            name,
            std::array::from_fn(|index| sum(&ViewCounter::ALL[index])),
        )
    };
    names.enumerate().map(of).collect()
}

impl Reading {
    pub(super) fn view_families(&self, out: &mut dyn Exposition) {
        if self.views.is_empty() {
            return;
        }
        for (index, counter) in ViewCounter::ALL.iter().enumerate() {
            let name = format!("{}_total", counter.name());
            out.family(&name, counter.help(), "counter");
            for (view, counts) in &self.views {
                out.sample(&name, &[("view", view)], counts[index]);
            }
        }
    }
}
