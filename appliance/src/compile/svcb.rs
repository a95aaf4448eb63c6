//! RDATA of SVCB and HTTPS records, from presentation format (RFC 9460, dohpath by RFC 9461, ohttp by RFC 9540).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::zonefile::{bounded, decode, decode_list, number_or, parse_name, parse_u16};

/// SvcParamKeys by name.
const KEYS: &[(&str, u16)] = &[
    ("mandatory", key::MANDATORY),
    ("alpn", key::ALPN),
    ("no-default-alpn", key::NO_DEFAULT_ALPN),
    ("port", key::PORT),
    ("ipv4hint", key::IPV4HINT),
    ("ech", key::ECH),
    ("ipv6hint", key::IPV6HINT),
    ("dohpath", key::DOHPATH),
    ("ohttp", key::OHTTP),
];

/// SvcParamKeys (IANA DNS SVCB parameters).
mod key {
    pub(super) const MANDATORY: u16 = 0;
    pub(super) const ALPN: u16 = 1;
    pub(super) const NO_DEFAULT_ALPN: u16 = 2;
    pub(super) const PORT: u16 = 3;
    pub(super) const IPV4HINT: u16 = 4;
    pub(super) const ECH: u16 = 5;
    pub(super) const IPV6HINT: u16 = 6;
    pub(super) const DOHPATH: u16 = 7;
    pub(super) const OHTTP: u16 = 8;
}

/// RDATA from priority, target and parameters such as `alpn=h2,h3`.
///
/// # Errors
/// What is wrong with the words.
pub fn parse(priority: &str, target: &str, params: &[String]) -> Result<Vec<u8>, String> {
    let priority = parse_u16(priority)?;
    let mut rdata = Vec::from(priority.to_be_bytes());
    rdata.extend(parse_name(target)?);
    if priority == 0 && !params.is_empty() {
        return Err("with priority 0 is an alias and takes no parameters".into());
    }
    // In wire form they are in the order of their keys (RFC 9460 section 2.2).
    let mut values = BTreeMap::new();
    for param in params {
        let (name, value) = param
            .split_once('=')
            .map_or((param.as_str(), None), |(name, value)| (name, Some(value)));
        let number = key_number(name).ok_or_else(|| format!("`{name}` is not a parameter"))?;
        if values
            .insert(number, parse_value(number, name, value)?)
            .is_some()
        {
            return Err(format!("has `{name}` twice"));
        }
    }
    check_dependencies(&values)?;
    for (number, value) in values {
        rdata.extend(number.to_be_bytes());
        rdata.extend(
            u16::try_from(value.len())
                .map_err(|_| "has a parameter of more than 65535 bytes")?
                .to_be_bytes(),
        );
        rdata.extend(value);
    }
    bounded(rdata)
}

fn key_number(name: &str) -> Option<u16> {
    let named = KEYS
        .iter()
        .find(|&&(known, _)| known == name)
        .map(|&(_, number)| number);
    named.or_else(|| {
        let digits = name
            .strip_prefix("key")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        // 65535 is reserved (RFC 9460 section 14.3.2).
        digits.parse().ok().filter(|&number| number != u16::MAX)
    })
}

fn parse_value(number: u16, name: &str, value: Option<&str>) -> Result<Vec<u8>, String> {
    let is_flag = matches!(number, key::NO_DEFAULT_ALPN | key::OHTTP);
    let value = match value {
        None if is_flag => return Ok(Vec::new()),
        Some(_) if is_flag => return Err(format!("`{name}` takes no value")),
        // An unknown key may have no value.
        None if number > key::OHTTP => "",
        None => return Err(format!("`{name}` takes a value")),
        Some(value) => value,
    };
    match number {
        key::MANDATORY => parse_mandatory(value),
        key::ALPN => parse_alpn(value),
        key::PORT => Ok(Vec::from(parse_u16(value)?.to_be_bytes())),
        key::IPV4HINT => parse_hints(value, |word| {
            Ok(number_or(word, Ipv4Addr::from_str, "an IPv4 address")?
                .octets()
                .into())
        }),
        key::IPV6HINT => parse_hints(value, |word| {
            Ok(number_or(word, Ipv6Addr::from_str, "an IPv6 address")?
                .octets()
                .into())
        }),
        key::ECH => decode_base64(value).ok_or_else(|| "`ech` takes base64".into()),
        _ => decode(value),
    }
}

fn parse_mandatory(value: &str) -> Result<Vec<u8>, String> {
    let mut keys = Vec::new();
    for name in value.split(',') {
        keys.push(key_number(name).ok_or_else(|| format!("`{name}` is not a parameter"))?);
    }
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("`mandatory` names a parameter twice".into());
    }
    Ok(keys.into_iter().flat_map(u16::to_be_bytes).collect())
}

fn parse_alpn(value: &str) -> Result<Vec<u8>, String> {
    let mut wire = Vec::new();
    for protocol in decode_list(value)? {
        wire.push(
            u8::try_from(protocol.len())
                .map_err(|_| "`alpn` has a protocol of more than 255 bytes")?,
        );
        wire.extend(protocol);
    }
    Ok(wire)
}

