//! Hot names, answered by the XDP program: the same bytes as in user space, and none of them after a reload, a flush or a kill,
//! nor if answers do not leave.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_core::dns::header::{HEADER_LEN, Header};
use xdnsd_core::dns::name;
use xdnsd_core::dns::record::Records;
use xdnsd_lab::bpf::Link;
use xdnsd_lab::lab::HOST_INTERFACE;
use xdnsd_lab::wait::wait_until;

use crate::shield::with_program;
use crate::support::TIMEOUT;
use crate::support::ask::{Ask, OptRecord, flag, option, rtype};
use crate::support::client::{Family, RawClient, listen};
use crate::support::frame::UdpFrame;
use crate::support::message::{address, addresses, cname, mx, query, read_answer, ttl, txt, wire};
use crate::support::metrics::Metric;
use crate::support::random::Random;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;

mod withdrawn;

/// Number of generated questions, if the environment does not set another.
const QUESTIONS: u64 = 1_000;
const QUESTIONS_VARIABLE: &str = "XDNSD_TIER0_QUESTIONS";
/// RFC 1035 section 3.2.2.
const MX: u16 = 15;
/// The daemon checks the other end of a pair once a second.
const TWO_LOOKS: Duration = Duration::from_millis(2_100);
/// IPv4 options that do nothing (RFC 791 section 3.1): the XDP program leaves such a packet to the kernel's socket.
const NO_OPERATIONS: [u8; 4] = [1; 4];

fn setup(tier0: &str) -> Setup {
    Setup::default().sections(&format!("[cache]\nrotate = false\ntier0 = \"{tier0}\"\n"))
}

/// A client that answers of both tiers reach, with the program that it needs for that.
fn open(scene: &Scene) -> Result<(Link, RawClient)> {
    Ok((with_program(&scene.lab.client)?, scene.raw_client()?))
}

/// A query for the address of `www.test.`, over IPv4.
fn www(client: &RawClient) -> Result<UdpFrame> {
    let message = wire(&query("www.test.", RecordType::A));
    client.frame(listen(Family::V4), &message)
}

/// Sets upstream's answer to that query.
fn says(scene: &Scene, ttl_secs: u32, address: &str) {
    let rule = Rule::addresses(ttl_secs, &[address]);
    scene.upstream.on("www.test.", rule);
}

/// Metric: whether hot names are answered in the kernel, and if not, why not.
#[derive(Debug)]
struct Tier0(&'static str);

impl Metric for Tier0 {
    fn family(&self) -> String {
        "xdnsd_tier0".to_owned()
    }

    fn label(&self) -> String {
        match self.0 {
            "" => String::new(),
            reason => format!("reason=\"{reason}\""),
        }
    }
}

fn wait_state(scene: &Scene, reason: &'static str) -> Result<()> {
    let expected = Some(u64::from(reason.is_empty()));
    wait_until(&format!("tier0: {reason:?}"), TIMEOUT, || {
        let metrics = scene.daemon.metrics();
        metrics.is_ok_and(|metrics| metrics.get(&Tier0(reason)) == expected)
    })
}

fn answered(scene: &Scene) -> Result<u64> {
    Ok(scene.daemon.metrics()?.get(&Reason::Answered).unwrap_or(0))
}

/// Asks until the answer comes from the XDP program, and returns it.
fn ask_until_hot(scene: &Scene, client: &RawClient, frame: &UdpFrame) -> Result<Vec<u8>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        for _ in 0..16 {
            client.exchange(frame)?;
        }
        let before = answered(scene)?;
        let answer = client.exchange(frame)?;
        if answered(scene)? > before {
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "not hot: {frame:02x?}");
    }
}

/// The message with all TTLs set to 0.
fn without_ttls(answer: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = answer.to_vec();
    let header = Header::parse(answer).context("a header")?;
    let [_, counts @ ..] = header.counts;
    let question_end = name::skip(answer, HEADER_LEN).map_err(|_| anyhow::anyhow!("a name"))? + 4;
    let count = counts.iter().map(|count| usize::from(*count)).sum();
    for record in Records::new(answer, question_end, count) {
        let record = record.map_err(|_| anyhow::anyhow!("a record: {answer:02x?}"))?;
        // In OPT these bytes are flags.
        if record.rtype != rtype::OPT {
            bytes[record.ttl_at..record.ttl_at + 4].fill(0);
        }
    }
    Ok(bytes)
}

