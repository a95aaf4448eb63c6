//! Status of the shield as text and as JSON: what is in force, and what it did on each interface.

use std::io::Write;

use serde_json::{Map, Value, json};
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;

use super::{Listed, PrefixControl};
use crate::compile::prefix_list::Verdict;
use crate::control::metrics::{ProgramCounters, ProtectStatus, Telemetry};
use crate::control::socket::CommandError;

/// Workers' counters of limits per client.
const LIMITED: [Counter; 4] = [
    Counter::RateQueriesSlipped,
    Counter::RateQueriesDropped,
    Counter::RateMissesSlipped,
    Counter::RateMissesDropped,
];

/// What is in force, and its effect on each interface.
pub(super) struct Status<'a> {
    denied: usize,
    allowed: usize,
    said: usize,
    /// Effects of limits per client in the workers, by counter.
    limited: [(Counter, u64); 4],
    interfaces: Vec<OfInterface<'a>>,
    protects: &'a [ProtectStatus],
}

/// Status of one interface.
struct OfInterface<'a> {
    /// Name in the output.
    shown: String,
    /// Name in the config.
    interface: &'a str,
    /// `None` if it has no XDP program.
    program: Option<OfProgram>,
}

/// Status of an XDP program.
struct OfProgram {
    /// Why it gives no SYN cookies, in a word.
    no_syn_cookies: Option<&'static str>,
    /// Frames that it dropped and answered, by reason.
    frames: Vec<(&'static str, u64)>,
}

impl<'a> Status<'a> {
    pub fn read(
        telemetry: &'a Telemetry,
        prefixes: &impl PrefixControl,
    ) -> Result<Self, CommandError> {
        let listed = prefixes.list().map_err(CommandError::Refused)?;
        let count =
            |is: &dyn Fn(&Listed) -> bool| listed.iter().filter(|listed| is(listed)).count();
        let denied = count(&|listed| listed.verdict == Verdict::Deny);
        let of_interface = |program: &'a ProgramCounters| {
            Some(OfInterface {
                shown: program.shown()?,
                interface: &program.interface,
                program: OfProgram::read(program),
            })
        };
        let all = telemetry.programs.iter().filter_map(of_interface);
        let mut interfaces: Vec<OfInterface<'a>> = all.collect();
        // A bridge has no program itself if its ports have some.
        let with = interfaces.iter().filter(|of| of.program.is_some());
        let with: Vec<&str> = with.map(|of| of.interface).collect();
        interfaces.retain(|of| of.program.is_some() || !with.contains(&of.interface));
        Ok(Self {
            denied,
            allowed: listed.len() - denied,
            said: count(&|listed| listed.is_said),
            limited: LIMITED.map(|counter| (counter, telemetry.counted(counter))),
            interfaces,
            protects: &telemetry.protects,
        })
    }

    pub fn write(&self, out: &mut dyn Write) -> Result<(), CommandError> {
        writeln!(
            out,
            "prefixes: {} denied, {} allowed; {} of them said since the start",
            self.denied, self.allowed, self.said
        )?;
        if !self.is_in_force() {
            writeln!(out, "nothing in force: no interface has an XDP program")?;
        }
        let [slipped, dropped, misses_slipped, misses_dropped] =
            self.limited.map(|(_, count)| count);
        writeln!(
            out,
            "limits per client, by workers: queries: {slipped} sent to TCP, {dropped} dropped; \
             misses: {misses_slipped} sent to TCP, {misses_dropped} dropped"
        )?;
        for OfInterface { shown, program, .. } in &self.interfaces {
            let Some(program) = program else {
                writeln!(out, "{shown}: no XDP program: nothing is in force")?;
                continue;
            };
            let cookies = match program.no_syn_cookies {
                None => "given".to_owned(),
                Some(reason) => format!("not given ({reason})"),
            };
            writeln!(out, "{shown}: in force; SYN cookies {cookies}")?;
            for (reason, count) in &program.frames {
                writeln!(out, "  {reason} {count}")?;
            }
        }
        self.protects
            .iter()
            .try_for_each(|protect| write_protect(protect, out))
    }

    /// True if any program is attached.
    fn is_in_force(&self) -> bool {
        let mut interfaces = self.interfaces.iter();
        interfaces.any(|interface| interface.program.is_some())
    }

    pub fn json(&self) -> Value {
        let limited = self.limited.iter();
        let limited: Map<_, _> = limited
            .map(|(counter, count)| (counter.name().to_owned(), json!(count)))
            .collect();
        json!({
            "in_force": self.is_in_force(),
            "prefixes": { "denied": self.denied, "allowed": self.allowed, "said": self.said },
            "limited": limited,
            "interfaces": self.interfaces.iter().map(OfInterface::json).collect::<Value>(),
            "protect": self.protects.iter().map(protect_json).collect::<Value>(),
        })
    }
}

/// A line for each host or network behind this one. Its counters are the interface's.
fn write_protect(protect: &ProtectStatus, out: &mut dyn Write) -> Result<(), CommandError> {
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

fn protect_json(protect: &ProtectStatus) -> Value {
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
            "interface": self.shown,
            "in_force": program.is_some(),
            "syn_cookies": program.map(|program| program.no_syn_cookies.is_none()),
            "no_syn_cookies": program.and_then(|program| program.no_syn_cookies),
            "frames": frames,
        })
    }
}

impl OfProgram {
    /// `None` if there is no program.
    fn read(program: &ProgramCounters) -> Option<Self> {
        let frames = (program.frames)().ok()?;
        let sum = |cpus: &Vec<u64>| {
            cpus.iter()
                .fold(0, |sum: u64, count| sum.wrapping_add(*count))
        };
        let is_shown = |reason: &Reason| {
            let shown = ["drop_", "forward_"];
            shown.iter().any(|lead| reason.name().starts_with(lead))
                || matches!(reason, Reason::SynCookie | Reason::RateSlipped)
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
