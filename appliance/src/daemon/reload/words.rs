//! Text about a reload, for the client that asked and for the log.

use log::{info, warn};

use crate::compile::{Notes, Problem};
use crate::config::{ChangedKeys, Config};

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
