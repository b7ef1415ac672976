//! The clocks: wall time for policy and records, `CLOCK_BOOTTIME` for the kernel.

use std::{fs, time::Duration};

use nix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

/// What a process says of the clocks of its time namespace (`time_namespaces(7)`).
const OFFSETS: &str = "/proc/self/timens_offsets";

/// Makes sure that `CLOCK_BOOTTIME` is the one by which the kernel programs count: `bpf_ktime_get_boot_ns` knows no time
/// namespaces.
///
/// # Errors
/// It is another one, in words.
pub fn check() -> Result<(), String> {
    // A kernel without time namespaces has no such file.
    let offsets = fs::read_to_string(OFFSETS).unwrap_or_default();
    boot_offset(&offsets).map_or(Ok(()), |offset| {
        Err(format!(
            "the agent is in a time namespace whose boot time is {offset} s off the host's: what a policy lets expire would end \
             at the wrong time; start the agent in the host's time namespace"
        ))
    })
}

/// Offset of `CLOCK_BOOTTIME`, where there is one: seconds with a fraction.
fn boot_offset(offsets: &str) -> Option<String> {
    let boot = offsets
        .lines()
        .find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = boot.split_whitespace().map(str::parse::<i64>);
    let (Some(Ok(seconds)), Some(Ok(nanoseconds))) = (numbers.next(), numbers.next()) else {
        return Some("an unknown number of".to_owned());
    };
    ((seconds, nanoseconds) != (0, 0)).then(|| format!("{seconds}.{nanoseconds:09}"))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn only_another_boot_time_is_refused() {
        let ours = "monotonic           0         0\nboottime            0         0\n";
        assert_eq!(boot_offset(ours), None);
        assert_eq!(boot_offset(""), None);
        assert_eq!(boot_offset("monotonic 5 0\nboottime 0 0\n"), None);
        let shifted = "monotonic 0 0\nboottime    -86400 5\n";
        assert_eq!(boot_offset(shifted).as_deref(), Some("-86400.000000005"));
        assert!(boot_offset("boottime x").is_some());
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn a_step_of_the_wall_clock_makes_a_pair_stale_and_moves_its_times() {
        let now = Pair::read();
        assert!(!now.is_stale());
        for (seconds, stale) in [(0, false), (2, true), (-2, true), (86_400 * 365, true)] {
            // As read before somebody set the clock.
            let before = Pair {
                offset_ns: now.offset_ns - seconds * SECOND,
            };
            assert_eq!(before.is_stale(), stale, "{seconds} s");
            let ((then, boot), (after, boot_after)) = (before.now(), now.now());
            let between = i64::try_from(boot_after - boot).unwrap_or(i64::MAX);
            let moved = (after - then).whole_nanoseconds();
            assert_eq!(moved, i128::from(seconds * SECOND + between));
        }
    }
}
