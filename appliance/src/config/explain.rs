//! Explains invalid text: what was probably meant, by the syntax of other programs.

use std::net::{IpAddr, Ipv4Addr};

use super::written::{bare_address, quoted};
use crate::compile::name;
use crate::compile::prefix::Prefix;

/// A network as in firewalls and other servers.
pub fn network(text: &str) -> Option<String> {
    let shown = quoted(text);
    if ["all", "any", "*", "everyone", "world", "0/0"].contains(&text.to_lowercase().as_str()) {
        return Some(format!(
            "{shown}: everyone is \"0.0.0.0/0\" and \"::/0\"; who is in no list gets what `others` says"
        ));
    }
    if ["local", "localnets", "lan", "localhost"].contains(&text.to_lowercase().as_str()) {
        return Some(format!(
            "{shown}: own networks and this machine are answered by others = \"local\", the default"
        ));
    }
    let meant = masked(text).or_else(|| starred(text))?;
    Some(format!("{shown}: a prefix has a length: \"{meant}\""))
}

/// `192.168.1.0/255.255.255.0`.
fn masked(text: &str) -> Option<Prefix> {
    let (address, mask) = text.split_once(['/', ' '])?;
    let mask: Ipv4Addr = mask.trim().parse().ok()?;
    let len = u32::from(mask).leading_ones();
    let is_mask = u32::from(mask).count_ones() == len;
    let address: Ipv4Addr = address.parse().ok()?;
    let network = Ipv4Addr::from(u32::from(address) & u32::from(mask));
    is_mask.then(|| format!("{network}/{len}").parse().ok())?
}

/// `192.168.1.*`, `192.168.1.`, `192.168.1`.
fn starred(text: &str) -> Option<Prefix> {
    let plain = text.trim_end_matches(['*', '.', 'x']);
    let octets: Vec<&str> = plain.split('.').collect();
    let is_octet = |octet: &&str| octet.parse::<u8>().is_ok();
    if octets.len() > 3 || plain == text && octets.len() < 2 || !octets.iter().all(is_octet) {
        return None;
    }
    let network = format!("{plain}{}", ".0".repeat(4 - octets.len()));
    format!("{network}/{}", octets.len() * 8).parse().ok()
}

/// An address to listen on, or in a record.
pub fn address(text: &str) -> Option<String> {
    let shown = quoted(text);
    Some(match bare_address(text) {
        Some(address) => format!(
            "{shown}: without prefix, port (that is interface.port), zone and brackets: \"{address}\""
        ),
        None => format!("{shown} is not an IP address"),
    })
}

/// A blocked or allowed name, in the syntax of lists.
pub fn filter_name(text: &str) -> Option<String> {
    let shown = quoted(text);
    if let Some(problem) = source(text) {
        return Some(problem);
    }
    if text.starts_with('/') {
        return Some(format!(
            "{shown}: a file belongs into block_files or allow_files"
        ));
    }
    if is_network(text) {
        return Some(format!(
            "{shown} is an address: names are blocked, and clients have their place in [access]"
        ));
    }
    let words = text.split_whitespace().last().unwrap_or_default();
    let plain = words
        .trim_start_matches(['|', '@', '.'])
        .split(['^', '$', '/'])
        .next();
    let plain = plain.filter(|plain| plain.contains('.') && *plain != text)?;
    let is_name = name::parse_host(plain.strip_prefix("*.").unwrap_or(plain)).is_ok();
    is_name.then(|| {
        format!(
            "{shown}: a name alone, with all below it: {}",
            quoted(plain)
        )
    })
}

/// A path that is a URL, has shell syntax, names a folder, or is a word for none.
pub fn path(text: &str) -> Option<String> {
    let shown = quoted(text);
    if let Some(problem) = source(text) {
        return Some(problem);
    }
    if text.starts_with(['~', '$']) {
        return Some(format!("{shown}: a path is written out, from / on"));
    }
    if text.len() > 1 && text.ends_with('/') {
        return Some(format!(
            "{shown} is a folder: the path of a file in it is wanted here"
        ));
    }
    ["false", "no", "off", "none", "null", "-"]
        .contains(&text.to_lowercase().as_str())
        .then(|| format!("{shown}: none is written \"\""))
}

/// A source that would have to be downloaded.
fn source(text: &str) -> Option<String> {
    let is_url = ["http://", "https://", "ftp://", "file://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    is_url.then(|| {
        format!(
            "{}: files of this machine are read, nothing is fetched; have it fetched (curl, wget) into a file of block_files",
            quoted(text)
        )
    })
}

/// True for an address, or a valid or invalid prefix.
pub fn is_network(text: &str) -> bool {
    let address = text.split(['/', '%']).next().unwrap_or_default();
    address.parse::<IpAddr>().is_ok()
}

/// Why text that is meant as a domain or a network is neither a name nor a prefix.
pub fn suffix(text: &str) -> Option<String> {
    let shown = quoted(text);
    if text.is_empty() {
        return Some(format!(
            "{shown} names nothing; a group for all other names has no domains"
        ));
    }
    if is_network(text) {
        let error = text.parse::<Prefix>().err()?;
        return Some(format!("{shown} {error}"));
    }
    // No top-level domain is a number.
    let is_number =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit());
    let last = text.trim_end_matches('.').rsplit('.').next();
    if text.contains('/') || last.is_some_and(is_number) {
        let meant = network(text);
        return Some(meant.unwrap_or_else(|| format!("{shown} is neither a name nor a prefix")));
    }
    no_domain(text)
}

