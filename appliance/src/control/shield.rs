//! The shield as an operator sees and tells it: `xdnsd shield status`, `list`, `deny`, `allow`, `forget`.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use xdnsd_abi::Reason;

use super::metrics::{Program, Protect, Telemetry};
use super::socket::{CommandError, Commands};
use crate::compile::prefix::Prefix;
use crate::compile::prefix_list::Verdict;
use crate::text::json;

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
pub trait Keeper: Clone + Send + Sync + 'static {
    /// All prefixes in force, in order.
    ///
    /// # Errors
    /// They cannot be read.
    fn list(&self) -> Result<Vec<Listed>, String>;

    /// Says at once what becomes of a prefix, for so many seconds or until the end; `None`: what the config says. Gives lines that
    /// say where it does not hold.
    ///
    /// # Errors
    /// There is no room, or the kernel refuses; or no program would obey, so nothing was said.
    fn say(
        &self,
        prefix: Prefix,
        verdict: Option<Verdict>,
        secs: Option<u32>,
    ) -> Result<Vec<String>, String>;
}

/// What requests have done by who looks after interfaces.
pub trait Operator: Clone + Send + Sync + 'static {
    /// Has an interface have its XDP program again.
    ///
    /// # Errors
    /// There is no such one, or it cannot have the program.
    fn attach(&self, interface: &str) -> Result<(), String>;

    /// Takes the XDP program off an interface, until it is attached again or the process ends.
    ///
    /// # Errors
    /// There is no such one, or its driver takes long.
    fn detach(&self, interface: &str) -> Result<(), String>;

    /// Has cookies for hosts behind this one made by another key.
    ///
    /// # Errors
    /// A driver takes long.
    fn rotate(&self) -> Result<(), String>;
}

