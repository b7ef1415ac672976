//! Deny records of packets: one for a refused flow, not one for each retransmission or datagram. What
//! was recorded is remembered by least recent use, so that a flood of refusals takes nothing from the
//! flows that are allowed.

use ringfence_common::abi::{Decision, FlowKey, Owner, Refusal, event, event::Hook};

use crate::{
    emit::{self, What},
    maps::DENIED,
    policy::Ask,
};

/// A refusal that goes on is recorded again after this time (the last retransmission of a SYN comes
/// 63 s after the first with the kernel's default of 6 retries).
const AGAIN_NS: u64 = 130_000_000_000;

/// Records a refusal, unless the same was recorded for this flow lately.
#[inline(never)]
pub fn record(hook: Hook, flow: &FlowKey, ask: &Ask, owner: &Owner, decision: &Decision) {
    let key = FlowKey {
        echo: ask.direction,
        ..*flow
    };
    let now = Refusal {
        at_ns: ask.now,
        rule: decision.rule,
        reason: u32::from(decision.reason),
    };
    // SAFETY: the value is copied at once.
    if let Some(before) = unsafe { DENIED.get(key).copied() } {
        let same = before.rule == now.rule && before.reason == now.reason;
        if same && now.at_ns.wrapping_sub(before.at_ns) < AGAIN_NS {
            return;
        }
    }
    // The map evicts instead of being full; should it fail, the record is repeated.
    let _ = DENIED.insert(key, now, 0);
    let what = What::new(event::DENY, hook);
    emit::send(what, flow.cookie, &ask.tuple, owner, decision);
}
