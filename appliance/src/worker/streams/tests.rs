use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::epoll::{EpollCreateFlags, EpollEvent, EpollTimeout};

use super::*;
use crate::worker::events::EventSource;

const PATIENCE: Duration = Duration::from_secs(20);

/// Outcome of a question.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered(u16, Vec<u8>),
    Lost(u16),
    Unreachable(u16),
    Late,
    Malformed,
}

struct World {
    streams: Streams,
    epoll: Epoll,
    now: Instant,
    server: TcpListener,
    /// Outcomes not yet looked at.
    ends: VecDeque<End>,
}

impl World {
    fn new() -> Self {
        Self {
            streams: Streams::new(),
            epoll: Epoll::new(EpollCreateFlags::empty()).expect("a connection to ourselves"),
            now: Instant::from_millis(1_000_000),
            server: TcpListener::bind("127.0.0.1:0").expect("a free port"),
            ends: VecDeque::new(),
        }
    }

    /// Asks a question with this ID; returns its slot.
    fn ask(&mut self, id: u16) -> u16 {
        self.ask_for(0, id)
    }

    /// Asks for a client of this bucket.
    fn ask_for(&mut self, bucket: u8, id: u16) -> u16 {
        let to = self.server.local_addr().expect("it is bound");
        let slot = self
            .streams
            .open(to.into(), bucket, self.now, &self.epoll)
            .expect("a connection to ourselves");
        assert!(self.streams.ask(slot, &message(id, 40)));
        slot
    }

    /// Accepts the server's next connection. The questions for it have been sent.
    fn accept(&mut self) -> TcpStream {
        self.server
            .set_nonblocking(true)
            .expect("a connection to ourselves");
        for _ in 0..2_000 {
            self.turn(10);
            if let Ok((stream, _)) = self.server.accept() {
                stream
                    .set_nonblocking(false)
                    .expect("a connection to ourselves");
                stream
                    .set_read_timeout(Some(PATIENCE))
                    .expect("a connection to ourselves");
                while self.turn(20) {}
                return stream;
            }
        }
        panic!("no connection");
    }

    /// The next outcome, however long it takes.
    fn next(&mut self) -> End {
        for _ in 0..200 {
            if let Some(end) = self.ends.pop_front() {
                return end;
            }
            self.turn(100);
        }
        panic!("nothing happens");
    }

    /// Runs a turn of so many milliseconds. True if anything happened.
    fn turn(&mut self, millis: u16) -> bool {
        let mut events = [EpollEvent::empty(); 8];
        let timeout = EpollTimeout::from(millis);
        let count = self
            .epoll
            .wait(&mut events, timeout)
            .expect("a connection to ourselves");
        for event in &events[..count] {
            let EventSource::Stream(index) = EventSource::from_bits(event.data()) else {
                panic!("only streams are watched");
            };
            self.read(index);
        }
        while let Some(Lost { slot, loss }) = self.streams.lost(self.now, &self.epoll) {
            self.ends.push_back(match loss {
                StreamLoss::Unanswered => End::Lost(slot),
                StreamLoss::Unreachable => End::Unreachable(slot),
            });
        }
        self.streams.close_idle(self.now);
        count > 0
    }

    fn read(&mut self, index: u16) {
        loop {
            match self.streams.progress(index, self.now, &self.epoll) {
                Progress::Waiting => return,
                Progress::Late => self.ends.push_back(End::Late),
                Progress::Malformed => self.ends.push_back(End::Malformed),
                Progress::Answered { slot, len } => {
                    let (buffer, from) = self
                        .streams
                        .take_answer(slot)
                        .expect("a connection to ourselves");
                    assert_eq!(from, self.server.local_addr().expect("it is bound"));
                    let answer = buffer[..len].to_vec();
                    self.ends.push_back(End::Answered(slot, answer));
                    self.streams.give_back(buffer);
                }
            }
        }
    }

    fn open_connections(&self) -> usize {
        self.streams.connections.iter().flatten().count()
    }
}

/// A message with this ID, of `len` bytes.
fn message(id: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    bytes
}

