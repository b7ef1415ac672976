//! The tree against the real hierarchy.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt, process::Command, thread};

use nix::sys::stat::mkdirat;

use super::*;
use crate::identity::{fixture::TestCgroup, root::cgroup_id, watch::Batch};

fn content(tree: &Tree) -> BTreeMap<u64, PathBuf> {
    tree.iter()
        .map(|(id, path)| (id, path.to_owned()))
        .collect()
}

fn fresh(root: &Path) -> BTreeMap<u64, PathBuf> {
    content(&Tree::new(root, &Watcher::new().expect("inotify")).expect("tree"))
}

fn apply(tree: &mut Tree, batch: Batch, watcher: &Watcher) -> BTreeSet<u64> {
    tree.take(batch);
    let changed = tree.work(watcher, usize::MAX);
    assert!(!tree.is_behind());
    changed
}

/// Takes in all events and compares with a walk; ids in `changed` must account for the difference.
fn settle(tree: &mut Tree, watcher: &mut Watcher, root: &Path) -> bool {
    let before = content(tree);
    let batch = watcher.drain();
    let overflow = batch.overflow;
    let mut changed = apply(tree, batch, watcher);
    if overflow {
        changed.extend(tree.rescan(watcher));
    }
    let after = content(tree);
    for id in before.keys().chain(after.keys()) {
        if before.get(id) != after.get(id) {
            assert!(changed.contains(id), "{id} changed silently");
        }
    }
    assert_eq!(after, fresh(root));
    assert!(!tree.is_incomplete());
    overflow
}

#[test]
fn tree_follows_a_storm_of_cgroups_with_any_names() {
    let cgroup = TestCgroup::new("storm");
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    let names: Vec<&OsStr> = [
        &b"plain"[..],
        b"\xff\xfe\xfd",
        b" space ",
        b"back\\slash",
        b"0::",
        &[b'n'; 255],
        "\u{fc}n\u{ef}c\u{f6}de-\u{1f980}".as_bytes(),
    ]
    .map(OsStr::from_bytes)
    .to_vec();
    for round in 0..5u32 {
        thread::scope(|scope| {
            for worker in 0..2u32 {
                let (names, cgroup) = (&names, &cgroup);
                let _ = scope.spawn(move || {
                    let mut random = 12345 + round * 7 + worker;
                    for _ in 0..150 {
                        random = random.wrapping_mul(1_103_515_245).wrapping_add(12345);
                        let pick = |shift: u32| names.get((random >> shift) as usize % names.len());
                        let (a, b, c) = (pick(8), pick(12), pick(16));
                        let path: PathBuf = [a, b, c].into_iter().flatten().collect();
                        let path = cgroup.path().join(format!("w{worker}")).join(path);
                        let _ = if random & 64 == 0 {
                            std::fs::remove_dir(&path)
                        } else {
                            std::fs::create_dir_all(&path)
                        };
                    }
                });
            }
            for _ in 0..20 {
                let batch = watcher.drain();
                let _ = apply(&mut tree, batch, &watcher);
                thread::yield_now();
            }
        });
        let _ = settle(&mut tree, &mut watcher, cgroup.path());
    }
    assert!(
        tree.iter().count() > 50,
        "the storm left too little to compare"
    );
    for (id, path) in tree.iter() {
        assert_eq!(tree.find(path), Some(id));
    }
}

#[test]
fn cgroup_recreated_under_its_name_is_another_one() {
    let cgroup = TestCgroup::new("again");
    let path = cgroup.create("a/b");
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    let old = tree.find(Path::new("/a/b"));
    for _ in 0..20 {
        std::fs::remove_dir(&path).expect("remove");
        std::fs::remove_dir(cgroup.path().join("a")).expect("remove");
        let _ = cgroup.create("a/b");
    }
    let _ = settle(&mut tree, &mut watcher, cgroup.path());
    let new = tree.find(Path::new("/a/b"));
    assert_eq!(new, cgroup_id(&path).ok());
    assert_ne!(new, old);
    let _ = cgroup.create("a/b/c");
    let _ = settle(&mut tree, &mut watcher, cgroup.path());
}

#[test]
fn lost_events_are_made_up_for_by_a_rescan() {
    let cgroup = TestCgroup::new("overflow");
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("limit");
    let limit: usize = limit.trim().parse().expect("limit");
    let (a, b) = (cgroup.path().join("a"), cgroup.path().join("b"));
    for _ in 0..=limit / 4 {
        for path in [&a, &b] {
            std::fs::create_dir(path).expect("create");
        }
        for path in [&a, &b] {
            std::fs::remove_dir(path).expect("remove");
        }
    }
    let _ = cgroup.create("after/the/overflow");
    assert!(
        settle(&mut tree, &mut watcher, cgroup.path()),
        "no overflow"
    );
    assert!(tree.find(Path::new("/after/the/overflow")).is_some());
}

