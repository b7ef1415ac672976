//! A token bucket: so many at once, and one more after each interval.

use crate::abi::Refuser;

/// Takes one of what is left; false when nothing is. `now` and `interval_ns` are nanoseconds of one clock; a
/// bucket of zeros is full, unless the clock is younger than `burst` intervals. No interval: nothing more.
#[inline(always)]
pub fn take(bucket: &mut Refuser, now: u64, burst: u64, interval_ns: u64) -> bool {
    // Another CPU may have read its clock a moment later.
    let passed = now.saturating_sub(bucket.at_ns);
    let granted = passed.checked_div(interval_ns).unwrap_or(0);
    if granted >= burst {
        bucket.at_ns = now;
        bucket.left = burst;
    } else if granted > 0 {
        bucket.at_ns = bucket.at_ns.wrapping_add(granted * interval_ns);
        bucket.left = (bucket.left + granted).min(burst);
    }
    if bucket.left == 0 {
        return false;
    }
    bucket.left -= 1;
    true
}
