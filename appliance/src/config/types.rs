//! Types of values in the config: names, paths, prefixes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use xdnsd_core::policy::TranslationPrefix;
use xdnsd_core::policy::dns64::LENGTHS;

use super::explain;
use super::value::{TomlType, Value, parse_string, strings};
use super::written::quoted;
use crate::compile::prefix::Prefix;
use crate::compile::{name, routes};
use crate::os::nf_tables::SetName;

strings! {
    InterfaceName: "the name of a network interface: 1 to 15 bytes, no slash, no space";
    OptionalPath[explain::path]: "an absolute path, or \"\" for none";
    FilePath[explain::path]: "an absolute path";
    IncludedFile: "a path, such as \"wan.toml\", \"conf.d\" or \"conf.d/*.toml\"";
    Domain: "a name such as \"lan\" or \"corp.example\"";
    FilterName[explain::filter_name]: "a name such as \"ads.example\", or \"*.ads.example\" for what is below it; files belong to block_files, allow_files or compiled";
    Suffix: "a name, for itself and all below it, or a prefix such as \"10.1.0.0/20\", for its reverse zones";
    ClientNetwork[explain::network]: "a prefix such as \"192.168.1.0/24\", or an address";
    Ipv6Network: "an IPv6 address, or a prefix such as \"2001:db8::/32\"";
    AnswerNetwork: "an address, or a prefix such as \"198.51.100.0/24\"";
    Nat64Prefix[explain::network]: "an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits such as \"64:ff9b::/96\", or \"\" for none";
    ViewName: "1 to 32 letters, digits, `-` or `_`, but not \"default\"";
    HttpHost[explain::http_host]: "a name such as \"router.lan\", without scheme, port and path";
    NftSetName: "a set such as \"inet#fw4#vpn4\": [4#|6#][FAMILY#]TABLE#SET";
    HttpAddress: "ADDRESS:PORT or [IPV6]:PORT, such as \"192.168.1.1:9153\"";
}

/// Name of a network interface, as `ip link` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// An optional path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionalPath(Option<PathBuf>);

impl OptionalPath {
    /// The path. `None` if switched off.
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

/// A path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') || text.contains('\0') {
            return Err(format!("{} is not an absolute path", quoted(text)));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(formatter)
    }
}

/// Maximum length of a view's name.
const VIEW_NAME_MAX: usize = 32;

const fn is_of_view_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Text that is checked, and kept as it was written.
macro_rules! checked_text {
    ($($(#[doc = $doc:literal])+ $name:ident($text:ident) $check:expr;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// As it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str($text: &str) -> Result<Self, String> {
                let checked: Result<_, String> = $check;
                checked.map(|_| Self($text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )+ };
}

checked_text! {
    /// Files that belong to the config as well.
    IncludedFile(text) match text.rsplit_once('/').unwrap_or(("", text)) {
        _ if text.is_empty() || text.contains('\0') => Err(format!("{} is not a path", quoted(text))),
        (folder, name) if folder.contains('*') || name.matches('*').count() > 1 => {
            Err(format!("{}: one * may stand in the last part of a path", quoted(text)))
        }
        _ => Ok(()),
    };
    /// A domain name.
    Domain(text) match explain::no_domain(text) {
        Some(problem) => Err(problem),
        None => name::parse(text).map_err(|error| format!("{} {error}", quoted(text))),
    };
    /// The name of a view.
    ViewName(text) match text {
        "" => Err("a view needs a name".to_owned()),
        "default" => Err("\"default\" are the clients who are in no view".to_owned()),
        _ if text.len() > VIEW_NAME_MAX || !text.bytes().all(is_of_view_name) => {
            Err(format!("{} cannot be the name of a view", quoted(text)))
        }
        _ => Ok(()),
    };
    /// A name that is blocked or allowed, with all below it; with `*.` in front, only what is below it.
    FilterName(text) match text.strip_prefix("*.").unwrap_or(text) {
        address if explain::is_network(address) => Err(format!("{} is an address", quoted(text))),
        host => name::parse_host(host).map_err(|error| format!("{} {error}", quoted(text))),
    };
    /// A name that a site is asked by.
    HttpHost(text) match text.strip_suffix('.').unwrap_or(text) {
        name if name.is_ascii() && !explain::is_network(name) => {
            name::parse_host(name).map_err(|error| format!("{} {error}", quoted(text)))
        }
        _ => Err(format!("{} is not the name of a host", quoted(text))),
    };
    /// A domain name with all below it, or the reverse zones of a prefix.
    Suffix(text) match explain::suffix(text) {
        Some(problem) => Err(problem),
        None => routes::parse_suffix(text),
    };
}

/// A set of nf_tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftSetName(pub SetName);

impl FromStr for NftSetName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error| format!("{} {error}", quoted(text)))
    }
}

impl fmt::Display for NftSetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Prefixes of some kind.
macro_rules! networks {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub Prefix);

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                text.parse()
                    .map(Self)
                    .map_err(|error| format!("{} {error}", quoted(text)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    )+ };
}