/// Adds what switches something.
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
            Ok(match is_json {
                true => {
                    let value = json!({ "interface": interface, "attached": is_attached });
                    writeln!(out, "{}", json::line(&value))?
                }
                false => writeln!(out, "{interface}: XDP program {word}")?,
            })
        }
    };
    let rotate = |is_json: bool| {
        let operator = operator.clone();
        move |words: &[&str], out: &mut dyn Write| {
            super::commands::no_more(words)?;
            operator.rotate().map_err(CommandError::Refused)?;
            Ok(match is_json {
                true => writeln!(out, "{}", json::line(&json!({ "rotated": true })))?,
                false => writeln!(out, "another secret, the one before is good for a minute")?,
            })
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

/// Adds the shield's requests.
#[must_use]
pub fn with_shield(commands: Commands, telemetry: Arc<Telemetry>, keeper: impl Keeper) -> Commands {
    let said = |verdict: Option<Verdict>| {
        let keeper = keeper.clone();
        move |words: &[&str], out: &mut dyn Write| {
            let (prefix, secs) = prefix_of(words, verdict.is_some())?;
            let said = keeper.say(prefix, verdict, secs);
            let lines = said.map_err(CommandError::Refused)?;
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            Ok(())
        }
    };
    let shown = Arc::clone(&telemetry);
    let (lister, counter) = (keeper.clone(), keeper.clone());
    as_json(commands, telemetry, keeper.clone())
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
        .with("shield deny", said(Some(Verdict::Deny)))
        .with("shield allow", said(Some(Verdict::Allow)))
        .with("shield forget", said(None))
}

/// What shows something, for programs.
fn as_json(commands: Commands, telemetry: Arc<Telemetry>, keeper: impl Keeper) -> Commands {
    let counter = keeper.clone();
    commands
        .with("json shield status", move |words, out| {
            super::commands::no_more(words)?;
            let status = Status::read(&telemetry, &counter)?;
            Ok(writeln!(out, "{}", json::line(&status.json()))?)
        })
        .with("json shield list", move |words, out| {
            super::commands::no_more(words)?;
            let listed = keeper.list().map_err(CommandError::Refused)?;
            // A line for each: one value of all of them would take megabytes.
            listed
                .iter()
                .try_for_each(|listed| writeln!(out, "{}", json::line(&listed.json())))?;
            Ok(())
        })
}

impl Listed {
    fn verdict_word(&self) -> &'static str {
        match self.verdict {
            Verdict::Deny => "deny",
            Verdict::Allow => "allow",
        }
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
struct Status<'a> {
    denied: usize,
    allowed: usize,
    said: usize,
    interfaces: Vec<OfInterface<'a>>,
    protects: &'a [Protect],
}

/// The same of one interface.
struct OfInterface<'a> {
    interface: &'a str,
    /// `None`: it has no XDP program.
    program: Option<OfProgram>,
}

/// What its XDP program does.
struct OfProgram {
    /// Why it gives no SYN cookies, in a word.
    no_syn_cookies: Option<&'static str>,
    /// What it dropped and answered, by reason.
    frames: Vec<(&'static str, u64)>,
}

impl<'a> Status<'a> {
    fn read(telemetry: &'a Telemetry, keeper: &impl Keeper) -> Result<Self, CommandError> {
        let listed = keeper.list().map_err(CommandError::Refused)?;
        let count =
            |is: &dyn Fn(&Listed) -> bool| listed.iter().filter(|listed| is(listed)).count();
        let denied = count(&|listed| listed.verdict == Verdict::Deny);
        let of_interface = |program: &'a Program| OfInterface {
            interface: &program.interface,
            program: OfProgram::read(program),
        };
        Ok(Self {
            denied,
            allowed: listed.len() - denied,
            said: count(&|listed| listed.is_said),
            interfaces: telemetry.programs.iter().map(of_interface).collect(),
            protects: &telemetry.protects,
        })
    }

    fn write(&self, out: &mut dyn Write) -> Result<(), CommandError> {
        writeln!(
            out,
            "prefixes: {} denied, {} allowed; {} of them said since the start",
            self.denied, self.allowed, self.said
        )?;
        if !self.is_in_force() {
            writeln!(out, "nothing in force: no interface has an XDP program")?;
        }
        for OfInterface { interface, program } in &self.interfaces {
            let Some(program) = program else {
                writeln!(out, "{interface}: no XDP program: nothing is in force")?;
                continue;
            };
            let cookies = match program.no_syn_cookies {
                None => "given".to_owned(),
                Some(reason) => format!("not given ({reason})"),
            };
            writeln!(out, "{interface}: in force; SYN cookies {cookies}")?;
            for (reason, count) in &program.frames {
                writeln!(out, "  {reason} {count}")?;
            }
        }
        self.protects
            .iter()
            .try_for_each(|protect| write_protect(protect, out))
    }

    /// Whether a program carries any of it.
    fn is_in_force(&self) -> bool {
        let mut interfaces = self.interfaces.iter();
        interfaces.any(|interface| interface.program.is_some())
    }

    fn json(&self) -> Value {
        json!({
            "in_force": self.is_in_force(),
            "prefixes": { "denied": self.denied, "allowed": self.allowed, "said": self.said },
            "interfaces": self.interfaces.iter().map(OfInterface::json).collect::<Value>(),
            "protect": self.protects.iter().map(protect_json).collect::<Value>(),
        })
    }
}

/// A line for each host or network behind, what it is counted by is the interface's.
fn write_protect(protect: &Protect, out: &mut dyn Write) -> Result<(), CommandError> {
    let ports: Vec<String> = protect.ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    let state = match (protect.why_not)() {
        "" => "in force".to_owned(),
        reason => format!("not in force ({reason}): all to it passes"),
    };
    for address in &protect.addresses {
        let interface = &protect.interface;
        writeln!(
            out,
            "{interface}: protects {address}, port {ports}: {state}"
        )?;
    }
    Ok(())
}

fn protect_json(protect: &Protect) -> Value {
    let reason = (protect.why_not)();
    json!({
        "interface": protect.interface,
        "addresses": protect.addresses,
        "ports": protect.ports,
        "in_force": reason.is_empty(),
        "why_not": Some(reason).filter(|reason| !reason.is_empty()),
    })
}

impl OfInterface<'_> {
    fn json(&self) -> Value {
        let program = self.program.as_ref();
        let frames = program.map(|program| {
            let frames = program.frames.iter();
            frames
                .map(|(reason, count)| ((*reason).to_owned(), json!(count)))
                .collect::<Map<_, _>>()
        });
        json!({
            "interface": self.interface,
            "in_force": program.is_some(),
            "syn_cookies": program.map(|program| program.no_syn_cookies.is_none()),
            "no_syn_cookies": program.and_then(|program| program.no_syn_cookies),
            "frames": frames,
        })
    }
}

