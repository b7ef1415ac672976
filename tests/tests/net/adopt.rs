//! Sockets that were there before the agent.

use ringfence_tests::{Agent, poll::until, scene};

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
