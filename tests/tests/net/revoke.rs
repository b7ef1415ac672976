//! A change of policy reaches connections that are open.

use ringfence_tests::{
    Actor, Agent, Controller, Options, Sandbox,
    flows::{direction, event, line, without_bytes},
    policy::{policy, workloads},
    poll::until,
    scene,
};

use crate::common::{three_policies, three_tiers};

const AT_DB: &str = "127.0.0.1:5432";
/// Bytes of one message of a held stream.
const MESSAGE: u64 = 64;

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
    let flow = format!("tcp api -> db {AT_DB}");
    let expected = |direction: &str, by: &str| {
        let owner = if direction == "egress" { "api" } else { "db" };
        [
            format!("open {direction} {flow} allow rule-allow {owner}/{direction}[0] {by}"),
            format!("deny {direction} {flow} deny default-deny revoked {by}"),
            format!("close {direction} {flow} deny default-deny revoked * {by}"),
        ]
    };
    let records = agent.settled(6, |_| true);
    for (name, by) in [("egress", by), ("ingress", db.by(server.pid()))] {
        let of_side = records.iter().filter(|record| direction(record) == name);
        let lines: Vec<_> = of_side.map(|record| without_bytes(&line(record))).collect();
        assert_eq!(lines, expected(name, &by), "{records:#?}");
    }
    // A message or its acknowledgement may have been under way.
    let about = |bytes: u64| bytes.abs_diff(cut.sent) <= MESSAGE;
    assert!(about(at_server.received), "{at_server:?} {cut:?}");
    for record in records.iter().filter(|record| event(record) == "close") {
        let counted = about(record.forward_bytes) && about(record.reverse_bytes);
        assert!(counted, "{cut:?} {record:#?}");
    }
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
fn a_silent_connection_from_right_before_the_change_is_reset() {
    scene("revoke-silent", |sandbox| {
        let Scenery { api, db, without } = scenery(sandbox);
        let agent = Agent::start(sandbox, &three_tiers());
        let _server = db.serve(&["tcp", AT_DB, "--echo"]);
        let mut caller = api.puppet();
        let reset = ["ECONNABORTED", "ECONNRESET", "EPIPE"];
        for _ in 0..5 {
            for line in ["socket tcp 10", &format!("connect 10 {AT_DB}")] {
                let _done = caller.ask(line).expect_ok(line);
            }
            // No packet tells of it, and its record is not read yet.
            agent.set_policy(&without);
            until("it is reset", || {
                let said = caller.ask("receive 10");
                said.error.is_some_and(|error| reset.contains(&&*error))
            });
            let _closed = caller.ask("close 10").expect_ok("close");
            agent.set_policy(&three_tiers());
        }
        agent.assert_counters();
    });
}

#[test]
fn the_other_end_of_a_revoked_flow_notices() {
    scene("other-end", |sandbox| {
        let Scenery { api, db, .. } = scenery(sandbox);
        let agent = Agent::start(sandbox, &three_tiers());
        let mut server = db.serve(&["tcp", AT_DB, "--echo"]);
        let stream = api.hold(AT_DB);
        // Only the caller's rule goes; db would still accept it.
        let to_db = "to = [{ workload = \"db\" }]\nports = [\"5432/tcp\"]";
        let without = three_tiers().replace(to_db, "to = []");
        assert_ne!(without, three_tiers());
        agent.set_policy(&without);
        assert!(!stream.last().ok());
        let end = server.line();
        assert!(!end.ok(), "{end:?}");
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
        let denied = log.iter().filter(|record| event(record) == "deny");
        assert_eq!(denied.count(), 0, "{log:#?}");
        let lines: Vec<_> = log.iter().map(line).collect();
        assert!(lines.contains(&format!("open {flow} {by}")), "{lines:#?}");
        agent.assert_counters();
    });
}
