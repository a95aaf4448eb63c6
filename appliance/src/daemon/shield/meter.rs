//! Detects a flood: uncompleted SYNs per second.
//!
//! A genuine client answers within a round trip, and the kernel counts the resulting connection; a forged source never answers.
//! So the difference is measured and not the number of SYNs: a busy hour is not a flood.

use xdnsd_core::time::Instant;

/// Compares two counters once a second.
#[derive(Debug)]
pub struct Meter {
    /// Uncompleted SYNs per second from which there is a flood.
    threshold: u64,
    /// Time below the threshold after which the flood is over, in milliseconds.
    calm_ms: u64,
    last: Option<(Instant, u64)>,
    /// Connections at the last look in excess of its SYNs: the two counters are not read at the same moment.
    surplus: u64,
    /// Start of the time below the threshold, during a flood.
    calm_since: Option<Instant>,
    is_flood: bool,
}

/// The beginning or the end of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloodEdge {
    /// A flood has begun, with this number of uncompleted SYNs per second.
    Flood(u64),
    /// The flood is over.
    Calm,
}

impl Meter {
    pub fn new(threshold: u32, calm_secs: u32) -> Self {
        Self {
            threshold: threshold.into(),
            calm_ms: u64::from(calm_secs) * 1_000,
            last: None,
            surplus: 0,
            calm_since: None,
            is_flood: false,
        }
    }

    pub fn is_flood(&self) -> bool {
        self.is_flood
    }

    /// Takes `syns`, SYNs since the last look, and `accepted`, connections since the boot.
    pub fn look(&mut self, now: Instant, syns: u64, accepted: u64) -> Option<FloodEdge> {
        let (then, accepted_then) = self.last.replace((now, accepted))?;
        let elapsed_ms = now.millis().saturating_sub(then.millis()).max(1);
        let finished = accepted.saturating_sub(accepted_then);
        let unfinished = syns.saturating_sub(finished + self.surplus);
        self.surplus = finished.saturating_sub(syns);
        let rate = unfinished.saturating_mul(1_000) / elapsed_ms;
        if rate >= self.threshold {
            self.calm_since = None;
            let was_flood = std::mem::replace(&mut self.is_flood, true);
            return (!was_flood).then_some(FloodEdge::Flood(rate));
        }
        if !self.is_flood {
            return None;
        }
        let since = *self.calm_since.get_or_insert(then);
        if now.millis().saturating_sub(since.millis()) < self.calm_ms {
            return None;
        }
        self.calm_since = None;
        self.is_flood = false;
        Some(FloodEdge::Calm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second at these numbers of SYNs and connections, and returns the seconds at which the state changed.
    fn turns(meter: &mut Meter, seconds: &[(u64, u64)]) -> Vec<(usize, FloodEdge)> {
        let mut accepted = 1_000;
        let start = Instant::from_millis(5_000);
        meter.look(start, 77_777, accepted);
        let mut turns = Vec::new();
        for (second, (syns, more)) in seconds.iter().enumerate() {
            accepted += more;
            let now = start + 1_000 * (second as u64 + 1);
            turns.extend(meter.look(now, *syns, accepted).map(|turn| (second, turn)));
        }
        turns
    }

    #[test]
    fn what_nobody_completes_is_a_flood_until_it_was_calm_for_long_enough() {
        let mut meter = Meter::new(100, 3);
        let mut seconds = vec![
            (99, 0),
            (500, 450),
            (100, 0),
            (900, 0),
            (99, 0),
            (99, 0),
            (100, 0),
        ];
        seconds.extend([(99, 0); 5]);
        let expected = [(2, FloodEdge::Flood(100)), (9, FloodEdge::Calm)];
        assert_eq!(turns(&mut meter, &seconds), expected);
        assert!(!meter.is_flood());
    }

    #[test]
    fn many_connections_are_no_flood_and_neither_is_what_was_before_the_first_look() {
        let mut meter = Meter::new(10, 1);
        assert_eq!(turns(&mut meter, &[(50_000, 50_000), (3, 80), (0, 0)]), []);
    }

    /// The reader was delayed between the two counters: an event is in one of them now, and in the other a look later.
    #[test]
    fn counters_that_are_not_read_at_one_moment_make_no_flood() {
        let mut meter = Meter::new(100, 1);
        let seconds = [(600, 600), (600, 900), (600, 300), (600, 600)];
        assert_eq!(turns(&mut meter, &seconds), []);
        // Only once.
        let mut meter = Meter::new(100, 1);
        let seconds = [(0, 500), (0, 0), (100, 0)];
        assert_eq!(turns(&mut meter, &seconds), [(2, FloodEdge::Flood(100))]);
    }

    #[test]
    fn a_look_that_comes_late_counts_by_time() {
        let mut meter = Meter::new(100, 1);
        let start = Instant::from_millis(0);
        assert_eq!(meter.look(start, 0, 0), None);
        assert_eq!(meter.look(start + 10_000, 999, 0), None);
        let turn = meter.look(start + 12_000, 200, 0);
        assert_eq!(turn, Some(FloodEdge::Flood(100)));
        // A clock that stands still causes no division by zero.
        assert_eq!(meter.look(start + 12_000, 0, 0), None);
    }
}
