//! What goes to a group: every receiver on this host judges its own copy, by who sent it.

use ringfence_tests::{
    Agent, Running, Sandbox,
    flows::line,
    namespace::Namespace,
    policy::{policy, workloads},
    scene,
};

/// rogue is refused by the sender's policy, mute refuses the sender itself.
const RECEIVERS: [&str; 3] = ["dns", "rogue", "mute"];

fn text() -> String {
    workloads(&["app", "dns", "rogue", "mute", "free"])
        + &policy(
            "app",
            "",
            &[
                ("egress", ""),
                ("deny-egress", "to = [{ workload = \"rogue\" }]"),
            ],
        )
        + &policy("dns", "", &[("ingress", "from = [{ workload = \"app\" }]")])
        + &policy(
            "mute",
            "",
            &[
                ("ingress", ""),
                ("deny-ingress", "from = [{ workload = \"app\" }]"),
            ],
        )
}

/// One server of each receiver, all on one port.
fn serve(sandbox: &Sandbox, join: &[&str]) -> [Running; 3] {
    RECEIVERS.map(|name| {
        let fixed = ["udp", "0.0.0.0:5300", "--silent", "--share"];
        sandbox.actor(name).serve(&[&fixed[..], join].concat())
    })
}

fn copies_are_judged(sandbox: &Sandbox, group: &str, by: &str, join: &[&str]) {
    let app = sandbox.actor("app");
    let call = || {
        let options = ["--unconnected", "--by", by, "--timeout-ms", "200"];
        let outcome = app.udp(&format!("{group}:5300"), &options);
        assert!(outcome.failed("receive", "timeout"), "{outcome:?}");
    };
    let mut before = serve(sandbox, join);
    call();
    for receiver in &mut before {
        let copy = receiver.line().expect_ok("without the agent");
        assert_eq!(copy.received, 1, "{copy:?}");
    }
    drop(before);

    let agent = Agent::start(sandbox, &text());
    let [mut dns, rogue, mute] = serve(sandbox, join);
    call();
    let copy = dns.line().expect_ok("dns may hear app");
    assert_eq!(copy.received, 1, "{copy:?}");
    let by = |name: &str, server: &Running| sandbox.actor(name).by(server.pid());
    let denied = [
        format!(
            "deny ingress udp app -> rogue {group}:5300 deny rule-deny app/deny-egress[0] peer {}",
            by("rogue", &rogue)
        ),
        format!(
            "deny ingress udp app -> mute {group}:5300 deny rule-deny mute/deny-ingress[0] {}",
            by("mute", &mute)
        ),
    ];
    agent.assert_log_of(&denied, |flow| line(flow).starts_with("deny"));
    agent.assert_counters();
    for server in [rogue, mute] {
        assert_eq!(server.unread(), [], "heard");
    }
}

#[test]
fn a_multicast_that_comes_back_by_a_device_is_judged_by_its_sender() {
    scene("multicast-device", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        sandbox
            .namespace()
            .run("ip route add 239.0.0.0/8 dev test0");
        copies_are_judged(
            sandbox,
            "239.1.1.1",
            "10.99.0.1",
            &["--join", "239.1.1.1", "10.99.0.1"],
        );
    });
}

#[test]
fn a_broadcast_that_comes_back_by_a_device_is_judged_by_its_sender() {
    scene("broadcast-device", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        copies_are_judged(sandbox, "10.99.0.255", "10.99.0.1", &[]);
    });
}

#[test]
fn every_receiver_of_a_multicast_over_loopback_is_judged() {
    scene("multicast-loopback", |sandbox| {
        copies_are_judged(
            sandbox,
            "239.1.1.1",
            "127.0.0.1",
            &["--join", "239.1.1.1", "127.0.0.1"],
        );
    });
}
