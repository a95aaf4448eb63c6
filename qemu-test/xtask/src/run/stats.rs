//! The appliance's counters, from its control socket.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use xdnsd_lab::process::output_of;

/// Counters by name, summed over their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<String, u64>);

/// Asks a running appliance.
pub fn ask(server: &Path, socket: &Path) -> Result<Stats> {
    let mut command = Command::new(server);
    let text = output_of(
        command
            .args(["stats", "--prometheus", "--socket"])
            .arg(socket),
    )?;
    Ok(Stats::parse(&text))
}

impl Stats {
    /// Parses Prometheus' text format.
    fn parse(text: &str) -> Self {
        let mut stats = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((metric, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<u64>() else {
                continue;
            };
            // The label `reason` distinguishes counters; the others are summed over.
            let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
            let reason = labels
                .split(['{', ',', '}'])
                .find(|label| label.starts_with("reason="));
            // Summing a gauge over workers and servers would be meaningless.
            if !name.ends_with("_total") {
                continue;
            }
            let key =
                reason.map_or_else(|| name.to_owned(), |reason| format!("{name}{{{reason}}}"));
            *stats.0.entry(key).or_default() += value;
        }
        stats
    }

    /// Value of `xdnsd_NAME_total`, or 0 without it.
    pub fn get(&self, name: &str) -> u64 {
        self.0
            .get(&format!("xdnsd_{name}_total"))
            .copied()
            .unwrap_or(0)
    }

    /// Frames that the XDP program has answered itself.
    pub fn answered_by_program(&self) -> u64 {
        let key = "xdnsd_xdp_frames_total{reason=\"answered\"}";
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Increments since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let moved = self.0.iter().map(|(name, value)| {
            let earlier = before.0.get(name).copied().unwrap_or(0);
            (name.clone(), value.saturating_sub(earlier))
        });
        Self(moved.collect())
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        for (name, value) in self.0.iter().filter(|(_, value)| **value > 0) {
            writeln!(formatter, "{value:>10}  {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Stats;

    const TEXT: &str =
        "# HELP xdnsd_answers_xdp_total Answers\n# TYPE xdnsd_answers_xdp_total counter
xdnsd_answers_xdp_total{interface=\"lan0\",queue=\"0\"} 3
xdnsd_answers_xdp_total{interface=\"lan0\",queue=\"1\"} 4
xdnsd_xdp_frames_total{interface=\"lan0\",cpu=\"0\",reason=\"redirect\"} 5
xdnsd_xdp_frames_total{interface=\"lan0\",cpu=\"1\",reason=\"redirect\"} 1
xdnsd_xdp_frames_total{interface=\"lan0\",cpu=\"1\",reason=\"answered\"} 8
xdnsd_uptime_seconds 9
";

    #[test]
    fn labels_are_summed_but_for_the_reason() {
        let stats = Stats::parse(TEXT);
        assert_eq!(stats.get("answers_xdp"), 7);
        assert_eq!(stats.answered_by_program(), 8);
        assert_eq!(stats.get("answers_tcp"), 0);
        assert!(
            stats
                .to_string()
                .contains("6  xdnsd_xdp_frames_total{reason=\"redirect\"}")
        );
    }

    #[test]
    fn gauges_are_no_counters() {
        assert!(TEXT.contains("uptime"));
        assert!(!Stats::parse(TEXT).to_string().contains("uptime"));
    }

    #[test]
    fn since_is_the_difference() {
        let before = Stats::parse("xdnsd_answers_xdp_total{queue=\"0\"} 5\n");
        assert_eq!(Stats::parse(TEXT).since(&before).get("answers_xdp"), 2);
    }
}
