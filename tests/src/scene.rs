//! The frame of a root test.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use io_uring::IoUring;
use nix::libc;

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

/// [`scene`] where the kernel has `io_uring` (it may be left out, or turned off by `kernel.io_uring_disabled`); elsewhere the test
/// is counted as skipped.
#[track_caller]
pub fn with_io_uring(name: &str, play: impl FnOnce(&Sandbox)) {
    if is_root()
        && let Err(error) = IoUring::new(4)
    {
        let known = [libc::ENOSYS, libc::EPERM];
        assert!(
            error.raw_os_error().is_some_and(|it| known.contains(&it)),
            "io_uring: {error}"
        );
        skip(&format!("needs io_uring: {error}"));
        return;
    }
    scene(name, play);
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