#[test]
fn a_name_that_is_asked_for_often_is_answered_by_the_xdp_program() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup("on"));
    let (_program, client) = open(&scene)?;
    wait_state(&scene, "")?;
    let rule = Rule::addresses(300, &["192.0.2.1", "2001:db8::1"]);
    scene.upstream.on("www.test.", rule);
    for (family, kind) in [(Family::V4, RecordType::A), (Family::V6, RecordType::AAAA)] {
        let frame = client.frame(listen(family), &wire(&query("wWw.TesT.", kind)))?;
        client.exchange(&frame)?;
        let forwarded = client.exchange(&frame)?;
        let hot = ask_until_hot(&scene, &client, &frame)?;
        assert_eq!(without_ttls(&hot)?, without_ttls(&forwarded)?);
        // User space has not seen these.
        let before = scene.daemon.metrics()?;
        for _ in 0..50 {
            let answer = client.exchange(&frame)?;
            read_answer(&frame.message, &answer)?;
        }
        let growth: [(&dyn Metric, u64); 4] = [
            (&Reason::Answered, 50),
            (&Reason::Redirected, 0),
            (&Counter::QueriesXdp, 0),
            (&Counter::CacheHits, 0),
        ];
        scene.daemon.wait_growth(&before, &growth)?;
    }
    Ok(())
}

/// An address that DNS64 has made is an address like any other; who validates by himself gets none, from the program either.
#[test]
fn a_made_address_is_given_by_the_program_to_those_who_are_to_get_it() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let dns64 = "[dns64]\nprefix = \"64:ff9b::/96\"\n";
    let scene = scene!(setup("on").sections(dns64));
    let (_program, client) = open(&scene)?;
    wait_state(&scene, "")?;
    let rule = Rule::addresses(300, &["198.41.0.4"]);
    scene.upstream.on("www.test.", rule);
    let to = listen(Family::V6);
    let made = client.frame(to, &wire(&query("www.test.", RecordType::AAAA)))?;
    let forwarded = client.exchange(&made)?;
    let hot = ask_until_hot(&scene, &client, &made)?;
    assert_eq!(without_ttls(&hot)?, without_ttls(&forwarded)?);
    let address = read_answer(&made.message, &hot)?;
    assert_eq!(addresses(&address), ["64:ff9b::c629:4"]);
    let validates = OptRecord::dnssec_ok(1232);
    let validates = Ask::of("www.test.", rtype::AAAA)
        .with(flag::CD)
        .edns(&validates);
    let frame = client.frame(to, &validates.bytes())?;
    client.exchange(&frame)?;
    let none = ask_until_hot(&scene, &client, &frame)?;
    assert_eq!(read_answer(&frame.message, &none)?.answers().len(), 0);
    Ok(())
}

/// Clients that get nothing from user space get nothing from the program either, however hot a name is.
#[test]
fn who_is_not_answered_by_user_space_gets_no_hot_answer() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup("on"));
    says(&scene, 300, "192.0.2.1");
    let (_program, client) = open(&scene)?;
    let frame = www(&client)?;
    ask_until_hot(&scene, &client, &frame)?;
    let stranger: IpAddr = "198.51.100.7".parse()?;
    let reflector = SocketAddr::new(frame.source.ip(), 7);
    for source in [SocketAddr::new(stranger, 4_000), reflector] {
        let other = UdpFrame {
            source,
            ..frame.clone()
        };
        ensure!(client.gets_nothing(&other)?, "{source}");
    }
    ask_until_hot(&scene, &client, &frame).map(drop)
}

