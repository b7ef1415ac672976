//! Matching, specificity and the process table without a kernel.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, time::Instant};

use ringfence_common::abi::{
    CgroupEntry, Identity,
    cgroup::{CONTAINERS, NAMED, OTHERS},
    executable::{GROUPED, MAX_GROUPS},
    identity::{HOST, PENDING, UNKNOWN},
};
use ringfence_policy::model::Selector;

mod by_words;

use super::{
    containers::{ContainerAnswer, Containers},
    fixture::{cgroup, container, slice, unit, user_slice, user_unit, workloads},
    groups::Groups,
    placement::{Placement, specs},
    processes::Facts,
    tables::find,
};

fn placement(list: &[(&str, &[Selector])]) -> Placement {
    let (workloads, identities) = workloads(list);
    let user = |name: &str| (name == "alice").then_some(1000);
    let group = |name: &str| (name == "staff").then_some(50);
    let specs = specs(&workloads, &identities, user, group);
    Placement::new(specs.expect("specs")).expect("placement")
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

/// What the kernel makes of the tables.
fn look_up(placement: &mut Placement, path: &str, facts: &Facts, uid: u32) -> Identity {
    look_up_in(placement, path, facts, uid, &[])
}

/// The same of a process in groups.
fn look_up_in(
    placement: &mut Placement,
    path: &str,
    facts: &Facts,
    uid: u32,
    gids: &[u32],
) -> Identity {
    let CgroupEntry {
        identity, class, ..
    } = placement.entry(Path::new(path), &containers());
    let executable = placement.executable(facts);
    if class == 0 {
        return identity;
    }
    let groups = Groups::All(gids.iter().copied().collect());
    let class = groups.class(class, placement.groups().get(&class));
    let class = class.expect("groups of the class");
    find(placement.processes(), class, executable, uid).unwrap_or(identity)
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
fn a_users_unit_is_his_alone_and_below_his_own_manager() {
    let app = user_unit("app.service");
    let mut placement = placement(&[
        ("unit", &[app.clone(), Selector::Uid(1)]),
        ("slice", &[user_slice("app.slice"), Selector::Uid(1)]),
        ("user", &[Selector::Uid(1)]),
        ("nobody", &[app]),
    ]);
    let manager = "/user.slice/user-1.slice/user@1.service";
    for (path, uid, identity) in [
        (format!("{manager}/app.slice/app.service"), 1, 256),
        (format!("{manager}/app.service/below"), 1, 256),
        (format!("{manager}/app.slice/other.service"), 1, 257),
        (
            format!("{manager}/app.slice/other.service/app.service"),
            1,
            257,
        ),
        (format!("{manager}/init.scope"), 1, 258),
        (format!("{manager}/app.slice/app.service"), 2, HOST),
        (
            "/user.slice/user-2.slice/user@2.service/app.service".to_owned(),
            2,
            HOST,
        ),
        (
            "/user.slice/user-2.slice/user@2.service/app.service".to_owned(),
            1,
            258,
        ),
        ("/app.slice/app.service".to_owned(), 1, 258),
        (
            "/user.slice/user-1.slice/session-1.scope/user@1.service/app.service".to_owned(),
            1,
            258,
        ),
    ] {
        let found = look_up(&mut placement, &path, &Facts::default(), uid);
        assert_eq!(found, identity, "{path} {uid}");
    }
}

#[test]
fn a_template_stands_for_its_instances_and_an_instance_is_closer() {
    let mut placement = placement(&[
        ("all", &[unit("web@.service")]),
        ("one", &[unit("web@1.service")]),
        ("wild", &[cgroup("/*/web@2*")]),
    ]);
    for (path, identity) in [
        ("/system.slice/web@1.service", 257),
        ("/system.slice/web@2.service", 256),
        ("/system.slice/system-web.slice/web@a@b.service/x", 256),
        ("/system.slice/web.service", HOST),
        ("/system.slice/web@1.scope", HOST),
    ] {
        assert_eq!(of_cgroup(&mut placement, path), identity, "{path}");
    }
    assert_eq!(placement.ties().count(), 0);
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
fn process_is_of_the_workload_of_its_groups() {
    let staff = || Selector::Group("staff".into());
    let mut placement = placement(&[
        ("staff", &[staff()]),
        ("both", &[staff(), Selector::Gid(9)]),
        ("alice", &[Selector::User("alice".into())]),
        ("alice-at-work", &[Selector::User("alice".into()), staff()]),
        ("app", &[Selector::Exe("/bin/app".into())]),
        ("ghost", &[Selector::Group("no-such-group".into())]),
        ("overflow", &[Selector::Gid(u32::MAX)]),
    ]);
    let app = facts("/bin/app", None);
    let other = Facts::default();
    for (facts, uid, gids, expected) in [
        (&other, 0, &[][..], HOST),
        (&other, 0, &[9, u32::MAX], HOST),
        (&other, 0, &[50], 256),
        (&other, 0, &[9, 50, 51], 257),
        (&other, 1000, &[9], 258),
        (&other, 1000, &[50], 259),
        (&other, 1000, &[50, 9], 259),
        (&app, 0, &[50], 260),
        (&app, 0, &[], 260),
        (&app, 1000, &[50], 259),
    ] {
        let found = look_up_in(&mut placement, "/", facts, uid, gids);
        assert_eq!(found, expected, "{facts:?} {uid} {gids:?}");
    }
    assert_eq!(placement.ties().count(), 0);
}

#[test]
fn process_in_the_groups_of_two_equal_workloads_is_of_none() {
    let list: [(&str, &[Selector]); 2] = [("a", &[Selector::Gid(1)]), ("b", &[Selector::Gid(2)])];
    let mut placement = placement(&list);
    let mut of = |gids| look_up_in(&mut placement, "/", &Facts::default(), 0, gids);
    assert_eq!((of(&[1]), of(&[2]), of(&[1, 2])), (256, 257, UNKNOWN));
    let ties: Vec<_> = placement.ties().collect();
    let [tie] = ties.as_slice() else {
        panic!("one tie expected: {ties:?}");
    };
    assert!(tie.by_group, "{tie:?}");
    assert_eq!(tie.place, "processes in group 1 in group 2");
}

#[test]
fn only_a_class_with_groups_asks_for_them_and_what_they_do_not_change_is_not_listed() {
    let mut placement = placement(&[
        ("in", &[cgroup("/in"), Selector::Gid(1)]),
        ("app", &[Selector::Exe("/bin/app".into())]),
    ]);
    let (inside, outside) = (
        placement.entry(Path::new("/in"), &containers()),
        placement.entry(Path::new("/"), &containers()),
    );
    assert_eq!(inside.class & GROUPED, GROUPED);
    assert_eq!(outside.class & GROUPED, 0);
    assert_eq!(
        placement.groups().keys().copied().collect::<Vec<_>>(),
        [inside.class]
    );
    let _ = placement.executable(&facts("/bin/app", None));
    // `in` for members, `app` in both classes.
    assert_eq!(placement.processes().len(), 3);
}

#[test]
fn too_many_groups_in_one_cgroup_allow_nothing_there() {
    let gids: Vec<[Selector; 1]> = (0..=MAX_GROUPS)
        .map(|gid| [Selector::Gid(u32::try_from(gid).expect("gid"))])
        .collect();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let list: Vec<(&str, &[Selector])> = names
        .into_iter()
        .zip(gids.iter().map(<[_; 1]>::as_slice))
        .collect();
    let mut fits = placement(list.split_last().expect("list").1);
    assert_ne!(fits.entry(Path::new("/x"), &containers()).class, 0);
    assert_eq!(fits.crowd(), None);
    let mut crowded = placement(&list);
    let entry = crowded.entry(Path::new("/x"), &containers());
    assert_eq!((entry.identity, entry.class), (UNKNOWN, 0));
    let crowd = crowded.crowd().expect("crowd").to_string();
    for part in [
        "\"a\"",
        "\"i\"",
        "9 different groups",
        "cgroup /x",
        "at most 8",
    ] {
        assert!(crowd.contains(part), "{crowd}");
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
    let cases: [(&str, &[Selector], &[Selector], bool); 10] = [
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
        (
            "same group",
            &[Selector::Group("staff".into())],
            &[Selector::Gid(50)],
            true,
        ),
        (
            "same group, other user",
            &[Selector::Gid(50), Selector::Uid(1)],
            &[Selector::Gid(50), Selector::Uid(2)],
            false,
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
