//! The ways to an upstream server, and what comes back by them.

use core::net::SocketAddr;

/// How a message goes to an upstream server. The caller names ports and places in streams; a name is one question's for as
/// long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A datagram, from a source port that nothing else uses.
    Datagram {
        /// The port's own number, or a place of the caller's.
        port: u16,
    },
    /// A TCP connection, which questions to one server share.
    Stream {
        /// The caller's place of the question.
        slot: u16,
    },
}

impl Via {
    /// The source port, if it is a datagram's.
    #[must_use]
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Datagram { port } => Some(port),
            Self::Stream { .. } => None,
        }
    }

    /// Whether what comes back cannot be spoofed off-path: TCP.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        match self {
            Self::Datagram { .. } => false,
            Self::Stream { .. } => true,
        }
    }
}

/// Where something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseOrigin {
    /// The way that it came by.
    pub via: Via,
    /// What the port was opened for; a stream's question is found.
    pub question: u16,
    /// Who sent it.
    pub from: SocketAddr,
}

/// A source port that was opened, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePort {
    /// The port as [`Via::Datagram`] names it.
    pub port: u16,
    /// The question that it was opened for.
    pub question: u16,
}

/// How a question in a stream ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamLoss {
    /// The server was silent for too long, or closed the connection.
    Unanswered,
    /// There was no connection: the port is closed, or the server or the way to it is not there.
    Unreachable,
}

/// Why there is no source port for a question, or no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPort {
    /// As many as there can be are open: one has to be closed first.
    Full,
    /// The routes lead nowhere from here, or the system forbids the way: who is asked next is asked at once.
    Unreachable,
    /// The system does not give one, for this server at least.
    Failed,
}