/// ID of the next question, as the server reads it.
fn question_id(stream: &mut TcpStream) -> u16 {
    let mut prefix = [0; 2];
    stream
        .read_exact(&mut prefix)
        .expect("a connection to ourselves");
    let mut question = vec![0; usize::from(u16::from_be_bytes(prefix))];
    stream
        .read_exact(&mut question)
        .expect("a connection to ourselves");
    assert_eq!(question[2..], message(0, 40)[2..]);
    u16::from_be_bytes([question[0], question[1]])
}

fn framed(id: u16, len: usize) -> Vec<u8> {
    [&(len as u16).to_be_bytes()[..], &message(id, len)].concat()
}

#[test]
fn questions_share_a_connection_and_are_answered_in_any_order() {
    let mut world = World::new();
    // The engine has one ID for both.
    let (first, second) = (world.ask(77), world.ask(77));
    let mut server = world.accept();
    let (first_id, second_id) = (question_id(&mut server), question_id(&mut server));
    assert_ne!(first_id, second_id);
    server
        .write_all(&framed(second_id, 100))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(second, message(77, 100)));
    server
        .write_all(&framed(first_id, 200))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(first, message(77, 200)));
    // The connection is kept for the next question.
    let third = world.ask(78);
    let id = question_id(&mut server);
    server
        .write_all(&framed(id, 60))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(third, message(78, 60)));
    assert_eq!(world.open_connections(), 1);
}

#[test]
fn an_answer_of_any_length_is_read_when_it_is_whole_and_holds_up_no_other_connection() {
    let mut world = World::new();
    let large = world.ask(1);
    let mut server = world.accept();
    let id = question_id(&mut server);
    let bytes = framed(id, TCP_MESSAGE_MAX);
    server
        .write_all(&bytes[..40_000])
        .expect("a connection to ourselves");
    while world.turn(20) {}
    assert!(world.ends.is_empty());
    // While a server keeps a question waiting, the next one takes another connection.
    world.now = world.now + STALL_MS;
    let small = world.ask(2);
    let mut other = world.accept();
    let small_id = question_id(&mut other);
    other
        .write_all(&framed(small_id, 50))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(small, message(2, 50)));
    server
        .write_all(&bytes[40_000..])
        .expect("a connection to ourselves");
    assert_eq!(
        world.next(),
        End::Answered(large, message(1, TCP_MESSAGE_MAX))
    );
}

#[test]
fn a_connection_that_the_server_closes_meanwhile_costs_one_more_question_and_no_answer() {
    let mut world = World::new();
    let first = world.ask(1);
    let mut server = world.accept();
    let id = question_id(&mut server);
    server
        .write_all(&framed(id, 50))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(first, message(1, 50)));
    let second = world.ask(2);
    drop(server);
    let mut again = world.accept();
    let id = question_id(&mut again);
    // Only once: a server that closes each connection without an answer is not asked again and again.
    assert_eq!(id, 1);
    drop(again);
    assert_eq!(world.next(), End::Lost(second));
    assert_eq!(world.open_connections(), 0);
}

#[test]
fn a_new_connection_that_ends_without_an_answer_loses_its_questions() {
    let mut world = World::new();
    let slots = [world.ask(1), world.ask(2)];
    drop(world.accept());
    for slot in slots {
        assert_eq!(world.next(), End::Lost(slot));
    }
    // The listener on this port is gone.
    let to = world.server.local_addr().expect("it is bound");
    world.server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    match world.streams.open(to.into(), 0, world.now, &world.epoll) {
        Ok(slot) => {
            world.streams.ask(slot, &message(3, 40));
            assert_eq!(world.next(), End::Unreachable(slot));
        }
        Err(at_once) => assert_eq!(at_once, NoPort::Unreachable),
    }
    assert_eq!(world.open_connections(), 0);
}

