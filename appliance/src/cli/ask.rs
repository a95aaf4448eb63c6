//! Commands that ask a running daemon.

use std::fmt::Write as _;

use super::Command;
use super::flag::{AT_SOCKET, JSON, PROMETHEUS};
use super::form::{BARE, Form, Words};
use crate::compile::name;
use crate::text;

/// Commands that print what the daemon counts, decides and keeps.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "stats",
        usage: " [--socket PATH] [--prometheus | --json]",
        about: "queries and answers, in all and now; --prometheus: every counter, as text",
        json: r#"{"metrics": [{"name", "type": "counter", "gauge" or "histogram", "labels": {label: text}, "value"}]}, as --prometheus"#,
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
        json: r#"{"name", "type", "client", "verdict": "blocked" or another word, "blocked_with", "reasons": [{"source", "says", "key", "file", "line", "text"}], "target": the name behind local aliases, "view": its number, 0: none, "cache": [as cache dump]}; what is not known is null"#,
        flags: &[AT_SOCKET, JSON],
        about: "how a question is answered, by which source, and what the cache has",
        arguments: &["NAME", "TYPE", "CLIENT"],
        least: 1,
        ..ASKS
    },
    Form {
        name: "cache dump",
        usage: " [--socket PATH] [--json] [NAME]",
        json: r#"a line for each answer: {"name", "type", "dnssec_ok", "checking_disabled", "view": its number, 0: none, "authentic_data", "dns64": whether DNS64 had a part in it, "rcode", "state": "fresh", "stale" or "restored", "origin": "upstream", "policy" (in place of an answer that it withholds) or "snapshot", "ttl_secs", "stale_secs", "answers": [text], "authorities": [text], "bytes", "mark": of what is no answer "exists" or "too long", else null, "hot_hits": how often the XDP program has given it since it is hot, or null}"#,
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
        name: "pause",
        usage: " [--socket PATH] [--json] [TIME [CLIENT]]",
        json: r#"[{"client": a prefix, null: everybody, "secs_left"}]; empty: lists are in force"#,
        flags: &[AT_SOCKET, JSON],
        about: "lists are off for TIME (30s, 5m, 2h), for CLIENT or all; without: are they?",
        arguments: &["TIME", "CLIENT"],
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "resume",
        usage: " [--socket PATH] [CLIENT]",
        about: "switch lists on again, for CLIENT or for all",
        arguments: &["CLIENT"],
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "cache save",
        about: "write the snapshot now",
        ..ASKS
    },
];

/// The command that reloads config and files.
pub(super) const LAST: &[Form] = &[Form {
    name: "reload",
    about: "read config and files again, wait until that is in force, and print what has changed",
    ..ASKS
}];

/// Template of a command that asks a running daemon.
pub(super) const ASKS: Form = Form {
    usage: " [--socket PATH]",
    flags: &[AT_SOCKET],
    make: ask,
    ..BARE
};

/// `stats` without a format is made here, from two looks at the counters.
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

/// Builds the request: one line of words, in which a name with a space would be two.
fn ask(words: Words) -> Result<Command, String> {
    let first = words.arguments.first().cloned();
    let command = ask_about_anything(words)?;
    if let Some(word) = first.as_ref().and_then(|word| word.to_str()) {
        // Only the first argument is a name; the daemon checks the others.
        name::parse(word).map_err(|error| format!("`{}` {error}", text::line(word)))?;
    }
    Ok(command)
}

/// Like [`ask`], but the first argument is no name and the daemon checks it. With `--json` the request begins with `json`.
pub(super) fn ask_about_anything(mut words: Words) -> Result<Command, String> {
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
        // Writing to a `String` cannot fail.
        let _ = write!(request, " {word}");
    }
    Ok(Command::Ask { request, socket })
}