/// A flood from ever new sources gets little of user space, and clients known before it are not affected.
#[test]
fn a_crowd_of_new_clients_keeps_nobody_out_who_is_known() -> Result<()> {
    only!(ONCE, "the XDP program keeps them out by itself");
    const CROWD: u8 = 100;
    const NAMES: u8 = 20;
    let limits = "[rate_limit]\nqueries = 100000\nmisses = 100000\nnewcomers = 100\n[access]\nothers = \"allow\"\n";
    let cache = "[cache]\nrotate = false\ntier0 = \"on\"\n";
    let scene = scene!(Setup::default().sections(&format!("{cache}{limits}")));
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene, "")?;
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    for family in Family::ALL {
        let to = listen(family);
        let frame = client.frame(to, &wire(&query("www.test.", RecordType::A)))?;
        ask_until_hot(&scene, &client, &frame)?;
        let before = scene.daemon.metrics()?;
        let grown = |reason: Reason| {
            let now = scene.daemon.metrics();
            now.map_or(0, |now| now.growth(&before, &reason))
        };
        let crowd = || {
            (0..CROWD).try_for_each(|host| {
                let ip: IpAddr = match family {
                    Family::V4 => [198, 51, 100, host].into(),
                    Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 7, host.into()].into(),
                };
                let source = SocketAddr::new(ip, 4_000);
                let stranger = UdpFrame {
                    source,
                    ..frame.clone()
                };
                client.send(&stranger.to_bytes())
            })
        };
        wait_until("new clients are kept out", TIMEOUT, || {
            crowd().is_ok() && grown(Reason::DropNewcomer) >= u64::from(CROWD) / 2
        })?;
        for number in 0..NAMES {
            let name = format!("{number}.{family:?}.test.");
            let frame = client.frame(to, &wire(&query(&name, RecordType::A)))?;
            read_answer(&frame.message, &client.exchange(&frame)?)?;
        }
        let answered = grown(Reason::Answered);
        client.exchange(&frame)?;
        let more = grown(Reason::Answered) - answered;
        assert_eq!(more, 1, "{family:?}: it is still known");
    }
    Ok(())
}

/// Answers of the upstream server: four records, none, one address, an alias, nothing of that type, records that just fit.
const ZONES: [&str; 7] = [
    "test",
    "no.test",
    "Deep.Down.Test",
    "one.test",
    "alias.test",
    "empty.test",
    "much.test",
];

fn fill_zones(scene: &Scene) {
    let data = ["192.0.2.1", "2001:db8::1"].map(address);
    let records = [&data[..], &[mx(10, "mail.test."), txt(0, 60)]].concat();
    let much = [1, 2, 3, 4].map(|number| txt(number, 30));
    let alias = Rule::answer(3600, &[cname("a-target-of-some-length.one.test.")]).and(
        "a-target-of-some-length.one.test.",
        1800,
        &data,
    );
    for (zone, rule) in [
        ("*.test.", Rule::answer(3600, &records)),
        ("*.no.test.", Rule::code(ResponseCode::NXDomain)),
        ("*.one.test.", Rule::answer(86_400, &data)),
        ("*.alias.test.", alias),
        ("*.empty.test.", Rule::nodata()),
        (
            "*.much.test.",
            Rule::answer(60, &[&much[..], &data].concat()),
        ),
    ] {
        scene.upstream.on(zone, rule);
    }
}

/// A client that sends its cookie gets it back, with the answer, until the secret changes.
#[test]
fn a_query_with_a_good_cookie_is_answered_by_the_xdp_program() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup("on"));
    says(&scene, 300, "192.0.2.1");
    let (_program, client) = open(&scene)?;
    let ask = |family, cookie: &[u8]| {
        let message = with_cookie(Ask::of("www.test.", rtype::A), 1232, cookie).bytes();
        client.frame(listen(family), &message)
    };
    for family in Family::ALL {
        let cookie = cookie(&scene, &client, family)?;
        let frame = ask(family, &cookie)?;
        let forwarded = without_ttls(&client.exchange(&frame)?)?;
        let hot = without_ttls(&ask_until_hot(&scene, &client, &frame)?)?;
        assert_eq!(hot, forwarded);
        ensure!(hot.ends_with(&cookie), "{hot:02x?}");
        let before = answered(&scene)?;
        let mut forged = cookie.clone();
        forged[23] ^= 1;
        for other in [&forged[..], &cookie[..8]] {
            let reply = client.exchange(&ask(family, other)?)?;
            ensure!(reply[reply.len() - 24..] != *other, "{reply:02x?}");
        }
        ensure!(answered(&scene)? == before, "by user space");
    }
    let cookie = cookie(&scene, &client, Family::V4)?;
    let frame = ask(Family::V4, &cookie)?;
    ask_until_hot(&scene, &client, &frame)?;
    scene.daemon.control("shield secret rotate")?;
    let before = answered(&scene)?;
    for _ in 0..16 {
        let reply = client.exchange(&frame)?;
        ensure!(!reply.ends_with(&cookie), "{reply:02x?}");
    }
    ensure!(answered(&scene)? == before, "by user space");
    let reply = client.exchange(&frame)?;
    let next = ask(Family::V4, &reply[reply.len() - 24..])?;
    ask_until_hot(&scene, &client, &next).map(drop)
}

