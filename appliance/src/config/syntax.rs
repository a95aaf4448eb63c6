//! What is wrong with a file that is not TOML, in the words of who wrote it: the parser says where, not what was meant.

use std::net::IpAddr;
use std::ops::Range;

use super::error::{Position, Source};
use super::schema::SECTIONS;
use super::value::quoted;

/// What the parser says of a key or a section that is there already.
const DUPLICATE: &str = "duplicate key";
/// Marks around text that word processors make.
const QUOTES: &[char] = &['"', '\'', '“', '”', '„', '‘', '’', '‚', '«', '»', '`'];

/// Notes the parser's errors, at most one in a line.
pub fn note(source: &mut Source, text: &str, errors: impl Iterator<Item = (Range<usize>, String)>) {
    let mut lines: Vec<usize> = Vec::new();
    let mut merged_until = 0;
    for (place, problem) in errors {
        let line = Position::of(text, place.start).line;
        // Keys of a section that stands twice are merged with those of the first.
        if lines.contains(&line) || place.start < merged_until && problem == DUPLICATE {
            continue;
        }
        lines.push(line);
        let (at, problem) = if problem == DUPLICATE {
            merged_until = end_of_section(text, place.start);
            (place.start, duplicate(text, &place))
        } else {
            unquoted(text, place.start).unwrap_or((place.start, problem))
        };
        source.fault_at(at, "", problem, "");
    }
}

/// Where the section ends whose heading is at `heading`; `heading` itself where none is there.
fn end_of_section(text: &str, heading: usize) -> usize {
    if !is_heading(line_at(text, heading).1) {
        return heading;
    }
    let mut end = heading;
    for line in text[heading..].split_inclusive('\n') {
        if end > heading && is_heading(line) {
            break;
        }
        end += line.len();
    }
    end
}

fn is_heading(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

fn duplicate(text: &str, place: &Range<usize>) -> String {
    let key = text.get(place.clone()).unwrap_or_default();
    let may_repeat = SECTIONS
        .iter()
        .any(|section| section.many && section.name == key);
    if may_repeat && is_heading(line_at(text, place.start).1) {
        let name = |line: &str| line.trim().trim_matches(['[', ']']).trim() == key;
        let first = text.lines().position(|line| is_heading(line) && name(line));
        if let Some(first) = first {
            let first = first + 1;
            return format!(
                "more than one needs double brackets in each place: [[{key}]] here and in line {first}"
            );
        }
    }
    format!("`{key}` stands twice")
}

/// Where the line of `offset` begins, and the line.
fn line_at(text: &str, offset: usize) -> (usize, &str) {
    let start = text.get(..offset).and_then(|before| before.rfind('\n'));
    let start = start.map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    (start, line)
}

/// The word at `offset` that should stand in quotes, or is a number with a unit: where it begins, and what is wrong.
fn unquoted(text: &str, offset: usize) -> Option<(usize, String)> {
    let (start, line) = line_at(text, offset);
    if let Some(problem) = nothing_said(line) {
        return Some((start, problem));
    }
    let (at, word) = bare_words(line).into_iter().find(|(at, word)| {
        let begin = start + at;
        (begin..=begin + word.len()).contains(&offset)
    })?;
    if line[at + word.len()..].trim_start().starts_with('=') {
        return None;
    }
    Some((start + at, bare(line, word)?))
}

/// What is wrong with a comment of other files, or a key without its value.
fn nothing_said(line: &str) -> Option<String> {
    let line = line.trim();
    if line.starts_with([';', '!']) || line.starts_with("//") || line.starts_with("--") {
        return Some("a comment begins with #".to_owned());
    }
    let (key, value) = line.split_once('=')?;
    let is_empty = value.is_empty() || value.trim_start().starts_with('#');
    is_empty.then(|| format!("`{}` has no value behind =", key.trim()))
}

fn bare(line: &str, word: &str) -> Option<String> {
    let plain = word.trim_matches(QUOTES);
    if is_address(plain) {
        return Some(format!("addresses stand in quotes: [{}]", quoted(plain)));
    }
    if plain != word {
        return Some(format!("text stands in straight quotes: {}", quoted(plain)));
    }
    let lower = word.to_ascii_lowercase();
    match lower.as_str() {
        "yes" | "on" | "true" => Some(format!("`{word}` is written true")),
        "no" | "off" | "false" => Some(format!("`{word}` is written false")),
        _ if word.starts_with(|char: char| char.is_ascii_digit()) => {
            let key = line.split('=').next().unwrap_or_default().trim();
            let unit = super::read::unit(key)
                .map(|unit| format!("{}, ", unit.name))
                .unwrap_or_default();
            Some(format!("`{word}`: {unit}an integer without a unit"))
        }
        _ if word.starts_with(|char: char| char.is_alphabetic() || char == '/') => {
            Some(format!("text stands in quotes: {}", quoted(word)))
        }
        _ => None,
    }
}

/// The words of a line that stand outside of quotes, each with its place.
fn bare_words(line: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let (mut begin, mut quote) = (None, None);
    for (at, char) in line.char_indices().chain([(line.len(), '#')]) {
        let is_end = quote.is_some() || " \t\r,[]{}=\"'#".contains(char);
        if let Some(begin) = begin.filter(|_| is_end) {
            words.push((begin, &line[begin..at]));
        }
        begin = if is_end { None } else { begin.or(Some(at)) };
        quote = match (quote, char) {
            (None, '"' | '\'') => Some(char),
            (Some(open), close) if open == close => None,
            (None, '#') => break,
            (quote, _) => quote,
        };
    }
    words
}

/// Whether text is an address, whatever hangs on it: prefix, port, zone.
pub fn is_address(text: &str) -> bool {
    bare_address(text).is_some()
}

/// The address in text that has a prefix, a port, a zone, a name for TLS or brackets, as other programs write them.
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
    fn bare_words_are_those_outside_of_quotes() {
        let words =
            |line| -> Vec<&str> { bare_words(line).into_iter().map(|(_, word)| word).collect() };
        assert_eq!(
            words("servers = [9.9.9.9, \"1.1.1.1\", 2620:fe::fe] # x"),
            ["servers", "9.9.9.9", "2620:fe::fe"]
        );
        assert_eq!(words("name = 'a b' c"), ["name", "c"]);
        assert_eq!(words("# all of it"), [""; 0]);
        assert_eq!(words("x"), ["x"]);
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
