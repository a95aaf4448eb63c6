//! From TOML with positions to sections: every fault is noted and reading goes on, so one run tells them all.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use super::error::Source;
use super::schema::SECTIONS;
use super::value::{Kind, Value};
use super::{foreign, syntax};
use crate::text;

/// Longest part of a wrong value that is shown, in bytes.
const SHOWN_MAX: usize = 80;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// In the plural.
    pub name: &'static str,
    /// How many of them are a second.
    per_second: u64,
}

/// What the numbers of a key count, by its name.
#[must_use]
pub fn unit(key: &str) -> Option<Unit> {
    let of = |name, per_second| Some(Unit { name, per_second });
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
pub struct Key {
    /// The name in the file.
    pub name: &'static str,
    /// The reference's sentences.
    pub doc: &'static [&'static str],
    /// Numbers: the value. Lists: how many.
    pub range: Option<RangeInclusive<u64>>,
    /// What is allowed, from type and range.
    pub allowed: fn(Option<&RangeInclusive<u64>>) -> String,
    /// Where only certain words are allowed: each and what it means.
    pub words: &'static [(&'static str, &'static str)],
    /// The default as TOML. `None`: the key is required.
    pub default: Option<fn() -> String>,
}

impl Key {
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
    fn number_in(&self, text: &str) -> Option<u64> {
        let number = text.trim().parse().ok().or_else(|| {
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

/// A section of the file: a table, or one of an array of tables.
pub trait Section: Sized {
    /// The name in the file.
    const NAME: &'static str;
    /// Whether it may stand several times, as `[[name]]`.
    const MANY: bool;
    /// The reference's sentences.
    const DOC: &'static [&'static str];
    /// Its keys, in the reference's order.
    const KEYS: &'static [Key];

    /// Reads the keys. `None`: a required one is missing or wrong, which was noted.
    fn read(fields: &mut Fields<'_, '_>) -> Option<Self>;
}

/// A section that may stand several times, and which one of them it is.
pub struct Placed<S> {
    /// Such as `interface[0]`: where its faults are noted.
    pub path: String,
    /// The section.
    pub section: S,
}

/// A section for the reference.
#[derive(Debug)]
pub struct Description {
    /// The name in the file.
    pub name: &'static str,
    /// Whether it may stand several times.
    pub many: bool,
    /// The reference's sentences.
    pub doc: &'static [&'static str],
    /// Its keys.
    pub keys: &'static [Key],
}

impl Description {
    /// Describes `S`.
    #[must_use]
    pub const fn of<S: Section>() -> Self {
        Self {
            name: S::NAME,
            many: S::MANY,
            doc: S::DOC,
            keys: S::KEYS,
        }
    }
}

/// A section's table while its keys are taken out.
pub struct Fields<'s, 'i> {
    source: &'s mut Source,
    path: String,
    table: DeTable<'i>,
}

impl Fields<'_, '_> {
    /// Takes the key out and gives its value, or the default where it is absent or wrong (a fault is noted then).
    pub fn take<T: Value>(&mut self, key: &Key, default: Option<T>) -> Option<T> {
        let path = format!("{}.{}", self.path, key.name);
        let Some((name, value)) = self.table.remove_entry(key.name) else {
            if default.is_none() {
                self.source
                    .fault(&path, "is missing and has no default", key.allowed());
            }
            return default;
        };
        self.source.remember(&path, name.span());
        remember_elements(self.source, &path, &value);
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => self
                .in_range(key, &path, span, &value)
                .then_some(value)
                .or(default),
            Err(error) => {
                let place = error.span().unwrap_or_else(|| span.clone());
                let (problem, allowed) = self.explain::<T>(key, &place, span == place, &error);
                self.source.fault_at(place.start, &path, problem, allowed);
                default
            }
        }
    }

    /// What is wrong with a value that cannot be read, and what is allowed.
    fn explain<T: Value>(
        &self,
        key: &Key,
        place: &Range<usize>,
        is_whole: bool,
        error: &toml::de::Error,
    ) -> (String, String) {
        let raw = self.source.written(place.clone());
        let wanted = if is_whole {
            T::KIND
        } else {
            T::ELEMENT.unwrap_or(T::KIND)
        };
        let allowed = key.allowed();
        let shown = text::line_up_to(raw, SHOWN_MAX);
        let text = text_of(raw);
        match (wanted, Kind::of(raw)) {
            (Kind::Integer, Some(Kind::Integer)) => (format!("{shown} is out of range"), allowed),
            (Kind::Integer, _) => {
                let instead = text.as_deref().and_then(|text| key.number_in(text));
                let instead = instead.map(|number| number.to_string());
                let example = instead.or_else(|| Some(key.default?()));
                let example = example.map(|number| format!(", such as {number}"));
                let example = example.unwrap_or_default();
                (format!("{shown}: {allowed}{example}"), String::new())
            }
            (Kind::Boolean, _) => (format!("{shown}: {allowed}, without quotes"), String::new()),
            (Kind::List, found) if found != Some(Kind::List) => (
                format!("{shown}: a list stands in brackets: [{shown}]"),
                allowed,
            ),
            (Kind::Text, Some(Kind::Text)) => {
                let problem = text.and_then(|text| T::explain(&text));
                (
                    problem.unwrap_or_else(|| error.message().to_owned()),
                    allowed,
                )
            }
            (Kind::Text, found) if found != Some(Kind::List) => (
                format!("{shown}: text stands in quotes: \"{shown}\""),
                allowed,
            ),
            (Kind::Text | Kind::List, _) => (error.message().to_owned(), allowed),
        }
    }

    fn in_range<T: Value>(&mut self, key: &Key, path: &str, span: Range<usize>, value: &T) -> bool {
        let (Some(range), Some(measure)) = (&key.range, value.measure()) else {
            return true;
        };
        if !range.contains(&measure) {
            let problem = format!("{} is out of range", value.to_toml());
            self.source
                .fault_at(span.start, path, problem, key.allowed());
        }
        range.contains(&measure)
    }
}

/// Whether it is a table, or a list of them.
fn is_section(value: &Spanned<DeValue<'_>>) -> bool {
    match value.get_ref() {
        DeValue::Table(_) => true,
        DeValue::Array(elements) => elements.iter().any(|element| element.get_ref().is_table()),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    }
}

/// The text of a value that was written in quotes.
fn text_of(raw: &str) -> Option<String> {
    let table: toml::Table = format!("text = {raw}").parse().ok()?;
    Some(table.get("text")?.as_str()?.to_owned())
}

/// Every element of a list can be named by a later fault.
fn remember_elements(source: &mut Source, path: &str, value: &Spanned<DeValue<'_>>) {
    let DeValue::Array(elements) = value.get_ref() else {
        return;
    };
    for (index, element) in elements.iter().enumerate() {
        source.remember(&format!("{path}[{index}]"), element.span());
    }
}

/// The whole file while its sections are taken out.
pub struct Document<'s, 'i> {
    source: &'s mut Source,
    table: DeTable<'i>,
}

impl<'s, 'i> Document<'s, 'i> {
    /// Parses `text`. `None`: it is not TOML, which was noted with its places.
    pub fn parse(source: &'s mut Source, text: &'i str) -> Option<Self> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let table = table.into_inner();
        let has_sections = table.values().any(is_section);
        if (!errors.is_empty() || !has_sections)
            && let Some(whose) = foreign::recognise(text)
        {
            source.fault_of_all(format!(
                "this looks like {whose}; xdnsd reads TOML, see config/home-router.toml"
            ));
            return None;
        }
        let errors = errors.iter().map(|error| {
            let place = error.span().unwrap_or_default();
            (place, error.message().to_owned())
        });
        syntax::note(source, text, errors);
        (!source.is_faulty()).then_some(Self { source, table })
    }

