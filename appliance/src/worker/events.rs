//! What can wake a worker, as the 64 bits that epoll hands back. The AF_XDP socket is not among them, see
//! `Worker::wait`.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The worker's mailbox.
    Mailbox,
    /// The kernel UDP socket with this index.
    Listener(u16),
    /// A TCP connection to an upstream.
    Stream(u16),
    /// The kernel TCP socket with this index.
    TcpListener(u16),
    /// The TCP connection of a client.
    TcpClient {
        /// Its slot.
        slot: u16,
        /// The how manieth connection that stands there: one that has gone may have left an event behind.
        turn: u32,
    },
    /// A socket of the upstream pool.
    Upstream {
        /// Its place.
        socket: u16,
        /// Its family.
        v6: bool,
        /// Which of the two sockets of the place.
        side: u8,
    },
}

/// The lowest byte names the kind, the others the index.
mod tag {
    pub const MAILBOX: u64 = 0;
    pub const LISTENER: u64 = 1;
    pub const UPSTREAM: u64 = 2;
    pub const STREAM: u64 = 3;
    pub const TCP_LISTENER: u64 = 4;
    pub const TCP_CLIENT: u64 = 5;
}

impl Source {
    /// The bits that name it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Mailbox => tag::MAILBOX,
            Self::Listener(index) => tag::LISTENER | (index as u64) << 16,
            Self::Stream(index) => tag::STREAM | (index as u64) << 16,
            Self::TcpListener(index) => tag::TCP_LISTENER | (index as u64) << 16,
            Self::TcpClient { slot, turn } => {
                tag::TCP_CLIENT | (slot as u64) << 16 | (turn as u64) << 32
            }
            Self::Upstream { socket, v6, side } => {
                tag::UPSTREAM | (socket as u64) << 16 | (v6 as u64) << 32 | (side as u64) << 40
            }
        }
    }

    /// The source that `bits` name.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let index = (bits >> 16) as u16;
        match bits & 0xff {
            tag::LISTENER => Self::Listener(index),
            tag::STREAM => Self::Stream(index),
            tag::TCP_LISTENER => Self::TcpListener(index),
            tag::TCP_CLIENT => Self::TcpClient {
                slot: index,
                turn: (bits >> 32) as u32,
            },
            tag::UPSTREAM => Self::Upstream {
                socket: index,
                v6: bits >> 32 & 1 != 0,
                side: (bits >> 40) as u8,
            },
            // Only what `watch` wrote comes back.
            _ => Self::Mailbox,
        }
    }
}

/// Wakes the worker when `fd` can be read (level-triggered: nothing is lost when a batch ends early).
///
/// # Errors
/// epoll_ctl(2) failed.
pub fn watch(epoll: &Epoll, fd: BorrowedFd<'_>, source: Source) -> io::Result<()> {
    let event = EpollEvent::new(EpollFlags::EPOLLIN, source.to_bits());
    epoll.add(fd, event).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        for source in [
            Source::Mailbox,
            Source::Listener(7),
            Source::Stream(1),
            Source::TcpListener(2),
            Source::TcpClient {
                slot: 31,
                turn: u32::MAX,
            },
            Source::Upstream {
                socket: 31,
                v6: true,
                side: 1,
            },
            Source::Upstream {
                socket: 0,
                v6: false,
                side: 0,
            },
        ] {
            assert_eq!(Source::from_bits(source.to_bits()), source);
        }
    }
}
