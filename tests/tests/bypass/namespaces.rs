//! Network namespaces that came up after the agent, and packets that this host passes on.

use ringfence_tests::{Agent, flows::line, namespace::Namespace, scene};

use crate::{
    attempt::attempt,
    ground::{Ground, closed_rogue, holder, rules},
};

#[test]
fn a_namespace_made_by_the_attacker_hides_nothing() {
    scene("new-namespace", |sandbox| {
        let new = "unshare; run ip link set lo up; run ip address add 10.5.5.5/32 dev lo; \
             b netns /proc/{pid}/ns/net";
        // Until the agent has seen the address it is taken for somebody else's, and the handshake is cut.
        let attempts = [
            attempt(
                "TCP",
                &format!(
                    "{new}; b open 2 1 0 11; b bind 11 10.5.5.5:7000; b listen 11; open 2 1 0 10; \
                     connect 10 10.5.5.5:7000; b accept 11 12; send 10; b receive 12"
                ),
                "connect EPERM|connect ECONNABORTED",
                "deny egress tcp rogue -> vault 10.5.5.5:7000 deny rule-deny rogue/deny-egress[0] ",
            ),
            attempt(
                "UDP",
                &format!(
                    "{new}; b open 2 2 0 11; b bind 11 10.5.5.5:7001; open 2 2 0 10; \
                     message 10 10.5.5.5:7001 0; b receive 11"
                ),
                "message EPERM",
                "deny egress udp rogue -> vault 10.5.5.5:7001 deny rule-deny rogue/deny-egress[0] ",
            ),
        ];
        let rogue = [
            ("egress", ""),
            ("deny-egress", "to = [{ workload = \"vault\" }]"),
        ];
        Ground::new(sandbox).play(&rules(&rogue), &attempts);
    });
}

/// A packet is judged where a guarded process sends it and where one gets it, and nowhere between.
#[test]
fn a_packet_that_is_passed_on_is_judged_at_its_ends() {
    scene("forwarded", |sandbox| {
        let ground = Ground::new(sandbox);
        let (near, inner) = (ground.near(), Namespace::new());
        near.sysctl("net/ipv4/ip_forward", "1");
        near.run(&format!(
            "ip link add inner0 type veth peer name inner0 netns {}",
            holder(&inner)
        ));
        for (namespace, last) in [(near, 1), (&inner, 2)] {
            namespace.run(&format!("ip address add 10.98.0.{last}/24 dev inner0"));
            namespace.run("ip link set inner0 up");
        }
        inner.run("ip route add default via 10.98.0.1");
        ground.far().run("ip route add 10.98.0.0/24 via 10.99.0.1");
        let vault = ground.actor("vault").in_namespace(&inner);
        ground.serve(&vault, &["tcp", "10.98.0.2:7000", "--echo"]);
        let nobody = sandbox.stranger("nobody").in_namespace(&inner);
        ground.serve(&nobody, &["tcp", "10.98.0.2:7005", "--echo"]);
        let rogue = ground.actor("rogue").in_namespace(&inner);
        let far = ground.actor("far");
        let begins = || rogue.tcp("10.99.0.2:7000", &["--timeout-ms", "1500"]);
        let ends = || far.tcp("10.98.0.2:7000", &["--timeout-ms", "1500"]);
        let between = || far.tcp("10.98.0.2:7005", &[]);
        for outcome in [begins(), ends(), between()] {
            let _ = outcome.expect_ok("without the agent");
        }
        let agent = Agent::start(sandbox, &closed_rogue());
        let refused = begins().expect_refused("connect", "to a host behind this one");
        let dropped = ends();
        assert!(dropped.failed("connect", "timeout"), "{dropped:?}");
        let _ = between().expect_ok("neither end is guarded");
        let log = agent.log();
        let mut denied: Vec<_> = log.iter().map(line).collect();
        denied.retain(|line| line.starts_with("deny "));
        let expected = format!(
            "deny egress tcp rogue -> world 10.99.0.2:7000 deny default-deny {}",
            rogue.by(refused.pid)
        );
        assert_eq!(denied.len(), 2, "{log:#?}");
        assert!(denied.contains(&expected), "{denied:#?}");
        let expected = "deny ingress tcp world -> vault 10.98.0.2:7000 deny default-deny by ";
        assert!(
            denied.iter().any(|it| it.starts_with(expected)),
            "{denied:#?}"
        );
        agent.assert_counters();
    });
}
