//! The command line: words in, a [`Command`] out. Carries nothing out and prints nothing.

mod flag;
mod hint;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::compile::name;
use crate::text;
use flag::{ALLOW, AT_SOCKET, Flag, JSON, OFFLINE, PROMETHEUS, USER};
use hint::{did_you_mean, not_a_command};

/// Where the control socket is if nobody says otherwise: the config's default.
const SOCKET: &str = "/run/xdnsd/control.sock";

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
        /// For programs.
        json: bool,
    },
    /// Ask the daemon of a config whether it answers.
    Health(PathBuf),
    /// Ask a running daemon over its control socket.
    Ask {
        /// The request's line.
        request: String,
        /// Its control socket.
        socket: PathBuf,
    },
    /// Show the counters of a running daemon to people.
    Stats {
        /// Its control socket.
        socket: PathBuf,
    },
    /// Compile blocklists; the arguments are policy's.
    CompileLists(Vec<OsString>),
    /// Print the reference of the config.
    Reference,
    /// Print the memory budget.
    Memory {
        /// For programs.
        json: bool,
    },
    /// Print the version.
    Version,
    /// Print this.
    Help(String),
}

/// A command: how it is written and what may stand behind it.
struct Form {
    name: &'static str,
    /// What stands behind the name.
    usage: &'static str,
    about: &'static str,
    /// What `--json` prints; empty: it has no such option.
    json: &'static str,
    flags: &'static [Flag],
    /// The arguments, as the usage has them, of which the first `least` are needed.
    arguments: &'static [&'static str],
    least: usize,
    /// Whether the last argument may stand again and again.
    is_open: bool,
    make: fn(Words) -> Result<Command, String>,
}

/// One without options and arguments.
const BARE: Form = Form {
    name: "",
    usage: "",
    about: "",
    json: "",
    flags: &[],
    arguments: &[],
    least: 0,
    is_open: false,
    make: |_| Ok(Command::Version),
};

