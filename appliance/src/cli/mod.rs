//! The command line: words in, a [`Command`] out.
//!
//! Here belongs how each command is written, its help, and the message for wrong words.
//!
//! What does not: to carry a command out, and to print (`main`).
//!
//! It uses `config` and `compile` for types of arguments, and `text`.

mod ask;
mod flag;
mod form;
mod here;
mod hint;
mod shield;
mod tail;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::text;
use flag::{ALLOW, AT_SOCKET};
use form::{Form, SOCKET};
use hint::not_a_command;

pub use tail::Tail;

/// A parsed command.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// `xdnsd run`: serve until a signal ends it.
    Run {
        /// Path of the config.
        file: PathBuf,
        /// Account to serve under. `None`: the one that started the process.
        user: Option<String>,
    },
    /// Validate a config.
    Check {
        /// Path of the config.
        file: PathBuf,
        /// Skip the checks against this machine's interfaces.
        offline: bool,
        /// Print JSON.
        json: bool,
        /// Account whose rights are checked. `None`: the one that runs the check.
        user: Option<String>,
    },
    /// Ask the daemon of the config at this path whether it answers.
    Health(PathBuf),
    /// Serve the state of the daemon of the config at this path over HTTP.
    Web(PathBuf),
    /// Ask a running daemon over its control socket.
    Ask {
        /// Line of the request.
        request: String,
        /// Path of its control socket.
        socket: PathBuf,
    },
    /// Show the counters of a running daemon as text.
    Stats {
        /// Path of its control socket.
        socket: PathBuf,
    },
    /// Show verdicts on frames as they happen.
    Log {
        /// Path of its control socket.
        socket: PathBuf,
        /// Print JSON.
        json: bool,
    },
    /// Show queries as they come.
    Tail {
        /// Path of its control socket.
        socket: PathBuf,
        /// Filter and outputs.
        tail: Tail,
    },
    /// Show current queries, full-screen.
    Top {
        /// Path of its control socket.
        socket: PathBuf,
        /// Print one screen and exit.
        once: bool,
    },
    /// Translate dnsmasq's configuration.
    Import(Vec<PathBuf>),
    /// Compile blocklists; the arguments are parsed by `compile`.
    CompileLists(Vec<OsString>),
    /// Print the reference of the config.
    Reference,
    /// Print the memory budget.
    Memory {
        /// The config; `None`: one that says nothing of it.
        file: Option<PathBuf>,
        /// Print JSON.
        json: bool,
    },
    /// Print the version.
    Version,
    /// Print this help.
    Help(String),
}

/// Every command, in the order of the help.
fn forms() -> impl Iterator<Item = &'static Form> {
    let groups = [
        here::FORMS,
        ask::FORMS,
        shield::FORMS,
        tail::FORMS,
        ask::LAST,
        here::LAST,
    ];
    groups.into_iter().flatten()
}

/// What `xdnsd help` prints.
#[must_use]
pub fn help() -> String {
    let mut out = String::from("xdnsd: a DNS forwarder for routers on XDP and AF_XDP\n\n");
    for form in forms() {
        let usage = form.usage.replace(" [--socket PATH]", "");
        // Writing to a `String` cannot fail.
        let _ = if form.name == "stats" {
            writeln!(
                out,
                "\nFor a running daemon; --socket PATH if its socket is elsewhere than {SOCKET}:"
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
           of health: 0 it answers, 1 it runs but does not answer, 3 it does not run or cannot be asked.\n\
           Words after `--` are arguments.\n\
           --json is for programs; xdnsd help COMMAND lists its names. More may be added; those there are keep their meaning.\n"
}

/// Parses the words after the program's name.
///
/// # Errors
/// What is wrong with the words, and the usage.
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
        // Help for the whole group if its second word is missing; none if it is wrong.
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

/// Removes the command's name, whose words may have options between them.
///
/// # Errors
/// The words name no command, or only part of one.
fn form_of(words: &mut Vec<OsString>) -> Result<&'static Form, String> {
    let mut name = text::bytes(words.remove(0).as_encoded_bytes());
    if forms().all(|form| form.name != name) && group_of(&name).next().is_none() {
        let names: Vec<&str> = forms().map(|form| form.name).collect();
        return Err(not_a_command(&name, &names) + "; see xdnsd help");
    }
    loop {
        if let Some(form) = forms().find(|form| form.name == name) {
            return Ok(form);
        }
        let names: Vec<&str> = group_of(&name).map(|form| form.name).collect();
        let Some(at) = second_word(words) else {
            let names = names.join(", xdnsd ");
            return Err(format!("{name} needs another word: xdnsd {names}"));
        };
        let next = words.remove(at);
        name = format!("{name} {}", text::bytes(next.as_encoded_bytes()));
        let is_known = |known: &&str| *known == name || known.starts_with(&format!("{name} "));
        if !names.iter().any(is_known) {
            return Err(not_a_command(&name, &names));
        }
    }
}

/// Commands of more words that begin with `words`.
fn group_of(words: &str) -> impl Iterator<Item = &'static Form> {
    let lead = format!("{words} ");
    forms().filter(move |form| form.name.starts_with(&lead))
}

/// Index of the first word that is neither an option nor an option's value.
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

/// True if `help` is among the options, before any `--`.
fn asks_for_help(words: &[OsString]) -> bool {
    words.iter().take_while(|word| *word != "--").any(is_help)
}

/// Usage of the commands with this name, or with this first word.
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
    let told: String = forms().filter(is_meant).map(Form::in_full).collect();
    if told.is_empty() {
        let names: Vec<&str> = forms().map(|form| form.name).collect();
        return Err(not_a_command(&name, &names));
    }
    Ok(Command::Help(told))
}

#[cfg(test)]
mod tests;
