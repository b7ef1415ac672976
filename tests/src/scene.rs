//! The frame of a root test.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use crate::Sandbox;

/// Where `cargo xtask test` reads which tests were skipped.
const SKIP_LOG: &str = "RINGFENCE_SKIP_LOG";

/// Runs `play` in a sandbox of that name and checks that nothing is left of it. Without root the test
/// is counted as skipped.
#[track_caller]
pub fn scene(name: &str, play: impl FnOnce(&Sandbox)) {
    if !is_root() {
        skip("needs root");
        return;
    }
    let sandbox = Sandbox::new(name);
    let played = catch_unwind(AssertUnwindSafe(|| play(&sandbox)));
    let left = sandbox.remove();
    if let Err(panic) = played {
        resume_unwind(panic);
    }
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// Says that the running test can't run here, and why.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    if let Some(log) = std::env::var_os(SKIP_LOG) {
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(log)
            .unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
}
