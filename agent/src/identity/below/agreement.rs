//! What is foreseen of a cgroup by its name is what matching says of it once it is there.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::path::{Path, PathBuf};

use proptest::{collection::vec, prelude::*, sample::select};
use ringfence_common::abi::{CgroupEntry, ChildKey, cgroup::OTHERS};
use ringfence_policy::model::Selector;

use crate::identity::{
    containers::Containers,
    fixture::{cgroup, slice, unit, user_slice, user_unit, workloads},
    placement::{Placement, specs},
};

const NAMES: [&str; 10] = [
    "x.service",
    "rdma.service",
    "cpu.service",
    "_x.service",
    ".x.service",
    "w@1.service",
    "w@.service",
    "user@7.service",
    "a.slice",
    "a-b.slice",
];

fn selector() -> impl Strategy<Value = Selector> {
    let globs = vec![
        "/a.slice/*.service",
        "/_x.service",
        "/**/rdma.service",
        "/a.slice/_rdma.service/in",
    ];
    prop_oneof![
        4 => select(NAMES.to_vec()).prop_map(unit),
        2 => select(NAMES.to_vec()).prop_map(slice),
        1 => select(NAMES.to_vec()).prop_map(user_unit),
        1 => select(NAMES.to_vec()).prop_map(user_slice),
        1 => select(globs).prop_map(cgroup),
        1 => Just(Selector::Uid(7)),
    ]
}

fn name() -> impl Strategy<Value = String> {
    let escape = select(vec!["", "_", "__"]);
    (escape, select(NAMES.to_vec())).prop_map(|(escape, name)| format!("{escape}{name}"))
}

/// What the kernel takes a cgroup right below another for that it has not heard of; `None` = pending.
fn foreseen(placement: &mut Placement, path: &Path, name: &str) -> Option<CgroupEntry> {
    let (own, children) = placement.family(1, path, &Containers::default());
    let key = ChildKey::new(1, name.as_bytes()).expect("short name");
    let named = children.iter().find(|(child, _)| *child == key);
    match named {
        Some((_, entry)) => Some(*entry),
        None => (own.below & OTHERS == 0).then_some(own),
    }
}

proptest! {
    #[test]
    fn a_name_stands_for_whom_the_cgroup_stands_for_once_it_is_there(
        selectors in vec(vec(selector(), 1..3), 1..5),
        parts in vec(name(), 0..4),
        child in name(),
    ) {
        let names: Vec<String> = (0..selectors.len()).map(|n| format!("w{n}")).collect();
        let list: Vec<(&str, &[Selector])> = names
            .iter()
            .zip(&selectors)
            .map(|(name, selectors)| (name.as_str(), selectors.as_slice()))
            .collect();
        let (workloads, identities) = workloads(&list);
        let specs = specs(&workloads, &identities, |_| None, |_| None).expect("specs");
        let mut placement = Placement::new(specs).expect("placement");
        let path: PathBuf = std::iter::once("/".to_owned()).chain(parts).collect();
        let seen = placement.entry(&path.join(&child), &Containers::default());
        if let Some(foreseen) = foreseen(&mut placement, &path, &child) {
            prop_assert_eq!(
                (foreseen.identity, foreseen.class),
                (seen.identity, seen.class),
                "{:?} {}", path, child
            );
        }
    }
}
