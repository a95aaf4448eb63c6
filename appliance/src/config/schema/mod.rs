//! Every section and key: name, type, default, range and the reference's sentences, written once.
//!
//! The doc comments below are the reference: `xdnsd reference` prints them.

mod include;
mod network;
mod policy;
mod service;
mod view;

use xdnsd_core::engine::Settings;

use super::hint::heading;
use super::key::ConfigKey;
use super::section::Description;

pub use include::{FILES_MAX, Include};
pub use network::{Forward, Interface, RouteCheck, StrategyWord, Upstream, UpstreamPorts, XdpMode};
pub use policy::{
    Access, ActionWord, BlockWord, Dns64, Filter, Local, NFTSETS_MAX, NftSet, RangeWord, Rebind,
    SpecialWord,
};
pub use service::{
    AskWord, Cache, Control, Edns, GroupWord, Identity, LandlockWord, Log, LogLevel, Memory,
    PriorityWord, Protect, RateLimit, SeccompWord, Security, Shield, Statistics, SynCookiesWord,
    Tcp, Tier0Word, Web,
};
pub use view::{View, ViewDns64Word};

/// The engine's own defaults are the file's.
const DEFAULT: Settings = Settings::DEFAULT;

/// Every section, in the reference's order.
pub const SECTIONS: &[Description] = &[
    Description::of::<Interface>(),
    Description::of::<Upstream>(),
    Description::of::<Forward>(),
    Description::of::<Cache>(),
    Description::of::<Memory>(),
    Description::of::<Local>(),
    Description::of::<Filter>(),
    Description::of::<Rebind>(),
    Description::of::<Dns64>(),
    Description::of::<NftSet>(),
    Description::of::<Access>(),
    Description::of::<View>(),
    Description::of::<Edns>(),
    Description::of::<Tcp>(),
    Description::of::<RateLimit>(),
    Description::of::<Shield>(),
    Description::of::<Protect>(),
    Description::of::<Identity>(),
    Description::of::<Log>(),
    Description::of::<Statistics>(),
    Description::of::<Control>(),
    Description::of::<Web>(),
    Description::of::<Security>(),
    Description::of::<Include>(),
];

/// A section that may stand once may be absent: its keys have defaults.
const _: () = {
    let mut section = 0;
    while section < SECTIONS.len() {
        let Description { many, keys, .. } = SECTIONS[section];
        let mut key = 0;
        while key < keys.len() {
            assert!(
                many || keys[key].default.is_some(),
                "a key without a default in a section that may be absent"
            );
            key += 1;
        }
        section += 1;
    }
};

/// The headings of the sections that have a key of this name.
pub fn sections_with(key: &str) -> Vec<String> {
    let has = |keys: &[ConfigKey]| keys.iter().any(|known| known.name == key);
    let sections = SECTIONS.iter().filter(|section| has(section.keys));
    sections
        .map(|section| heading(section.name, section.many))
        .collect()
}

/// The heading of the section of this name.
pub fn heading_of(name: &str) -> Option<String> {
    let section = SECTIONS.iter().find(|section| section.name == name)?;
    Some(heading(section.name, section.many))
}

/// A section: the struct, the table that describes it and the reader, from one list of keys.
///
/// `key was old_name: Type = default, range;`, in which old name, default and range are optional. A key without a default is
/// required. A file with the old name gets a warning with the new one.
macro_rules! section {
    ($(#[doc = $doc:literal])+ $name:ident = $word:literal, many: $many:literal {
        $($(#[doc = $key_doc:literal])+ $key:ident $(was $old:ident)?: $type:ty $(= $default:expr)? $(, $range:expr)?;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[doc = $key_doc])+ pub $key: $type,)+ }

        impl $crate::config::section::Section for $name {
            const NAME: &'static str = $word;
            const MANY: bool = $many;
            const DOC: &'static [&'static str] = &[$($doc),+];
            const KEYS: &'static [$crate::config::key::ConfigKey] = &[$($crate::config::key::ConfigKey {
                name: stringify!($key),
                old_name: optional!($(stringify!($old))?),
                doc: &[$($key_doc),+],
                range: optional!($($range)?),
                kind: <$type as $crate::config::value::Value>::KIND,
                allowed: <$type as $crate::config::value::Value>::allowed,
                words: <$type as $crate::config::value::Value>::WORDS,
                is_secret: <$type as $crate::config::value::Value>::IS_SECRET,
                default: optional!($(|| <$type as $crate::config::value::Value>::to_toml(&$default))?),
            },)+];

            fn read(fields: &mut $crate::config::section::Fields<'_, '_>) -> Option<Self> {
                let mut keys = Self::KEYS.iter();
                $(let $key: Option<$type> =
                    fields.take(keys.next().expect("KEYS has every key, in this order"), optional!($($default)?));)+
                Some(Self { $($key: $key?,)+ })
            }

            fn changed(&self, other: &Self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$key != other.$key {
                    keys.push(stringify!($key));
                })+
                keys
            }
        }
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}
use {optional, section};
