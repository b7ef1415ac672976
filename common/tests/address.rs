//! Normalised addresses and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use ringfence_common::logic::address::{
    destination, in_network, is_group, is_loopback, is_mapped_v4, is_unspecified, map_v4,
    policy_address,
};

fn v6(text: &str) -> [u8; 16] {
    let parsed: Result<Ipv6Addr, _> = text.parse();
    parsed.map_or([0xff; 16], |address| address.octets())
}

#[test]
fn nat64_is_judged_as_the_ipv4_address_inside() {
    assert_eq!(
        policy_address(v6("64:ff9b::10.1.2.3")),
        map_v4([10, 1, 2, 3])
    );
    // Only the well-known /96, not the local-use prefix or a neighbour.
    for other in [
        "64:ff9b:1::10.1.2.3",
        "64:ff9b::1:a01:203",
        "64:ff9a::10.1.2.3",
        "::10.1.2.3",
    ] {
        assert_eq!(policy_address(v6(other)), v6(other));
    }
}

#[test]
fn the_unspecified_address_reaches_this_host() {
    assert_eq!(destination(v6("::")), v6("::1"));
    assert_eq!(destination(map_v4([0; 4])), map_v4([127, 0, 0, 1]));
    assert_eq!(destination(map_v4([0, 0, 0, 1])), map_v4([0, 0, 0, 1]));
}

#[test]
fn loopback_is_a_whole_network_in_ipv4_and_one_address_in_ipv6() {
    for loopback in ["::1", "::ffff:127.0.0.1", "::ffff:127.255.255.255"] {
        assert!(is_loopback(&v6(loopback)), "{loopback}");
    }
    for other in [
        "::",
        "::2",
        "::ffff:128.0.0.1",
        "::127.0.0.1",
        "::ffff:126.255.255.255",
    ] {
        assert!(!is_loopback(&v6(other)), "{other}");
    }
}

#[test]
fn groups_are_multicast_and_the_limited_broadcast_address() {
    for group in [
        "ff02::1",
        "::ffff:224.0.0.1",
        "::ffff:239.255.255.255",
        "::ffff:255.255.255.255",
    ] {
        assert!(is_group(&v6(group)), "{group}");
    }
    for other in [
        "fe80::1",
        "::224.0.0.1",
        "::ffff:223.255.255.255",
        "::ffff:240.0.0.1",
        "::",
    ] {
        assert!(!is_group(&v6(other)), "{other}");
    }
}

#[test]
fn a_prefix_beyond_128_covers_nothing() {
    assert!(in_network(&[7; 16], &[7; 16], 128));
    assert!(!in_network(&[7; 16], &[7; 16], 129));
    assert!(!in_network(&[7; 16], &[7; 16], 255));
}

proptest! {
    #[test]
    fn mapping_agrees_with_the_standard_library(octets: [u8; 4]) {
        let mapped = map_v4(octets);
        prop_assert_eq!(mapped, Ipv4Addr::from(octets).to_ipv6_mapped().octets());
        prop_assert!(is_mapped_v4(&mapped));
        prop_assert_eq!(policy_address(mapped), mapped);
        prop_assert_eq!(is_loopback(&mapped), Ipv4Addr::from(octets).is_loopback());
        prop_assert_eq!(is_unspecified(&mapped), Ipv4Addr::from(octets).is_unspecified());
    }

    #[test]
    fn classes_of_addresses_agree_with_the_standard_library(octets: [u8; 16]) {
        let address = Ipv6Addr::from(octets);
        prop_assert_eq!(is_mapped_v4(&octets), address.to_ipv4_mapped().is_some());
        let canonical = address.to_canonical();
        prop_assert_eq!(is_loopback(&octets), canonical.is_loopback());
        prop_assert_eq!(is_unspecified(&octets), canonical.is_unspecified());
        if !is_unspecified(&octets) {
            prop_assert_eq!(destination(octets), octets);
        }
    }

    #[test]
    fn normalising_twice_changes_nothing(octets: [u8; 16], v4: [u8; 4], form in 0..3) {
        let [a, b, c, d] = v4;
        let address = match form {
            0 => octets,
            1 => map_v4(v4),
            _ => [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d],
        };
        let once = policy_address(destination(address));
        prop_assert_eq!(policy_address(destination(once)), once);
        if form != 0 {
            prop_assert!(matches!(Ipv6Addr::from(once).to_canonical(), IpAddr::V4(_)));
        }
    }

    /// Addresses that share `same` leading bits with the base and differ in the next.
    #[test]
    fn a_network_is_its_leading_bits(base: [u8; 16], same in 0u8..=128, noise: u128, prefix in 0u8..=128) {
        let bits = u128::from_be_bytes(base);
        let address = if same == 128 {
            bits
        } else {
            let next = 1u128 << (127 - same);
            bits ^ next ^ (noise & (next - 1))
        };
        let covered = in_network(&address.to_be_bytes(), &base, prefix);
        prop_assert_eq!(covered, prefix <= same);
    }
}
