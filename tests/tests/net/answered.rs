//! What a change of policy does to the other end of a flow, and to an answer that is under way.

use ringfence_tests::{
    Agent,
    flows::line,
    namespace::Namespace,
    policy::{policy, workloads},
    scene,
};

fn one_way(peer: &str, port: &str) -> String {
    let rule = format!("from = [{peer}]\nports = [\"{port}\"]");
    workloads(&["web", "dns"])
        + &policy("dns", "default-deny = [\"egress\"]", &[("ingress", &rule)])
}

#[test]
fn the_end_on_another_host_is_reset_when_a_connection_is_revoked() {
    scene("revoked-far", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let dns = sandbox.actor("dns");
        let caller = sandbox.stranger("caller").in_namespace(&far);
        let world = "{ entity = \"world\" }";
        let agent = Agent::start(sandbox, &one_way(world, "53/tcp"));
        let _server = dns.serve(&["tcp", "10.99.0.1:53", "--echo"]);
        let stream = caller.hold("10.99.0.1:53");
        agent.set_policy(&one_way(world, "54/tcp"));
        let cut = stream.last();
        assert!(cut.failed("send", "ECONNRESET"), "{cut:?}");
        agent.assert_counters();
    });
}

#[test]
fn an_answer_that_is_under_way_outlives_a_change_of_policy_that_allows_its_flow() {
    scene("answered", |sandbox| {
        let (web, dns) = (sandbox.actor("web"), sandbox.actor("dns"));
        let from_web = one_way("{ workload = \"web\" }", "5300/udp");
        let agent = Agent::start(sandbox, &from_web);
        let delay = ["udp", "127.0.0.1:5300", "--delay-ms", "2500"];
        let _server = dns.serve(&delay);
        let call = web.start(&["call", "udp", "127.0.0.1:5300"]);
        ringfence_tests::poll::until("the question has come in", || {
            let log = agent.client().flows(Vec::new()).unwrap();
            log.iter()
                .any(|flow| line(flow).starts_with("open ingress"))
        });
        agent.set_policy(&(from_web + &policy("web", "default-deny = [\"listen\"]", &[])));
        let _ = call.last().expect_ok("the answer");
        let denied = |line: &String| line.starts_with("deny");
        assert!(!agent.log().iter().map(line).any(|it| denied(&it)));
        agent.assert_counters();
    });
}
