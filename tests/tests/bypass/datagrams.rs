//! UDP: sockets that change their peer, datagrams that name another one, and ports that are shared.

use ringfence_tests::{flows::line, scene};

use crate::{
    attempt::{Attempt, attempt},
    ground::{Ground, closed_rogue, open_rogue},
};

const VAULT: &str = "deny egress udp app -> vault 127.0.0.1:7001 deny default-deny by ";

/// `app` with a connected socket over which `dns` has answered.
fn app(what: &str, script: &str, ends: &str) -> Attempt {
    let script = format!("open 2 2 0 10; connect 10 127.0.0.1:5300; exchange 10; {script}");
    attempt(what, &script, ends, VAULT).by("app")
}

#[test]
fn a_socket_with_an_allowed_peer_gets_no_other_one() {
    scene("reconnected", |sandbox| {
        let attempts = [
            app(
                "connected anew",
                "connect 10 127.0.0.1:7001; exchange 10",
                "connect EPERM",
            ),
            app(
                "connected anew by way of AF_UNSPEC",
                "unspec 10; connect 10 127.0.0.1:7001; exchange 10",
                "connect EPERM",
            ),
            app(
                "no longer connected",
                "unspec 10; message 10 127.0.0.1:7001 0; receive 10",
                "message EPERM",
            ),
            attempt(
                "connected, with another destination named",
                "open 2 2 0 10; connect 10 127.0.0.1:5300; exchange 10; b open 2 2 0 11; \
                 b bind 11 127.0.0.1:7004; message 10 127.0.0.1:7004 0; b receive 11",
                "message EPERM",
                "deny egress udp app -> vault 127.0.0.1:7004 deny default-deny by ",
            )
            .by("app"),
            app(
                "many segments in one (UDP_SEGMENT)",
                "unspec 10; message 10 127.0.0.1:7001 0 17 103 0100; receive 10",
                "message EPERM",
            ),
            app(
                "a source address of its choice (IP_PKTINFO)",
                "unspec 10; message 10 127.0.0.1:7001 0 0 8 000000007f00004d00000000; receive 10",
                "message EPERM",
            ),
            // The first datagram is allowed, so the call succeeds.
            app(
                "two in one call (sendmmsg)",
                "unspec 10; messages 10 127.0.0.1:5300 127.0.0.1:7001; receive 10; receive 10",
                "receive timeout",
            ),
        ];
        Ground::new(sandbox).play(&closed_rogue(), &attempts);
    });
}

#[test]
fn a_source_address_that_is_borrowed_makes_nobody_its_owner() {
    scene("borrowed6", |sandbox| {
        // `c` is `free`, whom `vault` answers.
        let script = "c open 10 2 0 12; c bind 12 [fd99::1]:6600; open 10 2 0 10; bind 10 [::1]:6600; \
             message 10 [fd99::1]:7001 0 41 50 fd99000000000000000000000000000100000000; c receive 12";
        let attempts = [
            attempt(
                "the address of a socket of free (IPV6_PKTINFO)",
                script,
                "message EPERM",
                "deny egress udp rogue -> vault [fd99::1]:7001 deny default-deny peer by ",
            ),
            attempt(
                "the port that free has just left",
                "c open 2 2 0 12; c bind 12 127.0.0.1:6601; c message 12 127.0.0.1:7001 0; c receive 12; \
                 c close 12; run sleep 0.1; open 2 2 0 10; bind 10 127.0.0.1:6601; \
                 message 10 127.0.0.1:7001 0; receive 10",
                "receive timeout",
                "deny ingress udp rogue -> vault 127.0.0.1:7001 deny default-deny revoked by ",
            ),
        ];
        Ground::new(sandbox).play(&open_rogue(), &attempts);
    });
}

#[test]
fn a_port_is_judged_by_who_has_it() {
    scene("squatters", |sandbox| {
        let attempts = [
            attempt(
                "a port that a workload of a rule could have",
                "b open 2 2 0 11; b bind 11 127.0.0.1:5301; open 2 2 0 10; \
                 message 10 127.0.0.1:5301 0; b reply 11; receive 10",
                "message EPERM",
                "deny egress udp app -> rogue 127.0.0.1:5301 deny default-deny by ",
            ),
            // `bind` sets SO_REUSEADDR: the more exact address wins.
            attempt(
                "a more exact address (SO_REUSEADDR)",
                "c open 2 2 0 12; c bind 12 0.0.0.0:5302; b open 2 2 0 11; b bind 11 127.0.0.1:5302; \
                 open 2 2 0 10; message 10 127.0.0.1:5302 0; b reply 11; receive 10",
                "message EPERM",
                "deny egress udp app -> rogue 127.0.0.1:5302 deny default-deny by ",
            ),
            attempt(
                "the same address, later (SO_REUSEADDR)",
                "c open 2 2 0 12; c bind 12 127.0.0.1:5303; b open 2 2 0 11; b bind 11 127.0.0.1:5303; \
                 open 2 2 0 10; message 10 127.0.0.1:5303 0; b reply 11; receive 10",
                "message EPERM",
                "deny egress udp app -> rogue 127.0.0.1:5303 deny default-deny by ",
            ),
        ]
        .map(|attempt| attempt.by("app").with("rogue").and("dns"));
        Ground::new(sandbox).play(&open_rogue(), &attempts);
    });
}

/// The kernel looks the group's choice up with the datagram in hand, which no look-up before can do.
#[test]
fn who_shares_a_port_and_takes_everything_gets_nothing_that_was_not_for_him() {
    scene("preferred", |sandbox| {
        const TRIES: usize = 12;
        let ground = Ground::new(sandbox);
        let share = "option 11 1 15 01000000";
        let steal = || {
            let [mut dns, mut rogue] = ["dns", "rogue"].map(|name| ground.actor(name).puppet());
            for step in ["open 2 2 0 11", share, "bind 11 127.0.0.1:5310"] {
                let _ = dns.ask(step).expect_ok(step);
                let _ = rogue.ask(step).expect_ok(step);
            }
            // The second of the group, always.
            let _ = rogue.ask("prefer 11 1").expect_ok("a program of its own");
            let mut stolen = 0;
            for _ in 0..TRIES {
                let mut app = ground.actor("app").puppet();
                let _ = app.ask("open 2 2 0 10").expect_ok("a socket");
                let _refused_or_sent = app.ask("message 10 127.0.0.1:5310 0");
                stolen += usize::from(rogue.ask("receive 11").ok());
            }
            stolen
        };
        assert_eq!(steal(), TRIES, "without the agent");
        let agent = ringfence_tests::Agent::start(sandbox, &open_rogue());
        assert_eq!(steal(), 0);
        let log = agent.log();
        let denied = log.iter().map(line).filter(|line| {
            line.starts_with("deny ")
                && line.contains(" udp app -> rogue 127.0.0.1:5310 deny default-deny")
        });
        assert_eq!(denied.count(), TRIES, "{log:#?}");
        agent.assert_counters();
    });
}