impl OfProgram {
    /// `None`: there is none.
    fn read(program: &Program) -> Option<Self> {
        let frames = (program.frames)().ok()?;
        let sum = |cpus: &Vec<u64>| {
            cpus.iter()
                .fold(0, |sum: u64, count| sum.wrapping_add(*count))
        };
        let is_shown = |reason: &Reason| {
            let shown = ["drop_", "forward_"];
            shown.iter().any(|lead| reason.name().starts_with(lead)) || *reason == Reason::SynCookie
        };
        let shown = Reason::ALL.iter().zip(&frames);
        Some(Self {
            no_syn_cookies: Some((program.no_syn_cookies)()).filter(|reason| !reason.is_empty()),
            frames: shown
                .filter(|(reason, _)| is_shown(reason))
                .map(|(reason, cpus)| (reason.name(), sum(cpus)))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What was said: prefix, verdict and for how long.
    type Said = (String, Option<Verdict>, Option<u32>);

    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<Said>>>);

    fn protect(interface: &str, why_not: &'static str, port: u16) -> Protect {
        Protect {
            interface: interface.into(),
            addresses: vec!["192.0.2.80/32".into(), "2001:db8::/64".into()],
            ports: vec![port, 8080],
            why_not: Box::new(move || why_not),
        }
    }

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
        ) -> Result<Vec<String>, String> {
            let said = (prefix.to_string(), verdict, secs);
            self.0.lock().expect("whole").push(said);
            Ok(vec!["lan1: not in force".into()])
        }
    }

    fn asked(told: &Told, request: &str) -> Result<String, String> {
        asked_with(told, request, [true, false])
    }

    /// Where these two interfaces have a program.
    fn asked_with(told: &Told, request: &str, have: [bool; 2]) -> Result<String, String> {
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
            programs: vec![program("lan0", have[0]), program("lan1", have[1])],
            protects: vec![protect("lan0", "", 80), protect("lan1", "no_program", 443)],
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
        let tail = "lan1: no XDP program: nothing is in force\n\
                    lan0: protects 192.0.2.80/32, port 80, 8080: in force\n\
                    lan0: protects 2001:db8::/64, port 80, 8080: in force\n\
                    lan1: protects 192.0.2.80/32, port 443, 8080: not in force (no_program): all to it passes\n\
                    lan1: protects 2001:db8::/64, port 443, 8080: not in force (no_program): all to it passes\n";
        assert!(status.ends_with(tail), "{status}");
        let cookies = format!("  forward_cookie {}\n", Reason::ForwardCookie as u64 + 1);
        assert!(status.contains(&cookies), "{status}");
        assert!(!status.contains("nothing in force:"), "{status}");
    }