networks! {
    /// Addresses of clients.
    ClientNetwork;
    /// Addresses in answers.
    AnswerNetwork;
}

/// IPv6 addresses in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Network(pub Prefix);

impl FromStr for Ipv6Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let AnswerNetwork(prefix) = text.parse()?;
        if text.contains(':') {
            Ok(Self(prefix))
        } else {
            Err(format!("{} is of IPv4", quoted(text)))
        }
    }
}

impl fmt::Display for Ipv6Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The prefix of a NAT64, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat64Prefix(Option<Prefix>);

impl Nat64Prefix {
    /// The prefix. `None` if there is none.
    #[must_use]
    pub fn prefix(self) -> Option<TranslationPrefix> {
        of_nat64(self.0?)
    }
}

/// A prefix as that of a NAT64, if it can be one.
fn of_nat64(prefix: Prefix) -> Option<TranslationPrefix> {
    match prefix.address() {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => TranslationPrefix::new(address, prefix.length()),
    }
}

impl FromStr for Nat64Prefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let prefix: Prefix = text
            .parse()
            .map_err(|error| format!("{} {error}", quoted(text)))?;
        if of_nat64(prefix).is_some() {
            return Ok(Self(Some(prefix)));
        }
        Err(if prefix.address().is_ipv4() {
            format!("{} is of IPv4", quoted(text))
        } else if LENGTHS.contains(&prefix.length()) {
            format!("{} is not 0 in bits 64 to 71 (RFC 6052)", quoted(text))
        } else {
            format!("{} has {} bits", quoted(text), prefix.length())
        })
    }
}

impl fmt::Display for Nat64Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |prefix| prefix.fmt(formatter))
    }
}

/// A port for HTTP in examples.
const HTTP_PORT: u16 = 9_153;

/// An address and port for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress(pub SocketAddr);

impl FromStr for HttpAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address: Option<SocketAddr> = text.parse().ok();
        let address = address.filter(|address| address.port() != 0);
        address.map(Self).ok_or_else(|| {
            let why = why_no_http_address(text);
            format!("{} is not an address with a port{why}", quoted(text))
        })
    }
}

/// What keeps text from being an address and port, behind a colon.
fn why_no_http_address(text: &str) -> String {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse() {
        let whole = SocketAddr::new(address, HTTP_PORT);
        return format!(": the port is missing, as in \"{whole}\"");
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return format!(": without {scheme}:// and path");
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    if host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        return ": the address in front of the port is missing".into();
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.parse::<IpAddr>().is_ok() {
        return ": a port is a number from 1 to 65535".into();
    }
    if host.contains(|char: char| char.is_alphabetic()) && !host.contains([':', '/']) {
        return ": it is named by an address, not by a name".into();
    }
    String::new()
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Secret of 16 bytes for DNS cookies. Never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CookieSecret(pub [u8; 16]);

impl FromStr for CookieSecret {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(value) if digits => Ok(Self(value.to_be_bytes())),
            _ => Err("this is not a secret".into()),
        }
    }
}

impl<'de> serde::Deserialize<'de> for CookieSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_string(deserializer)
    }
}

impl Value for CookieSecret {
    const KIND: TomlType = TomlType::Text;
    const IS_SECRET: bool = true;

    fn allowed(_range: Option<&std::ops::RangeInclusive<u64>>) -> String {
        "32 hexadecimal digits".into()
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl fmt::Display for CookieSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

impl fmt::Debug for CookieSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_secret_is_read_and_never_shown() {
        let secret: CookieSecret = "000102030405060708090a0b0c0d0e0F"
            .parse()
            .expect("a secret");
        assert_eq!(
            secret.0,
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
        );
        assert_eq!(format!("{secret} {secret:?}"), "(secret) (secret)");
        for text in [
            "",
            "00",
            "+00102030405060708090a0b0c0d0e0f",
            "000102030405060708090a0b0c0d0e0g",
        ] {
            assert_eq!(
                text.parse::<CookieSecret>(),
                Err("this is not a secret".into()),
                "{text}"
            );
        }
    }

    #[test]
    fn names_suffixes_networks_and_paths_are_checked() {
        assert!("lan".parse::<Domain>().is_ok() && "a..b".parse::<Domain>().is_err());
        for suffix in ["corp.example", "10.1.0.0/20", "fd00::/8"] {
            assert_eq!(suffix.parse::<Suffix>().expect(suffix).as_str(), suffix);
        }
        assert!("10.1.0.1/20".parse::<Suffix>().is_err() && "a b..".parse::<Suffix>().is_err());
        assert_eq!(
            "192.168.1.1"
                .parse::<ClientNetwork>()
                .expect("one address")
                .to_string(),
            "192.168.1.1/32"
        );
        assert!(
            "192.168.1.1/24"
                .parse::<ClientNetwork>()
                .is_err_and(|error| error.contains("192.168.1.0/24"))
        );
        assert!("/etc/hosts".parse::<FilePath>().is_ok() && "hosts".parse::<FilePath>().is_err());
    }
}
