//! How long answers took, as a histogram by tier over all workers.

use xdnsd_core::counters::Counters;
use xdnsd_core::counters::latency::{BOUNDS_MICROS, LatencyReading, Tier};

use super::exposition::{Exposition, in_seconds};

/// By [`Tier`].
pub type LatencyReadings = [LatencyReading; Tier::COUNT];

/// Sums of all workers.
pub fn read<'a>(workers: impl Iterator<Item = &'a Counters>) -> LatencyReadings {
    let mut sums = LatencyReadings::default();
    for counters in workers {
        for (sum, tier) in sums.iter_mut().zip(Tier::ALL) {
            sum.add(&counters.latency(*tier).read());
        }
    }
    sums
}

/// Writes the family `answer_seconds`: cumulative buckets, sum and count of each tier.
pub fn write(readings: &LatencyReadings, out: &mut dyn Exposition) {
    let help = "How long answers took, by where they came from. Those of the XDP program are not among them. af_xdp and kernel: \
                answered at once, from the first look at a batch of queries until its answers were handed to the kernel. upstream: \
                answered after upstream was asked, since the question was first sent, in whole milliseconds";
    out.family("answer_seconds", help, "histogram");
    for (reading, tier) in readings.iter().zip(Tier::ALL) {
        let mut count = 0;
        for (bucket, more) in reading.counts.iter().enumerate() {
            count += more;
            let bound = BOUNDS_MICROS.get(bucket).map(|micros| seconds(*micros));
            let bound = bound.as_deref().unwrap_or("+Inf");
            let labels = [("tier", tier.name()), ("le", bound)];
            out.sample("answer_seconds_bucket", &labels, count);
        }
        let labels = [("tier", tier.name())];
        out.seconds("answer_seconds_sum", &labels, reading.micros);
        out.sample("answer_seconds_count", &labels, count);
    }
}

/// The shortest decimal: `0.00001`, `2`.
fn seconds(micros: u64) -> String {
    let text = in_seconds(micros);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Json, Prometheus};
    use super::{read, seconds, write};
    use xdnsd_core::counters::Counters;
    use xdnsd_core::counters::latency::Tier;

    #[test]
    fn bounds_are_written_as_people_write_them() {
        let shown = [10, 500_000, 1_000_000, 5_000_000].map(seconds);
        assert_eq!(shown, ["0.00001", "0.5", "1", "5"]);
    }

    #[test]
    fn buckets_are_cumulative_and_of_all_workers() {
        let workers = [Counters::new(), Counters::new()];
        workers[0].latency(Tier::Upstream).observe(3_000, 2);
        workers[1].latency(Tier::Upstream).observe(7_000_000, 1);
        let readings = read(workers.iter());
        let mut out = Prometheus::default();
        write(&readings, &mut out);
        for line in [
            r#"xdnsd_answer_seconds_bucket{tier="upstream",le="0.002"} 0"#,
            r#"xdnsd_answer_seconds_bucket{tier="upstream",le="0.005"} 2"#,
            r#"xdnsd_answer_seconds_bucket{tier="upstream",le="5"} 2"#,
            r#"xdnsd_answer_seconds_bucket{tier="upstream",le="+Inf"} 3"#,
            r#"xdnsd_answer_seconds_sum{tier="upstream"} 7.006000"#,
            r#"xdnsd_answer_seconds_count{tier="upstream"} 3"#,
            r#"xdnsd_answer_seconds_count{tier="af_xdp"} 0"#,
        ] {
            assert!(out.0.contains(&format!("{line}\n")), "{line}: {}", out.0);
        }
        let mut json = Json::default();
        write(&readings, &mut json);
        assert!(json.into_line().contains(r#""value":7.006}"#));
    }
}
