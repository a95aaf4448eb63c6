//! Names in presentation format, to the wire form that lookups take.

use std::borrow::Cow;
use std::fmt;

use xdnsd_core::dns::name::LABEL_MAX;
use xdnsd_core::limits::NAME_MAX;

use super::punycode;

/// Why text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameTextError {
    /// No label between two dots, or no text at all.
    EmptyLabel,
    /// A label of more than 63 bytes.
    LabelTooLong,
    /// More than 255 bytes in wire form.
    TooLong,
    /// A letter beyond ASCII. DNS has such names in their `xn--` form (RFC 5890).
    NotAscii,
    /// An incomplete escape after a backslash.
    Escape,
    /// A character that is invalid in a host name.
    NotAHostName,
}

impl fmt::Display for NameTextError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EmptyLabel => "has an empty label",
            Self::LabelTooLong => "has a label of more than 63 bytes",
            Self::TooLong => "is longer than 255 bytes",
            Self::NotAscii => "is not ASCII; write it in its xn-- form",
            Self::Escape => "has a backslash without a character or three digits behind it",
            Self::NotAHostName => "has characters that a host name may not have",
        })
    }
}

/// Parses a name: labels with dots between them, the last dot optional, `.` the root, `\.` and `\DDD` as escapes (RFC 1035
/// section 5.1). Returns the wire form in lower case, root byte included.
///
/// # Errors
/// The text is not a name.
pub fn parse(text: &str) -> Result<Vec<u8>, NameTextError> {
    parse_written(text).map(|name| lower(&name))
}

/// The same name in lower case. Length bytes are at most 63 and so never letters.
#[must_use]
pub fn lower(name: &[u8]) -> Vec<u8> {
    name.to_ascii_lowercase()
}

/// As [`parse`], keeping the letter case.
///
/// # Errors
/// The text is not a name.
pub fn parse_written(text: &str) -> Result<Vec<u8>, NameTextError> {
    if text == "." {
        return Ok(vec![0]);
    }
    let mut wire = Vec::with_capacity(text.len() + 2);
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        rest = parse_label(rest, &mut wire)?;
    }
    if wire.is_empty() {
        return Err(NameTextError::EmptyLabel);
    }
    wire.push(0);
    if wire.len() > NAME_MAX {
        Err(NameTextError::TooLong)
    } else {
        Ok(wire)
    }
}

/// Appends the first label to `wire` and returns the text after its dot.
fn parse_label<'t>(mut rest: &'t [u8], wire: &mut Vec<u8>) -> Result<&'t [u8], NameTextError> {
    let start = wire.len();
    wire.push(0);
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'.' => break,
            b'\\' => rest = parse_escape(behind, wire)?,
            0x80.. => return Err(NameTextError::NotAscii),
            _ => wire.push(byte),
        }
    }
    let len = wire.len() - start - 1;
    match len {
        0 => Err(NameTextError::EmptyLabel),
        1..=LABEL_MAX => {
            wire[start] = len as u8;
            Ok(rest)
        }
        _ => Err(NameTextError::LabelTooLong),
    }
}

/// Appends the escaped byte and returns the text after it.
fn parse_escape<'t>(rest: &'t [u8], wire: &mut Vec<u8>) -> Result<&'t [u8], NameTextError> {
    let (byte, rest) = unescape(rest).ok_or(NameTextError::Escape)?;
    wire.push(byte);
    Ok(rest)
}

/// Parses an escape after its backslash: three digits, or the character itself (RFC 1035 section 5.1).
pub(super) fn unescape(rest: &[u8]) -> Option<(u8, &[u8])> {
    let (&first, behind) = rest.split_first()?;
    if !first.is_ascii_digit() {
        return Some((first, behind));
    }
    let (digits, behind) = rest.split_at_checked(3)?;
    let value = digits.iter().try_fold(0u16, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + u16::from(digit - b'0'))
    })?;
    Some((u8::try_from(value).ok()?, behind))
}

/// Parses a host name: letters, digits, hyphens and underscores between the dots (RFC 1123, and names that real devices have).
/// Letters beyond ASCII are converted to their `xn--` form.
///
/// # Errors
/// The text is not a host name.
pub fn parse_host(text: &str) -> Result<Vec<u8>, NameTextError> {
    parse_host_written(text).map(|name| lower(&name))
}

/// As [`parse_host`], keeping the letter case.
///
/// # Errors
/// The text is not a host name.
pub fn parse_host_written(text: &str) -> Result<Vec<u8>, NameTextError> {
    let ascii = if text.is_ascii() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(punycode::to_ascii(text).ok_or(NameTextError::NotAscii)?)
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if ascii.bytes().all(is_host) {
        parse_written(&ascii)
    } else {
        Err(NameTextError::NotAHostName)
    }
}

