//! Merging, collecting and precedence.

use std::{cell::RefCell, collections::BTreeSet};

use proptest::prelude::*;
use ringfence_common::{
    abi::{
        Direction, Header, Layer, Reason, RuleEntry, RuleKey, Verdict,
        rule::{
            ALLOW_SELF, DENY_EGRESS, DENY_INGRESS, DENY_LISTEN, FLAG_VERIFIED, PEER_ANY, SELECTED,
            TIER_ANY_PROTOCOL, TIER_PEER_ANY, TIER_PEER_CIDR, TIER_PEER_IDENTITY,
            TIER_PEER_VERIFIED, TIER_PORTS,
        },
    },
    logic::{
        port::LENGTHS,
        verdict::{Question, collect, merge, outcome},
    },
};

const EVERY_TIER: u32 = TIER_PORTS
    | TIER_ANY_PROTOCOL
    | TIER_PEER_ANY
    | TIER_PEER_IDENTITY
    | TIER_PEER_VERIFIED
    | TIER_PEER_CIDR;

fn merged(a: &Layer, b: &Layer) -> Layer {
    let mut into = *a;
    merge(&mut into, b);
    into
}

/// Few distinct numbers, so that equal times and equal rules happen.
fn layers() -> impl Strategy<Value = Layer> {
    let times = || prop_oneof![Just(0), Just(1), 0u64..4, Just(u64::MAX), any::<u64>()];
    (times(), times(), 0u32..4, 0u32..4).prop_map(
        |(deny_until, allow_until, deny_rule, allow_rule)| Layer {
            deny_until,
            allow_until,
            deny_rule,
            allow_rule,
        },
    )
}

fn directions() -> impl Strategy<Value = Direction> {
    prop::sample::select(vec![
        Direction::Egress,
        Direction::Ingress,
        Direction::Listen,
    ])
}

