//! The control socket: a UNIX stream socket for root, one line per request.
//!
//! ```text
//!  client: cache dump\n
//!  daemon: line\n line\n ... ok\n            or, as the last line: error: what is wrong\n
//! ```
//! The last line is the status, so an answer that was cut short cannot be taken for a whole one. Where what is wrong takes
//! several lines, a tab stands for each line's end. A request that has files read or written is answered with an empty line
//! at once: the daemon is there, and takes its time. One thread serves one client at a time, with bounds on every line, on the
//! time in which a request arrives, and on each wait for a client that does not read. No worker waits for it.

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};

use crate::os::socket::UNIX_PATH_BYTES_MAX;
use crate::text;

/// The requests that have files read or written.
const SLOW: &[&str] = &["reload", "cache save", "why", "json why"];
/// Longest request, with its newline.
const REQUEST_BYTES_MAX: u64 = 512;
/// A client is dropped whose request takes longer to arrive, or that does not read for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the daemon waits where a request has files read or written.
pub const FILES_MAX: Duration = Duration::from_secs(55);
/// How long its client does: longer.
const PATIENCE_FILES: Duration = Duration::from_secs(60);
const _: () = assert!(PATIENCE_FILES.as_secs() > FILES_MAX.as_secs());
/// How long the thread waits where no client can be accepted, so that it does not fill the log.
const PAUSE: Duration = Duration::from_secs(1);
/// Clients that may wait for their turn.
const BACKLOG: i32 = 4;

/// The last line of a request that was carried out.
const OK: &str = "ok";
/// Begins the last line of one that was not.
const ERROR: &str = "error: ";
/// Stands for a line's end in it. No text that is shown has one of its own.
const LINE_END: &str = "\t";

