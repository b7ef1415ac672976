//! Sockets that were there before the agent.

use ringfence_tests::{
    Agent,
    policy::{policy, workload},
    poll::until,
    scene,
};

use crate::common::{assert_refused, three_tiers};

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
