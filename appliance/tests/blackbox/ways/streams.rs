//! DNS over TCP (RFC 7766): how queries may be split and joined, timeouts, and which connections are closed.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::{RData, RecordType};
use xdnsd_core::counters::Counter;
use xdnsd_core::limits::TCP_CLIENTS;
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, Lab};
use xdnsd_lab::wait::wait_until;

use super::code;
use crate::support::ask::{Ask, OptRecord, flag, rtype};
use crate::support::client::Family;
use crate::support::message::{query, txt};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::{Next, Stream, framed};
use crate::support::upstream::Asked;
use crate::support::view::View;
use crate::support::{ANSWER_TIMEOUT, SILENCE, TIMEOUT};

/// Time in which a query has to arrive.
const QUERY_TIME: Duration = Duration::from_secs(5);
/// Delay of the upstream for names below `slow.test.`.
const SLOW: Duration = Duration::from_millis(600);

/// `www.test.` and everything below `test.` has an address, names below `slow.test.` only later.
fn prepare(scene: &Scene) {
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("*.test.", rule.clone());
    scene.upstream.on("*.slow.test.", rule.after(SLOW));
}

fn a(name: &str) -> Vec<u8> {
    Ask::of(name, rtype::A).bytes()
}

/// Whether `reply` answers `query` with an address.
fn assert_answers(reply: &[u8], query: &[u8]) -> Result<()> {
    let view = View::parse(reply)?;
    ensure!(
        view.id.to_be_bytes() == query[..2],
        "another query's answer: {view:?}"
    );
    ensure!(view.data(rtype::A).len() == 1, "{view:?}");
    Ok(())
}

/// Asks once, so that the connection is known to be accepted.
fn open_and_ask(lab: &Lab, family: Family) -> Result<Stream> {
    let mut stream = Stream::open(lab, family)?;
    let query = a("www.test.");
    assert_answers(&stream.exchange(&query)?, &query)?;
    Ok(stream)
}

#[test]
fn a_query_may_come_in_any_pieces() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    for family in Family::ALL {
        let mut stream = Stream::open(&scene.lab, family)?;
        let query = a("www.test.");
        let whole = framed(&query);
        // Split everywhere: within the length, after it, within the message.
        for at in 1..whole.len() {
            stream.write(&whole[..at])?;
            // So that two segments are two reads.
            assert_eq!(stream.next(Duration::from_millis(3))?, Next::Nothing);
            stream.write(&whole[at..])?;
            assert_answers(&stream.receive()?, &query)?;
        }
        for byte in &whole {
            stream.write(std::slice::from_ref(byte))?;
            std::thread::yield_now();
        }
        assert_answers(&stream.receive()?, &query)?;
    }
    Ok(())
}

#[test]
fn queries_may_come_together() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    for family in Family::ALL {
        let mut stream = open_and_ask(&scene.lab, family)?;
        let queries: Vec<Vec<u8>> = ["www.test.", "www.test.", "b.test."].map(a).to_vec();
        let joined: Vec<u8> = queries.iter().flat_map(|query| framed(query)).collect();
        // Two and a half, then the rest.
        let cut = joined.len() - 9;
        stream.write(&joined[..cut])?;
        for query in &queries[..2] {
            assert_answers(&stream.receive()?, query)?;
        }
        assert_eq!(stream.next(SILENCE)?, Next::Nothing);
        stream.write(&joined[cut..])?;
        assert_answers(&stream.receive()?, &queries[2])?;
    }
    Ok(())
}

#[test]
fn many_queries_are_answered_whatever_their_order() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let mut stream = Stream::open(&scene.lab, Family::V4)?;
    // More than may be in flight at once; every third takes long, the others are hits or not.
    let queries: Vec<Vec<u8>> = (0..300)
        .map(|number| match number % 3 {
            0 => a(&format!("n{number}.slow.test.")),
            1 => a("www.test."),
            _ => a(&format!("n{number}.test.")),
        })
        .collect();
    let joined: Vec<u8> = queries.iter().flat_map(|query| framed(query)).collect();
    stream.write(&joined)?;
    let mut open: Vec<&Vec<u8>> = queries.iter().collect();
    while !open.is_empty() {
        let reply = stream.receive()?;
        let of = open.iter().position(|query| query[..2] == reply[..2]);
        let query = open.swap_remove(of.context("an answer to nothing, or a second one")?);
        assert_answers(&reply, query)?;
    }
    assert_eq!(stream.next(SILENCE)?, Next::Nothing);
    Ok(())
}

