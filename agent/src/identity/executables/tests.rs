//! Keys, paths and digests of real files.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{fs, io::Write, path::Path, process::Stdio};

use ringfence_policy::model::Selector;
use sha2::{Digest, Sha256};

use super::*;
use crate::identity::{
    Asker, Subordinates,
    fixture::{Running, TestCgroup, program, workloads},
    placement::specs,
};

fn executables(selectors: &[Selector]) -> Executables {
    let (workloads, identities) = workloads(&[("w", selectors)]);
    let specs = specs(&workloads, &identities, |_| None, |_| None).expect("specs");
    let mut executables = Executables::new(MOST_KNOWN).with_specs(&specs);
    let _ = executables.refresh();
    executables
}

fn key(path: &Path) -> ExecutableKey {
    Executable::open(path, &own_mounts()).expect("open").key
}

fn run(cgroup: &TestCgroup, path: &Path) -> Running {
    cgroup.run("", path, Stdio::null())
}

#[test]
fn replaced_and_modified_files_get_another_key() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("app");
    program(&path);
    let mut executables = executables(&[Selector::Exe(path.clone())]);
    let first = key(&path);
    assert!(
        executables
            .facts(&first)
            .is_some_and(|facts| facts.paths.contains(&path))
    );

    let other = directory.path().join("new");
    program(&other);
    fs::rename(&other, &path).expect("rename");
    let second = key(&path);
    assert_ne!(first, second);
    assert!(executables.refresh().is_superset(&[first, second].into()));
    assert_eq!(executables.facts(&first), None);
    assert!(
        executables
            .facts(&second)
            .is_some_and(|facts| facts.paths.contains(&path))
    );

    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("open");
    file.write_all(b"x").expect("write");
    let third = key(&path);
    assert_eq!(second.inode, third.inode);
    assert_ne!(second, third);
    let _ = executables.refresh();
    assert_eq!(executables.facts(&second), None);
    assert!(executables.facts(&third).is_some());

    fs::remove_file(&path).expect("remove");
    let _ = executables.refresh();
    assert_eq!(executables.facts(&third), None);
}

#[test]
fn copy_is_not_the_approved_path_but_has_the_approved_digest() {
    let cgroup = TestCgroup::new("copies");
    let directory = tempfile::tempdir().expect("directory");
    let (path, copy) = (directory.path().join("app"), directory.path().join("copy"));
    program(&path);
    program(&copy);
    let digest: [u8; 32] = Sha256::digest(fs::read(&path).expect("read")).into();
    let mut executables = executables(&[Selector::Exe(path.clone()), Selector::Sha256(digest)]);
    let running = run(&cgroup, &copy);
    let copy = key(&copy);
    let _ = executables.judge_process(copy, running.tgid(), Asker::User(1));
    let facts = executables.facts(&copy).expect("judged");
    assert_eq!(
        facts,
        Facts {
            paths: BTreeSet::new(),
            digest: Some(digest)
        }
    );
    let original = key(&path);
    assert_eq!(executables.facts(&original), None, "nobody runs it");
    let _changed = executables.refresh();
    assert_eq!(executables.facts(&original), None, "nor does it now");
    let running = run(&cgroup, &path);
    let _ = executables.judge_process(original, running.tgid(), Asker::User(1));
    let facts = executables.facts(&original).expect("judged");
    assert_eq!(
        facts,
        Facts {
            paths: [path].into(),
            digest: Some(digest)
        }
    );
}

#[test]
fn other_content_has_no_digest_of_a_selector() {
    let cgroup = TestCgroup::new("content");
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("app");
    program(&path);
    let mut executables = executables(&[Selector::Sha256([7; 32])]);
    let running = run(&cgroup, &path);
    let _ = executables.judge_process(key(&path), running.tgid(), Asker::User(1));
    assert_eq!(executables.facts(&key(&path)), Some(Facts::default()));
}

#[test]
fn links_stand_for_the_file_that_they_lead_to() {
    let directory = tempfile::tempdir().expect("directory");
    let (path, link) = (directory.path().join("app-1"), directory.path().join("app"));
    program(&path);
    std::os::unix::fs::symlink("app-1", &link).expect("link");
    let executables = executables(&[Selector::Exe(link.clone())]);
    let facts = executables.facts(&key(&path)).expect("judged");
    assert_eq!(facts.paths, [link].into());
}

