//! One TCP connection to an upstream: messages with length prefixes (RFC 1035 section 4.2.2).

use std::io::{self, Read as _, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use xdnsd_core::forward::via::Destination;
use xdnsd_core::time::Instant;

use crate::os::socket::RcvLowat;
use crate::worker::egress;
use crate::worker::events::EventSource;

/// Bytes of the length prefix.
pub(super) const PREFIX: usize = 2;

/// A connection that is established or being established.
pub(super) struct Connection {
    socket: TcpStream,
    pub to: Destination,
    is_connected: bool,
    /// True once a question was answered: from then on the server may close it.
    pub has_answered: bool,
    /// Questions sent whose answers nobody waits for any more.
    pub left: u16,
    /// When the latest message arrived; before the first one, when the connection was opened.
    pub last_heard: Instant,
    latest_id: u16,
    /// Length of the message to be read next, once its prefix is read.
    next_len: Option<usize>,
}

/// Result of a read.
pub(super) enum Read {
    /// No whole message.
    Nothing,
    /// A message of so many bytes.
    Message(usize),
}

impl Connection {
    /// Begins to connect to `to`. Events carry `index`, and are edge-triggered.
    pub fn open(to: Destination, index: u16, now: Instant, epoll: &Epoll) -> io::Result<Self> {
        let socket = connect(to)?;
        // Without it, small questions would wait for the acknowledgement of earlier ones.
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

    /// True once established.
    pub fn has_connected(&mut self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        // `peer_addr` is asked, since an event may be about the previous connection with this index.
        self.is_connected = self.socket.peer_addr().is_ok();
        Ok(self.is_connected)
    }

    /// An ID that no other pending question of this connection has. It may be predictable: an attacker who does not see the
    /// connection cannot write to it.
    pub const fn next_id(&mut self) -> u16 {
        self.latest_id = self.latest_id.wrapping_add(1);
        self.latest_id
    }

    /// Sends a question with its prefix.
    pub fn send(&mut self, question: &[u8]) -> io::Result<()> {
        // All questions that may wait are far smaller than a send buffer: a partial write means a broken connection.
        if self.socket.write(question)? == question.len() {
            return Ok(());
        }
        // Half a question must be the last thing sent.
        self.socket.shutdown(Shutdown::Both)?;
        Err(io::ErrorKind::WriteZero.into())
    }

    /// Reads the next message into `buffer`, which holds the longest one, if all of it has arrived.
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

    /// Delays the next event until `bytes` have arrived. The kernel makes room for them.
    fn wait_for(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        Ok(socket::setsockopt(&self.socket, RcvLowat, &bytes)?)
    }

    /// Fills `room` if so much has arrived. True if it has.
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
fn connect(to: Destination) -> nix::Result<TcpStream> {
    let family = if to.address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(family, SockType::Stream, flags, None)?;
    egress::bind_interface(&fd, to)?;
    egress::bind_source(&fd, to)?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to.address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(fd)),
        Err(errno) => Err(errno),
    }
}
