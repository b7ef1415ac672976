//! Ends of datagram flows: the kernel has no moment at which a UDP or ICMP flow is over, so the agent
//! removes those that are idle or whose socket is closed.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use ringfence_common::abi::{
    Decision, Direction, Event, FlowEntry, FlowKey, event, names,
    tuple::{ICMP, ICMPV6, UDP},
};
use ringfence_common::logic::packet::is_echo;

use super::{error::DatapathError, maps};

/// A UDP flow that was answered ends after this time without a packet (RFC 4787 asks for 2 minutes).
const ANSWERED_NS: u64 = 120_000_000_000;
/// Any other flow.
const UNANSWERED_NS: u64 = 30_000_000_000;

/// The pinned flow map.
pub struct FlowMap {
    map: HashMap<MapData, FlowKey, FlowEntry>,
}

impl FlowMap {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        Ok(Self {
            map: maps::open(directory, names::FLOWS)?,
        })
    }

    /// Removes the flows that are idle at `now_ns` and gives their close records.
    #[must_use]
    pub fn end_idle(&mut self, now_ns: u64) -> Vec<Event> {
        let idle: Vec<_> = self
            .map
            .iter()
            .flatten()
            .filter(|(key, entry)| now_ns.saturating_sub(entry.seen_ns) > patience(key, entry))
            .map(|(key, _)| key)
            .collect();
        idle.iter()
            .filter_map(|key| self.end(key, now_ns))
            .collect()
    }

    /// Removes one flow; its close record.
    pub fn end(&mut self, key: &FlowKey, now_ns: u64) -> Option<Event> {
        let entry = self.map.get(key, 0).ok()?;
        // It may be gone already: then someone else gave its record.
        self.map.remove(key).ok()?;
        Some(close_record(key, &entry, now_ns))
    }
}

/// The key under which the kernel keeps the flow of an open record.
#[must_use]
pub fn key_of(event: &Event) -> FlowKey {
    let tuple = &event.tuple;
    let mut key = FlowKey {
        cookie: event.cookie,
        remote: tuple.remote,
        remote_port: tuple.remote_port,
        protocol: tuple.protocol,
        ..FlowKey::default()
    };
    let kind = u8::try_from(tuple.remote_port).unwrap_or(u8::MAX);
    if is_echo(tuple.protocol, kind) {
        key.remote_port = tuple.local_port;
        key.echo = event.decision.direction;
    }
    key
}

fn patience(key: &FlowKey, entry: &FlowEntry) -> u64 {
    let answered = entry.tx_packets > 0 && entry.rx_packets > 0;
    match key.protocol {
        UDP if answered => ANSWERED_NS,
        _ => UNANSWERED_NS,
    }
}

fn close_record(key: &FlowKey, entry: &FlowEntry, now_ns: u64) -> Event {
    let answered = if entry.decision.direction == Direction::Egress as u8 {
        entry.rx_packets
    } else {
        entry.tx_packets
    };
    let silent_icmp = answered == 0 && matches!(key.protocol, ICMP | ICMPV6);
    Event {
        time_ns: now_ns,
        opened_ns: entry.opened_ns,
        cookie: key.cookie,
        tx_bytes: entry.tx_bytes,
        rx_bytes: entry.rx_bytes,
        tuple: entry.tuple,
        owner: ringfence_common::abi::Owner {
            identity: entry.owner,
            ..ringfence_common::abi::Owner::default()
        },
        decision: Decision { ..entry.decision },
        kind: event::CLOSE,
        flags: if silent_icmp {
            event::NEVER_ESTABLISHED
        } else {
            0
        },
        ..Event::default()
    }
}
