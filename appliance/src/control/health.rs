//! `xdnsd health`: whether a daemon answers, for a watchdog outside of it (procd, busybox init, a cron job): a process that is
//! stopped or hangs keeps its sockets, and the kernel goes on to give it queries.
//!
//! The daemon is asked in two ways, each with a timeout: like a client, and over the control socket, where it looks at its own
//! threads. One answer is enough to let it live: the config may refuse clients without an answer, and the control socket may be
//! busy with a reload.

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

/// Timeout for one answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Timeout for asking a healthy daemon which files it does not take. The verdict does not depend on it, and watchdogs ask
/// often.
const FILES_PATIENCE: Duration = Duration::from_secs(1);
/// Number of queries, each to another address if there are several.
const TRIES: usize = 6;
/// Time without progress after which a thread counts as hanging: it makes a turn at least once a second.
const STILL: Duration = Duration::from_secs(3);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Time that the main thread may take for one thing, in milliseconds.
const MAIN_THREAD_MAX_MS: u64 = 60_000;
/// `localhost A`, which needs no upstream.
const QUERY: [u8; 27] = *b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";

/// Time of the main thread's last turn, in milliseconds of the monotonic clock.
pub static MAIN_THREAD_MS: AtomicU64 = AtomicU64::new(0);

/// Health of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Well,
    /// It runs and does not answer.
    Hangs(String),
    /// No daemon is there, or it cannot be asked.
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

/// True if it answers a query of this machine; `None` if there is no address to ask.
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

/// Asks one server once.
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

/// Files that a healthy daemon does not take as they are, one per line, as far as it says so. Also reports a control socket
/// that hangs.
#[must_use]
pub fn not_taken(config: &Config) -> String {
    let Some(socket) = config.control.socket.as_deref() else {
        return String::new();
    };
    let mut counters = Vec::new();
    match socket::ask_briefly(socket, "stats", &mut counters, FILES_PATIENCE) {
        Ok(()) => not_taken::in_words(&String::from_utf8_lossy(&counters)),
        Err(error) if is_silence(&error) => {
            format!("which files are not taken is not known: {error}\n")
        }
        Err(_) => String::new(),
    }
}

/// True if the error is a timeout.
fn is_silence(error: &io::Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind())
}

/// Verdict if the control socket gave no word of health; `waited` is the time in all.
fn judge(socket: &Path, waited: Duration, error: &io::Error) -> Health {
    let why = error.to_string();
    let why = match why.strip_suffix(socket::OR_ANOTHER) {
        Some(why) => format!("{why}, or started with another control.socket than this config's"),
        None => why,
    };
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
        // An older release, which answers.
        Health::Well
    } else if is_silence(error) {
        Health::Hangs(format!(
            "no answer in {} s to queries and at {}",
            waited.as_secs_f64().round(),
            text::path(socket)
        ))
    } else {
        Health::Hangs(why)
    }
}

/// The daemon's look at its own threads.
///
/// # Errors
/// The thread that does not go on.
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
    use crate::testing::Folder;
    use std::os::unix::net::UnixListener;

    /// The time for the query counts as well.
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

    /// This command has the path from the config alone.
    #[test]
    fn where_nobody_listens_the_key_of_the_config_is_named() {
        let folder = Folder::new();
        let path = folder.path().join("sock");
        let error = ask_itself(&path).expect_err("nobody listens");
        let expected = format!(
            "no xdnsd listens at {}: not running, or started with another control.socket than this config's",
            path.display()
        );
        let judged = judge(&path, Duration::ZERO, &error);
        assert_eq!(judged, Health::Unknown(expected));
    }

    /// It answers queries while its control socket hangs: a watchdog is not delayed as long as other clients.
    #[test]
    fn a_control_socket_that_hangs_is_told_and_holds_nobody_up() {
        let folder = Folder::new();
        let path = folder.path().join("sock");
        let config = |path: &Path| {
            let text = format!(
                "[[interface]]\nname = \"lo\"\n[upstream]\nservers = [\"192.0.2.1\"]\n[control]\nsocket = {path:?}\n"
            );
            Config::parse("x.toml", &text).expect("a config")
        };
        let _hung = UnixListener::bind(&path).expect("a socket");
        let begun = Instant::now();
        let said = not_taken(&config(&path));
        let took = begun.elapsed();
        let place = path.display();
        let expected = format!(
            "which files are not taken is not known: no answer in 1 s from the xdnsd at {place}\n"
        );
        assert_eq!(said, expected);
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(not_taken(&config(&folder.path().join("none"))), "");
    }

    #[test]
    fn an_answer_is_waited_for_and_no_longer() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("its address");
        assert!(answers(address).is_err(), "nobody reads");
        let answered = thread::scope(|scope| {
            scope.spawn(|| {
                let mut query = [0; 64];
                // One that is never read, and one that is waited for.
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
