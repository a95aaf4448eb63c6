//! Two clients: one with raw frames, which can send anything and checks every byte that comes back, and an ordinary
//! one with a UDP socket, whose frames the kernel makes.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hickory_proto::op::Message;
use nix::net::if_::if_nametoindex;
pub use xdnsd_lab::family::Family;
use xdnsd_lab::frames::{FrameSocket, parse_mac};
use xdnsd_lab::lab::{CLIENT_V4, CLIENT_V6, HOST_INTERFACE, LAN, LAN_V4, LAN_V6, Lab};
use xdnsd_lab::netns::Namespace;

use super::frame::{Received, UdpFrame};
use super::message::{self, read_answer, read_long_answer};
use super::run::Run;
use super::stream::Stream;
use super::ways::Way;
use super::{ANSWER_TIMEOUT, SILENCE, TIMEOUT};

/// Port of the appliance.
pub const DNS_PORT: u16 = 53;
/// Larger than any answer over UDP, in bytes.
const ANSWER_MAX: usize = 4096;

/// The appliance's endpoint of the family.
pub fn listen(family: Family) -> SocketAddr {
    SocketAddr::new(family.of(LAN_V4.into(), LAN_V6.into()), DNS_PORT)
}

/// The client host's address of the family.
pub fn client_address(family: Family) -> IpAddr {
    family.of(CLIENT_V4.into(), CLIENT_V6.into())
}

/// `address`, with the scope of the host's only interface if it is link-local. To be called in the host's namespace.
pub fn scoped(address: SocketAddr) -> io::Result<SocketAddr> {
    let mut scoped = address;
    if let SocketAddr::V6(v6) = &mut scoped
        && v6.ip().is_unicast_link_local()
    {
        v6.set_scope_id(if_nametoindex(HOST_INTERFACE)?);
    }
    Ok(scoped)
}

/// A client that writes and reads whole frames on the client's interface.
#[derive(Debug)]
pub struct RawClient {
    host: Namespace,
    frames: FrameSocket,
    client_mac: [u8; 6],
    router_mac: [u8; 6],
    /// Keep the source ports bound, so that the kernel does not answer replies with ICMP.
    ports: [UdpSocket; 2],
}

impl RawClient {
    /// Opens a client in the lab's client host.
    pub fn open(lab: &Lab) -> Result<Self> {
        let addresses = [CLIENT_V4.into(), CLIENT_V6.into()];
        Self::open_at(&lab.client, addresses, mac(&lab.router, LAN)?)
    }

    /// Opens a client in another host with these addresses at its only interface, towards the device with this MAC address.
    pub fn open_at(host: &Namespace, addresses: [IpAddr; 2], router_mac: [u8; 6]) -> Result<Self> {
        let reserve = |address: IpAddr| host.run(|| UdpSocket::bind((address, 0)));
        let [v4, v6] = addresses;
        Ok(Self {
            host: host.clone(),
            frames: FrameSocket::open(host, HOST_INTERFACE)?,
            client_mac: mac(host, HOST_INTERFACE)?,
            router_mac,
            ports: [reserve(v4)?, reserve(v6)?],
        })
    }

    /// A plain frame with `message` to `destination`.
    pub fn frame(&self, destination: SocketAddr, message: &[u8]) -> Result<UdpFrame> {
        let [v4, v6] = &self.ports;
        let port = match Family::of_address(destination.ip()) {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        Ok(UdpFrame {
            source_mac: self.client_mac,
            destination_mac: self.router_mac,
            tags: Vec::new(),
            source: port.local_addr()?,
            destination,
            extra: Vec::new(),
            message: message.to_vec(),
        })
    }

    /// Sends bytes as they are.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        self.frames.send(bytes)
    }

    /// First frame within `timeout` that `is_wanted`.
    pub fn next_frame(
        &self,
        timeout: Duration,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        self.frames.receive(timeout, is_wanted)
    }

