//! Sockets that were there before the agent.

use ringfence_tests::{
    Agent, Running,
    flows::line,
    policy::{policy, workload},
    poll::until,
    scene,
};

use crate::{
    common::{assert_refused, three_tiers},
    ownership_stage::assert_one,
};

const AT_DB: &str = "127.0.0.1:5432";

#[test]
fn sockets_open_before_the_start_are_adopted_and_judged() {
    scene("adopt", |sandbox| {
        let (web, api, db) = (
            sandbox.actor("web"),
            sandbox.actor("api"),
            sandbox.actor("db"),
        );
        let _server = db.serve(&["tcp", AT_DB, "--echo"]);
        let forbidden = web.hold(AT_DB);
        let mut allowed = api.hold(AT_DB);
        let mut agent = Agent::start(sandbox, &three_tiers());
        let cut = forbidden.last();
        assert!(!cut.ok(), "{cut:?}");
        // The listener is older than the agent, too.
        let _ = assert_refused(&web, AT_DB, &[]);
        let _ = api.tcp(AT_DB, &[]).expect_ok("api calls db");
        assert!(allowed.is_alive(), "an allowed flow was cut");
        until("the adopted flow is known", || {
            agent.status().live_flows >= 1
        });
        agent.assert_counters();
        agent.kill();
        assert!(allowed.is_alive(), "cut by the death of the agent");
    });
}

#[test]
fn running_processes_are_judged_where_a_workload_is_an_executable_anywhere() {
    scene("adopt-exe", |sandbox| {
        let (caller, server) = (sandbox.actor("caller"), sandbox.actor("server"));
        let _server = server.serve(&["tcp", AT_DB, "--echo"]);
        let mut held = caller.hold(AT_DB);
        let selector = format!("exe = \"{}\"", caller.program().display());
        let text = workload("caller", &selector)
            + &policy("caller", "", &[("egress", "ports = [\"5432/tcp\"]")]);
        let agent = Agent::start(sandbox, &text);
        let _ = caller.tcp(AT_DB, &[]).expect_ok("what its rule allows");
        let _ = assert_refused(&caller, "127.0.0.1:5433", &[]);
        assert!(held.is_alive(), "an allowed flow was cut");
        agent.assert_counters();
    });
}

#[test]
fn a_process_in_a_user_namespace_is_adopted_by_what_it_runs() {
    scene("adopt-userns", |sandbox| {
        let (caller, server) = (sandbox.actor("caller"), sandbox.actor("server"));
        let _server = server.serve(&["tcp", AT_DB, "--echo"]);
        let program = caller.program().display().to_string();
        let unshared = [
            "run",
            "unshare",
            "--user",
            "--map-root-user",
            &program,
            "puppet",
        ];
        let mut held = caller.start(&unshared);
        let _ready = held.line().expect_ok("a puppet");
        for step in [
            "socket tcp 10",
            &format!("connect 10 {AT_DB}"),
            "exchange 10",
        ] {
            let _ = held.ask(step).expect_ok(step);
        }
        let other = sandbox.actor("other").in_cgroup(sandbox, "caller");
        let forbidden = other.hold(AT_DB);
        let text = workload("caller", &format!("exe = \"{program}\""))
            + &workload("rest", "cgroup = \"/caller\"")
            + &policy("caller", "", &[("egress", "ports = [\"5432/tcp\"]")])
            + &policy("rest", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let cut = forbidden.last();
        assert!(!cut.ok(), "{cut:?}");
        let _ = held.ask("exchange 10").expect_ok("who it is is allowed");
        agent.assert_counters();
        // What is cut is its own flow, by its own rule.
        agent.set_policy(&text.replace("5432/tcp", "5433/tcp"));
        until("the flow is cut", || !held.ask("exchange 10").ok());
        let by = format!(
            " revoked by {}",
            caller.by(held.pid()).trim_start_matches("by ")
        );
        let start = format!("deny egress tcp caller -> host {AT_DB} deny default-deny");
        assert_one(&agent, "the flow of the caller", &start, &by);
    });
}

/// /proc/PID of a process whose first thread has ended tells neither its descriptors nor its executable. Before Linux 6.9
/// nobody gets a descriptor of such a process.
#[test]
fn a_process_whose_first_thread_has_ended_is_adopted_with_its_sockets() {
    scene("adopt-headless", |sandbox| {
        let (caller, server) = (sandbox.actor("caller"), sandbox.actor("server"));
        let mut serving = server.puppet();
        let mut calling = caller.puppet();
        let play = |puppet: &mut Running, steps: &[&str]| {
            for step in steps {
                let _ = puppet.ask(step).expect_ok(step);
            }
        };
        play(
            &mut serving,
            &["open 2 1 0 10", "bind 10 127.0.0.1:5432", "listen 10"],
        );
        play(
            &mut calling,
            &["open 2 1 0 10", "connect 10 127.0.0.1:5432", "headless"],
        );
        play(&mut serving, &["accept 10 11"]);
        let selector = format!("exe = \"{}\"", caller.program().display());
        let text = workload("caller", &selector)
            + &policy("caller", "", &[("egress", "ports = [\"80/tcp\"]")]);
        let agent = Agent::start(sandbox, &text);
        let sent = calling.ask("exchange 10");
        assert!(!sent.ok(), "taken for nobody: {sent:?}");
        let by = caller.by(calling.pid());
        until("the refusal is recorded", || {
            let log = agent.log();
            let mut lines = log.iter().map(line);
            lines.any(|line| line.starts_with("deny egress tcp caller ->") && line.ends_with(&by))
        });
        agent.assert_counters();
    });
}
