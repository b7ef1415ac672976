//! `kill -9` at any step: what is in force then is the policy of before or the one that takes its place.
//!
//! Which steps is drawn anew each time. A run of all tests has time for a few; for 200 of them:
//! `RINGFENCE_KILLS=40 cargo test -p ringfence-tests --test faults -- --test-threads 1 --nocapture kill`.

use std::{fs, os::unix::process::ExitStatusExt as _, path::PathBuf};

use nix::sys::signal::Signal;
use ringfence_tests::{
    Agent, Options, Sandbox, Steps, daemon::Ended, poll::until, scene, steps::Act,
};

use crate::common::{Change, Pair, Random, Side};

/// An agent whose steps are decided about, and who calls.
struct Scenery {
    steps: Steps,
    pair: Pair,
    agent: Agent,
    random: Random,
    /// The policy in force.
    side: Side,
    /// Runs that ended with the policy of before, and with the other one.
    ends: [u32; 2],
}

impl Scenery {
    fn new(sandbox: &Sandbox) -> Self {
        let steps = Steps::new(sandbox.files(), "steps");
        let options = Options {
            launcher: steps.launcher(),
            ..Options::default()
        };
        let pair = Pair::new(sandbox);
        let side = Side::Old;
        let agent = Agent::start_with(sandbox, &options, &side.policy());
        assert_eq!(pair.side(), side);
        Self {
            steps,
            pair,
            agent,
            random: Random::new(),
            side,
            ends: [0; 2],
        }
    }

    /// Draws a step of so many at which the agent is killed.
    fn kill_at_one_of(&mut self, most: u64) -> u64 {
        let chosen = self.random.up_to(most);
        self.steps.plan(move |step| {
            if step.number >= chosen {
                Act::Kill
            } else {
                Act::Go
            }
        });
        chosen
    }

    /// Starts the agent and kills it at one of so many steps, or at its end.
    fn kill_start(&mut self, most: u64) -> u64 {
        let chosen = self.kill_at_one_of(most);
        match self.agent.try_restart() {
            Ok(()) => self.agent.kill(),
            Err(Ended { status, log }) => assert_eq!(status.signal(), Some(9), "{status}\n{log}"),
        }
        chosen
    }

    /// Whole again, with the other policy. Returns how many steps that took.
    fn recover(&mut self) -> u64 {
        self.steps.all_go();
        self.agent.restart();
        let taken = self.steps.taken();
        self.side = self.side.other();
        assert_eq!(self.pair.side(), self.side);
        let status = self.agent.status();
        assert!(status.hooks.iter().all(|hook| hook.attached), "{status:?}");
        assert_eq!(status.policy_error, "");
        taken
    }

    /// Which policy a killed agent has left.
    fn note(&mut self) {
        let moved = self.pair.side() != self.side;
        let [before, after] = &mut self.ends;
        *(if moved { after } else { before }) += 1;
    }

    #[expect(
        clippy::print_stderr,
        reason = "what was reached is shown with the test"
    )]
    fn report(&self, most: u64) {
        let [before, after] = self.ends;
        eprintln!("{most} steps; killed before the change {before} times, after it {after} times");
    }
}

/// Runs of each kind.
fn runs(few: u64) -> u64 {
    std::env::var("RINGFENCE_KILLS").map_or(few, |text| text.parse().unwrap())
}

#[test]
fn an_agent_killed_at_any_step_of_a_restart_leaves_one_policy_or_the_other() {
    scene("kill-restart", |sandbox| {
        let mut scenery = Scenery::new(sandbox);
        scenery.agent.kill();
        scenery.agent.write_policy(&scenery.side.other().policy());
        let most = scenery.recover();
        for _ in 0..runs(5) {
            scenery.agent.kill();
            scenery.agent.write_policy(&scenery.side.other().policy());
            let _ = scenery.kill_start(most);
            scenery.note();
            let _ = scenery.recover();
        }
        scenery.report(most);
    });
}

