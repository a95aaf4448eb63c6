//! Which upstream is asked and when another one is, races between them, and crowds of clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use xdnsd_core::counters::Counter;
use xdnsd_core::limits::ALIASES;
use xdnsd_lab::lab::{HOST_INTERFACE, UPSTREAM_V4, UPSTREAM_V6};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient, UdpClient, listen};
use crate::support::message::{addresses, query, read_answer, wire};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::{Fault, Rule};
use crate::support::stream::Stream;
use crate::support::text::{ask_all, assert_answer, ede, question};
use crate::support::upstream::SECOND_V4;
use crate::support::ways::Ways;

const OK: ResponseCode = ResponseCode::NoError;
const FAIL: ResponseCode = ResponseCode::ServFail;
const FIRST: IpAddr = IpAddr::V4(UPSTREAM_V4);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two servers in this order, with more sections.
fn two(sections: &str) -> Setup {
    Setup::default()
        .servers(&[&FIRST.to_string(), &SECOND_V4.to_string()])
        .sections(sections)
}

/// Both answer, with an address that identifies the server, after these delays.
fn answer_by(scene: &Scene, first: Duration, second: Duration) {
    for (server, address, delay) in [
        (FIRST, "192.0.2.1", first),
        (SECOND_V4, "192.0.2.2", second),
    ] {
        let rule = Rule::addresses(300, &[address]).after(delay);
        scene.upstream.on_server(server, "*.test.", rule);
    }
}

fn ask(client: &RawClient, name: &str) -> Result<(Message, Duration)> {
    let start = Instant::now();
    let answer = client.ask(Family::V4, &question(&format!("{name} A edns")))?;
    Ok((answer, start.elapsed()))
}

/// Servers that were asked for a name, in order.
fn servers(scene: &Scene, name: &str) -> Vec<IpAddr> {
    scene
        .upstream
        .asked(name)
        .iter()
        .map(|asked| asked.server)
        .collect()
}

#[test]
fn in_order_the_second_server_is_asked_once_the_first_is_slower_than_usual() -> Result<()> {
    let scene = scene!(two(""));
    answer_by(&scene, ms(0), ms(0));
    let client = scene.raw_client()?;
    let mut first_alone = 0;
    for number in 0..20 {
        let name = format!("n{number}.test.");
        let (answer, _) = ask(&client, &name)?;
        let asked = servers(&scene, &name);
        assert_eq!(asked[0], FIRST);
        first_alone += usize::from(asked.len() == 1 && addresses(&answer) == ["192.0.2.1"]);
    }
    // On a busy machine the first may be late now and then.
    assert!(first_alone >= 15, "{first_alone} of 20");
    // Its usual time is a millisecond, so the client does not wait for a whole second.
    answer_by(&scene, ms(1_000), ms(0));
    let (answer, took) = ask(&client, "slow.test.")?;
    assert_eq!(addresses(&answer), ["192.0.2.2"]);
    assert!(took < ms(900), "{took:?}");
    assert_eq!(servers(&scene, "slow.test."), [FIRST, SECOND_V4]);
    // Both slow: the first answer counts, and neither is asked again and again.
    answer_by(&scene, ms(800), ms(700));
    let (answer, took) = ask(&client, "both.test.")?;
    assert!((ms(650)..ms(2_500)).contains(&took), "{took:?}: {answer}");
    let asked = servers(&scene, "both.test.");
    assert!((2..=4).contains(&asked.len()), "{asked:?}");
    Ok(())
}

#[test]
fn the_fastest_is_asked_and_found_again_when_another_becomes_faster() -> Result<()> {
    let scene = scene!(two("[forward]\nstrategy = \"fastest\""));
    answer_by(&scene, ms(300), ms(0));
    let client = scene.raw_client()?;
    for number in 0..6 {
        ask(&client, &format!("warm{number}.test."))?;
    }
    for number in 0..10 {
        let (answer, _) = ask(&client, &format!("n{number}.test."))?;
        assert_eq!(addresses(&answer), ["192.0.2.2"]);
    }
    // It falls silent, the other one answers.
    scene
        .upstream
        .on_server(SECOND_V4, "*.test.", Rule::silence());
    for number in 0..6 {
        let (answer, took) = ask(&client, &format!("m{number}.test."))?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        assert!(took < ms(3_000), "{took:?}");
    }
    Ok(())
}

