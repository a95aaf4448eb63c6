//! What came of a reload, in words: for whoever has asked, and for the log.

use log::{info, warn};

use crate::compile::Notes;
use crate::config::{Changes, Config};

/// Lines of the log that one update may take.
const NOTES_MAX: usize = 8;

/// What is doubtful in it.
pub(super) fn warnings_of(config: &Config) -> Vec<String> {
    let warnings = config.warnings().iter();
    warnings.map(ToString::to_string).collect()
}

/// What a reload has not taken over from the config, and a start would.
pub(super) fn not_taken(changes: &Changes) -> Option<String> {
    let keys = changes.at_start.join(", ");
    (!keys.is_empty()).then(|| format!("from the next start on: {keys}"))
}

/// What was read and what was passed over, a line each.
pub(super) fn in_words(notes: &Notes) -> Vec<String> {
    let problems = notes
        .failures
        .iter()
        .chain(&notes.doubts)
        .chain(&notes.first);
    let problems = problems
        .take(NOTES_MAX)
        .chain(&notes.refusals)
        .map(|problem| format!("note: {problem}"));
    notes
        .told
        .iter()
        .take(NOTES_MAX)
        .cloned()
        .chain(problems)
        .collect()
}

pub(super) fn log_notes(notes: &Notes) {
    for told in notes.told.iter().take(NOTES_MAX) {
        info!("{told}");
    }
    let problems = notes
        .failures
        .iter()
        .chain(&notes.doubts)
        .chain(&notes.first);
    for problem in problems.take(NOTES_MAX) {
        warn!("{problem}");
    }
    for refusal in &notes.refusals {
        warn!("{refusal}");
    }
    if notes.count > NOTES_MAX {
        warn!("{} lines were passed over in all", notes.count);
    }
}
