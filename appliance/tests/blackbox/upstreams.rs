//! Choice and trust of upstreams: dead, slow, refusing and forged ones.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{UPSTREAM_V4, UPSTREAM_V6};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient, listen};
use crate::support::frame::UdpFrame;
use crate::support::message::{addresses, query, query_edns, read_answer, wire};
use crate::support::run::{Run, only};
use crate::support::scene::{Scene, Setup, WAYS, scene};
use crate::support::script::{Fault, Rule};
use crate::support::upstream::SECOND_V4;

/// A client that waits for five seconds must get its SERVFAIL before that.
const SERVFAIL_WITHIN: Duration = Duration::from_secs(5);
/// Before the first server has ever answered, the second one is asked after 400 ms.
const SECOND_WITHIN: Duration = Duration::from_millis(1_500);

/// Asks once and measures the time.
fn timed(client: &RawClient, name: &str) -> Result<(Vec<String>, Duration)> {
    let start = Instant::now();
    let answer = client.ask(Family::V4, &query(name, RecordType::A))?;
    Ok((addresses(&answer), start.elapsed()))
}

#[test]
fn upstreams_are_asked_over_ipv6() -> Result<()> {
    let scene = scene!(Setup::default().servers(&[&UPSTREAM_V6.to_string()]));
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let (found, _) = timed(&scene.raw_client()?, "www.test.")?;
    assert_eq!(found, ["192.0.2.1"]);
    let asked = scene.upstream.asked("www.test.");
    assert_eq!(asked[0].server, UPSTREAM_V6);
    Ok(())
}

#[test]
fn a_silent_first_upstream_costs_a_moment_and_is_then_left_out() -> Result<()> {
    only!(
        OVER_XDP,
        "what one worker has learnt; names are spread over several"
    );
    let setup = Setup::default().servers(&[&SECOND_V4.to_string(), &UPSTREAM_V4.to_string()]);
    let scene = scene!(setup);
    scene
        .upstream
        .on_server(SECOND_V4, "*.test.", Rule::silence());
    scene
        .upstream
        .on_server(UPSTREAM_V4, "*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    for name in ["a.test.", "b.test.", "c.test."] {
        let (found, took) = timed(&client, name)?;
        assert_eq!(found, ["192.0.2.1"]);
        assert!(took < SECOND_WITHIN, "{name} took {took:?}");
        assert_eq!(scene.upstream.asked(name).len(), 2);
    }
    let now = scene.daemon.metrics()?;
    assert_eq!(now.growth(&before, &Counter::UpstreamTimeouts), 3);
    assert_eq!(now.growth(&before, &Counter::UpstreamRetries), 3);
    wait_until("the server is shown as one that is silent", TIMEOUT, || {
        let metrics = scene.daemon.metrics();
        let text = metrics.map_or_else(|_| String::new(), |metrics| metrics.text().to_owned());
        let (server, label) = (format!("{SECOND_V4}:53"), "reason=\"timeout\"");
        values(&text, "up", &server, "").contains(&0)
            && !values(&text, "last_failure_timestamp_seconds", &server, label).is_empty()
    })?;
    // Three timeouts in a row: it is only probed once in a while, to see whether it is back.
    for number in 0..10 {
        timed(&client, &format!("later{number}.test."))?;
    }
    let asked = scene.upstream.asked_all();
    let probes = asked.iter().filter(|asked| {
        asked.server == SECOND_V4 && asked.name().to_lowercase().starts_with("later")
    });
    assert!(probes.count() <= 2, "{asked:?}");
    Ok(())
}

#[test]
fn hosts_and_ports_that_do_not_exist_cost_a_moment() -> Result<()> {
    let nobody = ["10.54.0.99", "10.54.0.2:5399", "10.54.0.2"];
    let scene = scene!(Setup::default().servers(&nobody));
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let (found, took) = timed(&scene.raw_client()?, "www.test.")?;
    assert_eq!(found, ["192.0.2.1"]);
    assert!(took < 2 * SECOND_WITHIN, "{took:?}");
    Ok(())
}

/// Values of a label in one series of a server, over all workers.
fn values(text: &str, series: &str, server: &str, label: &str) -> Vec<u64> {
    let start = format!("xdnsd_upstream_{series}{{server=\"{server}\",");
    let lines = text.lines().filter(|line| line.starts_with(&start));
    let lines = lines.filter(|line| line.contains(label));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok());
    values.collect()
}

