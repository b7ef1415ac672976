//! The failsafe list: inbound flows that no policy can cut.

use super::address::in_network;
use crate::abi::FailsafeEntry;

/// Whether `entry` covers an inbound flow from `remote` to the local `port`.
#[must_use]
#[inline(always)]
pub fn covers(entry: &FailsafeEntry, remote: &[u8; 16], protocol: u8, port: u16) -> bool {
    names(entry, protocol, port) && in_network(remote, &entry.address, entry.prefix)
}

/// Whether `entry` names the local `port`, from wherever it may be called.
#[must_use]
#[inline(always)]
pub fn names(entry: &FailsafeEntry, protocol: u8, port: u16) -> bool {
    entry.protocol == protocol && entry.first_port <= port && port <= entry.last_port
}
