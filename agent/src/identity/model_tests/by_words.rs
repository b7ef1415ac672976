//! Tables against the words of docs/identity.md: a reference that compares all workloads for each process, and shares no code
//! with what it checks.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use ringfence_common::abi::{
    Identity,
    identity::{HOST, UNKNOWN},
};
use ringfence_policy::model::Selector;

use super::{CONTAINER, Facts, cgroup, container, facts, look_up_in, placement, slice, unit};

fn selectors() -> impl Strategy<Value = Vec<Selector>> {
    let place = prop_oneof![
        select(vec![
            "/a",
            "/a/b",
            "/*",
            "/a/*",
            "/**/b",
            "/a/b*",
            "/c",
            "/s.slice",
            "/u.service"
        ])
        .prop_map(|g| vec![cgroup(g)]),
        select(vec!["s.slice", "s-t.slice"]).prop_map(|name| vec![slice(name)]),
        Just(vec![unit("u.service")]),
        Just(vec![]),
    ];
    let exe = prop::option::weighted(0.2, select(vec!["/x", "/y"]));
    let digest = prop::option::weighted(0.15, 1u8..3);
    let uid = prop::option::weighted(0.2, 0u32..3);
    let gids = prop_oneof![3 => Just(Vec::new()), 2 => vec(0u32..3, 1..4)];
    let name = prop::option::weighted(0.2, select(vec!["n", "other"]));
    let namespace = prop::option::weighted(0.2, Just("s"));
    (
        place,
        exe,
        digest,
        uid,
        gids,
        name,
        namespace,
        any::<bool>(),
    )
        .prop_map(
            |(mut all, exe, digest, uid, gids, name, namespace, plain)| {
                if plain && !all.is_empty() {
                    return all;
                }
                all.extend(name.map(|name| container("container.name", name)));
                all.extend(namespace.map(|name| container("k8s.namespace", name)));
                all.extend(exe.map(|path| Selector::Exe(path.into())));
                all.extend(digest.map(|byte| Selector::Sha256([byte; 32])));
                all.extend(uid.map(Selector::Uid));
                all.extend(gids.into_iter().map(Selector::Gid));
                all
            },
        )
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

/// What is compared, in the order of the documentation: how many kinds of conditions, digest, executable, user, groups;
/// selectors of the container; depth, components spelled out, in part; units, slices.
const CRITERIA: usize = 11;
type Key = [u32; CRITERIA];

/// What decided: the first criterion that tells the best from the next, or why none did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Decided {
    Nobody,
    Alone,
    By(usize),
    Tie,
}

#[test]
fn tables_say_what_the_documentation_says() {
    let reached = RefCell::new(BTreeMap::<Decided, u32>::new());
    let cases = (
        vec(selectors(), 2..7),
        vec(select(PATHS.to_vec()), 1..4),
        vec(
            (select(vec!["", "/x", "/y"]), prop::option::of(1u8..4)),
            1..4,
        ),
        vec(vec(0u32..4, 0..4), 1..4),
    );
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases: 1_200,
            failure_persistence: None,
            ..Config::default()
        },
        // The same cases each time, so that what they reach is certain.
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let ran = runner.run(&cases, |(list, paths, exes, memberships)| {
        let list: Vec<_> = NAMES
            .into_iter()
            .zip(list.iter().map(Vec::as_slice))
            .collect();
        let mut placement = placement(&list);
        for path in paths {
            for (exe, digest) in &exes {
                let facts = facts(exe, *digest);
                for (uid, gids) in
                    (0..4).flat_map(|uid| memberships.iter().map(move |it| (uid, it)))
                {
                    let found = look_up_in(&mut placement, path, &facts, uid, gids);
                    let (expected, decided) = by_words(&list, path, &facts, uid, gids);
                    prop_assert_eq!(found, expected, "{} {:?} {} {:?}", path, facts, uid, gids);
                    *reached.borrow_mut().entry(decided).or_default() += 1;
                }
            }
        }
        Ok(())
    });
    if let Err(TestError::Fail(reason, case)) = &ran {
        panic!("{reason}\n{case:#?}");
    }
    assert!(ran.is_ok(), "{ran:?}");
    let reached = reached.into_inner();
    let all = [Decided::Nobody, Decided::Alone, Decided::Tie]
        .into_iter()
        .chain((0..CRITERIA).map(Decided::By));
    for decided in all {
        assert!(
            reached.contains_key(&decided),
            "no case was decided so: {decided:?} of {reached:?}"
        );
    }
}

