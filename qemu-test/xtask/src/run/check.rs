//! Questions of `run --lab`, with the expected answers and tiers.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Router;
use super::dig::{self, Answer};
use super::stats::Stats;
use xdnsd_lab::dnsperf;
use xdnsd_lab::lab::{LAN_V4, LAN_V6, Lab};
use xdnsd_lab::wait::wait_until;
use xdnsd_lab::zone;

/// Longest delay between an answer and its counter.
const COUNT_TIMEOUT: Duration = Duration::from_secs(2);
/// Queries for a hot name: more than enough in a second.
const OFTEN: usize = 20;
/// Load per second and family: slow enough for a busy machine, so that a lost query is a fault.
const LOAD_RATE: &str = "1000";
const LOAD_SECS: &str = "2";

/// Tier that gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The XDP program itself.
    Program,
    /// A worker, over AF_XDP.
    Xdp,
    /// The kernel's UDP socket.
    Udp,
    /// TCP.
    Tcp,
    /// No counter of an answer changed.
    Unknown,
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Program => "XDP",
            Self::Xdp => "AF_XDP",
            Self::Udp => "kernel UDP",
            Self::Tcp => "TCP",
            Self::Unknown => "nobody who counts",
        })
    }
}

/// A question and its expected answer.
struct Case {
    name: String,
    kind: &'static str,
    status: &'static str,
    records: Vec<String>,
    /// True if it exceeds a UDP answer: dig asks again over TCP, and the cache does not keep it.
    is_big: bool,
}

impl Case {
    /// `records` are `owner type data`, with owners in the zone.
    fn new(name: &str, kind: &'static str, records: &[&str]) -> Self {
        let absolute = |record: &&str| {
            let (owner, rest) = record.split_once(' ').unwrap_or((record, ""));
            format!("{owner}.{} {rest}", zone::ORIGIN)
        };
        let mut records: Vec<_> = records.iter().map(absolute).collect();
        records.sort();
        let name = format!("{name}.{}", zone::ORIGIN);
        Self {
            name,
            kind,
            status: "NOERROR",
            records,
            is_big: false,
        }
    }

    fn nxdomain(name: &str) -> Self {
        Self {
            status: "NXDOMAIN",
            ..Self::new(name, "A", &[])
        }
    }

    fn texts(name: &str, strings: u32, is_big: bool) -> Self {
        let records =
            (0..strings).map(|number| format!("{name} TXT \"{}\"", zone::long_string(number)));
        let records: Vec<_> = records.collect();
        let records: Vec<_> = records.iter().map(String::as_str).collect();
        Self {
            is_big,
            ..Self::new(name, "TXT", &records)
        }
    }

    /// The fault of an answer, if any.
    fn fault(&self, answer: &Answer) -> Option<String> {
        if answer.status != self.status {
            return Some(format!("{} instead of {}", answer.status, self.status));
        }
        if answer.records != self.records {
            return Some(format!(
                "{:?} instead of {:?}",
                answer.records, self.records
            ));
        }
        let is_aged = answer.ttl_secs <= zone::TTL_SECS;
        (!is_aged).then(|| format!("TTL {} is above the zone's", answer.ttl_secs))
    }
}

/// A name with one record, which may become hot.
fn host(kind: &'static str, address: impl fmt::Display) -> Case {
    Case::new("host-1", kind, &[&format!("host-1 {kind} {address}")])
}

/// Cases over IPv4. The names differ from those over IPv6, so that each is a first hit once.
fn cases_v4() -> Vec<Case> {
    vec![
        Case::new("www", "A", &["www A 192.0.2.1", "www A 192.0.2.2"]),
        Case::new(
            "mx",
            "MX",
            &["mx MX 10 mail.lab.test.", "mx MX 20 mail2.lab.test."],
        ),
        Case::new("a.wild", "A", &["a.wild A 192.0.2.77"]),
        host("A", zone::host_v4(1)),
        Case::nxdomain("missing-4"),
        Case::texts("medium", zone::MEDIUM_STRINGS, false),
        Case::texts("big", zone::BIG_STRINGS, true),
    ]
}

fn cases_v6() -> Vec<Case> {
    let alias = [
        "alias CNAME alias2.lab.test.",
        "alias2 CNAME www.lab.test.",
        "www AAAA 2001:db8::1",
        "www AAAA 2001:db8::2",
    ];
    vec![
        Case::new("alias", "AAAA", &alias),
        Case::new("txt", "TXT", &["txt TXT \"first\" \"second\""]),
        Case::new(
            "_dns._udp.srv",
            "SRV",
            &["_dns._udp.srv SRV 0 5 53 ns.lab.test."],
        ),
        host("AAAA", zone::host_v6(1)),
        Case::new("nonterminal", "A", &[]),
        Case::nxdomain("missing-6"),
        Case::texts("big", zone::BIG_STRINGS, true),
    ]
}

