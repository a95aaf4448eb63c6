//! Words of a record in presentation format (RFC 1035 section 5.1, RFC 9460 appendix A).

use std::net::IpAddr;
use std::str::FromStr;

use super::name::{self, unescape};

/// Splits text into words at white space. Quotes keep white space inside a word and are removed; escapes stay for [`decode`],
/// because a list of values is split at its commas first.
///
/// # Errors
/// A quote is not closed, a backslash is the last character, or a `;` stands bare.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' => {
                let escaped = characters.next().ok_or("ends with a backslash")?;
                word.get_or_insert_default().extend(['\\', escaped]);
            }
            ';' if !is_quoted => {
                return Err("has a `;` outside of quotes, where `;` begins a comment in zone files: put the text in quotes".into());
            }
            _ if character.is_ascii_whitespace() && !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if is_quoted {
        return Err("has a quote that is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

/// Decodes a word: `\DDD` is a byte, `\X` the character X.
///
/// # Errors
/// An incomplete escape.
pub fn decode(word: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'\\' {
            let (escaped, behind) =
                unescape(rest).ok_or_else(|| format!("`{word}` has a broken escape"))?;
            bytes.push(escaped);
            rest = behind;
        } else {
            bytes.push(byte);
        }
    }
    Ok(bytes)
}

/// Values of a comma-separated list (RFC 9460 appendix A.1): decoded first, then split, with `\,` and `\\` inside a value.
///
/// # Errors
/// A broken escape, or an empty value.
pub fn decode_list(word: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut values = vec![Vec::new()];
    let decoded = decode(word)?;
    let mut bytes = decoded.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, values.last_mut()) {
            (b',', _) => values.push(Vec::new()),
            (b'\\', Some(value)) => value.push(
                bytes
                    .next()
                    .ok_or_else(|| format!("`{word}` ends with a backslash"))?,
            ),
            (_, Some(value)) => value.push(byte),
            (_, None) => {}
        }
    }
    if values.iter().any(Vec::is_empty) {
        Err(format!("`{word}` has an empty value"))
    } else {
        Ok(values)
    }
}

/// A name inside RDATA. Refuses an address, which would be a name that does not exist, unless it ends with a dot.
pub(super) fn parse_name(text: &str) -> Result<Vec<u8>, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("`{text}` is an address, a name is wanted here"));
    }
    name::parse_written(text).map_err(|error| format!("`{text}` {error}"))
}

/// Parses a word, or describes what was expected.
pub(super) fn number_or<T, E>(
    word: &str,
    parse: fn(&str) -> Result<T, E>,
    what: &str,
) -> Result<T, String> {
    parse(word).map_err(|_| format!("`{word}` is not {what}"))
}

/// A 16-bit number.
pub(super) fn parse_u16(word: &str) -> Result<u16, String> {
    number_or(word, u16::from_str, "a number from 0 to 65535")
}

/// Checks that RDATA is not longer than a record can have.
pub(super) fn bounded(rdata: Vec<u8>) -> Result<Vec<u8>, String> {
    if u16::try_from(rdata.len()).is_ok() {
        Ok(rdata)
    } else {
        Err("is longer than 65535 bytes".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_white_space_outside_quotes() {
        let words = split("a  b\t\"c d\" key=\"x y\"z \"\" e\\ f").expect("words");
        assert_eq!(words, ["a", "b", "c d", "key=x yz", "", "e\\ f"]);
        assert!(split("a \"b").is_err() && split("a\\").is_err());
        assert_eq!(split("  ").expect("words"), Vec::<String>::new());
    }

    #[test]
    fn escapes_are_characters_or_three_digits() {
        assert_eq!(decode("a\\\"b\\065\\255").as_deref(), Ok(&b"a\"bA\xff"[..]));
        assert!(decode("\\25").is_err() && decode("\\").is_err() && decode("\\999").is_err());
    }

    /// RFC 9460 appendix A.1: the two ways to write the same list.
    #[test]
    fn lists_are_decoded_twice() {
        let expected: Vec<Vec<u8>> =
            vec![b"part1".into(), b"part2".into(), b"part3,part4\\".into()];
        assert_eq!(
            decode_list("part1,part2,part3\\\\,part4\\\\\\\\"),
            Ok(expected.clone())
        );
        assert_eq!(
            decode_list("part1\\,\\p\\a\\r\\t2\\044part3\\092,part4\\092\\\\"),
            Ok(expected)
        );
        assert!(decode_list("a,,b").is_err() && decode_list("").is_err());
    }
}
