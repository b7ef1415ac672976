//! How many a bucket gives.

use ringfence_common::{abi::Refuser, logic::bucket::take};

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_bucket_gives_what_it_has_and_one_more_after_each_interval() {
    let mut bucket = Refuser::default();
    let mut taken = |now: u64| {
        (0..50)
            .filter(|_| take(&mut bucket, now, 10, SECOND))
            .count()
    };
    assert_eq!(taken(100 * SECOND), 10, "all at once");
    assert_eq!(taken(100 * SECOND + SECOND - 1), 0);
    assert_eq!(taken(101 * SECOND), 1);
    assert_eq!(taken(103 * SECOND + SECOND / 2), 2);
    assert_eq!(taken(104 * SECOND), 1, "no part of an interval is lost");
    assert_eq!(taken(1_000 * SECOND), 10, "and never more than it holds");
}

#[test]
fn a_flood_gets_no_more_than_the_rate() {
    let mut bucket = Refuser::default();
    let step = SECOND / 10_000;
    let times = (0..50_000_u64).map(|index| 100 * SECOND + index * step);
    let taken = times
        .filter(|now| take(&mut bucket, *now, 100, SECOND / 100))
        .count();
    assert_eq!(taken, 100 + 499);
}

#[test]
fn a_clock_that_another_cpu_has_read_earlier_gives_nothing_away() {
    let mut bucket = Refuser {
        at_ns: 100 * SECOND,
        left: 0,
    };
    assert!(!take(&mut bucket, 99 * SECOND, 10, SECOND));
    assert_eq!(bucket.at_ns, 100 * SECOND);
}
