//! The failsafe list.

use proptest::prelude::*;
use ringfence_common::{
    abi::{
        FailsafeEntry,
        tuple::{TCP, UDP},
    },
    logic::{
        address::{in_network, map_v4},
        failsafe::covers,
    },
};

/// 22-23/tcp from 10.0.0.0/8.
const SSH: FailsafeEntry = FailsafeEntry {
    address: map_v4([10, 0, 0, 0]),
    first_port: 22,
    last_port: 23,
    prefix: 104,
    protocol: TCP,
    pad: [0; 2],
};

#[test]
fn protocol_port_and_network_must_all_match() {
    let inside = map_v4([10, 1, 2, 3]);
    assert!(covers(&SSH, &inside, TCP, 22));
    assert!(covers(&SSH, &inside, TCP, 23));
    assert!(!covers(&SSH, &inside, TCP, 21));
    assert!(!covers(&SSH, &inside, TCP, 24));
    assert!(!covers(&SSH, &inside, UDP, 22));
    assert!(!covers(&SSH, &map_v4([11, 0, 0, 0]), TCP, 22));
    assert!(!covers(&SSH, &[0; 16], TCP, 22));
}

#[test]
fn a_zeroed_entry_covers_no_transport_protocol() {
    let zeroed = FailsafeEntry::default();
    assert!(!covers(&zeroed, &map_v4([10, 0, 0, 1]), TCP, 0));
}

proptest! {
    #[test]
    fn it_is_the_conjunction(
        remote: [u8; 16], address: [u8; 16], prefix in 0u8..=128,
        first_port in 0u16..8, last_port in 0u16..8, port in 0u16..8, protocol in 0u8..3, asked in 0u8..3,
    ) {
        let entry = FailsafeEntry { address, first_port, last_port, prefix, protocol, pad: [0; 2] };
        let expected = protocol == asked
            && (first_port..=last_port).contains(&port)
            && in_network(&remote, &address, prefix);
        prop_assert_eq!(covers(&entry, &remote, asked, port), expected);
    }
}
