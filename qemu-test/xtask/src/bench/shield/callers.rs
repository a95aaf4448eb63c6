//! Legitimate clients during a flood: queries over UDP and connections over TCP, each at a fixed rate.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use std::os::fd::AsRawFd;

use crate::bench::query;

/// A later answer counts as not served: a client would have asked again, and a SYN would have been sent again.
const LIMIT: Duration = Duration::from_millis(950);
/// Number of names.
const NAMES: usize = 16;
/// Number of UDP sockets, and so of source ports.
const PORTS: usize = 8;
/// Number of message IDs: most queries in one measurement.
const IDS: usize = 1 << 16;
/// Bytes of the length prefix over TCP (RFC 1035 section 4.2.2).
const PREFIX_LEN: usize = 2;

/// Rates per second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Queries over UDP.
    pub udp: u32,
    /// Connections over TCP, with one query each.
    pub tcp: u32,
}

/// Numbers of queries asked and served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Asked.
    pub asked: u64,
    /// Answered in time.
    pub served: u64,
}

impl Share {
    /// Share served, in percent.
    pub fn percent(self) -> f64 {
        100.0 * self.served as f64 / self.asked as f64
    }
}

impl std::ops::AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.served += other.served;
    }
}

/// Result of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Over UDP.
    pub udp: Share,
    /// Over TCP.
    pub tcp: Share,
    /// Answers over UDP that came too late.
    pub late: u64,
}

/// Asks `server` from the network namespace of the calling thread for `length`, and waits for the last answers.
pub fn call(server: Ipv4Addr, rates: Rates, length: Duration) -> Result<Served> {
    let server = SocketAddrV4::new(server, query::DNS_PORT);
    let mut datagrams = Datagrams::open(server)?;
    let mut connections = Connections::default();
    let mut dues = [Due::new(rates.udp), Due::new(rates.tcp)];
    let started = Instant::now();
    loop {
        let now = Instant::now();
        if now < started + length {
            for _ in 0..dues[0].count(now - started) {
                datagrams.ask(now)?;
            }
            for _ in 0..dues[1].count(now - started) {
                connections.open(server, now)?;
            }
        } else if now > started + length + LIMIT {
            break;
        }
        wait(&datagrams, &connections)?;
        datagrams.take();
        connections.go_on();
    }
    Ok(Served {
        udp: datagrams.share,
        tcp: connections.share,
        late: datagrams.late,
    })
}

/// Schedule at a rate per second.
pub struct Due {
    rate: u32,
    done: u64,
}

impl Due {
    /// Nothing was done yet.
    pub fn new(rate: u32) -> Self {
        Self { rate, done: 0 }
    }

    /// Number to begin now, after `passed`.
    pub fn count(&mut self, passed: Duration) -> u64 {
        let due = (passed.as_secs_f64() * f64::from(self.rate)) as u64;
        let count = due - self.done;
        self.done = due;
        count
    }
}

/// Waits for an event, but no longer than to the next query.
fn wait(datagrams: &Datagrams, connections: &Connections) -> Result<()> {
    const TICK_MS: u8 = 1;
    let mut fds = Vec::new();
    for socket in &datagrams.sockets {
        fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    }
    for connection in &connections.open {
        let wanted = match connection.is_asked {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLOUT,
        };
        fds.push(PollFd::new(connection.stream.as_fd(), wanted));
    }
    match poll(&mut fds, PollTimeout::from(TICK_MS)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).context("poll the callers' sockets"),
    }
}

struct Datagrams {
    sockets: Vec<UdpSocket>,
    /// When the query of each ID was sent, until it is answered.
    asked: Vec<Option<Instant>>,
    share: Share,
    late: u64,
}

impl Datagrams {
    fn open(server: SocketAddrV4) -> Result<Self> {
        let open = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let sockets: std::io::Result<Vec<_>> = (0..PORTS).map(|_| open()).collect();
        Ok(Self {
            sockets: sockets.context("open the callers' sockets")?,
            asked: vec![None; IDS],
            share: Share::default(),
            late: 0,
        })
    }