/// What an operator asks first: which server is slow, which does not answer, and how it failed.
#[test]
fn what_is_known_of_each_server_is_shown() -> Result<()> {
    let (garbage, closed, good) = (
        SECOND_V4.to_string(),
        format!("{UPSTREAM_V4}:5399"),
        UPSTREAM_V4.to_string(),
    );
    let scene = scene!(Setup::default().servers(&[&garbage, &closed, &good]));
    let client = scene.raw_client()?;
    for name in ["a.test.", "b.test.", "c.test."] {
        let fault = Rule::silence().behind(&[Fault::Garbage]);
        scene.upstream.on_server(SECOND_V4, name, fault);
        let rule = Rule::addresses(300, &["192.0.2.1"]);
        scene.upstream.on_server(UPSTREAM_V4, name, rule);
        assert_eq!(timed(&client, name)?.0, ["192.0.2.1"]);
    }
    let (garbage, good) = (format!("{garbage}:53"), format!("{good}:53"));
    let mut text = String::new();
    wait_until("what is known is shown", TIMEOUT, || {
        text = scene
            .daemon
            .metrics()
            .map_or_else(|_| String::new(), |metrics| metrics.text().to_owned());
        values(&text, "up", &closed, "").contains(&0)
            && !values(&text, "rtt_milliseconds", &good, "").is_empty()
    })?;
    for server in [&garbage, &good] {
        let up = values(&text, "up", server, "");
        assert!(!up.is_empty() && !up.contains(&0), "{server}\n{text}");
    }
    for (server, reason) in [(&closed, "unreachable"), (&garbage, "malformed")] {
        let label = format!("reason=\"{reason}\"");
        let failed = values(&text, "last_failure_timestamp_seconds", server, &label);
        assert_eq!(failed.len(), 1, "{server}\n{text}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        assert!(now.abs_diff(failed[0]) < 60, "{failed:?} of {now}");
        let rtt = values(&text, "rtt_milliseconds", server, "");
        assert!(rtt.is_empty(), "{server} was never measured\n{text}");
    }
    let failed = values(&text, "last_failure_timestamp_seconds", &good, "");
    assert!(failed.is_empty(), "{text}");
    Ok(())
}

/// The log says once that a server is silent, that no server is left, and that one is back; `xdnsd upstreams` shows the current
/// state.
#[test]
fn a_server_that_falls_silent_and_its_return_are_told() -> Result<()> {
    let setup = Setup::default().servers(&[&SECOND_V4.to_string(), &UPSTREAM_V4.to_string()]);
    let scene = scene!(setup);
    let answer = || Rule::addresses(300, &["192.0.2.1"]);
    let client = scene.raw_client()?;
    let ask_three = |prefix: &str| -> Result<()> {
        for number in 0..3 {
            client.ask(
                Family::V4,
                &query(&format!("{prefix}{number}.test."), RecordType::A),
            )?;
        }
        Ok(())
    };
    let is_shown = |server: &str, state: &str| {
        let table = scene.daemon.control("upstreams").unwrap_or_default();
        let mut rows = table
            .lines()
            .map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row[..3] == ["default", server, state])
    };
    let (second, first) = (format!("{SECOND_V4}:53"), format!("{UPSTREAM_V4}:53"));
    let upstream = &scene.upstream;
    upstream.on_server(SECOND_V4, "*.test.", Rule::silence());
    upstream.on_server(UPSTREAM_V4, "*.test.", answer());
    ask_three("a")?;
    let silent = format!("upstream {second} (default): does not answer: timeout");
    scene.daemon.wait_log_count(&silent, 1)?;
    wait_until("the table says so", TIMEOUT, || {
        is_shown(&second, "silent") && is_shown(&first, "up")
    })?;

    upstream.on_server(UPSTREAM_V4, "*.test.", Rule::silence());
    ask_three("b")?;
    let none = "upstream group default: none of its 2 servers answers";
    scene.daemon.wait_log_count(none, 1)?;

    upstream.on_server(SECOND_V4, "*.test.", answer());
    let back = format!("upstream {second} (default): answers again, after ");
    let mut names = 0..;
    wait_until("it is asked again, and answers", TIMEOUT, || {
        let name = names.next().map(|number: u32| format!("c{number}.test."));
        let asked = query(&name.unwrap_or_default(), RecordType::A);
        let _ = client.ask(Family::V4, &asked);
        scene.daemon.log().contains(&back) && is_shown(&second, "up")
    })?;
    let log = scene.daemon.log();
    for line in [silent.as_str(), none, &back] {
        assert_eq!(log.matches(line).count(), 1, "{line}\n{log}");
    }
    Ok(())
}

