//! Commands that need no running daemon: `run`, and those that do their work themselves.

use std::ffi::OsString;
use std::path::PathBuf;

use super::flag::{ALLOW, JSON, OFFLINE, USER};
use super::form::{BARE, Form, Words};
use super::{Command, help_about};

/// Commands for the config and its files.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "run",
        usage: " [--user NAME] FILE",
        about: "serve as the config FILE says; --user: as root, drop all other privileges",
        flags: &[USER],
        arguments: &["FILE"],
        least: 1,
        make: run,
        ..BARE
    },
    Form {
        name: "check",
        usage: " [--offline] [--json] [--user NAME] FILE",
        about: "every error of a config; --offline: of the file alone; --user: by the rights of NAME",
        json: r#"{"file", "valid": bool, "faults": [{"file", "line", "column", "key", "problem", "allowed"}], "warnings": as faults, "notes": [text], "read": [text]}"#,
        flags: &[OFFLINE, JSON, USER],
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
        name: "web",
        usage: " FILE",
        about: "metrics over HTTP and a status page, as [web] of FILE says, beside the daemon",
        arguments: &["FILE"],
        least: 1,
        make: |mut words| Ok(Command::Web(words.first())),
        ..BARE
    },
    Form {
        name: "import",
        usage: " FILE...",
        about: "a config made of dnsmasq's; what has no key is listed on standard error",
        arguments: &["FILE"],
        least: 1,
        is_open: true,
        make: |words| {
            Ok(Command::Import(
                words.arguments.into_iter().map(Into::into).collect(),
            ))
        },
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
        usage: " [--json] [FILE]",
        about: "the memory budget, line by line; FILE: that of this config",
        json: r#"{"lines": [{"what", "bytes", "count", "total"}], "total", "budget"}"#,
        flags: &[JSON],
        arguments: &["FILE"],
        least: 0,
        make: |mut words| {
            let json = words.option(JSON.name).is_some();
            let file = words.arguments.pop().map(PathBuf::from);
            Ok(Command::Memory { file, json })
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
];

/// Commands for the program itself.
pub(super) const LAST: &[Form] = &[
    Form {
        name: "version",
        about: "the version",
        ..BARE
    },
    Form {
        name: "help",
        usage: " [COMMAND]",
        about: "this page, or the usage of one command",
        arguments: &["COMMAND", "COMMAND", "COMMAND"],
        make: |words| help_about(&words.arguments),
        ..BARE
    },
];

fn run(mut words: Words) -> Result<Command, String> {
    let user = user(&mut words);
    let file = words.first();
    Ok(Command::Run { file, user })
}

fn check(mut words: Words) -> Result<Command, String> {
    let offline = words.option(OFFLINE.name).is_some();
    let json = words.option(JSON.name).is_some();
    let user = user(&mut words);
    let file = words.first();
    Ok(Command::Check {
        file,
        offline,
        json,
        user,
    })
}

fn user(words: &mut Words) -> Option<String> {
    let user = words.option(USER.name)?;
    // An account name that is not UTF-8 fails when it is looked up.
    Some(user.to_string_lossy().into_owned())
}

/// `compile` reads the words once more: an argument must not look like an option to it.
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
