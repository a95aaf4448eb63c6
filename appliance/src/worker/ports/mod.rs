//! Source ports of questions to upstreams: each question has its own for as long as its answer may arrive.
//!
//! A response is accepted from the right server to the right port with the right ID (RFC 5452). Port and ID are drawn at random
//! for each datagram; a port without a question is closed, so a scan finds nothing to guess at. There are two implementations:
//!
//! ```text
//!  lookup::LookupPorts   no socket per question: a raw socket sends, and an sk_lookup program delivers responses to one
//!                        socket if table.rs has the question in flight. No system call beyond these two.
//!  connected::Connected  a connected socket per question, closed with it: where there is no BPF.
//! ```
//! A worker begins with the second, and takes the first once the daemon has loaded the program.

pub mod connected;
mod datagram;
mod icmp;
pub mod lookup;
mod outbox;
pub mod reserved;
pub mod resting;
pub mod table;

use std::net::SocketAddr;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use xdnsd_core::forward::via::{Destination, NoPort};
use xdnsd_core::time::Instant;

use crate::os::datagrams::DATAGRAMS_MAX;
use crate::os::random::Entropy;
use connected::Connected;
use lookup::LookupPorts;
pub use outbox::Unsent;

/// Lowest port drawn: those below belong to other services (RFC 6335 section 6).
pub const PORT_MIN: u16 = 1024;
/// Most ports drawn before the search gives up.
const DRAWS: usize = 32;
/// Questions whose sending time is kept, by port modulo this.
const TIMES: usize = 32;

/// Bytes of one worker's ports, for the memory budget.
pub const BYTES: usize = size_of::<Ports>() + size_of::<outbox::Outbox>();
/// Bytes that all workers share, for the memory budget.
pub const SHARED_BYTES: usize = table::BYTES + reserved::BYTES + resting::BYTES;

/// What arrived at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortEvent {
    /// A message.
    Message {
        /// The port, or for a connected socket its place.
        port: u16,
        /// Question that the port was opened for.
        question: u16,
        /// Bytes of the message.
        len: usize,
        /// Sender.
        from: SocketAddr,
    },
    /// An ICMP error or a failed send: the question did not arrive.
    Unreachable {
        /// The port, or for a connected socket its place.
        port: u16,
        /// Question that the port was opened for.
        question: u16,
        /// ID of the message, if the quote reaches that far.
        id: Option<u16>,
    },
    /// Nothing, or nothing for this worker.
    Nothing,
}

/// The ports of one worker.
pub struct Ports {
    pub(super) connected: Connected,
    pub(super) lookup: Option<LookupPorts>,
    /// Questions whose send failed, although they had a port.
    unsent: heapless::Vec<Unsent, DATAGRAMS_MAX>,
    /// When the latest questions were sent, in nanoseconds; kept for busy polling.
    asked_ns: [u64; TIMES],
}

impl Ports {
    /// Without open ports.
    #[must_use]
    pub fn new() -> Self {
        Self {
            connected: Connected::new(),
            lookup: None,
            unsent: heapless::Vec::new(),
            asked_ns: [0; TIMES],
        }
    }

    /// Opens a port for `question` to `to`.
    ///
    /// # Errors
    /// No port can be had.
    pub fn open(
        &mut self,
        to: Destination,
        question: u16,
        now: Instant,
        epoll: &Epoll,
        entropy: &mut Entropy,
    ) -> Result<u16, NoPort> {
        match &mut self.lookup {
            Some(lookup) => lookup.open(to, question, now, entropy),
            None => self.connected.open(to, question, epoll, entropy),
        }
    }

    /// Closes a port.
    pub fn close(&mut self, port: u16) {
        match &mut self.lookup {
            Some(lookup) if port >= PORT_MIN => lookup.close(port),
            Some(_) | None => self.connected.close(port),
        }
    }

    /// Closes a port before its answer has arrived, and lets it rest: no other question gets it while the answer may still
    /// arrive.
    pub fn leave(&mut self, port: u16) {
        let number = match &self.lookup {
            Some(_) if port >= PORT_MIN => port,
            Some(_) | None => self.connected.number(port),
        };
        resting::RESTING.put(number);
        self.close(port);
    }

