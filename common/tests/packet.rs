//! Packets: built ones parse exactly, damaged ones never panic.

use proptest::prelude::*;
use ringfence_common::{
    abi::tuple::{ICMP, ICMPV6, TCP, UDP},
    logic::{
        address::map_v4,
        packet::{Bytes, MAX_EXTENSIONS, Malformed, Packet, parse},
    },
};

/// Flags of the second packet of a handshake.
const SYN_ACK: u8 = 0x12;

struct Slice<'a>(&'a [u8]);

impl Bytes for Slice<'_> {
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; N]) -> bool {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.0.get(offset..));
        let Some(bytes) = rest.and_then(|rest| rest.first_chunk()) else {
            return false;
        };
        *to = *bytes;
        true
    }
}

fn read(bytes: &[u8]) -> Result<Packet, Malformed> {
    parse(&Slice(bytes))
}

/// A transport header with its data, and what it must be read as.
#[derive(Clone, Debug)]
struct Transport {
    bytes: Vec<u8>,
    expected: Packet,
}

fn tcp() -> impl Strategy<Value = Transport> {
    let fields = (
        any::<u16>(),
        any::<u16>(),
        any::<u32>(),
        any::<u8>(),
        5u8..=15,
        0usize..40,
    );
    fields.prop_map(
        |(source_port, destination_port, sequence, tcp_flags, words, data)| {
            let mut bytes = Vec::new();
            bytes.extend(source_port.to_be_bytes());
            bytes.extend(destination_port.to_be_bytes());
            bytes.extend(sequence.to_be_bytes());
            bytes.extend([0, 0, 0, 0, words << 4, tcp_flags, 0, 0, 0, 0, 0, 0]);
            bytes.resize(usize::from(words) * 4 + data, 0xee);
            let expected = Packet {
                source_port,
                destination_port,
                sequence,
                tcp_flags,
                payload: u32::try_from(data).unwrap_or_default(),
                protocol: TCP,
                ..Packet::default()
            };
            Transport { bytes, expected }
        },
    )
}

fn udp() -> impl Strategy<Value = Transport> {
    (any::<u16>(), any::<u16>(), 0u16..40).prop_map(|(source_port, destination_port, data)| {
        let mut bytes = Vec::new();
        bytes.extend(source_port.to_be_bytes());
        bytes.extend(destination_port.to_be_bytes());
        bytes.extend((8 + data).to_be_bytes());
        bytes.resize(8 + usize::from(data), 0);
        let expected = Packet {
            source_port,
            destination_port,
            payload: u32::from(data),
            protocol: UDP,
            ..Packet::default()
        };
        Transport { bytes, expected }
    })
}

fn icmp() -> impl Strategy<Value = Transport> {
    let kinds = prop::sample::select(vec![0u8, 3, 8, 11, 128, 129, 135]);
    (
        prop::sample::select(vec![ICMP, ICMPV6]),
        kinds,
        any::<u16>(),
        0u8..40,
    )
        .prop_map(|(protocol, kind, identifier, data)| {
            let [high, low] = identifier.to_be_bytes();
            let mut bytes = vec![kind, 0, 0, 0, high, low, 0, 1];
            bytes.resize(8 + usize::from(data), 0);
            let echo = match protocol {
                ICMP => kind == 0 || kind == 8,
                _ => kind == 128 || kind == 129,
            };
            let expected = Packet {
                source_port: if echo { identifier } else { 0 },
                destination_port: u16::from(kind),
                payload: u32::from(data),
                protocol,
                ..Packet::default()
            };
            Transport { bytes, expected }
        })
}

/// A protocol without ports.
fn other() -> impl Strategy<Value = Transport> {
    (prop::sample::select(vec![47u8, 50, 59, 132, 255]), 0u8..40).prop_map(|(protocol, length)| {
        Transport {
            bytes: vec![0xaa; usize::from(length)],
            expected: Packet {
                payload: u32::from(length),
                protocol,
                ..Packet::default()
            },
        }
    })
}

fn transports() -> impl Strategy<Value = Transport> {
    prop_oneof![tcp(), udp(), icmp(), other()]
}

