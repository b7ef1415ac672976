//! What the store counts. Written by the store and the reader, read by metrics and status.

use std::sync::atomic::{AtomicU64, Ordering};

use ringfence_common::abi::{Verdict, event};

use super::Record;

/// What happened to a flow, as a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Opened.
    Open,
    /// Ended.
    Close,
    /// Refused or revoked.
    Deny,
}

impl Event {
    /// Every event with its name.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Open, "open"),
        (Self::Close, "close"),
        (Self::Deny, "deny"),
    ];

    const fn from_kind(kind: u8) -> Option<Self> {
        match kind {
            event::OPEN => Some(Self::Open),
            event::CLOSE => Some(Self::Close),
            event::DENY => Some(Self::Deny),
            _ => None,
        }
    }
}

/// What the store counts, for metrics and status.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) queue_full: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) live_full: AtomicU64,
    pub(super) live: AtomicU64,
    /// By event, then by verdict; verdict 0 is any without a name.
    flows: [[AtomicU64; 4]; 3],
}

impl Counters {
    /// Records lost because the queue of the store was full.
    #[must_use]
    pub fn queue_full(&self) -> u64 {
        self.queue_full.load(Ordering::Relaxed)
    }

    /// Records that the log has dropped for newer ones.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Open flows that the table of live flows had no room for.
    #[must_use]
    pub fn live_full(&self) -> u64 {
        self.live_full.load(Ordering::Relaxed)
    }

    /// Flows that are open.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Records so far with this event and verdict.
    #[must_use]
    pub fn flows(&self, event: Event, verdict: Verdict) -> u64 {
        let slot = self
            .flows
            .get(event as usize)
            .and_then(|row| row.get(verdict as usize));
        slot.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn count(&self, record: &Record) {
        let verdict = Verdict::from_number(record.event.decision.verdict).map_or(0, |v| v as usize);
        let slot = Event::from_kind(record.event.kind)
            .and_then(|event| self.flows.get(event as usize))
            .and_then(|row| row.get(verdict));
        if let Some(count) = slot {
            let _before = count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
