//! What `explain` answers is what happens to real traffic.

use ringfence_proto::v1::{Decision, Flow};
use ringfence_tests::{
    Agent, Options, flows,
    policy::{policy, workloads},
    scene,
};

use crate::common::{assert_refused, three_tiers};

/// Verdict and reason, enforced and draft.
type Verdicts = [(i32, String); 2];

fn verdicts(enforced: Option<&Decision>, draft: Option<&Decision>) -> Verdicts {
    [enforced, draft].map(|found| {
        let found = found.unwrap();
        (found.verdict, found.reason.clone())
    })
}

/// What `explain` says about both sides, and whether the flow passes.
#[track_caller]
fn explained(agent: &Agent, from: &str, to: &str, port: u16) -> (bool, Verdicts, Verdicts) {
    let answer = agent.client().explain(from, to, port).unwrap();
    let side = |side: Option<ringfence_proto::v1::Side>| {
        let side = side.unwrap();
        verdicts(side.enforced.as_ref(), side.draft.as_ref())
    };
    (answer.allowed, side(answer.egress), side(answer.ingress))
}

/// What the record of one side says about calls to `port`.
#[track_caller]
fn recorded(agent: &Agent, direction: &str, port: u16) -> Verdicts {
    let wanted = |flow: &Flow| {
        flows::is_call_to(flow, &(port..port + 1)) && flows::direction(flow) == direction
    };
    let found = agent.settled(1, wanted);
    let flow = found.first();
    let flow = flow.unwrap_or_else(|| panic!("no {direction} record of a call to {port}"));
    verdicts(flow.enforced.as_ref(), flow.draft.as_ref())
}

#[test]
fn explain_agrees_with_traffic_about_the_failsafe_list() {
    scene("explain-safe", |sandbox| {
        let (web, api) = (sandbox.actor("web"), sandbox.actor("api"));
        let options = Options {
            sections:
                "[failsafe]\ninbound = [{ ports = [\"8081/tcp\"], from = [\"127.0.0.0/8\"] }]"
                    .to_owned(),
            ..Options::default()
        };
        let nobody = policy("api", "", &[("ingress", "from = []")]);
        let agent = Agent::start_with(sandbox, &options, &(workloads(&["web", "api"]) + &nobody));
        let _servers = [8081, 8082].map(|port| api.serve(&["tcp", &format!("127.0.0.1:{port}")]));

        let _ = web
            .tcp("127.0.0.1:8081", &[])
            .expect_ok("the failsafe list");
        let (allowed, egress, ingress) = explained(&agent, "web@127.0.0.1", "api@127.0.0.1", 8081);
        assert!(allowed);
        assert_eq!(ingress, recorded(&agent, "ingress", 8081));
        assert_eq!(egress, recorded(&agent, "egress", 8081));
        let [(_, reason), _] = &ingress;
        assert_eq!(reason, "failsafe-allow");

        // Denied by the listener's side, which the caller's record tells.
        let _ = assert_refused(&web, "127.0.0.1:8082", &[]);
        let (allowed, _, ingress) = explained(&agent, "web@127.0.0.1", "api@127.0.0.1", 8082);
        assert!(!allowed);
        assert_eq!(ingress, recorded(&agent, "egress", 8082));
        let [(_, reason), _] = &ingress;
        assert_eq!(reason, "default-deny");
    });
}

#[test]
fn explain_agrees_with_traffic_in_draft_mode() {
    scene("explain-draft", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let options = Options {
            agent: "mode = \"draft\"".to_owned(),
            ..Options::default()
        };
        let agent = Agent::start_with(sandbox, &options, &three_tiers());
        let _server = db.serve(&["tcp", "127.0.0.1:5432"]);
        let _ = web.tcp("127.0.0.1:5432", &[]).expect_ok("draft mode");
        let (allowed, egress, ingress) = explained(&agent, "web", "db", 5432);
        assert!(allowed);
        assert_eq!(egress, recorded(&agent, "egress", 5432));
        assert_eq!(ingress, recorded(&agent, "ingress", 5432));
        for side in [egress, ingress] {
            let reason = "default-deny".to_owned();
            assert_eq!(side, [(3, reason.clone()), (2, reason)]);
        }
    });
}
