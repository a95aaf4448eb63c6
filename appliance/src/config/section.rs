//! Sections: their description before a file is read, and how their keys are taken out of the file's table.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use super::error::ConfigText;
use super::key::ConfigKey;
use super::mismatch::{self, TypeShape};
use super::value::{TomlType, Value};

/// A section of the file: a table, or one of an array of tables.
pub trait Section: Sized {
    /// Name in the file.
    const NAME: &'static str;
    /// True if it may occur several times, as `[[name]]`.
    const MANY: bool;
    /// Sentences for the reference.
    const DOC: &'static [&'static str];
    /// Its keys, in the reference's order.
    const KEYS: &'static [ConfigKey];

    /// Reads the keys. `None` if a required one is missing or invalid, which is noted.
    fn read(fields: &mut Fields<'_, '_>) -> Option<Self>;

    /// Keys with another value than in `other`.
    fn changed(&self, other: &Self) -> Vec<&'static str>;
}

/// A section that may occur several times, with its path.
pub struct Placed<S> {
    /// Path, such as `interface[0]`, for its faults.
    pub path: String,
    /// The section.
    pub section: S,
}

/// Description of a section for the reference.
#[derive(Debug)]
pub struct Description {
    /// Name in the file.
    pub name: &'static str,
    /// True if it may occur several times.
    pub many: bool,
    /// Sentences for the reference.
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
    /// Path of the section, such as `interface[0]`.
    pub path: String,
    /// Keys that were not taken out yet.
    pub table: DeTable<'i>,
}

impl<'i> Fields<'_, 'i> {
    /// Takes a key out and returns its value, or the default if it is missing or invalid. Notes a fault if it is invalid.
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
            // If elements were refused, too few are left; that is no fault of its own.
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

    /// Takes invalid elements out of a list, and notes each. True if there were none.
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

    /// Entry of the key in the file, under its name or its old one.
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

    /// Notes an invalid value, which is at `whole`, or its element at `place`. Not generic, so that the code exists once and
    /// not for each type.
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

/// Remembers the place of every element, for later faults.
fn remember_elements(source: &mut ConfigText, path: &str, value: &Spanned<DeValue<'_>>) {
    let DeValue::Array(elements) = value.get_ref() else {
        return;
    };
    for (index, element) in elements.iter().enumerate() {
        source.remember(&format!("{path}[{index}]"), element.span());
    }
}
