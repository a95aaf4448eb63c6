//! Load: no query is lost, and no worker allocates.

use std::fmt::Write;
use std::net::IpAddr;

use anyhow::Result;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::dnsperf::{self, Report};
use xdnsd_lab::lab::{LAN_V4, LAN_V6, Spec};

use crate::support::client::{Family, listen};
use crate::support::daemon::write;
use crate::support::message::{query, query_edns, txt, wire};
use crate::support::metrics::SealedAllocations;
use crate::support::run::Run;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::{Fault, Rule};
use crate::support::ways::Way;

/// Queries per second that the slowest machine with a debug build handles; below, for how long.
const RATE: u32 = 1_000;
const SECONDS: u32 = 3;
const NAMES: u32 = 300;

/// Asks for [`NAMES`] names again and again, from 8 clients.
fn load(scene: &Scene, server: IpAddr) -> Result<Report> {
    let mut names = String::new();
    for number in 0..NAMES {
        writeln!(names, "n{number}.load.test. A")?;
    }
    let file = write(scene.directory.path(), "names", &names)?;
    let (rate, seconds) = (RATE.to_string(), SECONDS.to_string());
    let mut command = dnsperf::command(&scene.lab.client, server, &file);
    // Late is not lost: see `churn`.
    command.args(["-l", &seconds, "-Q", &rate, "-c", "8", "-t", "20"]);
    if Run::this().way() == Way::Tcp {
        command.args(["-m", "tcp"]);
    }
    dnsperf::run(command)
}

#[test]
fn dnsperf_loses_no_query() -> Result<()> {
    let scene = scene!(Setup::default().lab(Spec {
        queues: 2,
        ..Spec::default()
    }));
    scene
        .upstream
        .on("*.load.test.", Rule::addresses(300, &["192.0.2.1"]));
    for server in [IpAddr::V4(LAN_V4), LAN_V6.into()] {
        let before = scene.daemon.metrics()?;
        let report = load(&scene, server)?;
        assert_eq!(
            (report.lost, report.completed),
            (0, report.sent),
            "{report:?}"
        );
        assert!(report.sent > u64::from(RATE * SECONDS / 2), "{report:?}");
        // All of them by the way of this run; over AF_XDP also descriptors received and sent.
        let by = |way: Way| match Run::this().way() {
            this if this == way => report.sent,
            _ => 0,
        };
        scene.daemon.wait_growth(
            &before,
            &[
                (&Reason::Redirected, by(Way::Xdp)),
                (&Counter::QueriesXdp, by(Way::Xdp)),
                (&Counter::AnswersXdp, by(Way::Xdp)),
                (&Counter::AnswersUdp, by(Way::Udp)),
                (&Counter::AnswersTcp, by(Way::Tcp)),
                (&Counter::TxFull, 0),
                (&Counter::FramesRejected, 0),
            ],
        )?;
    }
    let asked = scene.upstream.asked_all().len();
    assert!(asked >= usize::try_from(NAMES)?, "{asked}");
    Ok(())
}

#[test]
fn workers_allocate_nothing_whatever_they_are_asked() -> Result<()> {
    let setup = Setup::default()
        .servers(&["10.54.0.99", "10.54.0.2", "fd54::2"])
        .sections("[forward]\nrandom_case = true\n[statistics]\ninterval_secs = 1\n[cache]\nsnapshot = \"{directory}/cache\"\nsnapshot_interval_secs = 1");
    let scene = scene!(setup);
    let upstream = &scene.upstream;
    upstream.on(
        "*.load.test.",
        Rule::addresses(300, &["192.0.2.1", "2001:db8::1"]),
    );
    upstream.on("*.zero.test.", Rule::addresses(0, &["192.0.2.1"]));
    upstream.on(
        "*.none.test.",
        Rule::code(ResponseCode::NXDomain).behind(&Fault::FORGED),
    );
    upstream.on("*.fail.test.", Rule::code(ResponseCode::ServFail));
    upstream.on("*.silent.test.", Rule::silence());
    upstream.on("*.garbage.test.", Rule::silence().behind(&[Fault::Garbage]));
    let strings: Vec<_> = (0..8).map(|number| txt(number, 100)).collect();
    upstream.on("*.long.test.", Rule::answer(300, &strings));
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    for round in 0..20 {
        for zone in ["load", "zero", "none", "fail", "silent", "garbage", "long"] {
            let name = format!("N{round}.{zone}.test.");
            for (family, extra) in [
                (Family::V4, &[][..]),
                (Family::V4, &[1; 4]),
                (Family::V6, &[]),
                (Family::V6, &[17, 0, 1, 4, 0, 0, 0, 0]),
            ] {
                for query in [
                    query(&name, RecordType::A),
                    query(&name, RecordType::TXT),
                    query_edns(&name, RecordType::TXT, 1232),
                ] {
                    let mut frame = client.frame(listen(family), &wire(&query))?;
                    frame.extra = extra.to_vec();
                    client.send(&frame.to_bytes())?;
                    frame.message.truncate(20);
                    client.send(&frame.to_bytes())?;
                }
            }
        }
    }
    let report = load(&scene, LAN_V4.into())?;
    assert_eq!(report.lost, 0, "{report:?}");
    let now = scene.daemon.metrics()?;
    for counter in [
        Run::this().answers(),
        Counter::AnswersUdp,
        Counter::CacheHits,
        Counter::CacheMisses,
        Counter::Coalesced,
        Counter::UpstreamTimeouts,
        Counter::UpstreamForged,
        Counter::UpstreamMalformed,
        Counter::FormerrGiven,
        Counter::TruncatedGiven,
    ] {
        assert!(
            now.growth(&before, &counter) > 0,
            "{counter:?}\n{}",
            now.text()
        );
    }
    // An allocation in a worker would have aborted the process (XDNSD_SEAL=abort).
    assert_eq!(now.get(&SealedAllocations), Some(0));
    Ok(())
}
