//! Explains a file that is not TOML in the terms of its author: the parser says where it fails, not what was meant.

mod line;
mod token;

use std::ops::Range;

use super::error::{ConfigText, Position};
use super::hint::heading;
use super::key::ConfigKey;
use super::schema::SECTIONS;
use super::section::Description;
use line::LineError;
pub use line::no_own_name;
use token::TokenKind;

/// Message of the parser for a key or a section that exists already.
const DUPLICATE: &str = "duplicate key";
/// Message of the parser for an element behind another one.
const MISSING_COMMA: &str = "missing comma between array elements";
/// Problem of a text without an end.
const NO_QUOTE: &str = "the text that begins here has no closing quote";
/// Other messages of the parser with ours, for lines that show no problem by themselves.
const WORDS: &[(&str, &str)] = &[
    (MISSING_COMMA, "a comma is missing in front of this"),
    ("unclosed array", "the list has no closing ]"),
    ("invalid basic string", "the text has no closing quote"),
    ("invalid literal string", "the text has no closing quote"),
    (
        "key with no value",
        "a line is KEY = VALUE, or the heading of a section",
    ),
    (
        "invalid key-value pair",
        "a line is KEY = VALUE, or the heading of a section",
    ),
    (
        "unexpected key or value",
        "nothing but a comment stands behind a value",
    ),
    ("string values must be quoted", "text stands in quotes"),
    ("extra comma in array", "one comma too many"),
    (
        "missing escaped value",
        "\\ begins \\\\, \\\", \\n, \\t or \\u0000; in single quotes it is itself",
    ),
    (
        "cannot recurse further",
        "too many brackets within brackets",
    ),
];

/// Notes the parser's errors, at most one in a line.
pub fn note(
    source: &mut ConfigText,
    text: &str,
    errors: impl Iterator<Item = (Range<usize>, String)>,
) {
    let mut lines: Vec<usize> = Vec::new();
    let mut merged_until = 0;
    let open = open_list(text);
    for (place, problem) in errors {
        // Keys of a repeated section are merged with those of the first.
        if place.start < merged_until && problem == DUPLICATE {
            continue;
        }
        let fault = match open {
            // All that follows is parsed as more of the list.
            Some(Open { at, problem }) if place.start > at => Fault::of(text, at, problem.into()),
            _ if problem == DUPLICATE => {
                merged_until = end_of_section(text, place.start);
                Fault {
                    allowed: String::new(),
                    ..Fault::of(text, place.start, duplicate(text, &place))
                }
            }
            _ => Fault::find(text, place.start, &problem),
        };
        let line = Position::of(text, fault.at).line;
        if !lines.contains(&line) {
            lines.push(line);
            source.fault_at(fault.at, &fault.path, fault.problem, fault.allowed);
        }
    }
}

/// A report about one of the parser's errors.
struct Fault {
    at: usize,
    path: String,
    problem: String,
    allowed: String,
}

impl Fault {
    /// A fault at `at`, with the key that the line is about, if it is one of ours.
    fn of(text: &str, at: usize, problem: String) -> Self {
        let (path, allowed) = match key_at(text, at) {
            Some((section, key)) => (format!("{}.{}", section.name, key.name), key.allowed()),
            None => (String::new(), String::new()),
        };
        let allowed = if problem.contains(&allowed) {
            String::new()
        } else {
            allowed
        };
        Self {
            at,
            path,
            problem,
            allowed,
        }
    }

    /// Finds the problem where the parser failed.
    fn find(text: &str, at: usize, problem: &str) -> Self {
        let (start, line) = line_at(text, at);
        let key = key_at(text, at).map(|(_, key)| key);
        if key.is_some_and(|key| key.is_secret) {
            let problem = "the line cannot be read: a list stands in brackets, text in quotes";
            return Self::of(text, at, problem.into());
        }
        if let Some(problem) = missing_comma(line, at - start, problem) {
            return Self::of(text, at, problem);
        }
        if let Some(LineError { at, problem }) = line::wrong(line, at - start, key) {
            return Self::of(text, start + at, problem);
        }
        let ours = WORDS
            .iter()
            .find(|(parsers, _)| problem.starts_with(parsers));
        let problem = ours.map_or(problem, |(_, ours)| ours);
        Self::of(text, at, problem.to_owned())
    }
}

/// A text in quotes without a comma in front, in a list that began in an earlier line: this line is no line of its own.
fn missing_comma(line: &str, at: usize, problem: &str) -> Option<String> {
    if !problem.starts_with(MISSING_COMMA) || is_assignment(line) {
        return None;
    }
    let tokens = token::of(line);
    let is_here = |token: &&token::Token<'_>| token.at == at && token.kind == TokenKind::Text;
    let element = tokens.iter().find(is_here)?;
    Some(format!("a comma is missing in front of {}", element.text))
}

