//! A confirmed change of several files is written whole, or in force from the state directory until it is.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use nix::errno::Errno;
use ringfence_tests::{Agent, Options, Sandbox, Steps, poll::until, program, scene, steps::Act};

use crate::common::{Pair, Side};

/// The old policy is one document, the new one two: neither the first alone nor both with the old one are the new policy.
fn documents(sandbox: &Sandbox) -> [PathBuf; 2] {
    let text = Side::New.policy();
    let second = text.rfind("[[policy]]").unwrap();
    let (first, second) = text.split_at(second);
    [("policy.toml", first), ("second.toml", second)].map(|(name, text)| {
        let path = sandbox.files().join(name);
        fs::write(&path, text).unwrap();
        path
    })
}

fn held(agent: &Agent) -> BTreeMap<String, String> {
    let entries = fs::read_dir(agent.policy_dir()).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn ringfence(agent: &Agent, arguments: &[&str]) -> Option<i32> {
    let mut command = Command::new(program::product("ringfence"));
    let _ = command.args(arguments).arg("--socket").arg(agent.socket());
    command.output().unwrap().status.code()
}

/// An agent with the new policy on trial.
fn on_trial(sandbox: &Sandbox, steps: &Steps) -> Agent {
    let options = Options {
        launcher: steps.launcher(),
        ..Options::default()
    };
    let agent = Agent::start_with(sandbox, &options, &Side::Old.policy());
    let [first, second] = documents(sandbox);
    let paths = [first.to_str().unwrap(), second.to_str().unwrap()];
    let apply = ["policy", "apply", paths[0], paths[1], "--confirm", "1h"];
    assert_eq!(ringfence(&agent, &apply), Some(0));
    agent
}

/// Decides about the rename with this number: the first is that of the journal.
fn at_rename(steps: &Steps, number: u64, act: Act) {
    let mut renames = 0;
    steps.plan(move |step| {
        renames += u64::from(step.call == "rename");
        if step.call == "rename" && renames == number {
            act
        } else {
            Act::Go
        }
    });
}

#[test]
fn a_change_that_can_not_be_written_whole_leaves_the_directory_as_it_was() {
    scene("confirmed-fails", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let pair = Pair::new(sandbox);
        let agent = on_trial(sandbox, &steps);
        let before = held(&agent);
        for number in 1..=3 {
            at_rename(&steps, number, Act::Fail(Errno::ENOSPC));
            assert_eq!(ringfence(&agent, &["policy", "confirm"]), Some(1));
            assert_eq!(held(&agent), before, "rename {number}");
            assert_eq!(pair.side(), Side::New, "the trial goes on");
            assert!(agent.status().pending_change.is_some(), "rename {number}");
        }
        steps.all_go();
        assert_eq!(ringfence(&agent, &["policy", "confirm"]), Some(0));
        assert_eq!(held(&agent).len(), 2);
        assert_eq!(pair.side(), Side::New);
    });
}

#[test]
fn a_change_that_was_half_written_at_the_end_of_an_agent_is_in_force_as_a_whole() {
    scene("confirmed-half", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let pair = Pair::new(sandbox);
        let mut agent = on_trial(sandbox, &steps);
        let before = held(&agent);
        at_rename(&steps, 3, Act::Kill);
        assert_ne!(ringfence(&agent, &["policy", "confirm"]), Some(0));
        let _ended = agent.daemon().wait();
        assert_ne!(held(&agent), before, "nothing is half written");
        for start in 1..=2 {
            steps.plan(|step| match step.call {
                "fsync" => Act::Fail(Errno::ENOSPC),
                _ => Act::Go,
            });
            agent.restart();
            assert_eq!(pair.side(), Side::New, "start {start}");
            let status = agent.status();
            assert!(status.pending_change.is_none(), "{status:?}");
            assert!(
                status
                    .warnings
                    .iter()
                    .any(|it| it.contains("not in the policy directory")),
                "{status:?}"
            );
            // What is written can't be put back either.
            for command in ["confirm", "rollback"] {
                assert_eq!(ringfence(&agent, &["policy", command]), Some(1));
            }
            assert_eq!(pair.side(), Side::New, "start {start}");
            if start == 1 {
                agent.kill();
            }
        }
        steps.all_go();
        let journal = sandbox.files().join("agent/state/policy-change.journal");
        until("the change is in the directory", || !journal.exists());
        let [first, second] = documents(sandbox).map(|path| fs::read_to_string(path).unwrap());
        let expected = [("policy.toml", first), ("second.toml", second)];
        let expected = expected.map(|(name, text)| (name.to_owned(), text));
        assert_eq!(held(&agent), BTreeMap::from(expected));
        until("nothing is warned of any more", || {
            let warnings = agent.status().warnings;
            !warnings.iter().any(|it| it.contains("policy directory"))
        });
        agent.kill();
        agent.restart();
        assert_eq!(pair.side(), Side::New, "from the directory");
    });
}

