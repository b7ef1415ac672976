//! Selectors against processes that are made up, one row each.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{fs, path::Path};

use ringfence_common::abi::CgroupEntry;

use ringfence_policy::model::Selector;

use super::{
    super::{
        Groups, HASH_LIMIT,
        file::Executable,
        fixture::{cgroup, container, slice, unit, user_slice, user_unit, workloads},
        live::{Program, ProgramState},
        mounts::Mounts,
    },
    *,
};

/// A process of root in a unit, which runs the file at `path`.
fn live(path: &Path) -> Live {
    let mounts = Mounts::own().expect("mount table");
    let key = Executable::open(path, &mounts).ok().map(|file| file.key);
    Live {
        tgid: 7,
        comm: "web".to_owned(),
        uid: 0,
        groups: Groups::All([0, 7].into()),
        cgroup: "/a.slice/a-b.slice/_web.service/x".into(),
        cgroup_id: 10,
        program: Program {
            path: path.to_path_buf(),
            state: ProgramState::OnDisk,
            key,
        },
        netns: 1,
        ended: false,
        container: Some([("container.name".to_owned(), "web".to_owned())].into()),
    }
}

fn check(selector: &Selector, live: &Live) -> SelectorCheck {
    Asked::new(HASH_LIMIT).check(selector, live, Depth::Whole)
}

#[test]
fn each_selector_says_what_it_wanted_and_found() {
    let path = Path::new("/bin/sh");
    let live = live(path);
    let whole = "/a.slice/a-b.slice/_web.service/x";
    let cases = [
        (cgroup("/a.slice/**"), true, "/a.slice/**", whole),
        (cgroup("/a.slice/*"), true, "/a.slice/*", whole),
        (cgroup("/b/**"), false, "/b/**", whole),
        (unit("web.service"), true, "web.service", "web.service"),
        (unit("x"), false, "x", "web.service"),
        (slice("a-b.slice"), true, "a-b.slice", "a.slice, a-b.slice"),
        (slice("c.slice"), false, "c.slice", "a.slice, a-b.slice"),
        (Selector::Exe(path.into()), true, "/bin/sh", "/bin/sh"),
        (Selector::Exe("/bin/ls".into()), false, "/bin/ls", "/bin/sh"),
        (
            Selector::Exe("/nothing".into()),
            false,
            "/nothing",
            "/bin/sh (nothing is at the path of the selector)",
        ),
        (Selector::Uid(0), true, "0", "0 (root)"),
        (Selector::Uid(1), false, "1", "0 (root)"),
        (Selector::User("root".into()), true, "root (0)", "0 (root)"),
        (
            Selector::User("no such user".into()),
            false,
            "no such user (unknown on this host)",
            "0 (root)",
        ),
        (container("container.name", "web"), true, "web", "web"),
        (container("container.name", "x"), false, "x", "web"),
        (container("k8s.namespace", "web"), false, "web", "none"),
    ];
    for (selector, matched, wanted, found) in cases {
        let check = check(&selector, &live);
        let expected = SelectorCheck {
            key: selector.key().to_owned(),
            matched,
            wanted: wanted.to_owned(),
            found: found.to_owned(),
        };
        assert_eq!(check, expected);
    }
}

#[test]
fn a_users_units_are_told_from_the_hosts() {
    let of_user = Live {
        uid: 7,
        cgroup: "/user.slice/user-7.slice/user@7.service/app.slice/web@1.service".into(),
        ..live(Path::new("/bin/sh"))
    };
    let other = Live {
        uid: 8,
        ..of_user.clone()
    };
    let host = live(Path::new("/bin/sh"));
    for (selector, live, matched, found) in [
        (unit("user@.service"), &of_user, true, "user@7.service"),
        (user_unit("web@.service"), &of_user, true, "web@1.service"),
        (user_unit("web@1.service"), &of_user, true, "web@1.service"),
        (user_unit("web@2.service"), &of_user, false, "web@1.service"),
        (user_slice("app.slice"), &of_user, true, "app.slice"),
        (
            user_slice("app.slice"),
            &other,
            false,
            "none: the process is of user 8, the service manager of user 7",
        ),
        (
            user_unit("web.service"),
            &host,
            false,
            "none: not below the service manager of a user",
        ),
    ] {
        let check = check(&selector, live);
        assert_eq!((check.matched, check.found.as_str()), (matched, found));
    }
}

