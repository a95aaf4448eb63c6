//! The value of `zero_copy`: a switch, or `"auto"`.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserializer;
use serde::de::{Error, Visitor};

use super::value::{TomlType, Value, unknown_word};

/// Whether AF_XDP may share the driver's own buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// `false`: the kernel copies.
    Off,
    /// `true`: each queue has a worker for itself, whether or not its driver copies.
    On,
    /// `"auto"`: the first queue is tried, and queues that are copied share workers.
    Auto,
}

/// The only word.
const AUTO: &str = "auto";

impl ZeroCopy {
    /// Spelling in the config.
    #[must_use]
    pub const fn written(self) -> &'static str {
        match self {
            Self::Off => "false",
            Self::On => "true",
            Self::Auto => "\"auto\"",
        }
    }
}

impl<'de> serde::Deserialize<'de> for ZeroCopy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = ZeroCopy;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&ZeroCopy::allowed(None))
            }

            fn visit_bool<E: Error>(self, is_on: bool) -> Result<ZeroCopy, E> {
                Ok(if is_on { ZeroCopy::On } else { ZeroCopy::Off })
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<ZeroCopy, E> {
                let is_auto = word == AUTO;
                let unknown = || E::custom(unknown_word(word, &[AUTO]));
                is_auto.then_some(ZeroCopy::Auto).ok_or_else(unknown)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl Value for ZeroCopy {
    const KIND: TomlType = TomlType::Boolean;

    fn allowed(_range: Option<&RangeInclusive<u64>>) -> String {
        "true, false or \"auto\"".into()
    }

    fn to_toml(&self) -> String {
        self.written().into()
    }
}
