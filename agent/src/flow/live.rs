//! Flows that are open: what revocation looks through.

use std::collections::{HashMap, HashSet};

use ringfence_common::abi::{self, Decision, Owner, Tuple, event, tuple::TCP};

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

/// In what the TCP sockets that there are differ from the table: of a flow from before the agent no event tells, and an
/// event can be lost.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// When it was begun (`CLOCK_BOOTTIME`, nanoseconds): what was opened later may be missing.
    pub began_ns: u64,
    /// Cookies of the network namespaces that it covers.
    pub namespaces: HashSet<u64>,
    /// Cookies of the table that no socket has.
    pub gone: HashSet<u64>,
    /// Flows that are open and were not in the table.
    pub flows: Vec<Live>,
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

    /// Drops TCP flows without a socket and adds those that are not known; false if the table is full.
    pub(super) fn reconcile(&mut self, listing: Listing) -> bool {
        self.flows.retain(|_, flow| {
            let covered = flow.tuple.protocol == TCP
                && flow.opened_ns < listing.began_ns
                && listing.namespaces.contains(&flow.owner.netns);
            !covered || !listing.gone.contains(&flow.cookie)
        });
        if listing.flows.is_empty() {
            return true;
        }
        // Events may have told of them meanwhile, and know better.
        let known = self.cookies();
        let new = listing.flows.into_iter();
        let mut new = new.filter(|flow| !known.contains(&flow.cookie));
        // When one finds no room, neither does the next.
        new.all(|flow| self.insert(flow))
    }

    /// Cookies of the TCP sockets whose flows are held.
    pub(super) fn cookies(&self) -> HashSet<u64> {
        let flows = self.flows.values();
        let tcp = flows.filter(|flow| flow.tuple.protocol == TCP);
        tcp.map(|flow| flow.cookie).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(cookie: u64, protocol: u8, netns: u64, opened_ns: u64) -> Live {
        Live {
            cookie,
            tuple: Tuple {
                protocol,
                ..Tuple::default()
            },
            owner: Owner {
                netns,
                ..Owner::default()
            },
            decision: Decision::default(),
            opened_ns,
        }
    }

    #[test]
    fn a_listing_ends_flows_whose_close_was_lost_and_brings_those_whose_open_was() {
        let mut table = Table::default();
        let gone = flow(1, TCP, 7, 10);
        let there = flow(2, TCP, 7, 10);
        let datagrams = flow(3, 17, 7, 10);
        let elsewhere = flow(4, TCP, 8, 10);
        let later = flow(5, TCP, 7, 100);
        for flow in [gone, there, datagrams, elsewhere, later] {
            assert!(table.insert(flow));
        }
        let lost = flow(6, TCP, 7, 20);
        let other = Live {
            opened_ns: 11,
            ..there
        };
        let listing = Listing {
            began_ns: 100,
            namespaces: [7].into(),
            gone: [1, 3, 4, 5].into(),
            flows: vec![lost, other],
        };
        assert!(table.reconcile(listing));
        let mut cookies: Vec<u64> = table.list().iter().map(|flow| flow.cookie).collect();
        cookies.sort_unstable();
        assert_eq!(cookies, [2, 3, 4, 5, 6]);
        assert!(table.list().contains(&there), "events know better");
    }
}
