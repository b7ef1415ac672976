//! The resolver as its task drives it, on the real hierarchy with real processes.
#![expect(clippy::expect_used, reason = "a panic fails the test")]

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use nix::{
    fcntl::{OFlag, open, openat},
    sys::stat::{Mode, fstat, mkdirat},
};
use ringfence_common::abi::{
    CgroupEntry, ExecutableKey,
    identity::{HOST, PENDING, UNKNOWN},
};
use ringfence_policy::model::Selector;

use super::{
    Asker, ContainerAnswer, ContainerFacts, ContainerQuestion, Groups, IdentityError, OnTie,
    Resolver, adopt,
    file::Executable,
    fixture::{Running, TestCgroup, cgroup, container, program, unit, workloads},
    mounts::Mounts,
    root::cgroup_id,
};

fn resolver(cgroup: &TestCgroup) -> Resolver {
    Resolver::new(cgroup.path().to_owned()).expect("resolver")
}

fn set(resolver: &mut Resolver, list: &[(&str, &[Selector])]) -> Result<(), IdentityError> {
    let (workloads, identities) = workloads(list);
    resolver.set_workloads(&workloads, &identities, OnTie::Refuse)
}

fn no_groups() -> Groups {
    Groups::All([].into())
}

fn key(path: &Path) -> ExecutableKey {
    Executable::open(path, &Mounts::own().expect("mounts"))
        .expect("open")
        .key
}

fn id(path: &Path) -> u64 {
    cgroup_id(path).expect("cgroup")
}

/// The tables must be those of a resolver that starts now.
fn assert_true_to_life(cgroup: &TestCgroup, found: &Resolver, list: &[(&str, &[Selector])]) {
    let mut fresh = resolver(cgroup);
    set(&mut fresh, list).expect("workloads");
    let (found_now, expected) = (found.tables(), fresh.tables());
    assert_eq!(found_now.cgroups, expected.cgroups);
    assert_eq!(found_now.children, expected.children);
    assert_eq!(found_now.processes, expected.processes);
    assert_eq!(found_now.groups, expected.groups);
    // It may remember more executables: those that it was asked about.
    for (key, class) in &expected.executables {
        assert_eq!(found_now.executables.get(key), Some(class));
    }
    assert_eq!(found.inventory(), fresh.inventory());
}

fn cgroups_of<'r>(resolver: &'r Resolver, workload: &str) -> Vec<&'r str> {
    resolver.inventory().of(workload).collect()
}

#[test]
fn every_cgroup_has_an_entry_as_it_comes_and_none_when_gone() {
    let cgroup_root = TestCgroup::new("entries");
    let mut resolver = resolver(&cgroup_root);
    let list: [(&str, &[Selector]); 2] = [
        ("web", &[unit("web.service")]),
        ("root", &[cgroup("/**"), Selector::Uid(0)]),
    ];
    set(&mut resolver, &list).expect("workloads");
    assert_eq!(resolver.tables().cgroups.len(), 1);
    assert!(!resolver.process_events());

    let deep = (0..31)
        .map(|level| format!("l{level}"))
        .collect::<Vec<_>>()
        .join("/");
    let web = cgroup_root.create(format!("web.service/{deep}"));
    assert!(resolver.process_events());
    assert_eq!(resolver.tables().cgroups.len(), 33);
    assert_eq!(resolver.resolve(id(&web), None, 5, &no_groups()), UNKNOWN);
    let entry = resolver.tables().cgroups.get(&id(&web)).copied();
    assert!(entry.is_some_and(|entry| entry.identity == 256 && entry.class != 0));
    assert_eq!(
        resolver.cgroup_path(id(&web)),
        Some(Path::new("/web.service").join(&deep).as_path())
    );
    assert_true_to_life(&cgroup_root, &resolver, &list);

    fs::remove_dir(&web).expect("remove");
    assert!(resolver.process_events());
    assert_eq!(resolver.tables().cgroups.len(), 32);
    assert!(!resolver.rescan());
    assert_eq!(resolver.rescan_interval(), None);
    assert_eq!(cgroups_of(&resolver, "web"), ["/web.service"]);
    assert_eq!(cgroups_of(&resolver, "root"), ["/"]);
}

