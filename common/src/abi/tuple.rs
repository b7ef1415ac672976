//! Addresses of a flow, always from the view of the local socket.

use super::abi_type;

/// TCP (IANA protocol number).
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// Addresses are IPv6; IPv4 is mapped (`::ffff:a.b.c.d`). Ports are in host order.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Address of the local socket.
    pub local: [u8; 16],
    /// Address of the peer.
    pub remote: [u8; 16],
    /// Local port; for ICMP the echo identifier.
    pub local_port: u16,
    /// Peer's port; for ICMP the type.
    pub remote_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}
abi_type!(Tuple, size = 40, align = 8);
