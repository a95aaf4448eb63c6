//! What `deny.toml` says of licences, duplicates, bans and sources, held against the crates of the tree without cargo-deny.
//!
//! Advisories need a database, which `cargo deny check advisories` fetches. A key that is not read here is cargo-deny's alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use toml::{Table, Value};

use super::Source;
use crate::workspace;
use xdnsd_lab::process::output_of;

/// The rules, at the top of the repository.
const FILE: &str = "deny.toml";

/// A crate of the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    /// SPDX expression; empty if its manifest has none.
    licence: String,
}

/// A crate that nobody may use but `wrappers`.
#[derive(Debug, PartialEq, Eq)]
struct Ban {
    name: String,
    reason: String,
    wrappers: Vec<String>,
}

/// What is read of the file.
#[derive(Debug, Default)]
struct Rules {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    registries: Vec<String>,
    /// `name@version`, the version as far as it counts.
    skipped: Vec<String>,
    bans: Vec<Ban>,
}

/// Every breach of the rules in the tree.
pub fn breaches(sources: &[Source]) -> Vec<String> {
    let Some(file) = sources.iter().find(|source| source.path == Path::new(FILE)) else {
        return vec![format!("there is no {FILE}")];
    };
    let found = Rules::parse(&file.text).context(FILE).and_then(look);
    found.unwrap_or_else(|error| vec![format!("{error:#}")])
}

fn look(rules: Rules) -> Result<Vec<String>> {
    let mut crates = BTreeSet::new();
    for target in &rules.targets {
        crates.extend(crates_for(target)?);
    }
    let lock = workspace::root().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    let mut wrong = rules.wrong_licences(&crates);
    wrong.extend(rules.duplicates(&crates));
    wrong.extend(rules.foreign_sources(&lock));
    for ban in &rules.bans {
        for one in crates.iter().filter(|one| one.name == ban.name) {
            wrong.extend(ban.breach(one, &users_of(one)?));
        }
    }
    Ok(wrong)
}

/// Crates that are compiled for this target, those of tests and of every feature included.
fn crates_for(target: &str) -> Result<BTreeSet<Crate>> {
    let mut cargo = workspace::cargo();
    cargo.args(["tree", "--locked", "--workspace", "--all-features"]);
    cargo.args(["--edges", "all", "--prefix", "none"]);
    cargo.args(["--format", "{p}|{l}", "--target", target]);
    Ok(output_of(&mut cargo)?.lines().filter_map(parse).collect())
}

/// Names of the crates that use this one.
fn users_of(one: &Crate) -> Result<BTreeSet<String>> {
    let mut cargo = workspace::cargo();
    cargo.args(["tree", "--locked", "--workspace", "--all-features"]);
    cargo.args(["--edges", "all", "--prefix", "none", "--depth", "1"]);
    cargo.args(["--format", "{p}|{l}", "--target", "all", "--invert"]);
    cargo.arg(format!("{}@{}", one.name, one.version));
    let users = output_of(&mut cargo)?;
    let users = users.lines().filter_map(parse).map(|user| user.name);
    Ok(users.filter(|name| *name != one.name).collect())
}

/// Parses a line `NAME vVERSION (what else)|LICENCE (*)`.
fn parse(line: &str) -> Option<Crate> {
    let (crate_, licence) = line.split_once('|')?;
    let mut words = crate_.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some(Crate {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.trim_end_matches("(*)").trim().to_owned(),
    })
}