#[test]
fn an_upstream_that_fails_is_followed_by_the_next_at_once() -> Result<()> {
    let setup = Setup::default().servers(&[&SECOND_V4.to_string(), &UPSTREAM_V4.to_string()]);
    let scene = scene!(setup);
    let client = scene.raw_client()?;
    for (name, fault) in [
        ("servfail.test.", Rule::code(ResponseCode::ServFail)),
        ("refused.test.", Rule::code(ResponseCode::Refused)),
        ("notimp.test.", Rule::code(ResponseCode::NotImp)),
        ("garbage.test.", Rule::silence().behind(&[Fault::Garbage])),
        (
            "referral.test.",
            Rule::sections(
                ResponseCode::NoError,
                [
                    &[],
                    &["test. 300 NS ns.test."],
                    &["ns.test. 300 A 192.0.2.9"],
                ],
            ),
        ),
    ] {
        scene.upstream.on_server(SECOND_V4, name, fault);
        scene
            .upstream
            .on_server(UPSTREAM_V4, name, Rule::addresses(300, &["192.0.2.1"]));
        let (found, took) = timed(&client, name)?;
        assert_eq!(found, ["192.0.2.1"]);
        assert!(took < Duration::from_millis(350), "{name} took {took:?}");
    }
    let metrics = scene.daemon.metrics()?;
    assert_eq!(
        metrics.get(&Counter::UpstreamMalformed),
        Some(1),
        "{}",
        metrics.text()
    );
    assert_eq!(metrics.get(&Counter::UpstreamTimeouts), Some(0));
    Ok(())
}

#[test]
fn all_upstreams_dead_is_servfail_within_five_seconds() -> Result<()> {
    let setup = Setup::default()
        .servers(&[&UPSTREAM_V4.to_string(), &SECOND_V4.to_string()])
        .sections("[forward]\nfailure_ttl = 1");
    let scene = scene!(setup);
    scene.upstream.on("www.test.", Rule::silence());
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    let start = Instant::now();
    let answer = client.ask(Family::V4, &query_edns("www.test.", RecordType::A, 1232))?;
    let took = start.elapsed();
    assert_eq!(answer.response_code(), ResponseCode::ServFail);
    assert!(took < SERVFAIL_WITHIN, "{took:?}");
    // RFC 8914 section 4.23: No Reachable Authority.
    let edns = answer.extensions().as_ref().expect("OPT");
    let reason = edns.option(EdnsCode::Unknown(15));
    assert!(
        matches!(reason, Some(EdnsOption::Unknown(15, data)) if data.starts_with(&[0, 22])),
        "{reason:?}"
    );
    // Cached for a moment (RFC 9520), then asked again.
    let again = client.ask(Family::V4, &query("www.test.", RecordType::A))?;
    assert_eq!(again.response_code(), ResponseCode::ServFail);
    scene.daemon.wait_growth(
        &before,
        &[(&Counter::CacheMisses, 1), (&Run::this().answers(), 2)],
    )?;
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    wait_until("it is answered again", TIMEOUT, || {
        let answer = client.ask(Family::V4, &query("www.test.", RecordType::A));
        answer.is_ok_and(|answer| answer.response_code() == ResponseCode::NoError)
    })
}

#[test]
fn a_lost_question_is_asked_again() -> Result<()> {
    let scene = scene!(Setup::default());
    scene.upstream.on(
        "www.test.",
        Rule::addresses(300, &["192.0.2.1"]).drop_first(1),
    );
    let (found, took) = timed(&scene.raw_client()?, "www.test.")?;
    assert_eq!(found, ["192.0.2.1"]);
    assert!(took < SECOND_WITHIN, "{took:?}");
    let asked = scene.upstream.asked("www.test.");
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].query.id(), asked[1].query.id());
    Ok(())
}

#[test]
fn a_slow_upstream_is_waited_for() -> Result<()> {
    let scene = scene!(Setup::default());
    let slow = Duration::from_millis(2_500);
    scene.upstream.on(
        "www.test.",
        Rule::addresses(300, &["192.0.2.1"]).after(slow),
    );
    let client = scene.raw_client()?;
    let (found, took) = thread::scope(|scope| {
        let asking = scope.spawn(|| timed(&client, "www.test."));
        // Only the first attempt is ever answered.
        let is_asked = || !scene.upstream.asked("www.test.").is_empty();
        wait_until("it is asked", TIMEOUT, is_asked)?;
        scene.upstream.on("www.test.", Rule::silence());
        asking.join().expect("no panic")
    })?;
    assert_eq!(found, ["192.0.2.1"]);
    assert!(took >= slow, "{took:?}");
    Ok(())
}