fn parse_hints(
    value: &str,
    address: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, String> {
    let addresses: Result<Vec<_>, _> = value.split(',').map(address).collect();
    Ok(addresses?.concat())
}

/// Checks what parameters require of each other (RFC 9460 sections 7.1.1 and 8).
fn check_dependencies(values: &BTreeMap<u16, Vec<u8>>) -> Result<(), String> {
    if values.contains_key(&key::NO_DEFAULT_ALPN) && !values.contains_key(&key::ALPN) {
        return Err("has `no-default-alpn` without `alpn`".into());
    }
    let mandatory = values
        .get(&key::MANDATORY)
        .map(Vec::as_slice)
        .unwrap_or_default();
    for pair in mandatory.chunks_exact(2) {
        let number = u16::from_be_bytes([pair[0], pair[1]]);
        if number == key::MANDATORY || !values.contains_key(&number) {
            return Err("has `mandatory` name a parameter that is not there".into());
        }
    }
    Ok(())
}

/// Base64 with padding (RFC 4648 section 4).
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let sextet = |byte: u8| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let digits = text.trim_end_matches('=');
    if text.is_empty() || !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::new();
    for group in digits.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            bits = bits << 6 | u32::from(sextet(digit)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::zonefile::split;
    use super::*;

    fn rdata(text: &str) -> Result<Vec<u8>, String> {
        let words = split(text).expect("words");
        parse(&words[0], &words[1], &words[2..])
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let value = |pair: &[u8]| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hex")
        };
        digits.chunks(2).map(value).collect()
    }

    /// The vectors of RFC 9460 appendix D.
    #[test]
    fn the_rfcs_vectors() {
        let foo_com = "03666f6f 07657861 6d706c65 03636f6d 00";
        let foo_org = "03666f6f 07657861 6d706c65 036f7267 00";
        let vectors = [
            ("0 foo.example.com.", format!("0000 {foo_com}")),
            ("1 .", "0001 00".into()),
            (
                "16 foo.example.com. port=53",
                format!("0010 {foo_com} 0003 0002 0035"),
            ),
            (
                "1 foo.example.com. key667=hello",
                format!("0001 {foo_com} 029b 0005 68656c6c6f"),
            ),
            (
                "1 foo.example.com. key667=\"hello\\210qoo\"",
                format!("0001 {foo_com} 029b 0009 68656c6c6fd2716f6f"),
            ),
            (
                "1 foo.example.com. ipv6hint=\"2001:db8::1,2001:db8::53:1\"",
                format!(
                    "0001 {foo_com} 0006 0020 20010db8000000000000000000000001 20010db8000000000000000000530001"
                ),
            ),
            (
                "1 example.com. ipv6hint=\"2001:db8:122:344::192.0.2.33\"",
                "0001 076578616d706c65 03636f6d 00 0006 0010 20010db8012203440000 0000c0000221"
                    .into(),
            ),
            (
                "16 foo.example.org. alpn=h2,h3-19 mandatory=ipv4hint,alpn ipv4hint=192.0.2.1",
                format!(
                    "0010 {foo_org} 0000 0004 0001 0004 0001 0009 026832 0568332d3139 0004 0004 c0000201"
                ),
            ),
            (
                "16 foo.example.org. alpn=\"f\\\\\\\\oo\\\\,bar,h2\"",
                format!("0010 {foo_org} 0001 000c 08665c6f6f2c626172 026832"),
            ),
            (
                "16 foo.example.org. alpn=f\\\\\\092oo\\092,bar,h2",
                format!("0010 {foo_org} 0001 000c 08665c6f6f2c626172 026832"),
            ),
        ];
        for (text, expected) in vectors {
            assert_eq!(rdata(text), Ok(hex(&expected)), "{text}");
        }
    }

    #[test]
    fn flags_paths_and_keys_for_encrypted_client_hello() {
        let expected = hex(
            "0001 00 0001 0003 026832 0002 0000 0005 0004 deadbeef 0007 0004 2f717b7d 0008 0000",
        );
        assert_eq!(
            rdata("1 . ohttp ech=3q2+7w== no-default-alpn alpn=h2 dohpath=/q{}"),
            Ok(expected)
        );
    }

    /// The failure cases of RFC 9460 appendix D.3, and ours.
    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("1 foo. key123=abc key123=def", "twice"),
            ("1 foo. mandatory", "takes a value"),
            ("1 foo. alpn", "takes a value"),
            ("1 foo. port", "takes a value"),
            ("1 foo. ipv4hint", "takes a value"),
            ("1 foo. no-default-alpn=abc", "no value"),
            ("1 foo. mandatory=key123", "not there"),
            ("1 foo. mandatory=mandatory", "not there"),
            ("1 foo. mandatory=key123,key123 key123=abc", "twice"),
            ("1 foo. no-default-alpn", "without `alpn`"),
            ("0 foo. port=1", "alias"),
            ("1 foo. port=65536", "65535"),
            ("1 foo. ipv4hint=1.2.3", "IPv4"),
            ("1 foo. ipv6hint=1.2.3.4", "IPv6"),
            ("1 foo. ech=abc", "base64"),
            ("1 foo. alpn=h2,,h3", "empty"),
            ("1 foo. speed=9", "not a parameter"),
            ("1 foo. key65535=x", "not a parameter"),
            ("x foo.", "65535"),
        ];
        for (text, part) in cases {
            let error = rdata(text).expect_err("wrong");
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("Zg==", &b"f"[..]),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["", "Zg", "Z===", "====", "Zm9*"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }
}
