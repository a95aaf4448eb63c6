//! Tests of parsing: words to commands or error messages.

use super::hint::SYNONYMS;
use super::*;

fn parsed(line: &str) -> Result<Command, String> {
    parse(line.split_whitespace().map(OsString::from))
}

/// A request to the daemon at the default socket.
fn ask_at_default(request: &str) -> Result<Command, String> {
    Ok(Command::Ask {
        request: request.into(),
        socket: SOCKET.into(),
    })
}

#[test]
fn a_command_may_have_three_words() {
    for (line, socket, json) in [
        ("shield log", SOCKET, false),
        ("shield log --json --socket /x", "/x", true),
    ] {
        let socket = socket.into();
        assert_eq!(parsed(line), Ok(Command::Log { socket, json }));
    }
    for line in [
        "shield secret rotate --json",
        "shield secret --json rotate",
        "shield --json secret rotate",
    ] {
        assert_eq!(parsed(line), ask_at_default("json shield secret rotate"));
    }
    assert_eq!(
        parsed("shield secret"),
        Err("shield secret needs another word: xdnsd shield secret rotate".into())
    );
    assert_eq!(
        parsed("shield secret turn"),
        Err("`shield secret turn` is not a command, did you mean `shield secret rotate`?; there are: shield secret rotate".into())
    );
    assert_eq!(
        parsed("shield detach lan0"),
        ask_at_default("shield detach lan0")
    );
    assert!(parsed("shield attach").is_err(), "of which interface?");
}

fn memory(file: Option<&str>, json: bool) -> Command {
    let file = file.map(Into::into);
    Command::Memory { file, json }
}

#[test]
fn every_command_is_known() {
    for (line, user) in [("run f", None), ("run --user xdnsd f", Some("xdnsd"))] {
        let user = user.map(str::to_owned);
        let file = "f".into();
        assert_eq!(parsed(line), Ok(Command::Run { file, user }));
    }
    for (line, offline, user) in [
        ("check f", false, None),
        ("check --offline f", true, None),
        ("check --user xdnsd f", false, Some("xdnsd")),
    ] {
        assert_eq!(
            parsed(line),
            Ok(Command::Check {
                file: "f".into(),
                offline,
                json: false,
                user: user.map(str::to_owned),
            })
        );
    }
    let ask = |request: &str, socket: &str| {
        Ok(Command::Ask {
            request: request.into(),
            socket: socket.into(),
        })
    };
    let socket = "/run/xdnsd/control.sock";
    assert_eq!(
        parsed("stats"),
        Ok(Command::Stats {
            socket: socket.into()
        })
    );
    assert_eq!(parsed("stats --prometheus"), ask("stats", socket));
    assert_eq!(parsed("stats --json"), ask("json stats", socket));
    assert_eq!(
        parsed("stats --json --prometheus"),
        Err("stats is either --prometheus or --json".into())
    );
    assert_eq!(
        parsed("cache --json dump a.b"),
        ask("json cache dump a.b", socket)
    );
    assert_eq!(parsed("why a.b --json"), ask("json why a.b", socket));
    assert_eq!(
        parsed("shield status --json"),
        ask("json shield status", socket)
    );
    assert_eq!(
        parsed("shield --json list"),
        ask("json shield list", socket)
    );
    assert_eq!(
        parsed("shield deny --json 192.0.2.1"),
        ask("json shield deny 192.0.2.1", socket)
    );
    assert!(parsed("shield --json").is_err(), "it is half a command");
    assert_eq!(
        parsed("cache dump --socket /x a.example"),
        ask("cache dump a.example", "/x")
    );
    assert!(
        parsed("--socket /x cache flush").is_err(),
        "the command comes first"
    );
    assert_eq!(parsed("cache flush --socket /x"), ask("cache flush", "/x"));
    assert_eq!(
        parsed("cache --socket /x dump a"),
        ask("cache dump a", "/x")
    );
    assert_eq!(
        parsed("lists compile out in"),
        Ok(Command::CompileLists(vec!["out".into(), "in".into()]))
    );
    assert_eq!(
        parsed("why www.example --socket /x AAAA 192.0.2.1"),
        ask("why www.example AAAA 192.0.2.1", "/x")
    );
    assert_eq!(parsed("cache --socket=/x flush"), ask("cache flush", "/x"));
    assert_eq!(parsed("health f"), Ok(Command::Health("f".into())));
    for (line, command) in [
        ("reference", Command::Reference),
        ("memory", memory(None, false)),
        ("memory --json f", memory(Some("f"), true)),
        ("version", Command::Version),
        ("--version", Command::Version),
        ("--help", Command::Help(help())),
        ("help", Command::Help(help())),
    ] {
        assert_eq!(parsed(line), Ok(command));
    }
}

