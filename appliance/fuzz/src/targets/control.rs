//! Requests at the control socket.

use std::env;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use xdnsd::control;
use xdnsd::control::socket::{CommandError, Commands, Control, queue, serve_waiting};

use super::flags;

/// Longest request, with its newline.
const REQUEST_MAX: usize = 512;
const PATIENCE: Duration = Duration::from_secs(20);

static SOCKET: OnceLock<PathBuf> = OnceLock::new();

/// A daemon's socket, whose requests say what they were. It lives as long as this process.
fn socket() -> &'static PathBuf {
    SOCKET.get_or_init(|| {
        let path = env::temp_dir().join(format!("xdnsd-fuzz-{}.sock", process::id()));
        let (server, name) = Control::bind(&path).expect("a socket").split();
        let (slow, waiting) = queue();
        thread::spawn(move || serve_waiting(&waiting, &commands()));
        thread::spawn(move || {
            let _name = name;
            server.serve(&commands(), &slow);
        });
        path
    })
}

fn commands() -> Commands {
    let refused = |words: &[&str]| CommandError::Refused(words.join("\n"));
    Commands::default()
        .with("stats", |words, out| {
            writeln!(out, "{}", words.join(" ")).map_err(CommandError::from)
        })
        .with("cache flush", move |words, _| Err(refused(words)))
        .with("why", |words, out| {
            writeln!(out, "{}", words.len()).map_err(CommandError::from)
        })
}

/// Every request gets lines and one last line that says how it went: `ok` where it was carried out, `error: ` and why where it was
/// not. What is no line of at most 512 bytes is refused. The first byte says in how many pieces it comes.
pub fn requests(input: &[u8]) -> bool {
    let (pieces, bytes) = flags(input);
    let size = bytes.len() / (usize::from(pieces % 4) + 1) + 1;
    let mut client = UnixStream::connect(socket()).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    for piece in bytes.chunks(size) {
        // Behind its line nobody reads.
        if client.write_all(piece).is_err() {
            break;
        }
    }
    // It may have been answered, and the other end closed.
    let _ = client.shutdown(Shutdown::Write);
    let mut reply = Vec::new();
    match client.read_to_end(&mut reply) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    let reply = String::from_utf8(reply).expect("text");
    let line_end = bytes
        .iter()
        .take(REQUEST_MAX)
        .position(|byte| *byte == b'\n');
    let request = line_end.map(|end| String::from_utf8_lossy(&bytes[..end]).into_owned());
    if let Some(request) = &request {
        // What a client is told before it asks.
        let _ = control::check(request);
    }
    assert_eq!(reply, expected(request.as_deref(), &reply));
    reply.ends_with("\nok\n") || reply == "ok\n"
}

/// What the reply has to be; of a refusal in the daemon's words, that it is one line.
fn expected(request: Option<&str>, reply: &str) -> String {
    let Some(request) = request else {
        return format!("error: a request is one line of at most {REQUEST_MAX} bytes\n");
    };
    let is_slow = [
        "why",
        "reload",
        "cache save",
        "cache dump",
        "json cache dump",
        "json why",
        "pause",
        "resume",
    ]
    .iter()
    .filter_map(|name| request.strip_prefix(name))
    .any(|rest| rest.is_empty() || rest.starts_with(' '));
    let first = if is_slow { "\n" } else { "" };
    let words: Vec<&str> = request.split_ascii_whitespace().collect();
    match words[..] {
        _ if request.starts_with("tap ") => one_line_of_refusal(reply),
        ["stats", ref rest @ ..] => format!("{}\nok\n", rest.join(" ")),
        ["why", ref rest @ ..] => format!("{first}{}\nok\n", rest.len()),
        ["cache", "flush", ..] => one_line_of_refusal(reply),
        _ => format!("{first}error: unknown request; allowed: stats, cache flush, why\n"),
    }
}

/// The reply itself, if that is what it is.
fn one_line_of_refusal(reply: &str) -> String {
    assert!(
        reply.starts_with("error: ") && reply.ends_with('\n'),
        "{reply:?}"
    );
    assert_eq!(reply.matches('\n').count(), 1, "{reply:?}");
    assert!(
        !reply
            .trim_end()
            .contains(|c: char| c.is_control() && c != '\t'),
        "{reply:?}"
    );
    reply.to_owned()
}

/// Removes the socket, if there is one: the process would leave it.
pub fn clean_up() {
    if let Some(path) = SOCKET.get() {
        let _ = fs::remove_file(path);
    }
}
