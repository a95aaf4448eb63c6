//! Load of the soak: continuous questions over both families and both transports, for known, new, local and listed names.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xdnsd_lab::lab::{LAN_V4, LAN_V6};
use xdnsd_lab::scripted::{A, TXT};

use super::oracle::{self, AAAA, Clock, Expected, Source, Verdict};

/// Number of names that are asked for repeatedly.
const KNOWN: u64 = 200;
/// Number of names on the permanent list, and on the one that is swapped.
pub const LISTED: u64 = 50;
/// Pause between two questions of one asker.
const PAUSE: Duration = Duration::from_millis(8);
/// Timeouts of a client for known and for new names.
const PATIENCE_KNOWN: Duration = Duration::from_secs(1);
const PATIENCE_NEW: Duration = Duration::from_secs(5);
/// Address of the local record in the config.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 7);
/// Longest message, in bytes.
const MESSAGE_MAX: usize = 65_535;

/// Kind of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Usually answered without a server: known, local and listed names.
    Known,
    /// Names not asked for before, and long answers.
    New,
}

/// Outcome of one question, with its time.
#[derive(Clone, Debug)]
pub struct Event {
    /// When the outcome was known.
    pub known: Instant,
    /// Kind of the question.
    pub kind: Kind,
    /// `None` without an answer.
    pub verdict: Option<Verdict>,
}

/// Events that askers have noted, not yet evaluated.
pub type Events = Mutex<Vec<Event>>;

/// A client that asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Kind of its questions.
    pub kind: Kind,
    /// True for IPv6.
    pub is_v6: bool,
    /// True for TCP.
    pub is_tcp: bool,
    /// Makes its questions differ from those of other askers.
    pub seed: u64,
}

/// One asker for each kind, family and transport.
#[must_use]
pub fn askers(seed: u64) -> Vec<Asker> {
    let mut askers = Vec::new();
    for kind in [Kind::Known, Kind::New] {
        for (is_v6, is_tcp) in [(false, false), (true, false), (false, true), (true, true)] {
            let seed = seed.wrapping_mul(64).wrapping_add(askers.len() as u64);
            askers.push(Asker {
                kind,
                is_v6,
                is_tcp,
                seed,
            });
        }
    }
    askers
}

impl Asker {
    /// Asks one question after the other until `is_over`, in the network namespace of the calling thread.
    pub fn ask_on(self, clock: Clock, events: &Events, is_over: &AtomicBool) {
        let mut random = Random(self.seed);
        let mut number = 0;
        while !is_over.load(Ordering::Relaxed) {
            number += 1;
            let expected = self.choose(&mut random, number);
            let id = random.next() as u16;
            let verdict = self.ask(&expected, id, clock);
            let event = Event {
                known: Instant::now(),
                kind: self.kind,
                verdict,
            };
            events.lock().expect("nobody panics with it").push(event);
            thread::sleep(PAUSE);
        }
    }

    fn choose(self, random: &mut Random, number: u64) -> Expected {
        let kind = if random.below(3) == 0 { AAAA } else { A };
        let seed = self.seed;
        let (text, kind, source) = match (self.kind, random.below(8)) {
            (Kind::Known, 0) => ("host.soak.lan".into(), A, Source::Local(LOCAL)),
            (Kind::Known, 1) => {
                let text = format!("l{}.listed.test", random.below(LISTED));
                (text, kind, Source::Blocked)
            }
            (Kind::Known, 2) => {
                let text = format!("l{}.sometimes.test", random.below(LISTED));
                (text, kind, Source::MaybeBlocked)
            }
            (Kind::Known, _) => {
                // Some names are asked for far more often than others.
                let place = random.below(KNOWN).min(random.below(KNOWN));
                (format!("known{place}.test"), kind, Source::Upstream)
            }
            (Kind::New, 0) if self.is_tcp => {
                (format!("long{number}-{seed}.test"), TXT, Source::Upstream)
            }
            (Kind::New, _) => (format!("new{number}-{seed}.test"), kind, Source::Upstream),
        };
        Expected {
            name: oracle::wire(&text),
            kind,
            source,
        }
    }

    fn ask(self, expected: &Expected, id: u16, clock: Clock) -> Option<Verdict> {
        let query = oracle::query(expected, id);
        let patience = match self.kind {
            Kind::Known => PATIENCE_KNOWN,
            Kind::New => PATIENCE_NEW,
        };
        let server: IpAddr = if self.is_v6 {
            LAN_V6.into()
        } else {
            LAN_V4.into()
        };
        let server = SocketAddr::new(server, 53);
        let reply = if self.is_tcp {
            over_tcp(server, &query, patience)
        } else {
            over_udp(server, &query, patience)
        };
        // No route, no port, no listener: no answer.
        let reply = reply.ok()?;
        if reply.len() < 12 || reply[..2] != query[..2] || reply[2] & 0x80 == 0 {
            return Some(Verdict::Wrong(format!("no reply: {reply:02x?}")));
        }
        Some(oracle::judge(expected, &query, &reply, clock))
    }
}

fn over_udp(server: SocketAddr, query: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv6() {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    // A different port for each question, so that a late answer to another one does not arrive here.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(query)?;
    let mut reply = vec![0; MESSAGE_MAX];
    let len = socket.recv(&mut reply)?;
    reply.truncate(len);
    Ok(reply)
}

fn over_tcp(server: SocketAddr, query: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let until = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    let prefix = (query.len() as u16).to_be_bytes();
    stream.write_all(&[&prefix, query].concat())?;
    let mut len = [0; 2];
    read_until(&mut stream, &mut len, until)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
    read_until(&mut stream, &mut reply, until)?;
    Ok(reply)
}

fn read_until(stream: &mut TcpStream, mut room: &mut [u8], until: Instant) -> io::Result<()> {
    while !room.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(room)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => room = &mut room[count..],
        }
    }
    Ok(())
}

/// Connections that send half a query and then nothing, or never read. Closed when dropped.
#[derive(Debug)]
pub struct SlowClients {
    _streams: Vec<TcpStream>,
}

impl SlowClients {
    /// Opens `count` connections, in the network namespace of the calling thread.
    pub fn open(count: usize) -> Result<Self> {
        let server = SocketAddr::new(LAN_V4.into(), 53);
        let open = |number: usize| -> io::Result<TcpStream> {
            let mut stream = TcpStream::connect_timeout(&server, PATIENCE_KNOWN)?;
            let query = oracle::query(
                &Expected {
                    name: oracle::wire("known1.test"),
                    kind: A,
                    source: Source::Upstream,
                },
                7,
            );
            let whole = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
            match number % 3 {
                0 => stream.write_all(&whole[..9])?,
                1 => (0..100).try_for_each(|_| stream.write_all(&whole))?,
                _ => {}
            }
            Ok(stream)
        };
        // When its table is full, the appliance closes one connection for the next.
        let opened: Vec<TcpStream> = (0..count).filter_map(|number| open(number).ok()).collect();
        (!opened.is_empty())
            .then_some(Self { _streams: opened })
            .context("no slow client could connect")
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