#[test]
fn what_is_wrong_is_said_with_how_it_is_written() {
    let run = "xdnsd run [--user NAME] FILE";
    let check = "xdnsd check [--offline] [--json] [--user NAME] FILE";
    let dump = "xdnsd cache dump [--socket PATH] [--json] [NAME]";
    let compile = "xdnsd lists compile [--allow FILE]... OUT IN...";
    for (line, said) in [
        ("run", format!("run needs a FILE: {run}")),
        ("run a b", format!("run takes no `b`: {run}")),
        ("run --user a", format!("run needs a FILE: {run}")),
        ("run f --user", format!("run needs a NAME behind --user: {run}")),
        ("run --user --user f", format!("run needs a NAME behind --user: {run}")),
        ("run --user= f", format!("run needs a NAME behind --user: {run}")),
        ("run --user a --user b f", format!("run has --user twice: {run}")),
        ("run --usr a f", format!("run has no option --usr, did you mean `--user`?: {run}")),
        ("run -f", format!("run has no option -f, a FILE stands by itself: {run}")),
        ("run --config f", format!("run has no option --config, a FILE stands by itself: {run}")),
        ("check -c f", format!("check has no option -c, a FILE stands by itself: {check}")),
        ("stats -f", "stats has no option -f: xdnsd stats [--socket PATH] [--prometheus | --json]".into()),
        ("/etc/xdnsd.toml", "`/etc/xdnsd.toml` is not a command: a FILE stands behind one: xdnsd run FILE; see xdnsd help".into()),
        ("check", format!("check needs a FILE: {check}")),
        ("check --offline", format!("check needs a FILE: {check}")),
        ("check --offline=no f", format!("check has --offline without a value: {check}")),
        ("check --online f", format!("check has no option --online, did you mean `--offline`?: {check}")),
        ("cache dump --jason", format!("cache dump has no option --jason, did you mean `--json`?: {dump}")),
        ("cache dump a b", format!("cache dump takes no `b`: {dump}")),
        ("cache dump --socket", format!("cache dump needs a PATH behind --socket: {dump}")),
        ("stats all", "stats takes no `all`: xdnsd stats [--socket PATH] [--prometheus | --json]".into()),
        ("stats --sockets /x", "stats has no option --sockets, did you mean `--socket`?: xdnsd stats [--socket PATH] [--prometheus | --json]".into()),
        ("reload now", "reload takes no `now`: xdnsd reload [--socket PATH]".into()),
        ("memory -v", "memory has no option -v: xdnsd memory [--json] [FILE]".into()),
        ("version 2", "version takes no `2`: xdnsd version".into()),
        ("lists compile", format!("lists compile needs an OUT: {compile}")),
        ("lists compile out", format!("lists compile needs an IN: {compile}")),
        ("lists compile out in --alow f", format!("lists compile has no option --alow, did you mean `--allow`?: {compile}")),
        ("cache", "cache needs another word: xdnsd cache dump, xdnsd cache flush, xdnsd cache save".into()),
        ("cache --socket /x", "cache needs another word: xdnsd cache dump, xdnsd cache flush, xdnsd cache save".into()),
        ("cache drop", "`cache drop` is not a command, did you mean `cache dump`?; there are: cache dump, cache flush, cache save".into()),
        ("lists", "lists needs another word: xdnsd lists compile".into()),
        ("--socket /x cache flush", "--socket: the command comes first: xdnsd COMMAND ..., see xdnsd help".into()),
        ("help sing", "`sing` is not a command; there are: run, check, health, web, import, reference, memory, lists compile, stats, upstreams, why, cache dump, cache flush, pause, resume, cache save, shield status, shield list, shield deny, shield allow, shield forget, shield detach, shield attach, shield secret rotate, shield log, tail, top, reload, version, help".into()),
        ("cache flush a..b", "`a..b` has an empty label".into()),
    ] {
        assert_eq!(parsed(line), Err(said), "{line}");
    }
    for (word, ours) in [
        ("start", "run"),
        ("validate", "check"),
        ("flush", "cache flush"),
        ("restart", "reload"),
    ] {
        let said = parsed(word).expect_err("no command");
        let begin = format!("`{word}` is not a command, did you mean `{ours}`?; there are: run, ");
        assert!(said.starts_with(&begin), "{said}");
    }
    for (_, ours) in SYNONYMS {
        assert!(forms().any(|form| form.name == *ours), "{ours}");
    }
    let said = parsed("chek").expect_err("no command");
    assert!(
        said.starts_with("`chek` is not a command, did you mean `check`?; there are: run, check, "),
        "{said}"
    );
    assert!(
        !said.contains('\n') && said.ends_with("; see xdnsd help"),
        "{said}"
    );
    assert!(parsed("").expect_err("no command").contains(&help()));
}

fn words(words: &[&str]) -> Result<Command, String> {
    parse(words.iter().map(OsString::from))
}

/// `xdnsd cache flush "$name"` must not forget everything if `name` is empty.
#[test]
fn an_argument_that_is_empty_or_several_words_is_refused() {
    let empty = "cache flush has a NAME that is empty: xdnsd cache flush [--socket PATH] [NAME]";
    assert_eq!(words(&["cache", "flush", ""]), Err(empty.into()));
    for (name, shown) in [
        (" ", " "),
        ("a b", "a b"),
        ("a\nreload", "a\\nreload"),
        ("\x1b[31m", "\\x1b[31m"),
        ("münchen", "münchen"),
    ] {
        let said = Err(format!("`{shown}` is not a name"));
        assert_eq!(words(&["cache", "flush", name]), said, "{name:?}");
    }
    let said = "`A\\nreload` is not a word";
    assert_eq!(words(&["why", "a.b", "A\nreload"]), Err(said.into()));
    let said =
        "check has a FILE that is empty: xdnsd check [--offline] [--json] [--user NAME] FILE";
    assert_eq!(words(&["check", ""]), Err(said.into()));
}

