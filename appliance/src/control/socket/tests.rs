use super::arriving::ARRIVING_MAX;
use super::*;
use crate::testing::Folder;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Timeout for what has to happen.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Path of a socket in the folder.
fn socket_in(folder: &Folder) -> PathBuf {
    folder.path().join("sock")
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

/// Path of a socket that is served.
fn spawn(control: Control) -> SocketFile {
    let (server, file) = control.split();
    let (queue, waiting) = queue();
    thread::spawn(move || serve_waiting(&waiting, &commands()));
    thread::spawn(move || server.serve(&commands(), &queue));
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
    let folder = Folder::new();
    let path = socket_in(&folder);
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
    let folder = Folder::new();
    let path = socket_in(&folder);
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
    let folder = Folder::new();
    let path = socket_in(&folder);
    let shown = path.display();
    let nobody = format!("no xdnsd listens at {shown}: not running, or --socket PATH");
    assert_eq!(asked(&path, "stats"), Err(nobody.clone()), "no such file");
    drop(UnixListener::bind(&path).expect("a listener that leaves its file"));
    assert_eq!(asked(&path, "stats"), Err(nobody), "a dead process's");
    let below = path.join("below");
    let error = asked(&below, "stats").expect_err("its folder is a socket");
    assert!(error.starts_with("no xdnsd listens at "), "{error}");
    let long = folder.path().join("x".repeat(120));
    let error = asked(&long, "stats").expect_err("too long");
    assert!(error.ends_with("at most 107 bytes"), "{error}");
}

/// Result of a reload by a daemon that sends these lines, with short timeouts.
fn reloaded(said: &'static [&[u8]]) -> Result<String, String> {
    let folder = Folder::new();
    let path = socket_in(&folder);
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
            // Blocks until the client gives up or has all.
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

/// A client waits for a daemon that is reading files, but not for one that hangs.
#[test]
fn a_slow_answer_is_waited_for_once_the_daemon_has_said_that_it_is_there() {
    assert_eq!(reloaded(&[b"\n", b"done\nok\n"]), Ok("done\n".into()));
    let error = reloaded(&[]).expect_err("it says nothing");
    assert!(error.starts_with("no answer in 0 s from "), "{error}");
}

/// A daemon that accepts late and then stays silent: the timeout counts once, not twice.
#[test]
fn a_daemon_that_hangs_is_waited_for_once_in_all() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let hung = UnixListener::bind(&path).expect("a listener");
    // The kernel's queue has room for one more than the backlog.
    socket::listen(&hung, socket::Backlog::new(0).expect("a length")).expect("it listens");
    let _first = UnixStream::connect(&path).expect("the only place");
    let patience = Duration::from_secs(4);
    let begun = Instant::now();
    let error = thread::scope(|scope| {
        let _let_in = scope.spawn(|| {
            thread::sleep(patience * 3 / 4);
            hung.accept().expect("the first")
        });
        ask_briefly(&path, "hello", &mut io::sink(), patience).expect_err("silence")
    });
    let took = begun.elapsed();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    assert!(patience <= took && took < patience * 3 / 2, "{took:?}");
}

/// With a full queue even connect(2) would wait for ever.
#[test]
fn a_daemon_that_hangs_is_not_waited_for_for_ever() {
    let folder = Folder::new();
    let path = socket_in(&folder);
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

/// While a file does not answer: other clients are served, those that want files as well wait, up to a limit.
#[test]
fn who_waits_for_a_file_keeps_nobody_else_waiting() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let (server, _file) = Control::bind(&path).expect("a free path").split();
    let (go, hangs) = mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    let commands = Commands::default()
        .with("stats", |_, out| Ok(writeln!(out, "counted")?))
        .with("reload", move |_, out| {
            let _ = hangs.lock().expect("one at a time").recv();
            Ok(writeln!(out, "read")?)
        });
    let commands = Arc::new(commands);
    let (queue, waiting) = queue();
    let shared = Arc::clone(&commands);
    thread::spawn(move || serve_waiting(&waiting, &shared));
    thread::spawn(move || server.serve(&commands, &queue));
    let begin = || {
        let client = UnixStream::connect(&path).expect("it listens");
        client.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        (&client).write_all(b"reload\n").expect("room");
        let mut reader = BufReader::new(client);
        let mut line = String::new();
        reader.read_line(&mut line).expect("it is there");
        assert_eq!(line, "\n");
        reader
    };
    let first = begin();
    assert_eq!(asked(&path, "stats"), Ok("counted\n".into()));
    let others: Vec<_> = (0..WAITING_MAX - 1).map(|_| begin()).collect();
    assert_eq!(asked(&path, "stats"), Ok("counted\n".into()));
    // Of three more, one may take the place of the first; the last is one too many in any case.
    let [.., mut last] = [begin(), begin(), begin()];
    let mut refused = String::new();
    last.read_to_string(&mut refused).expect("its answer");
    assert_eq!(
        refused,
        "error: 4 requests that take their time wait already\n"
    );
    drop(go);
    for mut client in [first].into_iter().chain(others) {
        let mut text = String::new();
        client.read_to_string(&mut text).expect("its answer");
        assert_eq!(text, "read\nok\n");
    }
}

/// Bytes that trickle in do not extend the timeout.
#[test]
fn a_request_that_takes_too_long_is_not_read_on() {
    let mut table = PendingRequests::default();
    let begin = |table: &mut PendingRequests, text: &str| {
        let (client, daemon) = UnixStream::pair().expect("a pair");
        assert!(table.add(daemon).is_none(), "there is room");
        (&client).write_all(text.as_bytes()).expect("room");
        client
    };
    let slow = begin(&mut table, "sta");
    assert!(table.take(Instant::now()).is_empty());
    (&slow).write_all(b"ts\nmore").expect("room");
    let [arrived] = &table.take(Instant::now())[..] else {
        panic!("it has arrived");
    };
    assert_eq!(arrived.request, "stats\n");
    let silent = begin(&mut table, "sta");
    let late = begin(&mut table, "stats\n");
    let [arrived] = &table.take(Instant::now() + PATIENCE * 2)[..] else {
        panic!("who comes in the last moment has come");
    };
    assert_eq!(arrived.request, "stats\n");
    drop(late);
    let mut rest = String::new();
    (&silent)
        .read_to_string(&mut rest)
        .expect("it was closed, not reset");
    assert_eq!(rest, "");
}

/// As many silent clients as have room, as many as the kernel queues, and one more: a client that asks is answered all the
/// same, and the oldest silent one is told why it is closed.
#[test]
fn idle_clients_hold_up_nobody_and_the_oldest_goes_first() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let _file = spawn(Control::bind(&path).expect("a free path"));
    let begin = |text: &[u8]| {
        let client = UnixStream::connect(&path).expect("it listens");
        client.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        (&client).write_all(text).expect("room");
        client
    };
    let halves: [&[u8]; 3] = [b"", b"l", b"cache dump"];
    for round in 0..3 {
        let idle: Vec<_> = (0..=ARRIVING_MAX + BACKLOG as usize)
            .map(|at| begin(halves[at % halves.len()]))
            .collect();
        let answered = asked(&path, "cache");
        assert_eq!(answered, Err("what of it?".into()), "round {round}");
        let mut told = String::new();
        (&idle[0]).read_to_string(&mut told).expect("its answer");
        assert_eq!(told, "error: no request came, and others wait\n");
    }
}

