//! An upstream server that follows a script, name by name, and records its questions.
//!
//! ```text
//!  question ─► record ─► the rule for its name ─┬─ lost: nothing is sent
//!                                               ├─ stray datagrams, each from a source of its choice
//!                                               └─ the answer, at once or after a delay
//! ```
//! Closures make the answers from the question ([`Make`]): a test writes them with the DNS library that is its oracle;
//! [`Asked::response`] does without a library.

mod asked;
mod rule;

pub use asked::{A, Asked, Record, TXT};
pub use rule::{Make, Rule, Sender, Stray};

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};

use rule::Rules;

/// Interval at which threads check whether to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Longer than any query, in bytes.
const QUERY_MAX: usize = 4096;
/// Ports tried until one is free for both UDP and TCP.
const PORT_TRIES: u32 = 32;

/// The running server. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    forgers: HashMap<SocketAddr, Arc<UdpSocket>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    rules: Mutex<Rules>,
    /// `None` if questions are not recorded.
    asked: Option<Mutex<Vec<Asked>>>,
    is_ending: AtomicBool,
}

/// Sockets that datagrams are sent from.
#[derive(Debug)]
struct Sockets {
    server: SocketAddr,
    own: Arc<UdpSocket>,
    /// Another port of the same address, and another address.
    strangers: Option<(UdpSocket, Arc<UdpSocket>)>,
}

impl Upstream {
    /// A server without addresses yet. `otherwise` is the rule for names without their own.
    #[must_use]
    pub fn new(otherwise: Rule) -> Self {
        Self::with_record(otherwise, Some(Mutex::default()))
    }

    /// [`Self::new`] for many questions: they are not recorded.
    #[must_use]
    pub fn without_record(otherwise: Rule) -> Self {
        Self::with_record(otherwise, None)
    }

    fn with_record(otherwise: Rule, asked: Option<Mutex<Vec<Asked>>>) -> Self {
        Self {
            shared: Arc::new(Shared {
                rules: Mutex::new(Rules::new(otherwise)),
                asked,
                is_ending: AtomicBool::new(false),
            }),
            forgers: HashMap::new(),
            threads: Vec::new(),
        }
    }

    /// Serves UDP and TCP at `address`, and returns it with its port, a free one if `address` has 0. The sockets are made in the
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn serve(&mut self, address: SocketAddr) -> Result<SocketAddr> {
        let (own, listener) = bind_both(address)?;
        let address = own.local_addr().context("a bound socket has an address")?;
        let sockets = Sockets {
            server: address,
            own: Arc::new(own),
            strangers: None,
        };
        self.start(sockets, listener);
        Ok(address)
    }

    /// [`Self::serve`], with the ability to send from another port of `address`, and from `forger`.
    ///
    /// # Errors
    /// One of the addresses cannot be bound.
    pub fn serve_with_forger(&mut self, address: SocketAddr, forger: SocketAddr) -> Result<()> {
        let (own, listener) = bind_both(address)?;
        let other_port = bind_udp(SocketAddr::new(address.ip(), 0))?;
        let forger = self.forger(forger)?;
        let sockets = Sockets {
            server: address,
            own: Arc::new(own),
            strangers: Some((other_port, forger)),
        };
        self.start(sockets, listener);
        Ok(())
    }

    /// The socket of a forger; servers may share it.
    fn forger(&mut self, address: SocketAddr) -> Result<Arc<UdpSocket>> {
        if let Some(socket) = self.forgers.get(&address) {
            return Ok(socket.clone());
        }
        let socket = Arc::new(bind_udp(address)?);
        self.forgers.insert(address, socket.clone());
        Ok(socket)
    }

    fn start(&mut self, sockets: Sockets, listener: TcpListener) {
        let server = sockets.server;
        let shared = self.shared.clone();
        self.threads
            .push(thread::spawn(move || serve_udp(&sockets, &shared)));
        let shared = self.shared.clone();
        self.threads
            .push(thread::spawn(move || accept(server, &listener, &shared)));
    }

    /// Sets the rule for `name`. A leading `*.` covers every name below.
    pub fn on(&self, name: &str, rule: impl Into<Rule>) {
        lock(&self.shared.rules).set(None, name, rule.into());
    }

    /// Sets a rule for one address only.
    pub fn on_server(&self, server: IpAddr, name: &str, rule: impl Into<Rule>) {
        lock(&self.shared.rules).set(Some(server), name, rule.into());
    }

    /// All questions so far, lost ones included.
    ///
    /// # Panics
    /// On a server without a record.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.shared.asked.as_ref();
        lock(asked.expect("the server was made with a record")).clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a thread of the scripted upstream panicked");
            }
        }
    }
}

