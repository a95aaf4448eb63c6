//! The workers' kernel sockets, while addresses of the router come and go: a provider delegates another prefix, an interface is
//! created anew or comes late.
//!
//! Each address has a place, the same in every worker. A socket whose address is gone is closed: the address may belong to
//! another device by now, which is not served, and the kernel delivers packets to it from any device. Its place is kept until
//! another address needs it. Failures are tried again, with growing pauses.
//!
//! An address is ours once its TCP socket is: TCP sockets are exclusive, while UDP sockets are shared (SO_REUSEPORT), so
//! without this rule we would take half of the queries of another process that serves already.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use log::{debug, info, warn};
use xdnsd_core::limits::WORKERS;
use xdnsd_core::time::Instant;

use super::retry::Retry;
use crate::config::{Config, Endpoint, Plan};
use crate::os::reuseport;
use crate::worker::engines::{ENGINES, TCP};
use crate::worker::{self, Inbox, LISTENERS_MAX, Listeners, WorkerCommand};

/// First pause before an address is tried again, in milliseconds.
const AGAIN_MS: u64 = 1_000;
/// Longest pause, in milliseconds.
const AGAIN_MAX_MS: u64 = 30_000;

/// Addresses of the sockets, by place.
#[derive(Debug)]
pub struct Listening {
    places: Vec<ListenAddress>,
    places_max: usize,
    /// Addresses without a place, which were logged.
    left_out: Vec<SocketAddr>,
}

#[derive(Debug)]
struct ListenAddress {
    address: SocketAddr,
    /// True if the machine has the address now.
    is_wanted: bool,
    /// TCP socket, until the thread that serves TCP takes it.
    tcp: Option<TcpListener>,
    /// Engines that have its socket.
    open: [bool; ENGINES],
    /// Engines with a socket that is to be closed: this address's from before it went, or that of an earlier address in the
    /// place.
    left: [bool; ENGINES],
    /// True once all engines had their sockets and that was logged.
    is_said: bool,
    /// True if a worker could not add its socket to epoll: opening another is no success yet.
    is_doubtful: bool,
    retry: Retry,
    /// Last problem that was logged.
    trouble: String,
}

impl ListenAddress {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            is_wanted: true,
            tcp: None,
            open: [false; ENGINES],
            left: [false; ENGINES],
            is_said: false,
            is_doubtful: false,
            retry: Retry::default(),
            trouble: String::new(),
        }
    }

    /// Opens the socket of one engine: the `udp`th of the workers, or the one for TCP.
    fn open(&mut self, place: u16, engine: usize, out: &mut Listeners) -> io::Result<()> {
        if self.open[engine] {
            return Ok(());
        }
        if self.tcp.is_none() && !self.open[TCP] {
            self.tcp = Some(worker::open_tcp(self.address)?);
        }
        if engine == TCP {
            out.tcp.extend(self.tcp.take().map(|tcp| (place, tcp)));
        } else {
            let socket = worker::open_udp(self.address)?;
            steer(
                &socket,
                self.open[..WORKERS].iter().filter(|open| **open).count() + 1,
            );
            out.udp.push((place, socket));
        }
        self.open[engine] = true;
        Ok(())
    }

    /// The address is no longer wanted: each engine with its socket is to close it.
    fn leave(&mut self) {
        self.is_wanted = false;
        self.tcp = None;
        self.is_said = false;
        self.is_doubtful = false;
        self.retry.succeed();
        for (left, open) in self.left.iter_mut().zip(&mut self.open) {
            *left |= std::mem::take(open);
        }
    }

    /// Logs a problem once, and schedules the next attempt.
    fn fail(&mut self, now: Instant, error: &io::Error) {
        self.retry.fail(now, AGAIN_MS, AGAIN_MAX_MS);
        let trouble = error.to_string();
        if self.trouble != trouble {
            warn!("{trouble}; tried again until it can be had");
            self.trouble = trouble;
        }
    }
}

impl Listening {
    /// Nothing is open yet. There are places for all that `config` may come to listen on.
    #[must_use]
    pub fn new(config: &Config, plan: &Plan) -> Self {
        let named = config
            .interfaces
            .iter()
            .map(|interface| interface.listen.len());
        let places_max = named.sum::<usize>().max(plan.endpoints.len());
        let mut listening = Self {
            places: Vec::new(),
            places_max: places_max.max(LISTENERS_MAX),
            left_out: Vec::new(),
        };
        listening.want(&plan.endpoints);
        listening
    }

    /// Number of places.
    #[must_use]
    pub fn places_max(&self) -> usize {
        self.places_max
    }

    /// Opens the sockets that `engine` lacks, for all addresses that the machine has. Failures are logged and tried again.
    pub fn open(&mut self, engine: usize, now: Instant) -> Listeners {
        let mut listeners = Listeners::default();
        for (number, place) in self.places.iter_mut().enumerate() {
            if std::mem::take(&mut place.left[engine]) {
                listeners.left.push(number as u16);
            }
            if !place.is_wanted || !place.retry.may_try(now) {
                continue;
            }
            if let Err(error) = place.open(number as u16, engine, &mut listeners) {
                place.fail(now, &error);
            }
        }
        listeners
    }

