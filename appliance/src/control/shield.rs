//! The shield as an operator sees and tells it: `xdnsd shield status`, `list`, `deny`, `allow`, `forget`.

use std::io::Write;
use std::sync::Arc;

use xdnsd_abi::Reason;

use super::metrics::Telemetry;
use super::socket::{CommandError, Commands};
use crate::compile::prefix::Prefix;
use crate::compile::prefix_list::Verdict;

/// For how long something that is said may hold, in seconds: a year.
const SECS_MAX: u32 = 31_536_000;

/// A prefix in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The prefix.
    pub prefix: Prefix,
    /// What becomes of its packets.
    pub verdict: Verdict,
    /// It was said since the start, and the config says nothing of it or something else.
    pub is_said: bool,
    /// For how many seconds it is still so.
    pub secs_left: Option<u32>,
}

/// What requests have done by who keeps the prefixes.
pub trait Keeper: Clone + Send + 'static {
    /// All prefixes in force, in order.
    ///
    /// # Errors
    /// They cannot be read.
    fn list(&self) -> Result<Vec<Listed>, String>;

    /// Says at once what becomes of a prefix, for so many seconds or until the end; `None`: what the config says.
    ///
    /// # Errors
    /// There is no room, or the kernel refuses.
    fn say(
        &self,
        prefix: Prefix,
        verdict: Option<Verdict>,
        secs: Option<u32>,
    ) -> Result<(), String>;
}

/// Adds the shield's requests.
#[must_use]
pub fn with_shield(commands: Commands, telemetry: Arc<Telemetry>, keeper: impl Keeper) -> Commands {
    let said = |verdict: Option<Verdict>| {
        let keeper = keeper.clone();
        move |words: &[&str], _: &mut dyn Write| {
            let (prefix, secs) = prefix_of(words, verdict.is_some())?;
            let said = keeper.say(prefix, verdict, secs);
            said.map_err(CommandError::Refused)
        }
    };
    let (lister, counter) = (keeper.clone(), keeper.clone());
    commands
        .with("shield status", move |words, out| {
            super::commands::no_more(words)?;
            status(&telemetry, &counter, out)
        })
        .with("shield list", move |words, out| {
            super::commands::no_more(words)?;
            let listed = lister.list().map_err(CommandError::Refused)?;
            listed
                .iter()
                .try_for_each(|listed| writeln!(out, "{}", line(listed)))?;
            Ok(())
        })
        .with("shield deny", said(Some(Verdict::Deny)))
        .with("shield allow", said(Some(Verdict::Allow)))
        .with("shield forget", said(None))
}

fn line(listed: &Listed) -> String {
    let verdict = match listed.verdict {
        Verdict::Deny => "deny",
        Verdict::Allow => "allow",
    };
    let from = match (listed.is_said, listed.secs_left) {
        (false, _) => "config".to_owned(),
        (true, None) => "said".to_owned(),
        (true, Some(secs)) => format!("said, {secs} s left"),
    };
    format!("{verdict:<5} {} ({from})", listed.prefix)
}