#[test]
fn tied_workloads_are_refused_and_the_previous_stay_in_force() {
    let root = TestCgroup::new("ties");
    let _ = root.create("a-b");
    let mut resolver = resolver(&root);
    let good: [(&str, &[Selector]); 1] = [("good", &[cgroup("/a-b")])];
    set(&mut resolver, &good).expect("workloads");
    let before = resolver.tables().clone();
    let bad: [(&str, &[Selector]); 2] = [("left", &[cgroup("/a*")]), ("right", &[cgroup("/*b")])];
    let error = set(&mut resolver, &bad).expect_err("tied").to_string();
    assert!(
        error.contains("\"left\"") && error.contains("\"right\""),
        "{error}"
    );
    assert!(error.contains("/a-b"), "{error}");
    assert_eq!(resolver.tables(), &before);
    let error = resolver.set_workloads(&workloads(&bad).0, &Arc::new([].into()), OnTie::Refuse);
    assert!(matches!(error, Err(IdentityError::NoIdentity(name)) if name == "left"));
}

#[test]
fn tie_that_comes_up_later_allows_nothing_and_is_reported() {
    let root = TestCgroup::new("late");
    let mut resolver = resolver(&root);
    set(
        &mut resolver,
        &[("left", &[cgroup("/a*")]), ("right", &[cgroup("/*b")])],
    )
    .expect("no cgroup has both yet");
    let path = root.create("a-b");
    assert!(resolver.process_events());
    let entry = resolver.tables().cgroups.get(&id(&path)).copied();
    assert_eq!(
        entry,
        Some(CgroupEntry {
            identity: UNKNOWN,
            class: 0,
            below: 0,
        })
    );
    assert_eq!(resolver.ties().count(), 1);
}

#[test]
fn container_is_asked_about_when_it_appears_and_settled_by_the_answer() {
    let root = TestCgroup::new("containers");
    let id_text = "0123456789abcdef".repeat(4);
    let mut resolver = resolver(&root);
    let list: [(&str, &[Selector]); 2] = [
        ("web", &[container("container.name", "web")]),
        ("all", &[cgroup("/pods")]),
    ];
    set(&mut resolver, &list).expect("workloads");
    let path = root.create(format!("pods/c-{id_text}.scope"));
    assert!(resolver.process_events());
    let (outer, inner) = (
        id(&path),
        id(&root.create(format!("pods/c-{id_text}.scope/in"))),
    );
    assert!(resolver.process_events());
    assert_eq!(resolver.resolve(outer, None, 0, &no_groups()), PENDING);
    assert_eq!(resolver.resolve(inner, None, 0, &no_groups()), PENDING);
    assert_eq!(resolver.unknown_containers().count(), 1);
    let question = ContainerQuestion {
        cgroup: outer,
        id: id_text.clone(),
    };
    assert_eq!(resolver.container_questions(9), [question]);

    let facts: ContainerFacts = [("container.name".to_owned(), "web".to_owned())].into();
    assert!(resolver.container_answered(outer, ContainerAnswer::Is(facts.clone())));
    assert_eq!(resolver.resolve(outer, None, 0, &no_groups()), 256);
    assert_eq!(resolver.resolve(inner, None, 0, &no_groups()), 256);
    let expected = format!("/pods/c-{id_text}.scope");
    assert_eq!(cgroups_of(&resolver, "web"), [expected.as_str()]);

    // The next agent knows it, too, but nothing of a cgroup that has the same name later.
    let mut next = self::resolver(&root);
    next.remember_containers(resolver.containers());
    set(&mut next, &list).expect("workloads");
    assert_eq!(next.resolve(inner, None, 0, &no_groups()), 256);
    assert_eq!(next.next_container_question(), None);
    fs::remove_dir(path.join("in")).expect("remove");
    fs::remove_dir(&path).expect("remove");
    let again = id(&root.create(format!("pods/c-{id_text}.scope")));
    assert!(next.process_events());
    assert_eq!(next.resolve(again, None, 0, &no_groups()), PENDING);
    assert!(next.next_container_question().is_some());
}

