//! Matching, specificity and the process table without a kernel.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, time::Instant};

use proptest::{collection::vec, prelude::*, sample::select};
use ringfence_common::abi::{
    CgroupEntry, Identity, ProcessKey,
    cgroup::{CONTAINERS, NAMED, OTHERS},
    executable::ANY_UID,
    identity::{HOST, PENDING, UNKNOWN},
};
use ringfence_policy::model::Selector;

use super::{
    containers::{ContainerAnswer, Containers},
    fixture::{cgroup, slice, unit, workloads},
    placement::{Placement, specs},
    processes::Facts,
    specificity::Specificity,
};

fn placement(list: &[(&str, &[Selector])]) -> Placement {
    let (workloads, identities) = workloads(list);
    let user = |name: &str| (name == "alice").then_some(1000);
    Placement::new(specs(&workloads, &identities, user).expect("specs")).expect("placement")
}

const CONTAINER: &str = "/k/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// One container, whose runtime has said its name and namespace.
fn containers() -> Containers {
    let mut containers = Containers::default();
    let now = Instant::now();
    containers.appeared(7, Path::new(CONTAINER), true, now);
    let facts = [("container.name", "n"), ("k8s.namespace", "s")];
    let facts = facts.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let _ = containers.answered(7, ContainerAnswer::Is(facts.into()), now);
    containers
}

