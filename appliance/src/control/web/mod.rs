//! `xdnsd web`: metrics over HTTP and a status page, by a separate process, which asks the daemon over its control socket.
//!
//! ```text
//!  browser, Prometheus ──HTTP──► xdnsd web ──control socket──► daemon
//!                                 no rights, no rings           knows nothing of HTTP
//! ```
//! Bytes from HTTP never reach the process that holds the rings. It only reads, so membership in the socket's group
//! (`control.group`) is all that it needs. A connection has one request, with bounds on its length and time, and one answer;
//! the number of connections is bounded, and a further one is closed.

mod page;
mod request;
mod watch;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use log::{info, warn};

use crate::compile::prefix::Prefix;
use crate::config::Config;
use crate::control::memory::Capacities;
use crate::control::tail::top::ask;
use crate::os::clock;
use crate::os::holder::{self, Protocol};
use request::{Hosts, HttpRequest, HttpResponse};
use watch::StatusPoller;

/// Time that a client has to send its request, and to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum number of connections. When full, the next one is closed.
const CONNECTIONS_MAX: usize = 16;
/// Maximum length of a request, in bytes.
const REQUEST_BYTES_MAX: usize = 8192;
/// Pause after accept(2) was out of descriptors.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause after an address could not be listened on.
const BIND_PAUSE: Duration = Duration::from_secs(2);

/// State that all connections share.
struct Site {
    socket: PathBuf,
    allowed: Vec<Prefix>,
    hosts: Hosts,
    watch: StatusPoller,
    connections: AtomicUsize,
}

/// Serves as `[web]` of the config says, until the process is ended. An address that cannot be listened on yet is tried again
/// while others are served.
///
/// # Errors
/// Nothing is to be served, or none of the addresses can be listened on; in words.
pub fn run(config: &Config) -> Result<(), String> {
    let web = &config.web;
    let Some(socket) = config.control.socket.as_deref() else {
        return Err("web: needs control.socket".into());
    };
    if web.listen.is_empty() {
        return Err("web.listen is empty: there is no address to serve at".into());
    }
    let site = Arc::new(Site {
        socket: socket.to_owned(),
        allowed: web.allow.iter().map(|network| network.0).collect(),
        hosts: Hosts::new(web.hosts.iter().map(ToString::to_string)),
        watch: StatusPoller::new(socket.to_owned(), Capacities::of(config)),
        connections: AtomicUsize::new(0),
    });
    let addresses = web.listen.iter().map(|address| address.0);
    let bound: Vec<_> = addresses.map(|address| (address, bind(address))).collect();
    if bound.iter().all(|(_, listener)| listener.is_err()) {
        let problems = bound.into_iter().filter_map(|(_, listener)| listener.err());
        return Err(problems.collect::<Vec<_>>().join("\n"));
    }
    let watcher = Arc::clone(&site);
    spawn("web watch", move || watcher.watch.run())?;
    let mut threads = Vec::new();
    for (address, listener) in bound {
        let site = Arc::clone(&site);
        let listen = move || {
            let listener = listener.unwrap_or_else(|problem| bind_later(address, problem));
            info!("web: http://{address}/");
            site.listen(&listener);
        };
        threads.push(spawn("web", listen)?);
    }
    for thread in threads {
        // The threads end only by a fault.
        let _ = thread.join();
    }
    Err("web: a thread has ended".into())
}

/// Listens on an address.
///
/// # Errors
/// Why that cannot be; who has the address.
fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address);
    listener.map_err(|error| {
        let why = holder::explain(Protocol::Tcp, address, &error);
        format!("web.listen: {why}")
    })
}

