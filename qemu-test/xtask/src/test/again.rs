//! Second run of the few tests that failed beside others, by themselves: on a machine under the other tests' load a timeout may
//! be accidental. A test that then passes is named, so that it is not forgotten.

use std::process::Command;

use anyhow::Result;

use super::tally::Tally;
use crate::progress::{Task, watch};
use crate::signals::Signals;

/// Most failures that may be accidental.
const FAILED_MAX: usize = 3;

/// Failed tests, and the command that runs them alone.
pub struct Again<'o> {
    names: Vec<&'o str>,
    /// Runs them one after the other.
    pub command: Command,
}

impl Again<'_> {
    /// True if each of them runs and passes now. Prints which ones did.
    pub fn have_passed(self, task: Task<'_>, signals: &Signals) -> Result<bool> {
        let log = task.log.with_extension("again.log");
        let watched = watch(Task { log: &log, ..task }, self.command, signals)?;
        let tally = Tally::of(&watched.output, watched.is_success(), 0, false);
        let is_good = tally.failed == 0 && tally.passed == self.names.len();
        for name in self.names.iter().filter(|_| is_good) {
            println!("AGAIN {name}: failed beside others, and passed by itself");
        }
        Ok(is_good)
    }
}

/// The second run of `command`, given its output and tally. `None` if there were no failures, too many, other failures than
/// tests, or if it runs no tests.
pub fn of<'o>(command: &Command, output: &'o str, tally: Tally) -> Option<Again<'o>> {
    let names = names(output, tally);
    let mut arguments = command.get_args();
    if names.is_empty() || arguments.next()? != "test" {
        return None;
    }
    let mut again = Command::new(command.get_program());
    again
        .arg("test")
        .args(arguments.take_while(|argument| *argument != "--"))
        .args(["--", "--exact", "--test-threads=1"])
        .args(&names);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => again.env(name, value),
            None => again.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        again.current_dir(directory);
    }
    Some(Again {
        names,
        command: again,
    })
}

/// Names of the failed tests. Empty if there are too many, or if something else failed.
fn names(output: &str, tally: Tally) -> Vec<&str> {
    let mut names = Vec::new();
    let mut lines = output.lines();
    // The heading precedes their output, and once more their names.
    while lines.any(|line| line == "failures:") {
        let listed = lines.clone().map_while(|line| line.strip_prefix("    "));
        names.extend(listed.filter(|name| !name.contains(' ')));
    }
    if names.len() == tally.failed && names.len() <= FAILED_MAX {
        names
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{names, of};
    use crate::test::tally::Tally;
    use std::process::Command;

    const OUTPUT: &str = "running 3 tests
test a::one ... FAILED

failures:

---- a::one stdout ----
Error: in vain
    at a place

failures:
    a::one
    b::two

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn the_failed_tests_are_known_by_their_names() {
        let tally = |output| Tally::of(output, false, 0, false);
        assert_eq!(names(OUTPUT, tally(OUTPUT)), ["a::one", "b::two"]);
        let more = OUTPUT.repeat(2);
        assert_eq!(names(&more, tally(&more)), [""; 0], "four of them");
        let broken = "error: could not compile `xdnsd`\n";
        assert_eq!(names(broken, tally(broken)), [""; 0]);
    }

    #[test]
    fn they_run_by_themselves_in_the_same_surroundings() {
        let mut first = Command::new("cargo");
        first.args(["test", "-p", "xdnsd", "--", "--test-threads=6"]);
        first.env("WAY", "udp").current_dir("/");
        let tally = Tally::of(OUTPUT, false, 0, false);
        let again = of(&first, OUTPUT, tally).expect("two failed").command;
        let arguments: Vec<_> = again.get_args().collect();
        let expected = ["test", "-p", "xdnsd", "--", "--exact", "--test-threads=1"];
        assert_eq!(arguments, [&expected[..], &["a::one", "b::two"]].concat());
        assert!(again.get_envs().eq(first.get_envs()));
        assert_eq!(again.get_current_dir(), first.get_current_dir());
        assert!(of(&first, "", Tally::default()).is_none(), "none failed");
        let other = of(Command::new("cargo").arg("clippy"), OUTPUT, tally);
        assert!(other.is_none(), "that runs no tests");
    }
}
