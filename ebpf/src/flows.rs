//! What is remembered of datagram flows that were allowed: decision, peer and counters, in a bounded map.
//! A flow that finds no room goes to a map that evicts the least recently used: it has no close record,
//! but its replies pass. Refusals are kept elsewhere, so that they take no room here.

use ringfence_common::abi::{
    Count, Decision, Direction, FlowEntry, FlowKey, Owner, event, event::Hook, socket::REVOKED,
};

use crate::{
    cached,
    datagram::Seen,
    emit::{self, What},
    maps::{FLOWS, OVERFLOW, count},
    policy::passes,
    refusal, sock,
};

/// A flow in `OVERFLOW` is over after this time without a packet.
const OVERFLOW_NS: u64 = 30_000_000_000;
/// Answers to a flow that was refused on the way are expected for this time.
const LATE_NS: u64 = 5_000_000_000;

/// What is remembered of a flow.
#[inline(always)]
pub fn find<'a>(key: &FlowKey) -> Option<&'a mut FlowEntry> {
    if let Some(entry) = FLOWS.get_ptr_mut(key) {
        // SAFETY: an entry is integers only; several CPUs may count at once and lose a packet.
        return Some(unsafe { &mut *entry });
    }
    let entry = OVERFLOW.get_ptr_mut(key)?;
    // SAFETY: as above.
    let entry = unsafe { &mut *entry };
    (sock::now().wrapping_sub(entry.seen_ns) < OVERFLOW_NS).then_some(entry)
}

/// Whether a flow still passes: the same owner, the same peer, and a verdict that holds. Refusals are never
/// believed, but judged anew.
#[inline(never)]
pub fn stands(entry: &FlowEntry, seen: &Seen) -> bool {
    let peer = entry.decision.peer == seen.ask.peer || seen.peer_gone != 0;
    peer && entry.owner == seen.ask.identity && cached::allows(&entry.decision, seen.ask.generation)
}

/// Whether a flow that is refused was opened from here, and what comes from the peer may still answer it.
#[inline(always)]
pub fn was_ours(entry: &FlowEntry, now: u64) -> bool {
    entry.decision.direction == Direction::Egress as u8 && now.wrapping_sub(entry.seen_ns) < LATE_NS
}

/// Remembers and records a judgement.
#[inline(never)]
pub fn judged(seen: &Seen, owner: &Owner, decision: &mut Decision, hook: Hook) {
    let pass = passes(decision);
    let Some(entry) = find(&seen.key) else {
        if pass {
            let what = What::new(event::OPEN, hook).flagged(store(seen, owner, decision, hook));
            emit::send(what, seen.key.cookie, &seen.ask.tuple, owner, decision);
        } else {
            refusal::record(hook, &seen.key, &seen.ask, owner, decision);
        }
        return;
    };
    count(Count::Rejudged);
    let passed = passes(&entry.decision);
    if !passed && !pass {
        refusal::record(hook, &seen.key, &seen.ask, owner, decision);
        return;
    }
    let same = passed == pass
        && entry.decision.direction == decision.direction
        && entry.decision.peer == decision.peer
        && entry.owner == owner.identity;
    if passed && !pass {
        decision.flags |= REVOKED;
    }
    // SAFETY: a decision in the map's value.
    unsafe { cached::replace(&raw mut entry.decision, decision) };
    entry.owner = owner.identity;
    if pass {
        account(entry, seen, hook);
    } else {
        entry.seen_ns = seen.ask.now;
    }
    if same {
        return;
    }
    let kind = if pass { event::OPEN } else { event::DENY };
    let cookie = seen.key.cookie;
    emit::send(
        What::new(kind, hook),
        cookie,
        &seen.ask.tuple,
        owner,
        decision,
    );
}

/// Remembers a new flow; answers the flags of its open record.
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, of which there are 512 bytes"
)]
fn store(seen: &Seen, owner: &Owner, decision: &Decision, hook: Hook) -> u8 {
    let mut entry = FlowEntry {
        decision: *decision,
        opened_ns: seen.ask.now,
        seen_ns: seen.ask.now,
        tx_bytes: 0,
        rx_bytes: 0,
        tx_packets: 0,
        rx_packets: 0,
        tuple: seen.ask.tuple,
        owner: owner.identity,
        pad: 0,
    };
    account(&mut entry, seen, hook);
    if FLOWS.insert(&seen.key, &entry, 0).is_ok() {
        return 0;
    }
    count(Count::FlowMapFull);
    // The map evicts instead of being full; should it fail, the flow is judged anew.
    let _ = OVERFLOW.insert(&seen.key, &entry, 0);
    event::UNTRACKED
}

/// Counts a packet of a flow.
#[inline(always)]
pub fn account(entry: &mut FlowEntry, seen: &Seen, hook: Hook) {
    entry.seen_ns = seen.ask.now;
    if hook as u8 == Hook::Ingress as u8 {
        entry.rx_bytes += u64::from(seen.payload);
        entry.rx_packets += 1;
    } else {
        entry.tx_bytes += u64::from(seen.payload);
        entry.tx_packets += 1;
    }
}

/// Whether a datagram that a process is about to send goes to a peer who asked this socket, and was let in.
#[inline(never)]
pub fn is_answered(seen: &Seen) -> bool {
    let Some(entry) = find(&seen.key) else {
        return false;
    };
    passes(&entry.decision)
        && entry.decision.direction == Direction::Ingress as u8
        && entry.owner == seen.ask.identity
}

/// Whether a datagram that a process is about to send belongs to a flow that passes.
#[inline(never)]
pub fn is_allowed(seen: &Seen) -> bool {
    let Some(entry) = find(&seen.key) else {
        return false;
    };
    entry.owner == seen.ask.identity && cached::allows(&entry.decision, seen.ask.generation)
}