#[test]
fn forged_answers_are_not_believed() -> Result<()> {
    let scene = scene!(Setup::default());
    let client = scene.raw_client()?;
    // Later than anything forged, sooner than the second attempt.
    let honest = Rule::addresses(300, &["192.0.2.1"]).after(Duration::from_millis(150));
    for (number, fault) in Fault::FORGED.into_iter().enumerate() {
        let name = format!("forged{number}.test.");
        scene.upstream.on(&name, honest.clone().behind(&[fault]));
        let before = scene.daemon.metrics()?;
        for hit in [false, true] {
            let (found, _) = timed(&client, &name)?;
            assert_eq!(found, ["192.0.2.1"], "{fault:?}, hit: {hit}");
        }
        scene.daemon.wait_growth(
            &before,
            &[
                (&Counter::UpstreamAnswers, 1),
                (&Counter::UpstreamMalformed, 0),
            ],
        )?;
        // On a slow machine the question may have been sent again, and forged again.
        let asked = scene.upstream.asked(&name).len() as u64;
        let now = scene.daemon.metrics()?;
        let forged = now.growth(&before, &Counter::UpstreamForged);
        // Datagrams that do not come from the very server are not even received.
        let expected = match fault {
            Fault::Port | Fault::Address => 0..=0,
            Fault::Id | Fault::Name | Fault::Type | Fault::Query | Fault::Garbage => 1..=asked,
        };
        assert!(expected.contains(&forged), "{fault:?}: {forged} of {asked}");
        for counter in [Counter::UpstreamUnmatched, Counter::UpstreamLate] {
            assert_eq!(now.growth(&before, &counter), 0, "{fault:?}: {counter:?}");
        }
    }
    Ok(())
}

/// By whichever way queries came, over AF_XDP or the kernel's sockets.
#[test]
fn ids_and_source_ports_cannot_be_guessed() -> Result<()> {
    for way in WAYS {
        for server in [UPSTREAM_V4.to_string(), UPSTREAM_V6.to_string()] {
            for xdp in ["native", "off"] {
                let setup = Setup::default().servers(&[&server]).ports(way);
                ids_and_ports(scene!(setup.xdp(xdp)))?;
            }
        }
    }
    Ok(())
}

fn ids_and_ports(scene: Scene) -> Result<()> {
    const QUESTIONS: usize = 300;
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    for number in 0..QUESTIONS {
        timed(&client, &format!("n{number}.test."))?;
    }
    let asked = scene.upstream.asked_all();
    assert_eq!(asked.len(), QUESTIONS);
    let ids: Vec<u16> = asked.iter().map(|asked| asked.query.id()).collect();
    let ports: Vec<u16> = asked.iter().map(|asked| asked.from.port()).collect();
    let different = |values: &[u16]| values.iter().collect::<BTreeSet<_>>().len();
    // Of 300 random ones among 65536, more than 10 equal pairs happen less than once in 10^9 runs.
    assert!(different(&ids) >= QUESTIONS - 10, "{ids:?}");
    assert!(different(&ports) >= QUESTIONS - 10, "{ports:?}");
    let steps = |values: &[u16]| -> Vec<u16> {
        values
            .windows(2)
            .map(|pair| pair[1].wrapping_sub(pair[0]))
            .collect()
    };
    // Neither counts up, nor is one derived from the other.
    assert!(different(&steps(&ids)) > QUESTIONS - 15, "{ids:?}");
    assert!(different(&steps(&ports)) > QUESTIONS - 15, "{ports:?}");
    let mixed: Vec<u16> = ids.iter().zip(&ports).map(|(id, port)| id ^ port).collect();
    assert!(different(&mixed) >= QUESTIONS - 10);
    let spread =
        |values: &[u16]| values.iter().max().unwrap_or(&0) - values.iter().min().unwrap_or(&0);
    assert!(
        spread(&ids) > 0xe000 && spread(&ports) > 0xe000,
        "{ids:?} {ports:?}"
    );
    Ok(())
}

