//! Maps that forget, and sockets that the kernel programs can't remember: no verdict is wrong, and it is counted.

use ringfence_tests::{
    Agent, Outcome,
    flows::event,
    policy::{policy, workloads},
    poll::until,
    scene,
};

const AT_DB: &str = "127.0.0.1:5432";

/// web may call one port of db, whose policy knows web alone; other is of no policy.
fn text() -> String {
    let to = "to = [{ workload = \"db\" }]\nports = [\"5432/tcp\", \"5432/udp\"]";
    let from = "from = [{ workload = \"web\" }]\nports = [\"5432/tcp\", \"5432/udp\"]";
    workloads(&["web", "db", "other"])
        + &policy("web", "", &[("egress", to)])
        + &policy("db", "", &[("ingress", from)])
}

fn failures(agent: &Agent, what: &str) -> u64 {
    agent
        .metrics()
        .sum("ringfence_failures_total", &[("what", what)])
}

/// It neither passed nor came to where nobody listens.
#[track_caller]
fn assert_stopped(outcome: &Outcome, what: &str) {
    let passed = outcome.ok() || outcome.error.as_deref() == Some("ECONNREFUSED");
    assert!(!passed, "{what}: {outcome:?}");
}

#[test]
fn sockets_without_storage_get_no_more_than_policy_allows() {
    scene("storage", |sandbox| {
        let [web, db, other] = ["web", "db", "other"].map(|name| sandbox.actor(name));
        let agent = Agent::start(sandbox, &text());
        let _servers = [
            db.serve(&["tcp", AT_DB, "--echo"]),
            db.serve(&["udp", AT_DB, "--echo"]),
        ];
        let mut stream = web.hold(AT_DB);
        let namespace = sandbox.namespace();
        // Socket storage is charged to the socket (`sk_storage_charge`, net/core/bpf_sk_storage.c).
        namespace.sysctl("net/core/optmem_max", "64");
        for options in [
            &["--timeout-ms", "1000"][..],
            &["--timeout-ms", "1000", "--mapped"],
        ] {
            assert_stopped(&web.tcp("127.0.0.1:5433", options), "another port");
            assert_stopped(&other.tcp(AT_DB, options), "another workload");
            assert_stopped(&web.udp("127.0.0.1:5433", options), "another port");
            assert_stopped(&other.udp(AT_DB, options), "another workload");
        }
        assert!(failures(&agent, "storage-failed") > 0);
        assert!(stream.is_alive(), "what has storage goes on");
        namespace.sysctl("net/core/optmem_max", "131072");
        let _passed = web.tcp(AT_DB, &[]).expect_ok("as before");
        let _refused = web
            .tcp("127.0.0.1:5433", &[])
            .expect_refused("connect", "as before");
        assert_stopped(&other.tcp(AT_DB, &["--timeout-ms", "1000"]), "as before");
        assert!(stream.is_alive());
    });
}

#[test]
fn refusals_that_are_forgotten_are_refusals_all_the_same() {
    // More than the map that knows which refusals were recorded holds.
    const PORTS: u64 = 20_000;
    scene("refusals", |sandbox| {
        let [web, db] = ["web", "db"].map(|name| sandbox.actor(name));
        let agent = Agent::start(sandbox, &text());
        let _server = db.serve(&["tcp", AT_DB, "--echo"]);
        let mut stream = web.hold(AT_DB);
        for _ in 0..2 {
            let knocked = web.run(&["knock", "127.0.0.1:6000", &PORTS.to_string(), "--spread"]);
            assert_eq!(knocked.sent, PORTS, "refused: {knocked:?}");
        }
        let _passed = web.tcp(AT_DB, &[]).expect_ok("what is allowed");
        assert!(stream.is_alive());
        let all = 2 * PORTS;
        until("each is recorded, folded or counted as lost", || {
            let log = agent.client().flows(Vec::new()).unwrap();
            let denied = log.iter().filter(|flow| event(flow) == "deny").count();
            let sum = |kind| {
                let metrics = agent.metrics();
                metrics.sum("ringfence_kernel_events_total", &[("kind", kind)])
            };
            u64::try_from(denied).unwrap() + sum("folded") + sum("lost") == all
        });
    });
}
