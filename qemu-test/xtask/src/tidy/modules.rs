//! Dependencies between a package's modules, from paths in the code, without tests.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;

/// Most re-exports that are followed in a chain.
const EXPORTS_MAX: usize = 8;

/// The modules of one package. A module is named by its path from the package's root; the root itself is the empty name, and
/// `main.rs` beside a library is `main`.
pub struct Modules {
    /// Names that each module uses, from the root on.
    used: BTreeMap<String, Vec<String>>,
    /// Re-exports of items of a submodule: from the name there to the item's own name.
    exports: BTreeMap<String, String>,
}

impl Modules {
    /// Parses the modules in `folder`, whose package is called `package` in its own `main.rs`.
    pub fn read(sources: &[Source], folder: &str, package: &str) -> Self {
        let mut texts: BTreeMap<String, Code> = BTreeMap::new();
        for source in sources.iter().filter(|source| source.is_rust()) {
            let path = source.path.to_string_lossy();
            let below = path.strip_prefix(folder).and_then(|p| p.strip_prefix('/'));
            if let Some(below) = below.filter(|_| !source.is_all_tests()) {
                texts.insert(module_of(below), Code::of(&source.text));
            }
        }
        let of_tests = texts.iter().flat_map(|(module, code)| {
            let names = code.test_modules.iter();
            names.map(move |name| join(module, name))
        });
        for name in of_tests.collect::<Vec<_>>() {
            texts.remove(&name);
        }
        let names: BTreeSet<&String> = texts.keys().collect();
        let (mut used, mut exports) = (BTreeMap::new(), BTreeMap::new());
        for (module, code) in &texts {
            let mut of_module = Vec::new();
            for path in code.uses.iter().flat_map(|tree| expand(tree)) {
                let first = path.split("::").next().unwrap_or_default();
                if names.contains(&join(module, first)) {
                    let last = path.rsplit("::").next().unwrap_or_default();
                    exports.insert(join(module, last), join(module, &path));
                }
                of_module.extend(absolute(module, &path, package));
            }
            let paths = code.paths.iter();
            of_module.extend(paths.filter_map(|path| absolute(module, path, package)));
            used.insert(module.clone(), of_module);
        }
        Self { used, exports }
    }

    /// Modules with submodules, the root included.
    pub fn folders(&self) -> BTreeSet<&str> {
        let modules = self.used.keys();
        let parents = modules.filter_map(|module| Some(module.rsplit_once("::")?.0));
        parents.chain([""]).collect()
    }

    /// The parts of `folder`, each with the other parts that it uses, submodules included.
    pub fn arrows(&self, folder: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, used) in &self.used {
            let Some(part) = part_of(module, folder) else {
                continue;
            };
            let targets = used.iter().filter_map(|name| self.module_behind(name));
            let parts = targets.filter_map(|module| part_of(module, folder));
            let others = parts.filter(|other| *other != part).map(str::to_owned);
            arrows.entry(part.to_owned()).or_default().extend(others);
        }
        arrows
    }

    /// The module that defines `name`.
    fn module_behind(&self, name: &str) -> Option<&str> {
        let mut name = name.to_owned();
        for _ in 0..EXPORTS_MAX {
            let exported = prefixes(&name).find_map(|prefix| {
                let own = self.exports.get(prefix).filter(|own| *own != prefix)?;
                Some(own.clone() + &name[prefix.len()..])
            });
            match exported {
                Some(own) => name = own,
                None => break,
            }
        }
        let known = prefixes(&name).find_map(|prefix| self.used.get_key_value(prefix));
        known.map(|(module, _)| module.as_str())
    }
}

