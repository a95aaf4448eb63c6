//! Runs dnsperf and parses its output.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::netns::Namespace;
use crate::process::output_of;

/// Counts reported by dnsperf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Queries sent.
    pub sent: u64,
    /// Queries that were answered.
    pub completed: u64,
    /// Queries without an answer.
    pub lost: u64,
    /// Answers by response code.
    pub codes: BTreeMap<String, u64>,
    /// Answers per second.
    pub rate: f64,
    /// Latency of each answer in microseconds, in their order; only with `-v`.
    pub latencies_us: Vec<f64>,
}

/// Command that asks `server` the `questions` from `host`. The caller adds number and rate.
#[must_use]
pub fn command(host: &Namespace, server: IpAddr, questions: &Path) -> Command {
    let mut command = host.command("dnsperf");
    command.args(["-s", &server.to_string(), "-T", "1", "-d"]);
    command.arg(questions);
    command
}

/// Runs the command to its end.
pub fn run(mut command: Command) -> Result<Report> {
    let text = output_of(&mut command).context("dnsperf (package dnsperf)")?;
    Report::parse(&text)
}

impl Report {
    /// Parses dnsperf's output.
    pub fn parse(text: &str) -> Result<Self> {
        let after = |label: &str| {
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(label));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.with_context(|| format!("dnsperf printed no {label:?}:\n{text}"))
        };
        let count = |label: &str| -> Result<u64> { Ok(after(label)?.parse()?) };
        let codes = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Response codes:"))
            .unwrap_or_default();
        let rate = after("Queries per second:")?;
        Ok(Self {
            sent: count("Queries sent:")?,
            completed: count("Queries completed:")?,
            lost: count("Queries lost:")?,
            codes: codes.split(',').filter_map(code).collect(),
            rate: rate.parse()?,
            latencies_us: text.lines().filter_map(latency_us).collect(),
        })
    }

    /// Answers with this response code.
    #[must_use]
    pub fn code(&self, name: &str) -> u64 {
        self.codes.get(name).copied().unwrap_or(0)
    }
}

/// Parses `NOERROR 5 (100.00%)`.
fn code(text: &str) -> Option<(String, u64)> {
    let mut words = text.split_whitespace();
    let (name, count) = (words.next()?, words.next()?);
    Some((name.to_owned(), count.parse().ok()?))
}

/// Parses `> NOERROR name A 0.000123`; a lost query has no time.
fn latency_us(line: &str) -> Option<f64> {
    let words = line.strip_prefix("> ")?;
    let secs: f64 = words.rsplit(' ').next()?.parse().ok()?;
    Some(secs * 1e6)
}

#[cfg(test)]
mod tests {
    use super::Report;

    const TEXT: &str = "DNS Performance Testing Tool
> NOERROR q1.miss.test A 0.003165
> T q2.miss.test A
> NXDOMAIN q3.miss.test A 0.001

  Queries sent:         3
  Queries completed:    2 (66.67%)
  Queries lost:         1 (33.33%)

  Response codes:       NOERROR 1 (50.00%), NXDOMAIN 1 (50.00%)
  Run time (s):         2.000183
  Queries per second:   37504.068378
";

    #[test]
    fn what_is_printed_is_read() {
        let report = Report::parse(TEXT).expect("a report");
        assert_eq!((report.sent, report.completed, report.lost), (3, 2, 1));
        assert_eq!((report.code("NOERROR"), report.code("NXDOMAIN")), (1, 1));
        assert_eq!(report.code("SERVFAIL"), 0);
        assert_eq!(report.latencies_us.len(), 2);
        assert!((report.latencies_us[0] - 3165.0).abs() < 1e-6);
        assert!((report.rate - 37_504.068_378).abs() < 1e-6);
    }

    #[test]
    fn no_report_is_an_error_that_shows_it() {
        let error = Report::parse("no servers\n").expect_err("nothing was counted");
        assert!(error.to_string().contains("no servers"), "{error}");
    }
}
