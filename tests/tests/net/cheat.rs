//! Attempts to pass for an approved file: other files under its name, its file under other names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ringfence_tests::{
    Actor, Agent, Outcome, Sandbox,
    policy::{policy, workload},
    poll::until,
    scene,
};

use crate::common::{assert_allowed, assert_never_passes, unshared};

const ADDRESS: &str = "127.0.0.1:81";
/// What an impostor is asked to do.
const CALL: &str = "call tcp 127.0.0.1:81 --timeout-ms 2000";

/// In the cgroup `/app` only the file of `good` may call.
fn only(good: &Path) -> String {
    workload(
        "good",
        &format!("cgroup = \"/app\", exe = \"{}\"", good.display()),
    ) + &workload("rest", "cgroup = \"/app\"")
        + &policy("good", "", &[("egress", "ports = [\"81/tcp\"]")])
        + &policy("rest", "default-deny = [\"egress\"]", &[])
}

struct Cast {
    good: Actor,
    /// Runs programs in the cgroup.
    runner: Actor,
    evil: PathBuf,
}

impl Cast {
    fn new(sandbox: &Sandbox) -> Self {
        let in_app = |name| sandbox.actor(name).in_cgroup(sandbox, "app");
        let evil = sandbox.program("evil");
        // Another file also in what it holds.
        let mut bytes = fs::read(&evil).unwrap();
        bytes.push(0);
        fs::write(&evil, bytes).unwrap();
        Self {
            good: in_app("good"),
            runner: in_app("runner"),
            evil,
        }
    }

    fn shell(&self, script: &str) -> Outcome {
        self.runner.run(&["run", "sh", "-ec", script])
    }

    /// A script in a mount namespace of its own, of which nothing comes back.
    fn unshared(&self, script: &str) -> Outcome {
        unshared(&self.runner, script)
    }
}

#[test]
fn another_file_under_the_approved_name_is_refused() {
    scene("cheat-name", |sandbox| {
        let cast = Cast::new(sandbox);
        let (good, evil) = (cast.good.program().display(), cast.evil.display());
        let root = sandbox.files().join("root");
        fs::create_dir_all(&root).unwrap();
        let (root, bin) = (root.display(), cast.evil.parent().unwrap().display());
        let copy = sandbox.files().join("copy");
        let _bytes = fs::copy(&cast.evil, &copy).unwrap();
        let copy = copy.display();
        let tricks = [
            (
                "a bind mount over it",
                format!("mount --bind {evil} {good}; exec {good} {CALL}"),
            ),
            (
                "a tmpfs with it",
                format!("mount -t tmpfs none {bin}; cp {copy} {good}; exec {good} {CALL}"),
            ),
            (
                "chroot",
                format!(
                    "mount --rbind / {root}; mount --bind {evil} {root}/{good}; exec chroot {root} {good} {CALL}"
                ),
            ),
            (
                "pivot_root",
                format!(
                    "mount --rbind / {root}; mount --bind {evil} {root}/{good}; cd {root}; pivot_root . mnt; exec {good} {CALL}"
                ),
            ),
            (
                "an overlay with it",
                format!(
                    "mount -t tmpfs none {root}; mkdir {root}/u {root}/w; mount -t overlay -o lowerdir={bin},upperdir={root}/u,workdir={root}/w none {bin}; cp {copy} {good}; exec {good} {CALL}"
                ),
            ),
            (
                "its name as argument 0",
                format!("exec -a {good} {evil} {CALL}"),
            ),
        ];
        let play = |script: &String| {
            if script.starts_with("exec -a") {
                // A word of bash.
                cast.runner.run(&["run", "bash", "-ec", script])
            } else {
                cast.unshared(script)
            }
        };
        for (what, script) in &tricks {
            let outcome = play(script);
            assert!(
                outcome.failed("connect", "ECONNREFUSED"),
                "{what}: {outcome:?}"
            );
        }
        let agent = Agent::start(sandbox, &only(cast.good.program()));
        let _ = assert_allowed(&cast.good, ADDRESS, &[]);
        for (what, script) in &tricks {
            assert_never_passes(what, || play(script));
        }
        let _ = assert_allowed(&cast.good, ADDRESS, &[]);
        agent.assert_counters();
    });
}

