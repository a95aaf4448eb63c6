//! An upstream server as the config writes it.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use xdnsd_core::forward::via::{Destination, Egress};

use super::types::InterfaceName;
use super::value::strings;
use super::written::{bare_address, quoted};

strings! {
    UpstreamServer: "ADDRESS, ADDRESS:PORT or [IPV6]:PORT; a link-local address names its interface: fe80::1%wan0; by which interface or from which address it is asked stands behind it: @wan0, @198.51.100.7; encrypted servers (DoT, DoH, DoQ) by way of a stub on this machine, such as \"127.0.0.1:5453\"";
}

/// An upstream server: address, port, the interface of a link-local address, and where questions to it leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Address.
    pub addr: IpAddr,
    /// UDP and TCP port.
    pub port: u16,
    /// Interface of a link-local address (RFC 4007 section 11).
    pub zone: Option<InterfaceName>,
    /// Interface that it is asked by.
    pub interface: Option<InterfaceName>,
    /// Source address of questions to it.
    pub source: Option<IpAddr>,
}

impl UpstreamServer {
    /// The port of DNS over UDP and TCP.
    pub const PORT: u16 = 53;

    /// Its socket address, and the way to it; `index_of` gives the index of an interface.
    ///
    /// `None` if there is no such interface.
    pub fn destination(&self, index_of: impl Fn(&str) -> Option<u32>) -> Option<Destination> {
        let index = |name: &Option<InterfaceName>| match name {
            Some(name) => index_of(name.as_str()),
            None => Some(0),
        };
        let scope = index(&self.zone)?;
        Some(Destination {
            address: match self.addr {
                IpAddr::V4(addr) => SocketAddr::new(addr.into(), self.port),
                IpAddr::V6(addr) => SocketAddrV6::new(addr, self.port, 0, scope).into(),
            },
            egress: Egress {
                interface: index(&self.interface)?,
                source: self.source,
            },
        })
    }

    /// Reads what stands behind the server's `@`: `INTERFACE`, `SOURCE` or `INTERFACE@SOURCE`.
    fn with_egress(self, text: &str) -> Result<Self, String> {
        let (interface, source) = match text.split_once('@') {
            Some((interface, source)) => (Some(interface), Some(source)),
            None if text.parse::<IpAddr>().is_ok() => (None, Some(text)),
            None => (Some(text), None),
        };
        let interface: Option<InterfaceName> = interface.map(str::parse).transpose()?;
        let source = source.map(|source| {
            let address = source.parse().ok().filter(is_of_one_host);
            address.ok_or_else(|| format!("{} is not the address of one host", quoted(source)))
        });
        let source: Option<IpAddr> = source.transpose()?;
        if let Some(source) = source
            && source.is_ipv4() != self.addr.is_ipv4()
        {
            let server = self.addr;
            return Err(format!(
                "{server} cannot be asked from {source}: they are of different families"
            ));
        }
        if self.zone.is_some() && interface.is_some() && interface != self.zone {
            let server = self.addr;
            return Err(format!("{server} is asked by the interface behind its %"));
        }
        if source.is_some_and(is_link_local) && self.zone.is_none() && interface.is_none() {
            return Err(format!(
                "{text} is link-local and does not name its interface: @INTERFACE@{text}"
            ));
        }
        Ok(Self {
            interface,
            source,
            ..self
        })
    }
}

