//! Full maps of the kernel's, small ones.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::collections::BTreeMap;

use ringfence_common::abi::cgroup::NAMED;

use super::*;

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;
const ROOM: u32 = 4;

fn mirror<K: Pod + Ord, V: Pod + PartialEq>(name: &'static str, room: u32) -> Mirror<K, V> {
    Mirror::of(name, HashMap::create(room, NO_PREALLOC).expect("a map"))
}

fn identities() -> Identities {
    Identities {
        cgroups: mirror(names::CGROUPS, ROOM),
        children: mirror(names::CHILDREN, ROOM),
        executables: mirror(names::EXECUTABLES, ROOM),
        processes: mirror(names::PROCESSES, ROOM),
        groups: mirror(names::GROUPS, ROOM),
        local_addresses: mirror(names::LOCAL_ADDRESSES, ROOM),
    }
}

/// Everything of a workload that is told by its executable, numbered from `first`.
fn tables(first: u64, number: u64) -> Tables {
    let range = || first..first + number;
    let class = |n: u64| u32::try_from(n).expect("small");
    let cgroup = |n| CgroupEntry {
        identity: 1,
        class: class(n),
        below: NAMED,
    };
    let executable = |n| ExecutableKey {
        inode: n,
        ..ExecutableKey::default()
    };
    let process = |n| ProcessKey {
        class: class(n),
        executable: class(n),
        uid: 0,
    };
    let child = |n| ChildKey::new(n, b"web").expect("a name");
    Tables {
        cgroups: range().map(|n| (n, cgroup(n))).collect(),
        children: range().map(|n| (child(n), cgroup(n))).collect(),
        executables: range().map(|n| (executable(n), class(n))).collect(),
        processes: range().map(|n| (process(n), 256 + class(n))).collect(),
        groups: range()
            .map(|n| (class(n), ClassGroups { gids: [0; 8] }))
            .collect(),
        ..Tables::default()
    }
}

fn content<K: Pod + Ord, V: Pod + PartialEq>(mirror: &Mirror<K, V>) -> BTreeMap<K, V> {
    mirror
        .map
        .iter()
        .map(|entry| entry.expect("read"))
        .collect()
}

#[track_caller]
fn assert_holds(identities: &Identities, wanted: &Tables) {
    let all = |map: OrdMap<_, _>| map.into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(content(&identities.cgroups), all(wanted.cgroups.clone()));
    let all = |map: OrdMap<_, _>| map.into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(content(&identities.children), all(wanted.children.clone()));
    let all = |map: OrdMap<_, _>| map.into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(
        content(&identities.executables),
        all(wanted.executables.clone())
    );
    let all = |map: OrdMap<_, _>| map.into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(
        content(&identities.processes),
        all(wanted.processes.clone())
    );
    assert_eq!(&identities.held(), wanted);
}

#[test]
fn a_full_map_takes_others_in_place_of_those_that_go() {
    let mut identities = identities();
    for (first, number) in [(1, 4), (5, 4), (6, 4), (2, 1), (1, 4)] {
        let wanted = tables(first, number);
        identities.apply(&wanted).expect("room for what is wanted");
        assert_holds(&identities, &wanted);
    }
}

#[test]
fn what_does_not_fit_changes_nothing_and_does_not_last() {
    let mut identities = identities();
    let before = tables(1, 3);
    identities.apply(&before).expect("room");
    for number in [5, 9] {
        let error = identities.apply(&tables(3, number)).expect_err("no room");
        assert!(matches!(error, DatapathError::Full { .. }), "{error}");
        assert_holds(&identities, &before);
    }
    let after = tables(3, 4);
    identities.apply(&after).expect("room again");
    assert_holds(&identities, &after);
}

#[test]
fn who_is_told_by_more_than_his_cgroup_is_pending_while_there_is_no_room() {
    let told = CgroupEntry {
        identity: 300,
        class: 7,
        below: NAMED,
    };
    let pending = CgroupEntry {
        identity: PENDING,
        class: 0,
        below: OTHERS,
    };
    assert_eq!(hold(&told), pending);
    let by_cgroup = CgroupEntry {
        identity: 300,
        ..CgroupEntry::default()
    };
    assert_eq!(hold(&by_cgroup), by_cgroup);
}

#[test]
fn a_full_list_of_addresses_takes_new_ones_in_place_of_those_that_went() {
    let mut identities = identities();
    let addresses = |first: u8| -> OrdMap<LocalKey, u8> {
        let key = |n| LocalKey {
            netns: 1,
            address: [n; 16],
        };
        (first..first + 4).map(|n| (key(n), 1)).collect()
    };
    for (first, complete) in [(1, true), (5, true), (7, false)] {
        let wanted = addresses(first);
        identities
            .set_local_addresses(&wanted, complete)
            .expect("room");
        assert_eq!(identities.local_addresses.held, wanted);
        let held: OrdMap<_, _> = content(&identities.local_addresses).into_iter().collect();
        assert_eq!(held, wanted);
    }
}
