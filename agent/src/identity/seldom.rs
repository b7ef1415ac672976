//! Lines of the log that others can cause, kept to one a minute.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// Lets one of a kind through a minute, and counts the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Seldom {
    next: Option<Instant>,
    kept_back: u64,
}

impl Seldom {
    /// How many were kept back before this one; `None` where this one is, too.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.kept_back += 1;
            return None;
        }
        self.next = Some(now + PAUSE);
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_passes_and_the_others_are_counted() {
        let mut seldom = Seldom::default();
        let now = Instant::now();
        assert_eq!(seldom.pass(now), Some(0));
        for _ in 0..3 {
            assert_eq!(seldom.pass(now + PAUSE / 2), None);
        }
        assert_eq!(seldom.pass(now + PAUSE), Some(3));
        assert_eq!(seldom.pass(now + PAUSE * 2), Some(0));
    }
}
