//! Real processes in a cgroup made for the test.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic fails the test"
)]

use std::{process::Stdio, sync::mpsc, thread};

use super::{
    super::fixture::{TestCgroup, program},
    *,
};

#[test]
fn a_process_is_found_in_its_cgroup_with_what_it_runs() {
    let guarded = TestCgroup::new("live");
    let _directory = guarded.create("a/b (deleted)");
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("na(p) x");
    program(&path);
    let running = guarded.run("a/b (deleted)", &path, Stdio::null());
    let mut processes = Processes::new(guarded.path(), &Arc::default()).unwrap();
    let all = processes.all().unwrap();
    let [live] = all.as_slice() else {
        unreachable!("one process is in the cgroup: {all:?}")
    };
    assert_eq!(live.tgid, running.tgid());
    assert_eq!(live.comm, "na(p) x");
    assert_eq!(live.cgroup, Path::new("/a/b (deleted)"));
    assert_ne!(live.cgroup_id, 0);
    assert_eq!(live.program.path, path);
    assert_eq!(live.program.state, ProgramState::OnDisk);
    assert!(live.netns != 0 && !live.ended);
    assert_eq!(&processes.one(live.tgid).unwrap(), live);

    // Replaced: the process runs a file that is at no path any more.
    fs::remove_file(&path).unwrap();
    program(&path);
    let replaced = processes.one(live.tgid).unwrap().program;
    assert_eq!(
        (replaced.path, replaced.state),
        (path, ProgramState::Deleted)
    );
}

#[test]
fn others_are_refused_by_what_they_are() {
    let guarded = TestCgroup::new("live-others");
    let mut processes = Processes::new(guarded.path(), &Arc::default()).unwrap();
    assert!(processes.all().unwrap().is_empty());
    let own = std::process::id();
    let outside = processes.one(own).unwrap_err();
    assert!(matches!(outside, LookError::Outside { .. }), "{outside}");
    let gone = processes.one(u32::MAX).unwrap_err();
    assert!(matches!(gone, LookError::Gone(u32::MAX)), "{gone}");
    let nowhere = Processes::new(Path::new("/proc"), &Arc::default())
        .err()
        .expect("no cgroup");
    assert!(matches!(nowhere, LookError::Unreadable(_)), "{nowhere}");
}

#[test]
fn a_thread_is_told_by_its_process_and_what_has_ended_is_no_process_of_a_list() {
    let mount = super::super::root::find().unwrap();
    let mut processes = Processes::new(&mount, &Arc::default()).unwrap();
    let (tell, told) = mpsc::channel();
    let (stay, stays) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw().unsigned_abs())
            .unwrap();
        let _end = stays.recv();
    });
    let tid = told.recv().unwrap();
    assert_ne!(tid, std::process::id());
    let live = processes.one(tid).unwrap();
    assert_eq!(live, processes.one(std::process::id()).unwrap());
    assert_eq!(live.tgid, std::process::id());
    drop(stay);
    thread.join().unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let ended = (0..1000).any(|_| {
        thread::sleep(std::time::Duration::from_millis(5));
        processes.one(child.id()).is_ok_and(|live| live.ended)
    });
    assert!(ended);
    let listed = processes.all().unwrap();
    assert!(listed.iter().all(|live| live.tgid != child.id()));
    let _status = child.wait().unwrap();
    assert!(matches!(processes.one(child.id()), Err(LookError::Gone(_))));
}
