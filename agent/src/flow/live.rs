//! Flows that are open: what revocation looks through.

use std::collections::HashMap;

use ringfence_common::abi::{self, Decision, Owner, Tuple, event};

/// Flows held at most.
const CAPACITY: usize = 1 << 18;

/// A flow that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Socket cookie.
    pub cookie: u64,
    /// Addresses.
    pub tuple: Tuple,
    /// Owner of the local socket, with its network namespace.
    pub owner: Owner,
    /// What was decided.
    pub decision: Decision,
    /// When it was opened (`CLOCK_BOOTTIME`, nanoseconds).
    pub opened_ns: u64,
}

impl Live {
    /// A socket can have several flows (datagrams), and a flow two sockets (loopback).
    #[must_use]
    pub const fn key(&self) -> (u64, Tuple) {
        (self.cookie, self.tuple)
    }
}

/// Open flows by socket and addresses.
#[derive(Default)]
pub(super) struct Table {
    flows: HashMap<(u64, Tuple), Live>,
}

impl Table {
    /// Applies an event; false if the table is full and the flow is not held.
    pub(super) fn apply(&mut self, event: &abi::Event) -> bool {
        let live = Live {
            cookie: event.cookie,
            tuple: event.tuple,
            owner: event.owner,
            decision: event.decision,
            opened_ns: event.opened_ns,
        };
        match event.kind {
            // Of a flow that the kernel does not keep no end will be told.
            event::OPEN if event.flags & event::UNTRACKED != 0 => true,
            event::OPEN => self.insert(live),
            event::CLOSE => {
                self.remove(&live.key());
                true
            }
            _ => true,
        }
    }

    /// Adds a flow; false if the table is full.
    fn insert(&mut self, live: Live) -> bool {
        let key = live.key();
        if self.flows.len() >= CAPACITY && !self.flows.contains_key(&key) {
            return false;
        }
        let _previous = self.flows.insert(key, live);
        true
    }

    fn remove(&mut self, key: &(u64, Tuple)) {
        let _removed = self.flows.remove(key);
    }

    pub(super) fn list(&self) -> Vec<Live> {
        self.flows.values().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }
}
