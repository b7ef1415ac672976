//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(30);

/// Doubles from 200 ms to 30 s; each wait is drawn from its upper half, so that the agents of one
/// controller do not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    ceiling: Duration,
    random: RandomState,
    drawn: u64,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self {
            ceiling: FIRST,
            random: RandomState::new(),
            drawn: 0,
        }
    }

    /// Starts again from the shortest wait.
    pub(super) const fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let half = self.ceiling / 2;
        let wait = half + half.mul_f64(self.fraction());
        self.ceiling = (self.ceiling * 2).min(LAST);
        wait
    }

    /// In 0..1. Keyed by the process's random state: good enough to spread, not a secret.
    fn fraction(&mut self) -> f64 {
        self.drawn = self.drawn.wrapping_add(1);
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.drawn);
        let top = u32::try_from(hasher.finish() >> 32).unwrap_or_default();
        f64::from(top) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, FIRST, LAST};

    #[test]
    fn waits_grow_within_bounds_and_start_again() {
        let mut backoff = Backoff::new();
        let mut ceiling = FIRST;
        for _ in 0..20 {
            let wait = backoff.next();
            assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?}");
            ceiling = (ceiling * 2).min(LAST);
        }
        assert_eq!(ceiling, LAST);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn two_agents_wait_differently() {
        let mut one = Backoff::new();
        let mut two = Backoff::new();
        assert!((0..8).any(|_| one.next() != two.next()));
    }
}
