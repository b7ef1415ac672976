//! Records for user space. A record that finds no room is counted as lost.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated::bpf_ringbuf_query,
};
use ringfence_common::{
    abi::{Count, Decision, Owner, SocketState, Tuple, event, event::Hook},
    logic::record,
};

use crate::{
    maps::{EVENTS, count, count_reason},
    sock,
};

/// The part of the ring, one of so many, that fills before the agent is woken.
const FILLING: u64 = 4;

/// What happened, seen by which hook: `kind`, `hook` and `flags` of the record in one word, because a
/// program's function takes five arguments.
#[derive(Clone, Copy)]
pub struct What(u32);

impl What {
    /// A record of this kind.
    #[inline(always)]
    pub const fn new(kind: u8, hook: Hook) -> Self {
        Self(kind as u32 | (hook as u32) << 8)
    }

    /// The same with flags.
    #[inline(always)]
    pub const fn flagged(self, flags: u8) -> Self {
        Self(self.0 | (flags as u32) << 16)
    }
}

/// Final counters of a connection.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    /// When it was opened.
    pub opened_ns: u64,
    /// Payload bytes sent.
    pub tx_bytes: u64,
    /// Payload bytes received.
    pub rx_bytes: u64,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
}

/// Sends a record; open and deny records count their reason, so that metrics and records agree.
#[inline(never)]
pub fn send(what: What, cookie: u64, tuple: &Tuple, owner: &Owner, decision: &Decision) {
    let kind = what.0 as u8;
    if kind == event::OPEN || kind == event::DENY {
        count_reason(decision.direction, decision.reason);
    }
    write(what, cookie, tuple, owner, decision, &Totals::default());
}

/// Sends the record of a connection that ended.
#[inline(never)]
pub fn close(what: What, cookie: u64, tuple: &Tuple, state: &SocketState, totals: &Totals) {
    write(what, cookie, tuple, &state.owner, &state.decision, totals);
}

#[inline(always)]
fn write(
    what: What,
    cookie: u64,
    tuple: &Tuple,
    owner: &Owner,
    decision: &Decision,
    totals: &Totals,
) {
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(Count::EventLost);
        return;
    };
    let event = entry.as_mut_ptr();
    // Field by field: a whole record does not fit on the stack beside the callers' frames.
    // SAFETY: the reservation holds one `Event`; every field is written before it is submitted.
    unsafe {
        (*event).time_ns = sock::now();
        (*event).opened_ns = totals.opened_ns;
        (*event).cookie = cookie;
        (*event).tx_bytes = totals.tx_bytes;
        (*event).rx_bytes = totals.rx_bytes;
        (*event).tuple = *tuple;
        (*event).owner = *owner;
        (*event).decision = *decision;
        (*event).rtt_us = totals.rtt_us;
        (*event).kind = what.0 as u8;
        (*event).hook = (what.0 >> 8) as u8;
        (*event).flags = (what.0 >> 16) as u8;
        (*event).pad = 0;
    }
    entry.submit(wake_up(what, decision));
    count(Count::EventSent);
}

/// Whether a record wakes the agent: where somebody waits for what it does (judges an executable, resets a
/// connection), or the ring fills. It looks for the others by itself.
#[inline(always)]
fn wake_up(what: What, decision: &Decision) -> u64 {
    let (kind, hook) = (what.0 as u8, (what.0 >> 8) as u8);
    let asks = kind == event::PENDING || kind == event::EXEC;
    let urgent = asks || record::ends(kind, hook, decision.flags);
    if urgent || ring(BPF_RB_AVAIL_DATA) > ring(BPF_RB_RING_SIZE) / FILLING {
        BPF_RB_FORCE_WAKEUP.into()
    } else {
        BPF_RB_NO_WAKEUP.into()
    }
}

/// What the ring says of itself, bytes.
#[inline(always)]
fn ring(what: u32) -> u64 {
    let map = core::ptr::from_ref(&EVENTS).cast_mut().cast();
    // SAFETY: the map is a ring; the helper only reads it (kernel 5.8).
    unsafe { bpf_ringbuf_query(map, what.into()) }
}

/// Asks the agent to judge an executable.
#[inline(always)]
pub fn ask_about(owner: &Owner, hook: Hook, cookie: u64) {
    send_owner(What::new(event::PENDING, hook), cookie, owner);
}

/// Sends a record that is about nothing but a process. A frame of its own: on the caller's there is no room.
#[inline(never)]
pub fn send_owner(what: What, cookie: u64, owner: &Owner) {
    let (tuple, decision) = (Tuple::default(), Decision::default());
    send(what, cookie, &tuple, owner, &decision);
}
