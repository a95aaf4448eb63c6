//! Tests of requests, of the calls that they make, and of the output.

use super::*;
use crate::control::metrics::{ProgramCounters, ProtectStatus};
use std::sync::Mutex;
use xdnsd_abi::Reason;

/// A call: prefix, verdict and time in seconds.
type Call = (String, Option<Verdict>, Option<u32>);

#[derive(Clone, Default)]
struct FakePrefixes(Arc<Mutex<Vec<Call>>>);

fn protect(interface: &str, why_not: &'static str, port: u16) -> ProtectStatus {
    ProtectStatus {
        interface: interface.into(),
        addresses: vec!["192.0.2.80/32".into(), "2001:db8::/64".into()],
        ports: vec![port, 8080],
        why_not: Box::new(move || why_not),
    }
}

impl PrefixControl for FakePrefixes {
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

    fn set_verdict(
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

fn asked(told: &FakePrefixes, request: &str) -> Result<String, String> {
    asked_with(told, request, [true, false])
}

/// Asks while these two interfaces have a program.
fn asked_with(told: &FakePrefixes, request: &str, have: [bool; 2]) -> Result<String, String> {
    let count = |reason: &Reason| vec![*reason as u64, 1];
    let program = |interface: &str, is_there: bool| ProgramCounters {
        interface: interface.into(),
        port: None,
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
    let told = FakePrefixes::default();
    assert_eq!(asked(&told, "shield list"), Ok(list.into()));
    let status = asked(&told, "shield status").expect("shown");
    let head = "prefixes: 2 denied, 1 allowed; 2 of them said since the start\n\
                limits per client, by workers: queries: 0 sent to TCP, 0 dropped; misses: 0 sent to TCP, 0 dropped\n\
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
    let told = FakePrefixes::default();
    let status = asked_with(&told, "shield status", [false; 2]).expect("shown");
    let head = "prefixes: 2 denied, 1 allowed; 2 of them said since the start\n\
                nothing in force: no interface has an XDP program\n\
                limits per client, by workers: queries: 0 sent to TCP, 0 dropped; misses: 0 sent to TCP, 0 dropped\n\
                lan0: no XDP program: nothing is in force\n";
    assert!(status.starts_with(head), "{status}");
    let status = asked_with(&told, "json shield status", [false; 2]).expect("shown");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["in_force"], json!(false));
}

#[test]
fn programs_are_told_the_same_as_json() {
    let told = FakePrefixes::default();
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
    assert_eq!(status["limited"]["rate_misses_dropped"], json!(0));
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

/// An operator with one interface.
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

    fn rotate(&self) -> Result<SecretTurn, String> {
        self.told("rotate", "lan0")?;
        Ok(SecretTurn::Given)
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
            "protect: another secret, the one before is good for a minute\n\
             DNS cookies: edns.cookie_secrets of the config stay\n",
        ),
        (
            "json shield secret rotate",
            "{\"dns_cookies\":\"config\",\"rotated\":true}\n",
        ),
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
    let expected =
        "detach lan0, detach lan0, attach lan0, attach lan0, rotate lan0, rotate lan0, attach lan1";
    assert_eq!(told, expected);
}

#[test]
fn what_is_said_is_a_prefix_and_for_how_long() {
    let told = FakePrefixes::default();
    for request in [
        "shield deny 192.0.2.0/24",
        "shield deny 2001:db8::1 60",
        "shield allow 192.0.2.9 31536000",
        "shield forget 192.0.2.9",
    ] {
        let line = "lan1: not in force\n".to_owned();
        assert_eq!(asked(&told, request), Ok(line), "{request}");
    }
    for (request, prefix, verdict, secs) in [
        (
            "deny 192.0.2.0/24",
            "192.0.2.0/24",
            json!("deny"),
            json!(null),
        ),
        (
            "allow 192.0.2.9 60",
            "192.0.2.9/32",
            json!("allow"),
            json!(60),
        ),
        ("forget 192.0.2.9", "192.0.2.9/32", json!(null), json!(null)),
    ] {
        let printed = asked(&told, &format!("json shield {request}")).expect("it is said");
        let value: Value = serde_json::from_str(&printed).expect("JSON");
        let expected = json!({
            "prefix": prefix, "verdict": verdict, "secs_left": secs, "notes": ["lan1: not in force"],
        });
        assert_eq!(value, expected, "{request}");
    }
    told.0.lock().expect("whole").truncate(4);
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