impl Shared {
    /// Records the question and returns the rule to apply.
    fn take(&self, asked: &Asked) -> Rule {
        if let Some(record) = &self.asked {
            lock(record).push(asked.clone());
        }
        lock(&self.rules).take(asked)
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }
}

impl Sockets {
    fn of(&self, sender: Sender) -> &UdpSocket {
        match (sender, &self.strangers) {
            (Sender::Server, _) => &self.own,
            (Sender::OtherPort, Some((other_port, _))) => other_port,
            (Sender::OtherAddress, Some((_, other_address))) => other_address,
            (Sender::OtherPort | Sender::OtherAddress, None) => {
                panic!("{} was not started with a forger", self.server)
            }
        }
    }
}

fn bind_udp(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
    socket
        .set_read_timeout(Some(LOOK_INTERVAL))
        .context("limit the wait of a socket")?;
    Ok(socket)
}

/// Binds both sockets of one address. A port that is free for UDP may be taken for TCP: then another one is tried.
fn bind_both(address: SocketAddr) -> Result<(UdpSocket, TcpListener)> {
    for _ in 0..PORT_TRIES {
        let udp = bind_udp(address)?;
        let port = udp.local_addr().context("a bound socket has an address")?;
        match TcpListener::bind(port) {
            Ok(listener) => {
                // Linux applies it to accept(2), too.
                let limit = TimeVal::milliseconds(LOOK_INTERVAL.as_millis() as i64);
                setsockopt(&listener, ReceiveTimeout, &limit).context("limit accept")?;
                return Ok((udp, listener));
            }
            Err(error) if address.port() == 0 && error.kind() == ErrorKind::AddrInUse => (),
            Err(error) => return Err(error).with_context(|| format!("listen on {port}")),
        }
    }
    bail!("no port of {} is free for UDP and TCP", address.ip())
}

fn serve_udp(sockets: &Sockets, shared: &Shared) {
    let mut buffer = [0; QUERY_MAX];
    while !shared.is_ending() {
        let Ok((len, from)) = sockets.own.recv_from(&mut buffer) else {
            continue;
        };
        let query = &buffer[..len];
        let Some(asked) = Asked::over_udp(query, sockets.server, from) else {
            eprintln!("the upstream got no query: {query:02x?}");
            continue;
        };
        let rule = shared.take(&asked);
        for Stray { sender, message } in &rule.before {
            send(sockets.of(*sender), &message.bytes(&asked), from);
        }
        let Some(answer) = rule.answer else { continue };
        let socket = sockets.own.clone();
        later(rule.delay, move || {
            let bytes = answer.bytes(&asked);
            if !bytes.is_empty() {
                send(&socket, &bytes, from);
            }
        });
    }
}

/// Runs `work` after `delay`, without delaying other questions.
fn later(delay: Duration, work: impl FnOnce() + Send + 'static) {
    if delay.is_zero() {
        return work();
    }
    thread::spawn(move || {
        thread::sleep(delay);
        work();
    });
}

fn send(socket: &UdpSocket, message: &[u8], to: SocketAddr) {
    // The client's port may be closed; that is its business.
    let _ = socket.send_to(message, to);
}

fn accept(server: SocketAddr, listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_ending() {
        match listener.accept() {
            Ok((stream, from)) => {
                let shared = shared.clone();
                thread::spawn(move || {
                    if let Err(error) = serve_stream(stream, server, from, &shared) {
                        eprintln!("the upstream's TCP connection from {from}: {error:#}");
                    }
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => (),
            Err(error) => eprintln!("the upstream's accept: {error}"),
        }
    }
}

/// Serves messages in sequence, each with its length prefix (RFC 1035 section 4.2.2), until the other end closes.
fn serve_stream(
    mut stream: TcpStream,
    server: SocketAddr,
    from: SocketAddr,
    shared: &Shared,
) -> Result<()> {
    // A connection inherits its listener's timeout.
    stream.set_read_timeout(None)?;
    loop {
        let mut len = [0; 2];
        match stream.read_exact(&mut len) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut query)?;
        let asked = Asked::over_tcp(&query, server, from);
        let asked = asked.with_context(|| format!("no query: {query:02x?}"))?;
        let rule = shared.take(&asked);
        let Some(answer) = rule.answer else { continue };
        thread::sleep(rule.delay);
        let bytes = answer.bytes(&asked);
        if bytes.is_empty() {
            continue;
        }
        let len = u16::try_from(bytes.len()).context("an answer over TCP")?;
        stream.write_all(&[&len.to_be_bytes(), bytes.as_slice()].concat())?;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