#[test]
fn a_race_asks_two_and_each_group_has_its_own_way() -> Result<()> {
    let scene = scene!(two(
        "[forward]\nstrategy = \"race\"\n[[upstream]]\nname = \"v6\"\nstrategy = \"ordered\"\n\
         servers = [\"fd54::2\", \"10.54.0.3\"]\ndomains = [\"v6.test\"]\n"
    ));
    answer_by(&scene, ms(1_500), ms(0));
    let v6: IpAddr = UPSTREAM_V6.into();
    scene
        .upstream
        .on_server(v6, "*.v6.test.", Rule::addresses(300, &["192.0.2.6"]));
    let client = scene.raw_client()?;
    let (answer, took) = ask(&client, "a.test.")?;
    assert_eq!(addresses(&answer), ["192.0.2.2"]);
    assert!(took < ms(1_400), "{took:?}");
    // The slow one may note the question after the other has answered it.
    wait_until("both were asked", TIMEOUT, || {
        let asked: BTreeSet<_> = servers(&scene, "a.test.").into_iter().collect();
        asked == [FIRST, SECOND_V4].into()
    })?;
    // A failure does not win the race.
    scene
        .upstream
        .on_server(SECOND_V4, "bad.test.", Rule::code(FAIL));
    let (answer, _) = ask(&client, "bad.test.")?;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    let (answer, _) = ask(&client, "x.v6.test.")?;
    assert_eq!(
        (addresses(&answer), servers(&scene, "x.v6.test.")),
        (vec!["192.0.2.6".to_owned()], vec![v6])
    );
    Ok(())
}

#[test]
fn the_letter_case_is_random_checked_and_given_up_where_it_is_lost() -> Result<()> {
    only!(
        OVER_XDP,
        "what one worker has learnt; names are spread over several"
    );
    let scene = scene!(Setup::three_ways().sections("[forward]\nrandom_case = true"));
    let name = "a.rather.long.name.for.this.test.";
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    let answer = ask_all(&ways, &format!("{name} A"))?;
    assert_answer(&answer, OK, &[&format!("{name} 300 A 192.0.2.1")]);
    let asked = scene.upstream.asked(name);
    assert_eq!(asked.len(), 1, "one question whatever the case");
    assert!(asked[0].name() != name, "{}", asked[0].name());
    // A server that answers in lower case is asked again over TCP, which cannot be spoofed off-path; the client does not
    // notice.
    let lower = |query: &Message, reply: &mut Message| {
        for question in reply.queries_mut() {
            let name = question.name().to_lowercase();
            question.set_name(name);
        }
        let owner = query.queries()[0].name().to_lowercase();
        reply.add_answer(crate::support::text::record(&format!(
            "{owner} 300 A 192.0.2.7"
        )));
    };
    scene.upstream.on("*.lower.test.", Rule::made(lower));
    for number in 0..5 {
        let name = format!("a.rather.long.name.number{number}.lower.test.");
        let answer = ask_all(&ways, &format!("{name} A"))?;
        assert_answer(&answer, OK, &[&format!("{name} 300 A 192.0.2.7")]);
        let over_tcp = scene
            .upstream
            .asked(&name)
            .iter()
            .filter(|asked| asked.is_tcp)
            .count();
        assert_eq!(
            over_tcp,
            usize::from(number < 3),
            "three names in a row are the server's own doing"
        );
    }
    Ok(())
}

