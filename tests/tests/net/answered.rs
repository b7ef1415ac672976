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

#[test]
fn a_late_answer_to_a_flow_that_was_revoked_is_no_flow_of_the_other_end() {
    scene("late-answer", |sandbox| {
        let (mut web, mut dns) = (sandbox.actor("web").puppet(), sandbox.actor("dns").puppet());
        let calls_out = |port: &str| {
            let rule = format!("ports = [\"{port}\"]");
            workloads(&["web", "dns"]) + &policy("web", "", &[("egress", &rule)])
        };
        let agent = Agent::start(sandbox, &calls_out("5300/udp"));
        for (who, fd, address) in [(&mut web, 10, "5301"), (&mut dns, 11, "5300")] {
            let _ = who.ask(&format!("socket udp {fd}")).expect_ok("a socket");
            let bind = format!("bind {fd} 127.0.0.1:{address}");
            let _ = who.ask(&bind).expect_ok("its port");
        }
        let _ = dns.ask("socket udp 12").expect_ok("a socket");
        let (question, answer) = ("sendto 10 127.0.0.1:5300", "sendto 11 127.0.0.1:5301");
        let _ = web.ask(question).expect_ok("a question");
        let _ = dns.ask("receive 11").expect_ok("the question");
        agent.set_policy(&calls_out("5999/udp"));
        assert!(web.ask(question).failed("sendto", "EPERM"));
        let _ = dns.ask(answer).expect_ok("sent, not received");
        assert!(web.ask("receive 10").failed("receive", "timeout"));
        assert!(web.ask(question).failed("sendto", "EPERM"));

        // What the other end begins is let in, and may be answered.
        let _ = dns.ask("sendto 12 127.0.0.1:5301").expect_ok("a call");
        let _ = web.ask("receive 10").expect_ok("the call");
        ringfence_tests::poll::until("the flow of before is forgotten", || {
            let _ = dns.ask(answer).expect_ok("a call");
            web.ask("receive 10").ok()
        });
        let _ = web.ask(question).expect_ok("an answer");
        agent.assert_counters();
    });
}
