//! Deny records: one for a refused flow, not one for each retransmission or datagram, and a few for a call
//! that is refused over and over. What was recorded is remembered by least recent use, so that a flood of
//! refusals takes nothing from the flows that are allowed.
//!
//! Each workload has so many records to give, whatever it is refused: what one does pushes nobody else's
//! records out. What is left out is counted.

use ringfence_common::{
    abi::{
        Count, Decision, Direction, FlowKey, Owner, Refusal, Refuser, Tuple, event, event::Hook,
        identity,
    },
    logic::bucket,
};

use crate::{
    emit::{self, What},
    maps::{DENIED, REFUSERS, count, is_armed},
    policy::Ask,
    sock::{self, words},
};

/// A refused flow that goes on is recorded again after this time (the last retransmission of a SYN comes
/// 63 s after the first with the kernel's default of 6 retries).
const AGAIN_NS: u64 = 130_000_000_000;
/// In this time the same call of one workload is recorded so often.
const CALLS_NS: u64 = 10_000_000_000;
const CALLS: u16 = 64;
/// Records that a workload has at once, and time until it gets one more.
const BURST: u64 = 1024;
const ONE_MORE_NS: u64 = 50_000_000;
/// Bit of a key of `REFUSERS` that is an identity.
const BY_IDENTITY: u64 = 1 << 63;

/// Records a refused packet, unless the same was recorded for this flow lately.
#[inline(never)]
pub fn record(hook: Hook, flow: &FlowKey, ask: &Ask, owner: &Owner, decision: &Decision) {
    let key = FlowKey {
        echo: ask.direction,
        ..*flow
    };
    if is_armed() && is_news(&key, decision) && may_record(owner) {
        let what = What::new(event::DENY, hook);
        emit::send(what, flow.cookie, &ask.tuple, owner, decision);
    }
}

/// Records a refused call, unless the same workload was refused the same very often lately, by whatever
/// socket.
#[inline(never)]
pub fn of_call(hook: Hook, cookie: u64, tuple: &Tuple, owner: &Owner, decision: &Decision) {
    let mut key = FlowKey {
        cookie: who(owner),
        remote_port: tuple.remote_port,
        protocol: tuple.protocol,
        echo: decision.direction,
        call: 1,
        ..FlowKey::default()
    };
    if decision.direction == Direction::Listen as u8 {
        key.remote_port = tuple.local_port;
        sock::set(&mut key.remote, words(&tuple.local));
    } else {
        sock::set(&mut key.remote, words(&tuple.remote));
    }
    if is_armed() && is_news(&key, decision) && may_record(owner) {
        emit::send(What::new(event::DENY, hook), cookie, tuple, owner, decision);
    }
}

/// Whether the workload may have one more refusal recorded; else it is counted.
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, of which there are 512 bytes"
)]
pub fn may_record(owner: &Owner) -> bool {
    let now = sock::now();
    let key = who(owner);
    let Some(refuser) = REFUSERS.get_ptr_mut(&key) else {
        let first = Refuser {
            at_ns: now,
            left: BURST - 1,
        };
        // The map evicts instead of being full; should it fail, the record is sent.
        let _ = REFUSERS.insert(&key, &first, 0);
        return true;
    };
    // SAFETY: a map value of plain integers; CPUs that write it at once grant a record too many.
    let refuser = unsafe { &mut *refuser };
    let granted = bucket::take(refuser, now, BURST, ONE_MORE_NS);
    if !granted {
        count(Count::RefusalFolded);
    }
    granted
}

/// Whether a refusal is not the repetition of one that was recorded; else it is counted.
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, of which there are 512 bytes"
)]
fn is_news(key: &FlowKey, decision: &Decision) -> bool {
    let (time, most) = if key.call != 0 {
        (CALLS_NS, CALLS)
    } else {
        (AGAIN_NS, 1)
    };
    let now = sock::now();
    let (rule, reason) = (decision.rule, u16::from(decision.reason));
    if let Some(before) = DENIED.get_ptr_mut(key) {
        // SAFETY: a map value of plain integers; CPUs that write it at once record one too many.
        let before = unsafe { &mut *before };
        let same = before.rule == rule && before.reason == reason;
        if same && now.wrapping_sub(before.at_ns) < time {
            if before.times >= most {
                count(Count::RefusalFolded);
                return false;
            }
            before.times += 1;
            return true;
        }
        before.at_ns = now;
        before.rule = rule;
        before.reason = reason;
        before.times = 1;
        return true;
    }
    let first = Refusal {
        at_ns: now,
        rule,
        reason,
        times: 1,
    };
    // The map evicts instead of being full; should it fail, the record is repeated.
    let _ = DENIED.insert(key, &first, 0);
    true
}

/// Who is refused, as a key: a workload wherever it runs, anybody else by the cgroup.
#[inline(always)]
fn who(owner: &Owner) -> u64 {
    if identity::is_workload(owner.identity) {
        BY_IDENTITY | u64::from(owner.identity)
    } else {
        owner.cgroup
    }
}
