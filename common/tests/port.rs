//! Ranges of ports as prefixes.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringfence_common::logic::port::{LENGTHS, mask, prefixes};

fn cover(first: u16, last: u16) -> Vec<(u16, u8)> {
    let mut found = Vec::new();
    prefixes(first, last, |port, prefix| found.push((port, prefix)));
    found
}

/// First and last port of a prefix.
fn span(port: u16, prefix: u8) -> (u32, u32) {
    let size = 1u32 << (16 - prefix);
    (u32::from(port), u32::from(port) + size - 1)
}

#[test]
fn known_ranges() {
    assert_eq!(cover(0, 65535), [(0, 0)]);
    assert_eq!(cover(443, 443), [(443, 16)]);
    assert_eq!(cover(65535, 65535), [(65535, 16)]);
    assert_eq!(cover(0, 0), [(0, 16)]);
    assert_eq!(cover(80, 95), [(80, 12)]);
    assert_eq!(
        cover(8000, 8033),
        [(8000, 12), (8016, 12), (8032, 16), (8033, 16)]
    );
    assert_eq!(cover(1, 65535).len(), 4 * 15);
    // The worst case: 15 keys on either side for each length, but for the shortest, which has one row.
    assert_eq!(cover(1, 65534).len(), 3 * 30 + 14);
    assert!(cover(2, 1).is_empty());
}

#[test]
fn a_mask_keeps_the_leading_bits() {
    assert_eq!(mask(0xffff, 0), 0);
    assert_eq!(mask(0xffff, 1), 0x8000);
    assert_eq!(mask(0x1234, 8), 0x1200);
    assert_eq!(mask(0x1234, 15), 0x1234);
    assert_eq!(mask(0x1235, 15), 0x1234);
    assert_eq!(mask(0x1235, 16), 0x1235);
}

proptest! {
    #[test]
    fn prefixes_cover_exactly_the_range_without_overlap(a: u16, b: u16) {
        let (first, last) = (a.min(b), a.max(b));
        let mut next = u32::from(first);
        for (port, prefix) in cover(first, last) {
            prop_assert_eq!(mask(port, prefix), port, "bits beyond the prefix are zero");
            let (start, end) = span(port, prefix);
            prop_assert_eq!(start, next, "no gap, no overlap");
            next = end + 1;
        }
        prop_assert_eq!(next, u32::from(last) + 1);
    }

    #[test]
    fn prefixes_are_as_few_as_can_be(a: u16, b: u16) {
        let (first, last) = (a.min(b), a.max(b));
        for (port, prefix) in cover(first, last) {
            prop_assert!(LENGTHS.contains(&prefix));
            // The block of the next shorter length around it would not fit the range.
            if let Some(&shorter) = LENGTHS.iter().rev().find(|&&length| length < prefix) {
                let (start, end) = span(mask(port, shorter), shorter);
                prop_assert!(start < u32::from(first) || end > u32::from(last), "{port}/{prefix}");
            }
        }
    }

    #[test]
    fn a_port_is_found_by_exactly_one_prefix(a: u16, b: u16, port: u16) {
        let (first, last) = (a.min(b), a.max(b));
        let keys: BTreeSet<(u16, u8)> = cover(first, last).into_iter().collect();
        let hits = LENGTHS.iter().filter(|&&prefix| keys.contains(&(mask(port, prefix), prefix))).count();
        prop_assert_eq!(hits, usize::from((first..=last).contains(&port)));
    }
}
