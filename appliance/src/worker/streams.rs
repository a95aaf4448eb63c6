//! TCP connections to upstreams: one question each, for answers that do not fit a datagram (RFC 7766 section 5).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use xdnsd_core::limits::{STREAMS, TCP_MESSAGE_MAX};
use xdnsd_core::time::Instant;

use super::events::EventSource;

/// A stream that has not answered after this time is closed, in milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// Length prefix (RFC 1035 section 4.2.2).
const PREFIX: usize = 2;
/// Longest question with its prefix.
const QUESTION_MAX: usize = 512;

/// What became of a stream after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Waiting,
    /// The answer is there: [`Streams::take_answer`] has it until the stream is closed.
    Answered,
    /// It ended without an answer.
    Lost,
}

struct Stream {
    socket: TcpStream,
    to: SocketAddr,
    deadline: Instant,
    question: heapless::Vec<u8, QUESTION_MAX>,
    sent: bool,
    received: usize,
}

/// All in use: `open` says so and the question stays with its truncated answer.
pub struct Streams {
    places: [Option<Stream>; STREAMS],
    /// One buffer per place, made before the worker is sealed.
    buffers: [Option<Buffer>; STREAMS],
}

/// A message with its prefix.
type Buffer = Box<[u8]>;
/// Bytes of one.
const BUFFER: usize = PREFIX + TCP_MESSAGE_MAX;
/// Bytes of the buffers of one worker, for the memory budget.
pub const BUFFER_BYTES: usize = STREAMS * BUFFER;

impl Streams {
    /// None open.
    pub fn new() -> Self {
        Self {
            places: [const { None }; STREAMS],
            buffers: std::array::from_fn(|_| Some(vec![0; BUFFER].into_boxed_slice())),
        }
    }

    /// Begins to connect to `to`. Returns the stream's name as a socket.
    pub fn open(&mut self, to: SocketAddr, now: Instant, epoll: &Epoll) -> Option<u16> {
        let is_free =
            |index: &usize| self.places[*index].is_none() && self.buffers[*index].is_some();
        let index = (0..STREAMS).find(is_free)?;
        let socket = connect(to).ok()?;
        let source = EventSource::Stream(index as u16);
        // Writable: connected, or failed to.
        let event = EpollEvent::new(EpollFlags::EPOLLOUT, source.to_bits());
        epoll.add(socket.as_fd(), event).ok()?;
        self.places[index] = Some(Stream {
            socket,
            to,
            deadline: now + PATIENCE_MS,
            question: heapless::Vec::new(),
            sent: false,
            received: 0,
        });
        Some(index as u16)
    }

    /// Gives the stream its question, to be sent when it is connected. Whether it takes it.
    pub fn ask(&mut self, socket: u16, message: &[u8]) -> bool {
        let Some(Some(stream)) = self.places.get_mut(usize::from(socket)) else {
            return false;
        };
        let Ok(len) = u16::try_from(message.len()) else {
            return false;
        };
        stream.question.clear();
        stream
            .question
            .extend_from_slice(&len.to_be_bytes())
            .is_ok()
            && stream.question.extend_from_slice(message).is_ok()
    }

    /// Goes on with the stream at `index` after an event.
    pub fn progress(&mut self, index: u16, epoll: &Epoll) -> Progress {
        let place = usize::from(index);
        let (Some(Some(stream)), Some(Some(buffer))) =
            (self.places.get_mut(place), self.buffers.get_mut(place))
        else {
            return Progress::Waiting;
        };
        let step = if stream.sent {
            stream.receive(buffer)
        } else {
            stream.send(EventSource::Stream(index), epoll)
        };
        step.unwrap_or(Progress::Lost)
    }

    /// Closes the stream at `index` and hands its buffer out, with the answer's length and who gave it. The place stays
    /// taken until the buffer is given back.
    pub fn take_answer(&mut self, index: u16) -> Option<(Buffer, usize, SocketAddr)> {
        let place = usize::from(index);
        let stream = self.places.get_mut(place)?.take()?;
        let mut buffer = self.buffers.get_mut(place)?.take()?;
        let len = stream.received.checked_sub(PREFIX)?;
        buffer.copy_within(PREFIX..stream.received, 0);
        Some((buffer, len, stream.to))
    }

    /// Gives the buffer of the place at `index` back.
    pub fn give_back(&mut self, index: u16, buffer: Buffer) {
        if let Some(place) = self.buffers.get_mut(usize::from(index)) {
            *place = Some(buffer);
        }
    }

    /// Closes the stream at `index`.
    pub fn close(&mut self, index: u16) {
        if let Some(place) = self.places.get_mut(usize::from(index)) {
            *place = None;
        }
    }

    /// A stream whose time is over.
    pub fn overdue(&self, now: Instant) -> Option<u16> {
        let is_overdue =
            |place: &Option<Stream>| place.as_ref().is_some_and(|stream| stream.deadline <= now);
        self.places
            .iter()
            .position(is_overdue)
            .map(|index| index as u16)
    }

    /// When the next stream is overdue.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.places
            .iter()
            .flatten()
            .map(|stream| stream.deadline)
            .min()
    }
}

impl Stream {
    fn send(&mut self, source: EventSource, epoll: &Epoll) -> io::Result<Progress> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        // A question is far smaller than an empty send buffer: all of it goes, or the connection is no good.
        if self.socket.write(&self.question)? != self.question.len() {
            return Ok(Progress::Lost);
        }
        self.sent = true;
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN, source.to_bits());
        epoll.modify(self.socket.as_fd(), &mut event)?;
        Ok(Progress::Waiting)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Progress> {
        // Bound: the buffer holds the longest message; each round fills more of it.
        loop {
            let wanted = match self.received {
                0..PREFIX => PREFIX,
                _ => PREFIX + usize::from(u16::from_be_bytes([buffer[0], buffer[1]])),
            };
            if self.received >= PREFIX && self.received == wanted {
                return Ok(Progress::Answered);
            }
            match self.socket.read(&mut buffer[self.received..wanted]) {
                Ok(0) => return Ok(Progress::Lost),
                Ok(count) => self.received += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waiting);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Opens a non-blocking socket and begins to connect it.
fn connect(to: SocketAddr) -> nix::Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(family, SockType::Stream, flags, None)?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(fd)),
        Err(errno) => Err(errno),
    }
}
