//! Attempts to change what a file holds behind its digest.

use std::{
    fs::{self, File, FileTimes},
    io::Write as _,
    os::unix::fs::chown,
    path::Path,
};

use ringfence_tests::{
    Actor, Agent, Outcome, Sandbox,
    policy::{policy, workload},
    scene,
};

use crate::common::{assert_allowed, assert_held, assert_never_passes, sha256, unshared};

const ADDRESS: &str = "127.0.0.1:81";
const NOBODY: u32 = 65_534;

fn only(digest: &str) -> String {
    workload("app", &format!("cgroup = \"/app\", sha256 = \"{digest}\""))
        + &workload("rest", "cgroup = \"/app\"")
        + &policy("app", "", &[("egress", "ports = [\"81/tcp\"]")])
        + &policy("rest", "default-deny = [\"egress\"]", &[])
}

/// A copy of the program with one more byte, which can be changed without harm.
fn spare(sandbox: &Sandbox, path: &Path) {
    let mut bytes = fs::read(sandbox.program("app")).unwrap();
    bytes.push(0);
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn call(runner: &Actor, program: &Path) -> Outcome {
    let program = program.display().to_string();
    runner.run(&[
        "run",
        &program,
        "call",
        "tcp",
        ADDRESS,
        "--timeout-ms",
        "2000",
    ])
}

fn alter(runner: &Actor, program: &Path) {
    let program = program.display().to_string();
    let _ = runner.run(&["alter", &program]).expect_ok("a changed byte");
}

#[track_caller]
fn assert_passes(what: &str, outcome: &Outcome) {
    assert!(
        outcome.failed("connect", "ECONNREFUSED"),
        "{what}: {outcome:?}"
    );
}

#[test]
fn content_that_changes_with_its_old_time_is_judged_anew() {
    scene("cheat-times", |sandbox| {
        let runner = sandbox.actor("runner").in_cgroup(sandbox, "app");
        let file = sandbox.files().join("file");
        spare(sandbox, &file);
        let mapped = sandbox.files().join("mapped");
        let _bytes = fs::copy(&file, &mapped).unwrap();
        let agent = Agent::start(sandbox, &only(&sha256(&file)));
        for path in [&file, &mapped] {
            assert_passes("the approved content", &call(&runner, path));
        }
        let before = fs::metadata(&file).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() = 1;
        let mut open = File::options()
            .write(true)
            .truncate(true)
            .open(&file)
            .unwrap();
        open.write_all(&bytes).unwrap();
        let times = FileTimes::new()
            .set_modified(before.modified().unwrap())
            .set_accessed(before.accessed().unwrap());
        open.set_times(times).unwrap();
        drop(open);
        assert_eq!(
            fs::metadata(&file).unwrap().modified().unwrap(),
            before.modified().unwrap()
        );
        assert_never_passes("truncated, written, with its old time", || {
            call(&runner, &file)
        });
        alter(&runner, &mapped);
        assert_never_passes("written through a mapping", || call(&runner, &mapped));
        agent.assert_counters();
    });
}

#[test]
fn content_in_memory_has_a_digest_only_where_root_alone_can_write_it() {
    scene("cheat-tmpfs", |sandbox| {
        let runner = sandbox.actor("runner").in_cgroup(sandbox, "app");
        let memory = tempfile::Builder::new()
            .prefix("ringfence-test-")
            .tempdir_in("/dev/shm")
            .unwrap();
        let [roots, users] = ["roots", "users"].map(|name| memory.path().join(name));
        for path in [&roots, &users] {
            spare(sandbox, path);
        }
        chown(&users, Some(NOBODY), Some(NOBODY)).unwrap();
        assert_passes("without an agent", &call(&runner, &users));
        let agent = Agent::start(sandbox, &only(&sha256(&roots)));
        assert_passes("root's", &call(&runner, &roots));
        // Its times say nothing of writes through a mapping.
        let before = fs::metadata(&users).unwrap();
        let first = call(&runner, &users);
        alter(&runner, &users);
        let after = fs::metadata(&users).unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
        assert_never_passes(&format!("a user's, after {first:?}"), || {
            call(&runner, &users)
        });
        assert!(!first.failed("connect", "ECONNREFUSED"), "{first:?}");
        // Whoever mounts what the host does not see decides who writes it.
        let script = format!(
            "mount -t tmpfs none {memory}; cp {app} {memory}/app; exec {memory}/app call tcp {ADDRESS} --timeout-ms 2000",
            memory = memory.path().display(),
            app = sandbox.files().join("approved").display(),
        );
        let _bytes = fs::copy(&roots, sandbox.files().join("approved")).unwrap();
        assert_held(
            "root's, out of the host's sight",
            &unshared(&runner, &script),
        );
        agent.assert_counters();
    });
}

#[test]
fn content_that_is_mapped_while_it_is_approved_is_never_the_approved() {
    scene("cheat-mapped", |sandbox| {
        let runner = sandbox.actor("runner").in_cgroup(sandbox, "app");
        let path = sandbox.files().join("app");
        spare(sandbox, &path);
        let digest = sha256(&path);
        let text = workload(
            "app",
            &format!("exe = \"{}\", sha256 = \"{digest}\"", path.display()),
        ) + &workload("rest", "cgroup = \"/app\"")
            + &policy("app", "", &[("egress", "ports = [\"81/tcp\"]")])
            + &policy("rest", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let mut mapper = runner.start(&["mapped", &path.display().to_string()]);
        let _mapped = mapper.line().expect_ok("a page that is mapped and dirty");
        // The agent looks at the path now; it must not take what it finds for what stays.
        drop(File::options().append(true).open(&path).unwrap());
        std::thread::sleep(std::time::Duration::from_secs(1));
        mapper.go_on();
        let _changed = mapper.last().expect_ok("a changed byte");
        assert_ne!(sha256(&path), digest);
        assert_never_passes("the changed content", || call(&runner, &path));
        agent.assert_counters();
    });
}

#[test]
fn what_is_on_an_overlay_has_no_digest() {
    scene("cheat-overlay", |sandbox| {
        let runner = sandbox.actor("runner").in_cgroup(sandbox, "app");
        let files = sandbox.files().join("layers");
        fs::create_dir_all(files.join("lower")).unwrap();
        fs::create_dir_all(files.join("merged")).unwrap();
        let lower = files.join("lower/app");
        spare(sandbox, &lower);
        let files = files.display();
        let mount = format!(
            "mount -t tmpfs none {files}/merged; mkdir {files}/merged/u {files}/merged/w {files}/merged/m; \
             mount -t overlay -o lowerdir={files}/lower,upperdir={files}/merged/u,workdir={files}/merged/w none {files}/merged/m; "
        );
        let run = |change: &str| {
            let program = format!("{files}/merged/m/app");
            let script =
                format!("{mount}{change} exec {program} call tcp {ADDRESS} --timeout-ms 2000");
            unshared(&runner, &script)
        };
        let changed = format!("printf x >> {files}/merged/m/app;");
        for change in ["", &changed] {
            assert_passes("without an agent", &run(change));
        }
        let agent = Agent::start(sandbox, &only(&sha256(&lower)));
        // Who has it mapped since before can write it without anything that shows.
        assert_held("the approved lower file", &run(""));
        assert_held("a copy in the upper layer, changed", &run(&changed));
        agent.assert_counters();
    });
}

#[test]
fn the_approved_content_elsewhere_is_approved() {
    scene("cheat-copy", |sandbox| {
        let app = sandbox.actor("app");
        let copy = sandbox.files().join("copy");
        let _bytes = fs::copy(app.program(), &copy).unwrap();
        let agent = Agent::start(sandbox, &only(&sha256(app.program())));
        let _ = assert_allowed(&app, ADDRESS, &[]);
        assert_passes("a copy", &call(&app, &copy));
        agent.assert_counters();
    });
}