#[test]
fn nobody_asks_about_cgroups_that_a_user_may_have_created() {
    let root = TestCgroup::new("delegated");
    let delegated = root.create("user");
    std::os::unix::fs::chown(&delegated, Some(1000), None).expect("chown");
    let made = root.create(format!("user/c-{}", "a".repeat(64)));
    let mut resolver = resolver(&root);
    let name = container("container.name", "web");
    set(&mut resolver, &[("web", &[name])]).expect("workloads");
    assert_eq!(resolver.resolve(id(&made), None, 0, &no_groups()), HOST);
    assert_eq!(resolver.next_container_question(), None);
}

#[test]
fn executable_is_pending_until_seen_and_follows_its_path() {
    let root = TestCgroup::new("executables");
    let inside = id(&root.create("in"));
    let outside = id(&root.create("out"));
    let directory = tempfile::tempdir().expect("directory");
    let (app, copy) = (directory.path().join("app"), directory.path().join("copy"));
    program(&app);
    program(&copy);
    let mut resolver = resolver(&root);
    let list: [(&str, &[Selector]); 2] = [
        ("app", &[cgroup("/in"), Selector::Exe(app.clone())]),
        ("rest", &[cgroup("/in")]),
    ];
    set(&mut resolver, &list).expect("workloads");
    assert_eq!(
        resolver.resolve(inside, Some(&key(&app)), 0, &no_groups()),
        256
    );
    assert_eq!(
        resolver.resolve(outside, Some(&key(&app)), 0, &no_groups()),
        HOST
    );

    let running = root.run("in", &copy, Stdio::null());
    assert_eq!(
        resolver.resolve(inside, Some(&key(&copy)), 0, &no_groups()),
        PENDING
    );
    assert_eq!(
        resolver.seen(key(&copy), running.tgid(), Asker::User(1)),
        Some(0)
    );
    assert_eq!(
        resolver.resolve(inside, Some(&key(&copy)), 0, &no_groups()),
        257
    );

    let before = key(&app);
    fs::rename(&copy, &app).expect("rename");
    let after = key(&app);
    assert!(resolver.process_events());
    assert_eq!(
        resolver.resolve(inside, Some(&before), 0, &no_groups()),
        PENDING
    );
    assert_eq!(resolver.resolve(inside, Some(&after), 0, &no_groups()), 256);
    assert_true_to_life(&root, &resolver, &list);

    // Without the event: being asked is enough.
    program(&copy);
    fs::rename(&copy, &app).expect("rename");
    assert!(
        resolver
            .seen(key(&app), 0, Asker::User(1))
            .is_some_and(|class| class != 0)
    );
    assert_eq!(
        resolver.resolve(inside, Some(&after), 0, &no_groups()),
        PENDING
    );
}

#[test]
fn swapped_link_on_the_way_to_an_executable_is_noticed() {
    let root = TestCgroup::new("links");
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name);
    for release in ["1", "2"] {
        fs::create_dir(at(release)).expect("create");
        program(&at(release).join("app"));
    }
    std::os::unix::fs::symlink("1", at("current")).expect("link");
    let mut resolver = resolver(&root);
    let app = Selector::Exe(at("current/app"));
    set(&mut resolver, &[("app", std::slice::from_ref(&app))]).expect("workloads");
    let (one, two) = (key(&at("1/app")), key(&at("2/app")));
    assert_eq!(
        resolver.resolve(resolver.root_id(), Some(&one), 0, &no_groups()),
        256
    );
    std::os::unix::fs::symlink("2", at("next")).expect("link");
    fs::rename(at("next"), at("current")).expect("rename");
    assert!(resolver.process_events());
    assert_eq!(
        resolver.resolve(resolver.root_id(), Some(&one), 0, &no_groups()),
        PENDING
    );
    assert_eq!(
        resolver.resolve(resolver.root_id(), Some(&two), 0, &no_groups()),
        256
    );
}