/// Parts of `arrows` in a circle of dependencies, or on a path between circles.
pub fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut left: BTreeSet<String> = arrows.keys().cloned().collect();
    // Bound: each round takes at least one away.
    loop {
        let before = left.len();
        let uses_one = |part: &String| arrows[part].iter().any(|other| left.contains(other));
        let is_used = |part: &String| left.iter().any(|other| arrows[other].contains(part));
        let kept = left.iter().filter(|part| uses_one(part) && is_used(part));
        left = kept.cloned().collect();
        if left.len() == before {
            return left;
        }
    }
}

/// Paths in a file, without comments and tests.
#[derive(Default)]
struct Code {
    /// Trees of `use` statements, without white space.
    uses: Vec<String>,
    /// All other paths.
    paths: Vec<String>,
    /// Modules that exist only for tests.
    test_modules: Vec<String>,
}

impl Code {
    fn of(text: &str) -> Self {
        let (code, test_modules) = without_tests(text);
        let (mut uses, mut paths) = (Vec::new(), Vec::new());
        let mut open: Option<String> = None;
        for line in code.lines() {
            let begun = open.take().or_else(|| tree_begun(line).then(String::new));
            if let Some(mut statement) = begun {
                statement.push_str(line);
                match statement.split_once(';') {
                    Some((statement, _)) => uses.push(tree(statement)),
                    None => open = Some(statement),
                }
                continue;
            }
            let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let words = line.split(|c| !is_of_path(c));
            paths.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
        }
        Self {
            uses,
            paths,
            test_modules,
        }
    }
}

/// `text` without comments and without items under `#[cfg(test)]`, and the names of modules among these. Relies on rustfmt, which
/// aligns the closing brace of an item with its first word.
pub fn without_tests(text: &str) -> (String, Vec<String>) {
    let (mut code, mut modules) = (String::new(), Vec::new());
    let (mut is_test, mut end): (bool, Option<String>) = (false, None);
    for line in text.lines() {
        let item = line.trim_start();
        if let Some(last) = &end {
            end = Some(last.clone()).filter(|last| last != line);
        } else if item == "#[cfg(test)]" {
            is_test = true;
        } else if is_test && !item.starts_with("#[") {
            is_test = false;
            if line.ends_with('{') {
                end = Some(" ".repeat(line.len() - item.len()) + "}");
            }
            let name = item.split("mod ").nth(1);
            modules.extend(name.and_then(|name| Some(name.strip_suffix(';')?.to_owned())));
        } else {
            code.push_str(line.split("//").next().unwrap_or_default());
        }
        code.push('\n');
    }
    (code, modules)
}

/// True if a line begins a `use`.
fn tree_begun(line: &str) -> bool {
    let words = line.split_whitespace();
    let mut words = words.skip_while(|word| word.starts_with("pub"));
    words.next() == Some("use")
}

/// The tree of a `use`, without white space and renames.
fn tree(statement: &str) -> String {
    let (_, tree) = statement.split_once("use ").unwrap_or_default();
    let mut parts = tree.split(" as ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    }
    plain.split_whitespace().collect()
}

/// Paths of a tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let (mut paths, mut path) = (Vec::new(), String::new());
    let mut before: Vec<String> = Vec::new();
    for character in tree.chars().chain([',']) {
        match character {
            '{' => before.push(std::mem::take(&mut path)),
            ',' | '}' => {
                if !path.is_empty() {
                    let whole = before.concat() + &std::mem::take(&mut path);
                    paths.push(whole.trim_end_matches("::self").to_owned());
                }
                if character == '}' {
                    before.pop();
                }
            }
            _ => path.push(character),
        }
    }
    paths
}

/// A path used in `module`, from the package's root on. `None` if it is another package's, or local.
fn absolute(module: &str, path: &str, package: &str) -> Option<String> {
    let mut segments = path.split("::").filter(|segment| !segment.is_empty());
    let mut at: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut first = segments.next()?;
    if first == "crate" || first == package {
        at.clear();
    } else if first == "self" || first == "super" {
        while first == "super" {
            at.pop()?;
            match segments.next() {
                Some(next) => first = next,
                None => return Some(at.join("::")),
            }
        }
        if first != "self" {
            at.push(first);
        }
    } else {
        return None;
    }
    at.extend(segments);
    Some(at.join("::"))
}

