//! Tests of readings, of their text, and of Prometheus' format.

use std::net::SocketAddr;

use super::*;
use crate::os::xsk::{self, Census, Statistics};
use crate::worker::SocketReading;
use xdnsd_core::counters::ViewCounter;
use xdnsd_core::forward::upstreams::{FailureKind, ServerCounts};
use xdnsd_core::policy::view::number_of_paused;

static FIRST: Counters = Counters::new();
static SECOND: Counters = Counters::new();
static UNUSED: WorkerStats = WorkerStats::new();
static SOCKETS: [SocketStats; 2] = [const { SocketStats::new() }; 2];

fn lan0() -> QueueName {
    QueueName {
        interface: "lan0".into(),
        queue: 0,
    }
}

fn protect(interface: &str, why_not: &'static str) -> ProtectStatus {
    ProtectStatus {
        interface: interface.into(),
        addresses: Vec::new(),
        ports: Vec::new(),
        why_not: Box::new(move || why_not),
    }
}

fn reading(queries: u64, hits: u64, misses: u64, frames: [[u64; 2]; 2]) -> Reading {
    let mut counters = [0; Counter::COUNT];
    counters[Counter::QueriesXdp as usize] = queries;
    counters[Counter::AnswersXdp as usize] = queries;
    counters[Counter::CacheHits as usize] = hits;
    counters[Counter::CacheMisses as usize] = misses;
    let worker = WorkerReading {
        name: "0".into(),
        queues: vec![lan0()],
        counters,
        servers: Vec::new(),
    };
    let program = ProgramReading {
        interface: "lan0".into(),
        frames: frames.map(|cpus| cpus.to_vec()).to_vec(),
        no_syn_cookies: "off",
        no_tier0: "off",
    };
    Reading {
        workers: vec![worker],
        queues: vec![QueueReading {
            name: lan0(),
            counts: [queries, queries, 0, 0],
            socket: None,
        }],
        programs: vec![program],
        ..Reading::default()
    }
}

#[test]
fn rates_are_differences_over_time() {
    let earlier = reading(100, 50, 50, [[10, 0], [5, 0]]);
    let later = reading(2100, 2040, 60, [[2010, 0], [6, 3]]);
    assert_eq!(
        rates(&earlier, &later, Duration::from_secs(2)),
        [
            "worker 0 (lan0 queue 0): 1000 queries/s, 1000 answers/s, 99.5 % from the cache",
            "lan0 cpu 0: 1000/s redirected, 0.5/s pass_truncated",
            "lan0 cpu 1: 1.5/s pass_truncated",
        ]
    );
    assert_eq!(
        rates(&later, &later, Duration::from_secs(2)),
        ["worker 0 (lan0 queue 0): 0 queries/s, 0 answers/s"],
        "a quiet queue is said, quiet CPUs are not"
    );
    assert_eq!(
        rates(&Reading::default(), &earlier, Duration::from_secs(1))[0]
            .split(',')
            .next(),
        Some("worker 0 (lan0 queue 0): 100 queries/s")
    );
}

