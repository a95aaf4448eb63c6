//! Explains a line that is not TOML: a comment, a heading, or a key with its value.

use super::super::hint::{self, meant};
use super::super::key::{ConfigKey, unit};
use super::super::schema::{SECTIONS, heading_of};
use super::super::value;
use super::super::written::{is_address, quoted};
use super::token::{self, Token, TokenKind};
use super::{NO_QUOTE, first_word, is_heading};

/// Quotation marks, including those of word processors.
const QUOTES: &[char] = &['"', '\'', '“', '”', '„', '‘', '’', '‚', '«', '»', '`'];
/// Signs that people write between a key and its value.
const SIGNS: &[&str] = &[":=", "=>", "->", "==", "+=", ":"];

/// What begins a comment in other formats.
const COMMENTS: &[&str] = &["//", "--", "/*", "<!--", ";", "!", "%"];
/// What begins one here.
const COMMENT: &str = "a comment begins with #";

/// A problem, and the byte of the line where it is.
#[derive(Debug, PartialEq, Eq)]
pub struct LineError {
    pub at: usize,
    pub problem: String,
}

fn wrong_at(at: usize, problem: impl Into<String>) -> Option<LineError> {
    let problem = problem.into();
    Some(LineError { at, problem })
}

/// Finds the problem in `line`, in which the parser found an error at byte `at`. `key` is the key that the line is about.
pub fn wrong(line: &str, at: usize, key: Option<&ConfigKey>) -> Option<LineError> {
    let trimmed = line.trim_start();
    if let Some(at) = line.trim_end().find('\r') {
        let problem =
            "a carriage return alone does not end a line: save the file with the line ends of Unix";
        return wrong_at(at, problem);
    }
    if begins_comment(trimmed) {
        return wrong_at(line.len() - trimmed.len(), COMMENT);
    }
    let tokens = token::of(line);
    if let Some(found) = odd_character(&tokens).or_else(|| control_character(line)) {
        return Some(found);
    }
    let [first, rest @ ..] = tokens.as_slice() else {
        return None;
    };
    if first.is("=") {
        return wrong_at(first.at, "a key is missing in front of =");
    }
    if is_heading(line) || is_closed_alone(&tokens) {
        return heading(&tokens);
    }
    if first.is("{") || first.is("}") {
        return wrong_at(
            first.at,
            "a section has no braces: it ends where the next begins",
        );
    }
    // A line within a list of several lines begins with its value.
    let is_element = rest.first().is_none_or(|next| next.is(",") || next.is("]"));
    if first.kind != TokenKind::Word || is_element && is_value_of_list(first, key) {
        return value(
            &tokens,
            at,
            key.map(|key| key.name).unwrap_or_default(),
            key,
        );
    }
    assignment(first, rest, at, key)
}

fn begins_comment(text: &str) -> bool {
    COMMENTS.iter().any(|comment| text.starts_with(comment))
}

/// True if the first word of a line is an element of a list, and not a key or section of ours.
fn is_value_of_list(first: &Token, key: Option<&ConfigKey>) -> bool {
    key.is_some_and(|key| key.name != first.text.trim_end_matches(':'))
        && meant(first.text, &section_names()).is_none()
}

fn section_names() -> Vec<&'static str> {
    SECTIONS.iter().map(|section| section.name).collect()
}

/// A character that is invisible, or looks like another one, such as a no-break space.
fn odd_character(tokens: &[Token]) -> Option<LineError> {
    let words = tokens.iter().filter(|token| token.kind == TokenKind::Word);
    let is_odd = |char: char| {
        char.is_control() || !char.is_ascii() && !char.is_alphabetic() && !QUOTES.contains(&char)
    };
    words.into_iter().find_map(|word| {
        let (at, char) = word.text.char_indices().find(|(_, char)| is_odd(*char))?;
        let code = u32::from(char);
        let problem = match char {
            '\0' => "a byte 0: this is no text file".to_owned(),
            _ if char.is_whitespace() => format!("U+{code:04X} is not a plain space"),
            _ => format!("the character U+{code:04X} has no meaning outside of quotes"),
        };
        wrong_at(word.at + at, problem)
    })
}

