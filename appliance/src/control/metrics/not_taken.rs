//! Files that are not taken as they are, such as a list that lost most of its rules: their last contents stay in force until
//! the file is fixed. The log says so once; this is for later requests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::exposition::Exposition;

/// Name of the metric, without its prefix.
const METRIC: &str = "file_not_taken";
const HELP: &str = "Files that are not taken as they are, and why: what they said last stays in force until that is mended";

/// A file, or another source, and what is wrong with it.
pub type NotTaken = (String, String);

static NOT_TAKEN: Mutex<Vec<NotTaken>> = Mutex::new(Vec::new());

fn not_taken() -> MutexGuard<'static, Vec<NotTaken>> {
    NOT_TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces them.
pub fn set(files: Vec<NotTaken>) {
    *not_taken() = files;
}

/// Reads them.
#[must_use]
pub fn read() -> Vec<NotTaken> {
    not_taken().clone()
}

/// Writes them as metrics.
pub(super) fn write(files: &[NotTaken], out: &mut dyn Exposition) {
    out.family(METRIC, HELP, "gauge");
    for (file, why) in files {
        out.sample(METRIC, &[("file", file), ("reason", why)], 1);
    }
}

/// The same in words, one per line, from the text for Prometheus.
#[must_use]
pub fn in_words(text: &str) -> String {
    let of_files = |line: &str| {
        let labels = line.strip_prefix("xdnsd_file_not_taken{file=\"")?;
        let labels = labels.strip_suffix("\"} 1")?;
        let (file, why) = labels.split_once("\",reason=\"")?;
        Some(format!("not taken: {}: {}\n", plain(file), plain(why)))
    };
    text.lines().filter_map(of_files).collect()
}

/// Removes the escapes from the value of a label.
fn plain(label: &str) -> String {
    label.replace("\\\"", "\"").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::metrics::Reading;
    use crate::control::metrics::exposition::Prometheus;

    #[test]
    fn what_is_not_taken_is_among_the_counters_and_below_their_table() {
        let files = [
            ("/etc/a \"b\".txt", "has 0 rules and had 9"),
            ("lists", "is \\"),
        ];
        let files = files.map(|(file, why)| (file.to_owned(), why.to_owned()));
        let mut out = Prometheus::default();
        write(&files, &mut out);
        let expected = "xdnsd_file_not_taken{file=\"/etc/a \\\"b\\\".txt\",reason=\"has 0 rules and had 9\"} 1\n\
                        xdnsd_file_not_taken{file=\"lists\",reason=\"is \\\\\"} 1\n";
        assert!(out.0.ends_with(expected), "{}", out.0);
        let words = "not taken: /etc/a \"b\".txt: has 0 rules and had 9\nnot taken: lists: is \\\n";
        assert_eq!(in_words(&out.0), words);
        assert_eq!(in_words(&Reading::default().prometheus()), "");
    }
}
