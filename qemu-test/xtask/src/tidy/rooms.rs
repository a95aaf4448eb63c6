//! Checks the drawings in ARCHITECTURE.md of what uses what against the code.
//!
//! A drawing is a text block that begins with `FOLDER: what uses what`. Each further line is a module or a folder of modules, and
//! what it uses: `daemon -> control, worker`. Used modules are further down, so there are no circles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Source;
use super::modules::{Modules, circles};

/// Packages with a drawing: folder, and name.
const DRAWN: [(&str, &str); 2] = [
    ("appliance/src", "xdnsd"),
    ("appliance/core/src", "xdnsd_core"),
];
/// Page with the drawings.
const PAGE: &str = "ARCHITECTURE.md";
/// End of each drawing's first line.
const TITLE: &str = ": what uses what";

/// Differences between the drawings and the code, in both directions.
pub fn wrong_drawings(sources: &[Source]) -> Vec<String> {
    let page = sources
        .iter()
        .find(|source| source.path.as_os_str() == PAGE);
    let text = page.map_or("", |page| page.text.as_str());
    let mut wrong = Vec::new();
    for (folder, package) in DRAWN {
        let modules = Modules::read(sources, folder, package);
        match drawing(text, folder) {
            Some(drawn) => {
                let differ = differences(&drawn, &modules.arrows(""));
                wrong.extend(
                    differ
                        .iter()
                        .map(|what| format!("{PAGE}: {folder}: {what}")),
                );
            }
            None => wrong.push(format!("{PAGE}: no drawing of {folder}")),
        }
    }
    wrong
}

/// Modules of one folder that depend on each other in a circle.
pub fn circles_of_modules(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (folder, package) in DRAWN {
        let modules = Modules::read(sources, folder, package);
        for part in modules.folders() {
            let arrows = modules.arrows(part);
            for module in circles(&arrows) {
                let used: Vec<&str> = arrows[&module].iter().map(String::as_str).collect();
                let place = part.replace("::", "/");
                wrong.push(format!("{folder}/{place}: {module} -> {}", used.join(", ")));
            }
        }
    }
    wrong
}

/// Modules in a file beside their folder of submodules, instead of its `mod.rs`.
pub fn files_beside_folders(sources: &[Source]) -> Vec<String> {
    let rust = sources.iter().filter(|source| source.is_rust());
    let files: Vec<&Path> = rust.map(|source| source.path.as_path()).collect();
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    let beside = files
        .iter()
        .filter(|file| folders.contains(file.with_extension("").as_path()));
    beside.map(|file| file.display().to_string()).collect()
}

/// Lines of a drawing, each with what it uses.
type Drawing<'t> = Vec<(&'t str, Vec<&'t str>)>;

fn drawing<'t>(page: &'t str, folder: &str) -> Option<Drawing<'t>> {
    let mut lines = page.lines();
    let is_title = |line: &str| line.strip_suffix(TITLE) == Some(folder);
    lines.find(|line| is_title(line))?;
    let lines = lines.take_while(|line| !line.starts_with("```"));
    let drawn = lines.map(|line| {
        let (part, used) = line.split_once("->").unwrap_or((line, ""));
        let used = used.split(',').map(str::trim);
        (part.trim(), used.filter(|used| !used.is_empty()).collect())
    });
    Some(drawn.collect())
}

fn differences(drawn: &Drawing<'_>, found: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, (part, used)) in drawn.iter().enumerate() {
        let Some(real) = found.get(*part) else {
            wrong.push(format!("{part} is drawn and is not there"));
            continue;
        };
        for other in used {
            if !real.contains(*other) {
                wrong.push(format!(
                    "{part} -> {other} is drawn, and nothing in {part} uses it"
                ));
            }
            if !drawn[at + 1..].iter().any(|(below, _)| below == other) {
                wrong.push(format!("{part} -> {other} does not point downwards"));
            }
        }
        let missing = real.iter().filter(|other| !used.contains(&other.as_str()));
        wrong.extend(missing.map(|other| format!("{part} -> {other} is used and not drawn")));
    }
    let is_drawn = |part: &String| drawn.iter().any(|(known, _)| known == part);
    let missing = found.keys().filter(|part| !is_drawn(part));
    wrong.extend(missing.map(|part| format!("{part} is not drawn")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TEXT: &str = "\n```text\na/src: what uses what\n  top -> mid, ground\n  mid -> ground\n  ground\n```\nmore -> text\n";

    /// Parts, each with the parts that it uses.
    type Edges<'t> = &'t [(&'t str, &'t [&'t str])];

    fn found(edges: Edges<'_>) -> BTreeMap<String, BTreeSet<String>> {
        let owned = |used: &[&str]| used.iter().map(|&used| used.to_owned()).collect();
        edges
            .iter()
            .map(|(part, used)| ((*part).to_owned(), owned(used)))
            .collect()
    }

    fn wrong(page: &str, edges: Edges<'_>) -> Vec<String> {
        differences(&drawing(page, "a/src").expect("a drawing"), &found(edges))
    }

    #[test]
    fn a_drawing_and_the_code_have_the_same_arrows() {
        let right: Edges<'_> = &[
            ("top", &["mid", "ground"]),
            ("mid", &["ground"]),
            ("ground", &[]),
        ];
        assert_eq!(wrong(PAGE_TEXT, right), [""; 0]);
        let cases: [(Edges<'_>, &str); 4] = [
            (
                &[("top", &["ground"]), ("mid", &["ground"]), ("ground", &[])],
                "top -> mid is drawn, and nothing in top uses it",
            ),
            (
                &[
                    ("top", &["mid", "ground"]),
                    ("mid", &["ground"]),
                    ("ground", &["mid"]),
                ],
                "ground -> mid is used and not drawn",
            ),
            (
                &[("top", &["mid", "ground"]), ("mid", &["ground"])],
                "ground is drawn and is not there",
            ),
            (
                &[
                    ("top", &["mid", "ground"]),
                    ("mid", &["ground"]),
                    ("ground", &[]),
                    ("new", &[]),
                ],
                "new is not drawn",
            ),
        ];
        for (edges, expected) in cases {
            assert_eq!(wrong(PAGE_TEXT, edges), [expected]);
        }
        assert_eq!(drawing(PAGE_TEXT, "b/src"), None);
    }

    #[test]
    fn arrows_point_downwards() {
        let page = "a/src: what uses what\n a -> b\n b -> a\n```\n";
        let circle: Edges<'_> = &[("a", &["b"]), ("b", &["a"])];
        assert_eq!(wrong(page, circle), ["b -> a does not point downwards"]);
    }

    #[test]
    fn a_module_with_parts_is_in_their_folder() {
        let beside = |paths: &[&str]| {
            let sources = paths
                .iter()
                .map(|path| Source::new(path.into(), String::new()));
            files_beside_folders(&sources.collect::<Vec<_>>())
        };
        let within = [
            "a/src/lib.rs",
            "a/src/x/mod.rs",
            "a/src/x/y.rs",
            "a/src/z.rs",
        ];
        assert_eq!(beside(&within), [""; 0]);
        let both = [&within[..], &["a/src/z/y.rs"][..]].concat();
        assert_eq!(beside(&both), ["a/src/z.rs"]);
    }
}