#[test]
fn one_connection_has_so_many_questions_open_and_no_more() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let mut greedy = Stream::open(&scene.lab, Family::V4)?;
    let names = (0..100).map(|number| a(&format!("g{number}.slow.test.")));
    greedy.write(&names.flat_map(|query| framed(&query)).collect::<Vec<_>>())?;
    // Questions that the upstream gets twice because it is slow count once.
    let asked = || {
        let all = scene.upstream.asked_all();
        let names: BTreeSet<String> = all.iter().map(Asked::name).collect();
        names.len()
    };
    wait_until("64 questions are open", TIMEOUT, || asked() >= 64)?;
    assert_eq!(greedy.next(SILENCE)?, Next::Nothing);
    assert_eq!(asked(), 64);
    for _ in 0..100 {
        greedy.receive()?;
    }
    assert_eq!(asked(), 100);
    Ok(())
}

#[test]
fn the_same_query_again_is_owed_an_answer_of_its_own() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections("[tcp]\nidle_secs = 1\n"));
    prepare(&scene);
    let mut stream = Stream::open(&scene.lab, Family::V4)?;
    let query = a("again.slow.test.");
    stream.write(&framed(&query).repeat(3))?;
    for _ in 0..3 {
        assert_answers(&stream.receive()?, &query)?;
    }
    // Nothing is open any more: the connection counts as idle.
    assert!(stream.is_closed_within(TIMEOUT)?);
    Ok(())
}

#[test]
fn a_slow_answer_does_not_hold_up_the_next() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    for family in Family::ALL {
        let mut stream = open_and_ask(&scene.lab, family)?;
        let slow = a(&format!("{family:?}.slow.test."));
        let fast = a("www.test.");
        stream.write(&[framed(&slow), framed(&fast)].concat())?;
        assert_answers(&stream.receive()?, &fast).context("the fast one first")?;
        assert_answers(&stream.receive()?, &slow)?;
    }
    Ok(())
}

#[test]
fn messages_that_are_none_do_not_end_the_connection() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let query = a("www.test.");
    for family in Family::ALL {
        let mut stream = Stream::open(&scene.lab, family)?;
        for silent in [&b""[..], b"x", &query[..11], &[0xff; 40]] {
            stream.send(silent)?;
            assert_answers(&stream.exchange(&query)?, &query)?;
        }
        let formerr = stream.exchange(&query[..14])?;
        assert_eq!(View::parse(&formerr)?.rcode(), code::FORMERR);
        assert_answers(&stream.exchange(&query)?, &query)?;
    }
    Ok(())
}

#[test]
fn the_longest_messages() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let strings: Vec<RData> = (0..240).map(|number| txt(number, 250)).collect();
    scene.upstream.on("huge.test.", Rule::answer(300, &strings));
    let mut stream = Stream::open(&scene.lab, Family::V6)?;
    for len in [2_047, 2_048, 2_049, 5_000, 65_535] {
        // Trailing bytes are ignored, however many.
        let mut query = a("www.test.");
        query.resize(len, 0xa5);
        assert_answers(&stream.exchange(&query)?, &query).with_context(|| format!("{len}"))?;
        // The needed part of a message has to be at its beginning.
        let padded = OptRecord::size(1232).option(12, &vec![0; len.min(60_000)]);
        let padded = Ask::of("www.test.", rtype::A).edns(&padded).bytes();
        let reply = View::parse(&stream.exchange(&padded)?)?;
        assert!(
            matches!(reply.rcode(), code::NOERROR | code::FORMERR),
            "{reply:?}"
        );
    }
    let update = Ask::of("test.", 6).opcode(5).tail(&[7; 60_000]).count(2, 9);
    let reply = View::parse(&stream.exchange(&update.bytes())?)?;
    assert_eq!(reply.rcode(), code::NOTIMP);
    // Several of them, which exceed any send buffer, and a client that reads.
    let huge = Ask::of("huge.test.", rtype::TXT).bytes();
    for _ in 0..5 {
        let reply = View::parse(&stream.exchange(&huge)?)?;
        assert_eq!(reply.data(rtype::TXT).len(), strings.len());
        assert!(reply.bytes.len() > 60_000 && !reply.has(flag::TC));
    }
    Ok(())
}

