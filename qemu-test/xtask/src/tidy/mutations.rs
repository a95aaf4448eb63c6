//! Entries that `cargo xtask test --mutations` could not apply, found without a build.

use std::path::{Path, PathBuf};

use super::Source;
use crate::test::mutations::list::{self, LIST, Mutation};

/// Entries whose text does not occur exactly once in its file, or whose test does not exist.
pub fn without_text_or_test(sources: &[Source]) -> Vec<String> {
    let find = |path: &Path| sources.iter().find(|source| source.path == path);
    let Some(list) = find(Path::new(LIST)) else {
        return Vec::new();
    };
    let mutations = match list::parse(&list.text) {
        Ok(mutations) => mutations,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut wrong = Vec::new();
    for mutation in &mutations {
        match find(Path::new(&mutation.file)) {
            None => wrong.push(format!("{mutation}: there is no {}", mutation.file)),
            Some(source) => {
                let applied = mutation.apply(&source.text);
                wrong.extend(applied.err().map(|error| error.to_string()));
            }
        }
        if !has_test(sources, mutation) {
            wrong.push(format!("{mutation}: no test {}", mutation.test.name));
        }
    }
    wrong
}

/// True if the test's function exists in one of its modules' files.
fn has_test(sources: &[Source], mutation: &Mutation) -> bool {
    let test = &mutation.test;
    let line = format!("name = \"{}\"", test.binary.package);
    let is_its = |source: &&Source| source.is_manifest() && source.text.lines().any(|l| l == line);
    let manifest = sources.iter().find(is_its);
    let Some(package) = manifest.and_then(|source| source.path.parent()) else {
        return false;
    };
    let places: Vec<PathBuf> = test.files().iter().map(|file| package.join(file)).collect();
    sources
        .iter()
        .filter(|source| places.contains(&source.path))
        .flat_map(Source::functions)
        .any(|function| function.is_test && function.name == test.function())
}

#[cfg(test)]
mod tests {
    use super::without_text_or_test;
    use crate::test::mutations::list::LIST;
    use crate::tidy::Source;

    const ENTRY: &str = r#"
[[mutation]]
row = "U1"
holds = "everybody is answered"
file = "a/src/b.rs"
text = "true"
replacement = "false"
test = "-p a --lib b::tests::answered"
"#;

    fn told(list: &str, code: &str, test: &str) -> Vec<String> {
        let sources = [
            (LIST, list),
            ("a/Cargo.toml", "[package]\nname = \"a\"\n"),
            ("a/src/b.rs", code),
            ("a/src/b/tests.rs", test),
        ];
        let sources = sources.map(|(path, text)| Source::new(path.into(), text.to_owned()));
        without_text_or_test(&sources)
    }

    #[test]
    fn an_entry_needs_its_text_and_its_test() {
        let (code, test) = (
            "fn b() -> bool {\n    true\n}\n",
            "#[test]\nfn answered() {}\n",
        );
        assert!(told(ENTRY, code, test).is_empty());
        for (list, code, test, wanted) in [
            (
                ENTRY,
                "fn b() {}\n",
                test,
                "the text is 0 times in a/src/b.rs",
            ),
            (
                ENTRY,
                code,
                "#[test]\nfn another() {}\n",
                "no test b::tests::answered",
            ),
            (ENTRY, code, "", "no test b::tests::answered"),
            ("a = 1\n", code, test, "has no [[mutation]]"),
        ] {
            let told = told(list, code, test);
            assert!(told.len() == 1 && told[0].contains(wanted), "{told:?}");
        }
        let list = ENTRY.replace("a/src/b.rs", "a/src/c.rs");
        assert!(told(&list, code, test)[0].contains("there is no a/src/c.rs"));
        let list = ENTRY.replace("-p a ", "-p other ");
        assert!(told(&list, code, test)[0].contains("no test"));
    }
}
