//! The kernel refuses one of the agent's calls: the policy of before stays whole, or the new one is.

use nix::errno::Errno;
use ringfence_tests::{
    Agent, Options, Steps,
    poll::until,
    scene,
    steps::{Act, Step},
};

use crate::common::{Pair, Random, Side};

/// `BPF_MAP_UPDATE_ELEM`, `BPF_MAP_DELETE_ELEM`, `BPF_MAP_UPDATE_BATCH` and `BPF_MAP_CREATE`.
const WRITES: [u64; 4] = [2, 3, 26, 0];

fn is_write(step: Step) -> bool {
    step.call == "bpf" && WRITES.contains(&step.argument)
}

/// Fails one write, the one with this number.
fn fail(steps: &Steps, number: u64, error: Errno) {
    let mut writes = 0;
    steps.plan(move |step| {
        writes += u64::from(is_write(step));
        if is_write(step) && writes == number {
            Act::Fail(error)
        } else {
            Act::Go
        }
    });
}

#[test]
fn a_change_that_the_kernel_refuses_in_part_is_whole_or_not_at_all() {
    scene("errors-change", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let options = Options {
            launcher: steps.launcher(),
            ..Options::default()
        };
        let pair = Pair::new(sandbox);
        let agent = Agent::start_with(sandbox, &options, &Side::Old.policy());
        let mut side = Side::Old;
        for number in 1..=10 {
            let error = if number % 2 == 0 {
                Errno::ENOMEM
            } else {
                Errno::E2BIG
            };
            fail(&steps, number, error);
            let before = agent.status().generation;
            agent.write_policy(&side.other().policy());
            agent.reload();
            until("the change is refused or in force", || {
                let status = agent.status();
                !status.policy_error.is_empty() || status.generation > before
            });
            let found = pair.side();
            if agent.status().policy_error.is_empty() {
                assert_eq!(found, side.other(), "write {number}");
            } else {
                assert_eq!(found, side, "write {number}");
                steps.all_go();
                agent.reload();
                until("it is in force at the next try", || {
                    agent.status().policy_error.is_empty()
                });
            }
            side = side.other();
            assert_eq!(pair.side(), side, "write {number}");
        }
    });
}

#[test]
fn a_restart_that_the_kernel_refuses_in_part_opens_nothing() {
    scene("errors-restart", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let options = Options {
            launcher: steps.launcher(),
            ..Options::default()
        };
        let pair = Pair::new(sandbox);
        let mut agent = Agent::start_with(sandbox, &options, &Side::Old.policy());
        let mut side = Side::Old;
        let mut random = Random::new();
        let mut count = || {
            let (sender, writes) = std::sync::mpsc::channel();
            steps.plan(move |step| {
                if is_write(step) {
                    let _nobody_counts = sender.send(());
                }
                Act::Go
            });
            agent.kill();
            agent.write_policy(&side.other().policy());
            side = side.other();
            agent.restart();
            writes.try_iter().count()
        };
        let most = u64::try_from(count()).unwrap();
        // The first writes prepare, later ones change what is in force.
        for number in [
            random.up_to(most / 2),
            most / 2,
            most / 2 + random.up_to(most / 2),
            most - 1,
        ] {
            agent.kill();
            agent.write_policy(&side.other().policy());
            // Without the policy of before on disk there is nothing to fall back on.
            let _kept = std::fs::remove_dir_all(sandbox.files().join("agent/state"));
            fail(&steps, number, Errno::ENOMEM);
            let started = agent.try_restart().is_ok();
            let found = pair.side();
            assert!(
                !started || found == side.other(),
                "write {number} of {most}: {found:?}"
            );
            steps.all_go();
            if !started {
                agent.restart();
            }
            side = side.other();
            assert_eq!(pair.side(), side, "write {number} of {most}");
        }
    });
}
