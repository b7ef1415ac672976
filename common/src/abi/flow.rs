//! Datagram and ICMP flows, and refusals.

use super::{Decision, Identity, Tuple, abi_type};

/// Key of `FLOWS` and `DENIED`: one peer of one socket. The local address is not in it: it never decides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Socket cookie; in `DENIED` for a refused call who called, as in `REFUSERS`.
    pub cookie: u64,
    /// Address of the peer.
    pub remote: [u8; 16],
    /// Peer's port; for ICMP echo the identifier, for other ICMP the type.
    pub remote_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// In `FLOWS` for ICMP echo the [`super::Direction`] of the request, else 0; in `DENIED` the
    /// [`super::Direction`] that was refused.
    pub echo: u8,
    /// In `DENIED` 1 for a refused call, else 0.
    pub call: u32,
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

/// Value of `DENIED`: what was recorded, and when.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub at_ns: u64,
    /// Rule that decided, 0 = none.
    pub rule: u32,
    /// [`super::Reason`] as a number.
    pub reason: u16,
    /// How often it was recorded since then.
    pub times: u16,
}
abi_type!(Refusal, size = 16, align = 8);

/// Value of `REFUSERS`: how many refusals of one workload may be recorded now. Of `SOURCES` and `ANSWERED`: how
/// many may be answered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refuser {
    /// Up to when they were granted (`CLOCK_BOOTTIME`, nanoseconds).
    pub at_ns: u64,
    /// How many more.
    pub left: u64,
}
abi_type!(Refuser, size = 16, align = 8);

/// Key of `SENDERS`: a datagram's addresses in one network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// From the view of the sender.
    pub tuple: Tuple,
}
abi_type!(SenderKey, size = 48, align = 8);

/// Value of `SENDERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// When it sent last (`CLOCK_BOOTTIME`, nanoseconds).
    pub at_ns: u64,
    /// Its identity.
    pub identity: Identity,
    /// Zero.
    pub pad: u32,
}
abi_type!(Sender, size = 16, align = 8);