/// Asks everything twice, one name often, then all as load. `has_checksums`: queries have whole checksums, so that the XDP program
/// answers hot names. Returns the number of wrong answers.
pub fn all(lab: &Lab, router: &Router, has_checksums: bool) -> Result<usize> {
    let client = Client { lab, router };
    let mut wrong = 0;
    for (server, cases) in [
        (IpAddr::V4(LAN_V4), cases_v4()),
        (LAN_V6.into(), cases_v6()),
    ] {
        println!("\ndig @{server}");
        for case in cases {
            let faults = client.twice(server, &case)?;
            wrong += faults.len();
            for fault in faults {
                println!("    WRONG: {fault}");
            }
        }
    }
    if has_checksums {
        println!("\nasked {OFTEN} times");
        for (server, case) in [
            (IpAddr::V4(LAN_V4), host("A", zone::host_v4(1))),
            (LAN_V6.into(), host("AAAA", zone::host_v6(1))),
        ] {
            let fault = client.often(server, &case)?;
            wrong += usize::from(fault.is_some());
            fault
                .iter()
                .for_each(|fault| println!("    WRONG: {fault}"));
        }
    }
    // After all first hits, since the load fills the cache.
    for server in [IpAddr::V4(LAN_V4), LAN_V6.into()] {
        println!("\ndnsperf -s {server}");
        wrong += client.load(server)?;
    }
    Ok(wrong)
}

/// The lab's client, and the router that it asks.
struct Client<'a> {
    lab: &'a Lab,
    router: &'a Router,
}

impl Client<'_> {
    /// Asks for a first hit and a cache hit.
    fn twice(&self, server: IpAddr, case: &Case) -> Result<Vec<String>> {
        let (answer, first) = self.once(server, case)?;
        let mut faults: Vec<_> = case.fault(&answer).into_iter().collect();
        let (again, second) = self.once(server, case)?;
        faults.extend(case.fault(&again));
        println!("  {:<24} {:<5} {}", case.name, case.kind, answer.summary());
        println!(
            "    first: {first}, {}; again: {second}, {}",
            answer.time_ms, again.time_ms
        );
        let wanted = if case.is_big { Tier::Tcp } else { Tier::Xdp };
        if second.tier != wanted {
            faults.push(format!(
                "answered again by {}, not by {wanted}",
                second.tier
            ));
        }
        if !case.is_big && !second.is_hit {
            faults.push("asked again, it is no cache hit".to_owned());
        }
        // The big RRset is asked for over both families, and the cache keeps it where it fits a slot.
        if !case.is_big && first.is_hit {
            faults.push("asked first, it is a cache hit".to_owned());
        }
        Ok(faults)
    }

    /// Asks for a hot name; returns the fault, if any.
    fn often(&self, server: IpAddr, case: &Case) -> Result<Option<String>> {
        for _ in 0..OFTEN {
            dig::ask(&self.lab.client, server, &case.name, case.kind)?;
        }
        let (answer, path) = self.once(server, case)?;
        println!("  {:<24} {:<5} {}", case.name, case.kind, answer.summary());
        println!("    {path}, {}", answer.time_ms);
        let is_right = path.tier == Tier::Program;
        let fault = (!is_right).then(|| format!("answered by {}, not by XDP", path.tier));
        Ok(case.fault(&answer).or(fault))
    }

    fn once(&self, server: IpAddr, case: &Case) -> Result<(Answer, Path)> {
        let before = self.router.stats()?;
        let answer = dig::ask(&self.lab.client, server, &case.name, case.kind);
        let answer = answer
            .with_context(|| format!("the appliance's log:\n{}", self.router.process.log()))?;
        let mut path = Path::of(&Stats::default());
        // A timeout is reported by the caller, as an unknown tier.
        let counted = wait_until("the answer is counted", COUNT_TIMEOUT, || {
            path = self
                .router
                .stats()
                .map_or(Path::of(&Stats::default()), |now| {
                    Path::of(&now.since(&before))
                });
            path.tier != Tier::Unknown
        });
        drop(counted);
        Ok((answer, path))
    }

    /// A short load by dnsperf at a rate that every machine sustains: no query may be lost.
    fn load(&self, server: IpAddr) -> Result<usize> {
        let mut command = dnsperf::command(&self.lab.client, server, &self.router.questions);
        command.args(["-Q", LOAD_RATE, "-l", LOAD_SECS]);
        let report = dnsperf::run(command)?;
        let (sent, lost, right) = (report.sent, report.lost, report.code("NOERROR"));
        println!(
            "  {sent} queries at {LOAD_RATE} per second: {lost} lost, {right} answered NOERROR"
        );
        usize::try_from(sent - right).context("a count fits")
    }
}

/// Path of an answer, from counters that changed meanwhile.
struct Path {
    tier: Tier,
    is_hit: bool,
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let source = if self.is_hit {
            "from the cache"
        } else {
            "asked upstream"
        };
        write!(formatter, "{source}, answered by {}", self.tier)
    }
}

impl Path {
    fn of(moved: &Stats) -> Self {
        // A truncated answer is counted by its tier, and then over TCP.
        let tiers = [
            (Tier::Tcp, "answers_tcp"),
            (Tier::Udp, "answers_udp"),
            (Tier::Xdp, "answers_xdp"),
        ];
        let by_user_space = tiers
            .into_iter()
            .find(|(_, counter)| moved.get(counter) > 0);
        let is_by_program = moved.answered_by_program() > 0;
        let is_hit =
            (is_by_program || moved.get("cache_hits") > 0) && moved.get("upstream_queries") == 0;
        Self {
            tier: match by_user_space {
                Some((tier, _)) => tier,
                None if is_by_program => Tier::Program,
                None => Tier::Unknown,
            },
            is_hit,
        }
    }
}
