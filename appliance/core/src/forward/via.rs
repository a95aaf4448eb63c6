//! Transports to an upstream server, and the origin of responses.

use core::net::{IpAddr, SocketAddr};

/// Where questions to a server leave this machine. By default the routes say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Index of the interface that they are bound to (SO_BINDTODEVICE, socket(7)). 0: none.
    pub interface: u32,
    /// Their source address. `None`: the one that the routes choose.
    pub source: Option<IpAddr>,
}

/// A server, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Address and port of the server.
    pub address: SocketAddr,
    /// Where questions to it leave.
    pub egress: Egress,
}

impl From<SocketAddr> for Destination {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            egress: Egress::default(),
        }
    }
}

/// Port or stream by which a message goes to an upstream server. The caller names ports and slots; a name belongs to one
/// question while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A datagram, from a source port of its own.
    Datagram {
        /// Port number, or a number of the caller's.
        port: u16,
    },
    /// A TCP connection, shared by questions to one server.
    Stream {
        /// The caller's slot of the question.
        slot: u16,
    },
}

impl Via {
    /// Source port, if it is a datagram.
    #[must_use]
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Datagram { port } => Some(port),
            Self::Stream { .. } => None,
        }
    }

    /// True for TCP, whose responses cannot be spoofed off-path.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        match self {
            Self::Datagram { .. } => false,
            Self::Stream { .. } => true,
        }
    }
}

/// Origin of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseOrigin {
    /// Port or stream that received it.
    pub via: Via,
    /// Question for which the port was opened; ignored for a stream.
    pub question: u16,
    /// Source address.
    pub from: SocketAddr,
}

/// An open source port and its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePort {
    /// Name of the port, as in [`Via::Datagram`].
    pub port: u16,
    /// Question for which it was opened.
    pub question: u16,
}

/// Reason why a question in a stream ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamLoss {
    /// The server was silent for too long, or closed the connection.
    Unanswered,
    /// There was no connection: the port is closed, or the server or the path to it is unreachable.
    Unreachable,
}

/// Reason why there is no source port or stream for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPort {
    /// The most that can be are open: one has to be closed first.
    Full,
    /// No route leads to the server, or the system forbids it: the next server is asked at once.
    Unreachable,
    /// The system refuses one, for this server at least.
    Failed,
}
