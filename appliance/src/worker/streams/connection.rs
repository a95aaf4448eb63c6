//! One TCP connection to an upstream: messages behind their lengths (RFC 1035 section 4.2.2).

use std::io::{self, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use xdnsd_core::time::Instant;

use crate::os::socket::RcvLowat;
use crate::worker::events::EventSource;

/// Bytes of a message's length.
pub(super) const PREFIX: usize = 2;

/// A connection that stands, or is about to.
pub(super) struct Connection {
    socket: TcpStream,
    pub to: SocketAddr,
    is_connected: bool,
    /// Whether a question was answered by it: the server may close it from then on.
    pub has_answered: bool,
    /// Questions that were sent and whose answers are not waited for any more.
    pub left: u16,
    /// When a message came; before the first one, when it was opened.
    pub last_heard: Instant,
    latest_id: u16,
    /// Bytes of the message that is to be read next, where its length has been read.
    next_len: Option<usize>,
}

/// What a connection has to be read.
pub(super) enum Read {
    /// Nothing that is whole.
    Nothing,
    /// A message of so many bytes.
    Message(usize),
}

impl Connection {
    /// Begins to connect to `to`. Events name the connection by `index`, and come once each.
    pub fn open(to: SocketAddr, index: u16, now: Instant, epoll: &Epoll) -> io::Result<Self> {
        let socket = connect(to)?;
        // Questions are small, and do not wait for the acknowledgement of those before.
        socket.set_nodelay(true)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        let event = EpollEvent::new(flags, EventSource::Stream(index).to_bits());
        epoll.add(socket.as_fd(), event)?;
        let mut connection = Self {
            socket,
            to,
            is_connected: false,
            has_answered: false,
            left: 0,
            last_heard: now,
            latest_id: 0,
            next_len: None,
        };
        connection.wait_for(PREFIX)?;
        Ok(connection)
    }

    pub const fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether it stands by now.
    pub fn has_connected(&mut self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        // An event of the connection that had this index before says nothing about this one.
        self.is_connected = self.socket.peer_addr().is_ok();
        Ok(self.is_connected)
    }

    /// An ID that no other question has which may still be answered. It need not be random: who does not see the
    /// connection cannot write to it.
    pub const fn next_id(&mut self) -> u16 {
        self.latest_id = self.latest_id.wrapping_add(1);
        self.latest_id
    }

    /// Sends a question with its length.
    pub fn send(&mut self, question: &[u8]) -> io::Result<()> {
        // All questions that may wait are far smaller than a send buffer: all of it goes, or the connection is no good.
        if self.socket.write(question)? == question.len() {
            return Ok(());
        }
        // Nothing may follow half a question.
        self.socket.shutdown(Shutdown::Both)?;
        Err(io::ErrorKind::WriteZero.into())
    }

    /// Reads the next message into `buffer`, which has room for any, if all of it has come.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        let len = match self.next_len {
            Some(len) => len,
            None => {
                let mut prefix = [0; PREFIX];
                if !self.take(&mut prefix)? {
                    return Ok(Read::Nothing);
                }
                let len = usize::from(u16::from_be_bytes(prefix));
                self.next_len = Some(len);
                self.wait_for(len.max(1))?;
                len
            }
        };
        if !self.take(&mut buffer[..len])? {
            return Ok(Read::Nothing);
        }
        self.next_len = None;
        self.wait_for(PREFIX)?;
        Ok(Read::Message(len))
    }

    /// The next event comes when so many bytes are there. The kernel makes room for them.
    fn wait_for(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        Ok(socket::setsockopt(&self.socket, RcvLowat, &bytes)?)
    }

    /// Fills `room` if so much has come. Whether it has.
    fn take(&mut self, room: &mut [u8]) -> io::Result<bool> {
        if room.is_empty() {
            return Ok(true);
        }
        match self.socket.peek(room) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) if count < room.len() => Ok(false),
            Ok(_) => self.socket.read_exact(room).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
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