#[test]
fn paths_beyond_path_max_and_deep_levels_are_followed_up_to_the_limit() {
    let cgroup = TestCgroup::new("deep");
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    let name = "d".repeat(250);
    let mut directory = open(cgroup.path(), flags(), Mode::empty()).expect("open");
    for _ in 0..80 {
        mkdirat(&directory, name.as_str(), Mode::S_IRWXU).expect("create");
        directory = openat(&directory, name.as_str(), flags(), Mode::empty()).expect("open");
    }
    let _ = settle(&mut tree, &mut watcher, cgroup.path());
    let longest = tree.iter().map(|(_, path)| path.as_os_str().len()).max();
    assert_eq!(tree.iter().count(), 33);
    assert!(longest > Some(4096));
}

#[test]
fn thousands_of_cgroups_are_walked_and_forgotten() {
    let cgroup = TestCgroup::new("many");
    for number in 0..3_000 {
        let _ = cgroup.create(format!("{}/{number}", number % 10));
    }
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    assert_eq!(tree.iter().count(), 3_011);
    for number in 0..3_000 {
        let path = cgroup.path().join(format!("{}/{number}", number % 10));
        std::fs::remove_dir(path).expect("remove");
    }
    let _ = settle(&mut tree, &mut watcher, cgroup.path());
    assert_eq!(tree.iter().count(), 11);
    assert_eq!(tree.watched.len(), 11);
}

/// Runs itself in a user namespace, where the limit of watches can be lowered for this test alone.
#[test]
fn without_enough_watches_a_rescan_finds_everything() {
    const INSIDE: &str = "RINGFENCE_TEST_FEW_WATCHES";
    if std::env::var_os(INSIDE).is_none() {
        let name = concat!(
            module_path!(),
            "::without_enough_watches_a_rescan_finds_everything"
        );
        let name = name.split_once("::").map_or(name, |(_, name)| name);
        let script = "echo 5 >/proc/sys/user/max_inotify_watches && exec \"$@\"";
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script, "sh"])
            .arg(std::env::current_exe().expect("test program"))
            .args(["--exact", name])
            .env(INSIDE, "1")
            .status();
        let status = status.expect("this test needs unshare (util-linux) and user namespaces");
        assert!(status.success());
        return;
    }
    let cgroup = TestCgroup::new("watches");
    for number in 0..20 {
        let _ = cgroup.create(number.to_string());
    }
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    assert!(tree.is_incomplete());
    assert_eq!(tree.iter().count(), 21);
    for number in 0..20 {
        let _ = cgroup.create(format!("{number}/below"));
    }
    let batch = watcher.drain();
    let _ = apply(&mut tree, batch, &watcher);
    assert!(tree.iter().count() < 41);
    let _ = tree.rescan(&watcher);
    assert_eq!(tree.iter().count(), 41);
    assert!(tree.is_incomplete());
}

#[test]
fn a_user_who_makes_too_many_cgroups_leaves_room_for_those_of_others() {
    let cgroup = TestCgroup::new("crowd");
    let handed = cgroup.create("alice");
    std::os::unix::fs::chown(&handed, Some(1000), None).expect("chown");
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    tree.room = Room::new(1_000, 20);
    for n in 0..30 {
        let _ = cgroup.create(format!("alice/a{n}/b"));
        let _ = cgroup.create(format!("root{n}"));
    }
    let mut follow = |tree: &mut Tree| {
        // What is new brings watches, whose events come later.
        for _ in 0..3 {
            let _ = apply(tree, watcher.drain(), &watcher);
        }
        if tree.is_incomplete() {
            let _ = tree.rescan(&watcher);
        }
        let below = |name: &str| {
            tree.iter()
                .filter(|(_, path)| path.starts_with(name) && *path != Path::new(name))
                .count()
        };
        let roots = (0..30)
            .filter(|n| tree.find(Path::new(&format!("/root{n}"))).is_some())
            .count();
        (below("/alice"), roots)
    };
    assert_eq!(follow(&mut tree), (20, 30));
    let (left_out, place) = tree.left_out();
    assert!(left_out >= 10, "{left_out}");
    assert_eq!(place, Some(Path::new("/alice")));

    for n in 0..25 {
        std::fs::remove_dir(handed.join(format!("a{n}/b"))).expect("remove");
        std::fs::remove_dir(handed.join(format!("a{n}"))).expect("remove");
    }
    assert_eq!(follow(&mut tree), (10, 30));
    assert_eq!(content(&tree), fresh(cgroup.path()));
    assert_eq!(tree.left_out().1, None);
}

/// A chain of cgroups that begins right below `top`.
fn chain(top: &Path, levels: usize) {
    let mut directory = open(top, flags(), Mode::empty()).expect("open");
    for _ in 0..levels {
        mkdirat(&directory, "u", Mode::S_IRWXU).expect("create");
        directory = openat(&directory, "u", flags(), Mode::empty()).expect("open");
    }
}