#[test]
fn truncation_upstream_leads_to_tcp_and_what_comes_there_is_checked_too() -> Result<()> {
    only!(IN_DATAGRAMS, "what a datagram holds");
    let scene = scene!(two(""));
    // More than 1232 bytes: the scripted server sets TC and has the rest over TCP.
    let many: Vec<String> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    scene
        .upstream
        .on_server(FIRST, "many.test.", Rule::addresses(300, &many));
    let client = scene.raw_client()?;
    let (answer, _) = ask(&client, "many.test.")?;
    assert!(answer.truncated(), "{answer}");
    assert!(
        scene
            .upstream
            .asked("many.test.")
            .iter()
            .any(|asked| asked.is_tcp)
    );
    // Wrong over TCP: another question, another ID. The next server has the right answer.
    for fault in [Fault::Name, Fault::Id, Fault::Garbage] {
        let name = format!("tcp{fault:?}.test.").to_lowercase();
        let wrong = Rule::addresses(300, &["203.0.113.66"]).wrong_over_tcp(fault);
        scene.upstream.on_server(FIRST, &name, wrong);
        scene
            .upstream
            .on_server(SECOND_V4, &name, Rule::addresses(300, &["192.0.2.2"]));
        let (answer, took) = ask(&client, &name)?;
        assert_eq!(addresses(&answer), ["192.0.2.2"], "{fault:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
    Ok(())
}

/// A server that handles the questions of a connection one after the other, and gets stuck: a client that keeps asking for such
/// names must not keep others from long answers.
#[test]
fn long_answers_that_never_come_keep_nobody_else_from_theirs() -> Result<()> {
    let scene = scene!(Setup::default());
    let many: Vec<String> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = Rule::addresses(300, &many);
    scene
        .upstream
        .on("*.stuck.test.", long.clone().stuck_over_tcp());
    scene.upstream.on("*.long.test.", long);
    let mut greedy = Stream::open(&scene.lab, Family::V4)?;
    for number in 0..12 {
        let name = format!("n{number}.stuck.test.");
        greedy.send(&wire(&question(&format!("{name} A"))))?;
        let is_asked = || !scene.upstream.asked(&name).is_empty();
        wait_until("it is asked", TIMEOUT, is_asked)?;
        // Long enough to delay those behind it.
        thread::sleep(ms(if number < 3 { 300 } else { 0 }));
    }
    let mut other = Stream::open(&scene.lab, Family::V6)?;
    for number in 0..7 {
        let name = format!("n{number}.long.test.");
        let query = wire(&question(&format!("{name} A")));
        let answer = Message::from_vec(&other.exchange(&query)?)?;
        assert_eq!(addresses(&answer).len(), 100, "{answer}");
    }
    let asked = scene.upstream.asked_all();
    let over_tcp = asked.iter().filter(|asked| asked.is_tcp);
    let connections: BTreeSet<u16> = over_tcp.map(|asked| asked.from.port()).collect();
    assert_eq!(connections.len(), 3, "{connections:?}");
    Ok(())
}

#[test]
fn one_bad_name_changes_nothing_for_the_others() -> Result<()> {
    let scene = scene!(Setup::default());
    for (name, rule) in [
        ("*.silent.test.", Rule::silence()),
        ("*.servfail.test.", Rule::code(FAIL)),
        ("*.refused.test.", Rule::code(ResponseCode::Refused)),
        ("*.formerr.test.", Rule::code(ResponseCode::FormErr)),
        ("*.garbage.test.", Rule::silence().behind(&[Fault::Garbage])),
        ("*.good.test.", Rule::addresses(300, &["192.0.2.1"])),
    ] {
        scene.upstream.on(name, rule);
    }
    let client = scene.raw_client()?;
    ask(&client, "first.good.test.")?;
    for (round, bad) in ["silent", "servfail", "refused", "formerr", "garbage"]
        .iter()
        .enumerate()
    {
        for _ in 0..20 {
            let query = question(&format!("same.{bad}.test. A"));
            let frame = client.frame(listen(Family::V4), &wire(&query))?;
            client.send(&frame.to_bytes())?;
        }
        let (answer, took) = ask(&client, &format!("n{round}.good.test."))?;
        assert_eq!(addresses(&answer), ["192.0.2.1"], "beside {bad}");
        assert!(took < ms(2_000), "beside {bad}: {took:?}");
        let asked = scene.upstream.asked(&format!("n{round}.good.test."));
        assert_eq!(asked.len(), 1);
        assert!(
            asked[0].query.extensions().is_some(),
            "EDNS is not given up for {bad}"
        );
    }
    Ok(())
}

#[test]
fn everyone_who_shares_a_question_gets_its_own_answer_by_every_way() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    scene.upstream.on(
        "www.test.",
        Rule::addresses(300, &["192.0.2.1"]).after(ms(300)),
    );
    let ways = Ways::open(&scene)?;
    let names = ["www.test.", "WWW.test.", "www.TEST.", "wWw.tEsT."];
    let mut streams = Vec::new();
    let mut sockets = Vec::new();
    for name in names {
        for family in Family::ALL {
            let message = wire(&question(&format!("{name} A")));
            let mut stream = ways.stream(family)?;
            stream.send(&message)?;
            streams.push((stream, message));
            let message = wire(&question(&format!("{name} A")));
            let socket = scene.udp_client(family)?;
            socket.send(&message)?;
            sockets.push((socket, message));
        }
    }
    for (socket, message) in &sockets {
        let answer = read_answer(message, &socket.answer_to(message)?)?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
    for (stream, message) in &mut streams {
        let answer = read_answer(message, &stream.receive()?)?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
    // TCP has an engine of its own.
    assert!(scene.upstream.asked("www.test.").len() <= 2);
    Ok(())
}

/// More clients than there are chunks for delayed replies.
#[test]
fn a_crowd_that_waits_for_one_answer_gets_it_whole() -> Result<()> {
    const SOCKETS: usize = 4;
    only!(OVER_XDP, "chunks of the queue");
    let scene = scene!(Setup::default());
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule.after(ms(700)));
    let before = scene.daemon.metrics()?;
    let first = scene.udp_client(Family::V4)?;
    let mut sockets = vec![first];
    while sockets.len() < SOCKETS {
        sockets.push(sockets[0].another()?);
    }
    for _ in 0..xdnsd_core::limits::TX_CHUNKS {
        for socket in &sockets {
            socket.send(&wire(&query("www.test.", RecordType::A)))?;
        }
    }
    let count = SOCKETS * xdnsd_core::limits::TX_CHUNKS;
    scene.daemon.wait_growth(
        &before,
        &[
            (&Counter::QueriesXdp, count as u64),
            (&Counter::AnswersXdp, count as u64),
            (&Counter::TxFull, 0),
        ],
    )?;
    let mut answers = Vec::new();
    wait_until("all have come", TIMEOUT, || {
        let received = |socket| std::iter::from_fn(move || UdpClient::try_receive(socket));
        answers.extend(sockets.iter().flat_map(received));
        answers.len() == count
    })?;
    for answer in answers {
        assert_eq!(addresses(&Message::from_vec(&answer)?), ["192.0.2.1"]);
    }
    Ok(())
}

/// Hosts of one LAN are separate clients although they share a /64.
#[test]
fn a_full_table_costs_whoever_fills_it_and_never_the_others() -> Result<()> {
    only!(
        OVER_XDP,
        "the table of one worker; names are spread over several"
    );
    for (greedy, modest) in [
        ("10.53.0.9/24", "10.53.0.8/24"),
        ("fd53::9/64", "fd53::8/64"),
        ("fe80::9/64", "fe80::8/64"),
    ] {
        let scene = scene!(Setup::default());
        costs_whoever_fills_it(&scene, greedy, modest).context(greedy)?;
    }
    Ok(())
}

/// A client of the appliance at this address, which the client's host gets.
fn client_at(scene: &Scene, address: &str) -> Result<UdpClient> {
    let (local, _) = address.split_once('/').context("a prefix length")?;
    let local: IpAddr = local.parse()?;
    let flags = if local.is_ipv4() { "" } else { "nodad" };
    let lab = &scene.lab;
    lab.client.ip(&format!(
        "address add {address} dev {HOST_INTERFACE} {flags}\n"
    ))?;
    UdpClient::open_from(lab, local, listen(Family::of_address(local)))
}

fn costs_whoever_fills_it(scene: &Scene, greedy: &str, modest: &str) -> Result<()> {
    const QUESTIONS: usize = 2 * xdnsd_core::limits::PENDING;
    // Each in a domain of its own: one domain may use only a part of the table (`forward.zone_questions`).
    scene.upstream.on("*.dead.", Rule::silence());
    scene
        .upstream
        .on("hit.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene.upstream.on(
        "*.slow.test.",
        Rule::addresses(300, &["192.0.2.2"]).after(ms(700)),
    );
    scene
        .upstream
        .on("*.fine.test.", Rule::addresses(300, &["192.0.2.3"]));
    let (greedy, modest) = (client_at(scene, greedy)?, client_at(scene, modest)?);
    modest.ask(&query("hit.test.", RecordType::A))?;
    let before = scene.daemon.metrics()?;
    // A client waits for a slow answer while another one fills the table twice. That answer may come before the others are
    // asked, and a wait for those would throw it away: so it has a socket of its own.
    let waiting = modest.another()?;
    let patient = wire(&query("patient.slow.test.", RecordType::A));
    waiting.send(&patient)?;
    let queries: Vec<Vec<u8>> = (0..QUESTIONS)
        .map(|number| wire(&question(&format!("www.n{number}.dead. A edns"))))
        .collect();
    let mut told = Vec::new();
    let mut sent = 1;
    for some in queries.chunks(64) {
        for query in some {
            greedy.send(query)?;
        }
        // No faster than the worker takes them: drops of a full ring or socket are not reported.
        sent += some.len() as u64;
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::QueriesXdp, sent)])?;
        told.extend(std::iter::from_fn(|| greedy.try_receive()));
    }
    let start = Instant::now();
    let hit = modest.ask(&query("hit.test.", RecordType::A))?;
    assert_eq!(addresses(&hit), ["192.0.2.1"]);
    let miss = modest.ask(&query("x.fine.test.", RecordType::A))?;
    assert_eq!(addresses(&miss), ["192.0.2.3"]);
    assert!(start.elapsed() < ms(2_000), "{:?}", start.elapsed());
    let answer = read_answer(&patient, &waiting.answer_to(&patient)?)?;
    assert_eq!(
        addresses(&answer),
        ["192.0.2.2"],
        "the other client's questions made room"
    );
    // The greedy client gets answers for its oldest questions at once, in order, with the reason.
    let mut refused = BTreeMap::new();
    told.extend(std::iter::from_fn(|| greedy.try_receive()));
    for bytes in told {
        let answer = Message::from_vec(&bytes)?;
        assert_eq!(
            (answer.response_code(), ede(&answer)),
            (FAIL, Some(14)),
            "Not Ready: {answer}"
        );
        refused.insert(answer.id(), ());
    }
    let first = Message::from_vec(&queries[0])?.id();
    assert!(refused.contains_key(&first), "the oldest is refused");
    let now = scene.daemon.metrics()?;
    assert!(
        now.growth(&before, &Counter::PendingFull) > 0,
        "{}",
        now.text()
    );
    assert!(refused.len() >= QUESTIONS / 4, "{}", refused.len());
    Ok(())
}

