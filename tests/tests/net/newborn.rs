//! cgroups that the agent has not seen: it is stopped while they come to be.

use std::{fs, thread, time::Duration};

use nix::sys::signal::Signal;
use ringfence_tests::{
    Agent, Options, Sandbox,
    flows::line,
    policy::{policy, workload},
    scene,
};

use crate::common::{assert_allowed, assert_refused};

const PORT_81: (&str, &str) = ("egress", "ports = [\"81/tcp\"]");

fn stopped(sandbox: &Sandbox, text: &str) -> Agent {
    let mut agent = Agent::start(sandbox, text);
    agent.daemon().signal(Signal::SIGSTOP);
    agent
}

#[test]
fn a_cgroup_made_anew_is_known_by_its_name_without_an_agent() {
    scene("newborn-name", |sandbox| {
        let [web, other] = ["web", "other"].map(|name| sandbox.actor(name));
        let text = workload("web", "cgroup = \"/web\"") + &policy("web", "", &[PORT_81]);
        let mut agent = Agent::start(sandbox, &text);
        let _ = assert_allowed(&web, "127.0.0.1:81", &[]);
        let _ = assert_refused(&web, "127.0.0.1:82", &[]);
        // What it has not read when it dies, the next one reads.
        let _read = agent.log();
        agent.kill();
        for name in ["web", "other"] {
            fs::remove_dir(sandbox.cgroup(name)).unwrap();
            let _ = sandbox.cgroup(name);
        }
        let _ = assert_allowed(&web, "127.0.0.1:81", &[]);
        let _ = assert_refused(&web, "127.0.0.1:82", &[]);
        // No selector can mean this one.
        let _ = assert_allowed(&other, "127.0.0.1:82", &[]);
        agent.restart();
        let _ = assert_refused(&web, "127.0.0.1:82", &[]);
        let log = agent.log();
        let refused = log.iter().map(line);
        let refused = refused.filter(|line| line.starts_with("deny egress tcp web -> "));
        assert_eq!(refused.count(), 2, "without the agent and after: {log:#?}");
    });
}

#[test]
fn a_cgroup_that_may_be_a_workload_is_held_until_the_agent_has_seen_it() {
    scene("newborn-held", |sandbox| {
        let text = workload("job", "cgroup = \"/jobs/*\"") + &policy("job", "", &[PORT_81]);
        let _ = sandbox.actor("probe").in_cgroup(sandbox, "jobs");
        let mut agent = stopped(sandbox, &text);
        let short = ["--timeout-ms", "300"];
        for path in ["jobs/one", "deep/below"] {
            let job = sandbox.actor("job").in_cgroup(sandbox, path);
            for address in ["127.0.0.1:81", "127.0.0.1:82"] {
                let outcome = job.tcp(address, &short);
                assert!(outcome.failed("connect", "timeout"), "{path}: {outcome:?}");
            }
            // Its first datagrams are dropped too.
            let outcome = job.udp("127.0.0.1:81", &short);
            assert!(outcome.failed("receive", "timeout"), "{path}: {outcome:?}");
        }
        // A call that waits goes on when the agent does, also below what the agent follows.
        let deeper = ["jobs/two".to_owned(), "jobs".to_owned() + &"/d".repeat(40)];
        let calls = deeper.map(|path| {
            let job = sandbox.actor("job").in_cgroup(sandbox, &path);
            let good = job.start(&["call", "tcp", "127.0.0.1:81"]);
            let bad = job.start(&["call", "tcp", "127.0.0.1:82"]);
            (path, good, bad)
        });
        thread::sleep(Duration::from_millis(200));
        agent.daemon().signal(Signal::SIGCONT);
        for (path, good, bad) in calls {
            let outcome = good.last();
            assert!(
                outcome.failed("connect", "ECONNREFUSED"),
                "{path}: {outcome:?}"
            );
            let outcome = bad.last();
            assert!(
                outcome.failed("connect", "ECONNABORTED"),
                "{path}: {outcome:?}"
            );
        }
        let other = sandbox.actor("job").in_cgroup(sandbox, "deep/below");
        let _ = assert_allowed(&other, "127.0.0.1:82", &[]);
    });
}

#[test]
fn what_stays_pending_is_refused_after_the_configured_time() {
    scene("newborn-bound", |sandbox| {
        let text = workload("job", "cgroup = \"/jobs/*\"") + &policy("job", "", &[PORT_81]);
        let options = Options {
            agent: "pending-seconds = 1".to_owned(),
            ..Options::default()
        };
        let _ = sandbox.actor("probe").in_cgroup(sandbox, "jobs");
        let mut agent = Agent::start_with(sandbox, &options, &text);
        agent.daemon().signal(Signal::SIGSTOP);
        let job = sandbox.actor("job").in_cgroup(sandbox, "jobs/one");
        // The socket is reset by the agent, when it goes on; before, its packets are dropped.
        let call = job.start(&["call", "tcp", "127.0.0.1:81"]);
        thread::sleep(Duration::from_secs(2));
        agent.daemon().signal(Signal::SIGCONT);
        let outcome = call.last();
        assert!(outcome.failed("connect", "ECONNABORTED"), "{outcome:?}");
        let by = job.by(outcome.pid);
        let expected = format!("pending-deny {by}");
        let log = agent.log();
        let refused = log
            .iter()
            .map(line)
            .filter(|line| line.ends_with(&expected));
        assert_eq!(refused.count(), 1, "{log:#?}");
        let _ = assert_allowed(&job, "127.0.0.1:81", &[]);
    });
}