    fn ask(&mut self, now: Instant) -> Result<()> {
        let number = self.share.asked as usize;
        ensure!(number < IDS, "--udp and --seconds: {IDS} queries at most");
        let message = query::message(number % NAMES, number as u16);
        // A failed send counts as not served.
        drop(self.sockets[number % PORTS].send(&message));
        self.asked[number] = Some(now);
        self.share.asked += 1;
        Ok(())
    }

    fn take(&mut self) {
        let mut reply = [0; 512];
        for socket in &self.sockets {
            while let Ok(len) = socket.recv(&mut reply) {
                let Some(id) = answered(&reply[..len]) else {
                    continue;
                };
                let Some(asked) = self.asked[usize::from(id)].take() else {
                    continue;
                };
                let is_served = asked.elapsed() <= LIMIT;
                self.share.served += u64::from(is_served);
                self.late += u64::from(!is_served);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    began: Instant,
    is_asked: bool,
    id: u16,
    reply: Vec<u8>,
}

#[derive(Default)]
struct Connections {
    open: Vec<Connection>,
    share: Share,
}

impl Connections {
    fn open(&mut self, server: SocketAddrV4, now: Instant) -> Result<()> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None);
        let fd = fd.context("open a caller's socket")?;
        let id = self.share.asked as u16;
        self.share.asked += 1;
        match connect(fd.as_raw_fd(), &SockaddrIn::from(server)) {
            Ok(()) | Err(Errno::EINPROGRESS) => self.open.push(Connection {
                stream: TcpStream::from(fd),
                began: now,
                is_asked: false,
                id,
                reply: Vec::new(),
            }),
            // Not served.
            Err(_) => {}
        }
        Ok(())
    }

    fn go_on(&mut self) {
        let Self { open, share } = self;
        open.retain_mut(|connection| match connection.go_on() {
            _ if connection.began.elapsed() > LIMIT => false,
            Progress::Waits => true,
            Progress::Answered => {
                share.served += 1;
                false
            }
            Progress::Failed => false,
        });
    }
}

enum Progress {
    Waits,
    Answered,
    Failed,
}

impl Connection {
    fn go_on(&mut self) -> Progress {
        if !self.is_asked {
            let message = query::message(usize::from(self.id) % NAMES, self.id);
            let prefix = (message.len() as u16).to_be_bytes();
            match self.stream.write(&[&prefix[..], &message].concat()) {
                Ok(_) => self.is_asked = true,
                Err(error) if is_pending(&error) => return Progress::Waits,
                Err(_) => return Progress::Failed,
            }
        }
        let mut buffer = [0; 512];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Progress::Failed,
            Ok(len) => self.reply.extend(&buffer[..len]),
            Err(error) if is_pending(&error) => return Progress::Waits,
            Err(_) => return Progress::Failed,
        }
        let message = self.reply.get(PREFIX_LEN..).unwrap_or_default();
        match answered(message) {
            Some(id) if id == self.id => Progress::Answered,
            Some(_) => Progress::Failed,
            None => Progress::Waits,
        }
    }
}

/// True for a socket that is not connected yet, or has no data yet.
fn is_pending(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

/// ID of a response with one answer.
pub fn answered(message: &[u8]) -> Option<u16> {
    let header = message.first_chunk::<12>()?;
    let is_answer = header[2] & 0x80 != 0 && header[3] & 0x0f == 0 && header[6..8] == [0, 1];
    is_answer.then(|| u16::from_be_bytes([header[0], header[1]]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Due, Share, answered};

    #[test]
    fn as_many_are_due_as_the_rate_says() {
        let mut due = Due::new(200);
        let counts = [4, 5, 9, 9, 1000].map(|millis| due.count(Duration::from_millis(millis)));
        assert_eq!(counts, [0, 1, 0, 0, 199]);
    }

    #[test]
    fn only_an_answer_serves() {
        let mut message = [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        assert_eq!(answered(&message), Some(0x1234));
        assert_eq!(answered(&message[..11]), None);
        for (at, byte) in [(2, 0x01), (3, 0x85), (7, 0)] {
            let whole = std::mem::replace(&mut message[at], byte);
            assert_eq!(answered(&message), None, "byte {at}");
            message[at] = whole;
        }
    }

    #[test]
    fn shares_add_up() {
        let mut sum = Share::default();
        for served in [9, 10] {
            sum += Share { asked: 10, served };
        }
        assert_eq!(sum.percent(), 95.0);
    }
}
