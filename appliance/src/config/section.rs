//! A section: what is known of it before a file is read, and how its keys are taken out of the file's table.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use super::error::ConfigText;
use super::key::ConfigKey;
use super::mismatch::{self, TypeShape};
use super::value::{TomlType, Value};

/// A section of the file: a table, or one of an array of tables.
pub trait Section: Sized {
    /// The name in the file.
    const NAME: &'static str;
    /// Whether it may stand several times, as `[[name]]`.
    const MANY: bool;
    /// The reference's sentences.
    const DOC: &'static [&'static str];
    /// Its keys, in the reference's order.
    const KEYS: &'static [ConfigKey];

    /// Reads the keys. `None`: a required one is missing or wrong, which was noted.
    fn read(fields: &mut Fields<'_, '_>) -> Option<Self>;

    /// The keys that have another value than in `other`.
    fn changed(&self, other: &Self) -> Vec<&'static str>;
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
    pub keys: &'static [ConfigKey],
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

/// A key and its value, with their places.
type Entry<'i> = (Spanned<DeString<'i>>, Spanned<DeValue<'i>>);

/// A section's table while its keys are taken out.
pub struct Fields<'s, 'i> {
    /// Where faults are noted.
    pub source: &'s mut ConfigText,
    /// Such as `interface[0]`.
    pub path: String,
    /// What was not taken out yet.
    pub table: DeTable<'i>,
}

impl<'i> Fields<'_, 'i> {
    /// Takes the key out and gives its value, or the default where it is absent or wrong (a fault is noted then).
    pub fn take<T: Value>(&mut self, key: &ConfigKey, default: Option<T>) -> Option<T> {
        let path = format!("{}.{}", self.path, key.name);
        let Some((name, mut value)) = self.written(key) else {
            if default.is_none() {
                self.source
                    .fault(&path, "is missing and has no default", key.allowed());
            }
            return default;
        };
        self.source.remember(&path, name.span());
        let shape = const { TypeShape::of::<T>() };
        let is_whole = self.take_wrong_elements(key, &path, &mut value, &shape);
        remember_elements(self.source, &path, &value);
        let span = value.span();
        let read = T::deserialize(ValueDeserializer::from(value));
        let read = read.map_err(|error| self.refuse(key, &path, &span, &span, (&error, &shape)));
        let read = read.ok().filter(|value| {
            let (Some(range), Some(measure)) = (&key.range, value.measure()) else {
                return true;
            };
            // Of a list of which something was left out too few are no fault of their own.
            let is_right = range.contains(&measure) || !is_whole && measure < *range.start();
            if !is_right {
                self.out_of_range(key, &path, &span, T::KIND, (measure, value.to_toml()));
            }
            is_right && range.contains(&measure)
        });
        if read.is_none() || !is_whole {
            self.source.refuse(&path);
        }
        read.or(default)
    }

    /// Notes each element of a list that cannot be read, and takes it out. Whether there was none.
    fn take_wrong_elements(
        &mut self,
        key: &ConfigKey,
        path: &str,
        value: &mut Spanned<DeValue<'i>>,
        shape: &TypeShape,
    ) -> bool {
        let span = value.span();
        let DeValue::Array(list) = value.get_mut() else {
            return true;
        };
        let wrong = shape.take_wrong(list);
        for (place, error) in &wrong {
            self.refuse(key, path, &span, place, (error, shape));
        }
        wrong.is_empty()
    }

    /// What the file has for the key, under its name or its old one.
    fn written(&mut self, key: &ConfigKey) -> Option<Entry<'i>> {
        let written = self.table.remove_entry(key.name);
        let old = key.old_name.and_then(|old| self.table.remove_entry(old));
        let Some((old_name, old_value)) = old else {
            return written;
        };
        let start = old_name.span().start;
        let path = format!("{}.{}", self.path, old_name.get_ref());
        let new = key.name;
        if written.is_some() {
            let problem = format!("is the old name of {new}, which stands here as well");
            self.source.fault_at(start, &path, problem, "one of them");
            return written;
        }
        self.source
            .warn_at(start, &path, format!("is called {new} now"));
        Some((old_name, old_value))
    }

    /// Notes a value that cannot be read, which stands at `whole`, or the element of it at `place`. Not generic: there are as many
    /// readers as types.
    fn refuse(
        &mut self,
        key: &ConfigKey,
        path: &str,
        whole: &Range<usize>,
        place: &Range<usize>,
        (error, shape): (&toml::de::Error, &TypeShape),
    ) {
        let place = error.span().unwrap_or_else(|| place.clone());
        let raw = self.source.written(place.clone());
        let (problem, allowed) =
            mismatch::explain(shape, key, raw, *whole == place, error.message());
        self.source.fault_at(place.start, path, problem, allowed);
    }

    fn out_of_range(
        &mut self,
        key: &ConfigKey,
        path: &str,
        span: &Range<usize>,
        kind: TomlType,
        (measure, shown): (u64, String),
    ) {
        let problem = match (kind, measure) {
            (TomlType::List, 0) => "the list is empty".to_owned(),
            (TomlType::List, _) => format!("{measure} elements are too many"),
            (TomlType::Integer | TomlType::Boolean | TomlType::Text, _) => {
                format!("{shown} is out of range")
            }
        };
        self.source
            .fault_at(span.start, path, problem, key.allowed());
    }
}

/// Every element of a list can be named by a later fault.
fn remember_elements(source: &mut ConfigText, path: &str, value: &Spanned<DeValue<'_>>) {
    let DeValue::Array(elements) = value.get_ref() else {
        return;
    };
    for (index, element) in elements.iter().enumerate() {
        source.remember(&format!("{path}[{index}]"), element.span());
    }
}
