//! ICMP over ping sockets.

use ringfence_tests::{
    Actor, Agent, Sandbox,
    policy::{policy, workloads},
    scene,
};

#[test]
fn echo_passes_one_way_where_a_rule_names_its_type() {
    scene("icmp", |sandbox| one_way(sandbox, &[]));
}

#[test]
fn echo_over_a_connected_socket_is_judged_the_same() {
    scene("icmp-connected", |sandbox| one_way(sandbox, &["--connect"]));
}

fn one_way(sandbox: &Sandbox, options: &[&str]) {
    let namespace = sandbox.namespace();
    namespace.sysctl("net/ipv4/ping_group_range", "0 2147483647");
    let [may, other, none] = ["may", "other", "none"].map(|name| sandbox.actor(name));
    let ping = |actor: &Actor, address: &str| actor.run(&[&["ping", address], options].concat());
    for actor in [&may, &other, &none] {
        for address in ["127.0.0.1", "::1"] {
            let _ = ping(actor, address).expect_ok("without the agent");
        }
    }
    let text = workloads(&["may", "other", "none"])
        + &policy("may", "", &[("egress", "ports = [\"icmp/8\", \"icmpv6/128\"]")])
        // Replies alone: who may answer may not ask.
        + &policy("other", "", &[("egress", "ports = [\"icmp/0\", \"icmpv6/129\"]")])
        + &policy("none", "default-deny = [\"egress\"]", &[]);
    let agent = Agent::start(sandbox, &text);
    for address in ["127.0.0.1", "::1"] {
        let _ = ping(&may, address).expect_ok("an allowed echo");
        for actor in [&other, &none] {
            let outcome = ping(actor, address);
            // The kernel keeps the error of an IPv6 ping to itself (`icmpv6_push_pending_frames`):
            // nothing is sent, and nothing comes back.
            let error = if address == "::1" { "timeout" } else { "EPERM" };
            assert_eq!(outcome.error.as_deref(), Some(error), "{outcome:?}");
        }
    }
    let log = agent.log();
    let lines: Vec<_> = log.iter().map(ringfence_tests::flows::line).collect();
    for (start, times) in [
        (
            "open egress icmp may -> host 127.0.0.1:8 allow rule-allow may/egress[0]",
            1,
        ),
        (
            "open egress icmpv6 may -> host [::1]:128 allow rule-allow may/egress[0]",
            1,
        ),
        (
            "deny egress icmp other -> host 127.0.0.1:8 deny default-deny",
            1,
        ),
        (
            "deny egress icmpv6 other -> host [::1]:128 deny default-deny",
            1,
        ),
        (
            "deny egress icmp none -> host 127.0.0.1:8 deny default-deny",
            1,
        ),
        (
            "deny egress icmpv6 none -> host [::1]:128 deny default-deny",
            1,
        ),
    ] {
        let found = lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(found, times, "{start}\n{lines:#?}");
    }
    agent.assert_counters();
}