/// Clients that wait for the target of a local alias have a table of their own: a full one affects only newcomers, and neither
/// a question without an alias nor those that wait. Places are released.
#[test]
fn a_full_table_of_aliases_costs_the_newcomer_and_no_other_question() -> Result<()> {
    only!(
        OVER_XDP,
        "the table of one worker; names are spread over several"
    );
    const CLIENTS: usize = 8;
    let records: Vec<String> = (0..=ALIASES)
        .map(|number| format!("\"a{number}.lan CNAME n{number}.slow.test\""))
        .collect();
    let records = format!(
        "[forward]\ngive_up_ms = 30000\n[local]\nzones = [\"lan\"]\nrecords = [{}]\n",
        records.join(", ")
    );
    let scene = scene!(Setup::default().sections(&records));
    scene.upstream.on("*.slow.test.", Rule::silence());
    scene
        .upstream
        .on("*.fine.test.", Rule::addresses(300, &["192.0.2.3"]));
    let mut clients = Vec::new();
    for number in 0..CLIENTS + 2 {
        clients.push(client_at(&scene, &format!("10.53.0.{}/24", 20 + number))?);
    }
    let (newcomer, other) = (clients.pop(), clients.pop());
    let (newcomer, other) = (newcomer.expect("one more"), other.expect("another"));
    let patient = wire(&query("patient.slow.test.", RecordType::A));
    other.send(&patient)?;
    for number in 0..ALIASES {
        let query = wire(&query(&format!("a{number}.lan."), RecordType::A));
        clients[number % CLIENTS].send(&query)?;
    }
    let all = ALIASES + 1;
    wait_until("all are asked upstream", TIMEOUT, || {
        scene.upstream.asked_all().len() >= all
    })?;
    let last = question(&format!("a{ALIASES}.lan. A edns"));
    let refused = newcomer.exchange(&wire(&last))?;
    let refused = Message::from_vec(&refused)?;
    assert_eq!(
        (refused.response_code(), ede(&refused)),
        (FAIL, Some(14)),
        "Not Ready: {refused}"
    );
    // A query without an alias is answered, and those that wait are not affected.
    let plain = newcomer.ask(&query("x.fine.test.", RecordType::A))?;
    assert_eq!(addresses(&plain), ["192.0.2.3"]);
    // Upstream answers at the next attempt.
    let rule = Rule::addresses(300, &["192.0.2.2"]);
    scene.upstream.on("*.slow.test.", rule);
    let answer = read_answer(&patient, &other.answer_to(&patient)?)?;
    assert_eq!(addresses(&answer), ["192.0.2.2"]);
    let mut answered = 0;
    wait_until("all who wait are answered", TIMEOUT, || {
        let received = clients.iter().filter_map(UdpClient::try_receive);
        for answer in received.map(|bytes| Message::from_vec(&bytes).expect("a message")) {
            assert_eq!(addresses(&answer), ["192.0.2.2"]);
            answered += 1;
        }
        answered == ALIASES
    })?;
    let answer = Message::from_vec(&newcomer.exchange(&wire(&last))?)?;
    assert_eq!(addresses(&answer), ["192.0.2.2"], "an alias again");
    Ok(())
}