/// Every command, in the order of the help.
const FORMS: &[Form] = &[
    Form {
        name: "run",
        usage: " [--user NAME] FILE",
        about: "serve, as the config FILE says; --user: as root, drop all other privileges",
        flags: &[USER],
        arguments: &["FILE"],
        least: 1,
        make: run,
        ..BARE
    },
    Form {
        name: "check",
        usage: " [--offline] [--json] FILE",
        about: "validate a config and print every error; --offline: without looking at this machine",
        json: r#"{"file", "valid": bool, "faults": [{"file", "line", "column", "key", "problem", "allowed"}], "warnings": as faults, "notes": [text], "read": [text]}"#,
        flags: &[OFFLINE, JSON],
        arguments: &["FILE"],
        least: 1,
        make: check,
        ..BARE
    },
    Form {
        name: "health",
        usage: " FILE",
        about: "ask the daemon that serves FILE on this machine whether it answers",
        arguments: &["FILE"],
        least: 1,
        make: |mut words| Ok(Command::Health(words.first())),
        ..BARE
    },
    Form {
        name: "reference",
        about: "every key of the config, in Markdown",
        make: |_| Ok(Command::Reference),
        ..BARE
    },
    Form {
        name: "memory",
        usage: " [--json]",
        about: "the memory budget, line by line",
        json: r#"{"lines": [{"what", "bytes", "count", "total"}], "total", "budget"}"#,
        flags: &[JSON],
        make: |mut words| {
            let json = words.option(JSON.name).is_some();
            Ok(Command::Memory { json })
        },
        ..BARE
    },
    Form {
        name: "lists compile",
        usage: " [--allow FILE]... OUT IN...",
        about: "compile blocklists to one file; --allow: names that are never blocked",
        flags: &[ALLOW],
        arguments: &["OUT", "IN"],
        least: 2,
        is_open: true,
        make: compile_lists,
        ..BARE
    },
    Form {
        name: "stats",
        usage: " [--socket PATH] [--prometheus | --json]",
        about: "what was asked and answered, in all and now; --prometheus: every counter, as text",
        json: r#"{"metrics": [{"name", "type": "counter" or "gauge", "labels": {label: text}, "value"}]}, as --prometheus"#,
        flags: &[AT_SOCKET, PROMETHEUS, JSON],
        make: stats,
        ..BARE
    },
    Form {
        name: "upstreams",
        usage: " [--socket PATH] [--json]",
        json: r#"[{"group", "server", "state": "up", "silent" or "unknown", "rtt_ms", "asked", "answered", "failed", "last_failure": {"reason", "secs_ago"}}]; what is not known is null"#,
        flags: &[AT_SOCKET, JSON],
        about: "upstream servers: state, round trip, questions, answers, failures",
        ..ASKS
    },
    Form {
        name: "why",
        usage: " [--socket PATH] [--json] NAME [TYPE] [CLIENT]",
        json: r#"{"name", "type", "client", "verdict": "blocked" or another word, "blocked_with", "reasons": [{"source", "says", "key", "file", "line", "text"}], "target": the name behind local aliases, "cache": [as cache dump]}; what is not known is null"#,
        flags: &[AT_SOCKET, JSON],
        about: "what becomes of a question and who says so, and what the cache has",
        arguments: &["NAME", "TYPE", "CLIENT"],
        least: 1,
        ..ASKS
    },
    Form {
        name: "cache dump",
        usage: " [--socket PATH] [--json] [NAME]",
        json: r#"a line for each answer: {"name", "type", "dnssec_ok", "checking_disabled", "authentic_data", "rcode", "state": "fresh", "stale" or "restored", "ttl_secs", "stale_secs", "answers": [text], "authorities": [text], "bytes"}"#,
        flags: &[AT_SOCKET, JSON],
        about: "answers in the cache with their records, for NAME and below",
        arguments: &["NAME"],
        ..ASKS
    },
    Form {
        name: "cache flush",
        usage: " [--socket PATH] [NAME]",
        about: "remove answers from the cache, for NAME and below",
        arguments: &["NAME"],
        ..ASKS
    },
    Form {
        name: "cache save",
        about: "write the snapshot now",
        ..ASKS
    },
    Form {
        name: "shield status",
        usage: " [--socket PATH] [--json]",
        json: r#"{"in_force": bool, "prefixes": {"denied", "allowed", "said"}, "interfaces": [{"interface", "in_force": bool, "syn_cookies": bool, "no_syn_cookies": why not, in a word, "frames": {reason: count}}], "protect": [{"interface", "addresses", "ports", "in_force": bool, "why_not": in a word}]}; what is not known is null"#,
        flags: &[AT_SOCKET, JSON],
        about: "what the XDP programs drop, and how much of it, by interface",
        ..ASKS
    },
    Form {
        name: "shield list",
        usage: " [--socket PATH] [--json]",
        json: r#"a line for each prefix: {"prefix", "verdict": "deny" or "allow", "source": "config" or "said", "secs_left": null where it has no end}"#,
        flags: &[AT_SOCKET, JSON],
        about: "prefixes that are denied and allowed, and who says so",
        ..ASKS
    },
    Form {
        name: "shield deny",
        usage: " [--socket PATH] PREFIX [SECS]",
        about: "drop what comes from PREFIX from now on, for SECS or until the end",
        arguments: &["PREFIX", "SECS"],
        least: 1,
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "shield allow",
        usage: " [--socket PATH] PREFIX [SECS]",
        about: "let in what comes from PREFIX, though a shorter prefix is denied",
        arguments: &["PREFIX", "SECS"],
        least: 1,
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "shield forget",
        usage: " [--socket PATH] PREFIX",
        about: "what the config says of PREFIX holds again",
        arguments: &["PREFIX"],
        least: 1,
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "reload",
        about: "read config and files again, wait until that is in force, and print what has changed",
        ..ASKS
    },
    Form {
        name: "version",
        about: "the version",
        ..BARE
    },
    Form {
        name: "help",
        usage: " [COMMAND]",
        about: "this, or how one command is written",
        arguments: &["COMMAND", "COMMAND"],
        make: |words| help_about(&words.arguments),
        ..BARE
    },
];

/// One that asks a running daemon.
const ASKS: Form = Form {
    usage: " [--socket PATH]",
    flags: &[AT_SOCKET],
    make: ask,
    ..BARE
};

