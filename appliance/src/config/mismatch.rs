//! Explains values that are valid TOML but not valid for their key: of another type, out of range, unknown words.

use std::net::IpAddr;
use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeArray, ValueDeserializer};

use super::key::ConfigKey;
use super::value::{TomlType, Value};
use super::written::quoted;
use crate::text;

/// Maximum length of an invalid value in a report, in bytes.
const SHOWN_MAX: usize = 80;

/// Facts about a type, so that this code is not generic: it exists once, not for each type.
pub struct TypeShape {
    kind: TomlType,
    element: Option<TomlType>,
    is_secret: bool,
    explain: fn(&str) -> Option<String>,
    /// True if the type can be read from this value.
    reads: fn(ValueDeserializer<'_>) -> bool,
    /// Why a value is not an element.
    element_error: fn(ValueDeserializer<'_>) -> Option<toml::de::Error>,
}

impl TypeShape {
    /// Facts about `T`.
    pub const fn of<T: Value>() -> Self {
        Self {
            kind: T::KIND,
            element: T::ELEMENT,
            is_secret: T::IS_SECRET,
            explain: T::explain,
            reads: |value| T::deserialize(value).is_ok(),
            element_error: T::element_error,
        }
    }

    /// Takes the invalid elements out of a list, with their places and errors.
    pub fn take_wrong(&self, list: &mut DeArray<'_>) -> Vec<(Range<usize>, toml::de::Error)> {
        let mut wrong = Vec::new();
        let elements = std::mem::replace(list, DeArray::new());
        for element in elements {
            let span = element.span();
            match (self.element_error)(ValueDeserializer::from(element.clone())) {
                Some(error) => wrong.push((span, error)),
                None => list.push(element),
            }
        }
        wrong
    }

    /// True if `raw` is a valid value, or a valid element unless `is_whole`.
    fn reads(&self, raw: &str, is_whole: bool) -> bool {
        let list = || format!("[{raw}]");
        let raw = if is_whole { raw.to_owned() } else { list() };
        ValueDeserializer::parse(&raw).is_ok_and(self.reads)
    }
}

/// Explains the problem, and what is allowed if the problem does not say so. `raw` is the value as written, or unless
/// `is_whole` an element of the list; `message` is the parser's.
pub fn explain(
    shape: &TypeShape,
    key: &ConfigKey,
    raw: &str,
    is_whole: bool,
    message: &str,
) -> (String, String) {
    let wanted = if is_whole {
        shape.kind
    } else {
        shape.element.unwrap_or(shape.kind)
    };
    let allowed = key.allowed();
    if shape.is_secret {
        return ("this is not a secret".into(), allowed);
    }
    let shown = text::line_up_to(raw, SHOWN_MAX);
    let found = TomlType::of(raw);
    let text = text_of(raw);
    let problem = match (wanted, found) {
        (TomlType::Integer, Some(TomlType::Integer)) => format!("{shown} is out of range"),
        (TomlType::Integer, _) => {
            let example = example(key, raw).map(|number| format!(", such as {number}"));
            let problem = format!("{shown}: {allowed}{}", example.unwrap_or_default());
            return (problem, String::new());
        }
        (TomlType::Boolean, _) => {
            // One of them is a word.
            let bare = if allowed.contains('"') {
                ""
            } else {
                ", without quotes"
            };
            return (format!("{shown}: {allowed}{bare}"), String::new());
        }
        (TomlType::List, Some(TomlType::List)) => message.to_owned(),
        (TomlType::List, _) => as_list(shape, raw, &shown, text.as_deref()),
        (TomlType::Text, Some(TomlType::Text)) => {
            let text = text.as_deref().unwrap_or_default();
            several(shape, text)
                .or_else(|| (shape.explain)(text))
                .unwrap_or_else(|| message.to_owned())
        }
        (TomlType::Text, Some(TomlType::List)) => match only_element(raw) {
            Some(one) if shape.reads(one, is_whole) => {
                format!("{shown}: one value, without brackets: {one}")
            }
            Some(_) | None => format!("{shown}: one value, no list"),
        },
        (TomlType::Text, _) if !raw.starts_with('{') && shape.reads(&quoted(raw), is_whole) => {
            format!("{shown}: text stands in quotes: {}", quoted(&shown))
        }
        (TomlType::Text, _) => (shape.explain)(raw)
            .unwrap_or_else(|| format!("{shown}: a text in quotes is wanted here")),
    };
    (problem, allowed)
}

/// The number that was meant, or the default.
fn example(key: &ConfigKey, raw: &str) -> Option<String> {
    let raw = only_element(raw).unwrap_or(raw);
    let text = text_of(raw).unwrap_or_else(|| raw.to_owned());
    let number = key.number_in(&text).map(|number| number.to_string());
    number
        .or_else(|| Some(key.default?()))
        .filter(|example| !example.starts_with('['))
}

/// Explains a value, or several in one text, in place of a list.
fn as_list(shape: &TypeShape, raw: &str, shown: &str, text: Option<&str>) -> String {
    if let Some(several) = text.and_then(|text| several(shape, text)) {
        return several;
    }
    if text.is_some() || shape.reads(&format!("[{raw}]"), true) {
        return format!("{shown}: a list stands in brackets: [{shown}]");
    }
    format!("{shown}: a list in brackets is wanted here")
}

/// The elements in one text, if each of them is valid.
fn several(shape: &TypeShape, text: &str) -> Option<String> {
    if shape.kind != TomlType::List {
        return None;
    }
    let parts = text
        .split([',', ';', ' ', '\t'])
        .filter(|part| !part.is_empty());
    let is_address = |part: &str| part.parse::<IpAddr>().is_ok();
    if parts.clone().any(is_address) && !parts.clone().all(is_address) {
        // A line of a hosts file, or a network with its mask.
        return None;
    }
    let parts: Vec<String> = parts.map(quoted).collect();
    let list = format!("[{}]", parts.join(", "));
    let is_one = shape.reads(&quoted(text), false);
    let is_meant = parts.len() > 1 && !is_one && shape.reads(&list, true);
    is_meant.then(|| format!("{}: each stands in quotes of its own: {list}", quoted(text)))
}

/// Content of a quoted value.
fn text_of(raw: &str) -> Option<String> {
    String::deserialize(ValueDeserializer::parse(raw).ok()?).ok()
}

/// The only element of a list with one.
fn only_element(raw: &str) -> Option<&str> {
    let inner = raw.strip_prefix('[')?.strip_suffix(']')?;
    let inner = inner.trim().trim_end_matches(',');
    ValueDeserializer::parse(inner).is_ok().then_some(inner)
}
