//! A client's TCP connection, byte by byte if a test wants that.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsFd, AsRawFd};
use xdnsd_lab::lab::Lab;
use xdnsd_lab::netns::Namespace;

use super::client::{Family, client_address, listen, scoped};
use super::{ANSWER_TIMEOUT, TIMEOUT};

/// An open connection to the appliance.
#[derive(Debug)]
pub struct Stream {
    stream: TcpStream,
}

/// Next event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole message.
    Message(Vec<u8>),
    /// The appliance has closed the connection, by FIN or RST.
    Closed,
    /// Nothing, within the timeout.
    Nothing,
}

impl Stream {
    /// Connects, and sends every write at once.
    pub fn open(lab: &Lab, family: Family) -> Result<Self> {
        Self::open_from(lab, client_address(family), 0)
    }

    /// From another address of the client host, or from a chosen port.
    pub fn open_from(lab: &Lab, local: IpAddr, port: u16) -> Result<Self> {
        let family = Family::of_address(local);
        Self::connect(
            &lab.client,
            SocketAddr::new(local, port),
            listen(family),
            None,
            TIMEOUT,
        )
    }

    /// To another address of the appliance.
    pub fn open_to(lab: &Lab, server: SocketAddr) -> Result<Self> {
        let local = client_address(Family::of_address(server.ip()));
        Self::connect(
            &lab.client,
            SocketAddr::new(local, 0),
            server,
            None,
            TIMEOUT,
        )
    }

    /// From any host, with a timeout for the connection.
    pub fn open_in(
        host: &Namespace,
        local: IpAddr,
        server: SocketAddr,
        patience: Duration,
    ) -> Result<Self> {
        Self::connect(host, SocketAddr::new(local, 0), server, None, patience)
    }

    /// With a small receive buffer: for a client that does not read.
    pub fn open_narrow(lab: &Lab, family: Family, receive_buffer: usize) -> Result<Self> {
        let local = SocketAddr::new(client_address(family), 0);
        Self::connect(
            &lab.client,
            local,
            listen(family),
            Some(receive_buffer),
            TIMEOUT,
        )
    }

    fn connect(
        host: &Namespace,
        local: SocketAddr,
        server: SocketAddr,
        receive_buffer: Option<usize>,
        patience: Duration,
    ) -> Result<Self> {
        let family = if server.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let stream = host.run(|| -> io::Result<TcpStream> {
            let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&fd.as_fd(), sockopt::ReuseAddr, &true)?;
            if let Some(size) = receive_buffer {
                setsockopt(&fd.as_fd(), sockopt::RcvBuf, &size)?;
            }
            // Without a listener there may be no refusal.
            let patience = TimeVal::milliseconds(patience.as_millis() as i64);
            setsockopt(&fd.as_fd(), sockopt::SendTimeout, &patience)?;
            socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(scoped(local)?))?;
            socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(server))?;
            Ok(TcpStream::from(fd))
        });
        let stream = stream.with_context(|| format!("connect to {server}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sends a message after its length, in one segment.
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        self.write(&framed(message))
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("write")
    }

    /// Ends the sending direction.
    pub fn end(&self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Sends a message and waits for the next one.
    pub fn exchange(&mut self, message: &[u8]) -> Result<Vec<u8>> {
        self.send(message)?;
        self.receive()
    }

    /// Waits for a message.
    pub fn receive(&mut self) -> Result<Vec<u8>> {
        match self.next(ANSWER_TIMEOUT)? {
            Next::Message(message) => Ok(message),
            other @ (Next::Closed | Next::Nothing) => {
                anyhow::bail!("a message was expected: {other:?}")
            }
        }
    }

    /// Next event within `patience`. A message that has begun is read to its end.
    pub fn next(&mut self, patience: Duration) -> Result<Next> {
        let deadline = Instant::now() + patience;
        let mut prefix = [0; 2];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.stream
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut prefix[..1]) {
                Ok(0) => return Ok(Next::Closed),
                Ok(_) => break,
                Err(error) if is_timeout(&error) => return Ok(Next::Nothing),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Next::Closed);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.stream.set_read_timeout(Some(TIMEOUT))?;
        self.stream.read_exact(&mut prefix[1..]).context("length")?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
        ensure!(!message.is_empty(), "a message of no bytes");
        self.stream.read_exact(&mut message).context("message")?;
        Ok(Next::Message(message))
    }

    /// True if the appliance closes the connection within `patience` without another message.
    pub fn is_closed_within(&mut self, patience: Duration) -> Result<bool> {
        Ok(self.next(patience)? == Next::Closed)
    }
}

/// A message after its length (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).expect("a message");
    [&len.to_be_bytes(), message].concat()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