/// Over AF_XDP, and over the kernel's sockets, where queries for one name go to one of the workers.
#[test]
fn clients_that_ask_the_same_share_one_question() -> Result<()> {
    for (xdp, way_in) in [("auto", Counter::AnswersXdp), ("off", Counter::AnswersUdp)] {
        let scene = scene!(Setup::default().xdp(xdp));
        let delay = Duration::from_millis(300);
        scene.upstream.on(
            "www.test.",
            Rule::addresses(300, &["192.0.2.1"]).after(delay),
        );
        // Each has its own source ports, by which the kernel would choose a worker.
        let mut clients: Vec<(RawClient, Vec<UdpFrame>)> = Vec::new();
        let before = scene.daemon.metrics()?;
        for _ in 0..4 {
            let (client, mut frames) = (scene.raw_client()?, Vec::new());
            let names = ["www.test.", "WWW.test.", "www.TEST.", "wWw.tEsT."];
            for (name, family) in names.iter().zip(Family::ALL.iter().cycle()) {
                let query = wire(&query(name, RecordType::A));
                let frame = client.frame(listen(*family), &query)?;
                client.send(&frame.to_bytes())?;
                frames.push(frame);
            }
            clients.push((client, frames));
        }
        for (client, frames) in &clients {
            for (frame, answer) in frames.iter().zip(client.answers_to(frames)?) {
                let answer = read_answer(&frame.message, &answer)?;
                assert_eq!(addresses(&answer), ["192.0.2.1"]);
            }
        }
        assert_eq!(scene.upstream.asked("www.test.").len(), 1, "xdp = {xdp}");
        scene.daemon.wait_growth(
            &before,
            &[
                (&Counter::Coalesced, 15),
                (&Counter::CacheMisses, 16),
                (&Counter::UpstreamQueries, 1),
                (&way_in, 16),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn an_upstream_without_edns_is_asked_without() -> Result<()> {
    let scene = scene!(Setup::default());
    scene.upstream.on(
        "*.test.",
        Rule::addresses(300, &["192.0.2.1"]).refusing_edns(),
    );
    let client = scene.raw_client()?;
    for name in ["a.test.", "b.test.", "c.test.", "d.test."] {
        let (found, took) = timed(&client, name)?;
        assert_eq!(found, ["192.0.2.1"]);
        assert!(took < Duration::from_millis(350), "{took:?}");
    }
    let has_opt: Vec<bool> = scene
        .upstream
        .asked_all()
        .iter()
        .map(|asked| asked.query.extensions().is_some())
        .collect();
    // It may be the name: three of them in a row show that it is the server.
    assert_eq!(has_opt, [true, false, true, false, true, false, false]);
    Ok(())
}

/// A middlebox that silently drops what it does not know.
#[test]
fn an_upstream_that_drops_edns_is_asked_without_once_that_is_known() -> Result<()> {
    let scene = scene!(Setup::default());
    scene.upstream.on(
        "*.test.",
        Rule::addresses(300, &["192.0.2.1"]).dropping_edns(),
    );
    let client = scene.raw_client()?;
    // For each question of a name, whether it had OPT.
    let ask = |name: &str| -> Result<Vec<bool>> {
        let (found, _) = timed(&client, name)?;
        assert_eq!(found, ["192.0.2.1"], "{name}");
        let asked = scene.upstream.asked(name);
        let opts = asked.iter().map(|asked| asked.query.extensions().is_some());
        Ok(opts.collect())
    };
    let mut learning = 0;
    while ask(&format!("n{learning}.test."))? != [false] {
        learning += 1;
        assert!(learning < 12, "it is not learned");
    }
    assert!(learning > 0, "EDNS was tried");
    for name in ["a.test.", "b.test."] {
        assert_eq!(ask(name)?, [false], "{name}");
    }
    Ok(())
}

#[test]
fn a_group_without_edns_in_the_config_is_never_asked_with_it() -> Result<()> {
    let group = format!(
        "[[upstream]]\nname = \"old\"\nservers = [\"{SECOND_V4}\"]\ndomains = [\"old.test\"]\nedns = false\n"
    );
    let scene = scene!(Setup::default().sections(&group));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    for (name, has_opt) in [("www.old.test.", false), ("www.test.", true)] {
        timed(&client, name)?;
        let asked = scene.upstream.asked(name);
        let opts = asked.iter().map(|asked| asked.query.extensions().is_some());
        assert_eq!(opts.collect::<Vec<_>>(), [has_opt], "{name}");
    }
    Ok(())
}
