//! Sockets that no hook sees but BPF LSM's: where the kernel has that, who is restricted reads no packets of others;
//! elsewhere that is a gap with a name.

use std::fs;

use ringfence_tests::{
    Actor, Agent,
    flows::line,
    policy::{policy, workloads},
    scene,
};

/// tight is restricted, free is not.
fn text() -> String {
    workloads(&["tight", "free"]) + &policy("tight", "default-deny = [\"egress\"]", &[])
}

fn has_lsm() -> bool {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    modules.trim().split(',').any(|module| module == "bpf")
}

#[track_caller]
fn assert_hears(actor: &Actor) {
    let mut sniffer = actor.start(&["sniff", "lo"]);
    let _ready = sniffer.line().expect_ok("a packet socket");
}

#[test]
fn packets_of_others_are_read_by_nobody_restricted_or_that_is_a_named_gap() {
    scene("unseen", |sandbox| {
        let [tight, free] = ["tight", "free"].map(|name| sandbox.actor(name));
        let stranger = sandbox.stranger("stranger");
        assert_hears(&tight);
        let mut agent = Agent::start(sandbox, &text());
        let status = agent.status();
        let named = status.features.iter().find(|it| it.name == "packet-reads");
        assert_eq!(named.unwrap().present, has_lsm(), "{status:?}");
        let attached = status.hooks.iter().any(|it| it.name == "socket_create");
        assert_eq!(attached, has_lsm(), "{status:?}");
        for actor in [&free, &stranger] {
            assert_hears(actor);
        }
        if !has_lsm() {
            assert_hears(&tight);
            return;
        }
        let refused = || {
            tight
                .run(&["sniff", "lo"])
                .expect_refused("socket", "packets")
        };
        let outcome = refused();
        let expected = format!(
            "deny egress ip/0 tight -> unknown - deny frame-deny {}",
            tight.by(outcome.pid)
        );
        let lines: Vec<_> = agent.log().iter().map(line).collect();
        assert_eq!(
            lines.iter().filter(|it| **it == expected).count(),
            1,
            "{lines:#?}"
        );
        agent.assert_counters();
        agent.kill();
        let _ = refused();
        agent.restart();
        let _ = refused();
        agent.set_policy(&workloads(&["tight", "free"]));
        assert_hears(&tight);
    });
}
