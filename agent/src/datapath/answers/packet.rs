//! The packets that answer a refused one, made of nothing but its beginning.
//!
//! Pure. Nothing is answered that must not be: what comes from no single host, and what is not the SYN or the
//! datagram that the kernel programs should have chosen (RFC 1122, section 3.2.2; RFC 4443, section 2.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::abi::{
    Unanswered,
    tuple::{ICMP, ICMPV6, TCP, UDP},
};

/// Length of the IPv4 header.
const V4: usize = 20;
/// Length of the IPv6 header.
const V6: usize = 40;
/// Bytes behind the IP header that an ICMP error repeats: ports, and the sequence number of TCP.
const REPEATED: usize = 8;
/// Time to live, and hop limit.
const HOPS: u8 = 64;
/// "Internetwork control", the precedence of ICMP errors (RFC 1812, section 4.3.2.5).
const CONTROL: u8 = 0xc0;
/// Don't fragment (RFC 791).
const WHOLE: u16 = 0x4000;
/// RST and ACK (RFC 9293, section 3.1), behind a header length of 5 words.
const RESET: [u8; 2] = [5 << 4, 0x14];

/// What the answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What a closed port says: reset, or ICMP port unreachable.
    Reset,
    /// ICMP administratively prohibited.
    Prohibited,
}

/// A packet with its IP header. The kernel fills in the total length and the checksum of an IPv4 header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whom it goes to.
    pub to: IpAddr,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// The answer to a refused packet, as from the address and port that were called; `None` where there must be none.
#[must_use]
pub fn answer(kind: Kind, refused: &Unanswered) -> Option<Answer> {
    let (first, _) = refused.head.split_first()?;
    match first >> 4 {
        4 => answer_v4(kind, refused),
        6 => answer_v6(kind, refused),
        _ => None,
    }
}

fn answer_v4(kind: Kind, refused: &Unanswered) -> Option<Answer> {
    let head = refused.head.get(..V4 + REPEATED)?;
    let source = Ipv4Addr::from(array::<4>(head, 12)?);
    let called = Ipv4Addr::from(array::<4>(head, 16)?);
    if *head.first()? != 0x45 || !is_one_v4(source) || !is_one_v4(called) {
        return None;
    }
    let protocol = *head.get(9)?;
    let behind = head.get(V4..)?;
    let pseudo = |length: usize| {
        let mut pseudo = [called.octets(), source.octets()].concat();
        pseudo.extend([0, TCP]);
        pseudo.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        pseudo
    };
    let (service, number, message) = match (kind, protocol) {
        (Kind::Reset, TCP) => (0, TCP, reset(behind, refused.acknowledge, pseudo)?),
        // Destination unreachable: port, communication administratively prohibited (RFC 1812, section 5.2.7.1).
        (Kind::Reset, UDP) => (CONTROL, ICMP, error([3, 3], head, &[])),
        (Kind::Prohibited, TCP | UDP) => (CONTROL, ICMP, error([3, 13], head, &[])),
        _ => return None,
    };
    let mut bytes = vec![0x45, service, 0, 0, 0, 0];
    bytes.extend(WHOLE.to_be_bytes());
    bytes.extend([HOPS, number, 0, 0]);
    bytes.extend(called.octets());
    bytes.extend(source.octets());
    bytes.extend(message);
    Some(Answer {
        to: source.into(),
        bytes,
    })
}

fn answer_v6(kind: Kind, refused: &Unanswered) -> Option<Answer> {
    let head = refused.head.get(..V6 + REPEATED)?;
    let source = Ipv6Addr::from(array::<16>(head, 8)?);
    let called = Ipv6Addr::from(array::<16>(head, 24)?);
    if !is_one_v6(source) || !is_one_v6(called) {
        return None;
    }
    let protocol = *head.get(6)?;
    let behind = head.get(V6..)?;
    let pseudo = |number: u8| {
        move |length: usize| {
            let mut pseudo = [called.octets(), source.octets()].concat();
            pseudo.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            pseudo.extend([0, 0, 0, number]);
            pseudo
        }
    };
    let of_error = pseudo(ICMPV6)(8 + head.len());
    let (number, message) = match (kind, protocol) {
        (Kind::Reset, TCP) => (TCP, reset(behind, refused.acknowledge, pseudo(TCP))?),
        // Destination unreachable: port, communication administratively prohibited (RFC 4443, section 3.1).
        (Kind::Reset, UDP) => (ICMPV6, error([1, 4], head, &of_error)),
        (Kind::Prohibited, TCP | UDP) => (ICMPV6, error([1, 1], head, &of_error)),
        _ => return None,
    };
    let mut bytes = vec![6 << 4, 0, 0, 0];
    bytes.extend(u16::try_from(message.len()).ok()?.to_be_bytes());
    bytes.extend([number, HOPS]);
    bytes.extend(called.octets());
    bytes.extend(source.octets());
    bytes.extend(message);
    Some(Answer {
        to: source.into(),
        bytes,
    })
}

/// The reset that a closed port sends in answer to a SYN (RFC 9293, section 3.10.7.1).
fn reset(
    behind: &[u8],
    acknowledge: u32,
    pseudo: impl FnOnce(usize) -> Vec<u8>,
) -> Option<Vec<u8>> {
    let [from, to] = [array::<2>(behind, 0)?, array::<2>(behind, 2)?];
    let mut segment = [to, from].concat();
    segment.extend([0; 4]);
    segment.extend(acknowledge.to_be_bytes());
    segment.extend(RESET);
    segment.extend([0; 6]);
    let sum = checksum(&[&pseudo(segment.len()), &segment]);
    put(&mut segment, 16, sum);
    Some(segment)
}

/// An ICMP error of this type and code about a packet that begins so (RFC 792, RFC 4443).
fn error(kind: [u8; 2], head: &[u8], pseudo: &[u8]) -> Vec<u8> {
    let mut message = kind.to_vec();
    message.extend([0; 6]);
    message.extend(head);
    let sum = checksum(&[pseudo, &message]);
    put(&mut message, 2, sum);
    message
}

/// Whether the address is that of one host, which is not this one.
fn is_one_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    // This network, loopback, and everything from multicast on.
    !matches!(first, 0 | 127 | 224..)
}

/// The same for IPv6.
fn is_one_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        && address.to_ipv4_mapped().is_none()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn put(bytes: &mut [u8], at: usize, sum: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// RFC 1071, over parts that each have an even number of bytes.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let sum: u32 = words
        .filter_map(|pair| pair.try_into().ok())
        .map(|pair| u32::from(u16::from_be_bytes(pair)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
