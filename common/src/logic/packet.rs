//! Parsing of IPv4 and IPv6 packets up to the transport header.

use super::address::map_v4;
use crate::abi::tuple::{ICMP, ICMPV6, TCP, UDP};

/// Extension headers that are followed at most (RFC 8200 names four; more is not honest traffic).
pub const MAX_EXTENSIONS: u32 = 8;

/// A packet that starts with its IP header.
pub trait Bytes {
    /// `N` bytes from `offset`, or nothing when the packet is shorter.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

/// What policy needs of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source address, IPv4 mapped.
    pub source: [u8; 16],
    /// Destination address, IPv4 mapped.
    pub destination: [u8; 16],
    /// Source port; for ICMP echo the identifier.
    pub source_port: u16,
    /// Destination port; for ICMP the type.
    pub destination_port: u16,
    /// Payload length in bytes, without IP and transport headers.
    pub payload: u32,
    /// TCP sequence number.
    pub sequence: u32,
    /// IANA protocol number of the transport header.
    pub protocol: u8,
    /// TCP flags (RFC 9293, section 3.1); 0 for other protocols.
    pub tcp_flags: u8,
    /// 1 = a fragment without its transport header: ports are 0.
    pub fragment: u8,
}

/// TCP FIN flag.
pub const FIN: u8 = 1;
/// TCP SYN flag.
pub const SYN: u8 = 2;
/// TCP RST flag.
pub const RST: u8 = 4;
/// TCP ACK flag.
pub const ACK: u8 = 16;

/// The packet is cut short, claims impossible lengths or chains too many headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Parses an IPv4 (RFC 791) or IPv6 (RFC 8200) packet.
///
/// # Errors
/// [`Malformed`] when a header is cut short or lies about a length.
#[inline(always)]
pub fn parse(bytes: &impl Bytes) -> Result<Packet, Malformed> {
    let [first] = bytes.load::<1>(0).ok_or(Malformed)?;
    match first >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        _ => Err(Malformed),
    }
}

#[inline(always)]
fn parse_v4(bytes: &impl Bytes) -> Result<Packet, Malformed> {
    let header = bytes.load::<20>(0).ok_or(Malformed)?;
    let [
        first, _, total_high, total_low, _, _, frag_high, frag_low, _, protocol, _, _,
        s0, s1, s2, s3, d0, d1, d2, d3,
    ] = header;
    let header_length = u32::from(first & 0x0f) * 4;
    let total = u32::from(u16::from_be_bytes([total_high, total_low]));
    // A total length of 0 is a segment that the device will split (GSO larger than 64 KiB).
    if header_length < 20 || (total != 0 && total < header_length) {
        return Err(Malformed);
    }
    let mut packet = Packet {
        source: map_v4([s0, s1, s2, s3]),
        destination: map_v4([d0, d1, d2, d3]),
        protocol,
        payload: total.saturating_sub(header_length),
        ..Packet::default()
    };
    let fragment_offset = u16::from_be_bytes([frag_high, frag_low]) & 0x1fff;
    if fragment_offset != 0 {
        packet.fragment = 1;
        return Ok(packet);
    }
    parse_transport(bytes, header_length, packet)
}

#[inline(always)]
fn parse_v6(bytes: &impl Bytes) -> Result<Packet, Malformed> {
    let [_, _, _, _, len_high, len_low, first_next, _] = bytes.load::<8>(0).ok_or(Malformed)?;
    let mut packet = Packet {
        source: bytes.load::<16>(8).ok_or(Malformed)?,
        destination: bytes.load::<16>(24).ok_or(Malformed)?,
        payload: u32::from(u16::from_be_bytes([len_high, len_low])),
        ..Packet::default()
    };
    let mut next = first_next;
    let mut offset = 40u32;
    let mut extensions = 0;
    while extensions < MAX_EXTENSIONS {
        let length = match next {
            // Hop-by-hop, routing, destination options: length in units of 8 bytes, without the first.
            0 | 43 | 60 => {
                let [following, units] = bytes.load::<2>(offset).ok_or(Malformed)?;
                next = following;
                (u32::from(units) + 1) * 8
            }
            // Authentication header (RFC 4302): units of 4 bytes, less 2.
            51 => {
                let [following, units] = bytes.load::<2>(offset).ok_or(Malformed)?;
                next = following;
                (u32::from(units) + 2) * 4
            }
            44 => {
                let [following, _, high, low] = bytes.load::<4>(offset).ok_or(Malformed)?;
                next = following;
                if u16::from_be_bytes([high, low]) >> 3 != 0 {
                    packet.protocol = following;
                    packet.fragment = 1;
                    return Ok(packet);
                }
                8
            }
            protocol => {
                packet.protocol = protocol;
                return parse_transport(bytes, offset, packet);
            }
        };
        offset += length;
        packet.payload = packet.payload.saturating_sub(length);
        extensions += 1;
    }
    Err(Malformed)
}

#[inline(always)]
fn parse_transport(
    bytes: &impl Bytes,
    offset: u32,
    mut packet: Packet,
) -> Result<Packet, Malformed> {
    match packet.protocol {
        TCP => {
            let [s0, s1, d0, d1, q0, q1, q2, q3, _, _, _, _, data, flags] =
                bytes.load::<14>(offset).ok_or(Malformed)?;
            let header_length = u32::from(data >> 4) * 4;
            if header_length < 20 {
                return Err(Malformed);
            }
            packet.source_port = u16::from_be_bytes([s0, s1]);
            packet.destination_port = u16::from_be_bytes([d0, d1]);
            packet.sequence = u32::from_be_bytes([q0, q1, q2, q3]);
            packet.tcp_flags = flags;
            packet.payload = packet.payload.saturating_sub(header_length);
        }
        UDP => {
            let [s0, s1, d0, d1] = bytes.load::<4>(offset).ok_or(Malformed)?;
            packet.source_port = u16::from_be_bytes([s0, s1]);
            packet.destination_port = u16::from_be_bytes([d0, d1]);
            packet.payload = packet.payload.saturating_sub(8);
        }
        ICMP | ICMPV6 => {
            let [kind, _, _, _, i0, i1] = bytes.load::<6>(offset).ok_or(Malformed)?;
            packet.destination_port = u16::from(kind);
            if is_echo(packet.protocol, kind) {
                packet.source_port = u16::from_be_bytes([i0, i1]);
            }
            packet.payload = packet.payload.saturating_sub(8);
        }
        _ => {}
    }
    Ok(packet)
}

/// Whether the ICMP type is an echo request or an echo reply (RFC 792, RFC 4443).
#[must_use]
#[inline(always)]
pub const fn is_echo(protocol: u8, kind: u8) -> bool {
    matches!((protocol, kind), (ICMP, 0 | 8) | (ICMPV6, 128 | 129))
}

/// Whether the ICMP type is an echo reply.
#[must_use]
#[inline(always)]
pub const fn is_echo_reply(protocol: u8, kind: u16) -> bool {
    matches!((protocol, kind), (ICMP, 0) | (ICMPV6, 129))
}
