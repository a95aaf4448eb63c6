//! Commands that show queries live.

use std::path::PathBuf;

use super::Command;
use super::flag::{AT_SOCKET, Flag, JSON};
use super::form::{BARE, Form, Words};
use crate::compile::name;
use crate::compile::prefix::Prefix;
use crate::text;

const CLIENT: Flag = value("--client", "PREFIX");
const NAME: Flag = value("--name", "NAME");
const BLOCKED: Flag = value("--blocked", "");
const LOG: Flag = value("--log", "FILE");
const ROTATE: Flag = value("--rotate", "SIZE");
const KEEP: Flag = value("--keep", "NUMBER");
const DNSTAP: Flag = value("--dnstap", "FILE");
const PCAP: Flag = value("--pcap", "FILE");
const ONCE: Flag = value("--once", "");

const fn value(name: &'static str, value: &'static str) -> Flag {
    Flag {
        name,
        value,
        may_repeat: false,
    }
}

/// Minimum size at which a log file is rotated, in bytes.
const ROTATE_MIN: u64 = 4096;
/// Default number of rotated files that are kept.
const KEEP_DEFAULT: u32 = 5;
const KEEP_MAX: u32 = 999;

/// Commands that read the tap.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "tail",
        usage: " [--socket PATH] [--json] [--client PREFIX] [--name NAME] [--blocked] [FILES]",
        about: "each query as it is answered, until ended: lines, a log file, dnstap, frames",
        more: "    A line is: time, xdp, udp or tcp, client, name, type, code, source, microseconds, upstream.\n    \
               --client, --name, --blocked: of clients in PREFIX, of NAME and below, of what lists withhold\n    \
           FILES: [--log FILE [--rotate SIZE] [--keep NUMBER]] [--dnstap FILE] [--pcap FILE]\n    \
           --log: to FILE, moved to FILE.1, FILE.2 ... before it has SIZE bytes (4096 or more; K, M, G), so many stay (5)\n    \
           --dnstap: messages to FILE, or to a socket by unix:PATH; --pcap: frames of AF_XDP sockets, all of them\n    \
           What the XDP program answers by itself (cache.tier0) no worker sees: xdnsd cache dump counts it by name.\n    \
           What comes faster than it is read is lost, and counted: a line says so.\n",
        json: r#"{"time_ms": since 1970, "via": "xdp", "udp" or "tcp", "client", "port", "name", "type", "rcode", "why": "cache", "upstream", "blocked" or another word, "us", "upstream"}, and {"lost": how many had no room}; what is not known is null"#,
        flags: &[
            AT_SOCKET, JSON, CLIENT, NAME, BLOCKED, LOG, ROTATE, KEEP, DNSTAP, PCAP,
        ],
        make: tail,
        ..BARE
    },
    Form {
        name: "top",
        usage: " [--socket PATH] [--once]",
        about: "rates, hit ratio, hottest names, clients, upstreams on one screen; --once: print one",
        flags: &[AT_SOCKET, ONCE],
        make: |mut words| {
            let socket = words.socket();
            let once = words.option(ONCE.name).is_some();
            Ok(Command::Top { socket, once })
        },
        ..BARE
    },
];

/// Filter and outputs of `tail`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Clients to show. `None`: all.
    pub client: Option<Prefix>,
    /// Names to show, in wire form and lower case. `None`: all.
    pub name: Option<Vec<u8>>,
    /// Show only queries that a list blocks.
    pub blocked: bool,
    /// Print JSON.
    pub json: bool,
    /// Log file, its maximum size in bytes (0: unlimited), and the number of rotated files to keep.
    pub log: Option<(PathBuf, u64, u32)>,
    /// Output for dnstap messages.
    pub dnstap: Option<PathBuf>,
    /// Output for captured frames.
    pub pcap: Option<PathBuf>,
}

fn tail(mut words: Words) -> Result<Command, String> {
    let socket = words.socket();
    let client = words.text(&CLIENT)?.map(|word| {
        let parsed = word.parse::<Prefix>();
        parsed.map_err(|error| format!("--client `{}` {error}", text::line(&word)))
    });
    let name = words.text(&NAME)?.map(|word| {
        let parsed = name::parse(&word);
        parsed.map_err(|error| format!("--name `{}` {error}", text::line(&word)))
    });
    let rotate = words.text(&ROTATE)?.map(|word| size(&word)).transpose()?;
    let keep = words.text(&KEEP)?.map(|word| number(&word)).transpose()?;
    let log = words.option(LOG.name).map(PathBuf::from);
    if log.is_none() && (rotate.is_some() || keep.is_some()) {
        return Err("tail: --rotate and --keep are about the file of --log".into());
    }
    let tail = Tail {
        client: client.transpose()?,
        name: name.transpose()?,
        blocked: words.option(BLOCKED.name).is_some(),
        json: words.option(JSON.name).is_some(),
        log: log.map(|path| (path, rotate.unwrap_or(0), keep.unwrap_or(KEEP_DEFAULT))),
        dnstap: words.option(DNSTAP.name).map(PathBuf::from),
        pcap: words.option(PCAP.name).map(PathBuf::from),
    };
    let files = [
        ("--log", tail.log.as_ref().map(|(path, ..)| path)),
        ("--dnstap", tail.dnstap.as_ref()),
        ("--pcap", tail.pcap.as_ref()),
    ];
    for (index, (flag, path)) in files.iter().enumerate() {
        let same = files.iter().take(index);
        let mut same = same.filter(|(_, other)| path.is_some() && other == path);
        if let Some((other, _)) = same.next() {
            return Err(format!("tail: {other} and {flag} are two files"));
        }
    }
    let is_filtered = tail.client.is_some() || tail.name.is_some() || tail.blocked;
    if tail.pcap.is_some() && is_filtered && tail.log.is_none() && tail.dnstap.is_none() {
        return Err(
            "tail: --pcap has all frames; --client, --name and --blocked are for the rest".into(),
        );
    }
    Ok(Command::Tail { socket, tail })
}

fn size(word: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "--rotate `{}` is not a number of bytes from {ROTATE_MIN} on; K, M and G may stand behind it",
            text::line(word)
        )
    };
    let (digits, unit) = match word.as_bytes().last() {
        Some(b'K') => (&word[..word.len() - 1], 1 << 10),
        Some(b'M') => (&word[..word.len() - 1], 1 << 20),
        Some(b'G') => (&word[..word.len() - 1], 1 << 30),
        Some(_) | None => (word, 1),
    };
    let bytes: Option<u64> = digits.parse().ok();
    let bytes = bytes.and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes >= ROTATE_MIN).ok_or_else(wrong)
}

fn number(word: &str) -> Result<u32, String> {
    let number: Option<u32> = word.parse().ok();
    number.filter(|number| *number <= KEEP_MAX).ok_or_else(|| {
        format!(
            "--keep `{}` is not a number from 0 to {KEEP_MAX}",
            text::line(word)
        )
    })
}