/// Section and key of the line at `offset`, or of the list that the line belongs to.
fn key_at(text: &str, offset: usize) -> Option<(&'static Description, &'static ConfigKey)> {
    let (here, line) = line_at(text, offset);
    let mut start = here + line.len();
    let mut word = None;
    let heading = loop {
        let line = text[..start].rsplit('\n').next()?;
        start -= line.len();
        if is_heading(line) {
            break line;
        }
        if word.is_none() && (start == here || is_open(&text[start..here])) {
            word = first_word(line);
        }
        start = start.checked_sub(1)?;
    };
    let name = name_of(heading);
    let section = SECTIONS.iter().find(|section| section.name == name)?;
    let key = section.keys.iter().find(|key| Some(key.name) == word)?;
    Some((section, key))
}

/// True if a list begins in these lines and does not end in them.
fn is_open(lines: &str) -> bool {
    let tokens = lines.lines().flat_map(token::of);
    tokens.fold(0_u32, |depth, token| match token.text {
        "[" if token.kind == TokenKind::Mark => depth + 1,
        "]" if token.kind == TokenKind::Mark => depth.saturating_sub(1),
        _ => depth,
    }) > 0
}

/// First word of a line, if it can be a key.
fn first_word(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let is_key = |char: char| char.is_ascii_alphanumeric() || "_-".contains(char);
    let end = line.find(|char| !is_key(char)).unwrap_or(line.len());
    (end > 0 && !line.starts_with(|char: char| char.is_ascii_digit())).then_some(&line[..end])
}

/// The word in the brackets of a heading, whatever their number.
fn name_of(heading: &str) -> &str {
    let is_end = |char: char| "[].\" \t".contains(char);
    let word = heading.trim().trim_start_matches('[').trim_start();
    word.split(is_end).next().unwrap_or_default()
}

/// What keeps a list from its end.
#[derive(Clone, Copy)]
struct Open {
    at: usize,
    problem: &'static str,
}

/// The first list that is not closed before another key or section, or the text in it that swallows its end.
fn open_list(text: &str) -> Option<Open> {
    let (mut start, mut depth) = (0, 0_u32);
    let mut open = None;
    for line in text.split_inclusive('\n') {
        if depth > 0 && (is_section(line) || is_assignment(line)) {
            return open;
        }
        let tokens = match is_heading(line) && (depth == 0 || is_section(line)) {
            true => Vec::new(),
            false => token::of(line),
        };
        for token in tokens {
            let at = start + token.at;
            if token.kind == TokenKind::OpenText && depth > 0 {
                // Of several the first: they may be one mistake.
                open = open.filter(|open| open.problem == NO_QUOTE).or(Some(Open {
                    at,
                    problem: NO_QUOTE,
                }));
            } else if token.is("[") {
                if depth == 0 {
                    let problem = "the list has no closing ]";
                    open = Some(Open { at, problem });
                }
                depth += 1;
            } else if token.is("]") {
                depth = depth.max(1) - 1;
            }
        }
        start += line.len();
    }
    open.filter(|_| depth > 0)
}

/// True for the heading of a section of ours.
fn is_section(line: &str) -> bool {
    is_heading(line) && SECTIONS.iter().any(|section| section.name == name_of(line))
}

/// True if it assigns a value to a key of ours.
fn is_assignment(line: &str) -> bool {
    let Some(word) = first_word(line) else {
        return false;
    };
    let keys = SECTIONS.iter().flat_map(|section| section.keys);
    let rest = line.trim_start()[word.len()..].trim_start();
    rest.starts_with('=') && keys.into_iter().any(|key| key.name == word)
}

/// End of the section with its heading at `heading`; `heading` itself if there is none.
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
    let (start, line) = line_at(text, place.start);
    let before = || text[..start].lines().enumerate();
    if is_heading(line) {
        let is_same = |line: &str| is_heading(line) && name_of(line) == key;
        let first = before().find(|(_, line)| is_same(line));
        let first = first.map(|(number, _)| number + 1);
        let may_repeat = SECTIONS
            .iter()
            .any(|section| section.many && section.name == key);
        return match first {
            Some(first) if may_repeat => format!(
                "more than one needs double brackets in each place: {} here and in line {first}",
                heading(key, true)
            ),
            Some(first) => format!("`{key}` stands twice, first in line {first}"),
            None => format!("`{key}` stands twice"),
        };
    }
    let mut first = None;
    for (number, line) in before() {
        if is_heading(line) {
            first = None;
        } else if first_word(line) == Some(key) {
            first = first.or(Some(number + 1));
        }
    }
    match first {
        Some(first) => format!("`{key}` stands twice, first in line {first}"),
        None => format!("`{key}` stands twice"),
    }
}

/// Start of the line at `offset`, and the line.
fn line_at(text: &str, offset: usize) -> (usize, &str) {
    let start = text.get(..offset).and_then(|before| before.rfind('\n'));
    let start = start.map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    (start, line)
}
