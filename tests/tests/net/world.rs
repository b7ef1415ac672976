//! Peers that are on no address of this host.

use std::collections::BTreeMap;

use ringfence_tests::{
    Agent,
    namespace::Namespace,
    policy::{policy, workloads},
    scene,
};

use crate::common::{assert_allowed, assert_refused, unanswered};

#[test]
fn the_world_is_what_is_not_on_this_host() {
    scene("world", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let web = sandbox.actor("web");
        let addresses = [
            "10.99.0.2",
            "[fd99::2]",
            "10.99.0.1",
            "[fd99::1]",
            "127.0.0.1",
        ];
        for address in addresses {
            let _ = assert_allowed(&web, &format!("{address}:81"), &[]);
        }
        let rule = "to = [{ entity = \"world\" }]\nports = [\"81/tcp\"]";
        let text = workloads(&["web"]) + &policy("web", "", &[("egress", rule)]);
        let agent = Agent::start(sandbox, &text);
        let mut expected = Vec::new();
        for address in ["10.99.0.2", "[fd99::2]"] {
            let passed = assert_allowed(&web, &format!("{address}:81"), &[]);
            expected.push(unanswered(
                &format!("web -> world {address}:81"),
                "allow rule-allow web/egress[0]",
                &web.by(passed.pid),
            ));
            let refused = assert_refused(&web, &format!("{address}:82"), &[]);
            expected.push(format!(
                "deny egress tcp web -> world {address}:82 deny default-deny {}",
                web.by(refused.pid)
            ));
        }
        for address in ["10.99.0.1", "[fd99::1]", "127.0.0.1"] {
            let refused = assert_refused(&web, &format!("{address}:81"), &[]);
            expected.push(format!(
                "deny egress tcp web -> host {address}:81 deny default-deny {}",
                web.by(refused.pid)
            ));
        }
        agent.assert_log(&expected);
        agent.assert_counters();
    });
}

#[test]
fn inbound_from_the_world_is_dropped_and_recorded_once() {
    scene("inbound", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let api = sandbox.actor("api");
        let caller = sandbox.stranger("caller").in_namespace(&far);
        let serve = || ["80", "81"].map(|port| api.serve(&["tcp", &format!("10.99.0.1:{port}")]));
        let before = serve();
        for port in ["80", "81"] {
            let _ = caller
                .tcp(&format!("10.99.0.1:{port}"), &[])
                .expect_ok("without the agent");
        }
        drop(before);
        let rule = "from = [{ entity = \"world\" }]\nports = [\"80/tcp\"]";
        let text = workloads(&["api"]) + &policy("api", "", &[("ingress", rule)]);
        let agent = Agent::start(sandbox, &text);
        let [good, bad] = serve();
        let _ = caller
            .tcp("10.99.0.1:80", &["--send", "5"])
            .expect_ok("an allowed caller");
        // Long enough for retransmissions.
        let refused = caller.tcp("10.99.0.1:81", &["--timeout-ms", "3500"]);
        assert!(refused.failed("connect", "timeout"), "{refused:?}");
        let flow = "ingress tcp world -> api 10.99.0.1";
        let (by_good, by_bad) = (api.by(good.pid()), api.by(bad.pid()));
        agent.assert_log(&[
            format!("open {flow}:80 allow rule-allow api/ingress[0] {by_good}"),
            format!("close {flow}:80 allow rule-allow api/ingress[0] 5/1B {by_good}"),
            format!("deny {flow}:81 deny default-deny {by_bad}"),
        ]);
        agent.assert_counters();
        let paths: BTreeMap<_, _> = agent
            .log()
            .into_iter()
            .filter_map(|flow| Some((flow.process?.executable, flow.sequence)))
            .collect();
        let expected = api.program().display().to_string();
        assert!(paths.keys().eq([&expected]), "{paths:?}");
    });
}