/// connect(2) to a multicast address fails at once with ENETUNREACH, like a missing route.
#[test]
fn a_server_that_no_route_leads_to_is_told_as_unreachable() {
    let mut world = World::new();
    for to in ["224.0.0.1:53", "[ff05::1]:53"] {
        let to: SocketAddr = to.parse().expect("an address");
        let opened = world.streams.open(to.into(), 0, world.now, &world.epoll);
        assert_eq!(opened, Err(NoPort::Unreachable), "{to}");
    }
    assert_eq!(world.open_connections(), 0);
    // The route goes away while a connection is up: its question cannot be asked again.
    let errors = [
        (Errno::EHOSTUNREACH, StreamLoss::Unreachable),
        (Errno::ENETUNREACH, StreamLoss::Unreachable),
        (Errno::ECONNREFUSED, StreamLoss::Unreachable),
        (Errno::ECONNRESET, StreamLoss::Unanswered),
        (Errno::ETIMEDOUT, StreamLoss::Unanswered),
    ];
    for (errno, loss) in errors {
        assert_eq!(loss_of(&errno.into()), loss, "{errno}");
    }
    assert_eq!(
        loss_of(&io::ErrorKind::UnexpectedEof.into()),
        StreamLoss::Unanswered
    );
}

#[test]
fn patience_ends_and_a_silent_connection_with_it() {
    let mut world = World::new();
    let slot = world.ask(1);
    let _server = world.accept();
    assert_eq!(world.streams.next_deadline(), Some(world.now + PATIENCE_MS));
    world.now = world.now + PATIENCE_MS;
    assert_eq!(world.next(), End::Lost(slot));
    assert_eq!(world.open_connections(), 0);
}

#[test]
fn an_idle_connection_is_closed_after_a_while_or_for_another_server() {
    let mut world = World::new();
    let slot = world.ask(1);
    let mut server = world.accept();
    let id = question_id(&mut server);
    server
        .write_all(&framed(id, 50))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(slot, message(1, 50)));
    assert_eq!(world.streams.next_deadline(), Some(world.now + KEEP_MS));
    world.now = world.now + (KEEP_MS - 1);
    world.turn(0);
    assert_eq!(world.open_connections(), 1);
    world.now = world.now + 1;
    world.turn(0);
    assert_eq!(world.open_connections(), 0);
    // With more servers than connections, idle ones make room.
    let servers: Vec<TcpListener> = (0..=STREAMS)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    for server in &servers {
        let to = server.local_addr().expect("it is bound");
        let slot = world
            .streams
            .open(to.into(), 0, world.now, &world.epoll)
            .expect("a connection to ourselves");
        world.streams.leave(slot);
    }
    assert_eq!(world.open_connections(), STREAMS);
}

#[test]
fn a_late_answer_is_nobodys_and_one_to_nothing_ends_the_connection() {
    let mut world = World::new();
    let left = world.ask(1);
    let waits = world.ask(2);
    let mut server = world.accept();
    let (late, id) = (question_id(&mut server), question_id(&mut server));
    world.streams.leave(left);
    // The slot is in use again.
    assert_eq!(world.ask(3), left);
    server
        .write_all(&framed(late, 50))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Late);
    server
        .write_all(&framed(id, 50))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(waits, message(2, 50)));
    // No other answer can be late.
    server
        .write_all(&framed(0xffff, 50))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Malformed);
    // The waiting question is asked again on another connection.
    let mut server = world.accept();
    let id = question_id(&mut server);
    server
        .write_all(&framed(id, 50))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(left, message(3, 50)));
}

#[test]
fn a_client_whose_questions_hold_up_two_connections_gets_no_third_and_others_do() {
    let mut world = World::new();
    let mut servers = Vec::new();
    for id in 1..=4 {
        world.ask_for(7, id);
        if id <= 2 {
            servers.push(world.accept());
        }
        world.now = world.now + STALL_MS;
    }
    assert_eq!(world.open_connections(), 2);
    let other = world.ask_for(8, 9);
    let mut server = world.accept();
    let id = question_id(&mut server);
    server
        .write_all(&framed(id, 50))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Answered(other, message(9, 50)));
    assert_eq!(world.open_connections(), PER_SERVER);
}

#[test]
fn a_message_without_a_whole_header_ends_the_connection() {
    let mut world = World::new();
    let slot = world.ask(1);
    let mut server = world.accept();
    server
        .write_all(&framed(1, 11))
        .expect("a connection to ourselves");
    assert_eq!(world.next(), End::Malformed);
    assert_eq!(world.next(), End::Lost(slot));
}
