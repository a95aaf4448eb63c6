//! Number of tests that a command ran, from its output.

use std::fmt;
use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ran and passed.
    pub passed: usize,
    /// Ran and failed, or could not run although it had to.
    pub failed: usize,
    /// Did not run, for a stated reason.
    pub skipped: usize,
}

impl Tally {
    /// One failed test.
    pub const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    /// One skipped test.
    pub const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    /// Parses the results of test binaries (`test result: ok. 3 passed; …`) and of our own commands (`3 passed, …`). A command
    /// that prints neither is one test. `skips` tests reported themselves as skipped and then passed.
    ///
    /// A command that fails although no test did (it does not build, it was killed) counts as one more failure, and with `is_ci`,
    /// so does every `#[ignore]`d test: a test that never runs proves nothing.
    #[must_use]
    pub fn of(output: &str, is_success: bool, skips: usize, is_ci: bool) -> Self {
        let mut tally = Self::default();
        let (mut is_single, mut skips) = (true, skips);
        for line in output.lines() {
            if let Some(result) = libtest(line) {
                tally += result;
            } else if let Some(result) = own(line) {
                // Our own commands count skipped tests themselves.
                skips = 0;
                tally += result;
            } else {
                continue;
            }
            is_single = false;
        }
        if is_ci {
            tally.failed += std::mem::take(&mut tally.skipped);
        }
        if is_single && is_success {
            tally.passed = 1;
        }
        if !is_success && tally.failed == 0 {
            tally.failed = 1;
        }
        tally.passed = tally.passed.saturating_sub(skips);
        tally.skipped += skips;
        tally
    }
}

/// `test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn libtest(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        let part = counts
            .split(';')
            .find_map(|part| part.trim().strip_suffix(name));
        part.and_then(|number| number.trim().parse().ok())
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

/// `3 passed, 1 failed` or `3 passed, 1 failed, 2 skipped`, as [`Tally`] prints itself.
fn own(line: &str) -> Option<Tally> {
    let mut parts = line.split(", ");
    let passed = parts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = parts.next()?.strip_suffix(" failed")?.parse().ok()?;
    let skipped = match parts.next() {
        Some(part) => part.strip_suffix(" skipped")?.parse().ok()?,
        None => 0,
    };
    Some(Tally {
        passed,
        failed,
        skipped,
    })
}

/// True if a line of output only reports success.
#[must_use]
pub fn is_routine(line: &str) -> bool {
    let is_test = line.starts_with("test ") && line.ends_with(" ... ok");
    let routine = [
        "   Compiling ",
        "    Checking ",
        "  Downloaded ",
        " Downloading ",
        "    Finished ",
        "   Doc-tests ",
        "     Running ",
        " Documenting ",
        "running 0 tests",
        "test result: ok.",
        "ok ",
    ];
    is_test || routine.iter().any(|start| line.starts_with(start))
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(formatter, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    const GOOD: &str = "running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.01s

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    fn tally(passed: usize, failed: usize, skipped: usize) -> Tally {
        Tally {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn results_of_test_binaries_add_up() {
        assert_eq!(Tally::of(GOOD, true, 0, false), tally(5, 0, 1));
        let bad =
            GOOD.to_owned() + "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(Tally::of(&bad, false, 0, false), tally(6, 2, 1));
    }

    #[test]
    fn failure_without_a_failed_test_counts_once() {
        // A later test binary was killed by a signal and printed no result.
        assert_eq!(Tally::of(GOOD, false, 0, false), tally(5, 1, 1));
        assert_eq!(
            Tally::of("error[E0425]: cannot find value", false, 0, false),
            tally(0, 1, 0)
        );
        assert_eq!(Tally::of("", false, 0, false), tally(0, 1, 0));
    }

    #[test]
    fn command_without_results_is_one_test() {
        assert_eq!(
            Tally::of("Checking\nFinished\n", true, 0, false),
            tally(1, 0, 0)
        );
        // A binary without tests is not a test.
        let empty = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Tally::of(empty, true, 0, false), tally(0, 0, 0));
    }

    #[test]
    fn skips_are_no_passes_and_ignored_tests_fail_in_ci() {
        assert_eq!(Tally::of(GOOD, true, 2, false), tally(3, 0, 3));
        assert_eq!(Tally::of(GOOD, true, 0, true), tally(5, 1, 0));
        let own = "4 passed, 0 failed, 2 skipped\n";
        assert_eq!(Tally::of(own, true, 2, false), tally(4, 0, 2));
    }

    #[test]
    fn own_line_is_read_as_it_is_printed() {
        for each in [tally(3, 0, 0), tally(3, 1, 2), tally(0, 1, 0)] {
            assert_eq!(
                Tally::of(&format!("ok this\n{each}\n"), each.failed == 0, 0, false),
                each
            );
        }
        assert_eq!(tally(3, 1, 2).to_string(), "3 passed, 1 failed, 2 skipped");
        assert_eq!(tally(3, 1, 0).to_string(), "3 passed, 1 failed");
    }
}