/// The prefix that a request is about, and for how long.
fn prefix_of(words: &[&str], has_secs: bool) -> Result<(Prefix, Option<u32>), CommandError> {
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

/// What is in force, and what came of it on each interface.
fn status(
    telemetry: &Telemetry,
    keeper: &impl Keeper,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let listed = keeper.list().map_err(CommandError::Refused)?;
    let count = |is: &dyn Fn(&Listed) -> bool| listed.iter().filter(|listed| is(listed)).count();
    let denied = count(&|listed| listed.verdict == Verdict::Deny);
    let said = count(&|listed| listed.is_said);
    writeln!(
        out,
        "prefixes: {denied} denied, {} allowed; {said} of them said since the start",
        listed.len() - denied
    )?;
    for program in &telemetry.programs {
        let Ok(frames) = (program.frames)() else {
            writeln!(
                out,
                "{}: no XDP program: nothing is in force",
                program.interface
            )?;
            continue;
        };
        let cookies = match (program.no_syn_cookies)() {
            "" => "given".to_owned(),
            reason => format!("not given ({reason})"),
        };
        writeln!(
            out,
            "{}: in force; SYN cookies {cookies}",
            program.interface
        )?;
        for (reason, cpus) in Reason::ALL.iter().zip(&frames) {
            let name = reason.name();
            let sum: u64 = cpus.iter().fold(0, |sum, count| sum.wrapping_add(*count));
            if name.starts_with("drop_") || *reason == Reason::SynCookie {
                writeln!(out, "  {name} {sum}")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::metrics::Program;
    use std::sync::Mutex;

    /// What was said: prefix, verdict and for how long.
    type Said = (String, Option<Verdict>, Option<u32>);

    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<Said>>>);

    impl Keeper for Told {
        fn list(&self) -> Result<Vec<Listed>, String> {
            let listed = |text: &str, verdict, is_said, secs_left| Listed {
                prefix: text.parse().expect("a prefix"),
                verdict,
                is_said,
                secs_left,
            };
            Ok(vec![
                listed("192.0.2.0/24", Verdict::Deny, false, None),
                listed("192.0.2.9", Verdict::Allow, true, Some(7)),
                listed("2001:db8::/32", Verdict::Deny, true, None),
            ])
        }

        fn say(
            &self,
            prefix: Prefix,
            verdict: Option<Verdict>,
            secs: Option<u32>,
        ) -> Result<(), String> {
            let said = (prefix.to_string(), verdict, secs);
            self.0.lock().expect("whole").push(said);
            Ok(())
        }
    }

    fn asked(told: &Told, request: &str) -> Result<String, String> {
        let count = |reason: &Reason| vec![*reason as u64, 1];
        let program = |interface: &str, is_there: bool| Program {
            interface: interface.into(),
            frames: Box::new(move || match is_there {
                true => Ok(Reason::ALL.iter().map(count).collect()),
                false => Err(std::io::ErrorKind::NotConnected.into()),
            }),
            no_syn_cookies: Box::new(|| "calm"),
            no_tier0: Box::new(|| "off"),
        };
        let telemetry = Arc::new(Telemetry {
            programs: vec![program("lan0", true), program("lan1", false)],
            ..Telemetry::default()
        });
        let commands = with_shield(Commands::default(), telemetry, told.clone());
        let mut out = Vec::new();
        match commands.carry_out(request, &mut out) {
            Ok(()) => Ok(String::from_utf8(out).expect("text")),
            Err(CommandError::Refused(problem)) => Err(problem),
            Err(CommandError::Io(error)) => panic!("memory takes everything: {error}"),
        }
    }

    #[test]
    fn what_is_in_force_is_listed_with_who_says_so() {
        let list = "deny  192.0.2.0/24 (config)\n\
                    allow 192.0.2.9/32 (said, 7 s left)\n\
                    deny  2001:db8::/32 (said)\n";
        let told = Told::default();
        assert_eq!(asked(&told, "shield list"), Ok(list.into()));
        let status = asked(&told, "shield status").expect("shown");
        let head = "prefixes: 2 denied, 1 allowed; 2 of them said since the start\n\
                    lan0: in force; SYN cookies not given (calm)\n";
        assert!(status.starts_with(head), "{status}");
        let denied = format!("  drop_denied {}\n", Reason::DropDenied as u64 + 1);
        assert!(status.contains(&denied), "{status}");
        assert!(!status.contains("pass_"), "{status}");
        assert!(
            status.ends_with("lan1: no XDP program: nothing is in force\n"),
            "{status}"
        );
    }

    #[test]
    fn what_is_said_is_a_prefix_and_for_how_long() {
        let told = Told::default();
        for request in [
            "shield deny 192.0.2.0/24",
            "shield deny 2001:db8::1 60",
            "shield allow 192.0.2.9 31536000",
            "shield forget 192.0.2.9",
        ] {
            assert_eq!(asked(&told, request), Ok(String::new()), "{request}");
        }
        let said = |text: &str, verdict, secs| (text.to_owned(), verdict, secs);
        let expected = [
            said("192.0.2.0/24", Some(Verdict::Deny), None),
            said("2001:db8::1/128", Some(Verdict::Deny), Some(60)),
            said("192.0.2.9/32", Some(Verdict::Allow), Some(SECS_MAX)),
            said("192.0.2.9/32", None, None),
        ];
        assert_eq!(*told.0.lock().expect("whole"), expected);
        let secs = "seconds, an integer from 1 to 31536000";
        for (request, problem) in [
            ("shield deny", "a prefix is missing".to_owned()),
            (
                "shield deny lan",
                "`lan` is not an address, or an address/length".into(),
            ),
            (
                "shield deny 192.0.2.1/24",
                "`192.0.2.1/24` has bits set behind the prefix; is 192.0.2.0/24 meant?".into(),
            ),
            ("shield deny 192.0.2.1 0", format!("`0`: {secs}")),
            (
                "shield deny 192.0.2.1 31536001",
                format!("`31536001`: {secs}"),
            ),
            ("shield deny 192.0.2.1 -1", format!("`-1`: {secs}")),
            ("shield deny 192.0.2.1 1 2", "`2` is too much".into()),
            ("shield forget 192.0.2.1 1", "`1` is too much".into()),
            ("shield list all", "`all` is too much".into()),
            ("shield status all", "`all` is too much".into()),
        ] {
            assert_eq!(asked(&told, request), Err(problem), "{request}");
        }
        assert_eq!(told.0.lock().expect("whole").len(), 4, "nothing more");
    }
}
