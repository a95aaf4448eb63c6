//! Formats for metrics: Prometheus' text, or JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::text;

/// Writer of metrics: a family, then its samples. Names come without their prefix.
pub trait Exposition {
    /// Begins a family.
    fn family(&mut self, name: &str, help: &str, kind: &'static str);

    /// Writes a sample of the family.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64);

    /// Writes a sample in seconds, of a value in microseconds.
    fn seconds(&mut self, name: &str, labels: &[(&str, &str)], micros: u64);
}

/// A number of microseconds in seconds, with six decimals.
pub fn in_seconds(micros: u64) -> String {
    let (secs, rest) = (micros / 1_000_000, micros % 1_000_000);
    format!("{secs}.{rest:06}")
}

/// The text exposition format, version 0.0.4.
#[derive(Debug, Default)]
pub struct Prometheus(pub String);

impl Exposition for Prometheus {
    fn family(&mut self, name: &str, help: &str, kind: &'static str) {
        let help = help.trim().replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP xdnsd_{name} {help}\n# TYPE xdnsd_{name} {kind}"
        );
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.line(name, labels, &value.to_string());
    }

    fn seconds(&mut self, name: &str, labels: &[(&str, &str)], micros: u64) {
        self.line(name, labels, &in_seconds(micros));
    }
}

impl Prometheus {
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        let escape = |value: &str| {
            text::line(value)
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        };
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
            .collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "xdnsd_{name} {value}"),
            false => writeln!(self.0, "xdnsd_{name}{{{}}} {value}", labels.join(",")),
        };
    }
}

/// `{"metrics":[{"labels":{"worker":"0"},"name":"xdnsd_blocked_total","type":"counter","value":7},...]}`. Written sample by
/// sample: one value in memory would take some MiB.
#[derive(Debug, Default)]
pub struct Json {
    samples: String,
    kind: &'static str,
}

impl Json {
    /// All of it in one line, without a newline.
    #[must_use]
    pub fn into_line(self) -> String {
        format!("{{\"metrics\":[{}]}}", self.samples)
    }
}

impl Exposition for Json {
    fn family(&mut self, _: &str, _: &str, kind: &'static str) {
        self.kind = kind;
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.object(name, labels, value.into());
    }

    fn seconds(&mut self, name: &str, labels: &[(&str, &str)], micros: u64) {
        self.object(name, labels, (micros as f64 / 1e6).into());
    }
}

impl Json {
    fn object(&mut self, name: &str, labels: &[(&str, &str)], value: Value) {
        let labels = labels.iter();
        let labels: Map<String, Value> = labels
            .map(|(label, value)| ((*label).to_owned(), (*value).into()))
            .collect();
        if !self.samples.is_empty() {
            self.samples.push(',');
        }
        self.samples += &text::json::line(&json!({
            "name": format!("xdnsd_{name}"),
            "type": self.kind,
            "labels": labels,
            "value": value,
        }));
    }
}
