//! Passes the judgement of an inbound SYN or ACK from the ingress hook to the hook that runs next on
//! the same CPU in the same softirq (SYN-ACK at egress, `PASSIVE_ESTABLISHED` in `sock_ops`), which
//! can't look up the peer's socket itself. The tuple is compared: a stranger's handoff is not believed.

use ringfence_common::abi::{Decision, Tuple};

use crate::{maps::HANDOFF, sock::words};

/// Leaves a judgement for the next hook.
#[inline(always)]
pub fn leave(tuple: &Tuple, decision: &Decision) {
    if let Some(slot) = HANDOFF.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own.
        unsafe {
            (*slot).tuple = *tuple;
            (*slot).decision = *decision;
        }
    }
}

/// The judgement that the hook before left about this tuple under this generation.
#[inline(always)]
pub fn take(tuple: &Tuple, generation: u32) -> Option<Decision> {
    let slot = HANDOFF.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own.
    let slot = unsafe { &mut *slot };
    if !same(&slot.tuple, tuple) || slot.decision.generation != generation {
        return None;
    }
    let decision = slot.decision;
    Some(decision)
}

/// Whether the hook before let this tuple pass under this generation. (A SYN that was refused is
/// answered by nobody.)
#[inline(never)]
pub fn passed(tuple: &Tuple, generation: u32) -> bool {
    let Some(slot) = HANDOFF.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the slot is this CPU's own.
    let slot = unsafe { &*slot };
    same(&slot.tuple, tuple) && slot.decision.generation == generation
}

/// Comparison word by word: `==` on arrays becomes a call to `memcmp`, which no program has.
#[inline(always)]
fn same(a: &Tuple, b: &Tuple) -> bool {
    let [a0, a1, a2, a3] = words(&a.local);
    let [b0, b1, b2, b3] = words(&b.local);
    let [c0, c1, c2, c3] = words(&a.remote);
    let [d0, d1, d2, d3] = words(&b.remote);
    let local = (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3);
    let remote = (c0 ^ d0) | (c1 ^ d1) | (c2 ^ d2) | (c3 ^ d3);
    let ports = (a.local_port ^ b.local_port) | (a.remote_port ^ b.remote_port);
    local | remote == 0 && ports == 0
}
