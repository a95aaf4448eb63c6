//! Commands of the control socket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use xdnsd_core::dns::Name;

use super::dump::{dump, dump_json};
use super::health;
use super::metrics::Telemetry;
use super::socket::{CommandError, Commands};
use super::upstreams;
use super::why;
use crate::compile::Prefix;
use crate::compile::name;
use crate::compile::why::{PolicyTrace, WhyQuestion};
use crate::os::clock;
use crate::store::{SharedCache, SnapshotHandle};
use crate::text::{self, json};

/// Request to pause lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseRequest {
    /// Length of the pause.
    pub length: Duration,
    /// Clients to pause lists for. `None`: everybody.
    pub client: Option<Prefix>,
}

/// A current pause of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseState {
    /// Clients that it is for. `None`: everybody.
    pub client: Option<Prefix>,
    /// Seconds left.
    pub secs: u64,
}

impl PauseState {
    fn json(&self) -> Value {
        let client = self.client.map(|client| client.to_string());
        json!({ "client": client, "secs_left": self.secs })
    }
}

impl fmt::Display for PauseState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.secs;
        match self.client {
            None => write!(formatter, "lists are paused for {secs} s"),
            Some(client) => write!(formatter, "lists are paused for {client} for {secs} s"),
        }
    }
}

/// Requests that are carried out by the thread that reads the files of policy.
pub trait PolicyReader: Clone + Send + Sync + 'static {
    /// Reads the config and its files again. Returns lines that describe the result.
    ///
    /// # Errors
    /// What was refused.
    fn reload(&self) -> Result<Vec<String>, Vec<String>>;

    /// Finds out why a question is answered as it is.
    ///
    /// # Errors
    /// It takes too long.
    fn why(&self, question: WhyQuestion) -> Result<PolicyTrace, String>;

    /// Pauses lists as `wanted`; `None` changes nothing. Returns the current pauses.
    ///
    /// # Errors
    /// It takes too long, or there are too many clients.
    fn pause(&self, wanted: Option<PauseRequest>) -> Result<Vec<PauseState>, String>;

    /// Ends the pause of one client, or all of them. True if there was one.
    ///
    /// # Errors
    /// It takes too long.
    fn resume(&self, client: Option<Prefix>) -> Result<bool, String>;
}

/// All commands; `snapshot` is `Some` if the config names one.
#[must_use]
pub fn all(
    telemetry: Arc<Telemetry>,
    cache: &'static SharedCache,
    reader: impl PolicyReader,
    snapshot: Option<SnapshotHandle>,
) -> Commands {
    let (explainer, pauser) = (reader.clone(), reader.clone());
    let servers = Arc::clone(&telemetry);
    let for_programs = as_json(&telemetry, cache, reader.clone());
    pauses(for_programs, pauser)
        .with("stats", move |words, out| {
            no_more(words)?;
            Ok(out.write_all(telemetry.read().prometheus().as_bytes())?)
        })
        .with("upstreams", move |words, out| {
            no_more(words)?;
            let table = upstreams::table(&servers.servers(), &servers.groups(), clock::wall_secs());
            Ok(out.write_all(table.as_bytes())?)
        })
        .with("reload", move |words, out| {
            no_more(words)?;
            let told = reader
                .reload()
                .map_err(|lines| CommandError::Refused(lines.join("\n")))?;
            told.iter()
                .try_for_each(|line| writeln!(out, "{}", text::line(line)))?;
            Ok(())
        })
        .with("why", move |words, out| {
            let question = why::question(words).map_err(CommandError::Refused)?;
            let why = explainer.why(question).map_err(CommandError::Refused)?;
            why::write(&why, cache, out)
        })
        .with("health", |words, _| {
            no_more(words)?;
            health::look().map_err(CommandError::Refused)
        })
        .with("cache dump", |words, out| {
            dump(cache, &name_of(words)?, out)
        })
        .with("cache flush", |words, out| {
            let removed = match words {
                [] => cache.clear(),
                words => cache.remove_below(&name_of(words)?),
            };
            Ok(writeln!(
                out,
                "{} forgotten",
                text::count(removed, "answer")
            )?)
        })
        .with("cache save", move |words, out| {
            no_more(words)?;
            let snapshot = snapshot
                .as_ref()
                .ok_or_else(|| CommandError::Refused("cache.snapshot is not set".into()))?;
            let answers = snapshot.save().map_err(CommandError::Refused)?;
            Ok(writeln!(out, "{} saved", text::count(answers, "answer"))?)
        })
}

/// Adds the commands that print JSON: `json` before the command's name.
fn as_json(
    telemetry: &Arc<Telemetry>,
    cache: &'static SharedCache,
    reader: impl PolicyReader,
) -> Commands {
    let (counted, servers) = (Arc::clone(telemetry), Arc::clone(telemetry));
    Commands::default()
        .with("json stats", move |words, out| {
            no_more(words)?;
            Ok(writeln!(out, "{}", counted.read().json())?)
        })
        .with("json upstreams", move |words, out| {
            no_more(words)?;
            let now = clock::wall_secs();
            let value = upstreams::json(&servers.servers(), &servers.groups(), now);
            Ok(writeln!(out, "{}", json::line(&value))?)
        })
        .with("json why", move |words, out| {
            let question = why::question(words).map_err(CommandError::Refused)?;
            let why = reader.why(question).map_err(CommandError::Refused)?;
            Ok(writeln!(out, "{}", json::line(&why::json(&why, cache)))?)
        })
        .with("json cache dump", |words, out| {
            dump_json(cache, &name_of(words)?, out)
        })
}

