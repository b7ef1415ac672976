//! `not-after`: the kernel holds the moment.

use ringfence_tests::{
    Agent,
    flows::line,
    policy::{in_seconds, policy, workloads},
    scene,
};

use crate::common::assert_refused;

#[test]
fn a_rule_that_expires_cuts_a_live_flow_without_an_agent() {
    scene("expiry", |sandbox| {
        let (api, db) = (sandbox.actor("api"), sandbox.actor("db"));
        let text = |until: Option<String>| {
            let keys = until
                .map(|moment| format!("not-after = {moment}"))
                .unwrap_or_default();
            let rule = "to = [{ workload = \"db\" }]\nports = [\"5432/tcp\"]";
            workloads(&["api", "db"]) + &policy("api", &keys, &[("egress", rule)])
        };
        let mut agent = Agent::start(sandbox, &text(None));
        let _server = db.serve(&["tcp", "127.0.0.1:5432", "--echo"]);
        let mut stream = api.hold("127.0.0.1:5432");
        agent.set_policy(&text(Some(in_seconds(4))));
        assert!(stream.is_alive(), "cut by a policy that allows it");
        agent.kill();
        let pid = stream.pid();
        let cut = stream.last();
        assert!(!cut.ok() && cut.received > 64, "{cut:?}");
        let after = assert_refused(&api, "127.0.0.1:5432", &[]);

        agent.restart();
        let log = agent.log();
        let lines: Vec<_> = log.iter().map(line).collect();
        for expected in [
            format!(
                "deny egress tcp api -> db 127.0.0.1:5432 deny expired-deny api/egress[0] revoked {}",
                api.by(pid)
            ),
            format!(
                "deny egress tcp api -> db 127.0.0.1:5432 deny expired-deny api/egress[0] {}",
                api.by(after.pid)
            ),
        ] {
            let times = lines.iter().filter(|it| **it == expected).count();
            assert_eq!(times, 1, "{expected}\n{lines:#?}");
        }
    });
}