/// A client that does not read a long answer.
#[test]
fn who_does_not_read_a_long_answer_holds_up_no_short_one() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let (server, _file) = Control::bind(&path).expect("a free path").split();
    let (fill, filled) = mpsc::channel();
    let commands = Commands::default()
        .with("stats", |_, out| Ok(writeln!(out, "counted")?))
        .with("cache dump", move |_, out| {
            let _ = fill.send(());
            while out.write_all(&[b'x'; 4096]).is_ok() {}
            Ok(())
        });
    let commands = Arc::new(commands);
    let (queue, waiting) = queue();
    let shared = Arc::clone(&commands);
    thread::spawn(move || serve_waiting(&waiting, &shared));
    thread::spawn(move || server.serve(&commands, &queue));
    let unread = UnixStream::connect(&path).expect("it listens");
    (&unread).write_all(b"cache dump\n").expect("room");
    filled.recv_timeout(TIMEOUT).expect("it is begun");
    let begun = Instant::now();
    assert_eq!(asked(&path, "stats"), Ok("counted\n".into()));
    let took = begun.elapsed();
    assert!(took < PATIENCE, "it was not waited for: {took:?}");
}

#[test]
fn a_client_that_breaks_the_protocol_is_dropped() {
    let folder = Folder::new();
    let path = socket_in(&folder);
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
    let folder = Folder::new();
    let path = socket_in(&folder);
    let control = Control::bind(&path).expect("a free path");
    let metadata = fs::symlink_metadata(&path).expect("the socket file");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    drop(control);
    assert!(!path.exists(), "the file goes with it");
}

#[test]
fn a_dead_processs_socket_is_replaced_and_a_living_ones_is_not() {
    let folder = Folder::new();
    let path = socket_in(&folder);
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

/// The obstacle that is reported in advance is the attempt's error, and names the path once.
#[test]
fn where_no_socket_can_be_is_known_before_it_is_tried() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    assert_eq!(obstacle(&path), None);
    drop(UnixListener::bind(&path).expect("a listener that leaves its file"));
    assert_eq!(obstacle(&path), None, "it is replaced");
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "a file").expect("a file in its place");
    for (path, what) in [
        (path.as_path(), "is a file, not a socket"),
        (Path::new("/"), "is a folder, not a socket"),
        (Path::new("/dev/null"), "is a device, not a socket"),
        (
            Path::new("/proc/version"),
            "proc is a file system of the kernel: others cannot make files there",
        ),
        (&path.join("below"), "this is not a folder"),
    ] {
        let error = Control::bind(path).expect_err("nothing can be had there");
        let told = obstacle(path).expect("known before").what;
        assert_eq!(error.to_string(), told);
        let expected = format!(": {what}; no control socket can be had");
        assert!(told.ends_with(&expected), "{told}");
        assert_eq!(
            told.matches("/").count(),
            told.split(':')
                .next()
                .map_or(0, |at| at.matches('/').count()),
            "{told}"
        );
    }
}

/// The daemon has given up on the client.
#[test]
fn an_answer_that_nobody_read_is_told_to_be_cut_short_and_why() {
    assert_eq!(cut_short(Duration::ZERO), "the answer was cut short");
    let told = cut_short(PATIENCE + Duration::from_secs(2));
    assert!(
        told.ends_with(
            "its reader took nothing for 7 s, and the daemon waits for 5; write it to a file first"
        ),
        "{told}"
    );
}
