//! Hints for an unknown command: the one that was probably meant.

use crate::config::nearest;

/// Names of commands in other programs, each with ours.
pub(super) const SYNONYMS: &[(&str, &str)] = &[
    ("configtest", "check"),
    ("daemon", "run"),
    ("dump", "cache dump"),
    ("flush", "cache flush"),
    ("metrics", "stats"),
    ("restart", "reload"),
    ("save", "cache save"),
    ("serve", "run"),
    ("start", "run"),
    ("explain", "why"),
    ("statistics", "stats"),
    ("status", "health"),
    ("log", "tail"),
    ("queries", "tail"),
    ("test", "check"),
    ("validate", "check"),
];

/// Hint for a word that is not among the commands `names`.
pub(super) fn not_a_command(word: &str, names: &[&str]) -> String {
    if word.contains('/') || word.ends_with(".toml") {
        return format!("`{word}` is not a command: a FILE stands behind one: xdnsd run FILE");
    }
    let lower = word.to_lowercase();
    let synonym = SYNONYMS.iter().find(|(others, _)| *others == lower);
    let synonym = synonym
        .map(|(_, ours)| *ours)
        .filter(|ours| names.contains(ours));
    let hint = match synonym {
        Some(ours) => format!(", did you mean `{ours}`?"),
        None => did_you_mean(word, names),
    };
    format!(
        "`{word}` is not a command{hint}; there are: {}",
        names.join(", ")
    )
}

/// `, did you mean ...?` if a known word is similar.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    let near = nearest(word, known);
    near.map(|near| format!(", did you mean `{near}`?"))
        .unwrap_or_default()
}
