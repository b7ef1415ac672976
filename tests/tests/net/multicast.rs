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

/// A socket that is connected, or corked before, sends without a call that could note who sends.
#[test]
fn a_datagram_that_nobody_noted_is_not_taken_for_the_last_one_from_its_port() {
    scene("multicast-unnoted", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        sandbox
            .namespace()
            .run("ip route add 239.0.0.0/8 dev test0");
        let [app, rogue, dns] = ["app", "rogue", "dns"].map(|name| sandbox.actor(name));
        let fixed = ["udp", "0.0.0.0:5300", "--silent"];
        let join = ["--join", "239.1.1.1", "10.99.0.1"];
        let serve = || dns.serve(&[&fixed[..], &join].concat());
        let step = |puppet: &mut Running, step: &str| {
            let _ = puppet.ask(step).expect_ok(step);
        };
        // MSG_MORE and UDP_CORK (`udp(7)`); a wait beyond the time in which two senders are told apart.
        let connected = |app: &mut Running, rogue: &mut Running| {
            step(app, "open 2 2 0 10");
            step(app, "bind 10 10.99.0.1:6700");
            step(app, "message 10 239.1.1.1:5300 0");
            step(app, "close 10");
            step(rogue, "open 2 2 0 10");
            step(rogue, "bind 10 10.99.0.1:6700");
            step(rogue, "connect 10 239.1.1.1:5300");
            step(rogue, "run sleep 0.02");
            step(rogue, "send 10");
        };
        let corked = |app: &mut Running, rogue: &mut Running| {
            step(app, "open 2 2 0 11");
            step(app, "bind 11 10.99.0.1:6701");
            step(rogue, "open 2 2 0 11");
            step(rogue, "bind 11 10.99.0.1:6701");
            step(rogue, "message 11 239.1.1.1:5300 32768");
            step(rogue, "run sleep 0.02");
            step(app, "message 11 239.1.1.1:5300 0");
            step(rogue, "option 11 17 1 00000000");
        };
        let mut parts = [app.puppet(), rogue.puppet()];
        let mut before = serve();
        let [one, other] = &mut parts;
        connected(one, other);
        corked(one, other);
        for _ in 0..4 {
            let copy = before.line().expect_ok("without the agent");
            assert_eq!(copy.received, 1, "{copy:?}");
        }
        drop((before, parts));

        let agent = Agent::start(sandbox, &text());
        let mut server = serve();
        let mut parts = [app.puppet(), rogue.puppet()];
        let [one, other] = &mut parts;
        connected(one, other);
        let copy = server.line().expect_ok("dns may hear app");
        assert_eq!(copy.received, 1, "{copy:?}");
        corked(one, other);
        // Which of two sockets on one port sent can't be told, so app is not heard there either.
        let denied = agent.settled(2, |flow| line(flow).starts_with("deny"));
        let by = dns.by(server.pid());
        let expected =
            format!("deny ingress udp unknown -> dns 239.1.1.1:5300 deny default-deny {by}");
        assert!(
            denied.iter().any(|flow| line(flow) == expected),
            "{denied:#?}"
        );
        agent.assert_counters();
        assert_eq!(server.unread(), [], "heard");
    });
}
