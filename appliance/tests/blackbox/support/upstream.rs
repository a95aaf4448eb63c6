//! An upstream server that does what a test tells it, name by name, and remembers what it was asked.
//!
//! ```text
//!  upstream host: eth0  10.54.0.2  fd54::2   asked: UDP and TCP port 53 of each address
//!                       10.54.0.3  fd54::3   asked, where a test wants a second server
//!                       10.54.0.66 fd54::66  never asked: forged answers come from here
//! ```

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hickory_proto::op::{Message, ResponseCode};
use xdnsd_lab::lab::{HOST_INTERFACE, Lab, UPSTREAM_V4, UPSTREAM_V6};

use super::message::wire;
use super::script::{Answer, Fault, Rule};

/// A second server.
pub const SECOND_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 54, 0, 3));
/// From where nobody is asked.
const FORGER_V4: &str = "10.54.0.66";
const FORGER_V6: &str = "fd54::66";
const PORT: u16 = 53;
/// How often the threads look whether they are to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longer than any query.
const MESSAGE_MAX: usize = 4096;

/// One question as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub server: IpAddr,
    pub from: SocketAddr,
    pub is_tcp: bool,
    pub query: Message,
}

impl Asked {
    /// The QNAME, with its letter case.
    pub fn name(&self) -> String {
        let question = self.query.queries().first();
        question.map_or_else(String::new, |question| question.name().to_ascii())
    }
}

/// The running server. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By server (`None`: any) and name in lower case, which may begin with `*.`.
    rules: Mutex<HashMap<(Option<IpAddr>, String), Rule>>,
    asked: Mutex<Vec<Asked>>,
    is_ending: AtomicBool,
}

impl Upstream {
    /// Serves in the lab's upstream host: at its own addresses and at [`SECOND_V4`].
    pub fn start(lab: &Lab) -> Result<Self> {
        lab.upstream.ip(&format!(
            "address add {SECOND_V4}/24 dev {HOST_INTERFACE}
             address add {FORGER_V4}/24 dev {HOST_INTERFACE}
             address add {FORGER_V6}/64 dev {HOST_INTERFACE} nodad\n"
        ))?;
        let mut upstream = Self {
            shared: Arc::default(),
            threads: Vec::new(),
        };
        let forger = |address: &str| -> Result<Arc<UdpSocket>> {
            let address = SocketAddr::new(address.parse()?, PORT);
            Ok(Arc::new(lab.upstream.run(|| udp_socket(address))?))
        };
        let (forger_v4, forger_v6) = (forger(FORGER_V4)?, forger(FORGER_V6)?);
        for (address, forger) in [
            (UPSTREAM_V4.into(), &forger_v4),
            (UPSTREAM_V6.into(), &forger_v6),
            (SECOND_V4, &forger_v4),
        ] {
            let started = lab.upstream.run(|| upstream.serve(address, forger.clone()));
            started.with_context(|| format!("serve at {address}"))?;
        }
        Ok(upstream)
    }

    /// Serves at one more address of the upstream host, which it gets.
    pub fn serve_also(&mut self, lab: &Lab, address: IpAddr) -> Result<()> {
        let len = if address.is_ipv4() { "32" } else { "128 nodad" };
        let (address_len, flags) = len.split_once(' ').unwrap_or((len, ""));
        lab.upstream.ip(&format!(
            "address add {address}/{address_len} dev {HOST_INTERFACE} {flags}\n"
        ))?;
        let forger = SocketAddr::new(
            if address.is_ipv4() {
                FORGER_V4
            } else {
                FORGER_V6
            }
            .parse()?,
            0,
        );
        let started = lab.upstream.run(|| {
            let forger = Arc::new(udp_socket(forger)?);
            self.serve(address, forger)
        });
        started.with_context(|| format!("serve at {address}"))
    }

    /// Does this when `name` is asked for. `*.` in front covers every name below.
    pub fn on(&self, name: &str, rule: Rule) {
        lock(&self.shared.rules).insert((None, name.to_ascii_lowercase()), rule);
    }

    /// The same at one address only.
    pub fn on_server(&self, server: impl Into<IpAddr>, name: &str, rule: Rule) {
        let key = (Some(server.into()), name.to_ascii_lowercase());
        lock(&self.shared.rules).insert(key, rule);
    }

    /// The questions for `name` so far.
    pub fn asked(&self, name: &str) -> Vec<Asked> {
        let asked = lock(&self.shared.asked);
        let of_name = asked
            .iter()
            .filter(|asked| asked.name().eq_ignore_ascii_case(name));
        of_name.cloned().collect()
    }

