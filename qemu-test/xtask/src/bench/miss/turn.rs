//! One turn of one subject.

use std::path::Path;

use anyhow::{Result, ensure};

use super::subject::Subject;
use super::{Ground, Plan};
use crate::bench::measure::cpu_ns;
use crate::bench::report::median;
use xdnsd_lab::dnsperf::{self, Report};

/// Questions in flight at once, from so many ports.
const IN_FLIGHT: &str = "128";
const PORTS: &str = "8";

/// Result of one turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Answers per second at the highest rate.
    pub rate: f64,
    /// Questions that were lost or not answered NOERROR.
    pub failed: u64,
    /// Processor time of the subject per answer, in microseconds; 0 for the upstream.
    pub cpu_us: f64,
    /// Median latency at the plan's rate, in microseconds.
    pub latency_us: f64,
}

/// Starts the subject, asks it, and ends it.
pub fn turn(subject: Subject, plan: Plan, ground: &Ground, sections: &str) -> Result<Turn> {
    let Ground {
        lab,
        program,
        questions,
        directory,
        ..
    } = ground;
    let process = subject.start(lab, program, sections, directory)?;
    let cpu_ns = || {
        process
            .as_ref()
            .map_or(Ok(0), |process| cpu_ns(process.pid()))
    };
    let ask = |file: &Path, words: &[&str]| -> Result<Report> {
        let mut command = dnsperf::command(&lab.client, subject.address(), file);
        // Each question once.
        command.args(["-n", "1", "-c", PORTS]).args(words);
        dnsperf::run(command)
    };
    let (seconds, rate) = (plan.seconds.to_string(), plan.rate.to_string());
    ask(&questions.first, &["-q", "20"])?;
    let before_ns = cpu_ns()?;
    let fast = ask(&questions.fast, &["-q", IN_FLIGHT, "-l", &seconds])?;
    let used_ns = cpu_ns()? - before_ns;
    let slow = ask(&questions.slow, &["-Q", &rate, "-v"])?;
    ensure!(
        slow.latencies_us.len() as u64 == slow.completed,
        "dnsperf -v shows each answer"
    );
    let failed = [&fast, &slow].map(|report| report.sent - report.code("NOERROR"));
    Ok(Turn {
        rate: fast.rate,
        failed: failed.iter().sum(),
        cpu_us: used_ns as f64 / 1000.0 / fast.completed as f64,
        latency_us: median(slow.latencies_us),
    })
}
