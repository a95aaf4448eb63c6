//! Sources that wake a worker, encoded in the 64 bits that epoll hands back. AF_XDP sockets are polled instead, see
//! `Worker::wait`.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

/// Source of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// The worker's inbox.
    Inbox,
    /// The kernel UDP socket with this index.
    Listener(u16),
    /// The TCP connection to an upstream with this index.
    Stream(u16),
    /// The kernel TCP socket with this index.
    TcpListener(u16),
    /// The TCP connection of a client.
    TcpClient {
        /// Its slot.
        slot: u16,
        /// Its generation: an event of a closed connection may arrive when the slot is in use again.
        generation: u32,
    },
    /// The connected socket of a question, at this place.
    Connected(u16),
    /// The socket that receives answers to questions sent through a raw socket.
    Answers {
        /// True for IPv6.
        v6: bool,
    },
    /// The raw ICMP socket that receives errors about those questions.
    Errors {
        /// True for IPv6.
        v6: bool,
    },
}

/// The lowest byte is the kind, the bytes above are the index.
mod tag {
    pub const INBOX: u64 = 0;
    pub const LISTENER: u64 = 1;
    pub const CONNECTED: u64 = 2;
    pub const STREAM: u64 = 3;
    pub const TCP_LISTENER: u64 = 4;
    pub const TCP_CLIENT: u64 = 5;
    pub const ANSWERS: u64 = 6;
    pub const ERRORS: u64 = 7;
}

impl EventSource {
    /// Encodes the source.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Inbox => tag::INBOX,
            Self::Listener(index) => tag::LISTENER | (index as u64) << 16,
            Self::Stream(index) => tag::STREAM | (index as u64) << 16,
            Self::TcpListener(index) => tag::TCP_LISTENER | (index as u64) << 16,
            Self::TcpClient { slot, generation } => {
                tag::TCP_CLIENT | (slot as u64) << 16 | (generation as u64) << 32
            }
            Self::Connected(place) => tag::CONNECTED | (place as u64) << 16,
            Self::Answers { v6 } => tag::ANSWERS | (v6 as u64) << 16,
            Self::Errors { v6 } => tag::ERRORS | (v6 as u64) << 16,
        }
    }

    /// Decodes the source.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let index = (bits >> 16) as u16;
        match bits & 0xff {
            tag::LISTENER => Self::Listener(index),
            tag::STREAM => Self::Stream(index),
            tag::TCP_LISTENER => Self::TcpListener(index),
            tag::TCP_CLIENT => Self::TcpClient {
                slot: index,
                generation: (bits >> 32) as u32,
            },
            tag::CONNECTED => Self::Connected(index),
            tag::ANSWERS => Self::Answers { v6: index != 0 },
            tag::ERRORS => Self::Errors { v6: index != 0 },
            // Only values that `watch` wrote come back.
            _ => Self::Inbox,
        }
    }
}

/// Wakes the worker when `fd` can be read (level-triggered: nothing is lost when a batch ends early).
///
/// # Errors
/// epoll_ctl(2) failed.
pub fn watch(epoll: &Epoll, fd: BorrowedFd<'_>, source: EventSource) -> io::Result<()> {
    let event = EpollEvent::new(EpollFlags::EPOLLIN, source.to_bits());
    epoll.add(fd, event).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        for source in [
            EventSource::Inbox,
            EventSource::Listener(7),
            EventSource::Stream(1),
            EventSource::TcpListener(2),
            EventSource::TcpClient {
                slot: 31,
                generation: u32::MAX,
            },
            EventSource::Connected(255),
            EventSource::Answers { v6: false },
            EventSource::Answers { v6: true },
            EventSource::Errors { v6: false },
            EventSource::Errors { v6: true },
        ] {
            assert_eq!(EventSource::from_bits(source.to_bits()), source);
        }
    }
}