/// Why text is no name that a browser asks a site by.
pub fn http_host(text: &str) -> Option<String> {
    let shown = quoted(text);
    if is_network(text) {
        return Some(format!("{shown} is an address: those are taken anyway"));
    }
    let (_, behind) = text.split_once("://").unwrap_or(("", text));
    let host = behind.split(['/', ':']).next().unwrap_or_default();
    if host.contains('*') {
        return Some(format!("{shown}: each name is written out"));
    }
    let is_more = host != text && name::parse_host(host).is_ok();
    is_more.then(|| format!("{shown} is more than a name: {}", quoted(host)))
}

/// Why text is no domain for names, although it could be a name.
pub fn no_domain(text: &str) -> Option<String> {
    let shown = quoted(text);
    if text == "." {
        return None;
    }
    if let Some(below) = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')) {
        return Some(format!(
            "{shown}: a domain means what is below it, too: {}",
            quoted(below)
        ));
    }
    if is_network(text) {
        return Some(format!("{shown} is an address, a domain is wanted here"));
    }
    let is_odd = |char: &char| char.is_control() || " *|^/@$,;:".contains(*char);
    let odd = text.chars().find(is_odd)?.escape_default();
    Some(format!("{shown} is not a domain: `{odd}` is in none"))
}

/// What was meant by an invalid record.
pub fn record(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let kind = |address: &str| match address.parse().ok()? {
        IpAddr::V4(_) => Some("A"),
        IpAddr::V6(_) => Some("AAAA"),
    };
    let meant = match words.as_slice() {
        ["local-data:", ..] => {
            let inner = text.split_once(':')?.1.trim().trim_matches(['"', '\'']);
            inner.to_owned()
        }
        [address, "A" | "AAAA", name] if kind(address).is_some() => {
            format!("{name} {} {address}", kind(address)?)
        }
        // The owner that was meant is reported already.
        [address, "PTR", ..] if kind(address).is_some() => return None,
        [name, "CNAME", address] => format!("{name} {} {address}", kind(address)?),
        [address, name, ..] if kind(address).is_some() => {
            format!("{name} {} {address}", kind(address)?)
        }
        [name, "=" | "->" | "=>", address] | [name, address] => {
            format!(
                "{} {} {address}",
                name.trim_end_matches([':', '=']),
                kind(address)?
            )
        }
        [one] => slashed(one).or_else(|| {
            let (name, address) = one.split_once(['=', ','])?;
            Some(format!("{name} {} {address}", kind(address)?))
        })?,
        [name, "A", address] if kind(address) == Some("AAAA") => format!("{name} AAAA {address}"),
        [name, "AAAA", address] if kind(address) == Some("A") => format!("{name} A {address}"),
        _ => return None,
    };
    Some(format!(", did you mean {}?", quoted(&meant)))
}

/// dnsmasq's `address=/NAME/ADDRESS`.
fn slashed(word: &str) -> Option<String> {
    let (_, rest) = word.split_once('/')?;
    let (name, address) = rest.split_once('/')?;
    let kind = match address.parse().ok()? {
        IpAddr::V4(_) => "A",
        IpAddr::V6(_) => "AAAA",
    };
    Some(format!("{name} {kind} {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_known_in_the_forms_of_others() {
        for (text, prefix) in [
            ("192.168.1.0/255.255.255.0", Some("192.168.1.0/24")),
            ("192.168.1.7/255.255.255.0", Some("192.168.1.0/24")),
            ("192.168.1.0/255.0.255.0", None),
            ("192.168.1.*", Some("192.168.1.0/24")),
            ("192.168.*.*", Some("192.168.0.0/16")),
            ("10.*", Some("10.0.0.0/8")),
            ("192.168.1", Some("192.168.1.0/24")),
            ("10", None),
            ("1.2.3.4-5", None),
            ("x", None),
        ] {
            let said = network(text);
            let expected =
                prefix.map(|prefix| format!("{text:?}: a prefix has a length: \"{prefix}\""));
            assert_eq!(said, expected, "{text}");
        }
    }

    #[test]
    fn records_are_known_in_the_forms_of_others() {
        for (text, meant) in [
            ("nas.lan 192.0.2.1", Some("nas.lan A 192.0.2.1")),
            ("nas.lan = 192.0.2.1", Some("nas.lan A 192.0.2.1")),
            ("nas.lan=192.0.2.1", Some("nas.lan A 192.0.2.1")),
            ("192.0.2.1 nas.lan nas", Some("nas.lan A 192.0.2.1")),
            ("2001:db8::1 nas.lan", Some("nas.lan AAAA 2001:db8::1")),
            ("address=/nas.lan/192.0.2.1", Some("nas.lan A 192.0.2.1")),
            ("/nas.lan/2001:db8::1", Some("nas.lan AAAA 2001:db8::1")),
            (
                "local-data: \"nas.lan A 192.0.2.1\"",
                Some("nas.lan A 192.0.2.1"),
            ),
            ("nas.lan A 2001:db8::1", Some("nas.lan AAAA 2001:db8::1")),
            ("nas.lan AAAA 192.0.2.1", Some("nas.lan A 192.0.2.1")),
            ("192.0.2.1 A nas.lan", Some("nas.lan A 192.0.2.1")),
            (
                "nas.lan CNAME 2001:db8::1",
                Some("nas.lan AAAA 2001:db8::1"),
            ),
            ("nas.lan CNAME x.lan", None),
            ("192.0.2.1 PTR nas.lan", None),
            ("nas.lan", None),
            ("", None),
            ("nas.lan SOA x", None),
        ] {
            let expected = meant.map(|meant| format!(", did you mean {meant:?}?"));
            assert_eq!(record(text), expected, "{text}");
        }
    }
}
