//! Text about a reload, for the client that asked and for the log.

use log::{info, warn};

use crate::compile::{Notes, Problem};
use crate::config::{ChangedKeys, Config, Errors, Fault, is_taken_at_start};

/// Maximum number of log lines for one update.
const NOTES_MAX: usize = 8;

/// Warnings about the config.
pub(super) fn warnings_of(config: &Config) -> Vec<String> {
    let warnings = config.warnings().iter();
    warnings.map(ToString::to_string).collect()
}

/// Keys that a reload does not take over from the config, and a start would.
pub(super) fn not_taken(changes: &ChangedKeys) -> Option<String> {
    let keys = changes.at_start.join(", ");
    (!keys.is_empty()).then(|| format!("from the next start on: {keys}"))
}

/// What this machine lacks of the config, one per line. `of_start`: what it lacks of the config that the process was started with,
/// which its listeners follow.
pub(super) fn missing_in_words(missing: &Errors, of_start: &Errors) -> Vec<String> {
    let is_followed = |problem: &String| {
        let mut known = of_start.faults().iter();
        known.any(|fault| fault.problem == *problem)
    };
    let in_words = |fault: &Fault| {
        let (section, key) = fault.key.split_once('.').unwrap_or((&fault.key, ""));
        if is_taken_at_start(section, key) && !is_followed(&fault.problem) {
            format!("{fault}; a start takes it, and serves it when it comes")
        } else {
            format!("{fault}; the rest is served, and this when it comes")
        }
    };
    missing.faults().iter().map(in_words).collect()
}

/// What was read and what was passed over, one per line.
pub(super) fn in_words(notes: &Notes) -> Vec<String> {
    let problems = problems(notes).map(|problem| format!("note: {problem}"));
    told(notes).cloned().chain(problems).collect()
}

pub(super) fn log_notes(notes: &Notes) {
    for told in told(notes) {
        info!("{told}");
    }
    for problem in problems(notes) {
        warn!("{problem}");
    }
    if notes.count > NOTES_MAX {
        warn!("{} lines were passed over in all", notes.count);
    }
}

/// What was read, up to [`NOTES_MAX`] lines.
fn told(notes: &Notes) -> impl Iterator<Item = &String> {
    notes.told.iter().take(NOTES_MAX)
}

/// What was passed over, up to [`NOTES_MAX`] lines, and all that was refused.
fn problems(notes: &Notes) -> impl Iterator<Item = &Problem> {
    let Notes {
        failures,
        doubts,
        first,
        refusals,
        ..
    } = notes;
    let passed_over = failures.iter().chain(doubts).chain(first);
    passed_over.take(NOTES_MAX).chain(refusals)
}