#[test]
fn a_word_behind_two_hyphens_is_an_argument() {
    let file = || "--offline".into();
    let (user, offline) = (None, false);
    assert_eq!(
        parsed("run -- --offline"),
        Ok(Command::Run { file: file(), user })
    );
    assert_eq!(
        parsed("check -- --offline"),
        Ok(Command::Check {
            file: file(),
            offline,
            json: false,
            user: None,
        })
    );
    let Ok(Command::Ask { request, .. }) = parsed("cache dump -- --json") else {
        panic!("a name may begin so")
    };
    assert_eq!(request, "cache dump --json");
    assert_eq!(
        parsed("lists compile --allow=-a -- -out --in"),
        Ok(Command::CompileLists(
            ["--allow", "./-a", "./-out", "./--in"]
                .map(OsString::from)
                .to_vec()
        ))
    );
    let Ok(Command::Ask { request, .. }) = parsed("cache dump -- --help") else {
        panic!("a name, too")
    };
    assert_eq!(request, "cache dump --help");
}

#[test]
fn every_command_tells_how_it_is_written() {
    for form in forms() {
        let line = form.line();
        for option in ["--help", "-h"] {
            let told = parsed(&format!("{} {option}", form.name));
            assert_eq!(told, Ok(Command::Help(form.in_full())), "{}", form.name);
        }
        let Ok(Command::Help(told)) = parsed(&format!("help {}", form.name)) else {
            panic!("{line}")
        };
        assert!(told.contains(&line), "{told}");
        assert!(help().contains(&format!("xdnsd {}", form.name)), "{line}");
        assert!(help().contains(form.about), "{line}");
    }
    let Ok(Command::Help(told)) = parsed("cache --help") else {
        panic!("of the group")
    };
    assert_eq!(told.matches("xdnsd cache ").count(), 3, "{told}");
    assert_eq!(
        parsed("cache flush a.example --help"),
        parsed("help cache flush")
    );
    assert!(parsed("cache drop --help").is_err());
    for line in help().lines() {
        assert!(line.len() <= 120, "{line}");
    }
}

#[test]
fn the_default_socket_is_the_configs() {
    let text = "[interface]\nname = \"lan0\"\n[upstream]\nservers = [\"192.0.2.1\"]\n";
    let config = crate::config::Config::parse("f", text).expect("valid");
    assert_eq!(
        config.control.socket.as_deref(),
        Some(std::path::Path::new(SOCKET))
    );
    assert!(help().contains(SOCKET));
}

#[test]
fn queries_are_shown_as_options_say() {
    let tail = |line: &str| match parsed(line) {
        Ok(Command::Tail { tail, .. }) => Ok(tail),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => Err(problem),
    };
    assert_eq!(tail("tail"), Ok(Tail::default()));
    let line = "tail --json --client 10.0.0.0/8 --name Ads.test --blocked --log /l --rotate 10M --keep 3 --dnstap unix:/s --pcap /p";
    let all = Tail {
        client: "10.0.0.0/8".parse().ok(),
        name: Some(b"\x03ads\x04test\0".to_vec()),
        blocked: true,
        json: true,
        log: Some(("/l".into(), 10 << 20, 3)),
        dnstap: Some("unix:/s".into()),
        pcap: Some("/p".into()),
    };
    assert_eq!(tail(line), Ok(all));
    assert_eq!(
        tail("tail --log /l").map(|tail| tail.log),
        Ok(Some(("/l".into(), 0, 5)))
    );
    for (line, problem) in [
        (
            "tail --client lan",
            "--client `lan` is not an address, or an address/length",
        ),
        ("tail --name a..b", "--name `a..b` has an empty label"),
        (
            "tail --rotate 1M",
            "--rotate and --keep are about the file of --log",
        ),
        (
            "tail --log /l --rotate 4095",
            "is not a number of bytes from 4096 on",
        ),
        (
            "tail --log /l --rotate 99999999999G",
            "is not a number of bytes",
        ),
        ("tail --log /l --rotate 1T", "`1T` is not a number of bytes"),
        (
            "tail --log /l --keep 1000",
            "--keep `1000` is not a number from 0 to 999",
        ),
        ("tail --pcap /p --blocked", "--pcap has all frames"),
        ("tail --log /x --pcap /x", "--log and --pcap are two files"),
        ("tail now", "tail takes no `now`"),
    ] {
        let said = tail(line).expect_err(line);
        assert!(said.contains(problem), "{line}: {said}");
    }
    let socket = SOCKET.into();
    assert_eq!(
        parsed("top --once"),
        Ok(Command::Top { socket, once: true })
    );
}