fn with_cookie(ask: Ask, size: u16, cookie: &[u8]) -> Ask {
    ask.edns(&OptRecord::size(size).option(option::COOKIE, cookie))
}

/// Cookie that the client gets.
fn cookie(scene: &Scene, client: &RawClient, family: Family) -> Result<Vec<u8>> {
    let name = "first.of.test.";
    scene
        .upstream
        .on(name, Rule::addresses(300, &["192.0.2.1"]));
    let message = with_cookie(Ask::of(name, rtype::A), 1232, b"a client").bytes();
    let reply = client.exchange(&client.frame(listen(family), &message)?)?;
    let cookie = reply.last_chunk::<24>().context("a cookie")?.to_vec();
    ensure!(cookie.starts_with(b"a client"), "{reply:02x?}");
    Ok(cookie)
}

/// A generated question: all variants of a plain query, with the client's cookie if given.
fn generated(random: &mut Random, number: u64, cookie: Option<&[u8]>) -> Vec<u8> {
    let zone = random.pick(&ZONES);
    let letter = random.pick(&["n", "N", "long-label-of-a-name", "_x"]);
    let kind = random.pick(&[rtype::A, rtype::AAAA, rtype::TXT, MX]);
    let ask = Ask::of(&format!("{letter}{number}.{zone}."), kind).flags(random.pick(&[
        flag::RD,
        0,
        flag::RD | flag::AD,
        flag::RD | flag::CD,
        flag::AD,
    ]));
    match (random.below(5), cookie) {
        (0, _) => ask.edns(&OptRecord::size(1232)),
        (1, _) => ask.edns(&OptRecord::dnssec_ok(4096)),
        (2, _) => ask.edns(&OptRecord::size(0)),
        (3, Some(cookie)) => with_cookie(ask, 4096, cookie),
        _ => ask,
    }
    .bytes()
}

/// The same question to the XDP program, over AF_XDP and through the kernel's socket.
#[test]
fn all_tiers_give_the_same_bytes() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup("on"));
    let (_program, client) = open(&scene)?;
    fill_zones(&scene);
    let count = std::env::var(QUESTIONS_VARIABLE).ok();
    let count = count.map_or(Ok(QUESTIONS), |count| count.parse())?;
    let mut random = Random::new(13);
    let cookie = cookie(&scene, &client, Family::V4)?;
    for number in 0..count {
        let family = random.pick(&[Family::V4, Family::V6]);
        // By the kernel's socket all come over IPv4, and a cookie is valid for one address.
        let cookie = (family == Family::V4).then_some(&cookie[..]);
        let message = generated(&mut random, number, cookie);
        let frame = client.frame(listen(family), &message)?;
        // Without RD upstream is not asked.
        let mut first = frame.clone();
        first.message[2] |= 1;
        client.exchange(&first)?;
        let forwarded = without_ttls(&client.exchange(&frame)?)?;
        let passed = UdpFrame {
            extra: NO_OPERATIONS.to_vec(),
            ..client.frame(listen(Family::V4), &message)?
        };
        let by_kernel = without_ttls(&client.exchange(&passed)?)?;
        assert_eq!(by_kernel, forwarded, "{number}: {message:02x?}");
        let hot = without_ttls(&ask_until_hot(&scene, &client, &frame)?)?;
        assert_eq!(hot, forwarded, "{number}: {message:02x?}");
    }
    Ok(())
}