    /// Takes out a section that may stand once; absent is the same as empty. Its keys all have defaults, which stand
    /// for those that are wrong.
    pub fn one<S: Section>(&mut self) -> S {
        let table = self.one_table::<S>().unwrap_or_default();
        let section = self.section(S::NAME.into(), table);
        section.expect("a section that may stand once has a default for every key")
    }

    fn one_table<S: Section>(&mut self) -> Option<DeTable<'i>> {
        let (name, value) = self.table.remove_entry(S::NAME)?;
        self.source.remember(S::NAME, name.span());
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            let (problem, allowed) = ("is a section and may stand once", S::NAME);
            self.source
                .fault_at(span.start, S::NAME, problem, format!("[{allowed}]"));
            return None;
        };
        Some(table)
    }

    /// Takes out a section that may stand several times. A single table is the same as an array of one.
    pub fn many<S: Section>(&mut self) -> Vec<Placed<S>> {
        let Some((name, value)) = self.table.remove_entry(S::NAME) else {
            return Vec::new();
        };
        self.source.remember(S::NAME, name.span());
        let span = value.span();
        let value = value.into_inner();
        let tables: Vec<_> = if let DeValue::Array(tables) = value {
            tables.into_iter().collect()
        } else {
            vec![Spanned::new(span, value)]
        };
        let mut sections = Vec::new();
        for (index, value) in tables.into_iter().enumerate() {
            let path = format!("{}[{index}]", S::NAME);
            let span = value.span();
            self.source.remember(&path, span.clone());
            let DeValue::Table(table) = value.into_inner() else {
                let allowed = format!("[[{}]]", S::NAME);
                self.source
                    .fault_at(span.start, S::NAME, "is a section", allowed);
                continue;
            };
            let section = self.section(path.clone(), table);
            sections.extend(section.map(|section| Placed { path, section }));
        }
        sections
    }

    fn section<S: Section>(&mut self, path: String, table: DeTable<'i>) -> Option<S> {
        let source = &mut *self.source;
        let mut fields = Fields {
            source,
            path,
            table,
        };
        let section = S::read(&mut fields);
        let Fields { path, table, .. } = fields;
        let known: Vec<&str> = S::KEYS.iter().map(|key| key.name).collect();
        for name in table.keys() {
            unknown(self.source, &path, name, &known);
        }
        section
    }

    /// Notes what was not taken out.
    pub fn finish(self) {
        let known: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        for name in self.table.keys() {
            unknown(self.source, "", name, &known);
        }
    }
}

