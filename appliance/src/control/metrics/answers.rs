//! Answers by RCODE and transport, over all workers.

use xdnsd_core::counters::Counters;
use xdnsd_core::counters::answers::{AnswerReading, AnswerWay, RCODES};

use super::exposition::Exposition;

/// Sums of all workers.
pub fn read<'a>(workers: impl Iterator<Item = &'a Counters>) -> AnswerReading {
    let mut sums = AnswerReading::default();
    for counters in workers {
        let read = counters.answers.read();
        let pairs = sums.as_flattened_mut().iter_mut().zip(read.as_flattened());
        pairs.for_each(|(sum, more)| *sum += more);
    }
    sums
}

/// Writes the family `responses_total`.
pub fn write(reading: &AnswerReading, out: &mut dyn Exposition) {
    let help = "Answers by RCODE and the way that they went out by. Those of the XDP program are not among them";
    out.family("responses_total", help, "counter");
    let names = RCODES.iter().map(|(_, name)| *name).chain(["other"]);
    for (counts, way) in reading.iter().zip(AnswerWay::ALL) {
        for (count, rcode) in counts.iter().zip(names.clone()) {
            let labels = [("rcode", rcode), ("transport", way.name())];
            out.sample("responses_total", &labels, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Prometheus;
    use super::*;

    #[test]
    fn each_rcode_and_way_has_a_sample_of_all_workers() {
        let workers = [Counters::new(), Counters::new()];
        workers[0].answers.count(AnswerWay::Udp, &[0, 0, 0x80, 3]);
        workers[1].answers.count(AnswerWay::Udp, &[0, 0, 0x80, 3]);
        workers[1].answers.count(AnswerWay::Tcp, &[0, 0, 0x80, 7]);
        let mut out = Prometheus::default();
        write(&read(workers.iter()), &mut out);
        for line in [
            r#"xdnsd_responses_total{rcode="NXDOMAIN",transport="udp"} 2"#,
            r#"xdnsd_responses_total{rcode="other",transport="tcp"} 1"#,
            r#"xdnsd_responses_total{rcode="NOERROR",transport="af_xdp"} 0"#,
        ] {
            assert!(out.0.contains(&format!("{line}\n")), "{line}: {}", out.0);
        }
        assert_eq!(out.0.matches("xdnsd_responses_total{").count(), 21);
    }
}