/// A program with these reasons for giving no SYN cookies and answering no hot names.
fn program(
    interface: &str,
    frames: Read<Vec<Vec<u64>>>,
    [no_syn_cookies, no_tier0]: [&'static str; 2],
) -> ProgramCounters {
    ProgramCounters {
        interface: interface.into(),
        port: None,
        frames,
        no_syn_cookies: Box::new(move || no_syn_cookies),
        no_tier0: Box::new(move || no_tier0),
    }
}

#[test]
fn what_is_registered_is_read_and_rendered() {
    FIRST.add(Counter::CacheHits, 7);
    SOCKETS[0].name(&lan0());
    SECOND.count(Counter::CacheMisses);
    FIRST.count_for(1, ViewCounter::Blocked);
    // Lists are paused for this client of the same view.
    SECOND.count_for(number_of_paused(1), ViewCounter::Blocked);
    let frames: Read<Vec<Vec<u64>>> = Box::new(|| Ok(vec![vec![5, 6]; Reason::COUNT as usize]));
    let broken: Read<Vec<Vec<u64>>> = Box::new(|| Err(io::Error::other("the map is gone")));
    let telemetry = Telemetry {
        workers: vec![
            WorkerCounters {
                name: "0".into(),
                queues: vec![lan0()],
                counters: &FIRST,
                stats: &UNUSED,
            },
            WorkerCounters {
                name: "tcp".into(),
                queues: Vec::new(),
                counters: &SECOND,
                stats: &UNUSED,
            },
        ]
        .into(),
        sockets: &SOCKETS,
        programs: vec![
            program("lan0", frames, ["calm", "device"]),
            program("wan0", broken, ["", ""]),
        ],
        protects: vec![protect("lan0", ""), protect("dmz0", "kernel")],
        lists: Some(Box::new(|| vec![("ads.txt".into(), "block", 2)])),
        gauges: vec![Gauge {
            name: "cache_entries",
            help: "Answers in the cache",
            value: Box::new(|| 42),
        }],
        arrivals: Some(Box::new(|| {
            let by = |counter, name: &str, count| (counter, vec![(name.to_owned(), count)]);
            vec![
                by(Counter::QueriesUdp, "lo", 8),
                by(Counter::AnswersTcp, "a\"b\\", 9),
            ]
        })),
        groups: None,
        views: Some(Box::new(|| vec!["guests".to_owned()])),
        tier0: Some(Box::new(|| Some(std::array::from_fn(|at| at as u64 + 70)))),
    };
    let text = telemetry.read().prometheus();
    for line in [
        "# HELP xdnsd_cache_hits_total Queries answered from the cache within the TTL.",
        "# TYPE xdnsd_cache_hits_total counter",
        "xdnsd_cache_hits_total{worker=\"0\"} 7",
        "xdnsd_cache_misses_total{worker=\"tcp\"} 1",
        "xdnsd_queries_xdp_total{interface=\"lan0\",queue=\"0\"} 0",
        "xdnsd_xdp_frames_total{interface=\"lan0\",cpu=\"1\",reason=\"pass_stale\"} 6",
        "# TYPE xdnsd_syn_cookies gauge",
        "xdnsd_syn_cookies{interface=\"lan0\",reason=\"calm\"} 0",
        "xdnsd_tier0{interface=\"lan0\",reason=\"device\"} 0",
        "xdnsd_protect{interface=\"lan0\"} 1",
        "xdnsd_protect{interface=\"dmz0\",reason=\"kernel\"} 0",
        "xdnsd_tier0_queries_total{outcome=\"answered\"} 70",
        "xdnsd_tier0_queries_total{outcome=\"no_room\"} 76",
        "xdnsd_queries_udp_total{interface=\"lo\",queue=\"kernel\"} 8",
        "xdnsd_answers_tcp_total{interface=\"a\\\"b\\\\\",queue=\"tcp\"} 9",
        "# TYPE xdnsd_view_blocked_total counter",
        "xdnsd_view_blocked_total{view=\"guests\"} 2",
        "xdnsd_view_queries_total{view=\"default\"} 0",
        "xdnsd_nftset_lost_total 0",
        "# TYPE xdnsd_cache_entries gauge",
        "xdnsd_cache_entries 42",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    assert!(!text.contains("xdnsd_queries_udp_total{interface=\"lan0\""));
    // A worker's queries may come from any interface.
    let of_lan0 = text
        .lines()
        .filter(|line| line.contains("interface=\"lan0\""));
    let known = [
        "queries_xdp",
        "answers_xdp",
        "frames_rejected",
        "tx_full",
        "xsk_",
        "xdp_frames",
        "syn_cookies",
        "tier0",
        "protect",
    ];
    for line in of_lan0 {
        let is_known = known
            .iter()
            .any(|name| line.starts_with(&format!("xdnsd_{name}")));
        assert!(is_known, "{line}");
    }
    assert!(!text.contains("wan0"), "what cannot be read is left out");
    assert_is_exposition_format(&text);
}

#[test]
fn an_interface_with_syn_cookies_is_shown_without_a_reason() {
    let frames = vec![vec![0]; Reason::COUNT as usize];
    let programs = ["", "sysctl"].map(|no_syn_cookies| ProgramReading {
        interface: format!("lan-{no_syn_cookies}"),
        frames: frames.clone(),
        no_syn_cookies,
        no_tier0: no_syn_cookies,
    });
    let reading = Reading {
        programs: programs.to_vec(),
        ..Reading::default()
    };
    let text = reading.prometheus();
    for line in [
        "xdnsd_syn_cookies{interface=\"lan-\"} 1",
        "xdnsd_syn_cookies{interface=\"lan-sysctl\",reason=\"sysctl\"} 0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    assert_is_exposition_format(&text);
}

/// Each family appears once, HELP then TYPE then its samples; each sample is a name, labels and a number.
fn assert_is_exposition_format(text: &str) {
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').expect("a help text");
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(
                kind.split_once(' ').map(|(name, _)| name),
                families.last().copied()
            );
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let is_sum = name.ends_with("_seconds_sum");
            let is_value = value.parse::<u64>().is_ok() || is_sum && value.parse::<f64>().is_ok();
            assert!(is_value, "{line}");
            let is_part = |family: &&str| {
                let part = name.strip_prefix(*family);
                part.is_some_and(|part| ["", "_bucket", "_sum", "_count"].contains(&part))
            };
            assert!(families.last().is_some_and(is_part), "{line}");
        }
    }
}

#[test]
fn a_socket_is_shown_as_the_kernel_counts_it_and_with_all_its_chunks() {
    let mut reading = reading(0, 0, 0, [[0; 2]; 2]);
    let text = reading.prometheus();
    assert!(text.contains("# TYPE xdnsd_xsk_rx_ring_full_total counter"));
    assert!(!text.contains("xdnsd_xsk_rx_ring_full_total{"), "no socket");
    reading.queues[0].socket = Some(SocketReading {
        statistics: Statistics {
            rx_dropped: 1,
            rx_invalid_descs: 2,
            tx_invalid_descs: 3,
            rx_ring_full: 4,
            rx_fill_ring_empty_descs: 5,
            tx_ring_empty_descs: 6,
        },
        counters: xsk::SocketCounters {
            kicks: 7,
            stray: 8,
            dropped: 9,
            ..xsk::SocketCounters::default()
        },
        census: Census {
            fill: 10,
            free: 11,
            ..Census::default()
        },
        has_zero_copy: true,
    });
    let text = reading.prometheus();
    for (series, value) in [
        ("rx_dropped_total", 1),
        ("rx_invalid_descs_total", 2),
        ("tx_invalid_descs_total", 3),
        ("rx_ring_full_total", 4),
        ("rx_fill_ring_empty_descs_total", 5),
        ("tx_ring_empty_descs_total", 6),
        ("kicks_total", 7),
        ("stray_total", 8),
        ("dropped_total", 9),
        ("zero_copy", 1),
    ] {
        let line = format!("xdnsd_xsk_{series}{{interface=\"lan0\",queue=\"0\"}} {value}");
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    let chunks = |place, count| {
        let labels = format!("interface=\"lan0\",queue=\"0\",place=\"{place}\"");
        let line = format!("xdnsd_xsk_chunks{{{labels}}} {count}");
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    };
    chunks("fill", 10);
    chunks("free", 11);
    for place in ["kernel_rx", "rx", "worker", "tx", "kernel_tx", "completion"] {
        chunks(place, 0);
    }
    assert_is_exposition_format(&text);
}

#[test]
fn an_upstream_server_is_shown_with_its_time_its_health_and_its_last_failure() {
    let mut reading = reading(0, 0, 0, [[0; 2]; 2]);
    let good = ServerReading {
        to: SocketAddr::from(([192, 0, 2, 53], 53)).into(),
        group: 0,
        rtt_ms: Some(23),
        is_up: true,
        counts: ServerCounts {
            asked: 9,
            answered: 7,
            failed: 2,
        },
        answered: None,
        failed: None,
        failure: None,
    };
    let bad = ServerReading {
        to: "[2001:db8::53]:5353"
            .parse::<SocketAddr>()
            .expect("an address")
            .into(),
        group: 2,
        rtt_ms: None,
        is_up: false,
        counts: ServerCounts::default(),
        answered: None,
        failed: None,
        failure: Some((FailureKind::Unreachable, 1_700_000_000)),
    };
    // The same server in another group counts apart.
    let other = ServerReading { group: 1, ..good };
    reading.groups = vec!["default".into(), "lab".into()];
    reading.workers[0].servers = vec![good, bad, other];
    let text = reading.prometheus();
    let good = "server=\"192.0.2.53:53\",group=\"default\",worker=\"0\"";
    let bad = "server=\"[2001:db8::53]:5353\",group=\"2\",worker=\"0\"";
    for line in [
        format!("xdnsd_upstream_up{{{good}}} 1"),
        format!("xdnsd_upstream_up{{{bad}}} 0"),
        format!("xdnsd_upstream_server_questions_total{{{good}}} 9"),
        format!("xdnsd_upstream_server_answers_total{{{good}}} 7"),
        format!("xdnsd_upstream_server_failures_total{{{good}}} 2"),
        format!("xdnsd_upstream_rtt_milliseconds{{{good}}} 23"),
        format!(
            "xdnsd_upstream_last_failure_timestamp_seconds{{{bad},reason=\"unreachable\"}} 1700000000"
        ),
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("xdnsd_upstream_up{"), 3);
    assert_eq!(count("xdnsd_upstream_rtt_milliseconds{"), 2);
    assert_eq!(count("xdnsd_upstream_last_failure_timestamp_seconds{"), 1);
    assert_is_exposition_format(&text);
}

/// A second lock for reading, in a thread that has one, waits for a writer that waits for the first.
#[test]
fn reading_goes_on_while_threads_that_answer_come() {
    let telemetry = Arc::new(Telemetry::default());
    let (done, is_done) = std::sync::mpsc::channel();
    for is_writer in [true, false] {
        let (telemetry, done) = (Arc::clone(&telemetry), done.clone());
        thread::spawn(move || {
            for _ in 0..20_000 {
                match is_writer {
                    true => telemetry.set_workers(Vec::new()),
                    false => drop(telemetry.read()),
                }
            }
            done.send(()).expect("somebody waits for it");
        });
    }
    for _ in 0..2 {
        let end = is_done.recv_timeout(Duration::from_secs(60));
        end.expect("neither waits for the other");
    }
}