/// Listens on an address as soon as that can be. A problem is logged once until it is another.
fn bind_later(address: SocketAddr, mut problem: String) -> TcpListener {
    loop {
        warn!("{problem}; the rest is served, and this when it can be");
        problem = loop {
            thread::sleep(BIND_PAUSE);
            match bind(address) {
                Ok(listener) => return listener,
                Err(now) if now == problem => {}
                Err(now) => break now,
            }
        };
    }
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, String> {
    let builder = thread::Builder::new().name(name.to_owned());
    let started = builder.spawn(work);
    started.map_err(|error| format!("{name} thread: {error}"))
}

impl Site {
    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            match client {
                Ok(client) => self.accept(client),
                Err(error) => {
                    warn!("web: accept: {error}");
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Serves the client on a thread of its own, if it is allowed and there is room.
    fn accept(self: &Arc<Self>, client: TcpStream) {
        let ends = (client.peer_addr(), client.local_addr());
        let (Ok(peer), Ok(local)) = ends else {
            return;
        };
        // A program on this machine connects to an address of it from that very address.
        let (peer, local) = (peer.ip().to_canonical(), local.ip().to_canonical());
        if peer != local && !self.is_allowed(peer) {
            return;
        }
        if self.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let site = Arc::clone(self);
        let serve = move || {
            // An error of a connection affects no other.
            let _ = site.serve(&client);
            site.connections.fetch_sub(1, Ordering::Relaxed);
        };
        if spawn("web client", serve).is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// True for loopback addresses, and for configured prefixes.
    fn is_allowed(&self, peer: IpAddr) -> bool {
        let is_named = |prefix: &Prefix| {
            peer.is_ipv4() == prefix.address().is_ipv4()
                && Prefix::masked(peer, prefix.length()) == *prefix
        };
        peer.is_loopback() || self.allowed.iter().any(is_named)
    }

    fn serve(&self, mut client: &TcpStream) -> io::Result<()> {
        client.set_write_timeout(Some(PATIENCE))?;
        let head = read_head(client)?;
        let answer = match HttpRequest::parse(&head, &self.hosts) {
            Ok(request) => self.answer(&request),
            Err(refused) => refused,
        };
        let now = clock::own_wall_secs().map(|secs| UNIX_EPOCH + Duration::from_secs(secs));
        client.write_all(&answer.bytes(now))?;
        client.shutdown(Shutdown::Write)?;
        // Unread bytes would make the kernel reset the connection and drop the answer.
        client.set_read_timeout(Some(Duration::from_millis(200)))?;
        let _ = client.read(&mut [0; 512]);
        Ok(())
    }

    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let answer = match request.path.as_str() {
            "/" => Ok(HttpResponse::page(page::HTML)),
            "/metrics" => ask(&self.socket, "stats").map(HttpResponse::metrics),
            "/data.json" => self.watch.data().map(HttpResponse::json),
            _ => Ok(HttpResponse::plain(404, "there are / and /metrics")),
        };
        let answer = answer.unwrap_or_else(|problem| HttpResponse::plain(503, &problem));
        answer.without_body(request.is_head)
    }
}

/// Reads until the request's head is complete, too long or too late.
fn read_head(mut client: &TcpStream) -> io::Result<Vec<u8>> {
    let over = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !request::is_whole(&head) && head.len() < REQUEST_BYTES_MAX {
        let left = over.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_read_timeout(Some(left))?;
        match client.read(&mut part)? {
            0 => break,
            count => head.extend(&part[..count]),
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use xdnsd_lab::wait::wait_until;

    use super::*;

    fn config(listen: &[SocketAddr]) -> Config {
        let listen: Vec<String> = listen
            .iter()
            .map(|address| format!("\"{address}\""))
            .collect();
        let text = format!(
            "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n[web]\nlisten = [{}]\n",
            listen.join(", ")
        );
        Config::parse("test.toml", &text).expect("valid")
    }

    #[test]
    fn an_address_that_is_taken_names_who_has_it_and_is_served_when_it_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = taken.local_addr().expect("an address");
        let problem = run(&config(&[address])).expect_err("it is taken");
        let expected = format!(
            "web.listen: TCP {address}: bind: Address already in use: another process has it; "
        );
        // The holder is this process itself here.
        assert!(problem.starts_with(&expected), "{problem}");
        let other = TcpListener::bind("127.0.0.1:0").expect("another");
        let free = other.local_addr().expect("an address");
        drop(other);
        let config = config(&[address, free]);
        thread::spawn(move || run(&config));
        let answers = |address: SocketAddr| {
            let said = TcpStream::connect(address).and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
                let mut said = String::new();
                stream.read_to_string(&mut said)?;
                Ok(said)
            });
            said.is_ok_and(|said| said.starts_with("HTTP/1.1 404"))
        };
        wait_until("the other is served", 2 * PATIENCE, || answers(free)).expect("served");
        drop(taken);
        wait_until("it is served as well", 2 * PATIENCE, || answers(address)).expect("served");
    }
}
