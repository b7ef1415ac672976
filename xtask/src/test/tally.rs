//! Counts what passed and what failed, from the output of cargo and of the test harness.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// Where a test that finds the kernel lacking something says so: one line, `name: why`.
const SKIP_LOG: &str = "RINGFENCE_SKIP_LOG";

/// What was counted so far.
pub struct Tally {
    passed: usize,
    failed: usize,
    /// What the reader should know at the end: failures, and skips that are allowed.
    notes: Vec<String>,
    allowed_skips: BTreeSet<String>,
}

/// What the output of one run of tests says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    passed: usize,
    failed: usize,
    warnings: usize,
    skipped: Vec<String>,
}

impl Tally {
    /// Starts counting; `allowed_skips` lists, one name a line, tests that may be skipped.
    pub fn new(allowed_skips: &Path) -> Result<Self> {
        let list = fs::read_to_string(allowed_skips)
            .with_context(|| format!("cannot read {}", allowed_skips.display()))?;
        let names = list
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        Ok(Self {
            passed: 0,
            failed: 0,
            notes: Vec::new(),
            allowed_skips: names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }

    /// Counts a check that is done.
    pub fn step(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok: {name}");
            }
            Err(error) => self.fail(&format!("{name}: {error:#}")),
        }
    }

    /// Runs a check of cargo's and counts it; a warning fails it.
    pub fn cargo(&mut self, name: &str, mut command: Command) {
        println!("\n== {name}");
        let result = watch(&mut command);
        self.step(name, result);
    }

    /// Runs tests and counts each.
    pub fn tests(&mut self, name: &str, mut command: Command) -> Result<()> {
        println!("\n== {name}");
        let log = skip_log();
        fs::create_dir_all(workspace::target())?;
        fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let mut seen = Seen::default();
        let success = observe(command.env(SKIP_LOG, &log), &mut seen)?;
        for line in fs::read_to_string(&log)?.lines() {
            // The harness counted it as passed.
            seen.passed = seen.passed.saturating_sub(1);
            seen.skipped.push(line.to_owned());
        }
        self.passed += seen.passed;
        self.failed += seen.failed;
        if seen.failed > 0 {
            self.notes
                .push(format!("FAILED: {name}: {} tests, see above", seen.failed));
        } else if !success {
            self.fail(&format!("{name}: stopped without a result, see above"));
        } else if seen.passed == 0 {
            self.fail(&format!("{name}: not one test ran"));
        }
        if seen.warnings > 0 {
            self.fail(&format!("{name}: {} warnings, see above", seen.warnings));
        }
        for skipped in seen.skipped {
            self.skip(&skipped);
        }
        Ok(())
    }

    /// Prints the notes and, as the last line, the sum.
    pub fn finish(self) -> ! {
        println!();
        for note in &self.notes {
            println!("{note}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        std::process::exit(i32::from(self.failed > 0))
    }

    fn skip(&mut self, skipped: &str) {
        // A reason, if there is one, follows a colon and a space; names hold `::`.
        let name = skipped.split_once(": ").map_or(skipped, |(name, _)| name);
        if self.allowed_skips.contains(name) {
            self.notes.push(format!("skipped: {skipped}"));
        } else {
            self.fail(&format!(
                "skipped, and not in tests/allowed-skips.txt: {skipped}"
            ));
        }
    }

    fn fail(&mut self, what: &str) {
        self.failed += 1;
        let note = format!("FAILED: {what}");
        println!("{note}");
        self.notes.push(note);
    }
}

impl Seen {
    fn line(&mut self, line: &str) {
        if line.starts_with("warning:") || line.starts_with("warning[") {
            self.warnings += 1;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, " passed");
            self.failed += count(counts, " failed");
        } else if let Some((name, "ignored")) = result_of(line) {
            self.skipped.push(name.to_owned());
        }
    }
}

/// Runs a check of cargo's; a warning is an error.
pub fn watch(command: &mut Command) -> Result<()> {
    let mut seen = Seen::default();
    if !observe(command, &mut seen)? {
        bail!("failed, see above");
    }
    if seen.warnings > 0 {
        bail!("{} warnings, see above", seen.warnings);
    }
    Ok(())
}

/// Runs a command in which every line of output matters; whether it succeeded.
fn observe(command: &mut Command, seen: &mut Seen) -> Result<bool> {
    let _ = command.env("CARGO_TERM_COLOR", "never");
    let status = process::observe(command, |line| seen.line(line))?;
    Ok(status.success())
}

/// Name and result of the harness's `test NAME ... RESULT`; a reason after the result is dropped.
fn result_of(line: &str) -> Option<(&str, &str)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let result = result.split(',').next().unwrap_or_default();
    Some((name.trim_end_matches(" - should panic"), result))
}

/// The number before `label` in `ok. 3 passed; 0 failed; …`.
fn count(counts: &str, label: &str) -> usize {
    let number = counts.split(';').find_map(|part| {
        let number = part.strip_suffix(label)?;
        number.rsplit(' ').next()
    });
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn skip_log() -> PathBuf {
    workspace::target().join("test-skips.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(output: &str) -> Seen {
        let mut seen = Seen::default();
        output.lines().for_each(|line| seen.line(line));
        seen
    }

    #[test]
    fn results_of_several_harnesses_add_up() {
        let output = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
            test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out";
        let expected = Seen {
            passed: 5,
            failed: 4,
            ..Seen::default()
        };
        assert_eq!(seen(output), expected);
    }

    #[test]
    fn ignored_tests_are_named() {
        let output = "test net::ping ... ok\ntest net::lsm ... ignored, no BPF LSM here\n\
            test src/lib.rs - f (line 3) ... ignored";
        assert_eq!(
            seen(output).skipped,
            ["net::lsm", "src/lib.rs - f (line 3)"]
        );
    }

    #[test]
    fn warnings_are_counted_once_each() {
        let output =
            "warning: unused variable\n  --> src/lib.rs\nwarning[E0001]: x\nno warning: here";
        assert_eq!(seen(output).warnings, 2);
    }
}
