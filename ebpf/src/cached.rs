//! The verdict that a socket or a datagram flow keeps, while other CPUs look at it and write it too.
//!
//! Invariant: no mixture of what several of them write is an allow that none of them decided, nor lasts longer than
//! theirs ([`stamp`]). It needs no order among the words, in which CPUs differ.

use core::{
    mem::offset_of,
    ptr::{read_volatile, write_volatile},
};
use ringfence_common::{
    abi::{Decision, Verdict},
    logic::stamp,
};

use crate::sock;

/// Words of a decision: the first is its expiry, the third says about whom it is, the last holds generation and
/// verdict.
const WORDS: usize = 4;
const _: () = assert!(
    offset_of!(Decision, peer) == 16
        && offset_of!(Decision, direction) == 20
        && offset_of!(Decision, flags) == 21
);
/// Clocks count from the start of the machine: an expiry from here on (292 years) never comes, and is believed
/// without a look at them.
const NEVER: u64 = 1 << 63;

/// Whether a decision may still be believed, and lets the packet pass.
#[inline(always)]
pub fn allows(decision: &Decision, generation: u32) -> bool {
    let words = core::ptr::from_ref(decision).cast::<u64>();
    // SAFETY: a decision is four aligned words.
    let (until, about, word) = unsafe {
        (
            read_volatile(words),
            read_volatile(words.add(WORDS - 2)),
            read_volatile(words.add(WORDS - 1)),
        )
    };
    let verdict = (word >> 32) as u8;
    let passes = verdict == Verdict::Allow as u8 || verdict == Verdict::Audit as u8;
    if !passes || word as u32 != generation {
        return false;
    }
    let now = if until >= NEVER { 0 } else { sock::now() };
    stamp::allows(until, generation, about, now)
}

/// Puts a decision in the place of another, each word as a whole.
///
/// # Safety
/// `place` is a decision in a socket's storage or in a map's value.
#[inline(always)]
pub unsafe fn replace(place: *mut Decision, decision: &Decision) {
    let (from, to) = (
        core::ptr::from_ref(decision).cast::<u64>(),
        place.cast::<u64>(),
    );
    for index in 0..WORDS {
        // SAFETY: the caller's promise; a decision is four aligned words.
        unsafe { write_volatile(to.add(index), *from.add(index)) };
    }
}
