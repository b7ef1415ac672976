//! When the sockets are looked at: soon after a reason, and seldom where a look takes long.

use std::time::Duration;

/// Looks once there is a reason: what changes during one is seen by the next.
const LOOKS: u32 = 2;
/// Ticks after which there is a reason anyhow, and between two looks at most.
const EVERY: u32 = 60;
/// A look that takes less may follow the one before at the next tick.
const SHORT: Duration = Duration::from_millis(100);
/// Of its time a look may take one part in so many.
const SHARE: u32 = 20;

/// Counts ticks of a second.
#[derive(Debug)]
pub(super) struct Pace {
    looks: u32,
    since: u32,
    idle: u32,
    pause: u32,
    lost: u64,
}

impl Pace {
    /// There is a reason at the start.
    pub const fn new(lost: u64) -> Self {
        Self {
            looks: LOOKS,
            since: 0,
            idle: 0,
            pause: 1,
            lost,
        }
    }

    /// Whether to look now, when so many events were lost since the start.
    pub const fn tick(&mut self, lost: u64) -> bool {
        self.since = self.since.saturating_add(1);
        self.idle += 1;
        if lost != self.lost || self.idle >= EVERY {
            (self.looks, self.idle, self.lost) = (LOOKS, 0, lost);
        }
        if self.since < self.pause {
            return false;
        }
        if self.looks == 0 {
            self.pause = 1;
            return false;
        }
        (self.looks, self.since) = (self.looks - 1, 0);
        true
    }

    /// A look took so long, and saw all or has to be repeated.
    pub fn looked(&mut self, took: Duration, all: bool) {
        if !all {
            self.looks = LOOKS;
        }
        self.pause = if took < SHORT {
            1
        } else {
            let least = took.saturating_mul(SHARE).as_secs();
            let least = u32::try_from(least).unwrap_or(EVERY);
            (self.pause * 2).max(least).min(EVERY)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ticks of so many at which was looked, where each look takes so long.
    fn looks(
        pace: &mut Pace,
        ticks: u32,
        took: Duration,
        mut lost: impl FnMut(u32) -> u64,
    ) -> Vec<u32> {
        let mut at = Vec::new();
        for tick in 1..=ticks {
            if pace.tick(lost(tick)) {
                pace.looked(took, true);
                at.push(tick);
            }
        }
        at
    }

    #[test]
    fn two_looks_follow_a_reason_and_one_comes_each_minute() {
        let short = Duration::from_millis(5);
        let lost = |tick| u64::from(tick >= 10);
        let at = looks(&mut Pace::new(0), 100, short, lost);
        assert_eq!(at, [1, 2, 10, 11, 70, 71]);
    }

    #[test]
    fn looks_that_take_long_become_rare_while_events_are_lost() {
        let mut pace = Pace::new(0);
        let always = u64::from;
        let at = looks(&mut pace, 200, Duration::from_millis(200), always);
        assert_eq!(at, [1, 5, 13, 29, 61, 121, 181]);
        let at = looks(&mut Pace::new(0), 100, Duration::from_secs(2), always);
        assert_eq!(at, [1, 41], "no more than a twentieth of the time");
        // Once it is quiet for long enough, a reason is looked at at once.
        let quiet = looks(&mut pace, 119, Duration::from_millis(5), |_| 200);
        assert!(quiet.len() <= 4, "{quiet:?}");
        assert_eq!(looks(&mut pace, 1, Duration::ZERO, |_| 300), [1]);
    }

    #[test]
    fn what_one_look_does_not_see_another_does() {
        let mut pace = Pace::new(0);
        for _ in 0..10 {
            assert!(pace.tick(0));
            pace.looked(Duration::ZERO, false);
        }
    }
}
