//! The verdict that a socket keeps, while other CPUs look at it.
//!
//! Invariant: whoever believes a decision sees the verdict that belongs to its generation and to its expiry.

use core::ptr::{read_volatile, write_volatile};
use ringfence_common::abi::{Decision, Verdict};

use crate::sock;

/// The word that holds generation and verdict, of a decision's four.
const LAST: usize = 3;

/// Whether a decision may still be believed, and lets the packet pass.
#[inline(always)]
pub fn allows(decision: &Decision, generation: u32) -> bool {
    let words = core::ptr::from_ref(decision).cast::<u64>();
    // SAFETY: a decision is four aligned words; the expiry is read first, see `replace`.
    let (until, word) = unsafe { (read_volatile(words), read_volatile(words.add(LAST))) };
    let verdict = (word >> 32) as u8;
    let passes = verdict == Verdict::Allow as u8 || verdict == Verdict::Audit as u8;
    passes && word as u32 == generation && (until == u64::MAX || sock::now() < until)
}

/// Puts a decision in the place of another: the word with generation and verdict first, so that a new
/// expiry is never seen with an old verdict.
///
/// # Safety
/// `place` is a decision in a socket's storage.
#[inline(always)]
pub unsafe fn replace(place: *mut Decision, decision: &Decision) {
    const ORDER: [usize; 4] = [LAST, 0, 1, 2];
    let (from, to) = (
        core::ptr::from_ref(decision).cast::<u64>(),
        place.cast::<u64>(),
    );
    for index in ORDER {
        // SAFETY: the caller's promise; a decision is four aligned words.
        unsafe { write_volatile(to.add(index), *from.add(index)) };
    }
}
