//! Records of a zone file (RFC 1035 section 5.1), with the names of their owners as they stand below the zone's apex.

use std::borrow::Cow;

use super::super::rules::{NotARule, parse_address};

/// Maximum length of a record over several lines, in bytes: a longer one has a parenthesis that is not closed.
const RECORD_MAX: usize = 4096;

const NO_RECORD: NotARule = NotARule("not a record of a zone");
const NOT_FOLLOWED: NotARule = NotARule("$INCLUDE and $GENERATE are not followed");
const OUTSIDE: NotARule = NotARule("is not a name of this zone");
const NOT_CLOSED: NotARule = NotARule("has a parenthesis that is not closed");

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its owner below the apex, in lower case. Empty for the apex itself.
    pub owner: String,
    /// Its type, in upper case.
    pub rtype: String,
    /// First word of its RDATA, in lower case.
    pub rdata: String,
}

/// Name of the zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Apex {
    /// No record was read yet.
    #[default]
    Unset,
    /// No line says it: relative names are those below it.
    Unknown,
    /// This name.
    Known(String),
}

/// Reader of a zone's lines.
#[derive(Debug, Default)]
pub struct ZoneLines {
    apex: Apex,
    /// `$ORIGIN`, without its last dot.
    origin: Option<String>,
    /// Owner of the latest record; `None` if it was not in the zone.
    owner: Option<String>,
    /// Parentheses that are open.
    depth: usize,
    /// Beginning of a record whose parentheses are open.
    open: String,
}

/// True if a text begins a zone with this line: a directive, or a SOA record.
#[must_use]
pub fn begins(line: &str) -> bool {
    let mut words = line.trim_start_matches('\u{feff}').split_ascii_whitespace();
    let Some(first) = words.next() else {
        return false;
    };
    if ["$TTL", "$ORIGIN"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(first))
    {
        return true;
    }
    if parse_address(first).is_some() {
        return false;
    }
    let mut words = words.skip_while(|word| is_ttl_or_class(word));
    let is_soa = words
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("SOA"));
    // Its primary server and its mailbox at least.
    is_soa && words.count() >= 2
}

/// TTL and class stand in either order between owner and type.
fn is_ttl_or_class(word: &str) -> bool {
    let is_of_ttl =
        |byte: u8| byte.is_ascii_digit() || b"smhdw".contains(&byte.to_ascii_lowercase());
    let is_ttl =
        word.starts_with(|char: char| char.is_ascii_digit()) && word.bytes().all(is_of_ttl);
    is_ttl
        || ["IN", "CH", "HS", "CS"]
            .iter()
            .any(|class| class.eq_ignore_ascii_case(word))
}

impl ZoneLines {
    /// Reads a line. `None` if no record ends with it.
    ///
    /// # Errors
    /// It is no record of this zone.
    pub fn line(&mut self, line: &str) -> Result<Option<Record>, NotARule> {
        let line = line.trim_start_matches('\u{feff}').trim_end();
        let begins_open = self.depth > 0;
        let text = self.without_comment(line);
        if !begins_open && self.depth == 0 {
            return self.record(&text);
        }
        self.open.push_str(&text);
        self.open.push(' ');
        if self.depth == 0 {
            let whole = std::mem::take(&mut self.open);
            return self.record(&whole);
        }
        if self.open.len() > RECORD_MAX {
            self.depth = 0;
            self.open.clear();
            return Err(NOT_CLOSED);
        }
        Ok(None)
    }

    /// The line without its comment and its parentheses, which are counted.
    fn without_comment<'l>(&mut self, line: &'l str) -> Cow<'l, str> {
        if !line.contains([';', '(', ')']) {
            return Cow::Borrowed(line);
        }
        let mut text = String::with_capacity(line.len());
        let (mut is_quoted, mut is_escaped) = (false, false);
        for char in line.chars() {
            let is_plain = is_quoted || is_escaped;
            match char {
                ';' if !is_plain => break,
                '(' if !is_plain => {
                    self.depth += 1;
                    text.push(' ');
                }
                ')' if !is_plain => {
                    self.depth = self.depth.saturating_sub(1);
                    text.push(' ');
                }
                _ => text.push(char),
            }
            is_quoted ^= char == '"' && !is_escaped;
            is_escaped = char == '\\' && !is_escaped;
        }
        Cow::Owned(text)
    }

    fn record(&mut self, text: &str) -> Result<Option<Record>, NotARule> {
        let mut words = text.split_ascii_whitespace();
        let has_owner = !text.starts_with(|char: char| char.is_ascii_whitespace());
        let Some(first) = words.clone().next() else {
            return Ok(None);
        };
        if has_owner && first.starts_with('$') {
            return self.directive(first, words.nth(1)).map(|()| None);
        }
        let written = words.next().filter(|_| has_owner);
        let mut words = text.split_ascii_whitespace().skip(usize::from(has_owner));
        let rtype = words.find(|word| !is_ttl_or_class(word)).ok_or(NO_RECORD)?;
        let rtype = rtype.to_ascii_uppercase();
        if !rtype.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(NO_RECORD);
        }
        if let Some(written) = written {
            let written = written.to_ascii_lowercase();
            if self.apex == Apex::Unset {
                self.apex = self.first_apex(&written, rtype == "SOA");
            }
            self.owner = self.relative(&written);
        }
        let owner = self.owner.clone().ok_or(OUTSIDE)?;
        let rdata = words.next().unwrap_or_default().to_ascii_lowercase();
        Ok(Some(Record {
            owner,
            rtype,
            rdata,
        }))
    }

    fn directive(&mut self, word: &str, value: Option<&str>) -> Result<(), NotARule> {
        match word.to_ascii_uppercase().as_str() {
            "$TTL" => Ok(()),
            "$ORIGIN" => {
                let origin = value.ok_or(NO_RECORD)?.to_ascii_lowercase();
                self.origin = Some(self.absolute(&origin).ok_or(NO_RECORD)?);
                Ok(())
            }
            "$INCLUDE" | "$GENERATE" => Err(NOT_FOLLOWED),
            _ => Err(NO_RECORD),
        }
    }

    /// The apex, from the owner of the first record.
    fn first_apex(&self, owner: &str, is_soa: bool) -> Apex {
        let of_owner = self.absolute(owner).filter(|_| is_soa);
        let apex = of_owner.or_else(|| self.origin.clone());
        apex.map_or(Apex::Unknown, Apex::Known)
    }

    /// A name without its last dot. `None` if no line says below what it is.
    fn absolute(&self, written: &str) -> Option<String> {
        if let Some(name) = written.strip_suffix('.') {
            return Some(name.to_owned());
        }
        let origin = self.origin.as_deref()?;
        Some(match (written, origin) {
            ("@", _) => origin.to_owned(),
            (_, "") => written.to_owned(),
            (_, _) => format!("{written}.{origin}"),
        })
    }

    /// A name below the apex. `None` if it is not there.
    fn relative(&self, written: &str) -> Option<String> {
        let is_absolute = written.ends_with('.') || self.origin.is_some();
        match &self.apex {
            Apex::Known(apex) if is_absolute => {
                let name = self.absolute(written)?;
                if name == *apex {
                    return Some(String::new());
                }
                match apex.as_str() {
                    "" => Some(name),
                    apex => Some(name.strip_suffix(apex)?.strip_suffix('.')?.to_owned()),
                }
            }
            Apex::Known(_) | Apex::Unknown | Apex::Unset if !is_absolute => Some(match written {
                "@" => String::new(),
                name => name.to_owned(),
            }),
            Apex::Known(_) | Apex::Unknown | Apex::Unset => None,
        }
    }
}
