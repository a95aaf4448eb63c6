//! Values of keys: a type describes what it allows, and reads and writes itself as TOML.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Deserializer;
use serde::de::{DeserializeOwned, Visitor};
use toml::de::ValueDeserializer;

use super::explain;
use super::hint::did_you_mean;
use super::written::quoted;

/// TOML types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TomlType {
    /// An integer.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Quoted text.
    Text,
    /// A list in brackets.
    List,
}

impl TomlType {
    /// Type of a value as written.
    pub fn of(raw: &str) -> Option<Self> {
        match raw.chars().next()? {
            '"' | '\'' => Some(Self::Text),
            '[' => Some(Self::List),
            't' | 'f' => Some(Self::Boolean),
            '0'..='9' | '+' | '-' if raw.parse::<i128>().is_ok() => Some(Self::Integer),
            _ => None,
        }
    }
}

/// A type that a key may have. Serde reads it from TOML and locates an error at the very element that is invalid.
pub trait Value: DeserializeOwned + PartialEq {
    /// Allowed words with their meanings, if only certain words are allowed.
    const WORDS: &'static [(&'static str, &'static str)] = &[];
    /// TOML type.
    const KIND: TomlType;
    /// TOML type of an element, for a list.
    const ELEMENT: Option<TomlType> = None;
    /// True if values are never shown.
    const IS_SECRET: bool = false;

    /// What is allowed, as the end of the sentence "allowed: …".
    fn allowed(range: Option<&RangeInclusive<u64>>) -> String;

    /// The number that a range applies to: the value itself, or the length of a list. `None` if ranges do not apply.
    fn measure(&self) -> Option<u64> {
        None
    }

    /// Explains invalid text, if more can be said than the reader's error.
    fn explain(_text: &str) -> Option<String> {
        None
    }

    /// For a list: why a value is not an element, or `None` if it is one.
    fn element_error(_element: ValueDeserializer<'_>) -> Option<toml::de::Error> {
        None
    }

    /// The value as TOML, for the reference.
    fn to_toml(&self) -> String;
}

macro_rules! integers {
    ($($type:ty)*) => { $(
        impl Value for $type {
            const KIND: TomlType = TomlType::Integer;

            fn allowed(range: Option<&RangeInclusive<u64>>) -> String {
                let whole = 0..=u64::from(<$type>::MAX);
                let range = range.unwrap_or(&whole);
                format!("an integer from {} to {}", range.start(), range.end())
            }

            fn measure(&self) -> Option<u64> {
                Some(u64::from(*self))
            }

            fn to_toml(&self) -> String {
                self.to_string()
            }
        }
    )* };
}
integers!(u16 u32);

impl Value for bool {
    const KIND: TomlType = TomlType::Boolean;

    fn allowed(_range: Option<&RangeInclusive<u64>>) -> String {
        "true or false".into()
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: TomlType = TomlType::Text;

    fn allowed(_range: Option<&RangeInclusive<u64>>) -> String {
        "text in quotes".into()
    }

    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl Value for IpAddr {
    const KIND: TomlType = TomlType::Text;

    fn allowed(_range: Option<&RangeInclusive<u64>>) -> String {
        "an IPv4 or IPv6 address in quotes".into()
    }

    fn explain(text: &str) -> Option<String> {
        explain::address(text)
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl<T: Value> Value for Vec<T> {
    const KIND: TomlType = TomlType::List;
    const ELEMENT: Option<TomlType> = Some(T::KIND);
    const IS_SECRET: bool = T::IS_SECRET;

    fn explain(text: &str) -> Option<String> {
        T::explain(text)
    }

    fn allowed(range: Option<&RangeInclusive<u64>>) -> String {
        let element = T::allowed(None);
        match range {
            None => format!("a list, each {element}"),
            Some(range) => format!(
                "a list of {} to {}, each {element}",
                range.start(),
                range.end()
            ),
        }
    }

    fn measure(&self) -> Option<u64> {
        Some(self.len() as u64)
    }

    fn element_error(element: ValueDeserializer<'_>) -> Option<toml::de::Error> {
        T::deserialize(element).err()
    }

    fn to_toml(&self) -> String {
        let elements: Vec<String> = self.iter().map(T::to_toml).collect();
        format!("[{}]", elements.join(", "))
    }
}

/// Message for an unknown word.
pub(super) fn unknown_word(word: &str, known: &[&str]) -> String {
    format!(
        "`{word}` is not a word that is known here{}",
        did_you_mean(word, known)
    )
}

/// Parses a type from a quoted string, inside the deserializer, so that an error is located at that string.
pub(super) fn parse_string<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    struct Text<T>(PhantomData<T>);

    impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("text in quotes")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(PhantomData))
}

/// Implements types that are written as a quoted string, through [`std::str::FromStr`].
macro_rules! strings {
    ($($type:ty $([$explain:path])?: $allowed:expr;)*) => { $(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::value::parse_string(deserializer)
            }
        }

        impl $crate::config::value::Value for $type {
            const KIND: $crate::config::value::TomlType = $crate::config::value::TomlType::Text;

            fn allowed(_range: Option<&std::ops::RangeInclusive<u64>>) -> String {
                $allowed.into()
            }

            $(
                fn explain(text: &str) -> Option<String> {
                    $explain(text)
                }
            )?

            fn to_toml(&self) -> String {
                $crate::config::written::quoted(&self.to_string())
            }
        }
    )* };
}

/// Defines an enum of words: spelling in the config, sentence of the reference and match arm are written once.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident { $(#[doc = $word_doc:literal] $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $(#[doc = $word_doc] $variant,)+ }

        impl $name {
            /// Spelling in the config.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    other => Err($crate::config::value::unknown_word(other, &[$($word),+])),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::value::parse_string(deserializer)
            }
        }

        impl $crate::config::value::Value for $name {
            const WORDS: &'static [(&'static str, &'static str)] = &[$(($word, $word_doc),)+];
            const KIND: $crate::config::value::TomlType = $crate::config::value::TomlType::Text;

            fn allowed(_range: Option<&std::ops::RangeInclusive<u64>>) -> String {
                let words: Vec<String> = Self::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                words.join(", ")
            }

            fn to_toml(&self) -> String {
                format!("\"{}\"", self.word())
            }
        }
    };
}
pub(super) use {strings, words};
