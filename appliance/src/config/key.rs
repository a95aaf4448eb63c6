//! Description of a key, known before a file is read.

use std::ops::RangeInclusive;

use super::value::TomlType;

/// Unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUnit {
    /// Name in the plural.
    pub name: &'static str,
    /// Units per second.
    per_second: u64,
}

/// Unit of a key's numbers, from its name.
#[must_use]
pub fn unit(key: &str) -> Option<KeyUnit> {
    let of = |name, per_second| Some(KeyUnit { name, per_second });
    if key.ends_with("_ms") {
        of("milliseconds", 1_000)
    } else if key.ends_with("_us") {
        of("microseconds", 1_000_000)
    } else if key.ends_with("_secs") || key == "ttl" || key.ends_with("_ttl") {
        of("seconds", 1)
    } else {
        None
    }
}

/// Microseconds of a written time: `1h`, `1h30m`, `90 s`, but not `1.5h`.
fn micros(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let behind = rest[digits..].trim_start();
        let letters = behind
            .find(|char: char| !char.is_alphabetic())
            .unwrap_or(behind.len());
        let factor = match behind[..letters].to_lowercase().as_str() {
            "us" | "\u{b5}s" => 1,
            "ms" | "millisecond" | "milliseconds" => 1_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000,
            "h" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = behind[letters..].trim_start();
    }
    Some(total)
}

/// Description of a key, for the reader, the reference and error texts.
#[derive(Debug)]
pub struct ConfigKey {
    /// Name in the file.
    pub name: &'static str,
    /// Former name, which older files have.
    pub old_name: Option<&'static str>,
    /// Sentences for the reference.
    pub doc: &'static [&'static str],
    /// Range of a number, or of a list's length.
    pub range: Option<RangeInclusive<u64>>,
    /// TOML type.
    pub kind: TomlType,
    /// Describes what is allowed, from type and range.
    pub allowed: fn(Option<&RangeInclusive<u64>>) -> String,
    /// Allowed words with their meanings. Empty if any value of the type is allowed.
    pub words: &'static [(&'static str, &'static str)],
    /// True if its value is never shown.
    pub is_secret: bool,
    /// Default as TOML. `None` if the key is required.
    pub default: Option<fn() -> String>,
}

impl ConfigKey {
    /// What is allowed, with its unit.
    #[must_use]
    pub fn allowed(&self) -> String {
        let allowed = (self.allowed)(self.range.as_ref());
        match unit(self.name) {
            Some(unit) => format!("{}, {allowed}", unit.name),
            None => allowed,
        }
    }

    /// Number that a text means, if the key allows it.
    pub fn number_in(&self, text: &str) -> Option<u64> {
        let whole = || {
            let number: f64 = text.trim().parse().ok()?;
            // Larger integers are not exact; no key allows them.
            let is_whole = number.fract() == 0.0 && (0.0..9e15).contains(&number);
            is_whole.then_some(number as u64)
        };
        let number = text.trim().parse().ok().or_else(whole).or_else(|| {
            let per_second = unit(self.name)?.per_second;
            Some(micros(text)?.checked_mul(per_second)? / 1_000_000)
        })?;
        let is_allowed = self
            .range
            .as_ref()
            .is_none_or(|range| range.contains(&number));
        is_allowed.then_some(number)
    }
}
