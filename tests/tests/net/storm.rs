//! Many short-lived processes in cgroups that come and go, each calling as soon as it is there.

use std::{collections::BTreeMap, fs, thread};

use ringfence_tests::{
    Agent, Sandbox,
    flows::line,
    policy::{policy, workload},
    scene,
};

const WORKERS: usize = 8;
const ROUNDS: usize = 40;

#[test]
fn short_lived_processes_in_new_cgroups_are_never_taken_for_others() {
    scene("storm", |sandbox| {
        let server = sandbox.actor("server");
        let text = workload("good", "cgroup = \"/jobs/good-*\"")
            + &workload("bad", "cgroup = \"/jobs/bad-*\"")
            + &policy("good", "", &[("egress", "ports = [\"8080/tcp\"]")])
            + &policy("bad", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let _server = server.serve(&["tcp", "127.0.0.1:8080"]);
        let programs = ["good", "bad"].map(|name| sandbox.actor(name));
        let ends: Vec<_> = thread::scope(|scope| {
            let work = |worker| {
                let programs = &programs;
                scope.spawn(move || run(sandbox, programs, worker))
            };
            let workers: Vec<_> = (0..WORKERS).map(work).collect();
            workers
                .into_iter()
                .flat_map(|it| it.join().unwrap())
                .collect()
        });
        let mut seen = BTreeMap::<_, usize>::new();
        for (name, error) in ends {
            *seen.entry((name, error)).or_default() += 1;
        }
        for ((name, error), number) in &seen {
            let right = matches!(
                (*name, error.as_deref()),
                ("good", None) | ("bad", Some("EPERM" | "ECONNABORTED"))
            );
            assert!(right, "{number} of {name} ended with {error:?}: {seen:?}");
        }
        let log = agent.log();
        let count = |start: &str| {
            let lines = log.iter().map(line);
            lines.filter(|line| line.starts_with(start)).count()
        };
        let each = WORKERS * ROUNDS / 2;
        assert_eq!(count("open egress tcp good -> "), each, "{seen:?}");
        // Most of so many refusals that are alike are only counted.
        let kind = [("kind", "folded")];
        let folded = agent.metrics().sum("ringfence_kernel_events_total", &kind);
        let denied = count("deny egress tcp bad -> ") as u64 + folded;
        assert_eq!(denied, each as u64, "{seen:?}");
        agent.assert_counters();
    });
}

/// Calls one after the other, each from a cgroup made for it; half of them may.
fn run(
    sandbox: &Sandbox,
    programs: &[ringfence_tests::Actor; 2],
    worker: usize,
) -> Vec<(&'static str, Option<String>)> {
    let mut ends = Vec::new();
    for round in 0..ROUNDS {
        let (name, program) = if round % 2 == 0 {
            ("good", &programs[0])
        } else {
            ("bad", &programs[1])
        };
        let path = format!("jobs/{name}-{worker}-{round}");
        let actor = program.in_cgroup(sandbox, &path);
        let outcome = actor.tcp("127.0.0.1:8080", &["--timeout-ms", "15000"]);
        ends.push((name, outcome.error));
        // The kernel may still be taking the process out of it.
        let _left_for_the_sandbox = fs::remove_dir(sandbox.cgroup(&path));
    }
    ends
}
