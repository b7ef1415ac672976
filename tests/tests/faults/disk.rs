//! The disk is full, or can't be written to: what is in force stays, and nothing that was kept is lost.

use std::{
    fs,
    io::Write as _,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use ringfence_tests::{Agent, Sandbox, poll::until, program, scene};

use crate::common::{Pair, Side};

const NOTHING: Option<&str> = None;

/// A scene whose mounts nobody else sees.
#[track_caller]
fn private(name: &str, play: impl FnOnce(&Sandbox) + Send) {
    let play = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NOTHING, "/", NOTHING, private, NOTHING).unwrap();
        scene(name, play);
    };
    // In a thread, whose mount namespace ends with it.
    if let Err(panic) = thread::scope(|scope| scope.spawn(play).join()) {
        resume_unwind(panic);
    }
}

/// A small file system of its own at a directory.
struct Disk(PathBuf);

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Full,
    ReadOnly,
}

impl Disk {
    fn mount(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount(
            NOTHING,
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=256k"),
        )
        .unwrap();
        Self(path)
    }

    fn break_down(&self, fault: Fault) {
        match fault {
            Fault::Full => {
                let mut filler = fs::File::create(self.0.join(".filler")).unwrap();
                while filler.write_all(&[0; 4096]).is_ok() {}
            }
            Fault::ReadOnly => self.remount(MsFlags::MS_RDONLY),
        }
    }

    fn mend(&self, fault: Fault) {
        match fault {
            Fault::Full => fs::remove_file(self.0.join(".filler")).unwrap(),
            Fault::ReadOnly => self.remount(MsFlags::empty()),
        }
    }

    fn remount(&self, flags: MsFlags) {
        mount(
            NOTHING,
            &self.0,
            NOTHING,
            MsFlags::MS_REMOUNT | flags,
            NOTHING,
        )
        .unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone_before = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn ringfence(agent: &Agent, arguments: &[&str]) -> Output {
    let mut command = Command::new(program::product("ringfence"));
    let _ = command.args(arguments).arg("--socket").arg(agent.socket());
    command.output().unwrap()
}

/// A document beside the policy directory, called as the one in it.
fn document(sandbox: &Sandbox, text: &str) -> PathBuf {
    let path = sandbox.files().join("policy.toml");
    fs::write(&path, text).unwrap();
    path
}

#[track_caller]
fn assert_refused(agent: &Agent, path: &Path, names: &Path) {
    let output = ringfence(agent, &["policy", "apply", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(names.to_str().unwrap()), "{said}");
}

/// Whether a warning says that something is not on disk.
fn warns(agent: &Agent, directory: &Path) -> bool {
    let directory = directory.to_str().unwrap();
    let warnings = agent.status().warnings;
    warnings
        .iter()
        .any(|it| it.contains("cannot write") && it.contains(directory))
}

#[test]
fn without_a_disk_for_its_state_the_agent_enforces_and_loses_nothing_that_was_kept() {
    for (name, fault) in [("full", Fault::Full), ("read-only", Fault::ReadOnly)] {
        private(&format!("state-{name}"), |sandbox| {
            let state = Disk::mount(sandbox.files().join("agent/state"));
            let pair = Pair::new(sandbox);
            let mut agent = Agent::start(sandbox, &Side::Old.policy());
            assert_eq!(pair.side(), Side::Old);
            // What is open for writing can't become read-only.
            agent.kill();
            state.break_down(fault);
            agent.restart();
            assert_eq!(pair.side(), Side::Old, "a start");

            agent.set_policy(&Side::New.policy());
            assert_eq!(pair.side(), Side::New, "a change");
            until("the agent says what it could not keep", || {
                warns(&agent, &state.0)
            });
            let other = document(sandbox, &Side::Old.policy());
            assert_refused(&agent, &other, &state.0);
            assert_eq!(pair.side(), Side::New, "a command");
            agent.kill();
            assert_eq!(pair.side(), Side::New, "without an agent");
            agent.restart();
            assert_eq!(pair.side(), Side::New, "a restart");
            assert!(warns(&agent, &state.0));

            // What is left is what was kept before.
            agent.kill();
            agent.write_policy("not a policy");
            agent.restart();
            assert_eq!(pair.side(), Side::Old, "the last that was kept");
            agent.write_policy(&Side::New.policy());
            agent.reload();
            until("the directory counts again", || {
                agent.status().policy_error.is_empty()
            });
            assert_eq!(pair.side(), Side::New, "mended");
            state.mend(fault);
            until("it is kept as soon as there is room", || {
                !warns(&agent, &state.0)
            });
            agent.kill();
            agent.write_policy("not a policy");
            agent.restart();
            assert_eq!(pair.side(), Side::New, "the last that was kept");
        });
    }
}

#[test]
fn a_trial_ends_in_time_without_a_disk() {
    for (name, fault) in [("full", Fault::Full), ("read-only", Fault::ReadOnly)] {
        private(&format!("trial-{name}"), |sandbox| {
            let state = Disk::mount(sandbox.files().join("agent/state"));
            let pair = Pair::new(sandbox);
            let mut agent = Agent::start(sandbox, &Side::Old.policy());
            let path = document(sandbox, &Side::New.policy());
            let apply = [
                "policy",
                "apply",
                path.to_str().unwrap(),
                "--confirm",
                "15s",
            ];
            let output = ringfence(&agent, &apply);
            assert!(output.status.success(), "{output:?}");
            agent.kill();
            state.break_down(fault);
            agent.restart();
            assert_eq!(pair.side(), Side::New, "the trial goes on");
            until("it is rolled back", || {
                agent.status().pending_change.is_none()
            });
            assert_eq!(pair.side(), Side::Old);
            agent.kill();
            agent.restart();
            assert_eq!(pair.side(), Side::Old, "and does not come back");
        });
    }
}

#[test]
fn a_policy_directory_without_room_is_left_as_it_is() {
    for (name, fault) in [("full", Fault::Full), ("read-only", Fault::ReadOnly)] {
        private(&format!("policies-{name}"), |sandbox| {
            let policies = Disk::mount(sandbox.files().join("agent/policy.d"));
            let pair = Pair::new(sandbox);
            let mut agent = Agent::start(sandbox, &Side::Old.policy());
            policies.break_down(fault);
            let path = document(sandbox, &Side::New.policy());
            assert_refused(&agent, &path, &policies.0);
            assert_eq!(pair.side(), Side::Old);
            let held = fs::read_to_string(agent.policy_dir().join("policy.toml")).unwrap();
            assert_eq!(held, Side::Old.policy());
            agent.kill();
            agent.restart();
            assert_eq!(pair.side(), Side::Old, "a restart");
            policies.mend(fault);
            let output = ringfence(&agent, &["policy", "apply", path.to_str().unwrap()]);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(pair.side(), Side::New);
        });
    }
}
