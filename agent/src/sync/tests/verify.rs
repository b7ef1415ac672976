//! Updates against what is held, without a network.

use proptest::prelude::*;
use ringfence_proto::v1::{
    Delta, PolicyDocument, Snapshot, SyncResponse, WorkloadIdentity, sync_response::Update,
};

use super::{
    super::verify::{Refusal, Verified, verify},
    delta, held, snapshot, web, wire,
};

#[test]
fn a_newer_snapshot_is_taken() {
    assert_eq!(verify(None, snapshot(&web(7))), Ok(Verified::New(web(7))));
    assert_eq!(
        verify(Some(&web(6)), snapshot(&web(7))),
        Ok(Verified::New(web(7)))
    );
}

#[test]
fn the_policy_held_is_acknowledged_again() {
    assert_eq!(
        verify(Some(&web(7)), snapshot(&web(7))),
        Ok(Verified::AlreadyHeld)
    );
}

#[test]
fn an_equal_or_older_generation_with_other_contents_is_refused() {
    let mut other = web(6);
    other.generation = 7;
    for offered in [other, web(5)] {
        assert_eq!(
            verify(Some(&web(7)), snapshot(&offered)),
            Err(Some(Refusal::NotNewer {
                offered: offered.generation,
                held: 7
            }))
        );
    }
}

#[test]
fn a_delta_changes_adds_and_removes() {
    let base = held(3, &[("a", "1"), ("b", "2"), ("c", "3")], &[("w", 256)]);
    let after = held(
        5,
        &[("b", "22"), ("c", "3"), ("d", "4")],
        &[("w", 256), ("x", 257)],
    );
    let change = Delta {
        changed: after
            .documents
            .iter()
            .filter(|document| document.name != "c")
            .map(wire)
            .collect(),
        removed: vec!["a".into()],
        identities: vec![WorkloadIdentity {
            workload: "x".into(),
            identity: 257,
        }],
        ..Delta::default()
    };
    assert_eq!(
        verify(Some(&base), delta(3, &after, change.clone())),
        Ok(Verified::New(after.clone()))
    );
    assert_eq!(
        verify(Some(&base), delta(2, &after, change.clone())),
        Err(Some(Refusal::WrongBase { base: 2, held: 3 }))
    );
    assert_eq!(
        verify(None, delta(3, &after, change)),
        Err(Some(Refusal::WrongBase { base: 3, held: 0 }))
    );
}

#[test]
fn a_delta_that_does_not_fit_is_refused() {
    let document = |name: &str| PolicyDocument {
        name: name.into(),
        text: String::new(),
    };
    let cases = [
        (vec![], vec!["missing".to_owned()]),
        (vec![document("web.toml")], vec!["web.toml".to_owned()]),
        (vec![document("x"), document("x")], vec![]),
    ];
    for (changed, removed) in cases {
        let change = Delta {
            changed,
            removed,
            ..Delta::default()
        };
        let result = verify(Some(&web(1)), delta(1, &web(2), change));
        assert!(matches!(result, Err(Some(Refusal::Delta(_)))), "{result:?}");
    }
}

#[test]
fn numbers_stay_with_their_workloads() {
    let before = held(1, &[], &[("web", 256), ("db", 257)]);
    let renumbered = held(2, &[], &[("web", 300), ("db", 257)]);
    let reused = held(2, &[], &[("web", 256), ("other", 257)]);
    assert!(matches!(
        verify(Some(&before), snapshot(&renumbered)),
        Err(Some(Refusal::Renumbered { held: 256, .. }))
    ));
    assert!(matches!(
        verify(Some(&before), snapshot(&reused)),
        Err(Some(Refusal::Reused { identity: 257, .. }))
    ));
}

#[test]
fn malformed_policies_are_refused() {
    let long = "x".repeat(256);
    let cases = [
        held(1, &[("../../etc/passwd", "")], &[]),
        held(1, &[("a\u{7}", "")], &[]),
        held(1, &[("", "")], &[]),
        held(1, &[(&long, "")], &[]),
        held(1, &[("a", ""), ("a", "")], &[]),
        held(1, &[], &[("", 256)]),
        held(1, &[], &[(&long, 256)]),
        held(1, &[], &[("web", 255)]),
        held(1, &[], &[("web", 1 << 24)]),
        held(1, &[], &[("web", 256), ("db", 256)]),
        held(0, &[], &[]),
    ];
    for case in cases {
        let result = verify(None, snapshot(&case));
        assert!(
            matches!(result, Err(Some(Refusal::Malformed(_)))),
            "{case:?} {result:?}"
        );
    }
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut response = snapshot(&web(1));
    response.checksum = vec![0; 32];
    assert_eq!(verify(None, response), Err(Some(Refusal::Checksum)));
    let mut response = snapshot(&web(1));
    response.checksum.truncate(31);
    assert_eq!(verify(None, response), Err(Some(Refusal::Checksum)));
}

fn any_update() -> impl Strategy<Value = Option<Update>> {
    let documents = || {
        prop::collection::vec(
            (".{0,8}", ".{0,8}").prop_map(|(name, text)| PolicyDocument { name, text }),
            0..4,
        )
    };
    let identities = || {
        prop::collection::vec(
            (".{0,4}", any::<u32>())
                .prop_map(|(workload, identity)| WorkloadIdentity { workload, identity }),
            0..4,
        )
    };
    prop_oneof![
        Just(None),
        (documents(), identities()).prop_map(|(documents, identities)| {
            Some(Update::Snapshot(Snapshot {
                documents,
                identities,
            }))
        }),
        (
            0..4_u64,
            documents(),
            prop::collection::vec(".{0,8}", 0..4),
            identities()
        )
            .prop_map(|(base, changed, removed, identities)| {
                Some(Update::Delta(Delta {
                    base,
                    changed,
                    removed,
                    identities,
                }))
            }),
    ]
}

proptest! {
    /// Without the right checksum nothing gets through, whatever it looks like.
    #[test]
    fn garbage_is_never_taken(
        generation in 0..5_u64,
        checksum in prop::collection::vec(any::<u8>(), 0..40),
        update in any_update(),
        holds in any::<bool>(),
    ) {
        let response = SyncResponse { generation, nonce: 1, checksum, update, max_endpoints: 0 };
        let policy = holds.then(|| web(2));
        prop_assert!(verify(policy.as_ref(), response).is_err());
    }
}
