//! The control socket: a UNIX stream socket for root, one line per request.
//!
//! ```text
//!  client: cache dump\n
//!  daemon: line\n line\n ... ok\n            or, as the last line: error: what is wrong\n
//! ```
//! The last line is the status, so a truncated answer cannot be taken for a complete one. In an error of several lines, a tab
//! stands for each newline. A request that reads or writes files, or whose answer exceeds a socket's buffer, is answered with
//! an empty line at once, so that its client waits, and is carried out by a second thread. Each of the two serves one client at
//! a time, with bounds on every line, on the time in which a request arrives, and on each wait for a client that does not read.
//! Unfinished requests delay no other (`arriving.rs`). No worker waits for the threads.

mod arriving;

pub mod handover;
mod rights;

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};

pub use arriving::BYTES as ARRIVING_BYTES;
use arriving::{PendingRequests, ReadRequest};
use handover::{Admit, AttachedReader};
pub use rights::Group;

use crate::os::files::place::{self, Obstacle};
use crate::os::socket::UNIX_PATH_BYTES_MAX;
use crate::text;

/// Requests that read or write files, and those with a client that may have to read before all of the answer is written.
const SLOW: &[&str] = &[
    "reload",
    "cache save",
    "cache dump",
    "json cache dump",
    "why",
    "json why",
    "pause",
    "json pause",
    "resume",
];
/// Begins the request of a reader of the tap.
pub const TAP: &str = "tap ";
/// Maximum length of a request with its newline, in bytes.
const REQUEST_BYTES_MAX: usize = 512;
/// Time in which a request has to arrive, and longest wait for a client that does not read. Then the client is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time that the daemon waits for a request that reads or writes files.
pub const FILES_MAX: Duration = Duration::from_secs(55);
/// Time that the client waits for such a request: longer.
const PATIENCE_FILES: Duration = Duration::from_secs(60);
/// Minimum timeout.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);
const _: () = assert!(PATIENCE_FILES.as_secs() > FILES_MAX.as_secs());
/// Pause of the thread after an accept has failed, so that it does not fill the log.
const PAUSE: Duration = Duration::from_secs(1);
/// Clients that may wait for the second thread, behind the one that it serves.
const WAITING_MAX: usize = 4;
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 4;

/// Last line after success.
const OK: &str = "ok";
/// Begins the last line after a failure.
const ERROR: &str = "error: ";
/// Refusal for members of the group.
const ONLY_LOOKS: &str = "the group of the socket may only look (control.group_may); root and the account that xdnsd runs under may do this";
/// Stands for a newline in an error. Text in answers never has a tab of its own.
const LINE_END: &str = "\t";

/// Why a request was not carried out.
#[derive(Debug)]
pub enum CommandError {
    /// The request is refused, for this reason.
    Refused(String),
    /// The client is gone.
    Io(io::Error),
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Carries out one request: gets the words after its name, writes lines.
pub type RequestHandler =
    Box<dyn Fn(&[&str], &mut dyn Write) -> Result<(), CommandError> + Send + Sync>;

/// A request that is served.
struct Command {
    name: &'static str,
    run: RequestHandler,
}

/// The requests that are served, until the threads take them.
#[derive(Default)]
pub struct Commands {
    list: Vec<Command>,
    /// Admits readers of the tap.
    admit: Option<Admit>,
}

impl Commands {
    /// Adds a request by its name, which may have two words.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        run: impl Fn(&[&str], &mut dyn Write) -> Result<(), CommandError> + Send + Sync + 'static,
    ) -> Self {
        self.list.push(Command {
            name,
            run: Box::new(run),
        });
        self
    }

    /// Sets the handler for readers of the tap.
    #[must_use]
    pub fn with_readers(
        self,
        admit: impl Fn(&[&str], AttachedReader) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let admit: Option<Admit> = Some(Box::new(admit));
        Self { admit, ..self }
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// It is unknown or refused, or writing to `out` fails.
    pub fn carry_out(&self, request: &str, out: &mut dyn Write) -> Result<(), CommandError> {
        let words: Vec<&str> = request.split_ascii_whitespace().collect();
        for command in &self.list {
            let name: Vec<&str> = command.name.split(' ').collect();
            if let Some(arguments) = words.strip_prefix(name.as_slice()) {
                return (command.run)(arguments, out);
            }
        }
        let known: Vec<&str> = self.list.iter().map(|command| command.name).collect();
        Err(CommandError::Refused(format!(
            "unknown request; allowed: {}",
            known.join(", ")
        )))
    }
}

/// The listening socket, before its thread is started.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    file: SocketFile,
    group: Option<Group>,
}

