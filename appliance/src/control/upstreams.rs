//! State of upstream servers: `xdnsd upstreams`, and a line in the log when a server falls silent and when it answers again.
//!
//! Each worker measures servers by itself; this module joins their findings.

use std::fmt::Write as _;

use log::Level;
use serde_json::{Value, json};
use xdnsd_core::forward::upstreams::{FailureKind, ServerCounts};
use xdnsd_core::forward::via::Destination;
use xdnsd_core::time::Instant;

use crate::os::device;
use crate::text;
use crate::worker::ServerReading;

/// State of a server, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerState {
    to: Destination,
    /// Number of its group.
    group: u8,
    /// RTT at the worker that had the latest answer.
    rtt_ms: Option<u32>,
    counts: ServerCounts,
    answered: Option<Instant>,
    /// Last failure, and its time in seconds since 1970.
    failure: Option<(FailureKind, u64)>,
    /// Last failure seen by a worker that takes the server for silent.
    silent: Option<Instant>,
}

impl ServerState {
    fn of(reading: &ServerReading) -> Self {
        Self {
            to: reading.to,
            group: reading.group,
            rtt_ms: reading.rtt_ms,
            counts: reading.counts,
            answered: reading.answered,
            failure: reading.failure,
            silent: reading.failed.filter(|_| !reading.is_up),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.to, self.group) == (other.to, other.group)
    }

    /// Adds the findings of another worker.
    fn join(&mut self, other: &Self) {
        if other.answered > self.answered {
            (self.answered, self.rtt_ms) = (other.answered, other.rtt_ms);
        }
        let by_time = |failure: &Option<(FailureKind, u64)>| failure.map(|(_, at)| at);
        self.failure = [self.failure, other.failure]
            .into_iter()
            .max_by_key(by_time)
            .flatten();
        self.silent = self.silent.max(other.silent);
        self.counts.asked += other.counts.asked;
        self.counts.answered += other.counts.answered;
        self.counts.failed += other.counts.failed;
    }

    /// True if the server is silent: a worker takes it for silent, and no worker has had an answer since that failure. So the
    /// finding of a worker that seldom asks does not count for ever, either way.
    fn is_silent(&self) -> bool {
        self.silent.is_some() && self.silent > self.answered
    }

    const fn state(&self, is_silent: bool) -> &'static str {
        match (is_silent, self.answered) {
            (true, _) => "silent",
            (false, Some(_)) => "up",
            (false, None) => "unknown",
        }
    }
}

/// States joined over all workers, in the order of the config.
#[must_use]
pub fn servers<'r>(readings: impl IntoIterator<Item = &'r ServerReading>) -> Vec<ServerState> {
    let mut servers: Vec<ServerState> = Vec::new();
    for server in readings.into_iter().map(ServerState::of) {
        match servers.iter_mut().find(|known| known.is_same(&server)) {
            Some(known) => known.join(&server),
            None => servers.push(server),
        }
    }
    servers
}

/// Name of a group, or its number if a reload has just removed the name.
#[must_use]
pub fn group_name(groups: &[String], group: u8) -> String {
    let name = groups.get(usize::from(group));
    name.map_or_else(|| group.to_string(), Clone::clone)
}

