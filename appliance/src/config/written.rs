//! Text and addresses as people write them: in quotes, and with the suffixes of other programs.

use std::net::IpAddr;

/// `text` as a TOML string.
pub fn quoted(text: &str) -> String {
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

/// True if text is an address, possibly with prefix, port or zone.
pub fn is_address(text: &str) -> bool {
    bare_address(text).is_some()
}

/// The address in text with a prefix, a port, a zone, a name for TLS or brackets, as other programs write it.
pub fn bare_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.split(['/', '%', '#', '@']).next().unwrap_or_default();
    let text = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => text,
    };
    let without_port = || {
        text.rsplit_once(':')
            .filter(|(host, _)| !host.contains(':'))
    };
    text.parse().ok().or_else(|| without_port()?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_quoting() {
        let text = "a\"b\\c\nd";
        let document = format!("text = {}", quoted(text));
        let table: toml::Table = document.parse().expect("TOML");
        assert_eq!(table["text"].as_str(), Some(text));
    }

    #[test]
    fn an_address_is_found_under_what_hangs_on_it() {
        for (text, address) in [
            ("9.9.9.9", Some("9.9.9.9")),
            ("192.168.1.1/24", Some("192.168.1.1")),
            ("192.168.1.1:53", Some("192.168.1.1")),
            ("[fd11::1]", Some("fd11::1")),
            ("[fd11::1]:53", Some("fd11::1")),
            ("fd11::1/64", Some("fd11::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("1.1.1.1#cloudflare-dns.com", Some("1.1.1.1")),
            ("9.9.9.9@853", Some("9.9.9.9")),
            (" 9.9.9.9 ", Some("9.9.9.9")),
            ("10.53.0", None),
            ("dns.quad9.net", None),
            ("", None),
        ] {
            let found = bare_address(text).map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{text}");
        }
    }
}