/// Name of a listening socket, removed on drop.
#[derive(Debug)]
#[must_use = "dropping it removes the socket's name"]
pub struct SocketFile(Box<Path>);

impl Control {
    /// Listens at `path`. A socket that a dead process left there is replaced.
    ///
    /// # Errors
    /// Another process answers there, something other than a socket exists there, or a system call failed.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Self::bind_for(path, None)
    }

    /// Like [`bind`](Self::bind), also for a group. If the group cannot be given access, the socket is made without it, and the
    /// log says why.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    pub fn bind_for(path: &Path, group: Option<&Group>) -> io::Result<Self> {
        if let Some(Obstacle { what, .. }) = obstacle(path) {
            return Err(io::Error::other(what));
        }
        let told = |error: io::Error| told(path, &error);
        remove_stale(path).map_err(told)?;
        let listener = listen_for_root(path).map_err(told)?;
        if let Some(group) = group
            && let Err(what) = group.admit(path)
        {
            warn!("control.group: {what}");
        }
        Ok(Self {
            listener,
            file: SocketFile(path.into()),
            group: group.cloned(),
        })
    }

    /// Splits into the server and the socket's name, which is removed at the end of the process.
    pub fn split(self) -> (ControlServer, SocketFile) {
        let Self {
            listener,
            file,
            group,
        } = self;
        (ControlServer { listener, group }, file)
    }
}

/// Serves the clients of a listening socket.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    group: Option<Group>,
}

/// A client with a slow request.
#[derive(Debug)]
pub struct QueuedRequest {
    client: UnixStream,
    request: String,
}

/// Queue for clients with slow requests. When full, the next one is refused.
#[must_use]
pub fn queue() -> (SyncSender<QueuedRequest>, Receiver<QueuedRequest>) {
    mpsc::sync_channel(WAITING_MAX)
}

/// Carries out slow requests one by one, as long as the process lives.
pub fn serve_waiting(waiting: &Receiver<QueuedRequest>, commands: &Commands) {
    for QueuedRequest { client, request } in waiting {
        let mut out = BufWriter::new(&client);
        let result = commands.carry_out(&request, &mut out);
        log_client(finish(&mut out, result));
    }
}

