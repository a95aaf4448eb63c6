//! Clients that ask the same at the same time: upstream is asked once, whichever worker they came to.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::Spec;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::message::{addresses, query, wire};
use crate::support::run::Run;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;

/// Names that all clients ask for.
const NAMES: usize = 4;
/// Time that upstream takes: long enough for all of them to ask on a busy machine, and shorter than a worker waits for another's answer.
const DELAY: Duration = Duration::from_millis(1_000);

/// A query for each name, with an ID of its own.
fn queries(zone: &str) -> Vec<Vec<u8>> {
    let query = |number| wire(&query(&format!("n{number}.{zone}"), RecordType::A));
    (0..NAMES).map(query).collect()
}

/// Number of questions to upstream for names of the zone.
fn asked(scene: &Scene, zone: &str) -> usize {
    let asked = scene.upstream.asked_all();
    asked
        .iter()
        .filter(|one| one.name().to_lowercase().ends_with(zone))
        .count()
}

#[test]
fn a_name_that_all_workers_miss_at_once_is_asked_for_once() -> Result<()> {
    let spec = Spec {
        queues: 2,
        ..Spec::default()
    };
    let scene = scene!(Setup::default().lab(spec.clone()));
    let zone = "once.test.";
    scene.upstream.on(
        "*.once.test.",
        Rule::addresses(300, &["192.0.2.1"]).after(DELAY),
    );
    let before = scene.daemon.metrics()?;
    let (queries, mut clients) = (queries(zone), Vec::new());
    for queue in [0, 1] {
        scene.lab.steer_client_to_queue(&spec, queue)?;
        let client = scene.udp_client(Family::V4)?;
        queries.iter().try_for_each(|query| client.send(query))?;
        clients.push(client);
    }
    let mut stream = Stream::open(&scene.lab, Family::V4)?;
    queries.iter().try_for_each(|query| stream.send(query))?;
    for client in &clients {
        let mut answers = Vec::new();
        wait_until("an answer to each query", TIMEOUT, || {
            answers.extend(std::iter::from_fn(|| client.try_receive()));
            answers.len() == NAMES
        })?;
        for answer in answers {
            assert_eq!(addresses(&Message::from_vec(&answer)?), ["192.0.2.1"]);
        }
    }
    for _ in &queries {
        let answer = Message::from_vec(&stream.receive()?)?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
    let now = scene.daemon.metrics()?;
    // A question that is repeated because upstream took long is the same one.
    let repeated = now.growth(&before, &Counter::UpstreamRetries) as usize;
    let asked = asked(&scene, zone) - repeated;
    // Two names may meet in one place of the table. Without it there would be three questions for each.
    assert!(
        (NAMES..=NAMES + 2).contains(&asked),
        "{asked}\n{}",
        now.text()
    );
    // By the thread for TCP, and by the second queue's worker where there is one.
    let waited = now.growth(&before, &Counter::AskedElsewhere) as usize;
    let has_two = Run::this() != Run::Udp && thread::available_parallelism()?.get() > 1;
    let least = if has_two { NAMES } else { 1 };
    assert!(waited >= least, "{waited}\n{}", now.text());
    Ok(())
}
