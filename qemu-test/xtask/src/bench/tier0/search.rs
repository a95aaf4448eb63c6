//! The highest rate at which a subject answers. That may be below full load, since a core that spends time on queries that it
//! then drops has less for answers.

use anyhow::Result;

/// Result of one trial, per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Queries.
    pub offered: f64,
    /// Answers.
    pub answered: f64,
}

/// Trials after the first one.
const STEPS: u32 = 6;
/// Share of queries answered from which a rate counts as held.
const HELD: f64 = 0.98;
/// Ratio below which two rates count as the same.
const SAME: f64 = 1.02;

/// Tries rates, first `None`, as fast as possible. Returns the rate with the most answers, and its trial.
pub fn highest(
    mut trial: impl FnMut(Option<f64>) -> Result<Trial>,
) -> Result<(Option<f64>, Trial)> {
    let mut best = (None, trial(None)?);
    let (mut low, mut high) = (best.1.answered.max(1.0), best.1.offered);
    for _ in 0..STEPS {
        if high < low * SAME {
            break;
        }
        let rate = (low * high).sqrt();
        let tried = trial(Some(rate))?;
        if tried.answered > best.1.answered {
            best = (Some(rate), tried);
        }
        if tried.answered >= HELD * tried.offered {
            low = rate;
        } else {
            high = rate;
            // The rate answered here can be held, or nearly.
            low = low.max(tried.answered);
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::{Trial, highest};

    /// Answers queries up to `capacity`, and fewer the more are asked beyond.
    fn subject(capacity: f64, waste: f64) -> impl FnMut(Option<f64>) -> anyhow::Result<Trial> {
        move |rate| {
            let offered = rate.unwrap_or(5_000_000.0);
            let beyond = (offered - capacity).max(0.0);
            let answered = (offered - beyond * (1.0 + waste)).max(1000.0);
            Ok(Trial { offered, answered })
        }
    }

    #[test]
    fn what_loses_nothing_under_load_is_measured_at_once() {
        let (rate, trial) = highest(subject(6_000_000.0, 0.0)).expect("no trial fails");
        assert_eq!((rate, trial.answered), (None, 5_000_000.0));
    }

    #[test]
    fn what_drowns_is_measured_where_it_does_not() {
        for capacity in [40_000.0, 400_000.0, 3_000_000.0] {
            let (rate, trial) = highest(subject(capacity, 0.5)).expect("no trial fails");
            assert!(rate.is_some(), "{capacity}");
            let share = trial.answered / capacity;
            assert!((0.9..=1.0).contains(&share), "{share} of {capacity}");
        }
    }

    #[test]
    fn an_error_ends_it() {
        let mut count = 0;
        let failed = highest(|_| {
            count += 1;
            anyhow::ensure!(count < 3, "no more");
            Ok(Trial {
                offered: 100.0,
                answered: 10.0,
            })
        });
        assert!(failed.is_err() && count == 3);
    }
}
