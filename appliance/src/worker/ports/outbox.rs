//! Packets to upstreams that wait for the end of a batch of queries: one system call sends those for one server.

use std::net::IpAddr;

use xdnsd_core::forward::via::Destination;

use super::datagram::OutgoingPacket;
use crate::os::datagrams::DATAGRAMS_MAX;

/// A packet that waits to be sent.
#[derive(Debug)]
pub struct QueuedPacket {
    /// Its bytes.
    pub packet: OutgoingPacket,
    /// Its source.
    pub local: IpAddr,
    /// Its source port.
    pub port: u16,
    /// Its destination.
    pub to: Destination,
}

/// Queue of one worker.
pub type Outbox = heapless::Vec<QueuedPacket, DATAGRAMS_MAX>;

/// A question whose packet could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Its port.
    pub port: u16,
    /// Question that the port was opened for.
    pub question: u16,
}