    /// Sets the wanted endpoints.
    pub fn want(&mut self, endpoints: &[Endpoint]) {
        let wanted: Vec<_> = endpoints.iter().map(Endpoint::socket_addr).collect();
        self.take_places(&wanted);
    }

    /// Reason why nothing is served yet.
    #[must_use]
    pub fn why_silent(&self) -> &'static str {
        if self.places.iter().any(|place| place.is_wanted) {
            "no address of the config can be listened on, for the reasons above; tried again"
        } else {
            "the interfaces and addresses of the config are missing; waiting for them"
        }
    }

    /// True if [`Self::poll`] has something to do.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let is_due = |place: &ListenAddress| {
            let is_left = place.left.contains(&true);
            (is_left || place.is_wanted && !place.is_said) && place.retry.may_try(now)
        };
        self.places.iter().any(is_due)
    }

    /// Opens the missing sockets of `engines`, which run, and hands them over. `is_first`: the log has not yet said where it
    /// serves.
    pub fn poll(&mut self, engines: &[usize], now: Instant, inboxes: &[Inbox], is_first: bool) {
        for &engine in engines {
            let listeners = self.open(engine, now);
            if listeners.is_empty() {
                continue;
            }
            let (places, left) = (listeners.places(), listeners.left.clone());
            if inboxes[engine]
                .send(WorkerCommand::Listen(Box::new(listeners)))
                .is_err()
            {
                let error = io::Error::other(format!("worker {engine} is not responding"));
                for place in left {
                    let place = &mut self.places[usize::from(place)];
                    place.left[engine] = true;
                    place.fail(now, &error);
                }
                for place in places {
                    let place = &mut self.places[usize::from(place)];
                    place.open[engine] = false;
                    place.fail(now, &error);
                }
            }
        }
        for place in self
            .places
            .iter_mut()
            .filter(|place| place.is_wanted && !place.is_said)
        {
            if engines.iter().all(|&engine| place.open[engine]) {
                place.is_said = true;
                if place.is_doubtful {
                    continue;
                }
                place.retry.succeed();
                place.trouble.clear();
                if !is_first {
                    info!("listening on {}, too", place.address);
                }
            }
        }
    }

    /// Closes the sockets that workers could not add to epoll, and opens others later.
    pub fn take_back(&mut self, engines: &[usize], now: Instant, inboxes: &[Inbox]) {
        for &engine in engines {
            let Some((listeners, error)) = inboxes[engine].take_returned() else {
                continue;
            };
            let error = io::Error::new(error.kind(), format!("worker {engine}: {error}"));
            for number in listeners.places() {
                let place = &mut self.places[usize::from(number)];
                place.open[engine] = false;
                place.is_said = false;
                place.is_doubtful = true;
                // Once for all engines.
                if place.retry.may_try(now) {
                    place.fail(now, &error);
                }
            }
        }
    }

    /// `engine` is gone, with its sockets.
    pub fn forget(&mut self, engine: usize) {
        for place in &mut self.places {
            place.open[engine] = false;
            place.left[engine] = false;
        }
    }

    /// A new worker needs its sockets.
    pub fn expect_more(&mut self) {
        for place in &mut self.places {
            place.is_said = false;
        }
    }

    /// Number of addresses for which every engine has its socket.
    #[must_use]
    pub fn serving(&self) -> usize {
        let places = self.places.iter();
        places
            .filter(|place| place.is_wanted && place.is_said)
            .count()
    }

    /// Gives a place to each of `wanted` that has none: that of an address no longer wanted, or a new one.
    fn take_places(&mut self, wanted: &[SocketAddr]) {
        for place in &mut self.places {
            let was_wanted = place.is_wanted;
            place.is_wanted = wanted.contains(&place.address);
            if was_wanted && !place.is_wanted {
                place.leave();
            }
        }
        let mut left_out = Vec::new();
        for &address in wanted {
            if self.places.iter().any(|place| place.address == address) {
                continue;
            }
            if let Some(left) = self.places.iter_mut().find(|place| !place.is_wanted) {
                let of_another = left.left;
                *left = ListenAddress::new(address);
                left.left = of_another;
            } else if self.places.len() < self.places_max {
                self.places.push(ListenAddress::new(address));
            } else {
                left_out.push(address);
            }
        }
        for address in left_out
            .iter()
            .filter(|address| !self.left_out.contains(address))
        {
            warn!(
                "{address}: no socket, capacity: {} addresses",
                self.places_max
            );
        }
        self.left_out = left_out;
    }
}

/// Makes queries for one name go to one of the workers. A kernel that cannot choose by name chooses by client.
fn steer(socket: &UdpSocket, workers: usize) {
    if workers > 1
        && let Err(error) = reuseport::by_name(socket, workers)
    {
        debug!("queries are not spread by name: {error}");
    }
}

#[cfg(test)]
mod tests;
