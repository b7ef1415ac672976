//! The clocks: wall time for policy and records, `CLOCK_BOOTTIME` for the kernel.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

/// `CLOCK_BOOTTIME` in nanoseconds.
#[must_use]
pub fn boot_now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .map_or(0, nanoseconds)
}

/// Wall time less `CLOCK_BOOTTIME`, nanoseconds: what is added to a kernel time to show it.
#[must_use]
pub fn boot_to_wall_ns() -> i64 {
    let wall = clock_gettime(ClockId::CLOCK_REALTIME)
        .map(Duration::from)
        .map_or(0, nanoseconds);
    let difference = i128::from(wall) - i128::from(boot_now_ns());
    i64::try_from(difference).unwrap_or(0)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One reading of both clocks. Policies are compiled with the same pair until the wall clock is set,
/// so that unchanged tables compare equal.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    offset_ns: i64,
}

impl Pair {
    /// Reads both.
    #[must_use]
    pub fn read() -> Self {
        Self {
            offset_ns: boot_to_wall_ns(),
        }
    }

    /// Whether the wall clock was set by more than a second since.
    #[must_use]
    pub fn is_stale(self) -> bool {
        (boot_to_wall_ns() - self.offset_ns).abs() > 1_000_000_000
    }

    /// Now, by this pair: wall time and `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn now(self) -> (OffsetDateTime, u64) {
        let boot = boot_now_ns();
        let wall = i128::from(boot) + i128::from(self.offset_ns);
        let wall =
            OffsetDateTime::from_unix_timestamp_nanos(wall).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        (wall, boot)
    }
}