#[test]
fn sockets_of_running_processes_are_listed_with_their_owner() {
    let root = TestCgroup::new("adopt");
    let path = root.create("a b/\u{1f980}");
    let directory = tempfile::tempdir().expect("directory");
    let app = directory.path().join("app");
    program(&app);
    let listener = OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("listen"));
    let inode = fs::metadata(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&listener)
    ))
    .expect("socket")
    .ino();
    let resolver = resolver(&root);
    let running = root.run("a b/\u{1f980}", &app, Stdio::from(listener));
    let without = root.run("a b/\u{1f980}", &app, Stdio::null());
    let found = adopt::processes(&resolver);
    assert!(found.iter().all(|process| process.tgid != without.tgid()));
    let [process] = found.as_slice() else {
        panic!("one process expected: {found:?}");
    };
    assert_eq!(process.tgid, running.tgid());
    assert_eq!(process.uid, 0);
    assert_eq!(&process.comm, b"app\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(process.cgroup_id, id(&path));
    assert_eq!(process.exe, Some(key(&app)));
    assert_eq!(process.fds, [(0, inode)]);
}

#[test]
fn resolver_may_move_to_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<Resolver>();
}

#[test]
fn a_chain_of_thousands_of_cgroups_costs_a_change_no_more_than_a_short_one() {
    let list: [(&str, &[Selector]); 2] = [
        ("all", &[cgroup("/u/**"), Selector::Uid(0)]),
        ("web", &[unit("web.service")]),
    ];
    let comparisons = |levels: usize| {
        let root = TestCgroup::new("chain");
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = open(root.path(), flags, Mode::empty()).expect("open");
        for _ in 0..levels {
            mkdirat(&directory, "u", Mode::S_IRWXU).expect("create");
            directory = openat(&directory, "u", flags, Mode::empty()).expect("open");
        }
        let bottom = fstat(&directory).expect("stat").st_ino;
        let mut resolver = resolver(&root);
        set(&mut resolver, &list).expect("workloads");
        assert_eq!(resolver.tables().cgroups.len(), 33);
        assert!(!resolver.is_there(bottom));
        let found = resolver.resolve(bottom, None, 0, &no_groups());
        assert_eq!(found, PENDING, "nobody in particular");
        assert_eq!(resolver.left_out().1, Some(Path::new("/")));
        assert_true_to_life(&root, &resolver, &list);
        resolver.comparisons()
    };
    let short = comparisons(100);
    assert_eq!(comparisons(4_000), short);
    // One for each cgroup and one for each name that may come to be.
    assert!(short < 33 * 4, "{short}");
}

#[test]
fn events_that_come_while_it_is_behind_are_read_when_it_is_not() {
    let root = TestCgroup::new("behind");
    let mut resolver = resolver(&root);
    for n in 0..1_100 {
        let _ = root.create(format!("early/{n}"));
    }
    assert!(resolver.process_events());
    assert!(resolver.is_behind());
    let late = root.create("late");
    while resolver.is_behind() {
        let _ = resolver.process_events();
    }
    assert!(resolver.is_there(id(&late)));
    assert_eq!(resolver.tables().cgroups.len(), 1_103);
}

#[test]
fn a_process_whose_cgroup_is_not_shown_as_a_whole_is_of_a_cgroup_that_is_not_known() {
    let root = TestCgroup::new("not-shown");
    let mut process = Command::new("/bin/sleep");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let process = process.arg("1000").stdin(OwnedFd::from(listener));
    let process = Running::of(process.spawn().expect("run"));
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let name = "d".repeat(250);
    let mut directory = open(root.path(), flags, Mode::empty()).expect("open");
    for _ in 0..20 {
        mkdirat(&directory, name.as_str(), Mode::S_IRWXU).expect("create");
        directory = openat(&directory, name.as_str(), flags, Mode::empty()).expect("open");
    }
    let procs = openat(&directory, "cgroup.procs", OFlag::O_WRONLY, Mode::empty());
    let tgid = process.tgid();
    fs::File::from(procs.expect("open"))
        .write_all(tgid.to_string().as_bytes())
        .expect("move");

    let mut resolver = resolver(&root);
    set(&mut resolver, &[("web", &[cgroup("/*/x")])]).expect("workloads");
    let found = adopt::those(&resolver, [tgid]);
    let [found] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(!found.fds.is_empty() && !resolver.is_there(found.cgroup_id));
    let identity = resolver.resolve(
        found.cgroup_id,
        found.exe.as_ref(),
        found.uid,
        &found.groups,
    );
    assert_eq!(identity, PENDING);
}
