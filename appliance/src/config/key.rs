//! One key of a section: what is known of it before a file is read.

use std::ops::RangeInclusive;

use super::value::TomlType;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUnit {
    /// In the plural.
    pub name: &'static str,
    /// How many of them are a second.
    per_second: u64,
}

/// What the numbers of a key count, by its name.
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

/// Microseconds of a time as people write it: `1h`, `1h30m`, `90 s`, `1.5h` not.
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

/// One key of a section, for the reader, for the reference and for error texts.
#[derive(Debug)]
pub struct ConfigKey {
    /// The name in the file.
    pub name: &'static str,
    /// Its name in files that were written before.
    pub old_name: Option<&'static str>,
    /// The reference's sentences.
    pub doc: &'static [&'static str],
    /// Numbers: the value. Lists: how many.
    pub range: Option<RangeInclusive<u64>>,
    /// What TOML has for its type.
    pub kind: TomlType,
    /// What is allowed, from type and range.
    pub allowed: fn(Option<&RangeInclusive<u64>>) -> String,
    /// Where only certain words are allowed: each and what it means.
    pub words: &'static [(&'static str, &'static str)],
    /// Whether its value is never shown.
    pub is_secret: bool,
    /// The default as TOML. `None`: the key is required.
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

    /// The number that a text means, where the key could have it.
    pub fn number_in(&self, text: &str) -> Option<u64> {
        let whole = || {
            let number: f64 = text.trim().parse().ok()?;
            // Above, integers are not exact any more; no key goes there.
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
