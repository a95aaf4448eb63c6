//! The words of a command line: options are taken out by name, and what is left over is an error.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};

/// Words that are not used yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments(VecDeque<String>);

impl Arguments {
    /// All words after the command's own.
    pub fn new(words: impl IntoIterator<Item = String>) -> Self {
        Self(words.into_iter().collect())
    }

    /// Takes the next word.
    pub fn next(&mut self) -> Option<String> {
        self.0.pop_front()
    }

    /// The next word, which stays.
    #[must_use]
    pub fn peek(&self) -> Option<&str> {
        self.0.front().map(String::as_str)
    }

    /// Whether a word is among them.
    #[must_use]
    pub fn contains(&self, word: &str) -> bool {
        self.0.iter().any(|other| other == word)
    }

    /// Takes a flag out, wherever it is, and says whether it was there.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|word| word == name);
        at.and_then(|at| self.0.remove(at)).is_some()
    }

    /// Takes an option and its value out, wherever they are.
    pub fn value(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.0.iter().position(|word| word == name) else {
            return Ok(None);
        };
        self.0.remove(at);
        let value = self
            .0
            .remove(at)
            .with_context(|| format!("{name} needs a value"))?;
        Ok(Some(value))
    }

    /// Takes an option and its number out.
    pub fn number(&mut self, name: &str) -> Result<Option<u32>> {
        let Some(value) = self.value(name)? else {
            return Ok(None);
        };
        let number = value
            .parse()
            .with_context(|| format!("{name} {value}: not a number"))?;
        Ok(Some(number))
    }

    /// Takes an option and its number out, which has to be in `range`.
    pub fn number_in(&mut self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        let Some(value) = self.value(name)? else {
            return Ok(None);
        };
        let number = value.parse().ok().filter(|number| range.contains(number));
        let (first, last) = range.into_inner();
        let number = number
            .with_context(|| format!("{name}: a number from {first} to {last}, not {value}"))?;
        Ok(Some(number))
    }

    /// Every word that is left.
    pub fn rest(self) -> impl Iterator<Item = String> {
        self.0.into_iter()
    }

    /// An error that names the first word that nobody took.
    pub fn finish(self) -> Result<()> {
        if let Some(word) = self.0.front() {
            bail!("{word:?} is not understood: `cargo xtask help` lists what is");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_taken_out_wherever_they_are() {
        let mut arguments = arguments("exec --mtu 1400 client --once dig");
        assert_eq!(arguments.number("--mtu").expect("a number"), Some(1400));
        assert!(arguments.flag("--once"));
        assert!(!arguments.flag("--once"));
        assert_eq!(arguments.value("--prefix").expect("absent"), None);
        assert_eq!(arguments.next().as_deref(), Some("exec"));
        assert_eq!(arguments.rest().collect::<Vec<_>>(), ["client", "dig"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = arguments("--mtu").value("--mtu").expect_err("no value");
        assert_eq!(error.to_string(), "--mtu needs a value");
        let error = arguments("--mtu big")
            .number("--mtu")
            .expect_err("no number");
        assert_eq!(error.to_string(), "--mtu big: not a number");
        for wrong in ["0", "9", "-1", "two", "4294967297"] {
            let error = arguments(&format!("--cpus {wrong}"))
                .number_in("--cpus", 1..=8)
                .expect_err("out of range");
            let wanted = format!("--cpus: a number from 1 to 8, not {wrong}");
            assert_eq!(error.to_string(), wanted);
        }
        let both = [1, 8].map(|number| {
            arguments(&format!("--cpus {number}"))
                .number_in("--cpus", 1..=8)
                .expect("in range")
        });
        assert_eq!(both, [Some(1), Some(8)]);
        let error = arguments("tpyo").finish().expect_err("left over");
        assert!(error.to_string().starts_with("\"tpyo\" is not understood"));
        arguments("").finish().expect("nothing is left over");
    }
}
