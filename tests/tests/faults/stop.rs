//! The agent stops at each of its steps, while others call all the time: nobody sees a mixture.

use std::{fs, thread, time::Duration};

use ringfence_tests::{Agent, Options, Sandbox, Steps, scene, steps::Act};

use crate::common::{Change, Pair, Side};

/// Long enough for a few rounds of calls.
const STOP: Duration = Duration::from_millis(10);
/// Steps of a start at which it does not stop, for one at which it does: most of them load programs.
const EVERY: u64 = 3;

struct Scenery {
    steps: Steps,
    pair: Pair,
    agent: Agent,
}

fn scenery(sandbox: &Sandbox) -> Scenery {
    let steps = Steps::new(sandbox.files(), "steps");
    let options = Options {
        launcher: steps.launcher(),
        ..Options::default()
    };
    let pair = Pair::new(sandbox);
    let agent = Agent::start_with(sandbox, &options, &Side::Old.policy());
    assert_eq!(pair.side(), Side::Old);
    Scenery { steps, pair, agent }
}

impl Scenery {
    fn stop_every(&self, every: u64) {
        self.steps.plan(move |step| {
            if step.number.is_multiple_of(every) {
                thread::sleep(STOP);
            }
            Act::Go
        });
    }
}

#[test]
fn an_agent_stopped_at_each_step_of_a_change_shows_one_policy_and_then_the_other() {
    scene("stop-change", |sandbox| {
        let scenery = scenery(sandbox);
        let mut side = Side::Old;
        for _ in 0..4 {
            let samples = scenery.pair.sample();
            scenery.stop_every(1);
            side = side.other();
            scenery.agent.set_policy(&side.policy());
            let calls = samples.assert_right(side, Change::AtOnce);
            assert!(calls > 100, "{calls} calls saw nothing");
        }
    });
}

#[test]
fn an_agent_stopped_at_the_steps_of_a_restart_shows_one_policy_and_then_the_other() {
    scene("stop-restart", |sandbox| {
        let mut scenery = scenery(sandbox);
        let mut side = Side::Old;
        for _ in 0..2 {
            scenery.agent.kill();
            side = side.other();
            scenery.agent.write_policy(&side.policy());
            let samples = scenery.pair.sample();
            scenery.stop_every(EVERY);
            scenery.agent.restart();
            let calls = samples.assert_right(side, Change::AtOnce);
            assert!(calls > 100, "{calls} calls saw nothing");
        }
    });
}

#[test]
fn an_agent_stopped_at_the_steps_of_an_upgrade_denies_what_either_denies_and_cuts_nothing() {
    scene("stop-upgrade", |sandbox| {
        let mut scenery = scenery(sandbox);
        let _echo = sandbox
            .actor("db")
            .serve(&["tcp", "127.0.0.1:9100", "--echo"]);
        let mut stream = scenery.pair.web().hold("127.0.0.1:9100");
        let own = fs::read_dir(sandbox.pins())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let mut side = Side::Old;
        for _ in 0..2 {
            scenery.agent.kill();
            fs::rename(&own, sandbox.pins().join("v999")).unwrap();
            side = side.other();
            scenery.agent.write_policy(&side.policy());
            let samples = scenery.pair.sample();
            scenery.stop_every(EVERY);
            scenery.agent.restart();
            let calls = samples.assert_right(side, Change::ByBoth);
            assert!(calls > 100, "{calls} calls saw nothing");
            assert!(stream.is_alive(), "cut, though both policies allow it");
        }
    });
}
