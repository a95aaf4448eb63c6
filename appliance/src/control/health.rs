//! `xdnsd health`: whether a daemon answers, for a watchdog outside of it (procd, busybox init, a cron job): a
//! process that is stopped or that hangs holds its sockets, and the kernel goes on to give it queries.
//!
//! It is asked twice, each with a bound: as a client asks, and over the control socket, where it looks at its own threads.
//! One answer is enough to let it live: a client may be refused silence by the config, and the control socket may be busy
//! with a reload.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::metrics::not_taken;
use super::socket;
use crate::config::{Config, Devices, Plan};
use crate::os::clock;
use crate::text;
use crate::worker::engines;

/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is asked for. Another address each time, as far as there are any.
const TRIES: usize = 6;
/// How long a thread is looked at before it counts as hanging: it turns at least once a second.
const STILL: Duration = Duration::from_secs(3);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long the main thread may take over one thing.
const MAIN_THREAD_MAX_MS: u64 = 60_000;
/// `localhost A`, which needs no upstream.
const QUERY: [u8; 27] = *b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";

/// When the main thread last looked after things, in milliseconds of the monotonic clock.
pub static MAIN_THREAD_MS: AtomicU64 = AtomicU64::new(0);

/// How a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Well,
    /// It runs and does not answer.
    Hangs(String),
    /// Nobody is there, or nobody can be asked.
    Unknown(String),
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => formatter.write_str("answers"),
            Self::Hangs(why) | Self::Unknown(why) => formatter.write_str(why),
        }
    }
}

/// Asks the daemon that serves `config` on this machine.
#[must_use]
pub fn ask(config: &Config) -> Health {
    let since = Instant::now();
    let plan = Devices::read().map(|devices| config.plan(&devices));
    let asked = plan.map_or(None, |plan| ask_as_client(&plan));
    if asked == Some(true) {
        return Health::Well;
    }
    let Some(socket) = &config.control.socket.as_deref() else {
        return match asked {
            Some(_) => Health::Hangs("does not answer".into()),
            None => Health::Unknown("no address to ask at, and no control socket".into()),
        };
    };
    match ask_itself(socket) {
        Ok(()) => Health::Well,
        Err(error) => judge(socket, since.elapsed(), &error),
    }
}

/// Whether it answers a query of this machine; `None`: there is nothing to ask.
fn ask_as_client(plan: &Plan) -> Option<bool> {
    let mut servers = plan
        .endpoints
        .iter()
        .map(|endpoint| endpoint.socket_addr())
        .cycle();
    for _ in 0..TRIES {
        if answers(servers.next()?).is_ok() {
            return Some(true);
        }
    }
    Some(false)
}

/// Asks once.
fn answers(server: SocketAddr) -> io::Result<()> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(&QUERY)?;
    let mut answer = [0; 512];
    let len = socket.recv(&mut answer)?;
    if answer[..len].starts_with(&QUERY[..2]) {
        Ok(())
    } else {
        Err(ErrorKind::InvalidData.into())
    }
}

/// Asks over the control socket.
fn ask_itself(socket: &Path) -> io::Result<()> {
    socket::ask(socket, "health", &mut io::sink())
}

/// Files that a daemon which answers does not take as they are, a line each, as far as it says so.
#[must_use]
pub fn not_taken(config: &Config) -> String {
    let mut counters = Vec::new();
    let socket = config.control.socket.as_deref();
    let asked = socket.map(|socket| socket::ask(socket, "stats", &mut counters));
    match asked {
        Some(Ok(())) => not_taken::in_words(&String::from_utf8_lossy(&counters)),
        Some(Err(_)) | None => String::new(),
    }
}

/// What it means that the control socket gave no word of health, after so long in all.
fn judge(socket: &Path, waited: Duration, error: &io::Error) -> Health {
    let why = error.to_string();
    let is = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
    if is(&[
        ErrorKind::NotFound,
        ErrorKind::NotADirectory,
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
        ErrorKind::PermissionDenied,
    ]) {
        Health::Unknown(why)
    } else if why.starts_with("unknown request") {
        // An older one, which answers.
        Health::Well
    } else if is(&[ErrorKind::WouldBlock, ErrorKind::TimedOut]) {
        Health::Hangs(format!(
            "no answer in {} s to queries and at {}",
            waited.as_secs_f64().round(),
            text::path(socket)
        ))
    } else {
        Health::Hangs(why)
    }
}

/// What the daemon finds when it looks at itself.
///
/// # Errors
/// What does not go on.
pub fn look() -> Result<(), String> {
    let deadline = Instant::now() + STILL;
    let still = engines::still(|| {
        thread::sleep(LOOK);
        Instant::now() < deadline
    });
    if let Some(worker) = still.first() {
        return Err(format!("worker {worker} hangs"));
    }
    let last = MAIN_THREAD_MS.load(Ordering::Relaxed);
    let now = clock::now().millis();
    if last != 0 && now.saturating_sub(last) > MAIN_THREAD_MAX_MS {
        return Err("the main thread hangs".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query was waited for before.
    #[test]
    fn the_time_that_is_told_is_the_whole_one() {
        let judged = |kind: ErrorKind, waited| judge(Path::new("/x"), waited, &kind.into());
        let expected = "no answer in 8 s to queries and at /x";
        for kind in [ErrorKind::WouldBlock, ErrorKind::TimedOut] {
            let waited = Duration::from_millis(8_040);
            assert_eq!(judged(kind, waited), Health::Hangs(expected.into()));
        }
        let away = judged(ErrorKind::ConnectionRefused, Duration::ZERO);
        assert!(matches!(away, Health::Unknown(_)), "{away:?}");
        let older = io::Error::other("unknown request; allowed: x");
        assert_eq!(judge(Path::new("/x"), Duration::ZERO, &older), Health::Well);
    }

    #[test]
    fn an_answer_is_waited_for_and_no_longer() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("its address");
        assert!(answers(address).is_err(), "nobody reads");
        let answered = thread::scope(|scope| {
            scope.spawn(|| {
                let mut query = [0; 64];
                // The one that nobody read, and the one that is waited for.
                for _ in 0..2 {
                    let (len, client) = server.recv_from(&mut query).expect("a query");
                    server.send_to(&query[..len], client).expect("sent");
                }
            });
            answers(address)
        });
        assert!(answered.is_ok(), "{answered:?}");
    }
}