/// The name `label.parent`; `None` if it is too long.
#[must_use]
pub fn child(label: &[u8], parent: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(label.len() + parent.len() + 1);
    name.push(
        u8::try_from(label.len())
            .ok()
            .filter(|&len| usize::from(len) <= LABEL_MAX)?,
    );
    name.extend_from_slice(label);
    name.extend_from_slice(parent);
    (name.len() <= NAME_MAX).then_some(name)
}

/// Parent of a name; `None` for the root.
#[must_use]
pub fn parent(name: &[u8]) -> Option<&[u8]> {
    let len = usize::from(*name.first()?);
    if len == 0 { None } else { name.get(1 + len..) }
}

/// First label of a name, and the rest; `None` for the root.
#[must_use]
pub fn cut_label(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = name.split_first()?;
    rest.split_at_checked(usize::from(len)).filter(|_| len > 0)
}

/// Presentation format of a name in wire form.
#[must_use]
pub fn display(name: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((&len, behind)) = rest.split_first() {
        let (label, behind) = behind
            .split_at_checked(usize::from(len))
            .unwrap_or_default();
        for &byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(byte)]),
                0x21..=0x7e => text.push(char::from(byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        if !label.is_empty() {
            text.push('.');
        }
        rest = behind;
    }
    if text.is_empty() { ".".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_lower_case_wire_form() {
        let cases: [(&str, &[u8]); 7] = [
            ("WWW.Example.org", b"\x03www\x07example\x03org\0"),
            ("www.example.org.", b"\x03www\x07example\x03org\0"),
            (".", b"\0"),
            ("nas", b"\x03nas\0"),
            ("a\\.b.c", b"\x03a.b\x01c\0"),
            ("\\097\\000.x", b"\x02a\0\x01x\0"),
            ("_http._tcp.lan", b"\x05_http\x04_tcp\x03lan\0"),
        ];
        for (text, wire) in cases {
            assert_eq!(parse(text).as_deref(), Ok(wire), "{text}");
        }
    }

    #[test]
    fn the_letter_case_can_be_kept() {
        let written = parse_written("My\\032TV.\\065b.LAN").expect("a name");
        assert_eq!(written, b"\x05My TV\x02Ab\x03LAN\0");
        assert_eq!(lower(&written), b"\x05my tv\x02ab\x03lan\0");
        assert_eq!(
            parse_host_written("NAS.Lan").as_deref(),
            Ok(&b"\x03NAS\x03Lan\0"[..])
        );
    }

    #[test]
    fn what_is_not_a_name_says_why() {
        let cases = [
            ("", NameTextError::EmptyLabel),
            ("..", NameTextError::EmptyLabel),
            ("a..b", NameTextError::EmptyLabel),
            (".a", NameTextError::EmptyLabel),
            ("münchen.example", NameTextError::NotAscii),
            ("a\\", NameTextError::Escape),
            ("a\\25", NameTextError::Escape),
            ("a\\256", NameTextError::Escape),
            ("a\\2x5", NameTextError::Escape),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse(&"a".repeat(64)), Err(NameTextError::LabelTooLong));
        assert_eq!(parse(&"a.".repeat(128)), Err(NameTextError::TooLong));
        assert!(parse(&"a".repeat(63)).is_ok() && parse(&"a.".repeat(127)).is_ok());
    }

    #[test]
    fn host_names_are_narrower_than_names() {
        assert!(parse_host("My_Phone-2.lan").is_ok());
        for text in ["bob's", "a b", "a\\.b", "*.lan", "x/y"] {
            assert_eq!(parse_host(text), Err(NameTextError::NotAHostName), "{text}");
        }
        assert_eq!(parse_host("e\u{301}"), Err(NameTextError::NotAscii));
        assert_eq!(
            parse_host("É.example").as_deref(),
            Ok(&b"\x07xn--9ca\x07example\0"[..])
        );
    }

    #[test]
    fn what_is_displayed_is_read_back() {
        for text in ["www.example.org.", ".", "a\\.b.c.", "\\000\\255\\\\.x."] {
            let wire = parse(text).expect("a name");
            assert_eq!(display(&wire), text);
        }
    }

    #[test]
    fn children_and_parents() {
        assert_eq!(
            child(b"nas", b"\x03lan\0").as_deref(),
            Some(&b"\x03nas\x03lan\0"[..])
        );
        assert_eq!(child(&[b'a'; 64], b"\0"), None);
        assert_eq!(
            child(b"a", &parse(&"a.".repeat(127)).expect("a name")),
            None
        );
        assert_eq!(parent(b"\x03nas\x03lan\0"), Some(&b"\x03lan\0"[..]));
        assert_eq!(parent(b"\0"), None);
    }
}
