//! Requests of an operator about the shield: `xdnsd shield status`, `list`, `deny`, `allow`, `forget`.

mod log;
mod status;

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::metrics::Telemetry;
use super::socket::{CommandError, Commands};
use crate::compile::prefix::Prefix;
use crate::compile::prefix_list::Verdict;
use crate::store::rates::SecretTurn;
use crate::text::json;
use status::Status;

pub use log::{LogSwitch, SeenFrames, with_watcher};

/// Longest time for a verdict of an operator, in seconds: a year.
const SECS_MAX: u32 = 31_536_000;

/// A prefix in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The prefix.
    pub prefix: Prefix,
    /// Verdict on its packets.
    pub verdict: Verdict,
    /// True if an operator has set the verdict since the start.
    pub is_said: bool,
    /// Seconds until that verdict ends. `None`: it stays.
    pub secs_left: Option<u32>,
}

/// Prefixes in force, as requests read and change them.
pub trait PrefixControl: Clone + Send + Sync + 'static {
    /// All prefixes in force, in order.
    ///
    /// # Errors
    /// They cannot be read.
    fn list(&self) -> Result<Vec<Listed>, String>;

    /// Sets the verdict on a prefix at once, for `secs` seconds or until the process ends; with `None` the config's verdict
    /// holds again. Returns a line for each interface where it is not in force.
    ///
    /// # Errors
    /// There is no room, the kernel refuses, or no program would obey: then nothing has changed.
    fn set_verdict(
        &self,
        prefix: Prefix,
        verdict: Option<Verdict>,
        secs: Option<u32>,
    ) -> Result<Vec<String>, String>;
}

/// Programs on interfaces, as requests attach and detach them.
pub trait Operator: Clone + Send + Sync + 'static {
    /// Attaches the XDP program to an interface again.
    ///
    /// # Errors
    /// There is no such interface, or it cannot have the program.
    fn attach(&self, interface: &str) -> Result<(), String>;

    /// Detaches the XDP program from an interface, until it is attached again or the process ends.
    ///
    /// # Errors
    /// There is no such interface, or its driver takes long.
    fn detach(&self, interface: &str) -> Result<(), String>;

    /// Changes the key for cookies of hosts behind this one, and the secret of DNS cookies. Returns the result for the latter.
    ///
    /// # Errors
    /// A driver takes long.
    fn rotate(&self) -> Result<SecretTurn, String>;
}

/// Adds the requests that change a switch.
#[must_use]
pub fn with_operator(commands: Commands, operator: &impl Operator) -> Commands {
    let switch = |is_attached: bool, is_json: bool| {
        let operator = operator.clone();
        move |words: &[&str], out: &mut dyn Write| {
            let interface = match words {
                [interface] => *interface,
                [] => return Err(CommandError::Refused("an interface is missing".into())),
                [.., word] => return Err(CommandError::Refused(format!("`{word}` is too much"))),
            };
            let done = match is_attached {
                true => operator.attach(interface),
                false => operator.detach(interface),
            };
            done.map_err(CommandError::Refused)?;
            let word = if is_attached { "attached" } else { "detached" };
            let line = match is_json {
                true => {
                    let value = json!({ "interface": interface, "attached": is_attached });
                    json::line(&value)
                }
                false => format!("{interface}: XDP program {word}"),
            };
            Ok(writeln!(out, "{line}")?)
        }
    };
    let rotate = |is_json: bool| {
        let operator = operator.clone();
        move |words: &[&str], out: &mut dyn Write| {
            super::commands::no_more(words)?;
            let turned = operator.rotate().map_err(CommandError::Refused)?;
            let (word, dns_cookies) = said_of(turned);
            if is_json {
                let value = json!({ "rotated": true, "dns_cookies": word });
                return Ok(writeln!(out, "{}", json::line(&value))?);
            }
            let behind = "protect: another secret, the one before is good for a minute";
            Ok(writeln!(out, "{behind}\nDNS cookies: {dns_cookies}")?)
        }
    };
    commands
        .with("shield attach", switch(true, false))
        .with("json shield attach", switch(true, true))
        .with("shield detach", switch(false, false))
        .with("json shield detach", switch(false, true))
        .with("shield secret rotate", rotate(false))
        .with("json shield secret rotate", rotate(true))
}

/// Result of changing the secret of DNS cookies: a word, and a sentence.
const fn said_of(turned: SecretTurn) -> (&'static str, &'static str) {
    match turned {
        SecretTurn::Anew => (
            "another",
            "another secret, those by the one before are good for their hour, or until the next one",
        ),
        SecretTurn::Given => ("config", "edns.cookie_secrets of the config stay"),
        SecretTurn::Off => ("off", "none are given"),
    }
}

