//! Others detach the agent's links and attach programs of their own.

use std::path::PathBuf;

use ringfence_agent::datapath::HOOKS;
use ringfence_tests::{
    Agent, Options, Sandbox,
    foreign::{self, ALLOW_MULTI, CONNECT4, EGRESS, EXCLUSIVE, Foreign, INGRESS},
    poll::until,
    scene,
};

use crate::common::{Pair, Side};

fn link(sandbox: &Sandbox, name: &str) -> PathBuf {
    let versions = std::fs::read_dir(sandbox.pins()).unwrap();
    let version = versions.map(|it| it.unwrap().path()).next().unwrap();
    version.join("links").join(name)
}

#[test]
fn each_link_that_somebody_detaches_is_attached_again() {
    scene("detached", |sandbox| {
        let pair = Pair::new(sandbox);
        let _echo = sandbox
            .actor("db")
            .serve(&["tcp", "127.0.0.1:9100", "--echo"]);
        let mut agent = Agent::start(sandbox, &Side::Old.policy());
        let mut stream = pair.web().hold("127.0.0.1:9100");
        for (hook, number) in HOOKS.iter().zip(1..) {
            let before = agent.status().hooks;
            foreign::detach_link(&link(sandbox, hook.name)).unwrap();
            until("it is attached again and counted", || {
                agent.status().counts.get("hooks-reattached") == Some(&number)
            });
            let after = agent.status().hooks;
            assert!(after.iter().all(|it| it.attached), "{after:?}");
            for (before, after) in before.iter().zip(&after) {
                let same = before.link_id == after.link_id;
                assert_eq!(same, before.name != hook.name, "{before:?} {after:?}");
            }
            assert_eq!(pair.side(), Side::Old, "after {}", hook.name);
            assert!(stream.is_alive(), "cut after {}", hook.name);
        }
        let metric = agent.metrics();
        let number = u64::try_from(HOOKS.len()).unwrap();
        assert_eq!(metric.sum("ringfence_hooks_reattached_total", &[]), number);
        assert!(agent.daemon().log().contains("hooks were detached"));
        agent.kill();
        assert_eq!(pair.side(), Side::Old, "the new links are pinned");
        agent.restart();
        assert_eq!(pair.side(), Side::Old);
        assert!(stream.is_alive(), "cut by the restart");
    });
}

#[test]
fn programs_of_others_that_let_everything_pass_open_nothing() {
    scene("beside", |sandbox| {
        let pair = Pair::new(sandbox);
        let places = [INGRESS, EGRESS, CONNECT4];
        let others: Vec<_> = places.into_iter().map(Foreign::load).collect();
        for other in &others {
            other.attach(sandbox.guarded(), ALLOW_MULTI).unwrap();
        }
        let mut agent = Agent::start(sandbox, &Side::Old.policy());
        assert_eq!(pair.side(), Side::Old, "attached before");
        let later: Vec<_> = places.into_iter().map(Foreign::load).collect();
        let links: Vec<_> = later
            .iter()
            .map(|other| other.link(sandbox.guarded()))
            .collect();
        // Below, where one that suffers no other stands beside those above that do.
        let below = Foreign::load(EGRESS);
        below.attach(&sandbox.cgroup("db"), EXCLUSIVE).unwrap();
        assert_eq!(pair.side(), Side::Old, "attached after");
        agent.set_policy(&Side::New.policy());
        assert_eq!(pair.side(), Side::New);
        agent.kill();
        agent.restart();
        assert_eq!(pair.side(), Side::New, "after a restart");
        drop(links);
        for other in &others {
            other.detach(sandbox.guarded());
        }
        assert_eq!(pair.side(), Side::New, "when they are gone");
    });
}

#[test]
fn a_program_that_suffers_no_other_is_named_with_the_remedy() {
    scene("exclusive", |sandbox| {
        let inner = sandbox.cgroup("inner");
        let options = Options {
            agent: format!("cgroup-root = \"{}\"", inner.display()),
            ..Options::default()
        };
        let other = Foreign::load(EGRESS);
        for place in [inner.as_path(), sandbox.guarded()] {
            other.attach(place, EXCLUSIVE).unwrap();
            let Err(ended) = Agent::try_start(sandbox, &options, &Side::Old.policy()) else {
                panic!(
                    "the agent has started beside a program at {}",
                    place.display()
                );
            };
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            let named = ["egress", inner.to_str().unwrap(), "bpftool cgroup"];
            let last = ended.log.lines().last().unwrap_or_default();
            assert!(named.iter().all(|it| last.contains(it)), "{}", ended.log);
            other.detach(place);
        }
        let agent = Agent::start_with(sandbox, &options, &Side::Old.policy());
        assert!(agent.status().hooks.iter().all(|hook| hook.attached));
    });
}