fn be16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// An IPv4 packet; `fragment` is the field of flags and offset.
fn v4(
    source: [u8; 4],
    destination: [u8; 4],
    options: usize,
    fragment: u16,
    transport: &Transport,
) -> Vec<u8> {
    let header = 20 + options * 4;
    let mut bytes = vec![0x40 | u8::try_from(header / 4).unwrap_or(0), 0];
    bytes.extend(be16(header + transport.bytes.len()));
    bytes.extend([0x12, 0x34]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, transport.expected.protocol, 0, 0]);
    bytes.extend(source);
    bytes.extend(destination);
    bytes.resize(header, 1);
    bytes.extend(&transport.bytes);
    bytes
}

/// An extension header: its number, and its length in its own unit.
#[derive(Clone, Copy, Debug)]
struct Extension {
    number: u8,
    units: u8,
    /// Fragment offset, in units of 8 bytes; for number 44 only.
    offset: u16,
}

impl Extension {
    fn bytes(self, next: u8) -> Vec<u8> {
        let (length, second) = match self.number {
            44 => (8, 0),
            51 => ((usize::from(self.units) + 2) * 4, self.units),
            _ => ((usize::from(self.units) + 1) * 8, self.units),
        };
        let mut bytes = vec![next, second];
        bytes.extend((self.offset << 3 | 1).to_be_bytes());
        bytes.resize(length, 0);
        bytes
    }
}

/// The routing headers made here have one segment left.
fn detour(extensions: &[Extension]) -> u8 {
    u8::from(extensions.iter().any(|extension| extension.number == 43))
}

fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let number = prop::sample::select(vec![0u8, 43, 44, 51, 60]);
    let one = (number, 0u8..4).prop_map(|(number, units)| Extension {
        number,
        units,
        offset: 0,
    });
    prop::collection::vec(one, 0..usize::try_from(MAX_EXTENSIONS).unwrap_or(0))
}

fn v6(
    source: [u8; 16],
    destination: [u8; 16],
    extensions: &[Extension],
    transport: &Transport,
) -> Vec<u8> {
    let mut rest = transport.bytes.clone();
    let mut next = transport.expected.protocol;
    for extension in extensions.iter().rev() {
        let mut bytes = extension.bytes(next);
        bytes.append(&mut rest);
        rest = bytes;
        next = extension.number;
    }
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(be16(rest.len()));
    bytes.extend([next, 64]);
    bytes.extend(source);
    bytes.extend(destination);
    bytes.extend(rest);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    /// With a version that is looked into and a protocol that is parsed.
    #[test]
    fn nearly_valid_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 1..200),
        first in prop_oneof![0x40u8..=0x6f],
        next in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 60]),
    ) {
        for (at, value) in [(0, first), (9, next), (6, next), (40, next)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let _ = read(&bytes);
    }

    #[test]
    fn v4_with_options_parses_exactly(
        source: [u8; 4], destination: [u8; 4], options in 0usize..=10, more: bool, transport in transports(),
    ) {
        // A first fragment has its transport header and is read like a whole packet; 0x4000: don't fragment.
        let fragment = if more { 0x2000 } else { 0x4000 };
        let bytes = v4(source, destination, options, fragment, &transport);
        let expected = Packet {
            source: map_v4(source),
            destination: map_v4(destination),
            detour: u8::from(options > 0),
            ..transport.expected
        };
        prop_assert_eq!(read(&bytes), Ok(expected));
    }

    #[test]
    fn later_v4_fragments_have_no_ports(
        source: [u8; 4], destination: [u8; 4], options in 0usize..=10, offset in 1u16..0x2000, transport in transports(),
    ) {
        let bytes = v4(source, destination, options, offset, &transport);
        let expected = Packet {
            source: map_v4(source),
            destination: map_v4(destination),
            payload: u32::try_from(transport.bytes.len()).unwrap_or_default(),
            protocol: transport.expected.protocol,
            fragment: 1,
            detour: u8::from(options > 0),
            ..Packet::default()
        };
        prop_assert_eq!(read(&bytes), Ok(expected));
    }

    #[test]
    fn v6_with_extensions_parses_exactly(
        source: [u8; 16], destination: [u8; 16], extensions in extensions(), transport in transports(),
    ) {
        let bytes = v6(source, destination, &extensions, &transport);
        let detour = detour(&extensions);
        let expected = Packet { source, destination, detour, ..transport.expected };
        prop_assert_eq!(read(&bytes), Ok(expected));
    }

    #[test]
    fn later_v6_fragments_have_no_ports(
        before in extensions(), offset in 1u16..0x2000, transport in transports(),
    ) {
        let mut chain: Vec<Extension> = before.into_iter().take(6).collect();
        chain.push(Extension { number: 44, units: 0, offset });
        let found = read(&v6([1; 16], [2; 16], &chain, &transport));
        let expected = Packet {
            source: [1; 16],
            destination: [2; 16],
            payload: u32::try_from(transport.bytes.len()).unwrap_or_default(),
            protocol: transport.expected.protocol,
            fragment: 1,
            detour: detour(&chain),
            ..Packet::default()
        };
        prop_assert_eq!(found, Ok(expected));
    }

    /// Wherever a packet is cut within its headers, it is malformed and not read as something else.
    #[test]
    fn headers_cut_short_are_malformed(cut: prop::sample::Index, options in 0usize..=10, extensions in extensions(), transport in tcp()) {
        let v4 = v4([1; 4], [2; 4], options, 0, &transport);
        let v4_headers = 20 + options * 4 + 14;
        prop_assert_eq!(read(v4.get(..cut.index(v4_headers)).unwrap_or_default()), Err(Malformed));
        let v6 = v6([1; 16], [2; 16], &extensions, &transport);
        let v6_headers = v6.len() - transport.bytes.len() + 14;
        prop_assert_eq!(read(v6.get(..cut.index(v6_headers)).unwrap_or_default()), Err(Malformed));
    }
}

