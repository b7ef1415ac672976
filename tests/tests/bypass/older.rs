//! Sockets that were there before the agent, of kinds that it would not have let be made too.

use ringfence_tests::{Agent, Running, flows::line, poll::until, scene};

use crate::{
    attempt::attempt,
    ground::{Ground, closed_rogue, rules},
};

const VAULT_UDP: &str = "deny egress udp rogue -> vault 127.0.0.1:7001 deny default-deny by ";
const VAULT_TCP: &str = "deny egress tcp rogue -> vault 127.0.0.1:7000 deny default-deny";

#[test]
fn sockets_of_any_kind_that_are_older_than_the_agent_are_judged() {
    scene("older", |sandbox| {
        // Raw sockets that bring their own IP header (IP_HDRINCL) have a UDP socket to hear the answer with.
        let forger = |port: u16| {
            format!(
                "open 2 2 17 11; bind 11 127.0.0.1:{port}; open 2 3 17 10; option 10 0 3 01000000; then"
            )
        };
        let mut attempts = vec![
            attempt(
                "a connected UDP socket",
                "open 2 2 0 10; connect 10 127.0.0.1:7001; then; exchange 10",
                "send EPERM",
                VAULT_UDP,
            ),
            attempt(
                "an unconnected UDP socket",
                "open 2 2 0 10; bind 10 127.0.0.1:6400; then; message 10 127.0.0.1:7001 0; receive 10",
                "message EPERM",
                VAULT_UDP,
            ),
            attempt(
                "a TCP socket that was bound only",
                "open 2 1 0 10; bind 10 127.0.0.1:0; then; connect 10 127.0.0.1:7000; exchange 10",
                "connect EPERM",
                VAULT_TCP,
            ),
            attempt(
                "a listener that calls",
                "open 2 1 0 10; bind 10 127.0.0.1:6401; listen 10; then; unspec 10; \
                 connect 10 127.0.0.1:7000; exchange 10",
                "connect EPERM",
                VAULT_TCP,
            ),
            attempt(
                "a raw socket with a datagram of its own",
                &format!(
                    "{}; forge 10 127.0.0.1:6402 127.0.0.1:7001; receive 11",
                    forger(6402)
                ),
                "forge EPERM",
                "deny egress udp rogue -> vault 127.0.0.1:7001 deny default-deny by ",
            ),
        ];
        // What the kernel lacks can't be opened by anybody: bypass/protocols.rs.
        if kernel_has("MPTCP") {
            attempts.push(attempt(
                "a Multipath TCP socket",
                "open 2 1 262 10; then; connect 10 127.0.0.1:7000; exchange 10",
                "connect EPERM",
                VAULT_TCP,
            ));
        }
        if kernel_has("UDP-Lite") {
            attempts.push(attempt(
                "a UDP-Lite socket",
                "b open 2 2 136 11; b bind 11 127.0.0.1:7006; open 2 2 136 10; \
                 connect 10 127.0.0.1:7006; then; send 10; b reply 11; receive 10",
                "send EPERM",
                "deny egress ip/136 rogue -> unknown 127.0.0.1:0 deny default-deny by ",
            ));
        }
        Ground::new(sandbox).play_across(None, &closed_rogue(), &attempts);
    });
}

#[test]
fn an_older_raw_socket_hears_nothing_that_others_are_sent() {
    scene("eavesdropper", |sandbox| {
        let attempts = [attempt(
            "a raw socket",
            "b open 2 2 0 11; b bind 11 127.0.0.1:7008; c open 2 2 0 12; open 2 3 17 10; then; \
             c message 12 127.0.0.1:7008 0; b receive 11; receive 10",
            "receive timeout",
            "deny ingress udp free -> rogue 127.0.0.1:7008 deny default-deny by ",
        )];
        Ground::new(sandbox).play_across(None, &closed_rogue(), &attempts);
    });
}

/// The kernel opens further subflows of a Multipath TCP connection by itself, from a thread of its own.
#[test]
fn a_subflow_to_another_address_is_judged_like_the_first() {
    scene("subflows", |sandbox| {
        if !kernel_has("MPTCP") {
            let made = sandbox.actor("rogue").puppet().ask("open 2 1 262 10");
            assert!(made.failed("open", "EPROTONOSUPPORT"), "{made:?}");
            return;
        }
        let ground = Ground::new(sandbox);
        ground.far().run("ip address add 10.97.0.2/32 dev test0");
        ground.near().run("ip route add 10.97.0.2/32 via 10.99.0.2");
        ground
            .far()
            .run("ip mptcp endpoint add 10.97.0.2 dev test0 signal");
        for namespace in [ground.near(), ground.far()] {
            namespace.run("ip mptcp limits set subflows 2 add_addr_accepted 2");
        }
        let [mut server, mut first, mut second] =
            ["far", "rogue", "rogue"].map(|name| ground.actor(name).puppet());
        for step in ["open 2 1 262 11", "bind 11 0.0.0.0:7020", "listen 11"] {
            let _ = server.ask(step).expect_ok(step);
        }
        for rogue in [&mut first, &mut second] {
            let _ = rogue.ask("open 2 1 262 10").expect_ok("Multipath TCP");
        }
        let call = |server: &mut Running, rogue: &mut Running| {
            let _ = rogue
                .ask("connect 10 10.99.0.2:7020")
                .expect_ok("an allowed call");
            for step in ["accept 11 12", "send 12"] {
                let _ = server.ask(step).expect_ok(step);
            }
            for step in ["receive 10", "send 10"] {
                let _ = rogue.ask(step).expect_ok(step);
            }
        };
        let joined = || ground.counter("MPTcpExt", "MPJoinSynAckRx");
        call(&mut server, &mut first);
        until("a subflow without the agent", || joined() == 1);
        let _ = server.ask("close 12").expect_ok("close");
        let _ = first.ask("close 10").expect_ok("close");
        let only = ("egress", "to = [{ cidr = \"10.99.0.2/32\" }]");
        let agent = Agent::start(sandbox, &rules(&[only]));
        call(&mut server, &mut second);
        // Nobody is named who opened it: the thread is the kernel's.
        let expected = " -> world 10.97.0.2:7020 deny ";
        let denied = |flow: &_| line(flow).starts_with("deny ");
        let denied: Vec<_> = agent.settled(1, denied).iter().map(line).collect();
        assert!(
            matches!(&denied[..], [one] if one.contains(expected)),
            "{denied:#?}"
        );
        assert_eq!(joined(), 1, "a subflow to an address that no rule allows");
        agent.assert_counters();
    });
}

fn kernel_has(protocol: &str) -> bool {
    let protocols = std::fs::read_to_string("/proc/net/protocols").unwrap();
    protocols
        .lines()
        .any(|line| line.split(' ').next() == Some(protocol))
}
