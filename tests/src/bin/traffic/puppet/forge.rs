//! IPv4 packets written by hand, for raw sockets that bring their own header (`IP_HDRINCL`, `raw(7)`): the
//! kernel fills in the total length and the checksum of the IP header.

use std::net::SocketAddrV4;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Flag "more fragments", with the fragment's place in units of 8 bytes beside it (RFC 791).
const MORE: u16 = 0x2000;
/// Payload of the datagrams, bytes.
const PAYLOAD: usize = 24;

/// A UDP datagram (RFC 768), without a checksum.
pub fn datagram(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    packet(from, to, UDP, 0, &udp(from, to))
}

/// The same cut behind its header, as small as fragments can be.
pub fn fragments(from: SocketAddrV4, to: SocketAddrV4) -> Vec<Vec<u8>> {
    let whole = udp(from, to);
    let (header, rest) = whole.split_at(8);
    vec![
        packet(from, to, UDP, MORE, header),
        packet(from, to, UDP, 1, rest),
    ]
}

/// A first fragment for `to`, and one that puts a header with `port` over it before the end comes.
pub fn overlapping(from: SocketAddrV4, to: SocketAddrV4, port: u16) -> Vec<Vec<u8>> {
    let whole = udp(from, to);
    let other = udp(from, SocketAddrV4::new(*to.ip(), port));
    let (first, rest) = whole.split_at(16);
    let (header, _) = other.split_at(8);
    vec![
        packet(from, to, UDP, MORE, first),
        packet(from, to, UDP, MORE, header),
        packet(from, to, UDP, 2, rest),
    ]
}

/// A TCP segment that opens a connection (RFC 9293).
pub fn syn(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    segment(from, to, 2)
}

/// A TCP segment with these flags and no data.
pub fn segment(from: SocketAddrV4, to: SocketAddrV4, flags: u8) -> Vec<u8> {
    let mut segment = ports(from, to);
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, flags]);
    segment.extend([0xff, 0xff, 0, 0, 0, 0]);
    let length = u16::try_from(segment.len()).unwrap_or(0);
    let mut covered = [from.ip().octets(), to.ip().octets()].concat();
    covered.extend([0, TCP]);
    covered.extend(length.to_be_bytes());
    covered.extend(&segment);
    let sum = checksum(&covered).to_be_bytes();
    if let Some(field) = segment.get_mut(16..18) {
        field.copy_from_slice(&sum);
    }
    packet(from, to, TCP, 0, &segment)
}

fn udp(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut datagram = ports(from, to);
    let length = u16::try_from(8 + PAYLOAD).unwrap_or(0);
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend([b'q'; PAYLOAD]);
    datagram
}

fn ports(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
}

fn packet(from: SocketAddrV4, to: SocketAddrV4, protocol: u8, place: u16, data: &[u8]) -> Vec<u8> {
    // Fragments belong together by the identification, which is the source port here.
    let [id_high, id_low] = from.port().to_be_bytes();
    let [place_high, place_low] = place.to_be_bytes();
    let mut packet = vec![
        0x45, 0, 0, 0, id_high, id_low, place_high, place_low, 64, protocol, 0, 0,
    ];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(data);
    packet
}

/// RFC 1071; the data has an even number of bytes.
fn checksum(data: &[u8]) -> u16 {
    let words = data.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
    let sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}
