//! A decision that one program reads while others write it, word by word and in whatever order the CPUs make
//! of it.
//!
//! Invariant: whoever believes an allow believes one that was decided, under the generation that he asks for,
//! until the time that was decided with it. The expiry alone proves that: its lowest bits are a stamp, the
//! generation's for an allow and its complement for a deny. So an expiry that is believed was written by who
//! allowed, and no mixture of two decisions lasts longer than one of them: the word with generation and verdict can
//! only take away from it. (A stamp stands for 2^16 generations: a writer would have to pause between two words
//! while that many come and go.)

/// Bits of an expiry that are its stamp; they cost up to 65,536 ns of it, and never lengthen it.
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
    (until ^ generation as u64) & STAMP == 0 && now < until & !STAMP
}