#[test]
fn a_digest_is_taken_from_the_process_itself() {
    let own = fs::read_link("/proc/self/exe").expect("own path");
    let live = Live {
        tgid: std::process::id(),
        ..live(&own)
    };
    let zero = Selector::Sha256([0; 32]);
    let first = check(&zero, &live);
    assert!(!first.matched);
    assert_eq!(first.found.len(), 64, "{first:?}");
    let byte = |at: usize| u8::from_str_radix(first.found.get(at..at + 2).unwrap_or(""), 16);
    let mut sum = [0; 32];
    for (number, to) in sum.iter_mut().enumerate() {
        *to = byte(2 * number).expect("hexadecimal");
    }
    assert!(check(&Selector::Sha256(sum), &live).matched);
    let foreign = Live {
        program: Program {
            state: ProgramState::Foreign,
            key: Some(ExecutableKey::FOREIGN),
            ..live.program.clone()
        },
        ..live
    };
    let refused = check(&Selector::Sha256(sum), &foreign);
    assert_eq!(
        (refused.matched, refused.found.as_str()),
        (false, "none: a user answers for its file system")
    );
}

#[test]
fn states_of_the_executable_are_told_where_they_are_the_reason() {
    let wanted = Selector::Exe("/bin/ls".into());
    let base = live(Path::new("/bin/sh"));
    let cases = [
        (ProgramState::Deleted, "restart the process"),
        (ProgramState::Memfd, "in memory only"),
        (ProgramState::OtherMounts, "in another mount namespace"),
        (ProgramState::Foreign, "a user answers for"),
        (ProgramState::Unreadable, "can't be read"),
    ];
    for (state, told) in cases {
        let live = Live {
            program: Program {
                state,
                ..base.program.clone()
            },
            ..base.clone()
        };
        let check = check(&wanted, &live);
        assert!(!check.matched && check.found.contains(told), "{check:?}");
    }
}

fn tables(entry: CgroupEntry) -> Tables {
    Tables {
        cgroups: [(1u64, CgroupEntry::default()), (10, entry)]
            .into_iter()
            .collect(),
        ..Tables::default()
    }
}

fn names(why: &Why, workloads: &[Arc<Workload>]) -> Vec<(String, bool)> {
    let name = |at: usize| {
        workloads
            .get(at)
            .map(|it| it.name.clone())
            .unwrap_or_default()
    };
    why.candidates
        .iter()
        .map(|it| (name(it.workload), it.matched))
        .collect()
}

#[test]
fn matches_are_ranked_before_near_misses_and_what_is_far_is_left_out() {
    let sh = || Selector::Exe("/bin/sh".into());
    let live = live(Path::new("/bin/sh"));
    let (list, identities) = workloads(&[
        ("unit", &[unit("web.service")]),
        ("near", &[unit("web.service"), Selector::Uid(5)]),
        ("exe", &[sh(), slice("a.slice")]),
        ("far", &[unit("x.service"), Selector::Uid(5)]),
        ("single", &[unit("x.service")]),
        ("both", &[sh(), Selector::Uid(0)]),
    ]);
    let entry = CgroupEntry {
        identity: 261,
        ..CgroupEntry::default()
    };
    let why = explain(
        Asked::new(HASH_LIMIT),
        &live,
        &list,
        &identities,
        &tables(entry),
        1,
    );
    let expected = [
        ("both", true),
        ("exe", true),
        ("unit", true),
        ("near", false),
    ];
    let expected = expected.map(|(name, matched)| (name.to_owned(), matched));
    assert_eq!(names(&why, &list), expected);
    assert_eq!(why.identity, 261);
    assert_eq!(why.reason, "the most specific of 3 workloads that match");
    assert!(why.notes.is_empty(), "{:?}", why.notes);
    let criteria: Vec<_> = why
        .candidates
        .iter()
        .map(|it| it.criterion.as_str())
        .collect();
    assert_eq!(
        criteria,
        [
            "",
            "kinds of conditions on the process: 1 against 2",
            "kinds of conditions on the process: 0 against 1",
            "",
        ]
    );
    let near = why
        .candidates
        .last()
        .map(|it| it.checks.clone())
        .unwrap_or_default();
    let failed: Vec<_> = near.iter().filter(|check| !check.matched).collect();
    assert!(
        matches!(failed.as_slice(), [check] if check.key == "uid" && check.wanted == "5"),
        "{near:?}"
    );
}