#[test]
fn process_that_runs_something_else_is_not_judged() {
    let cgroup = TestCgroup::new("else");
    let directory = tempfile::tempdir().expect("directory");
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    program(&one);
    program(&two);
    let mut executables = executables(&[]);
    let running = run(&cgroup, &one);
    let tgid = running.tgid();
    assert!(
        executables
            .judge_process(key(&two), tgid, Asker::User(1))
            .is_empty()
    );
    assert_eq!(executables.facts(&key(&two)), None);
    drop(running);
    assert!(
        executables
            .judge_process(key(&one), tgid, Asker::User(1))
            .is_empty()
    );
    assert_eq!(executables.facts(&key(&one)), None);
}

#[test]
fn memory_of_executables_is_bounded_and_keeps_those_named_by_path() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("app");
    program(&path);
    let mut executables = executables(&[Selector::Exe(path.clone())]);
    executables.most = 100;
    let invented = |inode| ExecutableKey {
        inode,
        ..ExecutableKey::default()
    };
    let mut dropped = BTreeSet::new();
    for inode in 0..1_000 {
        executables.remember(invented(inode), 1000, None);
        executables.touch(&invented(0));
        dropped.append(&mut executables.make_room());
    }
    assert!(executables.known.len() <= 100);
    assert_eq!(executables.known.len() + dropped.len(), 1_001);
    assert!(executables.facts(&invented(0)).is_some());
    assert!(executables.facts(&key(&path)).is_some());
}

#[test]
fn who_runs_the_most_executables_makes_room_for_those_of_others() {
    let mut executables = Executables::new(1_000);
    let invented = |owner: u32, inode: u64| ExecutableKey {
        inode,
        device: owner,
        ..ExecutableKey::default()
    };
    let mut run = |owner: u32, inode| {
        executables.remember(invented(owner, inode), owner, None);
        executables.make_room()
    };
    let mut dropped = BTreeSet::new();
    for inode in 0..400 {
        dropped.append(&mut run(0, inode));
    }
    for inode in 0..100 {
        dropped.append(&mut run(1001, inode));
    }
    for inode in 0..10_000 {
        dropped.append(&mut run(1000, inode));
    }
    assert!(dropped.iter().all(|key| key.device == 1000));
    assert!(executables.known.len() <= 1_000);
    let expected = Forgotten {
        number: u64::try_from(dropped.len()).expect("small"),
        owner: Some(1000),
    };
    assert_eq!(executables.forgotten(), expected);
}

#[test]
fn many_users_with_a_file_each_cost_a_quarter_at_a_time() {
    let mut executables = Executables::new(100);
    for owner in 1..=101 {
        let key = ExecutableKey {
            inode: 7,
            device: owner,
            ..ExecutableKey::default()
        };
        executables.remember(key, owner, None);
    }
    assert_eq!(executables.make_room().len(), 25);
    assert_eq!(executables.known.len(), 76);
}

#[test]
fn files_of_a_users_subordinate_ids_are_his() {
    let forgotten = |subordinates: &str| {
        let mut executables = Executables::new(1_000);
        let theirs = (0..100).map(|inode| (1001, inode));
        for (owner, inode) in theirs.chain((0..901).map(|n| (100_000 + n, 0))) {
            let key = ExecutableKey {
                inode,
                device: owner,
                ..ExecutableKey::default()
            };
            executables.remember(key, owner, None);
        }
        let dropped = executables.make_room_among(&Subordinates::parse(subordinates));
        let of_other = dropped.iter().filter(|key| key.device == 1001).count();
        (dropped.len(), of_other, executables.forgotten().owner)
    };
    assert_eq!(forgotten("1000:100000:65536"), (250, 0, Some(1000)));
    let (_, of_other, _) = forgotten("");
    assert!(of_other > 0, "each id would be somebody of its own");
}

#[test]
fn files_of_root_beyond_half_make_room_too() {
    let mut executables = Executables::new(100);
    let mut dropped = 0;
    for inode in 0..1_000 {
        let key = ExecutableKey {
            inode,
            ..ExecutableKey::default()
        };
        executables.remember(key, 0, None);
        dropped += executables.make_room().len();
        assert!(executables.facts(&key).is_some(), "the newest goes last");
    }
    assert_eq!(executables.known.len() + dropped, 1_000);
    assert!(executables.known.len() <= 100);
}