    /// Asks by the way of this run, with a plain frame if it uses datagrams, and waits for the answer.
    pub fn ask(&self, family: Family, query: &Message) -> Result<Message> {
        if Run::this().way() == Way::Tcp {
            return ask_over_tcp(&self.host, client_address(family), listen(family), query);
        }
        let frame = self.frame(listen(family), &message::wire(query))?;
        let answer = self.exchange(&frame)?;
        read_answer(&frame.message, &answer)
    }

    /// Sends `frame` and waits for its answer.
    pub fn exchange(&self, frame: &UdpFrame) -> Result<Vec<u8>> {
        self.send(&frame.to_bytes())?;
        self.answer_to(frame)
    }

    /// Waits for the answer to `frame` and checks the frame that it comes in.
    pub fn answer_to(&self, frame: &UdpFrame) -> Result<Vec<u8>> {
        match self.next_for(frame, ANSWER_TIMEOUT)? {
            Some(answer) => Ok(answer),
            None => bail!("no answer to {frame:02x?}"),
        }
    }

    /// Waits for the answers to all of `frames`, in any order, and returns them in the order of `frames`.
    pub fn answers_to(&self, frames: &[UdpFrame]) -> Result<Vec<Vec<u8>>> {
        let mut answers: Vec<Option<Vec<u8>>> = vec![None; frames.len()];
        while answers.contains(&None) {
            let received = self.frames.receive(ANSWER_TIMEOUT, |bytes| {
                frames.iter().any(|frame| is_answer(bytes, frame))
            })?;
            let bytes = received.context("not all of the answers")?;
            for (frame, answer) in frames.iter().zip(&mut answers) {
                if is_answer(&bytes, frame) {
                    *answer = Some(checked_answer(&bytes, frame)?);
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// True if nothing answers `frame`, in a time in which other frames are answered.
    pub fn gets_nothing(&self, frame: &UdpFrame) -> Result<bool> {
        Ok(self.next_for(frame, SILENCE)?.is_none())
    }

    /// First frame within `timeout` that looks like an answer to one of `frames`.
    pub fn any_answer_to(&self, frames: &[UdpFrame], timeout: Duration) -> Result<Option<Vec<u8>>> {
        let is_wanted = |bytes: &[u8]| frames.iter().any(|frame| is_answer(bytes, frame));
        self.frames.receive(timeout, is_wanted)
    }

    /// The answer to `frame` within `timeout`, checked.
    pub fn next_for(&self, frame: &UdpFrame, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let received = self
            .frames
            .receive(timeout, |bytes| is_answer(bytes, frame))?;
        received
            .map(|bytes| checked_answer(&bytes, frame))
            .transpose()
    }
}

/// IANA protocol number.
const PROTOCOL_TCP: u8 = 6;

/// True if `bytes` look like an answer to `frame`, valid or not.
fn is_answer(bytes: &[u8], frame: &UdpFrame) -> bool {
    let Ok(received) = Received::parse(bytes) else {
        return is_dns_to(bytes, frame);
    };
    received.destination == frame.source && received.message.get(..2) == frame.message.get(..2)
}

/// Message of an answer, after checks of the whole frame.
fn checked_answer(bytes: &[u8], frame: &UdpFrame) -> Result<Vec<u8>> {
    let received = Received::parse(bytes).with_context(|| format!("the answer {bytes:02x?}"))?;
    received.check_answers(frame)?;
    Ok(received.message)
}

/// True if bytes that are no valid datagram still look like an answer to `frame`: its UDP ports are in the answer's place. A
/// TCP segment may have them by chance.
fn is_dns_to(bytes: &[u8], frame: &UdpFrame) -> bool {
    let at = frame.udp_offset() - frame.extra.len();
    // From the end of the IP header back to its protocol field.
    let back = if frame.source.is_ipv4() {
        20 - 9
    } else {
        40 - 6
    };
    if bytes.get(at - back) == Some(&PROTOCOL_TCP) {
        return false;
    }
    let ports = [frame.destination.port(), frame.source.port()].map(u16::to_be_bytes);
    bytes.get(at..at + 4) == Some(ports.concat().as_slice())
}

/// The MAC address of an interface.
pub fn mac(host: &Namespace, interface: &str) -> Result<[u8; 6]> {
    let text = host.read(&format!("/sys/class/net/{interface}/address"))?;
    parse_mac(&text)
}

/// Asks over a connection of its own and waits for the answer.
fn ask_over_tcp(
    host: &Namespace,
    local: IpAddr,
    server: SocketAddr,
    query: &Message,
) -> Result<Message> {
    let query = message::wire(query);
    let mut stream = Stream::open_in(host, local, server, TIMEOUT)?;
    read_long_answer(&query, &stream.exchange(&query)?)
}

/// Fate of a query from an ordinary client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An answer came.
    Answered,
    /// The kernel reported a closed port (ICMP port unreachable).
    Refused,
    /// Nothing came within the timeout.
    Swallowed,
}

/// A client with a UDP socket that is connected to one endpoint.
#[derive(Debug)]
pub struct UdpClient {
    host: Namespace,
    socket: UdpSocket,
}

impl UdpClient {
    /// A client of the appliance.
    pub fn open(lab: &Lab, family: Family) -> Result<Self> {
        Self::open_to(lab, listen(family))
    }

    /// A client of another endpoint.
    pub fn open_to(lab: &Lab, server: SocketAddr) -> Result<Self> {
        let family = Family::of_address(server.ip());
        Self::open_from(lab, client_address(family), server)
    }

    /// A client with another address of the client host.
    pub fn open_from(lab: &Lab, local: IpAddr, server: SocketAddr) -> Result<Self> {
        let socket = lab.client.run(|| -> io::Result<_> {
            let socket = UdpSocket::bind(scoped(SocketAddr::new(local, 0))?)?;
            socket.connect(server)?;
            Ok(socket)
        })?;
        let host = lab.client.clone();
        Ok(Self { host, socket })
    }

    /// The same client with another source port.
    pub fn another(&self) -> Result<Self> {
        let (mut local, server) = (self.socket.local_addr()?, self.socket.peer_addr()?);
        local.set_port(0);
        let socket = self.host.run(|| UdpSocket::bind(local))?;
        socket.connect(server)?;
        let host = self.host.clone();
        Ok(Self { host, socket })
    }

    /// Source address of its queries.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Asks by the way of this run, over the socket if it uses datagrams, and waits for the answer.
    pub fn ask(&self, query: &Message) -> Result<Message> {
        if Run::this().way() == Way::Tcp {
            let (local, server) = (self.socket.local_addr()?, self.socket.peer_addr()?);
            return ask_over_tcp(&self.host, local.ip(), server, query);
        }
        let query = message::wire(query);
        read_answer(&query, &self.exchange(&query)?)
    }

    /// Sends a message.
    pub fn send(&self, message: &[u8]) -> Result<()> {
        self.socket.send(message)?;
        Ok(())
    }

    /// Sends a message and waits for one with the same ID.
    pub fn exchange(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.send(message)?;
        self.answer_to(message)
    }

    /// Waits for a message with the ID of `message`.
    pub fn answer_to(&self, message: &[u8]) -> Result<Vec<u8>> {
        let answer = self.next_for(message, ANSWER_TIMEOUT);
        answer.with_context(|| format!("no answer to {message:02x?}"))
    }

    /// A message that has come already.
    pub fn try_receive(&self) -> Option<Vec<u8>> {
        let mut answer = vec![0; ANSWER_MAX];
        self.socket.set_nonblocking(true).ok()?;
        let received = self.socket.recv(&mut answer);
        self.socket.set_nonblocking(false).ok()?;
        answer.truncate(received.ok()?);
        Some(answer)
    }

    /// Sends a message and returns its fate.
    pub fn try_ask(&self, message: &[u8], timeout: Duration) -> Fate {
        let asked = self.socket.send(message);
        let asked = asked.and_then(|_| self.next_for(message, timeout));
        match asked {
            Ok(_) => Fate::Answered,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Fate::Refused,
            Err(_) => Fate::Swallowed,
        }
    }

    fn next_for(&self, message: &[u8], timeout: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut answer = vec![0; ANSWER_MAX];
            let len = self.socket.recv(&mut answer)?;
            answer.truncate(len);
            if answer.get(..2) == message.get(..2) {
                return Ok(answer);
            }
        }
    }
}