/// The other end of a veth pair accepts answers if it has an XDP program; without one they are lost, and with GRO alone they
/// stay there and count as sent. So that no client waits for one, this is checked before any is given, and each second.
#[test]
fn where_answers_go_nowhere_user_space_gives_them() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup("auto"));
    wait_state(&scene, "answers_lost")?;
    scene.daemon.wait_log_count("answers do not leave", 1)?;
    says(&scene, 300, "192.0.2.1");
    let client = scene.raw_client()?;
    let frame = www(&client)?;
    let all_by_user_space = |what: &str| -> Result<()> {
        let before = answered(&scene)?;
        for _ in 0..50 {
            client.exchange(&frame).context(what.to_owned())?;
        }
        ensure!(answered(&scene)? == before, "{what}");
        Ok(())
    };
    all_by_user_space("nothing there")?;
    let gro = ["ethtool", "-K", HOST_INTERFACE, "gro", "on"];
    scene.lab.client.output(&gro)?;
    std::thread::sleep(TWO_LOOKS);
    wait_state(&scene, "answers_lost")?;
    all_by_user_space("GRO alone")?;
    let program = with_program(&scene.lab.client)?;
    wait_state(&scene, "")?;
    ask_until_hot(&scene, &client, &frame)?;
    drop(program);
    wait_state(&scene, "answers_lost")?;
    all_by_user_space("GRO alone, again")?;
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene, "")?;
    ask_until_hot(&scene, &client, &frame).map(drop)
}

#[test]
fn it_is_off_unless_asked_for() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(Setup::default());
    let (_program, client) = open(&scene)?;
    wait_state(&scene, "off")?;
    says(&scene, 300, "192.0.2.1");
    for _ in 0..50 {
        client.ask(Family::V4, &query("www.test.", RecordType::A))?;
    }
    assert_eq!(answered(&scene)?, 0);
    Ok(())
}

/// Addresses change their order whoever answers: the program, or user space where there are more than it has room for.
#[test]
fn addresses_still_change_their_order() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(Setup::default().sections("[cache]\nrotate = true\ntier0 = \"on\"\n"));
    let (_program, client) = open(&scene)?;
    for (count, is_hot) in [(3, true), (8, false)] {
        let name = format!("{count}.test.");
        let all: Vec<String> = (1..=count).map(|host| format!("192.0.2.{host}")).collect();
        let records: Vec<&str> = all.iter().map(String::as_str).collect();
        scene.upstream.on(&name, Rule::addresses(300, &records));
        let message = wire(&query(&name, RecordType::A));
        let frame = client.frame(listen(Family::V4), &message)?;
        if is_hot {
            ask_until_hot(&scene, &client, &frame)?;
        }
        let before = answered(&scene)?;
        let mut first = vec![0_u64; count];
        for _ in 0..10 * count {
            let answer = read_answer(&frame.message, &client.exchange(&frame)?)?;
            assert_eq!(addresses(&answer), all);
            let foremost = answer.answers()[0].data().to_string();
            let foremost = all.iter().position(|known| *known == foremost);
            first[foremost.context("one of them")?] += 1;
        }
        ensure!(first.iter().all(|times| *times >= 9), "{first:?}");
        let by_program = answered(&scene)? - before;
        let wanted = if is_hot { first.iter().sum() } else { 0 };
        ensure!(by_program == wanted, "{count}: {by_program} by the program");
    }
    Ok(())
}

/// Shortly before it expires the next client finds it in the cache and triggers a prefetch: then the program gives the new
/// answer, and goes on counting clients of the name.
#[test]
fn a_hot_name_is_fetched_before_its_end_and_stays_hot() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup("on"));
    says(&scene, 4, "192.0.2.1");
    let (_program, client) = open(&scene)?;
    let frame = www(&client)?;
    ask_until_hot(&scene, &client, &frame)?;
    ensure!(hits(&scene, "www.test.")? > 0);
    says(&scene, 300, "192.0.2.2");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        ensure!(Instant::now() < deadline, "never fetched anew");
        let before = hits(&scene, "www.test.");
        let answer = read_answer(&frame.message, &client.exchange(&frame)?)?;
        ensure!(ttl(&answer) > 0, "before its end: {answer}");
        if addresses(&answer) == ["192.0.2.2"] {
            let before = before?;
            ask_until_hot(&scene, &client, &frame)?;
            let now = hits(&scene, "www.test.")?;
            ensure!(now > before, "{now} hits, {before} before");
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(scene.upstream.asked("www.test.").len(), 2);
    Ok(())
}

/// Number of the program's answers for the name, from `cache dump`.
fn hits(scene: &Scene, name: &str) -> Result<u64> {
    let dumped = scene.daemon.control(&format!("cache dump {name}"))?;
    let (_, hits) = dumped.split_once(", hot, ").context(dumped.clone())?;
    let (hits, _) = hits.split_once(" by XDP").context(dumped.clone())?;
    Ok(hits.parse()?)
}
