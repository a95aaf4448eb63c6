//! Tokens of one line, which need not be TOML.

/// Type of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A word without quotes.
    Word,
    /// Quoted text, with its quotes.
    Text,
    /// From an unclosed quote to the end of the line.
    OpenText,
    /// A bracket, a comma and the like.
    Mark,
}

/// A token of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'l> {
    /// Byte offset in the line.
    pub at: usize,
    /// Text as written.
    pub text: &'l str,
    /// Type.
    pub kind: TokenKind,
}

impl Token<'_> {
    /// Byte offset of its end.
    pub const fn end(&self) -> usize {
        self.at + self.text.len()
    }

    /// True if it is this mark.
    pub fn is(&self, mark: &str) -> bool {
        self.kind == TokenKind::Mark && self.text == mark
    }
}

/// Tokens of a line up to its comment.
pub fn of(line: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(char) = line[at..].chars().next() {
        let (kind, len) = match char {
            '#' => break,
            ' ' | '\t' | '\r' | '\n' => {
                at += 1;
                continue;
            }
            '"' | '\'' => match closing(&line[at..], char) {
                Some(len) => (TokenKind::Text, len),
                None => (TokenKind::OpenText, line[at..].trim_end().len()),
            },
            ',' | ';' | '[' | ']' | '{' | '}' | '(' | ')' | '=' => (TokenKind::Mark, 1),
            _ => (TokenKind::Word, word(&line[at..])),
        };
        let text = &line[at..at + len];
        tokens.push(Token { at, text, kind });
        at += len;
    }
    tokens
}

/// Length of the quoted text at the start of `text`, if it is closed.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        if char == quote && !is_escaped {
            return Some(at + 1);
        }
        is_escaped = quote == '"' && char == '\\' && !is_escaped;
    }
    None
}

fn word(text: &str) -> usize {
    text.find([
        ' ', '\t', '\r', '\n', ',', ';', '[', ']', '{', '}', '(', ')', '=', '"', '\'', '#',
    ])
    .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_what_is_not_toml() {
        for (line, expected) in [
            (
                "servers = [9.9.9.9, \"1.1.1.1\", 2620:fe::fe] # x",
                vec![
                    "servers",
                    "=",
                    "[",
                    "9.9.9.9",
                    ",",
                    "\"1.1.1.1\"",
                    ",",
                    "2620:fe::fe",
                    "]",
                ],
            ),
            ("name = 'a b' c", vec!["name", "=", "'a b'", "c"]),
            ("a = \"b\\\"#c\" d", vec!["a", "=", "\"b\\\"#c\"", "d"]),
            ("a = 'b\\' d", vec!["a", "=", "'b\\'", "d"]),
            ("a = \"b ", vec!["a", "=", "\"b"]),
            ("# all of it", vec![]),
            ("ü“x”", vec!["ü“x”"]),
            ("", vec![]),
        ] {
            let found: Vec<&str> = of(line).iter().map(|token| token.text).collect();
            assert_eq!(found, expected, "{line}");
        }
        assert_eq!(of("'a")[0].kind, TokenKind::OpenText);
    }
}