/// What stood behind a command, sorted.
struct Words {
    command: &'static str,
    /// Options by name, with their values, in order.
    options: Vec<(&'static str, OsString)>,
    arguments: Vec<OsString>,
}

impl Words {
    fn option(&mut self, name: &str) -> Option<OsString> {
        let at = self.options.iter().position(|(known, _)| *known == name)?;
        Some(self.options.remove(at).1)
    }

    /// The control socket of the daemon that is asked.
    fn socket(&mut self) -> PathBuf {
        let socket = self.option(AT_SOCKET.name);
        socket.unwrap_or_else(|| SOCKET.into()).into()
    }

    /// The first argument; the form has made sure that it is there.
    fn first(&mut self) -> PathBuf {
        self.arguments.remove(0).into()
    }
}

/// What `xdnsd help` prints.
#[must_use]
pub fn help() -> String {
    let mut out = String::from("xdnsd: a DNS forwarder for routers on XDP and AF_XDP\n\n");
    for form in FORMS {
        let usage = form.usage.replace(" [--socket PATH]", "");
        // Memory takes everything.
        let _ = if form.name == "stats" {
            writeln!(
                out,
                "\nOf a running daemon; --socket PATH where it is not at {SOCKET}:"
            )
        } else if form.name == "version" {
            writeln!(out)
        } else {
            Ok(())
        };
        let written = format!("{}{usage}", form.name);
        let _ = if written.len() > 27 {
            writeln!(out, "  xdnsd {written}\n{:36}{}", "", form.about)
        } else {
            writeln!(out, "  xdnsd {written:<28}{}", form.about)
        };
    }
    out + "\nExit status: 0 done, 1 failed, 2 wrong usage, 78 a config that cannot be run;\n\
           of health 0 it answers, 1 it runs and does not answer, 3 no daemon is there or can be asked.\n\
           A word behind `--` is an argument, whatever it begins with.\n\
           --json is for programs; xdnsd help COMMAND says what it prints. Names may be added, and none changes its meaning.\n"
}

/// Reads the words behind the program's name.
///
/// # Errors
/// What is wrong with them, and how it is written.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut words: Vec<OsString> = arguments.into_iter().collect();
    match words.first().and_then(|word| word.to_str()) {
        None if words.is_empty() => return Err(format!("no command\n\n{}", help())),
        Some("--help" | "-h") => return Ok(Command::Help(help())),
        Some("--version" | "-V") => return Ok(Command::Version),
        Some(word) if word.starts_with('-') => {
            let word = text::line(word);
            return Err(format!(
                "{word}: the command comes first: xdnsd COMMAND ..., see xdnsd help"
            ));
        }
        Some(_) | None => {}
    }
    if asks_for_help(&words) {
        // Of the whole group where its second word is not there, and of none where it is wrong.
        let (first, is_whole) = (words[..1].to_vec(), second_word(&words[1..]).is_some());
        return match form_of(&mut words) {
            Ok(form) => Ok(Command::Help(form.in_full())),
            Err(_) if !is_whole => help_about(&first),
            Err(problem) => Err(problem),
        };
    }
    let form = form_of(&mut words)?;
    (form.make)(form.sort(words)?)
}

/// Takes the command's name off. Options may stand between its two words.
///
/// # Errors
/// It is not a command, or half of one.
fn form_of(words: &mut Vec<OsString>) -> Result<&'static Form, String> {
    let first = text::bytes(words.remove(0).as_encoded_bytes());
    if let Some(form) = FORMS.iter().find(|form| form.name == first) {
        return Ok(form);
    }
    let names: Vec<&str> = group_of(&first).map(|form| form.name).collect();
    if names.is_empty() {
        let names: Vec<&str> = FORMS.iter().map(|form| form.name).collect();
        return Err(not_a_command(&first, &names) + "; see xdnsd help");
    }
    let Some(at) = second_word(words) else {
        let names = names.join(", xdnsd ");
        return Err(format!("{first} needs another word: xdnsd {names}"));
    };
    let second = words.remove(at);
    let whole = format!("{first} {}", text::bytes(second.as_encoded_bytes()));
    let form = FORMS.iter().find(|form| form.name == whole);
    form.ok_or_else(|| not_a_command(&whole, &names))
}

