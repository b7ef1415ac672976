//! Waiting for something to become true, with a generous deadline.

use std::{
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test calls it failed: far beyond what a loaded machine needs. An emulated
/// machine is given more by `RINGFENCE_PATIENCE`, seconds.
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("RINGFENCE_PATIENCE").map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(20))
});

/// Asks until there is an answer; `None` after [`PATIENCE`].
pub fn poll<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + *PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `holds`; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = poll(|| holds().then_some(()));
    assert!(held.is_some(), "not within {:?}: {what}", *PATIENCE);
}
