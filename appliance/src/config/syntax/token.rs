//! The tokens of one line, also of one that is not TOML.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Outside of quotes.
    Word,
    /// In quotes, with them.
    Text,
    /// From a quote that nothing closes to the end of the line.
    OpenText,
    /// A bracket, a comma and the like.
    Mark,
}

/// A part of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'l> {
    /// Its first byte in the line.
    pub at: usize,
    /// As it is written.
    pub text: &'l str,
    /// What it is.
    pub kind: TokenKind,
}

impl Token<'_> {
    /// The byte behind it.
    pub const fn end(&self) -> usize {
        self.at + self.text.len()
    }

    /// Whether it is this mark.
    pub fn is(&self, mark: &str) -> bool {
        self.kind == TokenKind::Mark && self.text == mark
    }
}

/// The tokens of a line up to its comment.
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

/// How long the quoted text is that `text` begins with, if it ends.
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
