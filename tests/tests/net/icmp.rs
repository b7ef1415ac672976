//! ICMP over ping sockets.

use ringfence_tests::{
    Agent,
    policy::{policy, workloads},
    scene,
};

#[test]
fn echo_passes_one_way_where_a_rule_names_its_type() {
    scene("icmp", |sandbox| {
        sandbox
            .namespace()
            .sysctl("net/ipv4/ping_group_range", "0 2147483647");
        let (may, other, none) = (
            sandbox.actor("may"),
            sandbox.actor("other"),
            sandbox.actor("none"),
        );
        for actor in [&may, &other, &none] {
            for address in ["127.0.0.1", "::1"] {
                let _ = actor.run(&["ping", address]).expect_ok("without the agent");
            }
        }
        let text = workloads(&["may", "other", "none"])
            + &policy("may", "", &[("egress", "ports = [\"icmp/8\", \"icmpv6/128\"]")])
            // Replies alone: who may answer may not ask.
            + &policy("other", "", &[("egress", "ports = [\"icmp/0\", \"icmpv6/129\"]")])
            + &policy("none", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        for address in ["127.0.0.1", "::1"] {
            let _ = may.run(&["ping", address]).expect_ok("an allowed echo");
            for actor in [&other, &none] {
                let outcome = actor.run(&["ping", address]);
                assert_eq!(outcome.error.as_deref(), Some("EPERM"), "{outcome:?}");
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
            ("deny egress icmp other ->", 1),
            ("deny egress icmpv6 other ->", 1),
            ("deny egress icmp none ->", 1),
            ("deny egress icmpv6 none ->", 1),
        ] {
            let found = lines.iter().filter(|line| line.starts_with(start)).count();
            assert_eq!(found, times, "{start}\n{lines:#?}");
        }
        agent.assert_counters();
    });
}
