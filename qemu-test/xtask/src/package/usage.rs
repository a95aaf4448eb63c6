//! Parses `xdnsd help`.

use anyhow::{Context, Result, ensure};

/// All commands, and notes that apply to all of them.
pub struct Help {
    /// In the order of the help.
    pub commands: Vec<Usage>,
    /// Sentences below the list, such as on the exit status.
    pub notes: Vec<String>,
}

/// Usage of one command.
pub struct Usage {
    /// Its words after `xdnsd`.
    pub name: String,
    /// Pattern of its arguments: `[--json] NAME`.
    pub arguments: String,
    /// Lines that describe it.
    pub about: Vec<String>,
}

impl Usage {
    /// Its options.
    pub fn options(&self) -> Vec<&str> {
        let about = self.about.iter().filter(|line| line.starts_with("FILES:"));
        let text = about.map(String::as_str).chain([self.arguments.as_str()]);
        let words = text.flat_map(|text| text.split(|c: char| !c.is_ascii_lowercase() && c != '-'));
        let mut options: Vec<&str> = words.filter(|word| is_option(word)).collect();
        options.sort_unstable();
        options.dedup();
        options
    }
}

fn is_option(word: &str) -> bool {
    word.len() > 2 && word.starts_with("--")
}

impl Help {
    /// Parses the list of commands, and each command's own page, which `about` gives for its name.
    ///
    /// # Errors
    /// A page has another format than expected.
    pub fn read(help: &str, about: impl Fn(&str) -> Result<String>) -> Result<Self> {
        let listed = help
            .lines()
            .filter_map(|line| line.strip_prefix("  xdnsd "));
        let mut commands = Vec::new();
        for line in listed {
            let name = name(line);
            commands.push(Usage::read(&about(&name)?, name)?);
        }
        ensure!(
            !commands.is_empty(),
            "xdnsd help lists no command: {help:?}"
        );
        let (_, notes) = help
            .rsplit_once("\n\n")
            .context("xdnsd help has no notes")?;
        let notes = notes.lines().map(str::to_owned).collect();
        Ok(Self { commands, notes })
    }
}

impl Usage {
    /// Parses the page of `xdnsd help NAME`.
    fn read(page: &str, name: String) -> Result<Self> {
        let mut lines = page.lines();
        let lead = format!("xdnsd {name}");
        let arguments = lines.next().and_then(|line| line.strip_prefix(&lead));
        let arguments = arguments.with_context(|| format!("xdnsd help {name}: {page:?}"))?;
        let about = lines.map_while(|line| line.strip_prefix("    "));
        Ok(Self {
            arguments: arguments.trim().to_owned(),
            about: about.map(str::to_owned).collect(),
            name,
        })
    }
}

/// The words of a command: those before the first option, argument, or double space.
fn name(line: &str) -> String {
    let listed = line.split("  ").next().unwrap_or_default();
    let words = listed
        .split(' ')
        .take_while(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const HELP: &str = "xdnsd: a server\n\n  xdnsd run [--user NAME] FILE      serve as FILE says\n  xdnsd cache dump [--json] [NAME]\n                                    answers\n  xdnsd top                         a screen\n\nExit status: 0 done.\nMore of it.\n";
    const PAGES: [(&str, &str); 3] = [
        (
            "run",
            "xdnsd run [--user NAME] FILE\n    serve as FILE says\n",
        ),
        (
            "cache dump",
            "xdnsd cache dump [--socket PATH] [--json] [NAME]\n    answers\n    --json: a line each\n",
        ),
        ("top", "xdnsd top\n    a screen\n    FILES: [--log FILE]\n"),
    ];

    /// A help of three commands.
    pub fn help() -> Help {
        let page = |wanted: &str| {
            let page = PAGES.iter().find(|(name, _)| *name == wanted);
            page.map(|(_, page)| (*page).to_owned())
                .context("asked for")
        };
        Help::read(HELP, page).expect("a help")
    }

    #[test]
    fn a_command_has_its_words_its_options_and_what_it_does() {
        let help = help();
        let names: Vec<&str> = help
            .commands
            .iter()
            .map(|command| command.name.as_str())
            .collect();
        assert_eq!(names, ["run", "cache dump", "top"]);
        let dump = &help.commands[1];
        assert_eq!(dump.arguments, "[--socket PATH] [--json] [NAME]");
        assert_eq!(dump.about, ["answers", "--json: a line each"]);
        assert_eq!(dump.options(), ["--json", "--socket"]);
        assert_eq!(help.commands[2].options(), ["--log"]);
        assert_eq!(help.notes, ["Exit status: 0 done.", "More of it."]);
    }

    #[test]
    fn a_help_of_another_form_is_an_error() {
        let page = |_: &str| Ok(String::new());
        assert!(Help::read("no commands\n\nnotes\n", page).is_err());
        assert!(Help::read(HELP, page).is_err(), "no page has them");
    }
}
