//! The same questions to the appliance and to unbound in front of the same upstream, as in respdiff: a difference is either
//! explained or a fault.

mod judge;
mod question;
mod zones;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use xdnsd_lab::lab::{LAN_V4, Lab, Spec, UPSTREAM_V4};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::nsd::Upstream;
use xdnsd_lab::peer::{Peer, Site};
use xdnsd_lab::privilege::root_or_skip;

use crate::support::TIMEOUT;
use crate::support::daemon::{self, Daemon};
use crate::support::random::Random;
use crate::support::run::only;
use crate::support::scene::{Directory, Setup};
use judge::{Answer, EXPLANATIONS, judge};
use question::Question;

const QUESTIONS: usize = 10_000;
const SEED: u64 = 20_261_121;
/// Where unbound listens beside us.
const PEER_PORT: u16 = 5300;
/// Number of faults that are shown in full.
const SHOWN: usize = 20;
/// Settings of unbound with other defaults than ours: datagrams above 1232 bytes, and clients that do not ask for recursion,
/// which get it here.
const UNBOUND: &str = "    max-udp-size: 1232\n    access-control: 0.0.0.0/0 allow_setrd\n";

#[test]
fn ten_thousand_answers_are_those_of_unbound() -> Result<()> {
    only!(IN_DATAGRAMS, "it compares datagrams with those of unbound");
    if !root_or_skip("ten_thousand_answers_are_those_of_unbound") {
        return Ok(());
    }
    let (lab, directory) = (Lab::up(&Spec::default())?, Directory::new()?);
    let world = zones::world(directory.path())?;
    let _upstream = Upstream::start_with(&lab, directory.path(), &world.zones)?;
    let config = Setup::default().config(directory.path());
    let config = daemon::write(directory.path(), "config.toml", &config)?;
    let _daemon = Daemon::start(&lab, &config, &directory.path().join("sock"))?;
    let [our_address, peer_address] =
        [53, PEER_PORT].map(|port| SocketAddr::new(LAN_V4.into(), port));
    let site = Site {
        host: &lab.router,
        address: peer_address,
        upstream: UPSTREAM_V4.into(),
        directory: directory.path(),
    };
    let _peer = Peer::Unbound { threads: 1 }.start(&site, UNBOUND)?;

    let mut random = Random::new(SEED);
    let names: Vec<&str> = world.names.iter().map(String::as_str).collect();
    let questions = (0..QUESTIONS).map(|_| Question::random(random.pick(&names), &mut random));
    let questions: Vec<_> = questions.collect();
    let ask = |server| ask_all(&lab.client, server, &questions);
    let (ours, theirs) = std::thread::scope(|scope| {
        let [ours, theirs] =
            [our_address, peer_address].map(|server| scope.spawn(move || ask(server)));
        (ours.join(), theirs.join())
    });
    let answered = |joined: std::thread::Result<Result<_>>| joined.expect("no panic");
    let (ours, mut theirs) = (answered(ours)?, answered(theirs)?);
    fetch_whole(&lab.client, peer_address, &questions, &ours, &mut theirs)?;
    report(&questions, &ours, &theirs)
}

/// Asks all questions, one after the other.
fn ask_all(client: &Namespace, server: SocketAddr, questions: &[Question]) -> Result<Vec<Answer>> {
    client.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let ask = |(number, question): (usize, &Question)| {
            let answer = question.ask(server, &socket, number as u16);
            let answer = answer.and_then(|wire| Answer::read(question, &wire));
            answer.with_context(|| format!("{server}: {question:?}"))
        };
        questions.iter().enumerate().map(ask).collect()
    })
}

/// If only unbound truncated its answer: is ours complete? Unbound's answer over TCP shows it.
fn fetch_whole(
    client: &Namespace,
    server: SocketAddr,
    questions: &[Question],
    ours: &[Answer],
    theirs: &mut [Answer],
) -> Result<()> {
    let mut count = 0;
    for ((question, ours), theirs) in questions.iter().zip(ours).zip(theirs) {
        ensure!(
            ours.len <= question.len_max(),
            "{} bytes for {question:?}",
            ours.len
        );
        if theirs.is_truncated() && !ours.is_truncated() {
            let question = Question {
                over_tcp: true,
                ..question.clone()
            };
            let again = ask_all(client, server, std::slice::from_ref(&question))?;
            *theirs = again.into_iter().next().context("an answer")?;
            count += 1;
        }
    }
    eprintln!("{count:>6}  cut by unbound alone: compared with what it says over TCP");
    Ok(())
}

/// Reports all differences and their numbers; fails if one is not explained.
fn report(questions: &[Question], ours: &[Answer], theirs: &[Answer]) -> Result<()> {
    let (mut explained, mut faults) = (BTreeMap::<usize, usize>::new(), Vec::new());
    for ((question, ours), theirs) in questions.iter().zip(ours).zip(theirs) {
        match judge(question, ours, theirs) {
            Ok(used) => used
                .into_iter()
                .for_each(|index| *explained.entry(index).or_default() += 1),
            Err(rest) => faults.push(format!("{question:?}\n{rest}")),
        }
    }
    for (index, explanation) in EXPLANATIONS.iter().enumerate() {
        let count = explained.get(&index).copied().unwrap_or(0);
        eprintln!("{count:>6}  {}", explanation.why);
    }
    let shown = faults
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    ensure!(faults.is_empty(), "{} unexplained:\n{shown}", faults.len());
    Ok(())
}