/// Name of a file's module, from the file's path below the root.
fn module_of(file: &str) -> String {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" || path == "mod" {
        return String::new();
    }
    path.replace('/', "::")
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() {
        return name.to_owned();
    }
    format!("{module}::{name}")
}

/// The part of `folder` that a module is or belongs to.
fn part_of<'m>(module: &'m str, folder: &str) -> Option<&'m str> {
    let below = match folder {
        "" => module,
        folder => module.strip_prefix(folder)?.strip_prefix("::")?,
    };
    below.split("::").next().filter(|part| !part.is_empty())
}

/// A path and its prefixes, the longest first.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| Some(path.rsplit_once("::")?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)]) -> Modules {
        let source = |(path, text): &(&str, &str)| {
            Source::new(format!("a/src/{path}").into(), (*text).to_owned())
        };
        let sources: Vec<Source> = files.iter().map(source).collect();
        Modules::read(&sources, "a/src", "a")
    }

    fn used(modules: &Modules, folder: &str, part: &str) -> Vec<String> {
        let arrows = modules.arrows(folder);
        arrows[part].iter().cloned().collect()
    }

    #[test]
    fn a_use_is_found_however_it_is_written() {
        for line in [
            "use crate::b::B;",
            "pub(crate) use crate::b;",
            "use crate::{\n    b::{self, B as C},\n};",
            "use super::b::B;",
            "use crate::{other as mine, b as yours};",
            "fn f() -> crate::b::B {\n}",
            "impl crate::b::B for u8 {}",
        ] {
            let modules = modules(&[("lib.rs", "mod a;\nmod b;\n"), ("a.rs", line), ("b.rs", "")]);
            assert_eq!(used(&modules, "", "a"), ["b"], "{line}");
        }
    }

    #[test]
    fn comments_tests_and_other_packages_use_nothing() {
        for text in [
            "// use crate::b::B;",
            "//! See [`crate::b`].",
            "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n",
            "#[cfg(test)]\nuse crate::b::B;\n",
            "use c::b::B;\nuse b::B;\n",
        ] {
            let modules = modules(&[("a.rs", text), ("b.rs", "")]);
            assert_eq!(used(&modules, "", "a"), [""; 0], "{text}");
        }
        let helper = modules(&[
            ("lib.rs", "#[cfg(test)]\nmod helper;\nmod b;\n"),
            ("helper.rs", "use crate::b;"),
            ("b.rs", ""),
        ]);
        assert!(!helper.arrows("").contains_key("helper"));
    }

    /// A re-exported item belongs to the module that defines it.
    #[test]
    fn a_re_export_is_followed_to_its_module() {
        let modules = modules(&[
            (
                "w/mod.rs",
                "mod one;\nmod two;\npub use two::{Two, Other};\n",
            ),
            ("w/one.rs", "use super::Two;\n"),
            ("w/two.rs", ""),
            ("main.rs", "use a::w::Two;\n"),
        ]);
        assert_eq!(used(&modules, "w", "one"), ["two"]);
        assert_eq!(used(&modules, "", "main"), ["w"]);
        assert_eq!(modules.folders().into_iter().collect::<Vec<_>>(), ["", "w"]);
    }

    #[test]
    fn circles_are_found_and_what_hangs_on_them_is_not() {
        let arrows = |edges: &[(&str, &str)]| {
            let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (from, to) in edges {
                arrows.entry((*to).to_owned()).or_default();
                arrows
                    .entry((*from).to_owned())
                    .or_default()
                    .insert((*to).to_owned());
            }
            arrows
        };
        assert!(circles(&arrows(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
        let found = circles(&arrows(&[
            ("top", "a"),
            ("a", "b"),
            ("b", "a"),
            ("b", "ground"),
        ]));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