/// A control character in quotes or in a comment, where TOML allows only tabs.
fn control_character(line: &str) -> Option<LineError> {
    let is_odd = |char: char| char.is_control() && char != '\t';
    let (at, char) = line.char_indices().find(|(_, char)| is_odd(*char))?;
    let code = u32::from(char);
    wrong_at(
        at,
        format!("the control character U+{code:04X} may not stand in a line"),
    )
}

/// True for `name]` without an opening bracket.
fn is_closed_alone(tokens: &[Token]) -> bool {
    match tokens {
        [word, rest @ ..] if !rest.is_empty() => {
            section_names().contains(&word.text) && rest.iter().all(|token| token.is("]"))
        }
        _ => false,
    }
}

fn heading(tokens: &[Token]) -> Option<LineError> {
    let opened = tokens.iter().take_while(|token| token.is("[")).count();
    let inside = &tokens[opened..];
    let end = inside.iter().position(|token| token.is("]"));
    let (inside, rest) = inside.split_at(end.unwrap_or(inside.len()));
    let closed = rest.iter().take_while(|token| token.is("]")).count();
    let start = tokens.first()?.at;
    let Some(name) = inside.first() else {
        return wrong_at(start, "a section is a word in brackets, such as [cache]");
    };
    let name_text = name.text.split(['.', ':']).next().unwrap_or_default();
    let form = meant(name_text.trim_matches(QUOTES), &section_names()).and_then(heading_of);
    let Some(form) = form else {
        return wrong_at(name.at, "a section is a word in brackets, such as [cache]");
    };
    let touch = |two: &[Token]| two[0].end() == two[1].at;
    match (inside.get(1), rest.get(closed)) {
        _ if end.is_none() || opened != closed || opened > 2 => {
            wrong_at(start, format!("brackets that do not match: {form}"))
        }
        (Some(second), _) => wrong_at(second.at, no_own_name(&form, second.text)),
        (None, Some(behind)) => wrong_at(
            behind.at,
            format!("keys stand below {form}, each on a line of its own"),
        ),
        (None, None) if !tokens[..opened].windows(2).all(touch) => {
            wrong_at(start, format!("brackets that do not touch: {form}"))
        }
        (None, None) => None,
    }
}

/// Explains that a section takes no name of its own: `[interface br-lan]`.
pub fn no_own_name(form: &str, name: &str) -> String {
    let name = quoted(name.trim_matches(QUOTES));
    if form.starts_with("[[") {
        format!("a section has no name of its own: {form}, and below it name = {name}")
    } else {
        format!("a section has no name of its own: {form}")
    }
}

fn assignment(
    first: &Token,
    rest: &[Token],
    at: usize,
    key: Option<&ConfigKey>,
) -> Option<LineError> {
    let word = first.text.trim_end_matches(':');
    let of_section = meant(word, &section_names()).and_then(heading_of);
    let Some(next) = rest.first() else {
        if first_word(first.text) != Some(word) {
            // An unknown key: another program's file, which may have secrets in it.
            let problem = "a line is KEY = VALUE, or the heading of a section";
            return wrong_at(first.at, problem);
        }
        return match of_section.filter(|_| key.is_none_or(|key| key.name != word)) {
            Some(form) => wrong_at(first.at, format!("a section begins with {form}")),
            None if first.text.ends_with(':') => wrong_at(first.at, empty(word)),
            None => wrong_at(
                first.at,
                format!(
                    "`{word}` has no value: a line is KEY = VALUE, or the heading of a section"
                ),
            ),
        };
    };
    if next.is("{")
        && let Some(form) = of_section
    {
        return wrong_at(
            first.at,
            format!("a section begins with {form} and has no braces"),
        );
    }
    let behind = first.text.strip_prefix(word).unwrap_or_default().to_owned();
    let sign = behind + &adjacent(rest);
    if let Some(sign) = SIGNS.iter().find(|known| sign.starts_with(*known)) {
        let at = if first.text.len() > word.len() {
            first.at + word.len()
        } else {
            next.at
        };
        return wrong_at(
            at,
            format!("between a key and its value stands =, not {sign}"),
        );
    }
    if !next.is("=") {
        // `no-resolv`, `bogus-priv true`, `server 9.9.9.9`.
        return wrong_at(next.at, format!("= is missing behind `{word}`"));
    }
    if rest.len() == 1 {
        return wrong_at(first.at, empty(word));
    }
    let tokens = &rest[1..];
    let (whole, behind) = tokens.split_at(whole_len(tokens));
    bare(whole, at, word, key)
        .or_else(|| nothing_but_comment(whole, behind, word))
        .or_else(|| order(tokens))
}

