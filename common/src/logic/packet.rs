//! Parsing of IPv4 and IPv6 packets up to the transport header.

use super::address::map_v4;
use crate::abi::tuple::{ICMP, ICMPV6, TCP, UDP};

/// Extension headers that are followed at most (RFC 8200 names four; more is not honest traffic).
pub const MAX_EXTENSIONS: u32 = 8;

/// A packet that starts with its IP header.
pub trait Bytes {
    /// Fills `to` with the bytes from `offset` on; false when the packet is shorter.
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; N]) -> bool;
}

/// What policy needs of a packet.
#[repr(C, align(8))]
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
    /// 1 = IPv4 options, or an IPv6 routing header (RFC 8754 and others) with segments left: the packet
    /// may go elsewhere than its destination says.
    pub detour: u8,
}

/// TCP FIN flag.
pub const FIN: u8 = 1;
/// TCP SYN flag.
pub const SYN: u8 = 2;
/// RST flag.
pub const RST: u8 = 4;
/// ACK flag.
pub const ACK: u8 = 16;

/// The packet is cut short, claims impossible lengths or chains too many headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Parses an IPv4 (RFC 791) or IPv6 (RFC 8200) packet.
///
/// # Errors
/// [`Malformed`] when a header is cut short or lies about a length.
pub fn parse(bytes: &impl Bytes) -> Result<Packet, Malformed> {
    let mut packet = Packet::default();
    parse_into(bytes, &mut packet)?;
    Ok(packet)
}

/// [`parse`] into a packet that the caller zeroed.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_into(bytes: &impl Bytes, packet: &mut Packet) -> Result<(), Malformed> {
    let [first] = load(bytes, 0)?;
    let (offset, first_header) = match first >> 4 {
        4 => parse_v4(bytes, packet)?,
        6 => parse_v6(bytes, packet)?,
        _ => return Err(Malformed),
    };
    packet.protocol = first_header;
    if packet.fragment != 0 {
        return Ok(());
    }
    parse_transport(bytes, offset, packet)
}

#[inline(always)]
fn load<const N: usize>(bytes: &impl Bytes, offset: u32) -> Result<[u8; N], Malformed> {
    let mut loaded = [0; N];
    if bytes.load(offset, &mut loaded) {
        Ok(loaded)
    } else {
        Err(Malformed)
    }
}

/// Answers where the transport header starts, and its protocol.
#[inline(always)]
fn parse_v4(bytes: &impl Bytes, packet: &mut Packet) -> Result<(u32, u8), Malformed> {
    let [
        first,
        _,
        total_high,
        total_low,
        _,
        _,
        frag_high,
        frag_low,
        _,
        protocol,
    ] = load::<10>(bytes, 0)?;
    let header_length = u32::from(first & 0x0f) * 4;
    let total = u32::from(u16::from_be_bytes([total_high, total_low]));
    // A total length of 0 is a segment that the device will split (GSO larger than 64 KiB).
    if header_length < 20 || (total != 0 && total < header_length) {
        return Err(Malformed);
    }
    packet.source = map_v4(load(bytes, 12)?);
    packet.destination = map_v4(load(bytes, 16)?);
    packet.payload = total.saturating_sub(header_length);
    packet.detour = u8::from(header_length > 20);
    let fragment_offset = u16::from_be_bytes([frag_high, frag_low]) & 0x1fff;
    packet.fragment = u8::from(fragment_offset != 0);
    Ok((header_length, protocol))
}

/// As [`parse_v4`], behind the extension headers.
#[inline(always)]
fn parse_v6(bytes: &impl Bytes, packet: &mut Packet) -> Result<(u32, u8), Malformed> {
    let [len_high, len_low, mut next] = load::<3>(bytes, 4)?;
    if !bytes.load(8, &mut packet.source) || !bytes.load(24, &mut packet.destination) {
        return Err(Malformed);
    }
    packet.payload = u32::from(u16::from_be_bytes([len_high, len_low]));
    let mut offset = 40u32;
    let mut extensions = 0;
    while extensions < MAX_EXTENSIONS {
        // Hop-by-hop, routing, fragment, authentication (RFC 4302), destination options.
        if !matches!(next, 0 | 43 | 44 | 51 | 60) {
            return Ok((offset, next));
        }
        let [following, units, high, low] = load::<4>(bytes, offset)?;
        let length = match next {
            44 => 8,
            // In units of 4 bytes, less 2; the others in units of 8 bytes, without the first.
            51 => (u32::from(units) + 2) * 4,
            _ => (u32::from(units) + 1) * 8,
        };
        offset += length;
        packet.payload = packet.payload.saturating_sub(length);
        // Byte 3 of a routing header: segments left (RFC 8200, section 4.4).
        if next == 43 && low != 0 {
            packet.detour = 1;
        }
        if next == 44 && u16::from_be_bytes([high, low]) >> 3 != 0 {
            packet.fragment = 1;
            return Ok((offset, following));
        }
        next = following;
        extensions += 1;
    }
    Err(Malformed)
}

#[inline(always)]
fn parse_transport(bytes: &impl Bytes, offset: u32, packet: &mut Packet) -> Result<(), Malformed> {
    match packet.protocol {
        TCP => {
            let [s0, s1, d0, d1, q0, q1, q2, q3] = load::<8>(bytes, offset)?;
            let [data, flags] = load::<2>(bytes, offset + 12)?;
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
            let [s0, s1, d0, d1] = load::<4>(bytes, offset)?;
            packet.source_port = u16::from_be_bytes([s0, s1]);
            packet.destination_port = u16::from_be_bytes([d0, d1]);
            packet.payload = packet.payload.saturating_sub(8);
        }
        ICMP | ICMPV6 => {
            let [kind, _, _, _, i0, i1] = load::<6>(bytes, offset)?;
            packet.destination_port = u16::from(kind);
            if is_echo(packet.protocol, kind) {
                packet.source_port = u16::from_be_bytes([i0, i1]);
            }
            packet.payload = packet.payload.saturating_sub(8);
        }
        _ => {}
    }
    Ok(())
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
