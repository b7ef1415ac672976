//! Datagram and ICMP flows.

use super::{Decision, Tuple, abi_type};

/// Key of `FLOWS`: one flow of one socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Socket cookie.
    pub cookie: u64,
    /// Addresses; for ICMP echo the remote port is 0 for both request and reply.
    pub tuple: Tuple,
}
abi_type!(FlowKey, size = 48, align = 8);

/// Value of `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// What was decided.
    pub decision: Decision,
    /// When it was opened (`CLOCK_BOOTTIME`, nanoseconds).
    pub opened_ns: u64,
    /// When the last packet was seen.
    pub seen_ns: u64,
    /// Payload bytes sent by the local socket (without IP and transport headers).
    pub tx_bytes: u64,
    /// Payload bytes received by the local socket.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u32,
    /// Packets received.
    pub rx_packets: u32,
    /// Identity of the socket's owner when it was judged.
    pub owner: u32,
    /// Thread group id of the owner.
    pub tgid: u32,
    /// Command name of the owner.
    pub comm: [u8; 16],
}
abi_type!(FlowEntry, size = 96, align = 8);
