//! Answers to refused packets under attack: how many there are, and to what there is none.

use ringfence_tests::{Agent, Outcome, Sandbox, namespace::Namespace, scene};

use crate::refusal::{answers, api_80, assert_answers, refusal};

const RATE: u64 = 40;

/// A far host to which 10.98.0.0/16 leads, and an agent that resets.
fn start(sandbox: &Sandbox) -> (Namespace, Agent) {
    let far = Namespace::new();
    sandbox.namespace().connect(&far);
    sandbox
        .namespace()
        .run("ip route add 10.98.0.0/16 via 10.99.0.2");
    far.run("ip route add local 10.98.0.0/16 dev lo");
    let keys = format!("remote = \"reset\"\nrate = {RATE}");
    let agent = Agent::start_with(sandbox, &refusal(&keys), &api_80());
    (far, agent)
}

/// What a bucket of this size and rate gives in the time that something took.
fn most(rate: u64, outcome: &Outcome) -> u64 {
    rate + rate * outcome.took_ms.div_ceil(1000)
}

#[test]
fn a_flood_gets_as_many_answers_as_are_configured_and_harms_nobody() {
    scene("refusal-flood", |sandbox| {
        let (far, agent) = start(sandbox);
        let api = sandbox.actor("api");
        let _servers =
            ["80", "81"].map(|port| api.serve(&["tcp", &format!("[::]:{port}"), "--echo"]));
        let caller = sandbox.stranger("caller").in_namespace(&far);
        let stream = caller.hold("10.99.0.1:80");
        let flood = |sources: &str| {
            [
                "flood",
                "10.98.0.1",
                "10.99.0.1:81",
                "20000",
                "--sources",
                sources,
            ]
            .map(str::to_owned)
        };
        for (sources, rate) in [("1000", RATE), ("1", RATE / 4)] {
            let before = answers(&agent, "sent");
            let arguments = flood(sources);
            let running = caller.start(&arguments.each_ref().map(String::as_str));
            for _ in 0..5 {
                let _ = caller.tcp("10.99.0.1:80", &[]).expect_ok("an allowed call");
            }
            let outcome = running.last().expect_ok("a flood");
            assert_eq!(outcome.sent, 20_000);
            let most = most(rate, &outcome);
            assert!((1..=most).contains(&outcome.received), "{most} {outcome:?}");
            let sent = answers(&agent, "sent") - before;
            assert!(sent <= most, "{sent} of {most}");
        }
        // Devices drop what comes faster than they can take it, too.
        assert!(answers(&agent, "suppressed") > 1_000);
        drop(stream);
        agent.assert_counters();
    });
}

#[test]
fn only_what_opens_a_connection_is_answered() {
    scene("refusal-flags", |sandbox| {
        let (far, agent) = start(sandbox);
        let api = sandbox.actor("api");
        let _server = api.serve(&["tcp", "10.99.0.1:81"]);
        let caller = sandbox.stranger("caller").in_namespace(&far);
        let flood = |flags: &str| {
            let outcome =
                caller.run(&["flood", "10.98.0.1", "10.99.0.1:81", "20", "--flags", flags]);
            outcome.expect_ok("a flood").received
        };
        // RST, SYN with ACK, SYN with RST, SYN with FIN, FIN, ACK, none.
        for flags in ["4", "18", "6", "3", "1", "16", "0"] {
            assert_eq!(flood(flags), 0, "{flags}");
        }
        assert_answers(&agent, [0; 3]);
        assert!(flood("2") > 0);
    });
}

/// The far host's connection is its own: a SYN of somebody else with its addresses and ports changes nothing, whatever
/// the policy says now about new ones.
#[test]
fn a_forged_syn_resets_no_connection() {
    scene("refusal-forged", |sandbox| {
        let (far, agent) = start(sandbox);
        let [mut server, mut caller] = [
            sandbox.actor("api").puppet(),
            sandbox.stranger("caller").in_namespace(&far).puppet(),
        ];
        for step in [
            "open 2 1 0 11",
            "bind 11 10.99.0.1:80",
            "listen 11",
            "open 2 1 0 13",
            "bind 13 10.99.0.1:81",
            "listen 13",
        ] {
            let _ = server.ask(step).expect_ok(step);
        }
        for step in [
            "open 2 1 0 10",
            "bind 10 10.99.0.2:6200",
            "connect 10 10.99.0.1:80",
            "open 2 3 255 12",
        ] {
            let _ = caller.ask(step).expect_ok(step);
        }
        let _ = server.ask("accept 11 12").expect_ok("accept");
        for _ in 0..3 {
            // The connection, and another port of the same two that is refused.
            for target in ["80", "81"] {
                let step = format!("syn 12 10.99.0.2:6200 10.99.0.1:{target}");
                let _ = caller.ask(&step).expect_ok(&step);
            }
            let _ = caller.ask("send 10").expect_ok("send");
            let _ = server.ask("receive 12").expect_ok("the connection goes on");
            let _ = server.ask("send 12").expect_ok("send");
            let _ = caller.ask("receive 10").expect_ok("the connection goes on");
        }
        // Those to the other port.
        assert_answers(&agent, [3, 0, 0]);
        agent.assert_counters();
    });
}