/// Adds the requests of the shield.
#[must_use]
pub fn with_shield(
    commands: Commands,
    telemetry: Arc<Telemetry>,
    prefixes: impl PrefixControl,
) -> Commands {
    let said = |verdict: Option<Verdict>, as_json: bool| {
        let prefixes = prefixes.clone();
        move |words: &[&str], out: &mut dyn Write| {
            let (prefix, secs) = prefix_of(words, verdict.is_some())?;
            let said = prefixes.set_verdict(prefix, verdict, secs);
            let notes = said.map_err(CommandError::Refused)?;
            if as_json {
                let value = json!({
                    "prefix": prefix.to_string(),
                    "verdict": verdict.map(Verdict::word),
                    "secs_left": secs,
                    "notes": notes,
                });
                return Ok(writeln!(out, "{}", json::line(&value))?);
            }
            notes.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            Ok(())
        }
    };
    let shown = Arc::clone(&telemetry);
    let (lister, counter) = (prefixes.clone(), prefixes.clone());
    as_json(commands, telemetry, prefixes.clone())
        .with("shield status", move |words, out| {
            super::commands::no_more(words)?;
            Status::read(&shown, &counter)?.write(out)
        })
        .with("shield list", move |words, out| {
            super::commands::no_more(words)?;
            let listed = lister.list().map_err(CommandError::Refused)?;
            listed
                .iter()
                .try_for_each(|listed| writeln!(out, "{}", line(listed)))?;
            Ok(())
        })
        .with("shield deny", said(Some(Verdict::Deny), false))
        .with("shield allow", said(Some(Verdict::Allow), false))
        .with("shield forget", said(None, false))
        .with("json shield deny", said(Some(Verdict::Deny), true))
        .with("json shield allow", said(Some(Verdict::Allow), true))
        .with("json shield forget", said(None, true))
}

/// Adds the requests that print JSON.
fn as_json(
    commands: Commands,
    telemetry: Arc<Telemetry>,
    prefixes: impl PrefixControl,
) -> Commands {
    let counter = prefixes.clone();
    commands
        .with("json shield status", move |words, out| {
            super::commands::no_more(words)?;
            let status = Status::read(&telemetry, &counter)?;
            Ok(writeln!(out, "{}", json::line(&status.json()))?)
        })
        .with("json shield list", move |words, out| {
            super::commands::no_more(words)?;
            let listed = prefixes.list().map_err(CommandError::Refused)?;
            // One line for each: a single value with all of them would take megabytes.
            listed
                .iter()
                .try_for_each(|listed| writeln!(out, "{}", json::line(&listed.json())))?;
            Ok(())
        })
}

impl Listed {
    const fn verdict_word(&self) -> &'static str {
        self.verdict.word()
    }

    fn source_word(&self) -> &'static str {
        match self.is_said {
            true => "said",
            false => "config",
        }
    }

    fn json(&self) -> Value {
        json!({
            "prefix": self.prefix.to_string(),
            "verdict": self.verdict_word(),
            "source": self.source_word(),
            "secs_left": self.secs_left,
        })
    }
}

fn line(listed: &Listed) -> String {
    let left = listed.secs_left.map(|secs| format!(", {secs} s left"));
    format!(
        "{:<5} {} ({}{})",
        listed.verdict_word(),
        listed.prefix,
        listed.source_word(),
        left.unwrap_or_default()
    )
}

/// Parses the prefix that a request is about, and the time.
///
/// # Errors
/// What is wrong with the words.
pub(super) fn prefix_of(
    words: &[&str],
    has_secs: bool,
) -> Result<(Prefix, Option<u32>), CommandError> {
    let (text, secs) = match words {
        [text] => (text, None),
        [text, secs] if has_secs => (text, Some(secs)),
        [] => return Err(CommandError::Refused("a prefix is missing".into())),
        [.., word] => return Err(CommandError::Refused(format!("`{word}` is too much"))),
    };
    let prefix = text
        .parse()
        .map_err(|error| CommandError::Refused(format!("`{text}` {error}")))?;
    let secs = secs.map(|secs| {
        let parsed = secs
            .parse()
            .ok()
            .filter(|secs| (1..=SECS_MAX).contains(secs));
        parsed.ok_or_else(|| {
            CommandError::Refused(format!(
                "`{secs}`: seconds, an integer from 1 to {SECS_MAX}"
            ))
        })
    });
    Ok((prefix, secs.transpose()?))
}

#[cfg(test)]
mod tests;
