//! Messages behind their lengths in TCP streams, in whatever pieces they come.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant as Clock};

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::socket::{setsockopt, sockopt::Linger};
use xdnsd::worker::{Accepted, Arrivals, StreamProgress, Streams, Tcp, TcpRead, open_tcp};
use xdnsd_core::limits::TCP_QUERY_MAX;
use xdnsd_core::policy::Policy;
use xdnsd_core::time::Instant;

use super::Choices;

/// A connection of this machine to itself takes no longer, however busy it is.
const PATIENCE: Duration = Duration::from_secs(20);
/// Sizes of pieces, one after the other and then from the first again.
const SIZES: usize = 4;
const NOW: Instant = Instant::from_millis(1_000_000);
/// Questions in a connection to a server.
const QUESTIONS: u16 = 4;
/// Bytes of a header.
const HEADER_LEN: usize = 12;

/// The messages in a stream, as RFC 1035 section 4.2.2 has them; the last one may not be whole, and is none.
fn messages(stream: &[u8]) -> Vec<&[u8]> {
    let mut rest = stream;
    let mut messages = Vec::new();
    while let Some((prefix, behind)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*prefix));
        let Some((message, behind)) = behind.split_at_checked(len) else {
            break;
        };
        messages.push(message);
        rest = behind;
    }
    messages
}

/// Writes `stream` in pieces whose sizes the input says, with `between` after each.
fn write_in_pieces(mut to: &TcpStream, sizes: &[u8], stream: &[u8], mut between: impl FnMut()) {
    let mut sizes = sizes.iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        // Now and then a long one, or a long message would take ever so long.
        let size = match sizes.next().copied().unwrap_or(u8::MAX) {
            u8::MAX => 4_096,
            size => usize::from(size) + 1,
        };
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        if to.write_all(piece).is_err() {
            // Whoever reads has had enough.
            return;
        }
        rest = behind;
        between();
    }
}

/// Closes without a trace: thousands of connections a second would use up the ports of this machine.
fn leave_no_trace(stream: &TcpStream) {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(stream, Linger, &at_once).expect("an option of every socket");
    stream
        .set_nodelay(true)
        .expect("an option of every TCP socket");
}

/// Every query of a client is read as it was sent, cut to what a slot holds, in order, and none that is not whole.
pub fn of_clients(input: &[u8]) -> bool {
    let (sizes, stream) = input.split_at(SIZES.min(input.len()));
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    let listener = open_tcp((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    let address = listener.local_addr().expect("its address");
    let mut tcp = Tcp::new(1, 60_000);
    tcp.listen(0, listener);
    let client = TcpStream::connect(address).expect("it listens");
    leave_no_trace(&client);
    let arrivals = Arrivals::new();
    let begun = Clock::now();
    while tcp.client(0).is_none() {
        let accepted = tcp.accept(0, NOW, &Policy::OPEN, &arrivals, &epoll);
        assert!(matches!(accepted, Accepted::One | Accepted::None));
        assert!(begun.elapsed() < PATIENCE, "it is accepted");
    }
    let mut read = Vec::new();
    let mut buffer = vec![0; TCP_QUERY_MAX];
    let mut read_all = |read: &mut Vec<Vec<u8>>| loop {
        match tcp.read(0, NOW, &mut buffer) {
            TcpRead::Query(len) => read.push(buffer[..len].to_vec()),
            TcpRead::Nothing => return false,
            TcpRead::Closed => return true,
        }
    };
    write_in_pieces(&client, sizes, stream, || {
        read_all(&mut read);
    });
    client.shutdown(Shutdown::Write).expect("it is open");
    while !read_all(&mut read) {
        assert!(begun.elapsed() < PATIENCE, "its end is read");
        thread::yield_now();
    }
    let cut = |message: &[u8]| message[..message.len().min(TCP_QUERY_MAX)].to_vec();
    let sent: Vec<Vec<u8>> = messages(stream).into_iter().map(cut).collect();
    assert_eq!(read, sent);
    !sent.is_empty()
}

/// Every answer of a server is the answer to the question that has its ID, once; what is not ends the connection.
pub fn of_servers(input: &[u8]) -> bool {
    let mut choices = Choices::new(input);
    let sizes = choices.take(SIZES);
    let stream = choices.take(usize::MAX);
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let to = listener.local_addr().expect("its address");
    let mut streams = Streams::new();
    for number in 0..QUESTIONS {
        let slot = streams.open(to.into(), 0, NOW, &epoll).expect("a place");
        let id = 0x7700 + number;
        let question = [&id.to_be_bytes()[..], b"..........\x01a\0\0\x01\0\x01"].concat();
        assert!(streams.ask(slot, &question));
    }
    let (mut server, _) = listener.accept().expect("a connection to ourselves");
    leave_no_trace(&server);
    server.set_read_timeout(Some(PATIENCE)).expect("a time");
    let begun = Clock::now();
    let mut asked = vec![0; usize::from(QUESTIONS) * (2 + HEADER_LEN + 7)];
    assert_eq!(streams.progress(0, NOW, &epoll), StreamProgress::Waiting);
    server.read_exact(&mut asked).expect("all questions");
    // The IDs that the questions have on the connection, by their places.
    let mut waiting: Vec<(u16, Vec<u8>)> = messages(&asked)
        .iter()
        .zip(0..)
        .map(|(question, slot)| (slot, question[..2].to_vec()))
        .collect();
    write_in_pieces(&server, sizes, stream, || {});
    let mut answered = 0;
    for message in messages(stream) {
        let known = waiting
            .iter()
            .position(|(_, id)| message.len() >= HEADER_LEN && message[..2] == id[..]);
        let mut progress = streams.progress(0, NOW, &epoll);
        while progress == StreamProgress::Waiting && begun.elapsed() < PATIENCE {
            thread::yield_now();
            progress = streams.progress(0, NOW, &epoll);
        }
        let Some(known) = known else {
            assert_eq!(progress, StreamProgress::Malformed);
            return answered > 0;
        };
        let (slot, _) = waiting.remove(known);
        let len = message.len();
        assert_eq!(progress, StreamProgress::Answered { slot, len });
        let (buffer, from) = streams.take_answer(slot).expect("it was answered");
        let id = 0x7700 + slot;
        assert_eq!(
            (from, &buffer[..2]),
            (to, &id.to_be_bytes()[..]),
            "the engine's ID"
        );
        assert_eq!(buffer[2..len], message[2..]);
        streams.give_back(buffer);
        answered += 1;
    }
    assert_eq!(streams.progress(0, NOW, &epoll), StreamProgress::Waiting);
    answered > 0
}