/// Identities are 256 and so on, in the order of the list.
fn by_words(
    list: &[(&str, &[Selector])],
    path: &str,
    facts: &Facts,
    uid: u32,
    gids: &[u32],
) -> (Identity, Decided) {
    let matching = (256..).zip(list).filter_map(|(identity, (_, selectors))| {
        key(selectors, path, facts, uid, gids).map(|key| (key, identity))
    });
    let mut matching: Vec<(Key, Identity)> = matching.collect();
    matching.sort_unstable_by(|one, other| other.cmp(one));
    match matching.as_slice() {
        [] => (HOST, Decided::Nobody),
        [(_, only)] => (*only, Decided::Alone),
        [(best, winner), (next, _), ..] => {
            let mut pairs = best.iter().zip(next);
            match pairs.position(|(one, other)| one != other) {
                Some(criterion) => (*winner, Decided::By(criterion)),
                None => (UNKNOWN, Decided::Tie),
            }
        }
    }
}

/// How specific the selectors of a workload are for a process that all of them match.
fn key(selectors: &[Selector], path: &str, facts: &Facts, uid: u32, gids: &[u32]) -> Option<Key> {
    let [mut digest, mut exe, mut user] = [0; 3];
    let mut groups = BTreeSet::new();
    let [
        mut container,
        mut depth,
        mut literal,
        mut partial,
        mut units,
        mut slices,
    ] = [0; 6];
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for selector in selectors {
        let holds = match selector {
            Selector::Sha256(asked) => {
                digest = 1;
                facts.digest == Some(*asked)
            }
            Selector::Exe(asked) => {
                exe = 1;
                facts.paths.contains(asked)
            }
            Selector::Uid(asked) => {
                user = 1;
                uid == *asked
            }
            Selector::Gid(asked) => {
                let _ = groups.insert(*asked);
                gids.contains(asked)
            }
            Selector::Container { value, .. } => {
                container += 1;
                path == CONTAINER && value != "other"
            }
            Selector::Cgroup(glob) => {
                let glob: Vec<&str> = glob.glob().split('/').skip(1).collect();
                for part in &glob {
                    literal += u32::from(!part.contains('*'));
                    let letters = part.chars().any(char::is_alphanumeric);
                    partial += u32::from(part.contains('*') && letters);
                }
                let takes_hold = (0..=parts.len()).find(|level| match level {
                    // The root is one empty name, which a `*` matches.
                    0 => covers(&glob, &[""]),
                    level => covers(&glob, parts.get(..*level).unwrap_or_default()),
                });
                depth = depth.max(u32::try_from(takes_hold.unwrap_or(0)).expect("level"));
                takes_hold.is_some()
            }
            Selector::SystemdUnit(name) | Selector::SystemdSlice(name) => {
                let above = parts
                    .iter()
                    .take_while(|part| part.strip_suffix(".slice").is_some());
                let above = above.count();
                let is_unit = matches!(selector, Selector::SystemdUnit(_));
                let among = if is_unit { above..above + 1 } else { 0..above };
                let at = among
                    .clone()
                    .find(|at| parts.get(*at) == Some(&name.as_str()));
                literal += 1;
                units += u32::from(is_unit);
                slices += u32::from(!is_unit);
                depth = depth.max(u32::try_from(at.map_or(0, |at| at + 1)).expect("level"));
                at.is_some()
            }
            Selector::User(_)
            | Selector::Group(_)
            | Selector::SystemdUserUnit(_)
            | Selector::SystemdUserSlice(_) => unreachable!("not generated: {selector:?}"),
        };
        if !holds {
            return None;
        }
    }
    let groups = u32::try_from(groups.len()).expect("few");
    let kinds = digest + exe + user + groups.min(1);
    Some([
        kinds, digest, exe, user, groups, container, depth, literal, partial, units, slices,
    ])
}

/// Whether a pattern matches all of these components; `**` is any number of them, a `*` ends the others.
fn covers(glob: &[&str], parts: &[&str]) -> bool {
    match (glob.split_first(), parts.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            (0..=parts.len()).any(|skip| covers(rest, parts.get(skip..).unwrap_or_default()))
        }
        (Some((first, glob)), Some((part, parts))) => {
            let is_same = match first.strip_suffix('*') {
                Some(begin) => part.starts_with(begin),
                None => first == part,
            };
            is_same && covers(glob, parts)
        }
        _ => false,
    }
}