/// The commands whose first of two words this is.
fn group_of(first: &str) -> impl Iterator<Item = &'static Form> {
    let is_first = move |form: &&Form| {
        form.name
            .split_once(' ')
            .is_some_and(|(word, _)| word == first)
    };
    FORMS.iter().filter(is_first)
}

/// Where the first word stands that is neither an option nor an option's value.
fn second_word(words: &[OsString]) -> Option<usize> {
    let has_value = |word: &OsString| word == AT_SOCKET.name || word == ALLOW.name;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if word == "--" {
            return None;
        }
        if !word.as_encoded_bytes().starts_with(b"-") {
            return Some(at);
        }
        at += if has_value(word) { 2 } else { 1 };
    }
    None
}

fn is_help(word: &OsString) -> bool {
    word == "--help" || word == "-h"
}

/// `help` as an option, unless it stands behind `--`.
fn asks_for_help(words: &[OsString]) -> bool {
    words.iter().take_while(|word| *word != "--").any(is_help)
}

impl Form {
    /// How it is written, in one line.
    fn line(&self) -> String {
        format!("xdnsd {}{}", self.name, self.usage)
    }

    fn in_full(&self) -> String {
        let json = match self.json {
            "" => String::new(),
            json => format!("    --json: {json}\n"),
        };
        format!("{}\n    {}\n{json}", self.line(), self.about)
    }

    fn wrong(&self, what: &str) -> String {
        format!("{} {what}: {}", self.name, self.line())
    }

    /// Tells options from arguments.
    fn sort(&self, words: Vec<OsString>) -> Result<Words, String> {
        let mut sorted = Words {
            command: self.name,
            options: Vec::new(),
            arguments: Vec::new(),
        };
        let mut rest = words.into_iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                sorted.arguments.extend(rest.by_ref());
            } else if word.as_encoded_bytes().starts_with(b"-") && word != "-" {
                let option = self.option(&word, &mut rest)?;
                let is_there = sorted
                    .options
                    .iter()
                    .any(|(name, _)| *name == option.0.name);
                if is_there && !option.0.may_repeat {
                    return Err(self.wrong(&format!("has {} twice", option.0.name)));
                }
                sorted.options.push((option.0.name, option.1));
            } else {
                sorted.arguments.push(word);
            }
        }
        self.count(&sorted.arguments)?;
        Ok(sorted)
    }

    /// An option and its value, which stands behind it or behind a `=`.
    fn option(
        &self,
        word: &OsString,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<(&'static Flag, OsString), String> {
        let shown = text::bytes(word.as_encoded_bytes());
        let (name, value) = match word.to_str().and_then(|word| word.split_once('=')) {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (word.to_str().unwrap_or_default(), None),
        };
        let Some(flag) = self.flags.iter().find(|flag| flag.name == name) else {
            let known: Vec<&str> = self
                .flags
                .iter()
                .map(|flag| flag.name)
                .chain(["--help"])
                .collect();
            let hint = match name {
                "-c" | "--config" | "-f" | "--file" if self.least > 0 => {
                    ", a FILE stands by itself".to_owned()
                }
                _ => did_you_mean(name, &known),
            };
            return Err(self.wrong(&format!("has no option {shown}{hint}")));
        };
        match (flag.value, value) {
            ("", None) => Ok((flag, OsString::new())),
            ("", Some(_)) => Err(self.wrong(&format!("has {name} without a value"))),
            (what, value) => {
                let is_value = |word: &OsString| !word.as_encoded_bytes().starts_with(b"-");
                let value = value.or_else(|| rest.next().filter(is_value));
                let value = value.filter(|value| !value.is_empty());
                let missing = || self.wrong(&format!("needs a {what} behind {name}"));
                Ok((flag, value.ok_or_else(missing)?))
            }
        }
    }

    /// Whether there are as many arguments as there should be, and something in each.
    fn count(&self, arguments: &[OsString]) -> Result<(), String> {
        if let Some(missing) = self.arguments[..self.least].get(arguments.len()) {
            return Err(self.wrong(&format!("needs {} {missing}", article(missing))));
        }
        if let Some(more) = arguments
            .get(self.arguments.len())
            .filter(|_| !self.is_open)
        {
            let more = text::bytes(more.as_encoded_bytes());
            return Err(self.wrong(&format!("takes no `{more}`")));
        }
        if let Some(at) = arguments.iter().position(|argument| argument.is_empty()) {
            let what = self.arguments[at.min(self.arguments.len() - 1)];
            return Err(self.wrong(&format!("has {} {what} that is empty", article(what))));
        }
        Ok(())
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['I', 'O']) {
        "an"
    } else {
        "a"
    }
}

