//! Escapes text from outside for display: in the log, on a terminal, in answers of the control socket.
//!
//! Names, lines of lists, lease names and paths come from untrusted people and machines. Characters that would move the cursor,
//! change a colour, reverse the direction of writing or begin another line are escaped, here and nowhere else; `json` does the
//! same for JSON.
//!
//! It uses no other wing.

pub mod json;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

/// Why something failed, in one sentence, for the log or a terminal. For errors that no code has to distinguish.
pub type Sentence = String;

/// True if a character may go to a terminal as it is. Escaped are: C0, DEL, C1; bidirectional controls (UAX #9); line and
/// paragraph separators; zero-width characters, tags, and private use.
const fn is_plain(char: char) -> bool {
    !matches!(
        char,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{e0000}'..='\u{10ffff}'
    )
}

/// `1 line`, `2 lines`: for a noun with a plural in s.
#[must_use]
pub fn count(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// `text` in one line, escaped.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        push(&mut out, char);
    }
    Cow::Owned(out)
}

/// `text` with its line breaks, each line escaped.
#[must_use]
pub fn lines(text: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(line).collect();
    lines.join("\n")
}

/// `text` in one line of at most `bytes_max` bytes, escaped, with the number of bytes left out.
#[must_use]
pub fn line_up_to(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max) + 32);
    for (at, char) in text.char_indices() {
        let before = out.len();
        push(&mut out, char);
        if out.len() > bytes_max {
            out.truncate(before);
            let left = text.len() - at;
            let _ = write!(out, "... ({} more)", count(left, "byte"));
            break;
        }
    }
    out
}

/// Text from bytes: invalid UTF-8 is escaped byte by byte.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&line(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A path, byte by byte.
#[must_use]
pub fn path(path: &Path) -> String {
    bytes(path.as_os_str().as_encoded_bytes())
}

fn push(out: &mut String, char: char) {
    let code = u32::from(char);
    // Memory takes everything.
    let _ = match char {
        plain if is_plain(plain) => return out.push(plain),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        _ if code < 0x80 => write!(out, "\\x{code:02x}"),
        _ => write!(out, "\\u{{{code:x}}}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn one_is_not_many() {
        let said = [0, 1, 2].map(|lines| count(lines, "line"));
        assert_eq!(said, ["0 lines", "1 line", "2 lines"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        for (text, shown) in [
            ("nas.lan", "nas.lan"),
            ("größe 日本 ∞", "größe 日本 ∞"),
            (
                "a\x1b[31mb\x1b]0;title\x07",
                "a\\x1b[31mb\\x1b]0;title\\x07",
            ),
            ("a\r\nb\tc\0\x08\x7f", "a\\r\\nb\\tc\\x00\\x08\\x7f"),
            ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
            (
                "a\u{202e}b\u{2066}c\u{200f}\u{61c}",
                "a\\u{202e}b\\u{2066}c\\u{200f}\\u{61c}",
            ),
            (
                "a\u{2028}b\u{2029}\u{feff}\u{200b}",
                "a\\u{2028}b\\u{2029}\\u{feff}\\u{200b}",
            ),
            ("\u{e0041}\u{e000}", "\\u{e0041}\\u{e000}"),
        ] {
            assert_eq!(line(text), shown);
            assert_eq!(bytes(text.as_bytes()), shown);
            assert_eq!(line_up_to(text, 1000), shown);
        }
    }

    /// Unicode's own list is not available here; the standard library's is.
    #[test]
    fn no_control_character_is_ever_plain() {
        for char in (0..=0x10_ffff).filter_map(char::from_u32) {
            assert!(!(char.is_control() && is_plain(char)), "{char:?}");
            let mut buffer = [0; 4];
            let shown = line(char.encode_utf8(&mut buffer));
            assert!(shown.chars().all(is_plain), "{char:?}");
        }
    }

    #[test]
    fn line_breaks_stay_where_lines_were_joined() {
        assert_eq!(lines("a\nb\x1b\r\nc"), "a\nb\\x1b\\r\nc");
    }

    #[test]
    fn a_long_line_is_cut_between_two_characters_and_says_so() {
        assert_eq!(line_up_to("abcdef", 6), "abcdef");
        assert_eq!(line_up_to("abcdefg", 6), "abcdef... (1 byte more)");
        assert_eq!(line_up_to("aüü", 4), "aü... (2 bytes more)");
        let long = "\x1b".repeat(100_000);
        assert_eq!(line_up_to(&long, 9), "\\x1b\\x1b... (99998 bytes more)");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(
            bytes(b"a\xffb\xc3(\xed\xa0\x80"),
            "a\\xffb\\xc3(\\xed\\xa0\\x80"
        );
        let name = Path::new(OsStr::from_bytes(b"/tmp/\xfe\x1b"));
        assert_eq!(path(name), "/tmp/\\xfe\\x1b");
    }
}
