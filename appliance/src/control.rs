//! The control socket: a UNIX stream socket for root, one line per request.
//!
//! ```text
//!  client: cache dump\n
//!  daemon: line\n line\n ... ok\n            or, as the last line: error: what is wrong\n
//! ```
//! The last line is the status, so an answer that was cut short cannot be taken for a whole one. One thread serves one
//! client at a time, with bounds on every line and on every wait: nobody can hold it for long, and no worker waits for
//! it.

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};

use crate::memory;

/// Longest request, with its newline.
const REQUEST_BYTES_MAX: u64 = 512;
/// A client that neither sends nor reads for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the thread waits where no client can be accepted, so that it does not fill the log.
const PAUSE: Duration = Duration::from_secs(1);
/// Clients that may wait for their turn.
const BACKLOG: i32 = 4;

/// The last line of a request that was carried out.
const OK: &str = "ok";
/// Begins the last line of one that was not.
const ERROR: &str = "error: ";

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// What is wrong with it.
    Refused(String),
    /// The client is gone.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Carries out one request: gets the words after its name, writes lines.
pub type Run = Box<dyn Fn(&[&str], &mut dyn Write) -> Result<(), Failure> + Send>;

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
        run: impl Fn(&[&str], &mut dyn Write) -> Result<(), Failure> + Send + 'static,
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
    pub fn carry_out(&self, request: &str, out: &mut dyn Write) -> Result<(), Failure> {
        let words: Vec<&str> = request.split_ascii_whitespace().collect();
        for command in &self.0 {
            let name: Vec<&str> = command.name.split(' ').collect();
            if let Some(arguments) = words.strip_prefix(name.as_slice()) {
                return (command.run)(arguments, out);
            }
        }
        let known: Vec<&str> = self.0.iter().map(|command| command.name).collect();
        Err(Failure::Refused(format!(
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

    /// Starts the thread that serves `commands`, as long as the process lives.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(self, commands: Commands) -> io::Result<SocketFile> {
        let listener = self.listener;
        let serve_all = move || {
            for client in listener.incoming() {
                match client.map(|client| serve(&client, &commands)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!("control: client: {error}"),
                    Err(error) => {
                        warn!("control: accept: {error}");
                        thread::sleep(PAUSE);
                    }
                }
            }
        };
        memory::thread("control").spawn(serve_all)?;
        Ok(self.file)
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
    match UnixStream::connect(path) {
        Ok(_) => {
            let problem = "another process answers at this socket";
            Err(io::Error::new(ErrorKind::AddrInUse, problem))
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

/// Serves one client to its end. An error is the client's, or the connection's.
fn serve(client: &UnixStream, commands: &Commands) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    BufReader::new(client.take(REQUEST_BYTES_MAX)).read_line(&mut request)?;
    let mut out = BufWriter::new(client);
    let result = match request.strip_suffix('\n') {
        Some(request) => commands.carry_out(request, &mut out),
        None => Err(Failure::Refused(format!(
            "a request is one line of at most {REQUEST_BYTES_MAX} bytes"
        ))),
    };
    match result {
        Ok(()) => writeln!(out, "{OK}")?,
        Err(Failure::Refused(problem)) => writeln!(out, "{ERROR}{problem}")?,
        Err(Failure::Io(error)) => return Err(error),
    }
    out.flush()
}

/// The client's side: sends `request` and copies the answer's lines to `out`.
///
/// # Errors
/// Nobody answers at `path`, the answer was cut short, or the daemon says what is wrong.
pub fn ask(path: &Path, request: &str, out: &mut dyn Write) -> io::Result<()> {
    let request = format!("{request}\n");
    if request.len() as u64 > REQUEST_BYTES_MAX {
        let problem = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
        return Err(io::Error::new(ErrorKind::InvalidInput, problem));
    }
    let daemon = UnixStream::connect(path).map_err(|error| told(path, &error))?;
    daemon.set_read_timeout(Some(PATIENCE))?;
    daemon.set_write_timeout(Some(PATIENCE))?;
    (&daemon).write_all(request.as_bytes())?;
    let mut status: Option<String> = None;
    for line in BufReader::new(&daemon).lines() {
        if let Some(line) = status.replace(line?) {
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    match status.as_deref() {
        Some(OK) => Ok(()),
        Some(status) => match status.strip_prefix(ERROR) {
            Some(problem) => Err(io::Error::other(problem.to_owned())),
            None => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the answer was cut short",
            )),
        },
        None => Err(io::Error::new(ErrorKind::UnexpectedEof, "no answer")),
    }
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
                Err(Failure::Io(io::Error::other("broken")))
            })
            .with("cache", |_, _| Err(Failure::Refused("what of it?".into())))
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
        let _file = control.spawn(commands()).expect("a thread");
        let lines = asked(&path, "cache dump a.example").expect("a whole answer");
        assert_eq!(lines.lines().count(), 1000);
        assert_eq!(lines.lines().next(), Some("0 [\"a.example\"]"));
        assert_eq!(asked(&path, "cache"), Err("what of it?".into()));
        assert_eq!(
            asked(&path, "reboot"),
            Err("unknown request; allowed: cache dump, break off, cache".into())
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
    fn a_client_that_breaks_the_protocol_is_dropped() {
        let directory = Directory::new("hostile");
        let path = directory.socket();
        let control = Control::bind(&path).expect("a free path");
        let _file = control.spawn(commands()).expect("a thread");
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