    /// Sends `message` to `to`, at once or with [`Ports::flush`]. False if sending has failed already.
    pub fn send(&mut self, port: u16, to: Destination, message: &[u8]) -> bool {
        match &mut self.lookup {
            Some(lookup) if port >= PORT_MIN => lookup.send(port, to, message, &mut self.unsent),
            Some(_) | None => match self.connected.send(port, message) {
                Ok(()) => true,
                Err(NoPort::Unreachable) => {
                    let question = self.connected.question(port);
                    self.unsent.push(Unsent { port, question }).is_ok()
                }
                Err(NoPort::Full | NoPort::Failed) => false,
            },
        }
    }

    /// Sends the queue. Returns the questions for which that failed.
    pub fn flush(&mut self) -> heapless::Vec<Unsent, DATAGRAMS_MAX> {
        if let Some(lookup) = &mut self.lookup {
            lookup.flush(&mut self.unsent);
        }
        std::mem::take(&mut self.unsent)
    }

    /// Notes when a question was sent.
    pub fn note_asked(&mut self, port: u16, now_ns: u64) {
        self.asked_ns[usize::from(port) % TIMES] = now_ns;
    }

    /// Time from [`Ports::note_asked`] for `port`, or for a later one with the same place in the table.
    #[must_use]
    pub fn asked_ns(&self, port: u16) -> u64 {
        self.asked_ns[usize::from(port) % TIMES]
    }
}

/// Maps an errno to why a port or a stream cannot be had. Routes of the types `unreachable`, `prohibit` and `blackhole` give
/// EHOSTUNREACH, EACCES and EINVAL (ip-route(8)), a missing route ENETUNREACH, a firewall EPERM; without a local address it is
/// EADDRNOTAVAIL.
#[must_use]
pub fn no_port(errno: Errno) -> NoPort {
    const NO_WAY: [Errno; 11] = [
        Errno::ENETUNREACH,
        Errno::EHOSTUNREACH,
        Errno::EHOSTDOWN,
        Errno::ENETDOWN,
        Errno::EACCES,
        Errno::EPERM,
        Errno::EINVAL,
        Errno::ENODEV,
        Errno::ENXIO,
        Errno::EADDRNOTAVAIL,
        Errno::EAFNOSUPPORT,
    ];
    if matches!(errno, Errno::EMFILE | Errno::ENFILE) {
        NoPort::Full
    } else if NO_WAY.contains(&errno) {
        NoPort::Unreachable
    } else {
        NoPort::Failed
    }
}

/// Updates the ports that others have, and those that rest: about once a second.
pub fn look_again(now: Instant) {
    reserved::look_again();
    resting::RESTING.look_again(now);
}

/// Random ports that others do not have. The first half of the draws leaves out resting ports, too.
fn candidates(entropy: &mut Entropy) -> impl Iterator<Item = u16> {
    let drawn = (0..DRAWS).map(|number| (number, draw(entropy)));
    let may_be_had = |(number, port): &(usize, u16)| {
        let may_rest = *number >= DRAWS / 2;
        !reserved::is_taken(*port) && (may_rest || !resting::RESTING.has(*port))
    };
    drawn.filter(may_be_had).map(|(_, port)| port)
}

/// A random port from [`PORT_MIN`] on.
fn draw(entropy: &mut Entropy) -> u16 {
    let span = u32::from(u16::MAX - PORT_MIN) + 1;
    // By multiplication: as even as 32 bits allow, without a division.
    let offset = (u64::from(entropy.next_u32()) * u64::from(span)) >> 32;
    PORT_MIN + offset as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_drawn_from_the_whole_range() {
        let mut entropy = Entropy::open().expect("a generator");
        let mut seen = [false; 1 << 6];
        for _ in 0..20_000 {
            let port = draw(&mut entropy);
            assert!(port >= PORT_MIN);
            seen[usize::from(port >> 10)] = true;
        }
        assert_eq!(seen.iter().filter(|seen| **seen).count(), 63, "{seen:?}");
    }
}
