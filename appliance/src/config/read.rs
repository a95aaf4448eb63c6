//! From TOML with positions to sections: every fault is noted and reading goes on, so one run tells them all.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use super::error::Source;
use super::hint::{self, did_you_mean, heading};
use super::mismatch::{self, Shape};
use super::schema::SECTIONS;
use super::value::{Kind, Value};
use super::{foreign, syntax};

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
    /// Whether its value is never shown.
    pub is_secret: bool,
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
            Ok(value) => {
                let is_right = match (&key.range, value.measure()) {
                    (Some(range), Some(measure)) if !range.contains(&measure) => {
                        self.out_of_range(key, &path, &span, T::KIND, (measure, value.to_toml()));
                        false
                    }
                    _ => true,
                };
                is_right.then_some(value).or(default)
            }
            Err(error) => {
                self.refuse(key, &path, &span, &error, &const { Shape::of::<T>() });
                default
            }
        }
    }

    /// Notes a value that cannot be read. Not generic: there are as many readers as types.
    fn refuse(
        &mut self,
        key: &Key,
        path: &str,
        span: &Range<usize>,
        error: &toml::de::Error,
        shape: &Shape,
    ) {
        let place = error.span().unwrap_or_else(|| span.clone());
        let raw = self.source.written(place.clone());
        let (problem, allowed) =
            mismatch::explain(shape, key, raw, *span == place, error.message());
        self.source.fault_at(place.start, path, problem, allowed);
    }

    fn out_of_range(
        &mut self,
        key: &Key,
        path: &str,
        span: &Range<usize>,
        kind: Kind,
        (measure, shown): (u64, String),
    ) {
        let problem = match (kind, measure) {
            (Kind::List, 0) => "the list is empty".to_owned(),
            (Kind::List, _) => format!("{measure} elements are too many"),
            (Kind::Integer | Kind::Boolean | Kind::Text, _) => format!("{shown} is out of range"),
        };
        self.source
            .fault_at(span.start, path, problem, key.allowed());
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
            let problem = format!(
                "is a section that stands once: [{}], and its keys below",
                S::NAME
            );
            self.source.fault_at(span.start, S::NAME, problem, "");
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
                let problem = format!("is a section: [[{}]], and its keys below", S::NAME);
                self.source.fault_at(span.start, S::NAME, problem, "");
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
        for (name, value) in &table {
            unknown_key::<S>(self.source, &path, name, value);
        }
        section
    }

    /// Notes what was not taken out. A section that was misspelt is not missed as well.
    pub fn finish(self) {
        let known: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        for (name, value) in &self.table {
            let (place, name) = (name.span(), name.get_ref());
            let homes = hint::sections_with(name);
            let problem = if homes.is_empty() || is_section(value) {
                if let Some(meant) = hint::meant(name, &known) {
                    self.source.remember(meant, place.clone());
                }
                format!("unknown section{}", did_you_mean(name, &known))
            } else {
                for home in &homes {
                    let section = home.trim_matches(['[', ']']);
                    self.source.remember(section, place.clone());
                }
                format!(
                    "a key stands below the line of its section: {}",
                    homes.join(" or ")
                )
            };
            self.source
                .fault_at(place.start, name, problem, known.join(", "));
        }
    }
}

/// Notes a key that the section has not: misspelt, another section's, or a section itself.
fn unknown_key<S: Section>(
    source: &mut Source,
    path: &str,
    name: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
) {
    let (place, name) = (name.span().start, name.get_ref());
    let known: Vec<&str> = S::KEYS.iter().map(|key| key.name).collect();
    let homes = hint::sections_with(name);
    let problem = if let Some(heading) = hint::heading_of(name) {
        format!("is a section, on a line of its own: {heading}")
    } else if is_section(value) {
        syntax::no_own_name(&heading(S::NAME, S::MANY), name)
    } else if homes.is_empty() {
        format!("unknown key{}", did_you_mean(name, &known))
    } else {
        format!("this is a key of {}", homes.join(" and "))
    };
    source.fault_at(place, &format!("{path}.{name}"), problem, known.join(", "));
}