fn run(mut words: Words) -> Result<Command, String> {
    let user = words.option(USER.name).map(|user| {
        // An account that is not UTF-8 is none; who looks for it says so.
        user.to_string_lossy().into_owned()
    });
    let file = words.first();
    Ok(Command::Run { file, user })
}

fn check(mut words: Words) -> Result<Command, String> {
    let offline = words.option(OFFLINE.name).is_some();
    let json = words.option(JSON.name).is_some();
    let file = words.first();
    Ok(Command::Check {
        file,
        offline,
        json,
    })
}

/// Policy reads the words once more: an argument must not look like an option to it.
fn compile_lists(words: Words) -> Result<Command, String> {
    let mut all = Vec::new();
    for (name, value) in words.options {
        all.extend([name.into(), plain(value)]);
    }
    all.extend(words.arguments.into_iter().map(plain));
    Ok(Command::CompileLists(all))
}

fn plain(path: OsString) -> OsString {
    if path.as_encoded_bytes().starts_with(b"-") {
        let mut plain = OsString::from("./");
        plain.push(path);
        plain
    } else {
        path
    }
}

/// Counters for people are put together here, from two looks at them.
fn stats(mut words: Words) -> Result<Command, String> {
    let is_text = words.option(PROMETHEUS.name).is_some();
    let is_json = words.options.iter().any(|(name, _)| *name == JSON.name);
    if is_text && is_json {
        return Err("stats is either --prometheus or --json".into());
    }
    if is_text || is_json {
        return ask(words);
    }
    let socket = words.socket();
    Ok(Command::Stats { socket })
}

/// A request is one line of words: a name with a space in it would be two.
fn ask(words: Words) -> Result<Command, String> {
    let first = words.arguments.first().cloned();
    let command = ask_about_anything(words)?;
    if let Some(word) = first.as_ref().and_then(|word| word.to_str()) {
        // Of the others the daemon knows more.
        name::parse(word).map_err(|error| format!("`{}` {error}", text::line(word)))?;
    }
    Ok(command)
}

/// The same where the first argument is no name: the daemon knows what it has to be. For programs `json` stands before it.
fn ask_about_anything(mut words: Words) -> Result<Command, String> {
    let socket = words.socket();
    let is_json = words.option(JSON.name).is_some();
    let lead = if is_json { "json " } else { "" };
    let mut request = format!("{lead}{}", words.command);
    for (index, argument) in words.arguments.iter().enumerate() {
        let shown = text::bytes(argument.as_encoded_bytes());
        let is_word = |char: char| char.is_ascii_graphic();
        let word = argument.to_str().filter(|word| word.chars().all(is_word));
        let word =
            word.ok_or_else(|| format!("`{shown}` is not a {}", ["name", "word"][index.min(1)]))?;
        // Memory takes everything.
        let _ = write!(request, " {word}");
    }
    Ok(Command::Ask { request, socket })
}

/// How the commands of this name, or of this first word, are written.
fn help_about(words: &[OsString]) -> Result<Command, String> {
    if words.is_empty() {
        return Ok(Command::Help(help()));
    }
    let words: Vec<_> = words
        .iter()
        .map(|word| text::bytes(word.as_encoded_bytes()))
        .collect();
    let name = words.join(" ");
    let below = format!("{name} ");
    let is_meant = |form: &&Form| form.name == name || form.name.starts_with(&below);
    let told: String = FORMS.iter().filter(is_meant).map(Form::in_full).collect();
    if told.is_empty() {
        let names: Vec<&str> = FORMS.iter().map(|form| form.name).collect();
        return Err(not_a_command(&name, &names));
    }
    Ok(Command::Help(told))
}

#[cfg(test)]
mod tests;