fn syn() -> Transport {
    let mut bytes = vec![
        0x30, 0x39, 0x01, 0xbb, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, SYN_ACK,
    ];
    bytes.resize(20, 0);
    let expected = Packet {
        source_port: 12345,
        destination_port: 443,
        sequence: 7,
        tcp_flags: SYN_ACK,
        protocol: TCP,
        ..Packet::default()
    };
    Transport { bytes, expected }
}

fn with_byte(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
    bytes
}

#[test]
fn lying_headers_are_malformed() {
    let v4 = v4([1; 4], [2; 4], 0, 0, &syn());
    assert!(read(&v4).is_ok());
    assert_eq!(
        read(&with_byte(&v4, 0, 0x44)),
        Err(Malformed),
        "IPv4 header below 20 bytes"
    );
    assert_eq!(
        read(&with_byte(&v4, 3, 19)),
        Err(Malformed),
        "total length below the header"
    );
    assert_eq!(
        read(&with_byte(&v4, 32, 0x40)),
        Err(Malformed),
        "TCP header below 20 bytes"
    );
    assert_eq!(read(&with_byte(&v4, 0, 0x55)), Err(Malformed), "version 5");
    assert_eq!(read(&[]), Err(Malformed));
}

#[test]
fn a_total_length_of_zero_is_a_segment_that_the_device_splits() {
    let v4 = v4([1; 4], [2; 4], 0, 0, &syn());
    let found = read(&with_byte(&with_byte(&v4, 2, 0), 3, 0));
    assert_eq!(found.map(|packet| packet.destination_port), Ok(443));
}

#[test]
fn a_routing_header_without_segments_left_is_no_detour() {
    let routing = Extension {
        number: 43,
        units: 0,
        offset: 0,
    };
    let packet = v6([1; 16], [2; 16], &[routing], &syn());
    assert_eq!(read(&packet).map(|packet| packet.detour), Ok(1));
    let arrived = read(&with_byte(&packet, 43, 0));
    assert_eq!(arrived.map(|packet| packet.detour), Ok(0));
}

#[test]
fn a_chain_of_too_many_extensions_is_malformed() {
    let chain = |length| {
        vec![
            Extension {
                number: 60,
                units: 0,
                offset: 0
            };
            length
        ]
    };
    let most = usize::try_from(MAX_EXTENSIONS).unwrap_or(0);
    assert!(read(&v6([1; 16], [2; 16], &chain(most - 1), &syn())).is_ok());
    assert_eq!(
        read(&v6([1; 16], [2; 16], &chain(most), &syn())),
        Err(Malformed)
    );
}
