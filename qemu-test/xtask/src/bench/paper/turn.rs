//! One turn: a server is started, asked, captured, asked the same again, and ended.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::capture::{self, Capture};
use super::report::{Series, What};
use super::site::{ADDRESS, Ground, Who};
use xdnsd_lab::dnsperf;
use xdnsd_lab::family::Family;

/// Names that dig asks for; dnsperf asks for the others.
const BY_DIG: usize = 5;
/// Queries for each name, as fast as possible, before it is hot: more than enough in a second.
const WARM_TIMES: u32 = 20;
/// Share of a capture's queries that must be answered.
const ANSWERED_MIN: f64 = 0.99;

/// Measures.
pub fn turn(ground: &Ground, who: Who, family: Family, rate: u32) -> Result<Vec<Series>> {
    let process = ground.start(who, family)?;
    let turn = Turn {
        ground,
        who,
        family,
        rate,
    };
    let measured = turn.measure();
    measured.with_context(|| match &process {
        Some(process) => format!("its log:\n{}", process.log()),
        None => "no process".to_owned(),
    })
}

struct Turn<'a> {
    ground: &'a Ground,
    who: Who,
    family: Family,
    rate: u32,
}

impl Turn<'_> {
    fn measure(&self) -> Result<Vec<Series>> {
        let server = self.who.address(self.family);
        let first = self.capture("first", || self.ask(server))?;
        let (what_first, what_again) = match self.who {
            Who::Upstream => return Ok(vec![self.series(What::Direct, &first)?]),
            Who::Appliance => (Some(What::FirstHit), What::CacheHit),
            // The first hits are those of the appliance without tier 0.
            Who::Tier0 => (None, What::HotName),
            Who::Dnsmasq => (Some(What::DnsmasqFirst), What::DnsmasqHit),
        };
        let client = &self.ground.lab.client;
        let queries = self.path("queries");
        capture::queries_of(&first, &queries)?;
        if self.who == Who::Tier0 {
            capture::replay(client, &queries, None, WARM_TIMES)?;
        }
        let again = self.capture("again", || {
            capture::replay(client, &queries, Some(self.rate), 1)
        })?;
        let mut series = Vec::new();
        if let Some(what) = what_first {
            series.push(self.series(what, &first)?);
        }
        series.push(self.series(what_again, &again)?);
        Ok(series)
    }

    fn path(&self, what: &str) -> PathBuf {
        let (who, family) = (self.who, self.family.name());
        let name = format!("{who:?}-{family}-{what}.pcap").to_ascii_lowercase();
        self.ground.directory.join(name)
    }

    /// Captures the queries that `work` has the client send.
    fn capture(&self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<PathBuf> {
        let capture = Capture::start(&self.ground.lab.client, &self.path(what))?;
        work()?;
        capture.finish()
    }

    /// Asks for every name once: the first ones by dig, whose answers are checked, the others by dnsperf.
    fn ask(&self, server: IpAddr) -> Result<()> {
        let client = &self.ground.lab.client;
        let (by_dig, by_dnsperf) = self.ground.names.split_at(BY_DIG);
        for name in by_dig {
            let at = format!("@{server}");
            let said = client.output(&["dig", &at, name, "A", "+short", "+tries=1"])?;
            ensure!(said.trim() == ADDRESS, "dig {name}: {said:?}");
        }
        let questions = questions(by_dnsperf, &self.ground.directory)?;
        let mut command = dnsperf::command(client, server, &questions);
        command.args(["-n", "1", "-Q", &self.rate.to_string()]);
        let report = dnsperf::run(command)?;
        ensure!(
            report.code("NOERROR") == by_dnsperf.len() as u64,
            "{report:?}"
        );
        Ok(())
    }

    fn series(&self, what: What, capture: &Path) -> Result<Series> {
        let latencies_us = capture::latencies_us(capture)?;
        let (answered, asked) = (latencies_us.len(), self.ground.names.len());
        ensure!(
            answered <= asked && answered as f64 >= ANSWERED_MIN * asked as f64,
            "{answered} responses to {asked} queries in {}",
            capture.display()
        );
        Ok(Series {
            what,
            family: self.family,
            latencies_us,
        })
    }
}

fn questions(names: &[String], directory: &Path) -> Result<PathBuf> {
    let mut text = String::new();
    for name in names {
        // Writing to a string never fails.
        let _ = writeln!(text, "{name} A");
    }
    let path = directory.join("queries.txt");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