#[test]
fn who_has_said_all_gets_all_answers_and_is_closed() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    for family in Family::ALL {
        let slow = a(&format!("end{family:?}.slow.test."));
        let fast = a("www.test.");
        for queries in [vec![&fast], vec![&slow], vec![&slow, &fast, &fast]] {
            let mut stream = Stream::open(&scene.lab, family)?;
            for query in &queries {
                stream.send(query)?;
            }
            stream.end()?;
            for _ in &queries {
                stream.receive().context("an answer after the end")?;
            }
            assert!(stream.is_closed_within(TIMEOUT)?);
        }
        // FIN within a query, and without any query.
        for part in [&b""[..], b"\0", &framed(&fast)[..9]] {
            let mut stream = Stream::open(&scene.lab, family)?;
            stream.write(part)?;
            stream.end()?;
            assert!(stream.is_closed_within(TIMEOUT)?, "{part:02x?}");
        }
    }
    Ok(())
}

#[test]
fn who_goes_before_the_answer_harms_nobody() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    for number in 0..TCP_CLIENTS {
        let mut stream = Stream::open(&scene.lab, Family::V4)?;
        stream.send(&a(&format!("gone{number}.slow.test.")))?;
    }
    let mut stream = open_and_ask(&scene.lab, Family::V6)?;
    std::thread::sleep(SLOW);
    let query = a("gone1.slow.test.");
    assert_answers(&stream.exchange(&query)?, &query)
}

#[test]
fn an_idle_connection_is_closed_in_its_time() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections("[tcp]\nidle_secs = 2\n"));
    prepare(&scene);
    let idle = Duration::from_secs(2);
    for family in Family::ALL {
        // A connection without a query, and one that had some.
        let fresh = Stream::open(&scene.lab, family)?;
        let used = open_and_ask(&scene.lab, family)?;
        for mut stream in [fresh, used] {
            let since = Instant::now();
            assert!(stream.is_closed_within(idle * 3)?);
            assert!(since.elapsed() <= idle * 2, "{:?}", since.elapsed());
        }
        // A client that keeps asking stays.
        let mut busy = open_and_ask(&scene.lab, family)?;
        for _ in 0..4 {
            assert_eq!(busy.next(idle * 6 / 10)?, Next::Nothing);
            busy.exchange(&a("www.test."))?;
        }
    }
    Ok(())
}

#[test]
fn who_waits_is_not_idle() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections("[tcp]\nidle_secs = 2\n"));
    let late = Rule::addresses(300, &["192.0.2.1"]).after(Duration::from_millis(2_500));
    prepare(&scene);
    scene.upstream.on("late.test.", late);
    let mut stream = Stream::open(&scene.lab, Family::V4)?;
    let query = a("late.test.");
    assert_answers(&stream.exchange(&query)?, &query)?;
    // Its time begins with the answer, not with the question.
    assert_eq!(stream.next(Duration::from_millis(1_200))?, Next::Nothing);
    let again = a("www.test.");
    assert_answers(&stream.exchange(&again)?, &again)?;
    assert!(stream.is_closed_within(TIMEOUT)?);
    Ok(())
}

#[test]
fn a_query_that_takes_too_long_to_come_ends_its_connection() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections("[tcp]\nidle_secs = 100\n"));
    prepare(&scene);
    let mut idle = open_and_ask(&scene.lab, Family::V4)?;
    let mut cut = open_and_ask(&scene.lab, Family::V6)?;
    let mut dripping = open_and_ask(&scene.lab, Family::V4)?;
    let since = Instant::now();
    cut.write(&framed(&a("www.test."))[..5])?;
    // One byte a second is not enough.
    for byte in &framed(&a("www.test."))[..5] {
        dripping.write(std::slice::from_ref(byte))?;
        assert_eq!(dripping.next(Duration::from_millis(800))?, Next::Nothing);
    }
    assert!(cut.is_closed_within(QUERY_TIME)?);
    assert!(dripping.is_closed_within(QUERY_TIME)?);
    let took = since.elapsed();
    assert!(took >= QUERY_TIME && took < QUERY_TIME * 3 / 2, "{took:?}");
    // A hundred seconds for idle connections.
    let query = a("www.test.");
    assert_answers(&idle.exchange(&query)?, &query)
}

