//! Commands that show and change the shield of a running daemon.

use super::Command;
use super::ask::{ASKS, ask_about_anything};
use super::flag::{AT_SOCKET, JSON};
use super::form::{Form, Words};

/// JSON description of a prefix set by an operator.
const SAID_JSON: &str = r#"{"prefix", "verdict": "deny", "allow" or null, "secs_left": null where it has no end, "notes": [where it does not hold]}"#;

/// Commands of the shield.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "shield status",
        usage: " [--socket PATH] [--json]",
        json: r#"{"in_force": bool, "prefixes": {"denied", "allowed", "said"}, "limited": by workers {"rate_queries_slipped", "rate_queries_dropped", "rate_misses_slipped", "rate_misses_dropped"}, "interfaces": [{"interface", "in_force": bool, "syn_cookies": bool, "no_syn_cookies": why not, in a word, "frames": {reason: count}}], "protect": [{"interface", "addresses", "ports", "in_force": bool, "why_not": in a word}]}; what is not known is null"#,
        flags: &[AT_SOCKET, JSON],
        about: "what the XDP programs drop, and how much of it, by interface",
        ..ASKS
    },
    Form {
        name: "shield list",
        usage: " [--socket PATH] [--json]",
        json: r#"a line for each prefix: {"prefix", "verdict": "deny" or "allow", "source": "config" or "said", "secs_left": null where it has no end}"#,
        flags: &[AT_SOCKET, JSON],
        about: "denied and allowed prefixes, and where each comes from",
        ..ASKS
    },
    Form {
        name: "shield deny",
        usage: " [--socket PATH] [--json] PREFIX [SECS]",
        json: SAID_JSON,
        flags: &[AT_SOCKET, JSON],
        about: "drop packets from PREFIX, for SECS or until the process ends",
        arguments: &["PREFIX", "SECS"],
        least: 1,
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "shield allow",
        usage: " [--socket PATH] [--json] PREFIX [SECS]",
        json: SAID_JSON,
        flags: &[AT_SOCKET, JSON],
        about: "pass packets from PREFIX although a shorter prefix is denied",
        arguments: &["PREFIX", "SECS"],
        least: 1,
        make: ask_about_anything,
        ..ASKS
    },
    Form {
        name: "shield forget",
        usage: " [--socket PATH] [--json] PREFIX",
        json: SAID_JSON,
        flags: &[AT_SOCKET, JSON],
        about: "undo deny or allow of PREFIX: the config decides again",
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
        about: "detach the XDP program from INTERFACE until shield attach or a restart",
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
        about: "attach the XDP program to INTERFACE again",
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
        about: "new secrets for DNS cookies and [[protect]]; the old ones stay good for a while",
        ..ASKS
    },
    Form {
        name: "shield log",
        usage: " [--socket PATH] [--json]",
        json: r#"a line for each frame: {"time_ms": since 1970, "interface", "reason", "protocol", "source", "source_port", "destination", "destination_port", "vlans", "bytes", "every": how many it stands for}, and {"lost": how many had no room}; what is not known is null"#,
        flags: &[AT_SOCKET, JSON],
        about: "a sample of frames and what becomes of them, live, until interrupted",
        make: log,
        ..ASKS
    },
];

fn log(mut words: Words) -> Result<Command, String> {
    let json = words.option(JSON.name).is_some();
    let socket = words.socket();
    Ok(Command::Log { socket, json })
}
