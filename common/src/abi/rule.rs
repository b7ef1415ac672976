//! Compiled policy as it stands in the maps.
//!
//! A direction of an identity is judged by looking up every key that can cover the packet (see
//! [`crate::logic::verdict`]) and merging the layers found: there is no order between entries.

use super::{Identity, abi_type};

/// Direction of a flow, or the right to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Opened by the local socket.
    Egress = 1,
    /// Opened by the peer.
    Ingress = 2,
    /// Binding or listening on a local port.
    Listen = 3,
}

/// Peer of a rule that names none: it covers every peer.
pub const PEER_ANY: Identity = 0;
/// Rule holds for verified peers only (same host, or a valid token).
pub const FLAG_VERIFIED: u8 = 1;

/// Key of `HEADERS`, `RULES` and `CIDRS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotKey {
    /// The identity that the policy is for.
    pub identity: Identity,
    /// 0 or 1: the lowest bit of the generation.
    pub slot: u32,
}
abi_type!(SlotKey, size = 8, align = 4);

/// Some policy of this layer holds rules for the egress direction, or lists it as default-deny.
pub const DENY_EGRESS: u16 = 1;
/// The same for ingress.
pub const DENY_INGRESS: u16 = 2;
/// The same for listen.
pub const DENY_LISTEN: u16 = 4;
/// Some policy of this layer selects the workload.
pub const SELECTED: u16 = 8;
/// The workload may talk to itself.
pub const ALLOW_SELF: u16 = 16;

/// Entries exist with this port prefix length: bit 0 (all ports of a protocol) to bit 16 (one port);
/// only the bits of [`crate::logic::port::LENGTHS`] are used.
pub const TIER_PORTS: u32 = 0x0001_ffff;
/// Entries exist that cover every protocol.
pub const TIER_ANY_PROTOCOL: u32 = 1 << 17;
/// Entries exist for [`PEER_ANY`].
pub const TIER_PEER_ANY: u32 = 1 << 18;
/// Entries exist for peers by identity.
pub const TIER_PEER_IDENTITY: u32 = 1 << 19;
/// Entries exist for verified peers only.
pub const TIER_PEER_VERIFIED: u32 = 1 << 20;
/// Entries exist for peers by address.
pub const TIER_PEER_CIDR: u32 = 1 << 21;

/// Value of `HEADERS`: which look-ups a direction needs, and what holds when none hits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `TIER_*` of egress, ingress and listen entries.
    pub tiers: [u32; 3],
    /// `DENY_*`, [`SELECTED`], [`ALLOW_SELF`] of the enforced policies.
    pub enforced: u16,
    /// The same with the draft policies added.
    pub draft: u16,
}
abi_type!(Header, size = 16, align = 4);

/// Key of an inner map of `RULES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleKey {
    /// Peer identity, address class or [`PEER_ANY`].
    pub peer: Identity,
    /// Port (ICMP: type) in host order, bits beyond the prefix zero.
    pub port: u16,
    /// IANA protocol number; 0 = every protocol.
    pub protocol: u8,
    /// Number of leading bits of the port that count, one of [`crate::logic::port::LENGTHS`].
    pub prefix: u8,
    /// [`Direction`] as a number.
    pub direction: u8,
    /// [`FLAG_VERIFIED`] or 0.
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 6],
}
abi_type!(RuleKey, size = 16, align = 4);

/// Merged rules of one key. Times are nanoseconds of `CLOCK_BOOTTIME`; 0 = no such rule,
/// `u64::MAX` = without end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// A deny rule holds until this time.
    pub deny_until: u64,
    /// An allow rule holds until this time.
    pub allow_until: u64,
    /// Number of the deny rule that holds longest.
    pub deny_rule: u32,
    /// Number of the allow rule that holds longest.
    pub allow_rule: u32,
}
abi_type!(Layer, size = 24, align = 8);

/// Value of an inner map of `RULES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleEntry {
    /// What the enforced policies say.
    pub enforced: Layer,
    /// What enforced and draft policies together say.
    pub draft: Layer,
}
abi_type!(RuleEntry, size = 48, align = 8);

/// Key of an inner map of `CIDRS`, in the layout of `struct bpf_lpm_trie_key`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CidrKey {
    /// Prefix length, 0 to 128; IPv4 prefixes are mapped and so start at 96.
    pub prefix: u32,
    /// Address, IPv4 mapped.
    pub address: [u8; 16],
}
abi_type!(CidrKey, size = 20, align = 4);