/// Notes a name that stands for nothing, under `path` or, where that is empty, on its own.
fn unknown(source: &mut Source, path: &str, name: &Spanned<DeString<'_>>, known: &[&str]) {
    let (place, name) = (name.span().start, name.get_ref());
    let (what, path) = match path {
        "" => ("section", name.to_string()),
        path => ("key", format!("{path}.{name}")),
    };
    let hint = nearest(name, known).map(|known| format!(", did you mean \"{known}\"?"));
    let problem = format!("unknown {what}{}", hint.unwrap_or_default());
    source.fault_at(place, &path, problem, known.join(", "));
}

/// The known word that `word` was probably meant to be.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &&str| edit_distance(&word.to_lowercase(), known);
    let near = known.iter().copied().min_by_key(distance)?;
    let tolerated = near.len().max(word.len()).div_ceil(3);
    (distance(&near) <= tolerated).then_some(near)
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let known = ["servers", "strategy", "timeout_ms"];
        assert_eq!(nearest("server", &known), Some("servers"));
        assert_eq!(nearest("timeout", &known), Some("timeout_ms"));
        assert_eq!(nearest("Strategy", &known), Some("strategy"));
        assert_eq!(nearest("upstream", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn edit_distances() {
        for (a, b, distance) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("vlan", "valn", 2),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }
}
