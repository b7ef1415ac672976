//! A flood of refusals: what one workload is refused pushes nobody else's records out.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use ringfence_tests::{
    Actor, Agent,
    policy::{policy, workload, workloads},
    scene,
};

use crate::common::assert_refused;

const CALLS: u16 = 20_000;

fn start(sandbox: &ringfence_tests::Sandbox) -> Agent {
    let closed = |name| policy(name, "default-deny = [\"egress\"]", &[]);
    let text = workloads(&["noisy", "quiet"]) + &closed("noisy") + &closed("quiet");
    Agent::start(sandbox, &text)
}

fn knock(actor: &Actor, address: &str, more: &[&str]) {
    let times = CALLS.to_string();
    let outcome = actor.run(&[&["knock", address, &times], more].concat());
    let outcome = outcome.expect_ok("calls");
    assert_eq!(outcome.sent, u64::from(CALLS), "refused");
}

fn records(agent: &Agent, name: &str, port: Option<u32>) -> u64 {
    let mut flows = agent.log();
    flows.retain(|flow| {
        let (from, to) = (flow.source.as_ref(), flow.destination.as_ref());
        from.is_some_and(|end| end.workload == name)
            && port.is_none_or(|port| to.is_some_and(|end| end.port == port))
    });
    u64::try_from(flows.len()).unwrap()
}

fn sum(agent: &Agent, kind: &str) -> u64 {
    let labels = [("kind", kind)];
    agent
        .metrics()
        .sum("ringfence_kernel_events_total", &labels)
}

#[test]
fn a_call_that_is_refused_over_and_over_is_recorded_a_few_times() {
    scene("folded", |sandbox| {
        let [noisy, quiet] = ["noisy", "quiet"].map(|name| sandbox.actor(name));
        let agent = start(sandbox);
        let _ = assert_refused(&quiet, "127.0.0.1:6666", &[]);
        knock(&noisy, "127.0.0.1:7000", &[]);
        // Something else that the same workload does is not hidden.
        let _ = assert_refused(&noisy, "127.0.0.1:6666", &[]);
        let recorded = records(&agent, "noisy", Some(7000));
        assert!((64..2000).contains(&recorded), "{recorded}");
        assert_eq!(sum(&agent, "folded"), u64::from(CALLS) - recorded);
        assert_eq!(records(&agent, "noisy", Some(6666)), 1);
        assert_eq!(records(&agent, "quiet", None), 1);
        agent.assert_counters();
    });
}

#[test]
fn calls_that_are_refused_everywhere_take_no_room_from_others() {
    scene("folded-spread", |sandbox| {
        let [noisy, quiet] = ["noisy", "quiet"].map(|name| sandbox.actor(name));
        let agent = start(sandbox);
        knock(&noisy, "127.0.0.1:20000", &["--spread"]);
        let _ = assert_refused(&quiet, "127.0.0.1:6666", &[]);
        let recorded = records(&agent, "noisy", None);
        // What it has at once, and what it got meanwhile.
        assert!((1024..10_000).contains(&recorded), "{recorded}");
        assert_eq!(sum(&agent, "folded"), u64::from(CALLS) - recorded);
        assert_eq!(records(&agent, "quiet", None), 1);
        let evicted = agent
            .metrics()
            .sum("ringfence_flow_records_evicted_total", &[]);
        assert_eq!(evicted, 0);
        agent.assert_counters();
    });
}

#[test]
fn a_held_call_is_ended_though_its_workload_has_no_refusals_left_to_record() {
    scene("folded-held", |sandbox| {
        let copy = |name: &str| sandbox.actor(name).in_cgroup(sandbox, "app");
        let (good, noisy) = (copy("good"), copy("noisy"));
        let selectors = format!("cgroup = \"/app\", exe = \"{}\"", good.program().display());
        let text = workload("good", &selectors)
            + &workload("rest", "cgroup = \"/app\"")
            + &policy("rest", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        // Its executable is judged from now on.
        let _ = noisy.tcp("127.0.0.1:7000", &["--timeout-ms", "5000"]);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    knock(&noisy, "127.0.0.1:20000", &["--spread"]);
                }
            });
            while sum(&agent, "folded") == 0 {
                thread::yield_now();
            }
            let errors: Vec<_> = (0..12)
                .map(|round| {
                    // Longer than the kernel tries: without a reset it ends in ETIMEDOUT.
                    let held = copy(&format!("held{round}"));
                    held.tcp("127.0.0.1:7000", &["--timeout-ms", "5000"]).error
                })
                .collect();
            over.store(true, Ordering::Relaxed);
            flood.join().unwrap();
            let is_ended =
                |error: &Option<String>| matches!(error.as_deref(), Some("EPERM" | "ECONNABORTED"));
            assert!(errors.iter().all(is_ended), "{errors:?}");
        });
        agent.assert_counters();
    });
}
