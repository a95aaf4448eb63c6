//! The status page: one file, which loads only `data.json` beside it.

/// HTML of the page.
pub const HTML: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::HTML;

    #[test]
    fn the_page_leads_nowhere_else_and_trusts_no_name() {
        let namespace = "\"http://www.w3.org/2000/svg\"";
        let rest = HTML.replace(namespace, "");
        for word in [
            "http:",
            "https:",
            "//",
            "src=",
            "@import",
            "url(",
            "innerHTML",
            "outerHTML",
            "eval(",
        ] {
            assert!(!rest.contains(word), "{word}");
        }
        assert_eq!(HTML.matches("fetch(").count(), 1);
        assert!(HTML.contains("fetch(\"data.json\""));
        assert!(HTML.contains("name=\"viewport\""));
    }
}