#[test]
fn the_approved_file_is_approved_under_every_link_to_it_and_no_copy_is() {
    scene("cheat-links", |sandbox| {
        let cast = Cast::new(sandbox);
        let file = |name: &str| sandbox.files().join(name);
        let good = cast.good.program().to_owned();
        let agent = Agent::start(sandbox, &only(&good));
        let _ = assert_allowed(&cast.good, ADDRESS, &[]);
        // A hard link changes the change time of the file, which is judged again.
        fs::hard_link(&good, file("hard")).unwrap();
        std::os::unix::fs::symlink(&good, file("soft")).unwrap();
        for name in ["hard", "soft"] {
            let path = file(name);
            let outcome = cast.shell(&format!("exec {} {CALL}", path.display()));
            assert!(
                outcome.failed("connect", "ECONNREFUSED"),
                "{name}: {outcome:?}"
            );
        }
        let path = file("copy");
        let (original, copy) = (good.display(), path.display());
        let mut copies = vec![
            format!("cp {original} {copy}; exec {copy} {CALL}"),
            format!("exec {} memory {original} {CALL}", cast.evil.display()),
        ];
        let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
        if loader.exists() {
            // The loader is the program then.
            copies.push(format!("exec {} {original} {CALL}", loader.display()));
        }
        for script in &copies {
            assert_never_passes(script, || cast.shell(script));
        }
        let _ = assert_allowed(&cast.good, ADDRESS, &[]);
        agent.assert_counters();
    });
}

#[test]
fn a_selector_follows_its_path_and_leaves_processes_of_the_file_before() {
    scene("cheat-replaced", |sandbox| {
        let cast = Cast::new(sandbox);
        let good = cast.good.program().to_owned();
        let agent = Agent::start(sandbox, &only(&good));
        let call = |puppet: &mut ringfence_tests::Running| {
            let _ = puppet.ask("socket tcp 10").expect_ok("a socket");
            puppet.ask(&format!("connect 10 {ADDRESS}"))
        };
        let mut puppet = cast.good.puppet();
        let outcome = call(&mut puppet);
        assert!(outcome.failed("connect", "ECONNREFUSED"), "{outcome:?}");
        // Who may replace the file at the path decides what is approved.
        fs::rename(&cast.evil, &good).unwrap();
        until("the process of the file before is refused", || {
            call(&mut puppet).failed("connect", "EPERM")
        });
        until("the new file is approved", || {
            cast.good
                .tcp(ADDRESS, &[])
                .failed("connect", "ECONNREFUSED")
        });
        let mut puppet = cast.good.puppet();
        fs::remove_file(&good).unwrap();
        until("the process of a removed file is refused", || {
            call(&mut puppet).failed("connect", "EPERM")
        });
        drop(agent);
    });
}

#[test]
fn a_script_is_its_interpreter_and_a_selector_that_names_one_is_warned_of() {
    scene("cheat-script", |sandbox| {
        let cast = Cast::new(sandbox);
        let good = cast.good.program();
        let script = sandbox.files().join("script");
        let text = format!("#!/bin/sh\nexec {} {CALL}\n", cast.evil.display());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let run = || cast.runner.run(&["run", &script.display().to_string()]);
        let outcome = run();
        assert!(outcome.failed("connect", "ECONNREFUSED"), "{outcome:?}");
        let agent = Agent::start(sandbox, &only(&script));
        assert_never_passes("a script that is named", run);
        let warnings = agent.status().warnings;
        let expected = "workload \"good\" matches nobody";
        assert!(
            warnings
                .iter()
                .any(|it| it.contains(expected) && it.contains("interpreter /bin/sh")),
            "{warnings:#?}"
        );
        agent.set_policy(&only(good));
        assert!(
            !agent
                .status()
                .warnings
                .iter()
                .any(|it| it.contains(expected))
        );
        let _ = assert_allowed(&cast.good, ADDRESS, &[]);
        agent.assert_counters();
    });
}