    /// All questions so far.
    pub fn asked_all(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// Starts the threads of one address. Runs inside the namespace.
    fn serve(&mut self, address: IpAddr, forger: Arc<UdpSocket>) -> Result<()> {
        let udp = UdpServer {
            socket: udp_socket(SocketAddr::new(address, PORT))?,
            other_port: udp_socket(SocketAddr::new(address, 0))?,
            other_address: forger,
        };
        let listener = TcpListener::bind((address, PORT)).context("listen")?;
        listener.set_nonblocking(true)?;
        let shared = self.shared.clone();
        self.threads
            .push(thread::spawn(move || udp.run(address, &shared)));
        let shared = self.shared.clone();
        self.threads
            .push(thread::spawn(move || accept(address, &listener, &shared)));
        Ok(())
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

fn udp_socket(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

struct UdpServer {
    socket: UdpSocket,
    other_port: UdpSocket,
    other_address: Arc<UdpSocket>,
}

impl UdpServer {
    fn run(self, server: IpAddr, shared: &Shared) {
        let socket = Arc::new(self.socket);
        let mut buffer = [0; MESSAGE_MAX];
        while !shared.is_ending.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let Ok(query) = Message::from_vec(&buffer[..len]) else {
                eprintln!("the upstream got no message: {:02x?}", &buffer[..len]);
                continue;
            };
            let rule = shared.take(server, from, false, &query);
            for fault in rule.faults {
                let sender = match fault {
                    Fault::Port => &self.other_port,
                    Fault::Address => &*self.other_address,
                    Fault::Id | Fault::Name | Fault::Type | Fault::Query | Fault::Garbage => {
                        &*socket
                    }
                };
                send(sender, &fault.bytes(&query), from);
            }
            let Some(answer) = rule.answer else { continue };
            let socket = socket.clone();
            later(rule.delay, move || {
                send(&socket, &wire(&fitting(&answer, &query)), from);
            });
        }
    }
}

/// The answer as far as the asker's buffer holds it: else TC and no records.
fn fitting(answer: &Answer, query: &Message) -> Message {
    let size = query
        .extensions()
        .as_ref()
        .map_or(512, |edns| edns.max_payload());
    let message = answer.message(query);
    if wire(&message).len() <= usize::from(size) {
        return message;
    }
    answer.clone().truncated().message(query)
}

/// Does `work` after `delay`, without holding up other questions.
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
    // The asking port may be gone; that is the asker's business.
    let _ = socket.send_to(message, to);
}

fn accept(server: IpAddr, listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_ending.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => {
                let shared = shared.clone();
                thread::spawn(move || {
                    if let Err(error) = serve_stream(server, stream, from, &shared) {
                        eprintln!("the upstream's TCP connection from {from}: {error:#}");
                    }
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PATIENCE / 10),
            Err(error) => eprintln!("the upstream's accept: {error}"),
        }
    }
}

/// Messages one after the other, each with its length in front (RFC 1035 section 4.2.2), until the other end closes.
fn serve_stream(
    server: IpAddr,
    mut stream: TcpStream,
    from: SocketAddr,
    shared: &Shared,
) -> Result<()> {
    stream.set_nonblocking(false)?;
    loop {
        let mut len = [0; 2];
        match stream.read_exact(&mut len) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut bytes)?;
        let query = Message::from_vec(&bytes)?;
        let rule = shared.take(server, from, true, &query);
        let Some(answer) = rule.answer else { continue };
        thread::sleep(rule.delay);
        let bytes = match rule.stream_fault {
            Some(fault) => fault.bytes(&query),
            None => wire(&answer.message(&query)),
        };
        stream.write_all(&u16::try_from(bytes.len())?.to_be_bytes())?;
        stream.write_all(&bytes)?;
    }
}

impl Shared {
    /// Notes the question and says what to do this time.
    fn take(&self, server: IpAddr, from: SocketAddr, is_tcp: bool, query: &Message) -> Rule {
        let asked = Asked {
            at: Instant::now(),
            server,
            from,
            is_tcp,
            query: query.clone(),
        };
        let name = asked.name().to_ascii_lowercase();
        lock(&self.asked).push(asked);
        let mut rules = lock(&self.rules);
        let key = find(&rules, server, &name);
        let Some(rule) = key.and_then(|key| rules.get_mut(&key)) else {
            return Rule::code(ResponseCode::Refused);
        };
        if rule.drop_first > 0 {
            rule.drop_first -= 1;
            return Rule::silence();
        }
        rule.clone()
    }
}

/// The key of the rule for `name` at `server`: the name itself, then wildcards from near to far; the server's own
/// rules first.
fn find(
    rules: &HashMap<(Option<IpAddr>, String), Rule>,
    server: IpAddr,
    name: &str,
) -> Option<(Option<IpAddr>, String)> {
    let parents = name
        .match_indices('.')
        .map(|(at, _)| format!("*{}", &name[at..]));
    for candidate in std::iter::once(name.to_owned()).chain(parents) {
        for server in [Some(server), None] {
            let key = (server, candidate.clone());
            if rules.contains_key(&key) {
                return Some(key);
            }
        }
    }
    None
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