/// Adds the commands that pause lists.
fn pauses(commands: Commands, reader: impl PolicyReader) -> Commands {
    let (resumer, shower) = (reader.clone(), reader.clone());
    commands
        .with("json pause", move |words, out| {
            let wanted = pause_of(words).map_err(CommandError::Refused)?;
            let paused = shower.pause(wanted).map_err(CommandError::Refused)?;
            let paused: Vec<_> = paused.iter().map(PauseState::json).collect();
            Ok(writeln!(out, "{}", json::line(&paused.into()))?)
        })
        .with("pause", move |words, out| {
            let wanted = pause_of(words).map_err(CommandError::Refused)?;
            let paused = reader.pause(wanted).map_err(CommandError::Refused)?;
            paused
                .iter()
                .try_for_each(|state| writeln!(out, "{state}"))?;
            if paused.is_empty() {
                writeln!(out, "lists are in force")?;
            }
            Ok(())
        })
        .with("resume", move |words, out| {
            let client = client_of(words).map_err(CommandError::Refused)?;
            let whom = client.map_or_else(String::new, |client| format!(" for {client}"));
            let said = match resumer.resume(client).map_err(CommandError::Refused)? {
                true => "lists are in force again",
                false => "lists were not paused",
            };
            Ok(writeln!(out, "{said}{whom}")?)
        })
}

/// Longest pause: for more, lists are taken out of the config.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Parses the words of a pause. `None` without words.
///
/// # Errors
/// What is wrong with the words.
pub(super) fn pause_of(words: &[&str]) -> Result<Option<PauseRequest>, String> {
    let [word, client @ ..] = words else {
        return Ok(None);
    };
    let length = length_of(word)?;
    let client = client_of(client)?;
    Ok(Some(PauseRequest { length, client }))
}

/// Parses the client that a request is about. `None`: all of them.
///
/// # Errors
/// What is wrong with the words.
pub(super) fn client_of(words: &[&str]) -> Result<Option<Prefix>, String> {
    match words {
        [] => Ok(None),
        [word] => {
            let client: Prefix = word.parse().map_err(|error| format!("`{word}` {error}"))?;
            Ok(Some(client))
        }
        [_, more, ..] => Err(format!("`{more}` is too much")),
    }
}

fn length_of(word: &str) -> Result<Duration, String> {
    let (digits, unit) = match word.as_bytes().last() {
        Some(b's') => (&word[..word.len() - 1], 1),
        Some(b'm') => (&word[..word.len() - 1], 60),
        Some(b'h') => (&word[..word.len() - 1], 3600),
        Some(_) | None => (word, 1),
    };
    let secs: Option<u64> = digits.parse().ok();
    let secs = secs.and_then(|number| number.checked_mul(unit));
    let length = secs.map(Duration::from_secs);
    let length = length.filter(|length| !length.is_zero() && *length <= PAUSE_MAX);
    length.ok_or_else(|| format!("`{word}` is not a time from 1s to 24h, such as 30s, 5m or 2h"))
}

/// Checks that no words follow.
pub(super) fn no_more(words: &[&str]) -> Result<(), CommandError> {
    match words {
        [] => Ok(()),
        [word, ..] => Err(CommandError::Refused(format!("`{word}` is too much"))),
    }
}

