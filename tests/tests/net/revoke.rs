//! A change of policy reaches connections that are open.

use ringfence_tests::{
    Actor, Agent, Controller, Options, Sandbox,
    flows::direction,
    policy::{policy, workloads},
    poll::until,
    scene,
};

use crate::common::{three_policies, three_tiers};

const AT_DB: &str = "127.0.0.1:5432";

struct Scenery {
    api: Actor,
    db: Actor,
    without: String,
}

fn scenery(sandbox: &Sandbox) -> Scenery {
    Scenery {
        api: sandbox.actor("api"),
        db: sandbox.actor("db"),
        without: workloads(&["web", "api", "db"]) + &three_policies("1/tcp"),
    }
}

/// Holds a stream from api to db, lets `change` revoke it, and compares what is recorded.
#[track_caller]
fn revoked_by(agent: &Agent, scenery: &Scenery, change: impl FnOnce()) {
    let Scenery { api, db, .. } = scenery;
    let mut server = db.serve(&["tcp", AT_DB, "--echo"]);
    let stream = api.hold(AT_DB);
    let by = api.by(stream.pid());
    change();
    let cut = stream.last();
    assert!(
        !cut.ok() && cut.error.as_deref() != Some("timeout"),
        "not reset: {cut:?}"
    );
    let at_server = server.line();
    assert_eq!(at_server.received, cut.sent, "{at_server:?}");
    let flow = format!("egress tcp api -> db {AT_DB}");
    agent.assert_log_of(
        &[
            format!("open {flow} allow rule-allow api/egress[0] {by}"),
            format!("deny {flow} deny default-deny revoked {by}"),
            format!(
                "close {flow} deny default-deny revoked {0}/{0}B {by}",
                cut.sent
            ),
        ],
        |record| direction(record) == "egress",
    );
    until("no flow is live", || agent.status().live_flows == 0);
}

#[test]
fn a_live_flow_is_reset_when_its_rule_is_removed() {
    scene("revoke", |sandbox| {
        let scenery = scenery(sandbox);
        let agent = Agent::start(sandbox, &three_tiers());
        revoked_by(&agent, &scenery, || agent.set_policy(&scenery.without));
        agent.assert_counters();
    });
}

#[test]
fn a_live_flow_is_reset_when_the_controller_removes_its_rule() {
    scene("revoke-controller", |sandbox| {
        let scenery = scenery(sandbox);
        let controller = Controller::start(sandbox, &three_tiers());
        let agent = Agent::start_with(sandbox, &controller.options(), "");
        until("the controller's policy is in force", || {
            agent.status().controller_generation == 1
        });
        revoked_by(&agent, &scenery, || controller.set_policy(&scenery.without));
        agent.assert_counters();
    });
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() {
    scene("watch", |sandbox| {
        let scenery = scenery(sandbox);
        let agent = Agent::start(sandbox, &three_tiers());
        revoked_by(&agent, &scenery, || agent.write_policy(&scenery.without));
    });
}

#[test]
fn a_change_that_does_not_concern_a_flow_leaves_it_alone() {
    scene("unconcerned", |sandbox| {
        let scenery = scenery(sandbox);
        let agent = Agent::start_with(sandbox, &Options::default(), &three_tiers());
        let _server = scenery.db.serve(&["tcp", AT_DB, "--echo"]);
        let mut stream = scenery.api.hold(AT_DB);
        for round in 0..5 {
            let more = format!("ports = [\"{}/tcp\"]", 2000 + round);
            let other = workloads(&["other"]) + &policy("other", "", &[("egress", &more)]);
            agent.set_policy(&(three_tiers() + &other));
            assert!(stream.is_alive(), "cut by change {round}");
        }
        stream.kill();
        let by = scenery.api.by(stream.pid());
        let flow = format!("egress tcp api -> db {AT_DB} allow rule-allow api/egress[0]");
        let log = agent.log();
        let denied = log
            .iter()
            .filter(|record| ringfence_tests::flows::event(record) == "deny");
        assert_eq!(denied.count(), 0, "{log:#?}");
        let lines: Vec<_> = log.iter().map(ringfence_tests::flows::line).collect();
        assert!(lines.contains(&format!("open {flow} {by}")), "{lines:#?}");
        agent.assert_counters();
    });
}
