//! JSON for programs that parse a command's output: one value, one line.
//!
//! Characters outside ASCII and control characters are escaped (RFC 8259 section 7), so a line is safe to display.

use std::io::{self, Write};

use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// The value in one line of printable ASCII, without a line end.
#[must_use]
pub fn line(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, Ascii);
    // Memory takes everything, and all keys of a value are strings.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(out).unwrap_or_default()
}

/// Writes strings in printable ASCII.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for char in fragment.chars() {
            if matches!(char, ' '..='~') {
                write!(writer, "{char}")?;
            } else {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_text_is_printable_and_read_back_as_it_was() {
        let text = "a \"b\" \\ c/\n\t\u{1b}[31m\u{7f}\u{ad}\u{202e}m\u{fc}nchen \u{1f600}";
        let value = json!({ "text": text, "number": u64::MAX, "none": null, "list": [true] });
        let line = line(&value);
        assert!(
            line.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{line}"
        );
        assert_eq!(crate::text::line(&line), line);
        assert!(
            line.contains(r"\u001b[31m\u007f\u00ad\u202em\u00fcnchen \ud83d\ude00"),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Value>(&line).ok(), Some(value));
    }
}
