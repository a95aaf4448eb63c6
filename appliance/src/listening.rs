//! Where the workers listen with the kernel's sockets, while addresses of the router come and go: a provider hands out
//! another prefix, an interface is made anew.
//!
//! Each address has a place, the same in every worker. A socket whose address is gone stays open, for the address may
//! come back, until its place is wanted for another.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use log::{debug, info, warn};

use crate::config::Endpoint;
use crate::worker::{self, LISTENERS_MAX, Letter, Listeners, Mailbox};

/// The addresses of the sockets, by place.
#[derive(Debug)]
pub struct Listening {
    places: Vec<SocketAddr>,
    places_max: usize,
}

impl Listening {
    /// At these endpoints.
    #[must_use]
    pub fn new(endpoints: &[Endpoint]) -> Self {
        let places: Vec<_> = endpoints.iter().map(Endpoint::socket_addr).collect();
        Self {
            places_max: places.len().max(LISTENERS_MAX),
            places,
        }
    }

    /// Opens the sockets of one worker, the `index`th for UDP, or the one that has TCP.
    ///
    /// # Errors
    /// The system call that failed, with the address.
    pub fn open(&self, index: usize, has_tcp: bool) -> io::Result<Listeners> {
        let mut listeners = Listeners::default();
        for (place, &address) in self.places.iter().enumerate() {
            open(&mut listeners, place as u16, address, index, has_tcp)?;
        }
        Ok(listeners)
    }

    /// Opens sockets for the endpoints that have none yet and hands them to the workers behind `mailboxes`, of which the
    /// last has TCP.
    pub fn follow(&mut self, endpoints: &[Endpoint], mailboxes: &[Mailbox]) {
        let wanted: Vec<_> = endpoints.iter().map(Endpoint::socket_addr).collect();
        let new = self.take_places(&wanted);
        if new.is_empty() {
            return;
        }
        for (index, mailbox) in mailboxes.iter().enumerate() {
            let has_tcp = index + 1 == mailboxes.len();
            let mut listeners = Listeners::default();
            for &(place, address) in &new {
                if let Err(error) = open(&mut listeners, place, address, index, has_tcp) {
                    warn!("{error}");
                }
            }
            if mailbox.post(Letter::Listen(Box::new(listeners))).is_err() {
                warn!("worker {index} does not open its mail, it does not listen on new addresses");
            }
        }
        for (_, address) in new {
            info!("listening on {address}, too");
        }
    }

    /// Gives a place to each of `wanted` that has none: one whose address is not wanted any more, or a new one.
    fn take_places(&mut self, wanted: &[SocketAddr]) -> Vec<(u16, SocketAddr)> {
        let mut new = Vec::new();
        for &address in wanted {
            if self.places.contains(&address) {
                continue;
            }
            let left = self.places.iter().position(|old| !wanted.contains(old));
            let place = match left {
                Some(place) => place,
                None if self.places.len() < self.places_max => {
                    self.places.push(address);
                    self.places.len() - 1
                }
                None => {
                    warn!(
                        "{address}: no socket, capacity: {} addresses",
                        self.places_max
                    );
                    continue;
                }
            };
            self.places[place] = address;
            new.push((place as u16, address));
        }
        new
    }
}

fn open(
    listeners: &mut Listeners,
    place: u16,
    address: SocketAddr,
    index: usize,
    has_tcp: bool,
) -> io::Result<()> {
    if has_tcp {
        listeners.tcp.push((place, worker::open_tcp(address)?));
    } else {
        let socket = worker::open_udp(address)?;
        steer(&socket, index + 1);
        listeners.udp.push((place, socket));
    }
    Ok(())
}

/// Queries for one name go to one of the workers. A kernel that cannot choose by name chooses by client.
fn steer(socket: &UdpSocket, workers: usize) {
    if workers > 1
        && let Err(error) = worker::steer_by_name(socket, workers)
    {
        debug!("queries are not spread by name: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        let parse = |text: &&str| text.parse().expect("an address");
        texts.iter().map(parse).collect()
    }

    fn taken(listening: &mut Listening, wanted: &[&str]) -> Vec<String> {
        let new = listening.take_places(&addresses(wanted));
        let shown = new
            .iter()
            .map(|(place, address)| format!("{place} {address}"));
        shown.collect()
    }

    #[test]
    fn a_place_is_kept_for_an_address_that_may_come_back() {
        let (a, b, c) = ("192.0.2.1:53", "[2001:db8:1::1]:53", "[2001:db8:2::1]:53");
        let mut listening = Listening {
            places: addresses(&[a, b]),
            places_max: 3,
        };
        assert!(taken(&mut listening, &[a, b]).is_empty());
        assert!(taken(&mut listening, &[a]).is_empty());
        assert!(
            taken(&mut listening, &[a, b]).is_empty(),
            "its socket is still there"
        );
        assert_eq!(taken(&mut listening, &[a, b, c]), [format!("2 {c}")]);
    }

    #[test]
    fn an_address_that_is_gone_leaves_its_place_to_another() {
        let (a, b, c) = ("192.0.2.1:53", "[2001:db8:1::1]:53", "[2001:db8:2::1]:53");
        let mut listening = Listening {
            places: addresses(&[a, b]),
            places_max: 2,
        };
        assert_eq!(taken(&mut listening, &[a, c]), [format!("1 {c}")]);
        assert_eq!(taken(&mut listening, &[b, c]), [format!("0 {b}")]);
        assert!(
            taken(&mut listening, &[a, b, c]).is_empty(),
            "all places are in use"
        );
        assert_eq!(listening.places, addresses(&[b, c]));
    }

    #[test]
    fn the_same_link_local_address_of_another_device_is_another() {
        let (old, new) = ("[fe80::1%3]:53", "[fe80::1%8]:53");
        let mut listening = Listening {
            places: addresses(&[old]),
            places_max: 2,
        };
        assert_eq!(taken(&mut listening, &[new]), [format!("0 {new}")]);
    }
}
