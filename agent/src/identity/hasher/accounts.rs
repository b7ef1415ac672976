//! How much is read for whom: so much at once, and so much a second from then on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::super::Asker;

/// Bytes that a file costs at least each time it is read from: opening it is work, too.
const LEAST: u64 = 1 << 16;
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What has been read for each asker lately.
#[derive(Debug)]
pub(super) struct Accounts {
    rate: u64,
    burst: Duration,
    /// When what was read would have been read at the rate. Times that are over are left out.
    paid: BTreeMap<Asker, Instant>,
}

impl Accounts {
    /// `rate` in bytes a second, at least 1; `burst` bytes at once.
    pub fn new(rate: u64, burst: u64) -> Self {
        let rate = rate.max(1);
        Self {
            rate,
            burst: duration(burst, rate),
            paid: BTreeMap::new(),
        }
    }

    /// How long nothing more is read for an asker.
    pub fn wait(&self, asker: Asker, now: Instant) -> Duration {
        let paid = self.paid.get(&asker);
        let ahead = paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now));
        ahead.saturating_sub(self.burst)
    }

    /// Notes that so many bytes of a file were read.
    pub fn charge(&mut self, asker: Asker, bytes: u64, now: Instant) {
        self.paid.retain(|_, paid| *paid > now);
        let paid = self.paid.entry(asker).or_insert(now);
        *paid += duration(bytes.max(LEAST), self.rate);
    }
}

/// What so many bytes take at the rate: a year at most, so that no sum of them is too large for a clock.
fn duration(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
    u64::try_from(nanos).map_or(YEAR, |nanos| Duration::from_nanos(nanos).min(YEAR))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Asker = Asker::User(1);
    const TWO: Asker = Asker::User(2);
    const MIB: u64 = 1 << 20;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds_for_each_alone() {
        let now = Instant::now();
        let mut accounts = Accounts::new(MIB, 4 * MIB);
        for _ in 0..4 {
            assert_eq!(accounts.wait(ONE, now), Duration::ZERO);
            accounts.charge(ONE, MIB, now);
        }
        assert_eq!(accounts.wait(ONE, now), Duration::ZERO);
        accounts.charge(ONE, MIB, now);
        assert_eq!(accounts.wait(ONE, now), Duration::from_secs(1));
        assert_eq!(accounts.wait(TWO, now), Duration::ZERO);
        let later = now + Duration::from_secs(1);
        assert_eq!(accounts.wait(ONE, later), Duration::ZERO);
        let idle = now + Duration::from_secs(6);
        accounts.charge(TWO, MIB, idle);
        assert_eq!(accounts.paid.len(), 1, "what is over is forgotten");
    }

    #[test]
    fn files_without_content_cost_something() {
        let now = Instant::now();
        let mut accounts = Accounts::new(LEAST, 0);
        accounts.charge(ONE, 0, now);
        assert_eq!(accounts.wait(ONE, now), Duration::from_secs(1));
    }

    #[test]
    fn no_number_is_too_large() {
        let now = Instant::now();
        for (rate, burst) in [(1, u64::MAX), (u64::MAX, u64::MAX), (1, 0), (0, 0)] {
            let mut accounts = Accounts::new(rate, burst);
            for _ in 0..3 {
                accounts.charge(ONE, u64::MAX, now);
            }
            let _ = accounts.wait(ONE, now);
        }
    }
}