/// Parses the name that a request is about; the root, for all names, if there is none.
///
/// # Errors
/// What is wrong with the words.
pub(super) fn name_of(words: &[&str]) -> Result<Name, CommandError> {
    let text = match words {
        [] => ".",
        [text] => text,
        _ => return Err(CommandError::Refused("one name at most".into())),
    };
    let wire =
        name::parse(text).map_err(|error| CommandError::Refused(format!("`{text}` {error}")))?;
    Name::from_wire(&wire).ok_or_else(|| CommandError::Refused(format!("`{text}` is not a name")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::shared::tests::{fill, head, names, test_cache};

    fn asked(commands: &Commands, request: &str) -> Result<String, String> {
        let mut out = Vec::new();
        match commands.carry_out(request, &mut out) {
            Ok(()) => Ok(String::from_utf8(out).expect("text")),
            Err(CommandError::Refused(problem)) => Err(problem),
            Err(CommandError::Io(error)) => panic!("memory takes everything: {error}"),
        }
    }

    fn commands(cache: &'static SharedCache) -> Commands {
        all(Arc::new(Telemetry::default()), cache, Nobody, None)
    }

    #[derive(Clone)]
    struct Nobody;

    impl PolicyReader for Nobody {
        fn reload(&self) -> Result<Vec<String>, Vec<String>> {
            Err(vec!["nobody reads".to_owned()])
        }

        fn why(&self, _: WhyQuestion) -> Result<PolicyTrace, String> {
            Err("nobody reads".into())
        }

        fn pause(&self, wanted: Option<PauseRequest>) -> Result<Vec<PauseState>, String> {
            let state = |wanted: PauseRequest| PauseState {
                client: wanted.client,
                secs: wanted.length.as_secs(),
            };
            Ok(wanted.map(state).into_iter().collect())
        }

        fn resume(&self, _: Option<Prefix>) -> Result<bool, String> {
            Ok(false)
        }
    }

    #[test]
    fn the_cache_is_shown_and_forgotten_by_name() {
        let cache = test_cache!(8192);
        let fresh = xdnsd_core::answer::Head {
            stored: clock::now(),
            ..head(300)
        };
        fill(
            cache,
            &["example.org", "www.example.org", "example.com"],
            &fresh,
        );
        let commands = commands(cache);
        let dumped = |request: &str| {
            let entries = |text: String| text.lines().filter(|line| !line.starts_with(' ')).count();
            asked(&commands, request).map(entries)
        };
        assert_eq!(dumped("cache dump"), Ok(6));
        assert_eq!(dumped("cache dump EXAMPLE.org."), Ok(4));
        assert_eq!(dumped("cache dump example.net"), Ok(0));
        let line = asked(&commands, "cache dump www.example.org").expect("a dump");
        assert!(line.starts_with("www.example.org. A "), "{line}");
        let line = asked(&commands, "json cache dump example.com").expect("a dump");
        assert_eq!(line.lines().count(), 2);
        assert!(line.starts_with("{\"answers\":[\"example.com. "), "{line}");
        assert_eq!(
            asked(&commands, "cache flush www.example.org"),
            Ok("2 answers forgotten\n".into())
        );
        assert_eq!(names(cache), ["example.com.", "example.org."]);
        assert_eq!(
            asked(&commands, "cache flush"),
            Ok("4 answers forgotten\n".into())
        );
        let json = asked(&commands, "json stats").expect("counters");
        assert!(json.starts_with("{\"metrics\":[{\"labels\":"), "{json}");
        for (request, said) in [
            ("pause", "lists are in force\n"),
            ("json pause", "[]\n"),
            ("json pause 90", "[{\"client\":null,\"secs_left\":90}]\n"),
            (
                "json pause 90 192.0.2.0/24",
                "[{\"client\":\"192.0.2.0/24\",\"secs_left\":90}]\n",
            ),
            ("pause 90", "lists are paused for 90 s\n"),
            (
                "pause 90 192.0.2.0/24",
                "lists are paused for 192.0.2.0/24 for 90 s\n",
            ),
            (
                "resume 192.0.2.7",
                "lists were not paused for 192.0.2.7/32\n",
            ),
            ("pause 2h", "lists are paused for 7200 s\n"),
            ("resume", "lists were not paused\n"),
        ] {
            assert_eq!(asked(&commands, request), Ok(said.into()));
        }
        assert!(asked(&commands, "stats").is_ok_and(|text| text.starts_with("# HELP xdnsd_")));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let cache = test_cache!(8192);
        let commands = commands(cache);
        for (request, problem) in [
            ("cache dump a..b", "`a..b` has an empty label"),
            ("cache flush a b", "one name at most"),
            ("stats all", "`all` is too much"),
            ("upstreams all", "`all` is too much"),
            ("json stats all", "`all` is too much"),
            ("json upstreams all", "`all` is too much"),
            ("json why", "a name is missing"),
            ("json cache dump a..b", "`a..b` has an empty label"),
            ("reload now", "`now` is too much"),
            ("why", "a name is missing"),
            ("why a..b", "`a..b` has an empty label"),
            ("why a.b A 192.0.2.1 AAAA", "`AAAA` is too much"),
            ("why a.b 192.0.2.1 A", "`A` is too much"),
            (
                "why a.b B",
                "`B` is neither a type, such as AAAA, nor a client's address",
            ),
            ("why a.b AAAA 192.0.2.1", "nobody reads"),
            (
                "pause 0",
                "`0` is not a time from 1s to 24h, such as 30s, 5m or 2h",
            ),
            (
                "pause 25h",
                "`25h` is not a time from 1s to 24h, such as 30s, 5m or 2h",
            ),
            ("pause 5m 10.0.0.1 x", "`x` is too much"),
            (
                "pause 5m lan",
                "`lan` is not an address, or an address/length",
            ),
            (
                "resume now",
                "`now` is not an address, or an address/length",
            ),
            ("cache save b", "`b` is too much"),
            ("cache save", "cache.snapshot is not set"),
            (
                "cache drop",
                "unknown request; allowed: json stats, json upstreams, json why, json cache dump, json pause, pause, resume, stats, upstreams, reload, why, health, cache dump, cache flush, cache save",
            ),
        ] {
            assert_eq!(asked(&commands, request), Err(problem.into()));
        }
    }
}