proptest! {
    #[test]
    fn merge_is_commutative_associative_and_idempotent(a in layers(), b in layers(), c in layers()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a);
        prop_assert_eq!(merged(&Layer::default(), &merged(&a, &Layer::default())), merged(&a, &Layer::default()));
    }

    #[test]
    fn collect_looks_up_exactly_the_keys_of_the_tiers(
        tiers in prop::bits::u32::masked(EVERY_TIER),
        direction in directions(),
        peer in prop_oneof![Just(0u32), 1u32..300],
        verified: bool,
        class in prop_oneof![Just(0u32), Just(1u32 << 24)],
        port: u16,
    ) {
        let mut header = Header::default();
        let [egress, ingress, listen] = &mut header.tiers;
        *match direction {
            Direction::Egress => egress,
            Direction::Ingress => ingress,
            Direction::Listen => listen,
        } = tiers;
        let question = Question { direction, peer, verified, address_class: class, protocol: 6, port };
        let asked = RefCell::new(Vec::new());
        let _ = collect(&header, &question, |key, _| asked.borrow_mut().push(*key));
        let asked = asked.into_inner();

        let mut expected = BTreeSet::new();
        let peers = [
            (TIER_PEER_ANY, PEER_ANY, 0, true),
            (TIER_PEER_IDENTITY, peer, 0, peer != 0),
            (TIER_PEER_VERIFIED, peer, FLAG_VERIFIED, peer != 0 && verified),
            (TIER_PEER_CIDR, class, 0, class != 0),
        ];
        for (tier, peer, flags, known) in peers {
            if tiers & tier == 0 || !known {
                continue;
            }
            let key = RuleKey { peer, direction: direction as u8, flags, ..RuleKey::default() };
            if tiers & TIER_ANY_PROTOCOL != 0 {
                let _ = expected.insert(key);
            }
            for prefix in LENGTHS.into_iter().filter(|prefix| tiers & (1 << prefix) != 0) {
                let kept = u32::from(port) >> (16 - prefix) << (16 - prefix);
                let port = u16::try_from(kept).unwrap_or_default();
                let _ = expected.insert(RuleKey { protocol: 6, port, prefix, ..key });
            }
        }
        prop_assert_eq!(asked.len(), expected.len(), "no key twice");
        prop_assert_eq!(asked.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn collect_merges_all_that_is_found(found in prop::collection::vec(layers(), 1..=1 + LENGTHS.len())) {
        let header = Header { tiers: [TIER_PEER_ANY | TIER_ANY_PROTOCOL | TIER_PORTS; 3], ..Header::default() };
        let question = Question {
            direction: Direction::Ingress, peer: 0, verified: false, address_class: 0, protocol: 17, port: 53,
        };
        let mut left = found.clone();
        let entry = collect(&header, &question, |_, entry: &mut RuleEntry| {
            if let Some(layer) = left.pop() {
                merge(&mut entry.draft, &layer);
            }
        });
        let expected = found.iter().fold(Layer::default(), |into, layer| merged(&into, layer));
        prop_assert_eq!(entry.draft, expected);
        prop_assert_eq!(entry.enforced, Layer::default());
    }

    #[test]
    fn deny_wins_then_allow_whatever_the_header_says(
        layer in layers(),
        flags: u16,
        direction in directions(),
        to_itself: bool,
        deny_unselected: bool,
        now in prop_oneof![0u64..4, any::<u64>()],
    ) {
        let found = outcome(&layer, flags, direction, to_itself, deny_unselected, now);
        if layer.deny_until > now {
            prop_assert_eq!((found.verdict, found.reason), (Verdict::Deny, Reason::DeniedByRule));
            prop_assert_eq!((found.rule, found.until), (layer.deny_rule, layer.deny_until));
        } else if layer.allow_until > now {
            prop_assert_eq!((found.verdict, found.reason), (Verdict::Allow, Reason::AllowedByRule));
            prop_assert_eq!((found.rule, found.until), (layer.allow_rule, layer.allow_until));
        } else {
            prop_assert_eq!(found.until, u64::MAX);
            prop_assert!(found.rule == 0 || found.reason == Reason::DeniedExpired);
        }
    }
}

/// The order of precedence below the rules, row by row.
#[test]
fn without_a_rule_that_holds() {
    let expired = Layer {
        allow_until: 1,
        allow_rule: 9,
        ..Layer::default()
    };
    let none = Layer::default();
    let restricted = SELECTED | DENY_EGRESS | DENY_INGRESS | DENY_LISTEN;
    // layer, flags, to itself, deny unselected -> reason, rule
    let rows = [
        (
            none,
            restricted | ALLOW_SELF,
            true,
            true,
            Reason::AllowedSelf,
            0,
        ),
        (
            expired,
            restricted | ALLOW_SELF,
            true,
            false,
            Reason::AllowedSelf,
            0,
        ),
        (none, restricted, true, false, Reason::DeniedDefault, 0),
        (
            none,
            restricted | ALLOW_SELF,
            false,
            false,
            Reason::DeniedDefault,
            0,
        ),
        (none, ALLOW_SELF, true, true, Reason::AllowedSelf, 0),
        (none, ALLOW_SELF, false, true, Reason::DeniedUnselected, 0),
        (none, ALLOW_SELF, false, false, Reason::AllowedUnselected, 0),
        (none, 0, true, true, Reason::DeniedUnselected, 0),
        (none, SELECTED, false, true, Reason::AllowedDirection, 0),
        (expired, SELECTED, false, true, Reason::AllowedDirection, 0),
        (expired, restricted, false, false, Reason::DeniedExpired, 9),
    ];
    for direction in [Direction::Egress, Direction::Ingress, Direction::Listen] {
        for (layer, flags, to_itself, deny_unselected, reason, rule) in rows {
            let found = outcome(&layer, flags, direction, to_itself, deny_unselected, 5);
            assert_eq!(
                (found.reason, found.rule),
                (reason, rule),
                "{flags:#x} {direction:?}"
            );
            let denied = reason.name().ends_with("deny");
            assert_eq!(found.verdict == Verdict::Deny, denied);
        }
    }
}

#[test]
fn each_direction_has_its_own_default() {
    let flags = [
        (Direction::Egress, DENY_EGRESS),
        (Direction::Ingress, DENY_INGRESS),
        (Direction::Listen, DENY_LISTEN),
    ];
    for (restricted, flag) in flags {
        for (direction, _) in flags {
            let found = outcome(
                &Layer::default(),
                SELECTED | flag,
                direction,
                false,
                false,
                0,
            );
            assert_eq!(found.verdict == Verdict::Deny, direction == restricted);
        }
    }
}

#[test]
fn a_rule_holds_before_its_end_and_not_at_it() {
    let layer = Layer {
        allow_until: 100,
        allow_rule: 3,
        ..Layer::default()
    };
    let at = |now| {
        outcome(
            &layer,
            SELECTED | DENY_EGRESS,
            Direction::Egress,
            false,
            false,
            now,
        )
    };
    assert_eq!(at(99).reason, Reason::AllowedByRule);
    assert_eq!(at(100).reason, Reason::DeniedExpired);
    let endless = Layer {
        deny_until: u64::MAX,
        deny_rule: 3,
        ..Layer::default()
    };
    let found = outcome(&endless, 0, Direction::Listen, true, false, u64::MAX - 1);
    assert_eq!(found.reason, Reason::DeniedByRule);
}