/// Table of the servers, a line each; `unix_secs` is the current time.
#[must_use]
pub fn table(servers: &[ServerState], groups: &[String], unix_secs: u64) -> String {
    const HEAD: [&str; 9] = [
        "group",
        "server",
        "state",
        "rtt",
        "asked",
        "share",
        "answered",
        "failed",
        "last failure",
    ];
    let asked =
        |of: &mut dyn Iterator<Item = &ServerState>| of.map(|one| one.counts.asked).sum::<u64>();
    let row = |server: &ServerState| {
        let is_of_group = |other: &&ServerState| other.group == server.group;
        let all = asked(&mut servers.iter().filter(is_of_group));
        let share = (server.counts.asked * 100 + all / 2).checked_div(all);
        [
            text::line(&group_name(groups, server.group)).into_owned(),
            device::written_server(server.to),
            server.state(server.is_silent()).to_owned(),
            server.rtt_ms.map_or("-".into(), |rtt| format!("{rtt} ms")),
            server.counts.asked.to_string(),
            share.map_or("-".into(), |share| format!("{share} %")),
            server.counts.answered.to_string(),
            server.counts.failed.to_string(),
            server.failure.map_or("-".into(), |(kind, at)| {
                let ago = unix_secs.saturating_sub(at);
                format!("{}, {ago} s ago", kind.name())
            }),
        ]
    };
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(servers.iter().map(row));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells.fold(String::new(), |mut line, (cell, width)| {
            // Writing to a `String` cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
            line
        });
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// JSON list of the servers, an object each; `unix_secs` is the current time.
#[must_use]
pub fn json(servers: &[ServerState], groups: &[String], unix_secs: u64) -> Value {
    let object = |server: &ServerState| {
        let failure = server.failure.map(
            |(kind, at)| json!({ "reason": kind.name(), "secs_ago": unix_secs.saturating_sub(at) }),
        );
        json!({
            "group": group_name(groups, server.group),
            "server": device::written_server(server.to),
            "state": server.state(server.is_silent()),
            "rtt_ms": server.rtt_ms,
            "asked": server.counts.asked,
            "answered": server.counts.answered,
            "failed": server.counts.failed,
            "last_failure": failure,
        })
    };
    servers.iter().map(object).collect()
}

/// State of the servers that was logged.
#[derive(Debug, Default)]
pub struct UpstreamWatch {
    /// Silent servers, and when that was first seen.
    silent: Vec<(ServerState, Instant)>,
}

impl UpstreamWatch {
    /// Changes, in lines for the log. Servers that the config no longer names are forgotten.
    pub fn look(
        &mut self,
        servers: &[ServerState],
        groups: &[String],
        now: Instant,
    ) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        let before = std::mem::take(&mut self.silent);
        let since = |server: &ServerState| {
            let known = before.iter().find(|(known, _)| known.is_same(server));
            known.map(|(_, since)| *since)
        };
        let mut concerned = Vec::new();
        for server in servers {
            let address = device::written_server(server.to);
            let name = group_name(groups, server.group);
            let name = text::line(&name);
            match (since(server), server.is_silent()) {
                (None, true) => {
                    let why = server.failure.map_or("timeout", |(kind, _)| kind.name());
                    lines.push((
                        Level::Warn,
                        format!("upstream {address} ({name}): does not answer: {why}"),
                    ));
                    concerned.push(server.group);
                    self.silent.push((*server, now));
                }
                (Some(since), true) => self.silent.push((*server, since)),
                (Some(since), false) => {
                    let secs = now.secs_since(since);
                    lines.push((
                        Level::Info,
                        format!("upstream {address} ({name}): answers again, after {secs} s"),
                    ));
                }
                (None, false) => {}
            }
        }
        concerned.dedup();
        for group in concerned {
            let of_group = || servers.iter().filter(|server| server.group == group);
            let all = of_group().count();
            if all > 1 && of_group().all(ServerState::is_silent) {
                let name = group_name(groups, group);
                let name = text::line(&name);
                lines.push((
                    Level::Error,
                    format!("upstream group {name}: none of its {all} servers answers"),
                ));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn reading(address: &str, group: u8) -> ServerReading {
        ServerReading {
            to: address.parse::<SocketAddr>().expect("an address").into(),
            group,
            rtt_ms: None,
            is_up: true,
            counts: ServerCounts::default(),
            answered: None,
            failed: None,
            failure: None,
        }
    }

    const fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1000)
    }

    /// A server that failed `secs` after the epoch, for the third time.
    fn silent(address: &str, group: u8, secs: u64) -> ServerReading {
        ServerReading {
            is_up: false,
            failed: Some(at(secs)),
            failure: Some((FailureKind::Timeout, 1_700_000_000 + secs)),
            ..reading(address, group)
        }
    }

    fn answered(address: &str, group: u8, secs: u64) -> ServerReading {
        ServerReading {
            answered: Some(at(secs)),
            rtt_ms: Some(7),
            ..reading(address, group)
        }
    }

    const A: &str = "192.0.2.1:53";
    const B: &str = "[2001:db8::1]:53";

    fn groups() -> Vec<String> {
        vec!["default".into(), "lab\u{1b}".into()]
    }

    #[test]
    fn a_server_is_silent_if_no_worker_has_heard_it_since_one_gave_it_up() {
        for (readings, state) in [
            (vec![reading(A, 0)], "unknown"),
            (vec![answered(A, 0, 5)], "up"),
            (vec![silent(A, 0, 5)], "silent"),
            (vec![silent(A, 0, 5), answered(A, 0, 4)], "silent"),
            (vec![silent(A, 0, 5), answered(A, 0, 6)], "up"),
            (vec![answered(A, 0, 6), silent(A, 0, 5)], "up"),
            (
                vec![silent(A, 0, 7), silent(A, 0, 5), answered(A, 0, 6)],
                "silent",
            ),
        ] {
            let joined = servers(&readings);
            assert_eq!(joined.len(), 1);
            let server = joined[0];
            assert_eq!(server.state(server.is_silent()), state, "{readings:?}");
        }
    }

    #[test]
    fn the_table_adds_up_what_workers_counted() {
        let counts = |asked, answered, failed| ServerCounts {
            asked,
            answered,
            failed,
        };
        let a = ServerReading {
            counts: counts(20, 19, 1),
            ..answered(A, 0, 9)
        };
        let again = ServerReading {
            counts: counts(10, 8, 2),
            rtt_ms: Some(99),
            answered: Some(at(3)),
            failure: Some((FailureKind::Malformed, 1_700_000_002)),
            ..a
        };
        let b = ServerReading {
            counts: counts(10, 0, 10),
            ..silent(B, 0, 4)
        };
        let other = reading(B, 1);
        let joined = servers(&[a, b, again, other]);
        assert_eq!(
            table(&joined, &groups(), 1_700_000_010),
            "group    server            state    rtt   asked  share  answered  failed  last failure\n\
             default  192.0.2.1:53      up       7 ms  30     75 %   27        3       malformed, 8 s ago\n\
             default  [2001:db8::1]:53  silent   -     10     25 %   0         10      timeout, 6 s ago\n\
             lab\\x1b  [2001:db8::1]:53  unknown  -     0      -      0         0       -\n"
        );
        let told = json(&joined, &groups(), 1_700_000_010);
        let a_is = json!({
            "group": "default", "server": A, "state": "up", "rtt_ms": 7, "asked": 30, "answered": 27, "failed": 3,
            "last_failure": { "reason": "malformed", "secs_ago": 8 },
        });
        let other_is = json!({
            "group": "lab\u{1b}", "server": B, "state": "unknown", "rtt_ms": null, "asked": 0, "answered": 0, "failed": 0,
            "last_failure": null,
        });
        assert_eq!([&told[0], &told[2]], [&a_is, &other_is]);
    }

    #[test]
    fn the_log_is_told_once_of_each_change() {
        let mut watch = UpstreamWatch::default();
        let mut look = |readings: &[ServerReading], secs| {
            let lines = watch.look(&servers(readings), &groups(), at(secs));
            let lines = lines
                .into_iter()
                .map(|(level, line)| format!("{level} {line}"));
            lines.collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(look(&[reading(A, 0), answered(B, 0, 1)], 1), none);
        let a_is_gone = "WARN upstream 192.0.2.1:53 (default): does not answer: timeout";
        assert_eq!(look(&[silent(A, 0, 2), answered(B, 0, 1)], 2), [a_is_gone]);
        assert_eq!(look(&[silent(A, 0, 3), answered(B, 0, 1)], 3), none);
        assert_eq!(
            look(&[silent(A, 0, 3), silent(B, 0, 4)], 4),
            [
                "WARN upstream [2001:db8::1]:53 (default): does not answer: timeout",
                "ERROR upstream group default: none of its 2 servers answers"
            ]
        );
        assert_eq!(look(&[silent(A, 0, 5), silent(B, 0, 5)], 5), none);
        let back = "INFO upstream 192.0.2.1:53 (default): answers again, after 5 s";
        assert_eq!(look(&[answered(A, 0, 7), silent(B, 0, 5)], 7), [back]);
        // It leaves the config and comes back.
        assert_eq!(look(&[answered(A, 0, 7)], 8), none);
        assert_eq!(
            look(&[answered(A, 0, 7), silent(B, 1, 9)], 9),
            ["WARN upstream [2001:db8::1]:53 (lab\\x1b): does not answer: timeout"]
        );
    }
}
