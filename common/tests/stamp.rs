//! The stamp on the expiry of a decision: what is believed while several programs write.

use ringfence_common::logic::stamp::{allows, stamped};

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
/// What a stamp costs at most, nanoseconds.
const STAMP: u64 = 0xffff;

#[test]
fn no_mixture_of_two_decisions_is_an_allow_that_nobody_decided() {
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