impl ControlServer {
    /// Serves `commands`, as long as the process lives. Slow ones go into `queue`, so that a file that does not answer delays
    /// no other client.
    pub fn serve(self, commands: &Commands, queue: &SyncSender<QueuedRequest>) {
        let mut arriving = PendingRequests::default();
        let mut is_said = false;
        loop {
            let (arrived, is_new) = arriving.wait(&self.listener);
            for arrived in arrived {
                log_client(self.serve_one(arrived, commands, queue));
            }
            if !is_new {
                continue;
            }
            match self.accept() {
                Ok(client) => {
                    is_said = false;
                    if let Some(oldest) = client.and_then(|client| arriving.add(client)) {
                        log_client(let_go(&oldest));
                    }
                }
                Err(error) => {
                    if !is_said {
                        warn!("control: accept: {error}; tried again until it can be had");
                    }
                    is_said = true;
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Accepts a client, if one waits.
    fn accept(&self) -> io::Result<Option<UnixStream>> {
        self.listener.set_nonblocking(true)?;
        match self.listener.accept() {
            Ok((client, _)) => {
                client.set_write_timeout(Some(PATIENCE))?;
                Ok(Some(client))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Tells the oldest idle client why it is closed.
fn let_go(client: &UnixStream) -> io::Result<()> {
    let refused = CommandError::Refused("no request came, and others wait".into());
    finish(&mut BufWriter::new(client), Err(refused))
}

impl ControlServer {
    /// Serves one client to its end, or puts it into the queue. Errors are about that client or its connection.
    fn serve_one(
        &self,
        arrived: ReadRequest,
        commands: &Commands,
        queue: &SyncSender<QueuedRequest>,
    ) -> io::Result<()> {
        let ReadRequest {
            client, request, ..
        } = &arrived;
        if !rights::may(client, request, self.group.as_ref())? {
            let refused = CommandError::Refused(ONLY_LOOKS.to_owned());
            return finish(&mut BufWriter::new(client), Err(refused));
        }
        serve(arrived, commands, queue)
    }
}

/// Logs an error of a client or its connection, which affects no other.
fn log_client(served: io::Result<()>) {
    if let Err(error) = served {
        debug!("control: client: {error}");
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already, and if not there is nothing to do about it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Obstacle to a socket at `path`, as far as it shows in advance: the folder takes none from this process, or something else
/// has that name.
#[must_use]
pub fn obstacle(path: &Path) -> Option<Obstacle> {
    let other = || match place::found(path) {
        Ok(found) => {
            let kind = found?.file_type();
            (!kind.is_socket()).then(|| place::of_kind(path, kind, "socket"))
        }
        Err(obstacle) => Some(obstacle),
    };
    let obstacle = place::folder_obstacle(path).or_else(other);
    Some(obstacle?.so("no control socket can be had"))
}

/// The error with its path.
fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Removes a socket without a listener.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        // It was made just now.
        Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
    }
    let used = |problem: &str| Err(io::Error::new(ErrorKind::AddrInUse, problem));
    match connect(path, PAUSE) {
        Ok(_) => used("another process answers at this socket"),
        // Its queue is full: the daemon was stopped, or hangs.
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
            used("another process has this socket and does not answer")
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// The mode is set before the name exists, so there is no moment in which others may connect.
fn listen_for_root(path: &Path) -> io::Result<UnixListener> {
    let kind = (
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
    );
    let fd = socket::socket(kind.0, kind.1, kind.2, None)?;
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(fd))
}

/// True if the request is among [`SLOW`], whatever words follow its name.
fn is_slow(request: &str) -> bool {
    let rest = |name: &&str| request.strip_prefix(name);
    SLOW.iter()
        .filter_map(rest)
        .any(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Serves one request, or puts it into the queue.
fn serve(
    arrived: ReadRequest,
    commands: &Commands,
    queue: &SyncSender<QueuedRequest>,
) -> io::Result<()> {
    let ReadRequest {
        client,
        request,
        brought,
    } = arrived;
    let Some(request) = request.strip_suffix('\n') else {
        let refused = CommandError::Refused(format!(
            "a request is one line of at most {REQUEST_BYTES_MAX} bytes"
        ));
        return finish(&mut BufWriter::new(&client), Err(refused));
    };
    if let Some(words) = request.strip_prefix(TAP) {
        let admitted = handover::admit(commands.admit.as_ref(), words, &client, brought);
        return finish(&mut BufWriter::new(&client), admitted);
    }
    if !is_slow(request) {
        let mut out = BufWriter::new(&client);
        let result = commands.carry_out(request, &mut out);
        return finish(&mut out, result);
    }
    (&client).write_all(b"\n")?;
    let request = request.to_owned();
    match queue.try_send(QueuedRequest { client, request }) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(left) | TrySendError::Disconnected(left)) => {
            let refused = CommandError::Refused(format!(
                "{WAITING_MAX} requests that take their time wait already"
            ));
            finish(&mut BufWriter::new(&left.client), Err(refused))
        }
    }
}

/// Writes the status after the lines of the answer.
fn finish(out: &mut impl Write, result: Result<(), CommandError>) -> io::Result<()> {
    match result {
        Ok(()) => writeln!(out, "{OK}")?,
        Err(CommandError::Refused(problem)) => {
            let lines: Vec<_> = problem.split('\n').map(text::line).collect();
            writeln!(out, "{ERROR}{}", lines.join(LINE_END))?;
        }
        Err(CommandError::Io(error)) => return Err(error),
    }
    out.flush()
}

/// Client side: sends `request` and copies the answer's lines to `out`.
///
/// # Errors
/// No daemon answers at `path`, the answer is truncated, or the daemon reports a problem.
pub fn ask(path: &Path, request: &str, out: &mut dyn Write) -> io::Result<()> {
    ask_within(path, request, out, [PATIENCE, PATIENCE_FILES])
}

/// Like [`ask`], for a daemon that should answer at once.
///
/// # Errors
/// As [`ask`], or there was no answer within `patience`.
pub fn ask_briefly(
    path: &Path,
    request: &str,
    out: &mut dyn Write,
    patience: Duration,
) -> io::Result<()> {
    ask_within(path, request, out, [patience, patience])
}

/// Like [`ask`], with a timeout for the first line and between lines, and a second one for a daemon that has announced slow
/// work.
fn ask_within(
    path: &Path,
    request: &str,
    out: &mut dyn Write,
    [mut patience, patience_files]: [Duration; 2],
) -> io::Result<()> {
    let mut is_slow = is_slow(request);
    check_length(request).map_err(|problem| io::Error::new(ErrorKind::InvalidInput, problem))?;
    let request = format!("{request}\n");
    let failed = |error: io::Error| connection_failed(path, patience, &error);
    let begun = Instant::now();
    let daemon = connect(path, patience).map_err(failed)?;
    // Connecting may have taken most of it. Zero would mean no timeout.
    let left = patience.saturating_sub(begun.elapsed()).max(LEAST_PATIENCE);
    daemon.set_write_timeout(Some(left))?;
    daemon.set_read_timeout(Some(left))?;
    (&daemon).write_all(request.as_bytes()).map_err(failed)?;
    let mut is_first = true;
    let mut reader = BufReader::new(&daemon);
    let mut status: Option<String> = None;
    // Time for which our reader took nothing: the daemon waits [`PATIENCE`] for us, and so for it.
    let mut waited = Duration::ZERO;
    loop {
        let mut line = Vec::new();
        let failed = |error: io::Error| connection_failed(path, patience, &error);
        if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let is_at_work = std::mem::take(&mut is_slow) && line == b"\n";
        if is_at_work {
            patience = patience_files;
        }
        if std::mem::take(&mut is_first) {
            daemon.set_read_timeout(Some(patience))?;
        }
        if is_at_work {
            continue;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Some(line) = status.replace(String::from_utf8_lossy(line).into_owned()) {
            let begun = Instant::now();
            writeln!(out, "{}", text::line(&line))?;
            waited = waited.max(begun.elapsed());
        }
    }
    out.flush()?;
    match status.as_deref() {
        Some(OK) => Ok(()),
        Some(status) => match status.strip_prefix(ERROR) {
            Some(problem) => {
                let lines: Vec<_> = problem.split(LINE_END).map(text::line).collect();
                Err(io::Error::other(lines.join("\n")))
            }
            None => Err(io::Error::new(ErrorKind::UnexpectedEof, cut_short(waited))),
        },
        None => Err(io::Error::new(ErrorKind::UnexpectedEof, "no answer")),
    }
}

/// Error for a truncated answer; `waited` is the longest time for which its reader took nothing.
fn cut_short(waited: Duration) -> String {
    let (secs, max) = (waited.as_secs(), PATIENCE.as_secs());
    match secs < max {
        true => "the answer was cut short".into(),
        false => format!(
            "the answer was cut short: its reader took nothing for {secs} s, and the daemon waits for {max}; write it to a file first"
        ),
    }
}

/// Checks that a socket can have this path.
///
/// # Errors
/// In words.
pub fn check_path(path: &Path) -> Result<(), String> {
    if path.as_os_str().len() <= UNIX_PATH_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "the path of a socket has at most {UNIX_PATH_BYTES_MAX} bytes"
    ))
}

/// Checks that a daemon would read so long a request.
///
/// # Errors
/// In words.
pub fn check_length(request: &str) -> Result<(), String> {
    if request.len() < REQUEST_BYTES_MAX {
        return Ok(());
    }
    Err(format!("a request has at most {REQUEST_BYTES_MAX} bytes"))
}

/// Connects. A daemon that hangs does not accept: with a full queue connect(2) waits, as long as a write may.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (family, kind) = (AddressFamily::Unix, SockType::Stream);
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let daemon = UnixStream::from(fd);
    daemon.set_read_timeout(Some(patience))?;
    daemon.set_write_timeout(Some(patience))?;
    check_path(path).map_err(|problem| io::Error::new(ErrorKind::InvalidInput, problem))?;
    socket::connect(daemon.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(daemon)
}

/// What else there may be where nobody listens, for commands that take the socket's path.
pub const OR_ANOTHER: &str = ", or --socket PATH";

/// Describes why there is no answer, with what to do. The kind is never one that a caller would take for an error of our own
/// reader.
fn connection_failed(path: &Path, patience: Duration, error: &io::Error) -> io::Error {
    let is = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
    let path = text::path(path);
    io::Error::new(
        error.kind(),
        if is(&[
            ErrorKind::NotFound,
            ErrorKind::ConnectionRefused,
            ErrorKind::NotADirectory,
        ]) {
            format!("no xdnsd listens at {path}: not running{OR_ANOTHER}")
        } else if is(&[ErrorKind::PermissionDenied]) {
            format!(
                "{path}: only root, the account that xdnsd runs under, and the group of the socket (control.group) may ask it"
            )
        } else if is(&[ErrorKind::WouldBlock, ErrorKind::TimedOut]) {
            let secs = patience.as_secs();
            format!("no answer in {secs} s from the xdnsd at {path}")
        } else if is(&[ErrorKind::ConnectionReset, ErrorKind::BrokenPipe]) {
            format!("{path}: xdnsd has closed the connection")
        } else {
            format!("{path}: {error}")
        },
    )
}

#[cfg(test)]
mod tests;