#[test]
fn every_state_of_a_process_has_its_reason() {
    let sh = live(Path::new("/bin/sh"));
    let (list, identities) = workloads(&[("unit", &[unit("web.service")])]);
    let entry = |identity, class| CgroupEntry {
        identity,
        class,
        below: 0,
    };
    let unread = Live {
        program: Program {
            key: None,
            state: ProgramState::Unreadable,
            ..sh.program.clone()
        },
        ..sh.clone()
    };
    let replaced = Live {
        program: Program {
            state: ProgramState::Deleted,
            ..sh.program.clone()
        },
        ..sh.clone()
    };
    let unknown_cgroup = Live {
        cgroup_id: 99,
        ..sh.clone()
    };
    let mut open = tables(entry(256, 0));
    let _ = open.cgroups.insert(
        1,
        CgroupEntry {
            below: 2,
            ..entry(HOST, 0)
        },
    );
    let cases = [
        (
            &sh,
            tables(entry(256, 0)),
            256,
            "the only workload that matches",
            0,
        ),
        (
            &sh,
            tables(entry(HOST, 0)),
            HOST,
            "the kernel was told of no workload",
            1,
        ),
        (
            &sh,
            tables(entry(300, 0)),
            300,
            "the only workload that matches",
            1,
        ),
        (
            &sh,
            tables(entry(HOST, 4)),
            PENDING,
            "has not been judged yet",
            0,
        ),
        (
            &replaced,
            tables(entry(HOST, 4)),
            PENDING,
            "replaced or removed since it was started, and has not been judged anew: what a new socket of it sends is \
             held until it is judged, which that brings about; by the selectors it will be unit",
            0,
        ),
        (&sh, tables(entry(UNKNOWN, 0)), UNKNOWN, "are tied", 0),
        (&unread, tables(entry(HOST, 4)), UNKNOWN, "can't be read", 0),
        (&unknown_cgroup, open, PENDING, "its cgroup is not known", 0),
    ];
    for (live, tables, identity, reason, notes) in cases {
        let why = explain(Asked::new(HASH_LIMIT), live, &list, &identities, &tables, 1);
        assert_eq!(why.identity, identity, "{why:?}");
        assert!(why.reason.contains(reason), "{why:?}");
        assert_eq!(why.notes.len(), notes, "{why:?}");
    }
    let why = explain(
        Asked::new(HASH_LIMIT),
        &sh,
        &list,
        &identities,
        &tables(entry(HOST, 4)),
        1,
    );
    assert!(why.executable.starts_with("not judged"), "{why:?}");
}

#[test]
fn a_digest_beyond_the_limit_is_not_taken() {
    let live = Live {
        tgid: std::process::id(),
        ..live(Path::new("/bin/sh"))
    };
    let sum = Selector::Sha256([0; 32]);
    let check = Asked::new(1).check(&sum, &live, Depth::Whole);
    assert!(check.found.contains("hash-limit"), "{check:?}");
    let check = Asked::new(HASH_LIMIT).check(&sum, &live, Depth::Whole);
    assert_eq!(check.found.len(), 64, "{check:?}");
}

#[test]
fn too_many_groups_in_a_cgroup_are_named() {
    let sh = live(Path::new("/bin/sh"));
    let groups = [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008].map(Selector::Gid);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let selectors: Vec<_> = groups.iter().map(std::slice::from_ref).collect();
    let list: Vec<_> = names.into_iter().zip(selectors).collect();
    let (list, identities) = workloads(&list);
    let unknown = CgroupEntry {
        identity: UNKNOWN,
        ..CgroupEntry::default()
    };
    let asked = Asked::new(HASH_LIMIT);
    let why = explain(asked, &sh, &list, &identities, &tables(unknown), 1);
    assert!(why.reason.contains("ask for 9 different groups"), "{why:?}");
}