/// An agent that was killed when the change was confirmed, before this rename; the first is that of the journal.
fn killed_at(sandbox: &Sandbox, steps: &Steps, rename: u64) -> Agent {
    let mut agent = on_trial(sandbox, steps);
    at_rename(steps, rename, Act::Kill);
    assert_ne!(ringfence(&agent, &["policy", "confirm"]), Some(0));
    let _ended = agent.daemon().wait();
    agent
}

/// Writes a file of the directory as an administrator does.
fn edit(agent: &Agent, name: &str, text: &str) {
    let path = agent.policy_dir().join(name);
    let hidden = agent.policy_dir().join(".edited");
    fs::write(&hidden, text).unwrap();
    fs::rename(hidden, path).unwrap();
}

fn no_room(steps: &Steps) {
    steps.plan(|step| match step.call {
        "fsync" => Act::Fail(Errno::ENOSPC),
        _ => Act::Go,
    });
}

fn journal(sandbox: &Sandbox) -> PathBuf {
    sandbox.files().join("agent/state/policy-change.journal")
}

#[test]
fn a_confirmed_change_that_can_not_be_written_is_dropped_by_a_rollback() {
    scene("confirmed-drop", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let pair = Pair::new(sandbox);
        let mut agent = killed_at(sandbox, &steps, 2);
        let before = BTreeMap::from([("policy.toml".to_owned(), Side::Old.policy())]);
        no_room(&steps);
        agent.restart();
        assert_eq!(pair.side(), Side::New);
        assert_eq!(ringfence(&agent, &["policy", "rollback"]), Some(0));
        assert_eq!(pair.side(), Side::Old);
        assert_eq!(held(&agent), before);
        assert!(!journal(sandbox).exists());
        steps.all_go();
        until("nothing is warned of any more", || {
            let warnings = agent.status().warnings;
            !warnings.iter().any(|it| it.contains("confirmed change"))
        });
        let [first, second] = documents(sandbox);
        let paths = [first.to_str().unwrap(), second.to_str().unwrap()];
        assert_eq!(
            ringfence(&agent, &["policy", "apply", paths[0], paths[1]]),
            Some(0)
        );
        assert_eq!(pair.side(), Side::New);
    });
}

#[test]
fn what_an_administrator_writes_ends_a_confirmed_change_of_which_nothing_is_written() {
    for running in [true, false] {
        scene("confirmed-edited", |sandbox| {
            let steps = Steps::new(sandbox.files(), "steps");
            let pair = Pair::new(sandbox);
            let mut agent = killed_at(sandbox, &steps, 2);
            no_room(&steps);
            if running {
                agent.restart();
                assert_eq!(pair.side(), Side::New);
            }
            let edited = format!("# by hand\n{}", Side::Old.policy());
            edit(&agent, "policy.toml", &edited);
            if !running {
                agent.restart();
            }
            until("the change is given up", || !journal(sandbox).exists());
            until("the directory is in force", || pair.side() == Side::Old);
            let expected = [("policy.toml".to_owned(), edited)];
            assert_eq!(held(&agent), BTreeMap::from(expected));
            let warnings = agent.status().warnings;
            let told =
                |it: &String| it.contains("policy.toml was changed") && it.contains("policy apply");
            assert!(warnings.iter().any(told), "{warnings:?}");
        });
    }
}

#[test]
fn what_an_administrator_writes_beside_half_a_change_waits_for_a_rollback() {
    scene("confirmed-mixed", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let pair = Pair::new(sandbox);
        let mut agent = killed_at(sandbox, &steps, 3);
        edit(&agent, "second.toml", "# by hand\n");
        let found = held(&agent);
        steps.all_go();
        agent.restart();
        let told = |warnings: &[String]| {
            let told =
                |it: &String| it.contains("second.toml was changed") && it.contains("rollback");
            warnings.iter().any(told)
        };
        assert!(told(&agent.status().warnings), "{:?}", agent.status());
        // It is looked at again meanwhile.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        assert_eq!(held(&agent), found, "nothing is written");
        assert_eq!(pair.side(), Side::New, "no mixture");
        assert_eq!(ringfence(&agent, &["policy", "rollback"]), Some(0));
        assert_eq!(pair.side(), Side::Old);
        let expected = [
            ("policy.toml", Side::Old.policy()),
            ("second.toml", "# by hand\n".to_owned()),
        ];
        let expected = expected.map(|(name, text)| (name.to_owned(), text));
        assert_eq!(held(&agent), BTreeMap::from(expected));
    });
}