#[test]
fn full_slots_make_room_for_who_comes() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let mut streams = Vec::new();
    for _ in 0..TCP_CLIENTS {
        streams.push(open_and_ask(&scene.lab, Family::V4)?);
    }
    // The first of them asks again, so that the second has been idle for longest; the third has a question open.
    let query = a("www.test.");
    streams[0].exchange(&query)?;
    let slow = a("wait.slow.test.");
    streams[2].send(&slow)?;
    let mut guest = open_and_ask(&scene.lab, Family::V6)?;
    assert!(streams[1].is_closed_within(TIMEOUT)?, "idle for longest");
    let mut another = open_and_ask(&scene.lab, Family::V6)?;
    assert!(streams[3].is_closed_within(TIMEOUT)?, "the next");
    assert_answers(&streams[2].receive()?, &slow).context("who waits stays")?;
    for stream in [&mut guest, &mut another, &mut streams[0]] {
        assert_answers(&stream.exchange(&query)?, &query)?;
    }
    Ok(())
}

#[test]
fn one_client_that_waits_on_all_slots_shuts_nobody_out() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    scene.upstream.on("*.silent.test.", Rule::silence());
    let before = scene.daemon.metrics()?;
    let mut streams = Vec::new();
    for number in 0..TCP_CLIENTS {
        let mut stream = Stream::open(&scene.lab, Family::V4)?;
        stream.send(&a(&format!("n{number}.silent.test.")))?;
        streams.push(stream);
    }
    let all = u64::try_from(TCP_CLIENTS)?;
    scene
        .daemon
        .wait_growth(&before, &[(&Counter::QueriesTcp, all)])?;
    // Another client gets one of its slots, the same one does not.
    let mut guest = open_and_ask(&scene.lab, Family::V6)?;
    let slow = a("guest.slow.test.");
    guest.send(&slow)?;
    let mut more = Stream::open(&scene.lab, Family::V4)?;
    assert!(more.is_closed_within(TIMEOUT)?);
    assert_answers(&guest.receive()?, &slow)?;
    // One of its connections was closed for it; all others get an answer, if only a failure.
    let mut closed = 0;
    for stream in &mut streams {
        match stream.next(TIMEOUT)? {
            Next::Message(reply) => assert_eq!(View::parse(&reply)?.rcode(), code::SERVFAIL),
            Next::Closed => closed += 1,
            Next::Nothing => anyhow::bail!("neither an answer nor an end"),
        }
    }
    assert_eq!(closed, 1);
    Ok(())
}

/// One host of the LAN takes all slots, and another one in its /64 still gets one. A network is new: the appliance has to learn
/// of it while it runs. The other is that of link-local addresses, which all hosts share.
#[test]
fn a_neighbour_that_waits_on_all_slots_shuts_no_other_neighbour_out() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    for network in ["fd99::", "fe80::"] {
        let scene = scene!(
            Setup::three_ways()
                .sections("[forward]\ngive_up_ms = 30000\n[access]\nothers = \"allow\"\n")
        );
        shuts_no_other_out(&scene, network).context(network)?;
    }
    Ok(())
}

fn shuts_no_other_out(scene: &Scene, network: &str) -> Result<()> {
    prepare(scene);
    scene.upstream.on("*.silent.test.", Rule::silence());
    let host = |number: &str| format!("{network}{number}");
    let (greedy, modest): (IpAddr, IpAddr) = (host("a").parse()?, host("b").parse()?);
    let Lab { router, client, .. } = &scene.lab;
    router.ip(&format!("address add {network}1/64 dev {LAN} nodad\n"))?;
    client.ip(&format!(
        "address add {greedy}/64 dev {HOST_INTERFACE} nodad
         address add {modest}/64 dev {HOST_INTERFACE} nodad\n"
    ))?;
    let before = scene.daemon.metrics()?;
    let mut streams = Vec::new();
    for number in 0..TCP_CLIENTS {
        let mut stream = Stream::open_from(&scene.lab, greedy, 0)?;
        stream.send(&a(&format!("n{number}.silent.test.")))?;
        streams.push(stream);
    }
    let all = u64::try_from(TCP_CLIENTS)?;
    scene
        .daemon
        .wait_growth(&before, &[(&Counter::QueriesTcp, all)])?;
    let query = a("www.test.");
    let served = || -> Result<bool> {
        let mut stream = Stream::open_from(&scene.lab, modest, 0)?;
        // A refused connection is reset, which the write or the read sees.
        let is_sent = stream.send(&query).is_ok();
        Ok(is_sent && matches!(stream.next(TIMEOUT)?, Next::Message(_)))
    };
    wait_until("the neighbour is served", TIMEOUT, || {
        served().unwrap_or(false)
    })
}

