//! Answers byte by byte, and packets that get none.

use ringfence_common::abi::answer::HEAD_BYTES;

use super::*;

/// Packets from 10.0.0.9 or `fd00::9`, port 40000, to .1, port 80, with the sequence number 1000.
fn refused(first: u8, protocol: u8) -> Unanswered {
    let behind = [0x9c, 0x40, 0, 80, 0, 0, 0x03, 0xe8];
    let start = if first >> 4 == 4 {
        let mut start = vec![
            first, 0, 0, 60, 0x12, 0x34, 0x40, 0, 64, protocol, 0xab, 0xcd,
        ];
        start.extend([10, 0, 0, 9, 10, 0, 0, 1]);
        start
    } else {
        let mut start = vec![first, 0, 0, 0, 0, 40, protocol, 64];
        for last in [9, 1] {
            start.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).octets());
        }
        start
    };
    let mut head = [0; HEAD_BYTES];
    for (place, byte) in head.iter_mut().zip(start.iter().chain(&behind)) {
        *place = *byte;
    }
    Unanswered {
        time_ns: 0,
        netns: 1,
        device: 2,
        acknowledge: 1001,
        head,
    }
}

fn with(refused: &Unanswered, at: usize, bytes: &[u8]) -> Unanswered {
    let mut changed = *refused;
    for (place, byte) in changed.head.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
    changed
}

/// Sum over a part of the answer with the pseudo header of its addresses: zero where the checksum is right.
fn sum(answer: &Answer, header: usize, protocol: u8) -> u16 {
    let (ip, message) = answer.bytes.split_at(header);
    let addresses = if header == V4 {
        ip.get(12..)
    } else {
        ip.get(8..)
    };
    let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let pseudo = [addresses.unwrap_or_default(), &[0, protocol], &length].concat();
    checksum(&[&pseudo, message])
}

#[test]
fn a_syn_is_reset_by_the_port_that_it_called() {
    let tail = [
        0, 80, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0x03, 0xe9, 0x50, 0x14, 0, 0,
    ];
    let v4 = answer(Kind::Reset, &refused(0x45, TCP)).unwrap_or_else(|| panic!("none"));
    assert_eq!(v4.to, IpAddr::from([10, 0, 0, 9]));
    let head = [
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9,
    ];
    assert_eq!(
        v4.bytes.get(..36),
        Some([&head[..], &tail].concat().as_slice())
    );
    assert_eq!((v4.bytes.len(), sum(&v4, V4, TCP)), (40, 0));

    let v6 = answer(Kind::Reset, &refused(0x60, TCP)).unwrap_or_else(|| panic!("none"));
    assert_eq!(v6.to.to_string(), "fd00::9");
    assert_eq!(
        v6.bytes.get(..8),
        Some(&[0x60, 0, 0, 0, 0, 20, TCP, 64][..])
    );
    assert_eq!(v6.bytes.get(40..56), Some(&tail[..]));
    assert_eq!((v6.bytes.len(), sum(&v6, V6, TCP)), (60, 0));
}

#[test]
fn icmp_errors_repeat_the_beginning_of_what_was_refused() {
    for (kind, protocol, v4, v6) in [
        (Kind::Prohibited, TCP, [3, 13], [1, 1]),
        (Kind::Prohibited, UDP, [3, 13], [1, 1]),
        (Kind::Reset, UDP, [3, 3], [1, 4]),
    ] {
        let what = refused(0x45, protocol);
        let found = answer(kind, &what).unwrap_or_else(|| panic!("none"));
        assert_eq!(found.bytes.get(9), Some(&ICMP));
        assert_eq!(found.bytes.get(20..22), Some(&v4[..]));
        assert_eq!(found.bytes.get(28..), what.head.get(..28));
        assert_eq!(checksum(&[found.bytes.get(20..).unwrap_or_default()]), 0);

        let what = refused(0x60, protocol);
        let found = answer(kind, &what).unwrap_or_else(|| panic!("none"));
        assert_eq!(found.bytes.get(6), Some(&ICMPV6));
        assert_eq!(found.bytes.get(40..42), Some(&v6[..]));
        assert_eq!(found.bytes.get(48..), Some(&what.head[..]));
        assert_eq!(sum(&found, V6, ICMPV6), 0);
    }
}

#[test]
fn what_is_of_no_single_host_gets_no_answer() {
    let v4 = refused(0x45, TCP);
    for address in [
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
    ] {
        for at in [12, 16] {
            assert_eq!(
                answer(Kind::Reset, &with(&v4, at, &address)),
                None,
                "{address:?} {at}"
            );
        }
    }
    let v6 = refused(0x60, TCP);
    for address in ["::", "::1", "ff02::1", "::ffff:10.0.0.9"] {
        let bytes = address
            .parse::<Ipv6Addr>()
            .map(|it| it.octets())
            .unwrap_or_default();
        for at in [8, 24] {
            assert_eq!(
                answer(Kind::Reset, &with(&v6, at, &bytes)),
                None,
                "{address} {at}"
            );
        }
    }
}

#[test]
fn what_is_no_plain_syn_or_datagram_gets_no_answer() {
    for kind in [Kind::Reset, Kind::Prohibited] {
        for first in [0x45, 0x60] {
            for protocol in [ICMP, ICMPV6, 0, 44, 132, 255] {
                assert_eq!(answer(kind, &refused(first, protocol)), None, "{protocol}");
            }
        }
        // Options before the ports, and no IP at all.
        for first in [0x46, 0x4f, 0x40, 0x05, 0xf0] {
            assert_eq!(answer(kind, &refused(first, TCP)), None, "{first:x}");
        }
    }
}
