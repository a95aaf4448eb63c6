//! The form of a command, and the parsing of the words after its name.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Command;
use super::flag::{AT_SOCKET, Flag};
use super::hint::did_you_mean;
use crate::text;

/// Default path of the control socket, as in the config.
pub(super) const SOCKET: &str = "/run/xdnsd/control.sock";

/// A command: its usage and the arguments it takes.
pub(super) struct Form {
    pub name: &'static str,
    /// Usage after the name.
    pub usage: &'static str,
    pub about: &'static str,
    /// Additional lines for the help of this command alone.
    pub more: &'static str,
    /// What `--json` prints. Empty if the command has no such option.
    pub json: &'static str,
    pub flags: &'static [Flag],
    /// Arguments as in the usage; the first `least` are required.
    pub arguments: &'static [&'static str],
    pub least: usize,
    /// True if the last argument may be repeated.
    pub is_open: bool,
    pub make: fn(Words) -> Result<Command, String>,
}

/// Template of a command without options and arguments.
pub(super) const BARE: Form = Form {
    name: "",
    usage: "",
    about: "",
    more: "",
    json: "",
    flags: &[],
    arguments: &[],
    least: 0,
    is_open: false,
    make: |_| Ok(Command::Version),
};

/// Words after a command's name, sorted into options and arguments.
pub(super) struct Words {
    pub command: &'static str,
    /// Options by name, with their values, in order.
    pub options: Vec<(&'static str, OsString)>,
    pub arguments: Vec<OsString>,
}

impl Words {
    pub fn option(&mut self, name: &str) -> Option<OsString> {
        let at = self.options.iter().position(|(known, _)| *known == name)?;
        Some(self.options.remove(at).1)
    }

    /// Takes an option whose value is text.
    pub fn text(&mut self, flag: &Flag) -> Result<Option<String>, String> {
        let Some(value) = self.option(flag.name) else {
            return Ok(None);
        };
        let value = value.into_string();
        value
            .map(Some)
            .map_err(|_| format!("{} is not text", flag.name))
    }

    /// Takes the path of the daemon's control socket.
    pub fn socket(&mut self) -> PathBuf {
        let socket = self.option(AT_SOCKET.name);
        socket.unwrap_or_else(|| SOCKET.into()).into()
    }

    /// Takes the first argument; the form has checked that it is there.
    pub fn first(&mut self) -> PathBuf {
        self.arguments.remove(0).into()
    }
}

impl Form {
    /// Usage in one line.
    pub fn line(&self) -> String {
        format!("xdnsd {}{}", self.name, self.usage)
    }

    pub fn in_full(&self) -> String {
        let json = match self.json {
            "" => String::new(),
            json => format!("    --json: {json}\n"),
        };
        format!("{}\n    {}\n{}{json}", self.line(), self.about, self.more)
    }

    fn wrong(&self, what: &str) -> String {
        format!("{} {what}: {}", self.name, self.line())
    }

    /// Tells options from arguments.
    pub fn sort(&self, words: Vec<OsString>) -> Result<Words, String> {
        let mut sorted = Words {
            command: self.name,
            options: Vec::new(),
            arguments: Vec::new(),
        };
        let mut rest = words.into_iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                sorted.arguments.extend(rest.by_ref());
            } else if word.as_encoded_bytes().starts_with(b"-") && word != "-" {
                let option = self.option(&word, &mut rest)?;
                let is_there = sorted
                    .options
                    .iter()
                    .any(|(name, _)| *name == option.0.name);
                if is_there && !option.0.may_repeat {
                    return Err(self.wrong(&format!("has {} twice", option.0.name)));
                }
                sorted.options.push((option.0.name, option.1));
            } else {
                sorted.arguments.push(word);
            }
        }
        self.count(&sorted.arguments)?;
        Ok(sorted)
    }

    /// Reads an option and its value, which follows it or a `=`.
    fn option(
        &self,
        word: &OsString,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<(&'static Flag, OsString), String> {
        let shown = text::bytes(word.as_encoded_bytes());
        let (name, value) = match word.to_str().and_then(|word| word.split_once('=')) {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (word.to_str().unwrap_or_default(), None),
        };
        let Some(flag) = self.flags.iter().find(|flag| flag.name == name) else {
            let known: Vec<&str> = self
                .flags
                .iter()
                .map(|flag| flag.name)
                .chain(["--help"])
                .collect();
            let hint = match name {
                "-c" | "--config" | "-f" | "--file" if self.least > 0 => {
                    ", a FILE stands by itself".to_owned()
                }
                _ => did_you_mean(name, &known),
            };
            return Err(self.wrong(&format!("has no option {shown}{hint}")));
        };
        match (flag.value, value) {
            ("", None) => Ok((flag, OsString::new())),
            ("", Some(_)) => Err(self.wrong(&format!("has {name} without a value"))),
            (what, value) => {
                let is_value = |word: &OsString| !word.as_encoded_bytes().starts_with(b"-");
                let value = value.or_else(|| rest.next().filter(is_value));
                let value = value.filter(|value| !value.is_empty());
                let missing = || self.wrong(&format!("needs a {what} behind {name}"));
                Ok((flag, value.ok_or_else(missing)?))
            }
        }
    }

    /// Checks the number of arguments, and that none is empty.
    fn count(&self, arguments: &[OsString]) -> Result<(), String> {
        if let Some(missing) = self.arguments[..self.least].get(arguments.len()) {
            return Err(self.wrong(&format!("needs {} {missing}", article(missing))));
        }
        if let Some(more) = arguments
            .get(self.arguments.len())
            .filter(|_| !self.is_open)
        {
            let more = text::bytes(more.as_encoded_bytes());
            return Err(self.wrong(&format!("takes no `{more}`")));
        }
        if let Some(at) = arguments.iter().position(|argument| argument.is_empty()) {
            let what = self.arguments[at.min(self.arguments.len() - 1)];
            return Err(self.wrong(&format!("has {} {what} that is empty", article(what))));
        }
        Ok(())
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['I', 'O']) {
        "an"
    } else {
        "a"
    }
}
