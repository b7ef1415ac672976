//! Connections that are half open while the policy changes: the SYN is answered, the ACK has not been taken.

use std::fs;

use ringfence_tests::{
    Actor, Agent, Sandbox,
    namespace::Namespace,
    policy::{policy, workloads},
    poll::until,
    scene,
};

/// `TCP_SYN_RECV` in `/proc/net/tcp`, port 7000.
const HALF_OPEN: &str = ":1B58 ";
const STATE: &str = " 03 ";

fn text(ingress: &str) -> String {
    workloads(&["api", "web"]) + &policy("api", "", &[("ingress", ingress)])
}

fn is_half_open(sandbox: &Sandbox) -> bool {
    // From `/proc/PID/ns/net`.
    let holder = sandbox.namespace().path();
    let holder = holder.ancestors().nth(2).unwrap();
    let table = fs::read_to_string(holder.join("net/tcp")).unwrap();
    table
        .lines()
        .any(|line| line.contains(HALF_OPEN) && line.contains(STATE))
}

/// Whether the connection comes to be, and a byte arrives, when the policy changes to `ingress` in between; says also
/// what the caller reads then.
fn call(sandbox: &Sandbox, agent: &Agent, caller: &Actor, ingress: &str) -> (bool, String) {
    let mut server = sandbox.actor("api").puppet();
    for step in [
        "open 2 1 0 10",
        "bind 10 10.99.0.1:7000",
        "unanswered 10",
        "listen 10",
    ] {
        let _ = server.ask(step).expect_ok(step);
    }
    let mut calling = caller.puppet();
    for step in ["open 2 1 0 10", "begin 10 10.99.0.1:7000", "finish 10"] {
        let _ = calling.ask(step).expect_ok(step);
    }
    until("the SYN is answered", || is_half_open(sandbox));
    agent.set_policy(&text(ingress));
    let _ = server
        .ask("hear 10")
        .expect_ok("the ACK is taken from now on");
    let sent = calling.ask("send 10").error;
    let accepted = server.ask("accept 10 11").ok();
    let arrived = accepted && server.ask("receive 11").ok();
    assert_eq!(accepted, arrived, "a connection over which nothing comes");
    let read = calling.ask("receive 10").error;
    let read = sent.or(read).unwrap_or_default();
    (arrived, read)
}

#[test]
fn a_connection_that_is_half_open_when_it_is_revoked_never_comes_to_be() {
    scene("half-open", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let outside = sandbox.stranger("outside").in_namespace(&far);
        let web = sandbox.actor("web");
        let open = "ports = [\"7000/tcp\"]";
        let agent = Agent::start(sandbox, &text(open));
        for caller in [&outside, &web] {
            let (arrived, read) = call(sandbox, &agent, caller, "ports = [\"7000-7001/tcp\"]");
            assert!(arrived, "allowed before and after");
            assert_eq!(read, "timeout", "nobody answers it");
            agent.set_policy(&text(open));
            let (arrived, read) = call(sandbox, &agent, caller, "ports = [\"7001/tcp\"]");
            assert!(!arrived, "revoked before the ACK was taken: {caller:?}");
            // On this host the caller's end is cut at once.
            let expected = if caller.program() == web.program() {
                "ECONNABORTED"
            } else {
                "timeout"
            };
            assert_eq!(read, expected);
            agent.set_policy(&text(open));
        }
        agent.assert_counters();
    });
}
