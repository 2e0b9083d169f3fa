//! Counts of passed and failed tests, read from what test programs print.

/// Lines shown of what a failed unit test said.
const SAID: usize = 20;

/// What a group of tests came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Lines to show: what failed and why.
    pub(crate) failures: Vec<String>,
    /// The program got to the end of its list.
    pub(crate) complete: bool,
}

impl Tally {
    /// Adds a failure of no test in particular.
    pub(crate) fn fail(&mut self, why: &str) {
        self.failed += 1;
        self.failures.extend(why.lines().map(str::to_owned));
    }

    /// Reads `lockc-tests run`: `ok NAME (1.2 s)` or `FAILED NAME: why` with
    /// indented details per test, and `N passed, N failed` at the end. Before the
    /// last line has come, the tests seen so far count.
    pub(crate) fn of_guest(text: &str) -> Self {
        let mut tally = Self::default();
        let mut failing = false;
        for line in text.lines() {
            if let Some((passed, failed)) = last_line(line) {
                tally.complete = true;
                (tally.passed, tally.failed) = (passed, failed);
                failing = false;
            } else if line.starts_with("ok ") {
                tally.passed += 1;
                failing = false;
            } else if line.starts_with("FAILED ") {
                tally.failed += 1;
                failing = true;
            } else if !line.starts_with([' ', '\t']) {
                failing = false;
            }
            if failing {
                tally.failures.push(line.to_owned());
            }
        }
        tally
    }

    /// Reads `lockc-tests soak`, whose last line says what was done and what came of it: one test.
    pub(crate) fn of_soak(text: &str) -> Self {
        let last = text.lines().rfind(|line| line.starts_with("soak: ")).unwrap_or_default();
        let mut tally = Self { complete: last.contains(" escapes, "), ..Self::default() };
        if last.ends_with(" 0 escapes, 0 failures, nothing left") {
            tally.passed = 1;
        } else if tally.complete {
            tally.failed = 1;
            tally.failures.extend(text.lines().map(str::to_owned));
        }
        tally
    }

    /// Reads `cargo test`: a `test result:` line per test program, and before it, between `---- NAME stdout ----` and
    /// `stack backtrace:`, what each failed test said.
    pub(crate) fn of_cargo(text: &str) -> Self {
        let mut tally = Self { complete: true, ..Self::default() };
        let mut said = 0;
        for line in text.lines() {
            if line.starts_with("---- ") {
                said = SAID;
            } else if line == "failures:" || line == "stack backtrace:" {
                said = 0;
            }
            if said > 0 {
                said -= 1;
                if !line.is_empty() {
                    tally.failures.push(format!("  {line}"));
                }
            }
            if let Some(result) = line.strip_prefix("test result: ") {
                let count = |what: &str| {
                    result
                        .split([';', '.'])
                        .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
                        .unwrap_or_default()
                };
                tally.passed += count("passed");
                tally.failed += count("failed");
            } else if let Some(name) = line.strip_suffix(" ... FAILED") {
                tally.failures.push(format!("FAILED {}", name.trim_start_matches("test ")));
            }
        }
        tally
    }
}

/// `N passed, N failed` alone on its line.
fn last_line(line: &str) -> Option<(u64, u64)> {
    let (passed, failed) = line.trim().split_once(", ")?;
    Some((
        passed.strip_suffix(" passed")?.parse().ok()?,
        failed.strip_suffix(" failed")?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_is_one_test() {
        let of = |last: &str| {
            let Tally { passed, failed, complete, .. } =
                Tally::of_soak(&format!("soak: 5 min, seed 1, runtimes crun\n{last}\n"));
            (passed, failed, complete)
        };
        assert_eq!(of("soak: 9 starts; 0 escapes, 0 failures, nothing left"), (1, 0, true));
        assert_eq!(of("soak: 9 starts; 1 escapes, 0 failures, stopped at the first"), (0, 1, true));
        assert_eq!(of("soak: 9 starts, 1 execs, 1 restarts of the daemon so far"), (0, 0, false));
    }

    #[test]
    fn guest_output_is_counted() {
        let tally = Tally::of_guest(
            "ok token/plain (0.3 s)\nFAILED token/fd: was read\n  content: secret\nok other (1.0 s)\n2 passed, 1 failed\n",
        );
        assert_eq!((tally.passed, tally.failed, tally.complete), (2, 1, true));
        assert_eq!(tally.failures, ["FAILED token/fd: was read", "  content: secret"]);
    }

    #[test]
    fn guest_output_that_ends_early_is_not_complete() {
        let tally = Tally::of_guest("ok a (0.1 s)\nok b (0.1 s)\n");
        assert_eq!((tally.passed, tally.failed, tally.complete), (2, 0, false));
    }

    #[test]
    fn cargo_output_is_counted() {
        let tally = Tally::of_cargo(
            "test argv::long ... ok\ntest argv::short ... FAILED\n\
             failures:\n\n---- argv::short stdout ----\n\nthread 'argv::short' panicked at a.rs:1:9:\n\
             left: 1\nstack backtrace:\n   0: f\n\nfailures:\n    argv::short\n\
             test result: FAILED. 41 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\
             test result: ok. 8 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!((tally.passed, tally.failed), (49, 1));
        assert_eq!(
            tally.failures,
            [
                "FAILED argv::short",
                "  ---- argv::short stdout ----",
                "  thread 'argv::short' panicked at a.rs:1:9:",
                "  left: 1"
            ]
        );
    }
}
