//! Modules of one room that import each other in a circle cannot be understood, nor tested, one by one: there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::string::{String, ToString};
use std::{format, vec};

/// Which modules of `room` each of them imports from.
fn imports(room: &str) -> BTreeMap<String, BTreeSet<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut folders = vec![(folder, None)];
    while let Some((folder, module)) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let stem = path.file_stem().expect("a name").to_string_lossy();
            let module: String = module.clone().unwrap_or_else(|| stem.to_string());
            if path.is_dir() && stem != "tests" {
                folders.push((path, Some(module)));
            } else if path.is_file() && !matches!(&*stem, "mod" | "tests") {
                let text = fs::read_to_string(&path).expect("text");
                let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
                texts.entry(module).or_default().push_str(code);
            }
        }
    }
    let names: BTreeSet<String> = texts.keys().cloned().collect();
    let imported = |text: &str| {
        let is_imported = |name: &&String| {
            let from = [
                format!("super::{name}::"),
                format!("crate::{room}::{name}::"),
            ];
            from.iter().any(|from| text.contains(from))
        };
        names.iter().filter(is_imported).cloned().collect()
    };
    texts
        .iter()
        .map(|(name, text)| (name.clone(), imported(text)))
        .collect()
}

#[test]
fn no_modules_of_a_room_import_each_other_in_a_circle() {
    for room in [
        "answer", "cache", "dns", "engine", "forward", "policy", "wire",
    ] {
        let mut left = imports(room);
        assert!(left.len() > 2, "{room}");
        // Bound: each round takes at least one away.
        while !left.is_empty() {
            let names: BTreeSet<String> = left.keys().cloned().collect();
            let before = left.len();
            left.retain(|name, from| {
                from.iter()
                    .any(|other| other != name && names.contains(other))
            });
            assert!(left.len() < before, "a circle in {room}: {left:?}");
        }
    }
}