    #[test]
    fn where_no_program_carries_it_nothing_is_in_force_and_that_is_said() {
        let told = Told::default();
        let status = asked_with(&told, "shield status", [false; 2]).expect("shown");
        let head = "prefixes: 2 denied, 1 allowed; 2 of them said since the start\n\
                    nothing in force: no interface has an XDP program\n\
                    lan0: no XDP program: nothing is in force\n";
        assert!(status.starts_with(head), "{status}");
        let status = asked_with(&told, "json shield status", [false; 2]).expect("shown");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["in_force"], json!(false));
    }

    #[test]
    fn programs_are_told_the_same_as_json() {
        let told = Told::default();
        let list = [
            r#"{"prefix":"192.0.2.0/24","secs_left":null,"source":"config","verdict":"deny"}"#,
            r#"{"prefix":"192.0.2.9/32","secs_left":7,"source":"said","verdict":"allow"}"#,
            r#"{"prefix":"2001:db8::/32","secs_left":null,"source":"said","verdict":"deny"}"#,
        ];
        let listed = asked(&told, "json shield list").expect("shown");
        assert_eq!(listed.lines().collect::<Vec<_>>(), list);
        let status = asked(&told, "json shield status").expect("shown");
        assert_eq!(status.lines().count(), 1, "{status}");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(
            status["prefixes"],
            json!({ "denied": 2, "allowed": 1, "said": 2 })
        );
        assert_eq!(status["in_force"], json!(true));
        let protected = |interface: &str, port: u16, why_not: Value| {
            json!({
                "interface": interface,
                "addresses": ["192.0.2.80/32", "2001:db8::/64"],
                "ports": [port, 8080],
                "in_force": why_not.is_null(),
                "why_not": why_not,
            })
        };
        let expected = [
            protected("lan0", 80, Value::Null),
            protected("lan1", 443, json!("no_program")),
        ];
        assert_eq!(status["protect"], json!(expected));
        let with = &status["interfaces"][0];
        assert_eq!(with["interface"], "lan0");
        assert_eq!(
            [&with["in_force"], &with["syn_cookies"]],
            [&json!(true), &json!(false)]
        );
        assert_eq!(with["no_syn_cookies"], "calm");
        let frames = with["frames"].as_object().expect("by reason");
        let text = asked(&told, "shield status").expect("shown");
        let counted = text.lines().filter(|line| line.starts_with("  "));
        assert_eq!(frames.len(), counted.count(), "every counter is in both");
        assert_eq!(frames["drop_denied"], json!(Reason::DropDenied as u64 + 1));
        let without = json!({
            "interface": "lan1",
            "in_force": false,
            "syn_cookies": null,
            "no_syn_cookies": null,
            "frames": null,
        });
        assert_eq!(status["interfaces"][1], without);
    }

    /// An operator who has one interface.
    #[derive(Clone, Default)]
    struct OfLan0(Arc<Mutex<Vec<String>>>);

    impl OfLan0 {
        fn told(&self, what: &str, interface: &str) -> Result<(), String> {
            let known = interface == "lan0";
            let told = format!("{what} {interface}");
            self.0.lock().expect("whole").push(told);
            known.then_some(()).ok_or_else(|| "no".to_owned())
        }
    }

    impl Operator for OfLan0 {
        fn attach(&self, interface: &str) -> Result<(), String> {
            self.told("attach", interface)
        }

        fn detach(&self, interface: &str) -> Result<(), String> {
            self.told("detach", interface)
        }

        fn rotate(&self) -> Result<(), String> {
            self.told("rotate", "lan0")
        }
    }

    #[test]
    fn what_is_switched_is_told_to_the_operator_and_said() {
        let operator = OfLan0::default();
        let asked = |request: &str| {
            let mut out = Vec::new();
            let commands = with_operator(Commands::default(), &operator);
            match commands.carry_out(request, &mut out) {
                Ok(()) => Ok(String::from_utf8(out).expect("text")),
                Err(CommandError::Refused(problem)) => Err(problem),
                Err(CommandError::Io(error)) => panic!("memory takes everything: {error}"),
            }
        };
        for (request, said) in [
            ("shield detach lan0", "lan0: XDP program detached\n"),
            (
                "json shield detach lan0",
                "{\"attached\":false,\"interface\":\"lan0\"}\n",
            ),
            ("shield attach lan0", "lan0: XDP program attached\n"),
            (
                "json shield attach lan0",
                "{\"attached\":true,\"interface\":\"lan0\"}\n",
            ),
            (
                "shield secret rotate",
                "another secret, the one before is good for a minute\n",
            ),
            ("json shield secret rotate", "{\"rotated\":true}\n"),
        ] {
            assert_eq!(asked(request), Ok(said.to_owned()), "{request}");
        }
        for (request, problem) in [
            ("shield detach", "an interface is missing"),
            ("shield attach lan0 lan1", "`lan1` is too much"),
            ("shield attach lan1", "no"),
            ("shield secret rotate now", "`now` is too much"),
        ] {
            assert_eq!(asked(request), Err(problem.to_owned()), "{request}");
        }
        let told = operator.0.lock().expect("whole").join(", ");
        let expected = "detach lan0, detach lan0, attach lan0, attach lan0, rotate lan0, rotate lan0, attach lan1";
        assert_eq!(told, expected);
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
            let line = "lan1: not in force\n".to_owned();
            assert_eq!(asked(&told, request), Ok(line), "{request}");
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
            ("json shield list all", "`all` is too much".into()),
            ("json shield status all", "`all` is too much".into()),
        ] {
            assert_eq!(asked(&told, request), Err(problem), "{request}");
        }
        assert_eq!(told.0.lock().expect("whole").len(), 4, "nothing more");
    }
}
