//! Kinds of sockets that no hook can judge flow by flow.

use ringfence_tests::{
    Agent,
    policy::{policy, workloads},
    scene,
};

#[test]
fn raw_and_exotic_sockets_are_refused_to_restricted_workloads_only() {
    scene("kinds", |sandbox| {
        let (tight, free) = (sandbox.actor("tight"), sandbox.actor("free"));
        let kinds = [
            ("raw4", "icmp", "raw-socket-deny"),
            ("raw6", "icmpv6", "raw-socket-deny"),
            ("mptcp", "tcp", "protocol-deny"),
            ("udp-lite", "ip/136", "protocol-deny"),
            ("sctp", "ip/132", "protocol-deny"),
        ];
        // A kernel without the protocol has nothing to refuse.
        let known: Vec<_> = kinds
            .into_iter()
            .filter(|(kind, ..)| tight.run(&["socket", kind]).ok())
            .collect();
        assert!(known.len() >= 3, "{known:?}");
        let text =
            workloads(&["tight", "free"]) + &policy("tight", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let mut expected = Vec::new();
        for (kind, protocol, reason) in known {
            let _ = free.run(&["socket", kind]).expect_ok("a free workload");
            let refused = tight.run(&["socket", kind]).expect_refused("socket", kind);
            expected.push(format!(
                "deny egress {protocol} tight -> unknown - deny {reason} {}",
                tight.by(refused.pid)
            ));
        }
        let _ = tight.run(&["socket", "tcp"]).expect_ok("TCP");
        agent.assert_log(&expected);
        agent.assert_counters();
    });
}
