//! Commands that show the shield of a running daemon and tell it something.

use super::Command;
use super::ask::{ASKS, ask_about_anything};
use super::flag::{AT_SOCKET, JSON};
use super::form::{Form, Words};

/// The shield's.
pub(super) const FORMS: &[Form] = &[
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
        name: "shield detach",
        usage: " [--socket PATH] [--json] INTERFACE",
        json: r#"{"interface", "attached": bool}"#,
        flags: &[AT_SOCKET, JSON],
        about: "take the XDP program off INTERFACE until shield attach or a restart",
        arguments: &["INTERFACE"],
        least: 1,
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "shield attach",
        usage: " [--socket PATH] [--json] INTERFACE",
        json: r#"{"interface", "attached": bool}"#,
        flags: &[AT_SOCKET, JSON],
        about: "give INTERFACE its XDP program again",
        arguments: &["INTERFACE"],
        least: 1,
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "shield secret rotate",
        usage: " [--socket PATH] [--json]",
        json: r#"{"rotated": bool, "dns_cookies": "another", "config" (its secrets stay) or "off"}"#,
        flags: &[AT_SOCKET, JSON],
        about: "other secrets for cookies of hosts behind and of DNS; those before are good a while",
        ..ASKS
    },
    Form {
        name: "shield log",
        usage: " [--socket PATH] [--json]",
        json: r#"a line for each frame: {"time_ms": since 1970, "interface", "reason", "protocol", "source", "source_port", "destination", "destination_port", "vlans", "bytes", "every": how many it stands for}, and {"lost": how many had no room}; what is not known is null"#,
        flags: &[AT_SOCKET, JSON],
        about: "what becomes of frames as it happens, a sample of it, until it is ended",
        make: log,
        ..ASKS
    },
];

fn log(mut words: Words) -> Result<Command, String> {
    let json = words.option(JSON.name).is_some();
    let socket = words.socket();
    Ok(Command::Log { socket, json })
}
