//! A decision that one program reads while others write it, word by word and in whatever order the CPUs make
//! of it.
//!
//! Invariant: whoever believes an allow believes one that was decided, under the generation that he asks for, about
//! the peer and the direction that stand beside it, until the time that was decided with it. The expiry alone proves
//! that: its lowest bits are a stamp, of the verdict (one bit of its own), the generation, the peer, whether that is
//! proved, and the direction. So an expiry that is believed was written by who allowed, and no mixture of two
//! decisions lasts longer than one of them: the word with generation and verdict can only take away from it. (A stamp
//! stands for 2^15 generations, and of two peers with one in 2^15: a writer would have to pause between two words
//! while that many generations come and go, or beside one of such a pair.)

use crate::abi::Decision;

/// Bits of an expiry that are its stamp; they cost up to 65,536 ns of it, and never lengthen it.
const STAMP: u64 = 0xffff;
/// The bit of a stamp that is set for a deny.
const DENY: u64 = 1;
/// What is stamped of the word with peer, direction and flags (`abi::Decision`): the peer, the direction, and of the
/// flags that the peer is proved. The others are added after the decision.
const ABOUT: u64 = 0x02ff_ffff_ffff;
/// Spreads the bits of a word over its highest ones (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The word of a decision with peer, direction and flags, as it lies in memory.
#[inline(always)]
#[must_use]
pub const fn about(decision: &Decision) -> u64 {
    decision.peer as u64 | (decision.direction as u64) << 32 | (decision.flags as u64) << 40
}

/// The expiry, in nanoseconds, of an allow or a deny [`about`] somebody, as it is stored.
#[inline(always)]
#[must_use]
pub const fn stamped(until: u64, generation: u32, about: u64, allows: bool) -> u64 {
    let verdict = if allows { 0 } else { DENY };
    (until & !STAMP) | of(generation, about) | verdict
}

/// Whether a stored expiry belongs to an allow of this generation [`about`] this peer, and has not come.
#[inline(always)]
#[must_use]
pub const fn allows(until: u64, generation: u32, about: u64, now: u64) -> bool {
    until & STAMP == of(generation, about) && now < until & !STAMP
}

/// The stamp of an allow.
#[inline(always)]
const fn of(generation: u32, about: u64) -> u64 {
    let mixed = (about & ABOUT).wrapping_mul(SPREAD) >> 48;
    (mixed ^ (generation as u64) << 1) & STAMP & !DENY
}