impl Ban {
    /// A line if somebody uses the crate who may not.
    fn breach(&self, one: &Crate, users: &BTreeSet<String>) -> Option<String> {
        let others: Vec<_> = users
            .iter()
            .filter(|user| !self.wrappers.contains(user))
            .map(String::as_str)
            .collect();
        (!others.is_empty()).then(|| {
            let (name, by, reason) = (&one.name, others.join(", "), &self.reason);
            format!("{name} is banned ({reason}), and used by {by}")
        })
    }
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let file: Table = text.parse()?;
        let list = |table: &str, key: &str| -> Result<Vec<Value>> {
            let list = file.get(table).and_then(|table| table.get(key));
            let list = list.with_context(|| format!("[{table}] has no {key}"))?;
            list.as_array()
                .cloned()
                .with_context(|| format!("[{table}] {key} is no list"))
        };
        let words =
            |table: &str, key: &str| list(table, key)?.iter().map(word).collect::<Result<_>>();
        let of_each = |value: &Value, key: &str| -> Result<String> {
            let found = value.get(key).and_then(Value::as_str);
            found
                .map(str::to_owned)
                .with_context(|| format!("{value:?}: no {key}"))
        };
        let mut rules = Self {
            targets: words("graph", "targets")?,
            licences: words("licenses", "allow")?.into_iter().collect(),
            registries: words("sources", "allow-registry")?,
            ..Self::default()
        };
        ensure!(!rules.targets.is_empty(), "[graph] targets is empty");
        for skipped in list("bans", "skip")? {
            of_each(&skipped, "reason")?;
            rules.skipped.push(of_each(&skipped, "crate")?);
        }
        for ban in list("bans", "deny")? {
            let wrappers = ban.get("wrappers").and_then(Value::as_array);
            rules.bans.push(Ban {
                name: of_each(&ban, "crate")?,
                reason: of_each(&ban, "reason")?,
                wrappers: wrappers
                    .into_iter()
                    .flatten()
                    .map(word)
                    .collect::<Result<_>>()?,
            });
        }
        Ok(rules)
    }

    fn wrong_licences(&self, crates: &BTreeSet<Crate>) -> Vec<String> {
        let wrong = crates.iter().filter_map(|one| {
            let Crate {
                name,
                version,
                licence,
            } = one;
            match self.allows(licence) {
                Ok(true) => None,
                Ok(false) => Some(format!("{name} {version}: licence {licence}")),
                Err(error) => Some(format!("{name} {version}: {error:#}")),
            }
        });
        wrong.collect()
    }

    /// True if an SPDX expression can be met with the licences that are allowed. `AND` binds more tightly than `OR`, which old
    /// manifests write as a slash.
    fn allows(&self, licence: &str) -> Result<bool> {
        let spaced = licence.replace('/', " OR ");
        let spaced = spaced.replace(" WITH ", "+WITH+");
        let spaced = spaced.replace('(', " ( ").replace(')', " ) ");
        let (mut values, mut waiting) = (Vec::new(), Vec::new());
        // Each operator waits until what binds as tightly before it is done.
        for token in spaced.split_whitespace() {
            match token {
                "(" => waiting.push(token),
                ")" => {
                    while waiting.last().is_some_and(|top| *top != "(") {
                        apply(&mut values, waiting.pop())?;
                    }
                    ensure!(
                        waiting.pop().is_some(),
                        "licence {licence:?}: one ) too many"
                    );
                }
                "AND" | "OR" => {
                    while waiting
                        .last()
                        .is_some_and(|top| *top == "AND" || *top == token)
                    {
                        apply(&mut values, waiting.pop())?;
                    }
                    waiting.push(token);
                }
                name => values.push(self.licences.contains(&name.replace('+', " "))),
            }
        }
        while let Some(operator) = waiting.pop() {
            apply(&mut values, Some(operator))?;
        }
        match values[..] {
            [allowed] => Ok(allowed),
            _ => bail!("licence {licence:?} is no expression"),
        }
    }

    /// Crates in several versions without being skipped, and what is skipped in vain.
    fn duplicates(&self, crates: &BTreeSet<Crate>) -> Vec<String> {
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for one in crates {
            versions.entry(&one.name).or_default().insert(&one.version);
        }
        let is_skipped = |skipped: &str, name: &str, version: &str| {
            skipped.split_once('@').is_some_and(|(crate_, begins)| {
                let rest = version.strip_prefix(begins);
                crate_ == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let mut wrong = Vec::new();
        for skipped in &self.skipped {
            let is_it = |one: &Crate| {
                is_skipped(skipped, &one.name, &one.version)
                    && versions[one.name.as_str()].len() > 1
            };
            if !crates.iter().any(is_it) {
                wrong.push(format!("{skipped} is skipped, and no duplicate"));
            }
        }
        for (name, versions) in &versions {
            let counts = |version: &&&str| {
                !self
                    .skipped
                    .iter()
                    .any(|skipped| is_skipped(skipped, name, version))
            };
            let left: Vec<&str> = versions.iter().filter(counts).copied().collect();
            if left.len() > 1 {
                wrong.push(format!(
                    "{name} is there {} times: {}",
                    left.len(),
                    left.join(", ")
                ));
            }
        }
        wrong
    }

    /// Crates of the lock file that come from elsewhere than the registries that are allowed.
    fn foreign_sources(&self, lock: &str) -> Vec<String> {
        let sources = lock
            .lines()
            .filter_map(|line| line.strip_prefix("source = \"")?.strip_suffix('"'));
        let is_foreign = |source: &&str| {
            let registry = source.strip_prefix("registry+");
            !registry.is_some_and(|registry| self.registries.iter().any(|known| known == registry))
        };
        sources
            .filter(is_foreign)
            .map(|source| format!("Cargo.lock: {source}"))
            .collect()
    }
}

/// Replaces the last two values by what the operator makes of them.
fn apply(values: &mut Vec<bool>, operator: Option<&str>) -> Result<()> {
    let (Some(second), Some(first)) = (values.pop(), values.pop()) else {
        bail!("an operator without two licences");
    };
    values.push(match operator {
        Some("AND") => first && second,
        Some("OR") => first || second,
        Some(_) | None => bail!("a ( that does not end"),
    });
    Ok(())
}

fn word(value: &Value) -> Result<String> {
    let word = value.as_str().map(str::to_owned);
    word.with_context(|| format!("{value:?} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAYS: &str = r#"
[graph]
targets = ["x86_64-unknown-linux-gnu"]
[licenses]
allow = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"]
[bans]
skip = [{ crate = "old@0.2", reason = "another's" }]
deny = [{ crate = "bad", reason = "slow", wrappers = ["oracle"] }]
[sources]
allow-registry = ["https://index.example"]
"#;

    fn rules() -> Rules {
        Rules::parse(SAYS).expect("valid rules")
    }

    fn crates(of: &[(&str, &str)]) -> BTreeSet<Crate> {
        let crates = of.iter().map(|(name, version)| Crate {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            licence: "MIT".to_owned(),
        });
        crates.collect()
    }

    #[test]
    fn a_licence_is_met_by_what_is_allowed() {
        let rules = rules();
        for (licence, allowed) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("GPL-3.0 AND ISC OR MIT", true),
            ("MIT OR GPL-3.0 AND ISC", true),
            ("(MIT OR GPL-3.0) AND ISC", false),
            ("(ISC OR MIT) AND Zlib", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MIT WITH LLVM-exception", false),
        ] {
            assert_eq!(rules.allows(licence).ok(), Some(allowed), "{licence}");
        }
        for wrong in ["", "MIT Zlib", "MIT OR", "(MIT", "MIT)", "AND"] {
            assert!(rules.allows(wrong).is_err(), "{wrong:?}");
        }
        let mut crates = crates(&[("a", "1.0.0")]);
        assert!(rules.wrong_licences(&crates).is_empty());
        crates.extend(parse("b v2.0.0 (proc-macro)|GPL-3.0 (*)"));
        assert_eq!(rules.wrong_licences(&crates), ["b 2.0.0: licence GPL-3.0"]);
    }

    #[test]
    fn a_second_version_is_skipped_by_name_or_told_of() {
        let told = |of: &[(&str, &str)]| rules().duplicates(&crates(of));
        let skipped = [("old", "0.2.8"), ("old", "0.3.1")];
        assert!(told(&skipped).is_empty());
        let with = |more: (&'static str, &'static str)| told(&[skipped[0], skipped[1], more]);
        assert_eq!(
            with(("old", "0.20.0")),
            ["old is there 2 times: 0.20.0, 0.3.1"]
        );
        assert_eq!(
            told(&[("old", "0.2.8")]),
            ["old@0.2 is skipped, and no duplicate"]
        );
    }

    #[test]
    fn a_banned_crate_is_for_its_wrappers_alone() {
        let (rules, bad) = (rules(), crates(&[("bad", "1.0.0")]));
        let told = |users: &[&str]| {
            let users = users.iter().map(|user| (*user).to_owned()).collect();
            let bad = bad.first().expect("one crate");
            rules.bans[0].breach(bad, &users)
        };
        assert_eq!(told(&["oracle"]), None);
        let other = told(&["oracle", "xdnsd"]).expect("a breach");
        assert_eq!(other, "bad is banned (slow), and used by xdnsd");
    }

    #[test]
    fn crates_come_from_the_registry() {
        let known = "source = \"registry+https://index.example\"\n";
        assert!(rules().foreign_sources(known).is_empty());
        for other in [
            "registry+https://other.example",
            "git+https://index.example",
        ] {
            let lock = format!("{known}source = \"{other}\"\n");
            let told = rules().foreign_sources(&lock);
            assert_eq!(told, [format!("Cargo.lock: {other}")]);
        }
    }

    #[test]
    fn rules_without_a_part_or_a_reason_are_none() {
        let without = |part: &str| Rules::parse(&SAYS.replace(part, ""));
        assert!(without("\"x86_64-unknown-linux-gnu\"").is_err());
        assert!(
            without("allow = [\"MIT\", \"Zlib\", \"Apache-2.0 WITH LLVM-exception\"]").is_err()
        );
        assert!(without(", reason = \"another's\"").is_err());
        assert!(without("reason = \"slow\", ").is_err());
    }
}
