//! Types of values in the config: names, paths, prefixes, servers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::explain;
use super::value::{TomlType, Value, parse_string, strings};
use super::written::{bare_address, quoted};
use crate::compile::prefix::Prefix;
use crate::compile::{name, routes};

strings! {
    InterfaceName: "the name of a network interface: 1 to 15 bytes, no slash, no space";
    OptionalPath[explain::path]: "an absolute path, or \"\" for none";
    FilePath[explain::path]: "an absolute path";
    IncludedFile: "a path, such as \"wan.toml\", \"conf.d\" or \"conf.d/*.toml\"";
    Domain: "a name such as \"lan\" or \"corp.example\"";
    FilterName[explain::filter_name]: "a name such as \"ads.example\", or \"*.ads.example\" for what is below it; files belong to block_files, allow_files or compiled";
    Suffix: "a name, for itself and all below it, or a prefix such as \"10.1.0.0/20\", for its reverse zones";
    ClientNetwork[explain::network]: "a prefix such as \"192.168.1.0/24\", or an address";
    AnswerNetwork: "an address, or a prefix such as \"198.51.100.0/24\"";
    ViewName: "1 to 32 letters, digits, `-` or `_`, but not \"default\"";
    HttpAddress: "ADDRESS:PORT or [IPV6]:PORT, such as \"192.168.1.1:9153\"";
    UpstreamServer: "ADDRESS, ADDRESS:PORT or [IPV6]:PORT; a link-local address names its interface: fe80::1%wan0; encrypted servers (DoT, DoH, DoQ) by way of a stub on this machine, such as \"127.0.0.1:5453\"";
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
    /// A domain name with all below it, or the reverse zones of a prefix.
    Suffix(text) match explain::suffix(text) {
        Some(problem) => Err(problem),
        None => routes::parse_suffix(text),
    };
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

/// An address and port for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress(pub SocketAddr);

impl FromStr for HttpAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address: Option<SocketAddr> = text.parse().ok();
        let address = address.filter(|address| address.port() != 0);
        address
            .map(Self)
            .ok_or_else(|| format!("{} is not an address with a port", quoted(text)))
    }
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

/// An upstream server: address, port, and the interface of a link-local address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Address.
    pub addr: IpAddr,
    /// UDP and TCP port.
    pub port: u16,
    /// Interface of a link-local address (RFC 4007 section 11).
    pub zone: Option<InterfaceName>,
}

impl UpstreamServer {
    /// The port of DNS over UDP and TCP.
    pub const PORT: u16 = 53;

    /// Socket address; `index_of` gives the index of the zone's interface.
    ///
    /// `None` if there is no such interface.
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

impl FromStr for UpstreamServer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || no_server(text);
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
        if let IpAddr::V6(v6) = addr
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let shown = quoted(text);
            return Err(format!(
                "{shown} is not a server: IPv4 in its own form: \"{v4}\""
            ));
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

/// Splits `ADDRESS`, `IPV4:PORT` or `[IPV6]:PORT` into the address's text and the port. The port after brackets is optional.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let Some(bracketed) = text.strip_prefix('[') else {
        return match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => Some((text, UpstreamServer::PORT)),
            Some((host, port)) => Some((host, parse_port(port)?)),
            None => Some((text, UpstreamServer::PORT)),
        };
    };
    match bracketed.split_once(']')? {
        (host, _) if !host.contains(':') => None,
        (host, "") => Some((host, UpstreamServer::PORT)),
        (host, rest) => Some((host, parse_port(rest.strip_prefix(':')?)?)),
    }
}

/// Explains why text is no server.
fn no_server(text: &str) -> String {
    let shown = quoted(text);
    let encrypted = format!(
        "{shown} is not a server: there is no encrypted form (DoT, DoH, DoQ); run a stub on this machine that asks it, such as \
         stubby, dnscrypt-proxy or unbound, and name its address"
    );
    let address = bare_address(text);
    if let Some((scheme, rest)) = text
        .split_once(':')
        .filter(|(_, rest)| rest.starts_with("//"))
    {
        return match scheme {
            "udp" | "tcp" | "dns" => format!("{shown} is not a server: without {scheme}://"),
            _ if rest.len() > 2 => encrypted,
            _ => format!("{shown} is not a server"),
        };
    }
    if text.starts_with("sdns:") {
        return encrypted;
    }
    if let (Some(address), Some((_, port))) = (address, text.split_once(['#', '@'])) {
        return match parse_port(port) {
            Some(port) => {
                let whole = SocketAddr::new(address, port);
                format!("{shown} is not a server: the port stands behind a colon: \"{whole}\"")
            }
            None => encrypted,
        };
    }
    match address {
        Some(address) if text.contains('/') => {
            format!("{shown} is not a server: without prefix: \"{address}\"")
        }
        Some(IpAddr::V4(address)) if text.starts_with('[') => {
            format!("{shown} is not a server: brackets are for IPv6: \"{address}\"")
        }
        Some(_) if text.trim() != text => format!("{shown} is not a server: without spaces"),
        Some(_) => format!("{shown} is not a server: a port is a number from 1 to 65535"),
        None if text.contains(|char: char| char.is_alphabetic())
            && !text.contains(char::is_whitespace) =>
        {
            format!(
                "{shown} is not a server: a name would have to be asked for first, so a server is named by its address"
            )
        }
        None => format!("{shown} is not a server"),
    }
}

/// Parses a port: no sign, no leading zero, not 0.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.starts_with(|char: char| ('1'..='9').contains(&char));
    plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for UpstreamServer {
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
            let server: UpstreamServer = text.parse().expect(text);
            assert_eq!(server.to_string(), shown);
            assert_eq!(
                shown.parse::<UpstreamServer>().as_ref(),
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
            assert!(text.parse::<UpstreamServer>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_zone_becomes_the_scope() {
        let server: UpstreamServer = "fe80::1%wan0".parse().expect("a link-local server");
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