#[test]
fn nothing_below_the_deepest_level_is_followed_and_it_is_counted_while_it_is_there() {
    let cgroup = TestCgroup::new("chain");
    let handed = cgroup.create("alice");
    std::os::unix::fs::chown(&handed, Some(1000), None).expect("chown");
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    chain(&handed, 31);
    let _ = settle(&mut tree, &mut watcher, cgroup.path());
    assert_eq!(tree.left_out(), (0, None));
    let deepest = handed.join(vec!["u"; 31].join("/"));
    chain(&deepest, 20);
    let _ = settle(&mut tree, &mut watcher, cgroup.path());
    assert_eq!(tree.iter().count(), 33);
    let (left_out, place) = tree.left_out();
    assert!(left_out > 0);
    assert_eq!(place, Some(Path::new("/alice")));
    let found = Tree::new(cgroup.path(), &watcher).expect("tree");
    assert_eq!(found.left_out(), (1, Some(Path::new("/alice"))));
    let mut chained: Vec<PathBuf> = (1..=20)
        .map(|levels| deepest.join(vec!["u"; levels].join("/")))
        .collect();
    while let Some(path) = chained.pop() {
        std::fs::remove_dir(path).expect("remove");
    }
    let _ = settle(&mut tree, &mut watcher, cgroup.path());
    assert_eq!(tree.left_out().1, None);
}

#[test]
fn one_turn_looks_at_no_more_names_than_it_may() {
    let cgroup = TestCgroup::new("turns");
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    for n in 0..30 {
        let _ = cgroup.create(format!("{n}/a/b"));
    }
    let _ = cgroup.create("0/a/c");
    tree.take(watcher.drain());
    let mut turns = 0;
    while tree.is_behind() {
        let changed = tree.work(&watcher, 7);
        assert!(changed.len() <= 7, "{changed:?}");
        turns += 1;
    }
    assert!(turns > 91 / 7, "{turns}");
    assert_eq!(content(&tree), fresh(cgroup.path()));
}

#[test]
fn a_cgroup_that_is_handed_over_after_it_was_made_counts_as_the_users() {
    let cgroup = TestCgroup::new("handed");
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(cgroup.path(), &watcher).expect("tree");
    tree.room = Room::new(1_000, 20);
    let handed = cgroup.create("alice");
    for n in 0..15 {
        let _ = cgroup.create(format!("alice/before{n}"));
    }
    let _ = settle(&mut tree, &mut watcher, cgroup.path());
    let child = |name: &str| cgroup_id(&handed.join(name)).expect("cgroup");
    assert!(tree.is_roots(child("before0")));

    std::os::unix::fs::chown(&handed, Some(1000), None).expect("chown");
    for n in 0..15 {
        let _ = cgroup.create(format!("alice/after{n}"));
    }
    for _ in 0..3 {
        let _ = apply(&mut tree, watcher.drain(), &watcher);
    }
    let below = |tree: &Tree| tree.iter().count() - 2;
    assert_eq!(below(&tree), 20);
    assert_eq!(tree.left_out().1, Some(Path::new("/alice")));
    assert!(!tree.is_roots(child("after0")) && !tree.is_roots(child("before0")));

    // And back, which is as good as a look at everything anew.
    std::os::unix::fs::chown(&handed, Some(0), None).expect("chown");
    let _ = apply(&mut tree, watcher.drain(), &watcher);
    let _ = tree.rescan(&watcher);
    assert_eq!(below(&tree), 30);
    assert_eq!(tree.left_out().1, None);

    // More than he may have are there already.
    std::os::unix::fs::chown(&handed, Some(1000), None).expect("chown");
    let _ = apply(&mut tree, watcher.drain(), &watcher);
    assert_eq!(below(&tree), 20);
}

#[test]
fn the_root_of_a_container_who_makes_too_many_cgroups_leaves_room_for_those_of_others() {
    let root = TestCgroup::new("container");
    let container = format!("pod/{}", "a".repeat(64));
    let mut watcher = Watcher::new().expect("inotify");
    let mut tree = Tree::new(root.path(), &watcher).expect("tree");
    tree.room = Room::new(1_000, 20);
    for n in 0..30 {
        let _ = root.create(format!("{container}/{n}"));
        let _ = root.create(format!("pod/{n}"));
    }
    for _ in 0..3 {
        let _ = apply(&mut tree, watcher.drain(), &watcher);
    }
    let below = |path: &str| {
        let found = tree
            .iter()
            .filter(|(_, it)| it.parent() == Some(Path::new(path)));
        found.count()
    };
    assert_eq!(below(&format!("/{container}")), 20);
    assert_eq!(below("/pod"), 31);
    assert_eq!(tree.left_out().1, Some(Path::new(&format!("/{container}"))));
}