/// True if it can be the address of a socket's one end.
fn is_of_one_host(addr: &IpAddr) -> bool {
    let is_mapped = matches!(addr, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    !(addr.is_unspecified()
        || addr.is_multicast()
        || *addr == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
        || is_mapped)
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

impl FromStr for UpstreamServer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || no_server(text);
        // A port there, with or without a name for TLS, is how others write a server.
        let is_way = |way: &str| !way.contains('#') && parse_port(way).is_none();
        let (server, way) = match text.split_once('@') {
            Some((server, way)) if is_way(way) => (server, Some(way)),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        let (host, port) = split_port(server).ok_or_else(bad)?;
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
        let link_local = is_link_local(addr);
        let server = Self {
            addr,
            port,
            zone,
            interface: None,
            source: None,
        };
        match server.zone.is_some() == link_local {
            true => way.map_or(Ok(server.clone()), |way| server.with_egress(way)),
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
    let brackets = [text.contains('['), text.contains(']')];
    let missing = match brackets {
        [true, false] => Some("the [ in front of the address has no ] behind it"),
        [false, true] => Some("the ] behind the address has no [ in front of it"),
        [true, true] | [false, false] => None,
    };
    if let Some(missing) = missing {
        return format!("{shown} is not a server: {missing}");
    }
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
            IpAddr::V4(addr) => write!(formatter, "{addr}:{}", self.port)?,
            IpAddr::V6(addr) => write!(formatter, "[{addr}{zone}]:{}", self.port)?,
        }
        if let Some(interface) = &self.interface {
            write!(formatter, "@{interface}")?;
        }
        match self.source {
            Some(source) => write!(formatter, "@{source}"),
            None => Ok(()),
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
        let index = |name: &str| (name == "wan0").then_some(7);
        let addr = SocketAddrV6::new("fe80::1".parse().expect("an address"), 53, 0, 7);
        let to = Destination::from(SocketAddr::from(addr));
        assert_eq!(server.destination(index), Some(to));
        assert_eq!(server.destination(|_| None), None);
    }

    #[test]
    fn the_way_to_a_server_stands_behind_it() {
        let index = |name: &str| (name == "wan0").then_some(7);
        for (text, shown, interface, source) in [
            ("192.0.2.1@wan0", "192.0.2.1:53@wan0", 7, None),
            (
                "192.0.2.1:5353@198.51.100.7",
                "192.0.2.1:5353@198.51.100.7",
                0,
                Some("198.51.100.7"),
            ),
            (
                "[2001:db8::1]:53@wan0@2001:db8::7",
                "[2001:db8::1]:53@wan0@2001:db8::7",
                7,
                Some("2001:db8::7"),
            ),
            (
                "2001:db8::1@wan0@fe80::7",
                "[2001:db8::1]:53@wan0@fe80::7",
                7,
                Some("fe80::7"),
            ),
            (
                "fe80::1%wan0@wan0@fe80::7",
                "[fe80::1%wan0]:53@wan0@fe80::7",
                7,
                Some("fe80::7"),
            ),
        ] {
            let server: UpstreamServer = text.parse().expect(text);
            assert_eq!(server.to_string(), shown);
            assert_eq!(shown.parse().as_ref(), Ok(&server));
            let source = source.map(|source| source.parse().expect("an address"));
            let to = server.destination(index).expect("wan0 is there");
            assert_eq!(to.egress, Egress { interface, source }, "{text}");
            let is_bound = interface != 0;
            assert_eq!(server.destination(|_| None).is_none(), is_bound, "{text}");
        }
        for (text, problem) in [
            ("192.0.2.1@", "cannot be the name of an interface"),
            ("192.0.2.1@a/b", "cannot be the name of an interface"),
            ("192.0.2.1@wan0@", "is not the address of one host"),
            ("192.0.2.1@wan0@wan1", "is not the address of one host"),
            ("192.0.2.1@0.0.0.0", "is not the address of one host"),
            ("192.0.2.1@2001:db8::7", "of different families"),
            ("2001:db8::1@192.0.2.7", "of different families"),
            ("2001:db8::1@fe80::7", "does not name its interface"),
            ("fe80::1%wan0@wan1", "by the interface behind its %"),
            ("192.0.2.1@5353", "\"192.0.2.1:5353\""),
            ("192.0.2.1@853#dns.example", "there is no encrypted form"),
        ] {
            let error = text.parse::<UpstreamServer>().expect_err(text);
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