/// Number of tokens that form the first complete value; all of them if it does not end.
fn whole_len(tokens: &[Token]) -> usize {
    let mut depth = 0_u32;
    for (index, token) in tokens.iter().enumerate() {
        match token.text {
            "[" if token.kind == TokenKind::Mark => depth += 1,
            "]" if token.kind == TokenKind::Mark && depth == 0 => return index,
            "]" if token.kind == TokenKind::Mark => depth -= 1,
            _ if token.kind == TokenKind::Mark && depth == 0 => return tokens.len(),
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// Finds what follows a complete value and is neither another key nor a mark.
fn nothing_but_comment(whole: &[Token], behind: &[Token], name: &str) -> Option<LineError> {
    let [first, rest @ ..] = behind else {
        return None;
    };
    if first.is(";") && rest.is_empty() || is_key(behind) {
        return None;
    }
    if begins_comment(first.text) {
        return wrong_at(first.at, COMMENT);
    }
    if first.kind == TokenKind::Mark {
        return None;
    }
    if let ([number], Some(unit)) = (whole, unit(name))
        && number.text.bytes().all(|byte| byte.is_ascii_digit())
    {
        let problem = format!(
            "`{} {}`: {}, an integer without a unit",
            number.text, first.text, unit.name
        );
        return wrong_at(number.at, problem);
    }
    wrong_at(first.at, "nothing but a comment stands behind a value")
}

fn empty(word: &str) -> String {
    format!("`{word}` has no value behind =")
}

/// Signs at the beginning without space between them, as one.
fn adjacent(tokens: &[Token]) -> String {
    let mut sign = String::new();
    let mut end = None;
    for token in tokens {
        let is_sign = token.is("=") || token.text.starts_with([':', '>', '-', '+']);
        if !is_sign || end.is_some_and(|end| end != token.at) {
            break;
        }
        sign += token.text;
        end = Some(token.end());
    }
    sign
}

/// Finds the problem in a part of a list.
fn value(tokens: &[Token], at: usize, name: &str, key: Option<&ConfigKey>) -> Option<LineError> {
    bare(tokens, at, name, key).or_else(|| order(tokens))
}

/// Finds the problem in the words of a value, or in its quotes.
fn bare(tokens: &[Token], at: usize, name: &str, key: Option<&ConfigKey>) -> Option<LineError> {
    if let Some(problem) = tokens.iter().find_map(|token| shape(token, tokens)) {
        return Some(problem);
    }
    let is_key = |index: usize| is_key(&tokens[index..]);
    let words = tokens.iter().enumerate();
    let words = words.filter(|(index, token)| token.kind == TokenKind::Word && !is_key(*index));
    let words = words.map(|(_, word)| word);
    let near = words
        .clone()
        .find(|word| (word.at..=word.end()).contains(&at));
    let bare = near.into_iter().chain(words);
    let found = bare.into_iter().find_map(|word| {
        let problem = bare_word(word.text, name, key).filter(|_| !is_scalar(word.text))?;
        wrong_at(word.at, problem)
    });
    if found.is_some() {
        return found;
    }
    if let Some(open) = tokens
        .iter()
        .find(|token| token.kind == TokenKind::OpenText)
    {
        return wrong_at(open.at, NO_QUOTE);
    }
    None
}

/// Finds brackets and braces that form no list.
fn shape(token: &Token, tokens: &[Token]) -> Option<LineError> {
    if token.is("(") || token.is("{") && !tokens.iter().any(|token| token.is("=")) {
        return wrong_at(token.at, "a list stands in square brackets: [ ]");
    }
    None
}

/// True if TOML has such a value without quotes.
fn is_scalar(word: &str) -> bool {
    format!("x = {word}").parse::<toml::Table>().is_ok()
}

/// Finds tokens in the wrong order.
fn order(tokens: &[Token]) -> Option<LineError> {
    let (mut depth, mut has_value) = (0_u32, false);
    let is_list = tokens.first().is_some_and(|token| token.is("["));
    for (index, token) in tokens.iter().enumerate() {
        let is_last = index + 1 == tokens.len();
        let is_whole = has_value && depth == 0;
        match (token.kind, token.text) {
            (TokenKind::Mark, "[") if !is_whole => {
                depth += 1;
                has_value = false;
            }
            (TokenKind::Mark, "]") if depth > 0 => {
                depth -= 1;
                has_value = true;
            }
            (TokenKind::Mark, "]") if is_list => return wrong_at(token.at, "one ] too many"),
            (TokenKind::Mark, "]") => {
                return wrong_at(token.at, "] without the [ that begins the list");
            }
            (TokenKind::Mark, mark @ ("," | ";")) if is_whole && is_last => {
                return wrong_at(token.at, format!("a line ends without `{mark}`"));
            }
            (TokenKind::Mark, ";") => {
                return wrong_at(token.at, "elements are separated by commas");
            }
            (TokenKind::Mark, ",") if is_whole && is_key(tokens.get(index + 1..)?) => {
                return wrong_at(token.at, "each key stands on a line of its own");
            }
            (TokenKind::Mark, ",") if is_whole => {
                let values = tokens.iter().filter(|token| token.kind != TokenKind::Mark);
                let values: Vec<&str> = values.map(|value| value.text).collect();
                let problem = format!("several values stand in brackets: [{}]", values.join(", "));
                return wrong_at(token.at, problem);
            }
            (TokenKind::Mark, ",") => has_value = false,
            _ if is_whole && is_key(&tokens[index..]) => {
                return wrong_at(token.at, "each key stands on a line of its own");
            }
            _ if is_whole => {
                return wrong_at(token.at, "nothing but a comment stands behind a value");
            }
            _ if has_value => {
                return wrong_at(
                    token.at,
                    format!("a comma is missing in front of {}", token.text),
                );
            }
            _ => has_value = true,
        }
    }
    None
}

/// True if a key with a value begins here.
fn is_key(tokens: &[Token]) -> bool {
    matches!(tokens, [word, equals, ..] if word.kind == TokenKind::Word && equals.is("="))
}

/// Explains a word that lacks quotes.
fn bare_word(word: &str, name: &str, key: Option<&ConfigKey>) -> Option<String> {
    let plain = word.trim_matches(QUOTES);
    if is_address(plain) {
        return Some(format!("addresses stand in quotes: [{}]", quoted(plain)));
    }
    if plain != word {
        return Some(format!("text stands in straight quotes: {}", quoted(plain)));
    }
    let is_digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_switch = key.is_none_or(|key| key.kind == value::TomlType::Boolean);
    let unit = || unit(name).map_or_else(String::new, |unit| format!("{}, ", unit.name));
    match word.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" if is_switch => Some(format!("`{word}` is written true")),
        "no" | "off" | "false" if is_switch => Some(format!("`{word}` is written false")),
        _ if is_digits => {
            let number = word.trim_start_matches('0');
            let number = if number.is_empty() { "0" } else { number };
            Some(format!("an integer has no zero in front: {number}"))
        }
        _ if word.starts_with(|char: char| char.is_ascii_digit()) => {
            Some(format!("`{word}`: {}an integer without a unit", unit()))
        }
        _ if key.is_some_and(|key| key.kind == value::TomlType::Integer) => {
            Some(format!("`{word}`: {}an integer", unit()))
        }
        _ if word.starts_with(|char: char| char.is_alphabetic() || "/~._$".contains(char)) => {
            let known = key.map(|key| key.words).unwrap_or_default();
            let known: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            let meant = hint::meant(word, &known).unwrap_or(word);
            Some(format!("text stands in quotes: {}", quoted(meant)))
        }
        _ => None,
    }
}
