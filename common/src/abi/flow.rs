//! Datagram and ICMP flows.

use super::{Decision, Identity, Tuple, abi_type};

/// Key of `FLOWS`: one peer of one socket. The local address is not in it: it never decides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Socket cookie.
    pub cookie: u64,
    /// Address of the peer.
    pub remote: [u8; 16],
    /// Peer's port; for ICMP echo the identifier, for other ICMP the type.
    pub remote_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// For ICMP echo the [`super::Direction`] of the request, else 0.
    pub echo: u8,
    /// Zero.
    pub pad: u32,
}
abi_type!(FlowKey, size = 32, align = 8);

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
    /// Addresses of the first packet.
    pub tuple: Tuple,
    /// Identity that owned the socket when the flow was judged.
    pub owner: Identity,
    /// Zero.
    pub pad: u32,
}
abi_type!(FlowEntry, size = 120, align = 8);