fn container(key: &str, value: &str) -> Selector {
    Selector::Container {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// What the kernel makes of the tables.
fn look_up(placement: &mut Placement, path: &str, facts: &Facts, uid: u32) -> Identity {
    let CgroupEntry {
        identity, class, ..
    } = placement.entry(Path::new(path), &containers());
    let executable = placement.executable(facts);
    let find = |uid| {
        let key = ProcessKey {
            class,
            executable,
            uid,
        };
        placement.processes().get(&key).copied()
    };
    if class == 0 {
        return identity;
    }
    find(uid).or_else(|| find(ANY_UID)).unwrap_or(identity)
}

fn of_cgroup(placement: &mut Placement, path: &str) -> Identity {
    look_up(placement, path, &Facts::default(), 0)
}

fn facts(path: &str, digest: Option<u8>) -> Facts {
    let paths = [path].into_iter().filter(|path| !path.is_empty());
    Facts {
        paths: paths.map(Into::into).collect(),
        digest: digest.map(|byte| [byte; 32]),
    }
}

#[test]
fn cgroup_pattern_covers_the_cgroup_and_everything_below() {
    let mut placement = placement(&[("a", &[cgroup("/x/web-*")]), ("all", &[cgroup("/x")])]);
    for (path, identity) in [
        ("/", HOST),
        ("/x", 257),
        ("/x/web-1", 256),
        ("/x/web-1/deep/deeper", 256),
        ("/x/other", 257),
        ("/y/x/web-1", HOST),
    ] {
        assert_eq!(of_cgroup(&mut placement, path), identity, "{path}");
    }
}

#[test]
fn a_container_is_nobody_until_its_runtime_has_said_what_it_is() {
    let mut placement = placement(&[
        ("all", &[cgroup("/k")]),
        ("name", &[container("container.name", "n")]),
        (
            "both",
            &[
                container("container.name", "n"),
                container("k8s.namespace", "s"),
            ],
        ),
        (
            "other",
            &[
                cgroup("/k/*"),
                container("container.name", "x"),
                container("k8s.namespace", "s"),
            ],
        ),
        ("root", &[container("k8s.namespace", "s"), Selector::Uid(0)]),
    ]);
    let unknown = CONTAINER.replace('a', "b");
    for (path, uid, identity) in [
        ("/k", 1, 256),
        (CONTAINER, 1, 258),
        (&format!("{CONTAINER}/init.scope"), 1, 258),
        (CONTAINER, 0, 260),
        (&unknown, 1, PENDING),
        (&unknown, 0, PENDING),
        (&format!("{unknown}/x"), 1, PENDING),
    ] {
        let found = look_up(&mut placement, path, &Facts::default(), uid);
        assert_eq!(found, identity, "{path} {uid}");
    }
    let below = |placement: &mut Placement, path: &str| {
        placement.family(1, Path::new(path), &containers()).0.below
    };
    assert_eq!(below(&mut placement, "/k"), CONTAINERS | OTHERS);
    assert_eq!(below(&mut placement, "/"), CONTAINERS | NAMED);
    assert_eq!(below(&mut placement, CONTAINER), 0);
    assert_eq!(below(&mut placement, &unknown), 0);
}

#[test]
fn nobody_waits_for_runtimes_that_no_selector_asks() {
    let mut placement = placement(&[("all", &[cgroup("/k")])]);
    let unknown = CONTAINER.replace('a', "b");
    assert_eq!(of_cgroup(&mut placement, &unknown), 256);
    let (own, _) = placement.family(1, Path::new(&unknown), &containers());
    assert_eq!(own.below, 0);
}

#[test]
fn unit_is_the_first_component_after_the_slices_and_nothing_below_it() {
    let mut placement = placement(&[
        ("unit", &[unit("db.service")]),
        ("slice", &[slice("system.slice")]),
        ("inner", &[slice("system-x.slice")]),
    ]);
    for (path, identity) in [
        ("/system.slice", 257),
        ("/system.slice/db.service", 256),
        ("/system.slice/_db.service/sub", 256),
        ("/db.service", 256),
        ("/system.slice/system-x.slice", 258),
        ("/system.slice/system-x.slice/db.service", 256),
        ("/user.slice/user-1.slice/user@1.service/db.service", HOST),
        (
            "/user.slice/user-1.slice/user@1.service/system.slice/db.service",
            HOST,
        ),
        ("/machine/system.slice", HOST),
    ] {
        assert_eq!(of_cgroup(&mut placement, path), identity, "{path}");
    }
}

#[test]
fn path_spelled_out_is_closer_than_a_unit_and_a_unit_closer_than_a_wildcard() {
    let mut placement = placement(&[
        ("exact", &[cgroup("/system.slice/a.service")]),
        ("unit", &[unit("a.service")]),
        ("unit-b", &[unit("b.service")]),
        ("wild", &[cgroup("/system.slice/*")]),
    ]);
    assert_eq!(of_cgroup(&mut placement, "/system.slice/a.service"), 256);
    assert_eq!(of_cgroup(&mut placement, "/system.slice/b.service"), 258);
    assert_eq!(of_cgroup(&mut placement, "/system.slice/c.service"), 259);
    assert_eq!(placement.ties().count(), 0);
}

#[test]
fn all_selectors_of_a_workload_must_match() {
    let both = [
        slice("a.slice"),
        cgroup("/a.slice/**/leaf"),
        Selector::Uid(7),
    ];
    let mut placement = placement(&[("both", &both)]);
    let mut uid = |path, uid| look_up(&mut placement, path, &Facts::default(), uid);
    assert_eq!(uid("/a.slice/b/leaf/c", 7), 256);
    assert_eq!(uid("/a.slice/b/leaf/c", 8), HOST);
    assert_eq!(uid("/a.slice/b", 7), HOST);
    assert_eq!(uid("/b/leaf", 7), HOST);
}

#[test]
fn names_of_any_bytes_are_matched() {
    let mut placement = placement(&[("a", &[cgroup("/x/*/y")])]);
    for name in [
        &b"new\nline"[..],
        b"\xff\xfe",
        "\u{fc}\u{1f980}".as_bytes(),
        b" ",
        b"*",
    ] {
        let path = [b"/x/", name, b"/y/z\n"].concat();
        let path = Path::new(OsStr::from_bytes(&path)).to_owned();
        assert_eq!(
            placement.entry(&path, &containers()).identity,
            256,
            "{path:?}"
        );
    }
}

#[test]
fn unknown_user_matches_nobody() {
    let mut placement = placement(&[
        ("ghost", &[Selector::User("nobody-of-that-name".into())]),
        ("alice", &[Selector::User("alice".into())]),
        ("both", &[Selector::User("alice".into()), Selector::Uid(1)]),
        ("overflow", &[Selector::Uid(u32::MAX)]),
    ]);
    assert_eq!(look_up(&mut placement, "/", &Facts::default(), 1000), 257);
    for uid in [0, 1, u32::MAX] {
        assert_eq!(look_up(&mut placement, "/", &Facts::default(), uid), HOST);
    }
}

#[test]
fn without_users_nobody_gets_no_process_class() {
    let mut placement = placement(&[("ghost", &[Selector::User("none".into())])]);
    assert_eq!(placement.entry(Path::new("/"), &containers()).class, 0);
}

#[test]
fn ties_are_named_and_never_decided() {
    let exe = || Selector::Exe("/bin/x".into());
    let cases: [(&str, &[Selector], &[Selector], bool); 8] = [
        ("same glob", &[cgroup("/t/*")], &[cgroup("/*/a")], true),
        ("overlap", &[cgroup("/t/a*")], &[cgroup("/t/*a")], true),
        ("elsewhere", &[cgroup("/u/a*")], &[cgroup("/u/*a")], false),
        ("same exe", &[exe()], &[exe()], true),
        (
            "other user",
            &[exe(), Selector::Uid(1)],
            &[exe(), Selector::Uid(2)],
            false,
        ),
        (
            "same user",
            &[exe(), Selector::User("alice".into())],
            &[exe(), Selector::Uid(1000)],
            true,
        ),
        ("one more", &[exe(), Selector::Uid(1)], &[exe()], false),
        (
            "other place",
            &[exe(), cgroup("/t")],
            &[exe(), cgroup("/t/a")],
            false,
        ),
    ];
    for (name, first, second, tied) in cases {
        let mut placement = placement(&[("first", first), ("second", second)]);
        let entry = placement.entry(Path::new("/t/a"), &containers());
        let pairs: Vec<(&str, &str)> = placement
            .ties()
            .map(|tie| (&*tie.first, &*tie.second))
            .collect();
        let expected: &[_] = if tied { &[("first", "second")] } else { &[] };
        assert_eq!(pairs, expected, "{name}");
        if tied && entry.class == 0 {
            assert_eq!(entry.identity, UNKNOWN, "{name}");
        }
    }
}

#[test]
fn paths_that_become_one_file_are_a_tie_that_allows_nothing() {
    let mut placement = placement(&[
        ("a", &[Selector::Exe("/bin/a".into())]),
        ("b", &[Selector::Exe("/bin/b".into())]),
    ]);
    assert_eq!(look_up(&mut placement, "/", &facts("/bin/a", None), 0), 256);
    assert_eq!(placement.ties().count(), 0);
    let both = Facts {
        paths: ["/bin/a".into(), "/bin/b".into()].into(),
        digest: None,
    };
    assert_eq!(look_up(&mut placement, "/", &both, 0), UNKNOWN);
    assert_eq!(placement.ties().count(), 1);
}

#[test]
fn class_numbers_do_not_depend_on_the_order_of_discovery() {
    let list: [(&str, &[Selector]); 2] = [
        ("a", &[Selector::Uid(1), cgroup("/a")]),
        ("b", &[Selector::Exe("/bin/b".into()), cgroup("/**")]),
    ];
    let mut one = placement(&list);
    let mut two = placement(&list);
    let paths = ["/a", "/b", "/a/c"].map(Path::new);
    let forward: Vec<_> = paths
        .iter()
        .map(|path| one.entry(path, &containers()))
        .collect();
    let mut backward: Vec<_> = paths
        .iter()
        .rev()
        .map(|path| two.entry(path, &containers()))
        .collect();
    backward.reverse();
    assert_eq!(forward, backward);
    assert!(forward.iter().all(|entry| entry.class != 0));
    let named = facts("/bin/b", None);
    assert_eq!(one.executable(&named), two.executable(&named));
    assert_eq!(one.processes(), two.processes());
}

fn selectors() -> impl Strategy<Value = Vec<Selector>> {
    let place = prop_oneof![
        select(vec!["/a", "/a/b", "/*", "/a/*", "/**/b", "/a/b*", "/c"])
            .prop_map(|g| vec![cgroup(g)]),
        select(vec!["s.slice", "s-t.slice"]).prop_map(|name| vec![slice(name)]),
        Just(vec![unit("u.service")]),
        Just(vec![]),
    ];
    let exe = prop::option::of(select(vec!["/x", "/y"]));
    let digest = prop::option::weighted(0.3, 1u8..3);
    let uid = prop::option::of(0u32..3);
    let name = prop::option::weighted(0.3, select(vec!["n", "other"]));
    let namespace = prop::option::weighted(0.2, Just("s"));
    (place, exe, digest, uid, name, namespace)
        .prop_map(|(mut all, exe, digest, uid, name, namespace)| {
            all.extend(name.map(|name| container("container.name", name)));
            all.extend(namespace.map(|name| container("k8s.namespace", name)));
            all.extend(exe.map(|path| Selector::Exe(path.into())));
            all.extend(digest.map(|byte| Selector::Sha256([byte; 32])));
            all.extend(uid.map(Selector::Uid));
            all
        })
        .prop_filter("a workload has selectors", |all| !all.is_empty())
}

const NAMES: [&str; 6] = ["w0", "w1", "w2", "w3", "w4", "w5"];
const PATHS: [&str; 10] = [
    "/",
    CONTAINER,
    "/a",
    "/a/b",
    "/a/bc",
    "/a/x/b",
    "/c",
    "/s.slice",
    "/s.slice/s-t.slice/u.service",
    "/u.service/a",
];

proptest! {
    #[test]
    fn tables_say_what_comparing_all_workloads_says(
        list in vec(selectors(), 1..6),
        paths in vec(select(PATHS.to_vec()), 1..4),
        exes in vec((select(vec!["", "/x", "/y"]), prop::option::of(1u8..4)), 1..4),
    ) {
        let list: Vec<_> = NAMES.into_iter().zip(list.iter().map(Vec::as_slice)).collect();
        let mut placement = placement(&list);
        for path in paths {
            for (exe, digest) in &exes {
                let facts = facts(exe, *digest);
                for uid in 0..4 {
                    let found = look_up(&mut placement, path, &facts, uid);
                    let expected = by_comparison(&placement, &list, path, &facts, uid);
                    prop_assert_eq!(found, expected, "{} {:?} {}", path, facts, uid);
                }
            }
        }
    }
}

/// The rule of the documentation, without classes and tables.
fn by_comparison(
    placement: &Placement,
    list: &[(&str, &[Selector])],
    path: &str,
    facts: &Facts,
    uid: u32,
) -> Identity {
    let mut matching: Vec<(Specificity, Identity)> = Vec::new();
    for (workload, (_, selectors)) in list.iter().enumerate() {
        let spec = placement.specs().get(workload).expect("spec");
        let holds = |selector: &Selector| match selector {
            Selector::Exe(path) => facts.paths.contains(path),
            Selector::Sha256(digest) => facts.digest == Some(*digest),
            Selector::Uid(asked) => uid == *asked,
            Selector::User(_) => false,
            Selector::Cgroup(_)
            | Selector::SystemdUnit(_)
            | Selector::SystemdSlice(_)
            | Selector::Container { .. } => true,
        };
        if let Some(place) = placement.place(workload, Path::new(path), &containers())
            && selectors.iter().all(holds)
        {
            matching.push((Specificity::new(&spec.condition, place), spec.identity));
        }
    }
    let Some(most) = matching.iter().map(|(specificity, _)| *specificity).max() else {
        return HOST;
    };
    let winners: BTreeSet<Identity> = matching
        .iter()
        .filter(|(specificity, _)| *specificity == most)
        .map(|(_, identity)| *identity)
        .collect();
    match winners.first() {
        Some(winner) if winners.len() == 1 => *winner,
        _ => UNKNOWN,
    }
}
