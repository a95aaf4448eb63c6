//! The scripted upstream follows its script: over UDP and TCP, late, lost, from another source, and recorded.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use xdnsd_lab::scripted::{A, Asked, Make, Record, Rule, Sender, Stray, TXT, Upstream};

/// Longer than anything here takes on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(10);
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Every address of 127.0.0.0/8 is this machine's.
const FORGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66)), 0);

/// An answer with one address.
fn address(last: u8) -> Rule {
    Rule::answer(move |asked| {
        asked.response(&[Record {
            kind: A,
            ttl_secs: 60,
            data: vec![192, 0, 2, last],
        }])
    })
}

fn query(id: u8, label: &str) -> Vec<u8> {
    let mut query = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.len() as u8];
    query.extend(label.as_bytes());
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn client() -> Result<UdpSocket> {
    let client = UdpSocket::bind((SERVER, 0))?;
    client.set_read_timeout(Some(TIMEOUT))?;
    Ok(client)
}

/// Receives the next datagram: its ID, its last byte, and its source.
fn receive(client: &UdpSocket) -> Result<(u8, u8, SocketAddr)> {
    let mut bytes = [0; 512];
    let (len, from) = client.recv_from(&mut bytes).context("no answer")?;
    Ok((bytes[1], bytes[len - 1], from))
}

#[test]
fn rules_are_followed_over_udp_and_what_was_asked_is_remembered() -> Result<()> {
    let mut upstream = Upstream::new(address(9));
    let server = upstream.serve(SocketAddr::new(SERVER, 0))?;
    upstream.on("a.", address(1));
    upstream.on_server(SERVER, "b.", address(2));
    let lost = Rule {
        drop_first: 1,
        ..address(3)
    };
    upstream.on("c.", lost);
    upstream.on("d.", Rule::silence());
    let client = client()?;
    for (id, label) in [(1, "a"), (2, "B"), (3, "c"), (4, "c"), (5, "d"), (6, "e")] {
        client.send_to(&query(id, label), server)?;
    }
    for (id, last) in [(1, 1), (2, 2), (4, 3), (6, 9)] {
        assert_eq!(receive(&client)?, (id, last, server));
    }
    let asked = upstream.asked();
    let names: Vec<String> = asked.iter().map(Asked::name).collect();
    assert_eq!(names, ["a.", "B.", "c.", "c.", "d.", "e."]);
    for asked in &asked {
        assert_eq!((asked.server, asked.from), (server, client.local_addr()?));
        assert!(!asked.is_tcp);
    }
    Ok(())
}

#[test]
fn an_answer_that_is_late_holds_up_no_other() -> Result<()> {
    let mut upstream = Upstream::new(address(9));
    let server = upstream.serve(SocketAddr::new(SERVER, 0))?;
    let late = Rule {
        delay: Duration::from_secs(1),
        ..address(1)
    };
    upstream.on("late.", late);
    let client = client()?;
    for (id, label) in [(1, "late"), (2, "other")] {
        client.send_to(&query(id, label), server)?;
    }
    assert_eq!(receive(&client)?, (2, 9, server));
    assert_eq!(receive(&client)?, (1, 1, server));
    Ok(())
}

#[test]
fn strays_come_first_and_from_where_they_shall() -> Result<()> {
    let mut upstream = Upstream::new(address(9));
    let port = client()?.local_addr()?.port();
    let server = SocketAddr::new(SERVER, port);
    upstream.serve_with_forger(server, FORGER)?;
    let stray = |sender, last: u8| Stray {
        sender,
        message: Make::new(move |asked| [&asked.query[..2], &[last]].concat()),
    };
    let senders = [Sender::OtherPort, Sender::OtherAddress, Sender::Server];
    let strays = senders.into_iter().zip(1..);
    let rule = Rule {
        before: strays.map(|(sender, last)| stray(sender, last)).collect(),
        ..address(4)
    };
    upstream.on("*.", rule);
    let client = client()?;
    client.send_to(&query(1, "a"), server)?;
    let received: Vec<_> = (0..4).map(|_| receive(&client)).collect::<Result<_>>()?;
    let lasts: Vec<u8> = received.iter().map(|(_, last, _)| *last).collect();
    assert_eq!(lasts, [1, 2, 3, 4]);
    let [other_port, other_address, own, answer] = [0, 1, 2, 3].map(|at| received[at].2);
    assert_eq!((own, answer), (server, server));
    assert!(other_port.ip() == SERVER && other_port != server);
    assert_eq!(other_address.ip(), FORGER.ip());
    Ok(())
}

#[test]
fn streams_carry_one_answer_after_the_other_whole() -> Result<()> {
    const LEN: usize = 3000;
    let mut upstream = Upstream::new(Rule::answer(|asked| {
        asked.response(&[Record {
            kind: TXT,
            ttl_secs: 60,
            data: vec![0xa5; LEN],
        }])
    }));
    let server = upstream.serve(SocketAddr::new(SERVER, 0))?;
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    for id in [1, 2] {
        // Longer than the server's accept timeout: an idle connection stays.
        std::thread::sleep(Duration::from_millis(200));
        let query = query(id, "big");
        stream.write_all(&[&[0, query.len() as u8], query.as_slice()].concat())?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer)?;
        assert_eq!((answer[1], answer[2], answer[7]), (id, 0x81, 1));
        assert!(answer.len() > LEN);
    }
    assert!(upstream.asked().iter().all(|asked| asked.is_tcp));
    // Over UDP it exceeds the limit.
    let client = client()?;
    client.send_to(&query(3, "big"), server)?;
    let mut answer = [0; 512];
    client.recv(&mut answer)?;
    assert_eq!((answer[2], answer[7]), (0x83, 0));
    Ok(())
}

#[test]
fn what_is_no_query_ends_neither_the_server_nor_the_record() -> Result<()> {
    let mut upstream = Upstream::new(address(9));
    let server = upstream.serve(SocketAddr::new(SERVER, 0))?;
    let client = client()?;
    client.send_to(b"no query", server)?;
    client.send_to(&query(7, "a"), server)?;
    assert_eq!(receive(&client)?, (7, 9, server));
    assert_eq!(upstream.asked().len(), 1);
    Ok(())
}
