//! The types that a key may have: each says what it allows, and reads and writes itself as TOML.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A type that a key may have. Serde reads it from TOML and places the error on the very element that is wrong.
pub trait Value: DeserializeOwned {
    /// Where only certain words are allowed: each and what it means.
    const WORDS: &'static [(&'static str, &'static str)] = &[];

    /// What is allowed, as the end of the sentence "allowed: …".
    fn allowed(range: Option<&RangeInclusive<u64>>) -> String;

    /// What a range counts: the number itself, or the elements of a list. `None`: ranges do not apply.
    fn measure(&self) -> Option<u64> {
        None
    }

    /// The value as TOML, for the reference.
    fn to_toml(&self) -> String;
}

macro_rules! integers {
    ($($type:ty)*) => { $(
        impl Value for $type {
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
    fn allowed(_range: Option<&RangeInclusive<u64>>) -> String {
        "true or false".into()
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn allowed(_range: Option<&RangeInclusive<u64>>) -> String {
        "text in quotes".into()
    }

    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl Value for IpAddr {
    fn allowed(_range: Option<&RangeInclusive<u64>>) -> String {
        "an IPv4 or IPv6 address in quotes".into()
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl<T: Value> Value for Vec<T> {
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

    fn to_toml(&self) -> String {
        let elements: Vec<String> = self.iter().map(T::to_toml).collect();
        format!("[{}]", elements.join(", "))
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(control)))
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// Types that are written as a quoted string: serde reads the string, [`FromStr`] gives it meaning.
macro_rules! strings {
    ($($type:ty: $allowed:expr;)*) => { $(
        impl TryFrom<String> for $type {
            type Error = <$type as FromStr>::Err;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl Value for $type {
            fn allowed(_range: Option<&RangeInclusive<u64>>) -> String {
                $allowed.into()
            }

            fn to_toml(&self) -> String {
                quoted(&self.to_string())
            }
        }
    )* };
}

/// One enum of words: the config's spelling, the reference's sentence and the match arm are written once.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident { $(#[doc = $word_doc:literal] $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
        #[serde(try_from = "String")]
        pub enum $name { $(#[doc = $word_doc] $variant,)+ }

        impl $name {
            /// The config's spelling.
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
                    other => Err(format!("`{other}` is not a word that is known here")),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl $crate::config::value::Value for $name {
            const WORDS: &'static [(&'static str, &'static str)] = &[$(($word, $word_doc),)+];

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
pub(super) use words;

strings! {
    InterfaceName: "the name of a network interface: 1 to 15 bytes, no slash, no space";
    OptionalPath: "an absolute path, or \"\" for none";
    Server: "ADDRESS, ADDRESS:PORT or [IPV6]:PORT; a link-local address names its interface: fe80::1%wan0";
}

/// Name of a network interface, as `ip link` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The kernel's IFNAMSIZ, without the closing zero.
    const LEN_MAX: usize = 15;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let forbidden =
            |char: char| char == '/' || char == ':' || char.is_whitespace() || char.is_control();
        if text.is_empty()
            || text.len() > Self::LEN_MAX
            || text == "."
            || text == ".."
            || text.contains(forbidden)
        {
            return Err(format!(
                "{} cannot be the name of an interface",
                quoted(text)
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A file, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct OptionalPath(Option<PathBuf>);

impl OptionalPath {
    /// The file. `None`: switched off.
    #[must_use]
    pub fn as_deref(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl FromStr for OptionalPath {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        if !text.starts_with('/') || text.ends_with('/') || text.contains('\0') {
            return Err(format!(
                "{} is not an absolute path of a file",
                quoted(text)
            ));
        }
        Ok(Self(Some(text.into())))
    }
}

impl fmt::Display for OptionalPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(path) => path.display().fmt(formatter),
            None => Ok(()),
        }
    }
}

/// An upstream server: address, port, and the interface where the address is link-local.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Server {
    /// Where it answers.
    pub addr: IpAddr,
    /// UDP and TCP port.
    pub port: u16,
    /// Interface of a link-local address (RFC 4007 section 11).
    pub zone: Option<InterfaceName>,
}

impl Server {
    /// The port of DNS over UDP and TCP.
    pub const PORT: u16 = 53;

    /// As the kernel wants it; `index_of` gives the index of the zone's interface.
    ///
    /// `None`: there is no such interface.
    pub fn socket_addr(&self, index_of: impl FnOnce(&str) -> Option<u32>) -> Option<SocketAddr> {
        let scope = match &self.zone {
            Some(zone) => index_of(zone.as_str())?,
            None => 0,
        };
        Some(match self.addr {
            IpAddr::V4(addr) => SocketAddr::new(addr.into(), self.port),
            IpAddr::V6(addr) => SocketAddrV6::new(addr, self.port, 0, scope).into(),
        })
    }
}

impl FromStr for Server {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{} is not a server", quoted(text));
        let (host, port) = split_port(text).ok_or_else(bad)?;
        let (addr, zone) = match host.split_once('%') {
            Some((addr, zone)) => (addr, Some(zone.parse()?)),
            None => (host, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        if addr.is_unspecified()
            || addr.is_multicast()
            || addr == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
        {
            return Err(format!("{addr} is not the address of one server"));
        }
        let link_local = matches!(addr, IpAddr::V6(addr) if Ipv6Addr::is_unicast_link_local(&addr));
        match zone.is_some() == link_local {
            true => Ok(Self { addr, port, zone }),
            false if link_local => Err(format!(
                "{addr} is link-local and does not name its interface"
            )),
            false => Err(format!("{addr} is not link-local and needs no interface")),
        }
    }
}

/// `ADDRESS`, `IPV4:PORT` or `[IPV6]:PORT`: the address's text and the port. Brackets may stand without a port.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let Some(bracketed) = text.strip_prefix('[') else {
        return match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => Some((text, Server::PORT)),
            Some((host, port)) => Some((host, parse_port(port)?)),
            None => Some((text, Server::PORT)),
        };
    };
    match bracketed.split_once(']')? {
        (host, _) if !host.contains(':') => None,
        (host, "") => Some((host, Server::PORT)),
        (host, rest) => Some((host, parse_port(rest.strip_prefix(':')?)?)),
    }
}

/// A port as people write it: no sign, no leading zero, not 0.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.starts_with(|char: char| ('1'..='9').contains(&char));
    plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self
            .zone
            .as_ref()
            .map(|zone| format!("%{zone}"))
            .unwrap_or_default();
        match self.addr {
            IpAddr::V4(addr) => write!(formatter, "{addr}:{}", self.port),
            IpAddr::V6(addr) => write!(formatter, "[{addr}{zone}]:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_in_every_form() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:853", "[2001:db8::1]:853"),
            ("fe80::1%wan0", "[fe80::1%wan0]:53"),
            ("[fe80::1%wan0]:5353", "[fe80::1%wan0]:5353"),
        ] {
            let server: Server = text.parse().expect(text);
            assert_eq!(server.to_string(), shown);
            assert_eq!(
                shown.parse::<Server>().as_ref(),
                Ok(&server),
                "what is shown reads back"
            );
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "192.0.2.1:+53",
            "192.0.2.1:053",
            "192.0.2.1@53",
            "192.0.2.1#53",
            "[192.0.2.1]:53",
            "[2001:db8::1",
            "[2001:db8::1]53",
            "[2001:db8::1]:",
            "0.0.0.0",
            "::",
            "224.0.0.251",
            "ff02::fb",
            "255.255.255.255",
            "fe80::1",
            "2001:db8::1%wan0",
            "fe80::1%",
            "192.0.2.1%wan0",
            "dns.example",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_zone_becomes_the_scope() {
        let server: Server = "fe80::1%wan0".parse().expect("a link-local server");
        let addr = server.socket_addr(|name| (name == "wan0").then_some(7));
        assert_eq!(
            addr,
            Some(SocketAddrV6::new("fe80::1".parse().expect("an address"), 53, 0, 7).into())
        );
        assert_eq!(server.socket_addr(|_| None), None);
    }

    #[test]
    fn interface_names_are_the_kernels() {
        for name in ["lan0", "br-lan", "eth0.10", "a23456789012345"] {
            assert!(name.parse::<InterfaceName>().is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a234567890123456",
            "la n",
            "la/n",
            "eth0:1",
            "la\nn",
        ] {
            assert!(name.parse::<InterfaceName>().is_err(), "{name}");
        }
    }

    #[test]
    fn text_survives_quoting() {
        let text = "a\"b\\c\nd";
        let document = format!("text = {}", quoted(text));
        let table: toml::Table = document.parse().expect("TOML");
        assert_eq!(table["text"].as_str(), Some(text));
    }
}
