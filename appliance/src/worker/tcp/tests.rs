//! Which connection gives way when all slots are taken, and the pause in accepting.

use super::*;
use crate::worker::events::watch;
use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};
use nix::sys::socket::SockaddrStorage;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

struct Server {
    tcp: Tcp,
    epoll: Epoll,
    address: SocketAddr,
    now: Instant,
}

impl Server {
    fn new() -> Self {
        let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
        let listener = open_tcp((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut tcp = Tcp::new(1, 60_000);
        watch(&epoll, listener.as_fd(), EventSource::TcpListener(0)).expect("watched");
        tcp.listen(0, listener);
        Self {
            tcp,
            epoll,
            address,
            now: Instant::from_millis(1_000_000),
        }
    }

    /// Connects from 127.0.0.`client`; returns its slot unless it was refused.
    fn connect(&mut self, client: u8) -> (TcpStream, Option<u16>) {
        let family = AddressFamily::Inet;
        let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let fd = fd.expect("a socket");
        let local = SocketAddr::from(([127, 0, 0, client], 0));
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(local)).expect("bound");
        let to = SockaddrStorage::from(self.address);
        socket::connect(fd.as_raw_fd(), &to).expect("it listens");
        let stream = TcpStream::from(fd);
        let arrivals = Arrivals::new();
        let accepted = self
            .tcp
            .accept(0, self.now, &Policy::OPEN, &arrivals, &self.epoll);
        assert_eq!(accepted, Accepted::One);
        let local = stream.local_addr().expect("its address");
        let slot = self.slot_of(local);
        (stream, slot)
    }

    fn slot_of(&self, client: SocketAddr) -> Option<u16> {
        let mut connections = self.tcp.connections();
        let found = connections.find(|(_, connection)| connection.peer == client);
        found.map(|(index, _)| index as u16)
    }

    /// Connects and asks a query that takes long.
    fn connect_and_wait(&mut self, client: u8) -> TcpStream {
        let (stream, slot) = self.connect(client);
        self.asks(slot.expect("accepted"));
        stream
    }

    /// Has the connection in this slot ask.
    fn asks(&mut self, slot: u16) {
        let (id, _) = self.tcp.client(slot).expect("open");
        let now = self.now;
        let connection = self.tcp.connection(id).expect("open");
        connection.is_new = false;
        connection.since = now;
        self.tcp.expect(id);
    }

    fn later(&mut self, millis: u64) {
        self.now = self.now + millis;
    }

    fn is_open(&self, stream: &TcpStream) -> bool {
        self.slot_of(stream.local_addr().expect("its address"))
            .is_some()
    }

    fn held(&self, client: u8) -> usize {
        self.tcp.held(IpAddr::from([127, 0, 0, client]))
    }
}

#[test]
fn a_client_with_all_connections_waiting_keeps_nobody_out() {
    let mut server = Server::new();
    let mut greedy: Vec<TcpStream> = (0..TCP_CLIENTS)
        .map(|_| server.connect_and_wait(9))
        .collect();
    let mut others = Vec::new();
    // Fresh connections that have not asked yet; the greedy client reconnects for each one that it loses.
    for client in 10..10 + 2 * SHARE as u8 {
        let (stream, slot) = server.connect(client);
        assert!(slot.is_some(), "{client} is refused");
        others.push(stream);
        server.later(100);
        let (again, slot) = server.connect(9);
        assert_eq!(slot, None, "all that it has waits, and others have less");
        greedy.push(again);
    }
    // However long they take to ask.
    server.later(30_000);
    server.connect(9);
    for stream in &others {
        assert!(server.is_open(stream));
    }
}

#[test]
fn two_clients_with_half_of_the_connections_each_keep_nobody_out() {
    let mut server = Server::new();
    let _greedy: Vec<TcpStream> = (0..TCP_CLIENTS)
        .map(|number| server.connect_and_wait(8 + (number % 2) as u8))
        .collect();
    let others: Vec<TcpStream> = (20..24)
        .map(|client| server.connect_and_wait(client))
        .collect();
    assert_eq!(server.held(8), server.held(9), "both give way in turn");
    // Nor do they replace idle ones.
    for stream in &others {
        let slot = server.slot_of(stream.local_addr().expect("its address"));
        let (id, _) = server.tcp.client(slot.expect("open")).expect("open");
        server.tcp.forget(id);
    }
    server.later(30_000);
    server.connect(8);
    server.connect(9);
    assert!(others.iter().all(|stream| server.is_open(stream)));
}

#[test]
fn of_the_client_with_the_most_what_is_idle_goes_first() {
    let mut server = Server::new();
    let mut greedy: Vec<TcpStream> = (1..TCP_CLIENTS)
        .map(|_| server.connect_and_wait(9))
        .collect();
    let (idle, _) = server.connect(9);
    server.later(GRACE_MS);
    let (_other, slot) = server.connect(10);
    assert!(slot.is_some() && !server.is_open(&idle));
    let oldest = greedy.remove(0);
    server.later(1);
    let (_other, slot) = server.connect(11);
    assert!(slot.is_some() && !server.is_open(&oldest));
    assert!(greedy.iter().all(|stream| server.is_open(stream)));
}

#[test]
fn a_fresh_connection_does_not_count_as_idle_for_a_second() {
    let mut server = Server::new();
    let mut streams = Vec::new();
    for number in 0..TCP_CLIENTS {
        let client = 10 + (number / SHARE) as u8;
        if number % SHARE == 0 {
            streams.push(server.connect(client).0);
        } else {
            streams.push(server.connect_and_wait(client));
        }
    }
    server.later(GRACE_MS - 1);
    let (_, slot) = server.connect(10 + (TCP_CLIENTS / SHARE) as u8);
    assert!(slot.is_some(), "one that has more than it gives way");
    let fresh = streams.iter().step_by(SHARE);
    let open = |server: &Server| {
        fresh
            .clone()
            .filter(|stream| server.is_open(stream))
            .count()
    };
    assert_eq!(open(&server), TCP_CLIENTS / SHARE, "not a fresh one");
    server.later(1);
    server.connect(250);
    assert_eq!(
        open(&server) + 1,
        TCP_CLIENTS / SHARE,
        "the second is over: what is idle goes first"
    );
}

#[test]
fn a_query_that_was_not_read_yet_keeps_its_connection() {
    let mut server = Server::new();
    let mut streams: Vec<TcpStream> = (0..TCP_CLIENTS)
        .map(|number| server.connect(10 + (number / SHARE) as u8).0)
        .collect();
    // The longest idle one has just asked.
    streams[0].write_all(&[0]).expect("connected");
    let first = server.slot_of(streams[0].local_addr().expect("its address"));
    let has_asked = |server: &Server| {
        let slot = &server.tcp.slots[usize::from(first.expect("open"))];
        slot.connection.as_ref().is_some_and(Connection::has_unread)
    };
    assert!(has_asked(&server), "loopback delivers before write returns");
    server.later(GRACE_MS);
    server.connect(250);
    assert!(server.is_open(&streams[0]));
    assert!(!server.is_open(&streams[1]));
}

/// One host with a connection from each of many addresses.
#[test]
fn in_a_crowd_whoever_comes_is_served_and_who_was_for_longest_goes() {
    let mut server = Server::new();
    let mut crowd: Vec<TcpStream> = (0..TCP_CLIENTS)
        .map(|number| {
            server.later(1);
            server.connect_and_wait(10 + number as u8)
        })
        .collect();
    server.later(1);
    let (other, slot) = server.connect(200);
    server.asks(slot.expect("served"));
    assert!(!server.is_open(&crowd.remove(0)));
    // Clients that were refused reconnect at once.
    for client in 100..100 + TCP_CLIENTS as u8 - 1 {
        server.later(1);
        crowd.push(server.connect_and_wait(client));
    }
    assert!(server.is_open(&other), "as long as there are slots");
    server.later(1);
    let (_, slot) = server.connect(200);
    assert_eq!(
        slot, None,
        "a second one would be more than the others have"
    );
    assert!(server.is_open(&other));
    server.later(1);
    server.connect_and_wait(250);
    assert!(!server.is_open(&other), "its turn has come");
}

#[test]
fn in_a_crowd_who_does_not_ask_goes_before_those_that_wait() {
    let mut server = Server::new();
    let waits = server.connect_and_wait(10);
    let mut silent: Vec<TcpStream> = (1..TCP_CLIENTS)
        .map(|number| server.connect(10 + number as u8).0)
        .collect();
    silent[0].write_all(&[0]).expect("connected");
    server.later(ASK_MS);
    let (has_asked, silent) = silent.split_first().expect("there are some");
    for (gone, client) in silent[..3].iter().zip(200..) {
        server.connect_and_wait(client);
        assert!(!server.is_open(gone), "{client}");
    }
    assert!(server.is_open(&waits));
    assert!(server.is_open(has_asked), "what it asks was not read yet");
}

#[test]
fn a_listener_that_has_nothing_to_accept_with_is_left_alone_for_a_moment() {
    let mut server = Server::new();
    let _waits = TcpStream::connect(server.address).expect("it listens");
    let wakes = |server: &Server| {
        let mut events = [EpollEvent::empty(); 4];
        server
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .expect("epoll")
    };
    assert_eq!(wakes(&server), 1);
    let pause = |server: &mut Server| server.tcp.pause(Errno::EMFILE, server.now, &server.epoll);
    assert_eq!(pause(&mut server), Accepted::Paused(Some(Errno::EMFILE)));
    assert_eq!(wakes(&server), 0, "it would spin");
    let again = server.tcp.expire(server.now, &server.epoll);
    assert_eq!(again, Some(server.now + PAUSE_MS), "the worker comes back");
    assert_eq!(wakes(&server), 0);
    server.later(PAUSE_MS);
    server.tcp.expire(server.now, &server.epoll);
    assert_eq!(wakes(&server), 1);
    assert_eq!(pause(&mut server), Accepted::Paused(None), "said once");
    server.later(SAME_TROUBLE_MS);
    assert_eq!(pause(&mut server), Accepted::Paused(Some(Errno::EMFILE)));
}

#[test]
fn what_accepting_may_fail_with() {
    for errno in [
        Errno::ECONNABORTED,
        Errno::EPROTO,
        Errno::ENETDOWN,
        Errno::EHOSTUNREACH,
    ] {
        assert!(is_of_one_connection(errno), "{errno}");
    }
    for errno in [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOMEM,
        Errno::ENOBUFS,
        Errno::EPERM,
        Errno::EINVAL,
    ] {
        assert!(!is_of_one_connection(errno), "{errno}");
    }
}