/// Why a request was not carried out.
#[derive(Debug)]
pub enum CommandError {
    /// What is wrong with it.
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
pub type Run = Box<dyn Fn(&[&str], &mut dyn Write) -> Result<(), CommandError> + Send>;

/// What may be asked for.
struct Command {
    name: &'static str,
    run: Run,
}

/// The requests that are served, until the thread takes them.
#[derive(Default)]
pub struct Commands(Vec<Command>);

impl Commands {
    /// Adds a request by its name, which may be of two words.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        run: impl Fn(&[&str], &mut dyn Write) -> Result<(), CommandError> + Send + 'static,
    ) -> Self {
        self.0.push(Command {
            name,
            run: Box::new(run),
        });
        self
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// It is unknown or refused, or `out` takes no more.
    pub fn carry_out(&self, request: &str, out: &mut dyn Write) -> Result<(), CommandError> {
        let words: Vec<&str> = request.split_ascii_whitespace().collect();
        for command in &self.0 {
            let name: Vec<&str> = command.name.split(' ').collect();
            if let Some(arguments) = words.strip_prefix(name.as_slice()) {
                return (command.run)(arguments, out);
            }
        }
        let known: Vec<&str> = self.0.iter().map(|command| command.name).collect();
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
}

/// The name of a listening socket, which goes when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it removes the socket's name"]
pub struct SocketFile(Box<Path>);

impl Control {
    /// Listens at `path`. A socket that a dead process left there is replaced.
    ///
    /// # Errors
    /// Another process answers there, something else than a socket stands there, or a system call failed.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let told = |error: io::Error| told(path, &error);
        remove_stale(path).map_err(told)?;
        let listener = listen_for_root(path).map_err(told)?;
        Ok(Self {
            listener,
            file: SocketFile(path.into()),
        })
    }

    /// What serves, and the socket's name, which whoever ends the process removes.
    pub fn split(self) -> (Server, SocketFile) {
        (Server(self.listener), self.file)
    }
}

/// Serves the clients of a listening socket.
#[derive(Debug)]
pub struct Server(UnixListener);

impl Server {
    /// Serves `commands`, as long as the process lives.
    pub fn serve(self, commands: &Commands) {
        let mut is_said = false;
        for client in self.0.incoming() {
            match client {
                Ok(client) => {
                    is_said = false;
                    if let Err(error) = serve(&client, commands) {
                        debug!("control: client: {error}");
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
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already, and nobody could do anything about it.
        let _ = fs::remove_file(&self.0);
    }
}

/// The error with the path that it is about.
fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Removes a socket that nobody listens at.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "this is no socket",
            ));
        }
    }
    let used = |problem: &str| Err(io::Error::new(ErrorKind::AddrInUse, problem));
    match connect(path, PAUSE) {
        Ok(_) => used("another process answers at this socket"),
        // Its queue is full: it was stopped, or hangs.
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

/// Whether the request has files read or written, whatever words stand behind its name.
fn is_slow(request: &str) -> bool {
    let rest = |name: &&str| request.strip_prefix(name);
    SLOW.iter()
        .filter_map(rest)
        .any(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Serves one client to its end. An error is the client's, or the connection's.
fn serve(client: &UnixStream, commands: &Commands) -> io::Result<()> {
    client.set_write_timeout(Some(PATIENCE))?;
    let request = read_request(client, Instant::now() + PATIENCE)?;
    let mut out = BufWriter::new(client);
    let result = match request.strip_suffix('\n') {
        Some(request) => {
            if is_slow(request) {
                writeln!(out)?;
                out.flush()?;
            }
            commands.carry_out(request, &mut out)
        }
        None => Err(CommandError::Refused(format!(
            "a request is one line of at most {REQUEST_BYTES_MAX} bytes"
        ))),
    };
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

/// The line that a client sends, cut at [`REQUEST_BYTES_MAX`]. An error once it is `over`, whatever arrives by then: a byte
/// now and then holds the thread no longer than silence does.
fn read_request(client: &UnixStream, over: Instant) -> io::Result<String> {
    let mut request = String::new();
    BufReader::new(Until { client, over }.take(REQUEST_BYTES_MAX)).read_line(&mut request)?;
    Ok(request)
}

/// A client that is read from until a time.
struct Until<'a> {
    client: &'a UnixStream,
    over: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.over.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.client.set_read_timeout(Some(left))?;
        let mut client = self.client;
        client.read(buffer)
    }
}

/// The client's side: sends `request` and copies the answer's lines to `out`.
///
/// # Errors
/// Nobody answers at `path`, the answer was cut short, or the daemon says what is wrong.
pub fn ask(path: &Path, request: &str, out: &mut dyn Write) -> io::Result<()> {
    ask_within(path, request, out, [PATIENCE, PATIENCE_FILES])
}

/// The same with another patience, and with another one where the daemon has said that it takes its time.
fn ask_within(
    path: &Path,
    request: &str,
    out: &mut dyn Write,
    [mut patience, patience_files]: [Duration; 2],
) -> io::Result<()> {
    let mut is_slow = is_slow(request);
    let request = format!("{request}\n");
    if request.len() as u64 > REQUEST_BYTES_MAX {
        let problem = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
        return Err(io::Error::new(ErrorKind::InvalidInput, problem));
    }
    let failed = |error: io::Error| connection_failed(path, patience, &error);
    let daemon = connect(path, patience).map_err(failed)?;
    (&daemon).write_all(request.as_bytes()).map_err(failed)?;
    let mut reader = BufReader::new(&daemon);
    let mut status: Option<String> = None;
    loop {
        let mut line = Vec::new();
        let failed = |error: io::Error| connection_failed(path, patience, &error);
        if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        if std::mem::take(&mut is_slow) && line == b"\n" {
            patience = patience_files;
            daemon.set_read_timeout(Some(patience))?;
            continue;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Some(line) = status.replace(String::from_utf8_lossy(line).into_owned()) {
            writeln!(out, "{}", text::line(&line))?;
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
            None => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the answer was cut short",
            )),
        },
        None => Err(io::Error::new(ErrorKind::UnexpectedEof, "no answer")),
    }
}

/// A daemon that hangs does not accept either: where its queue is full, connect(2) waits, as long as a write may.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (family, kind) = (AddressFamily::Unix, SockType::Stream);
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let daemon = UnixStream::from(fd);
    daemon.set_read_timeout(Some(patience))?;
    daemon.set_write_timeout(Some(patience))?;
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        let problem = format!("the path of a socket has at most {UNIX_PATH_BYTES_MAX} bytes");
        return Err(io::Error::new(ErrorKind::InvalidInput, problem));
    }
    socket::connect(daemon.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(daemon)
}

/// Why there is no answer, in words that say what to do. Never of a kind by which a caller takes our own reader's end for
/// the daemon's.
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
            format!("no xdnsd listens at {path}: not running, or --socket PATH")
        } else if is(&[ErrorKind::PermissionDenied]) {
            format!("{path}: only root, and the account that xdnsd runs under, may ask it")
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A directory of the test's own, which goes with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("xdnsd-control-{}-{test}", std::process::id()));
            fs::create_dir(&path).expect("a new directory");
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("sock")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn commands() -> Commands {
        Commands::default()
            .with("cache dump", |arguments, out| {
                for line in 0..1000 {
                    writeln!(out, "{line} {arguments:?}")?;
                }
                Ok(())
            })
            .with("break off", |_, out| {
                writeln!(out, "half")?;
                Err(CommandError::Io(io::Error::other("broken")))
            })
            .with("cache", |_, _| {
                Err(CommandError::Refused("what of it?".into()))
            })
            .with("reload", |_, out| Ok(writeln!(out, "read")?))
            .with("lines", |_, out| {
                writeln!(out, "a\x1b[2Jb\tc")?;
                Err(CommandError::Refused("one\x1b\ntwo\tthree\nfour".into()))
            })
    }

    /// The name of a socket that is served.
    fn spawn(control: Control) -> SocketFile {
        let (server, file) = control.split();
        thread::spawn(move || server.serve(&commands()));
        file
    }

    fn asked(path: &Path, request: &str) -> Result<String, String> {
        let mut out = Vec::new();
        let result = ask(path, request, &mut out);
        let text = String::from_utf8(out).expect("text");
        result.map(|()| text).map_err(|error| error.to_string())
    }

    #[test]
    fn requests_are_carried_out_or_refused_in_words() {
        let directory = Directory::new("requests");
        let path = directory.socket();
        let control = Control::bind(&path).expect("a free path");
        let _file = spawn(control);
        let lines = asked(&path, "cache dump a.example").expect("a whole answer");
        assert_eq!(lines.lines().count(), 1000);
        assert_eq!(lines.lines().next(), Some("0 [\"a.example\"]"));
        assert_eq!(asked(&path, "cache"), Err("what of it?".into()));
        assert_eq!(asked(&path, "reload"), Ok("read\n".into()));
        assert_eq!(
            asked(&path, "reboot"),
            Err("unknown request; allowed: cache dump, break off, cache, reload, lines".into())
        );
        assert_eq!(
            asked(&path, "break off"),
            Err("the answer was cut short".into())
        );
        assert_eq!(
            asked(&path, &"x".repeat(512)),
            Err("a request has at most 512 bytes".into())
        );
    }

    #[test]
    fn what_is_wrong_may_take_several_lines_and_nothing_moves_the_cursor() {
        let directory = Directory::new("lines");
        let path = directory.socket();
        let control = Control::bind(&path).expect("a free path");
        let _file = spawn(control);
        let mut out = Vec::new();
        let error = ask(&path, "lines", &mut out)
            .expect_err("refused")
            .to_string();
        assert_eq!(error, "one\\x1b\ntwo\\tthree\nfour");
        assert_eq!(String::from_utf8_lossy(&out), "a\\x1b[2Jb\\tc\n");
    }

    #[test]
    fn where_nobody_answers_it_says_what_to_do() {
        let directory = Directory::new("nobody");
        let path = directory.socket();
        let shown = path.display();
        let nobody = format!("no xdnsd listens at {shown}: not running, or --socket PATH");
        assert_eq!(asked(&path, "stats"), Err(nobody.clone()), "no such file");
        drop(UnixListener::bind(&path).expect("a listener that leaves its file"));
        assert_eq!(asked(&path, "stats"), Err(nobody), "a dead process's");
        let below = path.join("below");
        let error = asked(&below, "stats").expect_err("its folder is a socket");
        assert!(error.starts_with("no xdnsd listens at "), "{error}");
        let long = directory.0.join("x".repeat(120));
        let error = asked(&long, "stats").expect_err("too long");
        assert!(error.ends_with("at most 107 bytes"), "{error}");
    }

    /// What a daemon that says this answers to a reload, where one line is waited for as long as a moment.
    fn reloaded(said: &'static [&[u8]]) -> Result<String, String> {
        let directory = Directory::new(&format!("slow-{}", said.len()));
        let path = directory.socket();
        let listener = listen_for_root(&path).expect("a listener");
        let moment = Duration::from_millis(20);
        let mut out = Vec::new();
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = listener.accept().expect("a client");
                let mut request = [0; 7];
                client.read_exact(&mut request).expect("a request");
                for part in said {
                    client.write_all(part).expect("it waits");
                    thread::sleep(moment * 4);
                }
                // Until it gives up, or has all.
                if said.last().is_none_or(|last| !last.ends_with(b"ok\n")) {
                    let _ = client.read(&mut request);
                }
            });
            let patience = [moment, Duration::from_secs(20)];
            ask_within(&path, "reload", &mut out, patience)
        });
        let text = String::from_utf8(out).expect("text");
        result.map(|()| text).map_err(|error| error.to_string())
    }

    /// A daemon that reads files is waited for, and one that hangs is not.
    #[test]
    fn a_slow_answer_is_waited_for_once_the_daemon_has_said_that_it_is_there() {
        assert_eq!(reloaded(&[b"\n", b"done\nok\n"]), Ok("done\n".into()));
        let error = reloaded(&[]).expect_err("it says nothing");
        assert!(error.starts_with("no answer in 0 s from "), "{error}");
    }

    /// Its queue is full, so that even connect(2) would wait for ever.
    #[test]
    fn a_daemon_that_hangs_is_not_waited_for_for_ever() {
        let directory = Directory::new("hung");
        let path = directory.socket();
        let _hung = listen_for_root(&path).expect("a listener");
        let patience = Duration::from_millis(50);
        let mut waiting = Vec::new();
        let error = loop {
            match connect(&path, patience) {
                Ok(client) => waiting.push(client),
                Err(error) => break error,
            }
        };
        let said = connection_failed(&path, PATIENCE, &error).to_string();
        let expected = format!("no answer in 5 s from the xdnsd at {}", path.display());
        assert_eq!(said, expected, "after {} clients", waiting.len());
    }

    /// Bytes are there, and more would come: that is no reason to wait on.
    #[test]
    fn a_request_that_takes_too_long_is_not_read_on() {
        let (client, daemon) = UnixStream::pair().expect("a pair");
        (&client).write_all(b"sta").expect("room");
        let error = read_request(&daemon, Instant::now()).expect_err("its time is over");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        (&client).write_all(b"ts\n").expect("room");
        let request = read_request(&daemon, Instant::now() + PATIENCE);
        assert_eq!(request.expect("it is there"), "stats\n");
    }

    #[test]
    fn a_client_that_breaks_the_protocol_is_dropped() {
        let directory = Directory::new("hostile");
        let path = directory.socket();
        let control = Control::bind(&path).expect("a free path");
        let _file = spawn(control);
        let endless = UnixStream::connect(&path).expect("it listens");
        while (&endless).write_all(&[b'x'; 4096]).is_ok() {}
        drop(UnixStream::connect(&path).expect("it listens"));
        let cut = UnixStream::connect(&path).expect("it listens");
        (&cut)
            .write_all(b"cache dump")
            .expect("room for a line without its end");
        cut.shutdown(std::net::Shutdown::Write).expect("connected");
        let mut answer = String::new();
        (&cut)
            .read_to_string(&mut answer)
            .expect("an answer in words");
        assert_eq!(
            answer,
            "error: a request is one line of at most 512 bytes\n"
        );
        assert!(asked(&path, "cache dump").is_ok(), "it is still there");
    }

    #[test]
    fn the_socket_is_for_its_owner_only() {
        let directory = Directory::new("mode");
        let path = directory.socket();
        let control = Control::bind(&path).expect("a free path");
        let metadata = fs::symlink_metadata(&path).expect("the socket file");
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        drop(control);
        assert!(!path.exists(), "the file goes with it");
    }

    #[test]
    fn a_dead_processs_socket_is_replaced_and_a_living_ones_is_not() {
        let directory = Directory::new("stale");
        let path = directory.socket();
        drop(UnixListener::bind(&path).expect("a listener that leaves its file"));
        assert!(path.exists());
        let control = Control::bind(&path).expect("nobody listens there");
        let error = Control::bind(&path).expect_err("somebody does");
        assert!(
            error
                .to_string()
                .ends_with("another process answers at this socket"),
            "{error}"
        );
        drop(control);
        fs::write(&path, "a file").expect("a file in its place");
        assert!(Control::bind(&path).is_err());
        assert!(path.exists(), "what is no socket is left alone");
    }
}
