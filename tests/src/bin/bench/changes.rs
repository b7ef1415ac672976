//! How long a start, a change and a revocation take.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use ringfence_tests::{Agent, Sandbox};
use serde::{Deserialize, Serialize};

use crate::{
    policies,
    process::check,
    stage::{Family, Stage, Way},
    stats::{Spread, float},
    variant::TEN,
    worker::PLAIN,
};

/// What was timed, milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    pub what: String,
    pub millis: Spread,
    pub times: usize,
    /// Of the agent afterwards.
    pub resident_kib: u64,
}

pub const START_CACHED: &str = "start to enforcing, policy kept on disk, nothing in the kernel";
pub const ONE_RULE: &str = "change of one rule: read to in force";
pub const LARGE: &str = "10,000 workloads and 10,000 rules: read to in force";
pub const LARGE_ONE_RULE: &str = "the same, change of one rule: read to in force";
pub const RESET: &str = "revocation: in force to reset of the connection";

/// All of it, `times` times each; the large policy once where it is `quick`.
pub fn measure(times: usize, quick: bool) -> Vec<Change> {
    let mut found = starts(times);
    found.extend(small(times));
    found.push(revocations(times));
    found.extend(large(if quick { 1 } else { times }));
    found
}

fn starts(times: usize) -> Vec<Change> {
    let sandbox = Sandbox::new("bench-start");
    let mut fresh = Vec::new();
    let mut cached = Vec::new();
    let mut adopted = Vec::new();
    let mut usage = 0;
    let policy = policies::allow(1_000, 100);
    for round in 0..times {
        check();
        let began = Instant::now();
        let mut agent = Agent::start(&sandbox, &policy);
        // Of the first one the state directory does not exist.
        if round == 0 {
            fresh.push(millis(began.elapsed()));
        }
        agent.kill();
        let began = Instant::now();
        agent.restart();
        adopted.push(millis(began.elapsed()));
        agent.kill();
        fs::remove_dir_all(sandbox.pins()).unwrap();
        let began = Instant::now();
        agent.restart();
        cached.push(millis(began.elapsed()));
        usage = resident(&mut agent);
        agent.kill();
        fs::remove_dir_all(sandbox.pins()).unwrap();
    }
    vec![
        change("first start to enforcing", &fresh, usage),
        change(START_CACHED, &cached, usage),
        change("start over what an earlier agent left", &adopted, usage),
    ]
}

fn small(times: usize) -> Vec<Change> {
    let sandbox = Sandbox::new("bench-small");
    let mut agent = Agent::start(&sandbox, &policies::allow(10, 1));
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    for round in 0..times {
        check();
        let policy = policies::allow(if round % 2 == 0 { 11 } else { 10 }, 1);
        let began = Instant::now();
        agent.set_policy(&policy);
        outside.push(millis(began.elapsed()));
        inside.push(took(&agent));
    }
    let usage = resident(&mut agent);
    vec![
        change(ONE_RULE, &inside, usage),
        change(
            "the same: SIGHUP to the answer of the next status",
            &outside,
            usage,
        ),
    ]
}

fn large(times: usize) -> Vec<Change> {
    let sandbox = Sandbox::new("bench-large");
    let mut agent = Agent::start(&sandbox, &policies::none());
    let mut whole = Vec::new();
    let mut rule = Vec::new();
    for _ in 0..times {
        check();
        agent.set_policy(&many(443));
        whole.push(took(&agent));
        agent.set_policy(&many(444));
        rule.push(took(&agent));
        agent.set_policy(&policies::none());
    }
    agent.set_policy(&many(443));
    let usage = resident(&mut agent);
    vec![
        change(LARGE, &whole, usage),
        change(LARGE_ONE_RULE, &rule, usage),
    ]
}

/// 10,000 workloads, each with a rule; `port` is that of the first one's.
fn many(port: u16) -> String {
    let names: Vec<String> = policies::names("w").take(10_000).collect();
    let next = names.iter().cycle().skip(1);
    let mut text = String::new();
    for (number, (name, next)) in names.iter().zip(next).enumerate() {
        let port = if number == 0 { port } else { 443 };
        let _ = writeln!(
            text,
            "[[workload]]\nname = \"{name}\"\nlabels = {{ app = \"{name}\" }}\n\
             match = {{ cgroup = \"/w/{name}\" }}\n\
             [[policy]]\nname = \"{name}\"\napplies-to = {{ app = \"{name}\" }}\n\
             [[policy.egress]]\nto = [{{ workload = \"{next}\" }}]\nports = [\"{port}/tcp\"]"
        );
    }
    text
}

/// A live connection whose rule is taken away; it must end by itself.
fn revocations(times: usize) -> Change {
    let policy = policies::allow(10, 1);
    let mut stage = Stage::with(TEN, "bench-revoke", Some(&policy));
    let mut resets = Vec::new();
    for _ in 0..times {
        let address = Way::Loopback.address(Family::V4, PLAIN);
        stage
            .client(Way::Loopback)
            .tell(&format!("hold {address} 10000"));
        std::thread::sleep(Duration::from_millis(100));
        let agent = stage.agent.as_ref().unwrap();
        agent.set_policy(&policies::revoked());
        let applied = agent.status().applied.unwrap();
        let (end, exchanges) = stage.client(Way::Loopback).answer();
        assert!(exchanges > 0, "the connection never was");
        let applied = float(applied.seconds.cast_unsigned()) + f64::from(applied.nanos) / 1e9;
        // It may have been cut before the agent had noted the time.
        resets.push((end - applied).max(0.0) * 1e3);
        stage.agent.as_ref().unwrap().set_policy(&policy);
    }
    let usage = resident(stage.agent.as_mut().unwrap());
    change(RESET, &resets, usage)
}

/// What the agent says the last change took, from its log.
pub fn took(agent: &Agent) -> f64 {
    let log = fs::read_to_string(agent.config().with_file_name("ringfence.log")).unwrap();
    let line = log.lines().rfind(|line| line.contains("policy in force"));
    let (_, rest) = line.unwrap().split_once("took_us=").unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    float(digits.parse().unwrap()) / 1e3
}

pub fn resident(agent: &mut Agent) -> u64 {
    ringfence_tests::usage::Usage::of(agent.daemon().pid()).resident_kib
}

pub const fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub fn change(what: &str, samples: &[f64], resident_kib: u64) -> Change {
    Change {
        what: what.to_owned(),
        millis: Spread::of(samples),
        times: samples.len(),
        resident_kib,
    }
}