/// Eight neighbours have an eighth of the slots each: three connections that wait, and one that has just been opened. A ninth
/// comes before the second is over in which a new one has to send something.
#[test]
fn who_has_just_come_is_not_closed_for_the_next_one() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    const CLIENTS: usize = 8;
    let own = TCP_CLIENTS / CLIENTS;
    let scene = scene!(Setup::three_ways().sections("[forward]\ngive_up_ms = 30000\n"));
    prepare(&scene);
    scene.upstream.on("*.silent.test.", Rule::silence());
    let address = |number: usize| format!("fd53::{}", 20 + number).parse::<IpAddr>();
    for number in 0..=CLIENTS {
        let client = &scene.lab.client;
        client.ip(&format!(
            "address add {}/64 dev {HOST_INTERFACE} nodad\n",
            address(number)?
        ))?;
    }
    let query = a("www.test.");
    for round in 0..8 {
        let before = scene.daemon.metrics()?;
        let mut waiting = Vec::new();
        for number in 0..CLIENTS * (own - 1) {
            let mut stream = Stream::open_from(&scene.lab, address(number % CLIENTS)?, 0)?;
            stream.send(&a(&format!("n{number}.{round}.silent.test.")))?;
            waiting.push(stream);
        }
        let all = u64::try_from(waiting.len())?;
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::QueriesTcp, all)])?;
        let first = Instant::now();
        let fresh = (0..CLIENTS).map(|number| Stream::open_from(&scene.lab, address(number)?, 0));
        let mut fresh = fresh.collect::<Result<Vec<_>>>()?;
        let mut ninth = Stream::open_from(&scene.lab, address(CLIENTS)?, 0)?;
        assert_answers(&ninth.exchange(&query)?, &query)?;
        if first.elapsed() > Duration::from_millis(800) {
            // A machine that busy shows nothing.
            continue;
        }
        for stream in &mut fresh {
            assert_answers(&stream.exchange(&query)?, &query)?;
        }
        return Ok(());
    }
    anyhow::bail!("too busy a machine")
}

#[test]
fn who_does_not_read_is_closed_and_nobody_waits_for_him() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let strings: Vec<RData> = (0..200).map(|number| txt(number, 250)).collect();
    scene.upstream.on("huge.test.", Rule::answer(300, &strings));
    let huge = Ask::of("huge.test.", rtype::TXT).bytes();
    let mut greedy = Stream::open_narrow(&scene.lab, Family::V4, 32_768)?;
    let mut other = open_and_ask(&scene.lab, Family::V4)?;
    // 50,000 bytes each: together more than both buffers hold.
    for _ in 0..40 {
        if greedy.send(&huge).is_err() {
            break;
        }
        let query = a("www.test.");
        assert_answers(&other.exchange(&query)?, &query)?;
    }
    // What was sent before may be read; then the stream ends, never with a wrong byte.
    let mut whole = 0;
    loop {
        match greedy.next(TIMEOUT) {
            Ok(Next::Message(message)) => {
                let view = View::parse(&message)?;
                assert_eq!(view.data(rtype::TXT).len(), strings.len());
                whole += 1;
            }
            Ok(Next::Closed) => break,
            Ok(Next::Nothing) => anyhow::bail!("the connection is still open"),
            // It ended within a message.
            Err(error) => {
                let kind = error.downcast_ref().map(std::io::Error::kind);
                let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(kind.is_some_and(|kind| ends.contains(&kind)), "{error:#}");
                break;
            }
        }
    }
    assert!(whole < 40, "{whole}");
    Ok(())
}

#[test]
fn a_flood_of_connections_starves_no_datagram() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let client = scene.udp_client(Family::V4)?;
    client.ask(&query("www.test.", RecordType::A))?;
    let before = scene.daemon.metrics()?;
    let flood = |lab: &Lab| -> Result<()> {
        for _ in 0..300 {
            let mut stream = Stream::open(lab, Family::V6)?;
            stream.write(b"\0\x1d half a query")?;
        }
        Ok(())
    };
    let mut slowest = Duration::ZERO;
    let asked = std::thread::scope(|scope| -> Result<u64> {
        let flooding = scope.spawn(|| flood(&scene.lab));
        let mut asked = 0;
        while !flooding.is_finished() {
            let since = Instant::now();
            client.ask(&query("www.test.", RecordType::A))?;
            slowest = slowest.max(since.elapsed());
            asked += 1;
        }
        flooding.join().expect("no panic")?;
        Ok(asked)
    })?;
    assert!(asked > 0 && slowest < ANSWER_TIMEOUT, "{asked} {slowest:?}");
    scene
        .daemon
        .wait_growth(&before, &[(&Counter::AnswersXdp, asked)])?;
    open_and_ask(&scene.lab, Family::V4)?;
    Ok(())
}
