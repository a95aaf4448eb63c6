//! The command line: words in, a [`Command`] out. Carries nothing out and prints nothing.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Where the control socket is if nobody says otherwise: the config's default.
const SOCKET: &str = "/run/xdnsd/control.sock";

/// What `xdnsd help` prints.
pub const HELP: &str = "\
xdnsd: a DNS forwarder for routers on XDP and AF_XDP

  xdnsd run [--user NAME] FILE        serve, as the config FILE says; --user: as root, give all other rights away
  xdnsd check [--offline] FILE        say what is wrong with a config; --offline: without looking at this machine
  xdnsd reference                     every key of the config, in Markdown
  xdnsd memory                        the memory budget, line by line
  xdnsd lists compile [--allow FILE]... OUT IN...
                                      compile blocklists to a file that is mapped read-only

Of a running daemon; --socket PATH where it is not at /run/xdnsd/control.sock:
  xdnsd stats                         counters, in Prometheus' text format
  xdnsd cache dump [NAME]             answers in the cache, for NAME and below
  xdnsd cache flush [NAME]            forget them
  xdnsd cache save                    write the snapshot now
  xdnsd reload                        read local data, lists, servers, routes and access again

  xdnsd version | help

Exit status: 0 done, 1 failed, 2 not a command, 78 a config that cannot be run.
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Run {
        /// The config.
        file: PathBuf,
        /// The account to serve under, if not the one that started the process.
        user: Option<String>,
    },
    /// Validate a config.
    Check {
        /// The config.
        file: PathBuf,
        /// Without looking at this machine's interfaces.
        offline: bool,
    },
    /// Ask a running daemon over its control socket.
    Ask {
        /// The request's line.
        request: String,
        /// Its control socket.
        socket: PathBuf,
    },
    /// Compile blocklists; the arguments are policy's.
    CompileLists(Vec<OsString>),
    /// Print the reference of the config.
    Reference,
    /// Print the memory budget.
    Memory,
    /// Print the version.
    Version,
    /// Print [`HELP`].
    Help,
}

/// Reads the words behind the program's name.
///
/// # Errors
/// What is wrong with them, in a sentence.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut words: Vec<OsString> = arguments.into_iter().collect();
    let known: Vec<&str> = words
        .iter()
        .map(|word| word.to_str().unwrap_or_default())
        .collect();
    match known.as_slice() {
        [] => Err("no command".into()),
        ["run", _] => Ok(Command::Run {
            file: words.remove(1).into(),
            user: None,
        }),
        ["run", "--user", user, _] => Ok(Command::Run {
            user: Some((*user).to_owned()),
            file: words.remove(3).into(),
        }),
        ["check", "--offline", _] => Ok(Command::Check {
            file: words.remove(2).into(),
            offline: true,
        }),
        ["check", _] => Ok(Command::Check {
            file: words.remove(1).into(),
            offline: false,
        }),
        ["stats" | "cache" | "reload", ..] => ask(words),
        ["lists", "compile", _, _, ..] => Ok(Command::CompileLists(words.split_off(2))),
        ["reference"] => Ok(Command::Reference),
        ["memory"] => Ok(Command::Memory),
        ["version" | "--version" | "-V"] => Ok(Command::Version),
        ["help" | "--help" | "-h"] => Ok(Command::Help),
        _ => Err(not_a_command(&words)),
    }
}

/// A request to a running daemon. `--socket PATH` may stand anywhere.
fn ask(mut words: Vec<OsString>) -> Result<Command, String> {
    let mut socket = PathBuf::from(SOCKET);
    if let Some(at) = words.iter().position(|word| word == "--socket") {
        if at + 1 >= words.len() {
            return Err("--socket needs a path".into());
        }
        socket = words.remove(at + 1).into();
        words.remove(at);
    }
    let known: Vec<&str> = words
        .iter()
        .map(|word| word.to_str().unwrap_or_default())
        .collect();
    match known.as_slice() {
        ["stats" | "reload"]
        | ["cache", "save"]
        | ["cache", "dump" | "flush"]
        | ["cache", "dump" | "flush", _] => Ok(Command::Ask {
            request: known.join(" "),
            socket,
        }),
        _ => Err(not_a_command(&words)),
    }
}

fn not_a_command(words: &[OsString]) -> String {
    format!(
        "`{}` is not a command",
        words.join(OsStr::new(" ")).display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_command_is_known() {
        for (line, user) in [("run f", None), ("run --user xdnsd f", Some("xdnsd"))] {
            let user = user.map(str::to_owned);
            let file = "f".into();
            assert_eq!(parsed(line), Ok(Command::Run { file, user }));
        }
        for (line, offline) in [("check f", false), ("check --offline f", true)] {
            assert_eq!(
                parsed(line),
                Ok(Command::Check {
                    file: "f".into(),
                    offline
                })
            );
        }
        let ask = |request: &str, socket: &str| {
            Ok(Command::Ask {
                request: request.into(),
                socket: socket.into(),
            })
        };
        assert_eq!(parsed("stats"), ask("stats", "/run/xdnsd/control.sock"));
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
            parsed("lists compile out in"),
            Ok(Command::CompileLists(vec!["out".into(), "in".into()]))
        );
        for (line, command) in [
            ("reference", Command::Reference),
            ("memory", Command::Memory),
            ("version", Command::Version),
            ("--help", Command::Help),
        ] {
            assert_eq!(parsed(line), Ok(command));
        }
    }

    #[test]
    fn what_is_not_a_command_is_said() {
        assert_eq!(parsed(""), Err("no command".into()));
        for line in [
            "run",
            "run a b",
            "run --user a",
            "run f --user a",
            "start",
            "check",
            "check --online f",
            "cache",
            "cache drop",
            "stats all",
            "lists",
            "lists compile",
            "lists compile out",
        ] {
            assert_eq!(parsed(line), Err(format!("`{line}` is not a command")));
        }
        assert_eq!(
            parsed("stats --socket"),
            Err("--socket needs a path".into())
        );
    }

    #[test]
    fn the_default_socket_is_the_configs() {
        let text = "[interface]\nname = \"lan0\"\n[upstream]\nservers = [\"192.0.2.1\"]\n";
        let config = crate::config::Config::parse("f", text).expect("valid");
        assert_eq!(
            config.control.socket.as_deref(),
            Some(std::path::Path::new(SOCKET))
        );
        assert!(HELP.contains(SOCKET));
    }
}
