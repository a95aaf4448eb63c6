//! The reference of all keys, from the same table that validates them.

use std::fmt::Write as _;

use super::changes::is_taken_at_start;
use super::key::ConfigKey;
use super::schema::SECTIONS;
use super::section::Description;

/// Reference of every section and key in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# The config file of xdnsd\n\n\
         TOML. Every key is listed; a key that is not is an error. `xdnsd check FILE` says what is wrong with a file.\n",
    );
    for section in SECTIONS {
        let Description {
            name,
            many,
            doc,
            keys,
        } = section;
        let heading = if *many {
            format!("[[{name}]]")
        } else {
            format!("[{name}]")
        };
        let _ = write!(out, "\n## {heading}\n\n{}\n", sentences(doc));
        for key in *keys {
            describe(&mut out, key);
            if is_taken_at_start(name, key.name) {
                out.push_str("- Holds from the next start on: a reload does not take it\n");
            }
        }
    }
    out
}

fn describe(out: &mut String, key: &ConfigKey) {
    let ConfigKey {
        name,
        old_name,
        doc,
        words,
        default,
        ..
    } = key;
    let _ = write!(out, "\n### `{name}`\n\n{}\n\n", sentences(doc));
    if words.is_empty() {
        let _ = writeln!(out, "- Allowed: {}", key.allowed());
    }
    for (word, meaning) in *words {
        let _ = writeln!(out, "- `\"{word}\"`: {}", meaning.trim());
    }
    let _ = match default {
        Some(default) => writeln!(out, "- Default: `{}`", default()),
        None => writeln!(out, "- Required"),
    };
    if let Some(old) = old_name {
        let _ = writeln!(out, "- Old name: `{old}`, with a warning");
    }
}

fn sentences(doc: &[&str]) -> String {
    let lines: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_reference_with_what_it_allows() {
        let reference = reference();
        for line in [
            "## [[interface]]",
            "## [cache]",
            "`negative_max_ttl`",
            "an integer from 0 to 86400",
            "Default: `\"auto\"`",
            "`\"generic\"`: After",
            "- Old name: `silent_ports`",
        ] {
            assert!(reference.contains(line), "{line}\n{reference}");
        }
    }
}