#[test]
fn an_agent_killed_at_any_step_of_a_change_leaves_one_policy_or_the_other() {
    scene("kill-change", |sandbox| {
        let mut scenery = Scenery::new(sandbox);
        scenery.steps.all_go();
        scenery.side = scenery.side.other();
        scenery.agent.set_policy(&scenery.side.policy());
        let most = scenery.steps.taken();
        for _ in 0..runs(6) {
            let _ = scenery.kill_at_one_of(most);
            scenery.agent.write_policy(&scenery.side.other().policy());
            scenery.agent.reload();
            // One that does less is killed when it next looks at its hooks.
            let ended = scenery.agent.daemon().wait();
            assert_eq!(ended.signal(), Some(9), "{}", scenery.agent.daemon().log());
            scenery.note();
            let _ = scenery.recover();
        }
        scenery.report(most);
    });
}

#[test]
fn an_agent_killed_at_any_step_of_an_upgrade_opens_nothing_and_cuts_nothing() {
    scene("kill-upgrade", |sandbox| {
        let mut scenery = Scenery::new(sandbox);
        let _echo = sandbox
            .actor("db")
            .serve(&["tcp", "127.0.0.1:9100", "--echo"]);
        let mut stream = scenery.pair.web().hold("127.0.0.1:9100");
        let own = version(sandbox);
        let other = sandbox.pins().join("v999");
        let mut most = None;
        for _ in 0..=runs(5) {
            scenery.agent.kill();
            // Pins of another version, whose programs go on.
            fs::rename(&own, &other).unwrap();
            scenery.agent.write_policy(&scenery.side.other().policy());
            let samples = scenery.pair.sample();
            if let Some(most) = most {
                let step = scenery.kill_start(most);
                let verdicts = scenery.pair.verdicts();
                for (target, passes) in &verdicts {
                    let both = [Side::Old, Side::New].map(|side| side.allows(target));
                    let mixed = both == [true, false] || both == [false, true];
                    let right = both.contains(passes) || mixed;
                    assert!(right, "{target} at step {step} of {most}: {verdicts:?}");
                }
            }
            let taken = scenery.recover();
            let _ = most.get_or_insert(taken);
            let calls = samples.assert_right(scenery.side, Change::ByBoth);
            assert!(calls > 100, "{calls} calls saw nothing");
            assert!(!other.exists(), "of another version");
            assert!(stream.is_alive(), "cut, though both policies allow it");
        }
    });
}

/// The directory of the only version.
fn version(sandbox: &Sandbox) -> PathBuf {
    let mut pins = fs::read_dir(sandbox.pins()).unwrap();
    pins.next().unwrap().unwrap().path()
}

#[test]
fn an_agent_killed_at_any_step_of_its_first_start_can_be_started_again() {
    scene("kill-first", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let options = Options {
            launcher: steps.launcher(),
            ..Options::default()
        };
        let pair = Pair::new(sandbox);
        let policy = Side::New.policy();
        let mut random = Random::new();
        let mut most = None;
        for _ in 0..=runs(3) {
            if let Some(most) = most {
                let number = random.up_to(most);
                steps.plan(move |step| {
                    if step.number >= number {
                        Act::Kill
                    } else {
                        Act::Go
                    }
                });
                if let Err(ended) = Agent::try_start(sandbox, &options, &policy) {
                    assert_eq!(ended.status.signal(), Some(9), "{}", ended.log);
                }
                // All hooks or none: what some of them have not seen the others can't judge.
                let verdicts = pair.verdicts();
                let nothing = verdicts.values().all(|passes| *passes);
                let whole = verdicts
                    .iter()
                    .all(|(target, passes)| *passes == Side::New.allows(target));
                assert!(nothing || whole, "at step {number} of {most}: {verdicts:?}");
            }
            steps.all_go();
            let agent = Agent::start_with(sandbox, &options, &policy);
            let _ = most.get_or_insert(steps.taken());
            assert_eq!(pair.side(), Side::New);
            drop(agent);
            fs::remove_dir_all(sandbox.pins()).unwrap();
            until("nothing guards without pins", || {
                pair.verdicts().values().all(|passes| *passes)
            });
        }
    });
}

#[test]
fn an_agent_killed_while_it_stops_leaves_its_policy_in_force() {
    scene("kill-stop", |sandbox| {
        let mut scenery = Scenery::new(sandbox);
        for _ in 0..runs(2) {
            let _ = scenery.kill_at_one_of(3);
            scenery.agent.daemon().signal(Signal::SIGTERM);
            let _ended = scenery.agent.daemon().wait();
            assert_eq!(scenery.pair.side(), scenery.side);
            scenery.agent.write_policy(&scenery.side.other().policy());
            let _ = scenery.recover();
        }
    });
}
