//! Draft policies and an agent in draft mode: judged, recorded, never blocked.

use ringfence_tests::{
    Agent, Options,
    policy::{policy, workloads},
    scene,
};

use crate::common::{assert_allowed, assert_refused, three_tiers, unanswered};

#[test]
fn a_draft_policy_shows_its_verdict_and_blocks_nothing() {
    scene("draft", |sandbox| {
        let web = sandbox.actor("web");
        let allow = policy("web", "", &[("egress", "ports = [\"80-82/tcp\"]")]);
        let trial = "[[policy]]\nname = \"trial\"\napplies-to = { app = \"web\" }\nmode = \"draft\"\n\n\
            [[policy.deny-egress]]\nports = [\"81/tcp\"]\n\n\
            [[policy.egress]]\nports = [\"83/tcp\"]\n";
        let agent = Agent::start(sandbox, &(workloads(&["web"]) + &allow + trial));
        let same = assert_allowed(&web, "127.0.0.1:80", &[]);
        let would_not = assert_allowed(&web, "127.0.0.1:81", &[]);
        let would = assert_refused(&web, "127.0.0.1:83", &[]);
        agent.assert_log(&[
            unanswered(
                "web -> host 127.0.0.1:80",
                "allow rule-allow web/egress[0]",
                &web.by(same.pid),
            ),
            unanswered(
                "web -> host 127.0.0.1:81",
                "allow rule-allow web/egress[0] draft deny rule-deny trial/deny-egress[0]",
                &web.by(would_not.pid),
            ),
            format!(
                "deny egress tcp web -> host 127.0.0.1:83 deny default-deny draft allow rule-allow trial/egress[0] {}",
                web.by(would.pid)
            ),
        ]);
        agent.assert_counters();

        // Enforced as it stands, it does what the records said.
        agent.set_policy(&(workloads(&["web"]) + &allow + &trial.replace("draft", "enforce")));
        let _ = assert_allowed(&web, "127.0.0.1:80", &[]);
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        let _ = assert_allowed(&web, "127.0.0.1:83", &[]);
    });
}

#[test]
fn an_agent_in_draft_mode_audits() {
    scene("audit", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let options = Options {
            agent: "mode = \"draft\"".to_owned(),
            ..Options::default()
        };
        let agent = Agent::start_with(sandbox, &options, &three_tiers());
        let server = db.serve(&["tcp", "127.0.0.1:5432"]);
        let passed = web.tcp("127.0.0.1:5432", &[]).expect_ok("web calls db");
        let decision = "audit default-deny draft deny default-deny";
        let mut expected = Vec::new();
        for (direction, by) in [
            ("egress", web.by(passed.pid)),
            ("ingress", db.by(server.pid())),
        ] {
            let flow = format!("{direction} tcp web -> db 127.0.0.1:5432 {decision}");
            expected.push(format!("open {flow} {by}"));
            expected.push(format!("close {flow} 1/1B {by}"));
        }
        agent.assert_log(&expected);
        agent.assert_counters();
        assert_eq!(agent.status().mode, "draft");
    });
}
