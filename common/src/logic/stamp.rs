//! A decision that one program reads while others write it, word by word and in whatever order the CPUs make
//! of it.
//!
//! Invariant: whoever believes an allow believes one that was decided, under the generation that he asks for,
//! until the time that was decided with it. The expiry alone proves that: its lowest bits are a stamp, the
//! generation's for an allow and its complement for a deny. So an expiry that is believed was written by who
//! allowed, and no mixture of two decisions lasts longer than one of them: the word with generation and verdict can
//! only take away from it. (A stamp stands for 2^16 generations: a writer would have to pause between two words
//! while that many come and go.)

/// Bits of an expiry that are its stamp; they cost 65,536 ns of it.
const STAMP: u64 = 0xffff;

/// The expiry, in nanoseconds, of an allow or a deny, as it is stored.
#[inline(always)]
#[must_use]
pub const fn stamped(until: u64, generation: u32, allows: bool) -> u64 {
    let stamp = if allows { generation } else { !generation };
    (until & !STAMP) | (stamp as u64 & STAMP)
}

/// Whether a stored expiry belongs to an allow of this generation and has not come.
#[inline(always)]
#[must_use]
pub const fn allows(until: u64, generation: u32, now: u64) -> bool {
    (until ^ generation as u64) & STAMP == 0 && now < until
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expiry and the word with generation and verdict, as one writer stores them.
    #[derive(Clone, Copy)]
    struct Stored {
        until: u64,
        generation: u32,
        allows: bool,
    }

    impl Stored {
        const fn new(until: u64, generation: u32, allows: bool) -> Self {
            Self {
                until: stamped(until, generation, allows),
                generation,
                allows,
            }
        }

        fn allows_at(self, generation: u32, now: u64) -> bool {
            self.allows && self.generation == generation && now < self.until
        }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn no_mixture_of_three_decisions_is_an_allow_that_nobody_decided() {
        let times = [0, SECOND, 2 * SECOND, u64::MAX];
        let mut all = Vec::new();
        for until in times {
            for generation in [7, 8] {
                for allows in [true, false] {
                    all.push(Stored::new(until, generation, allows));
                }
            }
        }
        let mut believed = 0;
        for first in &all {
            for second in &all {
                // Whatever the order of their stores: any expiry with any verdict.
                for (until, verdict) in [(first, second), (second, first)] {
                    for now in [0, SECOND + SECOND / 2, 3 * SECOND] {
                        let generation = verdict.generation;
                        if verdict.allows && allows(until.until, generation, now) {
                            believed += 1;
                            assert!(until.allows_at(generation, now));
                        }
                    }
                }
            }
        }
        assert!(believed > 0);
    }

    #[test]
    fn an_expiry_is_kept_but_for_its_stamp() {
        for generation in [0, 1, 0xffff, 0x1_0000, u32::MAX] {
            let until = stamped(5 * SECOND, generation, true);
            assert!(until.abs_diff(5 * SECOND) <= STAMP);
            assert!(allows(until, generation, 4 * SECOND));
            assert!(!allows(until, generation, 6 * SECOND));
            assert!(!allows(until, generation.wrapping_add(1), 4 * SECOND));
            let without_end = stamped(u64::MAX, generation, true);
            assert!(allows(without_end, generation, u64::MAX - STAMP - 1));
            let denied = stamped(u64::MAX, generation, false);
            assert!(!allows(denied, generation, 0));
        }
    }
}
