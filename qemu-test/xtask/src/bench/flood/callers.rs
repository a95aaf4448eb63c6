//! Clients that are served or not: each known name several times a second, and new names; and one that floods by itself.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::bench::query::DNS_PORT;
pub use crate::bench::shield::callers::Share;
use crate::bench::shield::callers::{Due, answered};
use xdnsd_lab::query;

/// Known names, each asked for [`TIMES`] times a second.
const KNOWN: u64 = 200;
const TIMES: u32 = 5;
/// New names a second.
const NEW: u32 = 50;
/// A later answer counts as not served: a stub asks again, or gives up.
const LIMIT: Duration = Duration::from_millis(4_500);
/// Number of message IDs of a client.
const IDS: usize = 1 << 16;

/// What clients got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Queries for known names.
    pub known: Share,
    /// Queries for new names.
    pub new: Share,
    /// Questions to the upstream for known names meanwhile.
    pub asked: u64,
}

impl std::ops::AddAssign for Served {
    fn add_assign(&mut self, other: Self) {
        self.known += other.known;
        self.new += other.new;
        self.asked += other.asked;
    }
}

/// A socket of one client, and what it waits for.
struct Caller {
    socket: UdpSocket,
    /// When the query of each ID was sent, until it is answered.
    asked: Vec<Option<Instant>>,
    share: Share,
}

impl Caller {
    fn open(from: Ipv4Addr, server: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind((from, 0)).context("open a client's socket")?;
        socket.connect(SocketAddrV4::new(server, DNS_PORT))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            asked: vec![None; IDS],
            share: Share::default(),
        })
    }

    fn ask(&mut self, name: &str, now: Instant) {
        let id = self.share.asked as u16;
        // A failed send counts as not served.
        drop(self.socket.send(&query::for_address(id, name)));
        self.asked[usize::from(id)] = Some(now);
        self.share.asked += 1;
    }

    fn take(&mut self) {
        let mut reply = [0; 512];
        while let Ok(len) = self.socket.recv(&mut reply) {
            let asked = answered(&reply[..len]).and_then(|id| self.asked[usize::from(id)].take());
            let is_served = asked.is_some_and(|asked| asked.elapsed() <= LIMIT);
            self.share.served += u64::from(is_served);
        }
    }
}

/// Asks `server` from `addresses` in turn, in the network namespace of the calling thread, for `length`; new names have `mark`
/// in them. Waits for the last answers.
pub fn call(
    addresses: &[Ipv4Addr],
    server: Ipv4Addr,
    length: Duration,
    mark: &str,
) -> Result<Served> {
    let open = || -> Result<Vec<Caller>> {
        let callers = addresses.iter().map(|from| Caller::open(*from, server));
        callers.collect()
    };
    let (mut known, mut new) = (open()?, open()?);
    let mut dues = [Due::new(KNOWN as u32 * TIMES), Due::new(NEW)];
    let (mut number, mut fresh) = (0, 0);
    let started = Instant::now();
    loop {
        let now = Instant::now();
        if now < started + length {
            for _ in 0..dues[0].count(now - started) {
                let at = number as usize % addresses.len();
                known[at].ask(&format!("k{}.known.test", number % KNOWN), now);
                number += 1;
            }
            for _ in 0..dues[1].count(now - started) {
                let at = fresh as usize % addresses.len();
                new[at].ask(&format!("n{fresh}{mark}.new.test"), now);
                fresh += 1;
            }
        } else if now > started + length + LIMIT {
            break;
        }
        wait(known.iter().chain(&new))?;
        known.iter_mut().chain(&mut new).for_each(Caller::take);
    }
    let sum = |callers: &[Caller]| {
        let mut sum = Share::default();
        callers.iter().for_each(|caller| sum += caller.share);
        sum
    };
    Ok(Served {
        known: sum(&known),
        new: sum(&new),
        asked: 0,
    })
}

/// Waits for an answer, but no longer than to the next query.
fn wait<'c>(callers: impl Iterator<Item = &'c Caller>) -> Result<()> {
    let readable = |caller: &'c Caller| PollFd::new(caller.socket.as_fd(), PollFlags::POLLIN);
    let mut fds: Vec<_> = callers.map(readable).collect();
    match poll(&mut fds, PollTimeout::from(1_u8)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).context("poll the clients' sockets"),
    }
}

/// Asks for `rate` random names a second from one address until `is_over`. Returns the number of queries a second.
pub fn flood(from: Ipv4Addr, server: Ipv4Addr, rate: u32, is_over: &AtomicBool) -> Result<f64> {
    let caller = Caller::open(from, server)?;
    let (mut due, mut number) = (Due::new(rate), 0_u64);
    let started = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..due.count(started.elapsed()) {
            number += 1;
            // Spread over all names, as random ones are.
            let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            drop(caller.socket.send(&query::for_address(
                random as u16,
                &format!("{random:x}.flood.test"),
            )));
        }
        let mut reply = [0; 512];
        while caller.socket.recv(&mut reply).is_ok() {}
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(number as f64 / started.elapsed().as_secs_f64())
}
