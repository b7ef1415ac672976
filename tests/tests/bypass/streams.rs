//! TCP: handshakes that are not the usual one, and addresses that were somebody else's.

use ringfence_tests::scene;

use crate::{
    attempt::attempt,
    ground::{Ground, closed_rogue, open_rogue, rules},
};

const TO_VAULT: &str = "deny egress tcp rogue -> vault 127.0.0.1:7000 deny default-deny";

#[test]
fn data_in_a_syn_is_judged_before_it_is_sent() {
    scene("fastopen", |sandbox| {
        let ground = Ground::new(sandbox);
        // Both ends, without asking for a cookie (`Documentation/networking/ip-sysctl.rst`).
        for namespace in [ground.near(), ground.far()] {
            namespace.sysctl("net/ipv4/tcp_fastopen", "519");
        }
        let by = |record: &str| format!("{record} by ");
        let attempts = [
            attempt(
                "TCP Fast Open with MSG_FASTOPEN",
                "open 2 1 0 10; message 10 127.0.0.1:7000 536870912; receive 10",
                "message EPERM",
                &by(TO_VAULT),
            ),
            attempt(
                "TCP Fast Open with TCP_FASTOPEN_CONNECT",
                "open 2 1 0 10; option 10 6 30 01000000; connect 10 127.0.0.1:7000; exchange 10",
                "connect EPERM",
                &by(TO_VAULT),
            ),
            attempt(
                "TCP Fast Open to a listener that wants it",
                "b open 10 1 0 11; b option 11 6 23 05000000; b bind 11 [::]:7010; b listen 11; \
                 open 2 1 0 10; message 10 10.99.0.1:7010 536870976; b accept 11 12; b receive 12",
                "accept timeout",
                "deny ingress tcp world -> vault 10.99.0.1:7010 deny default-deny by ",
            )
            .by("far")
            .not_for_free(),
        ];
        ground.play(&closed_rogue(), &attempts);
    });
}

#[test]
fn a_socket_that_was_connected_before_is_judged_as_any() {
    scene("again", |sandbox| {
        let attempts = [
            attempt(
                "connected anew by way of AF_UNSPEC",
                "open 2 1 0 10; connect 10 127.0.0.1:8080; exchange 10; unspec 10; \
                 connect 10 127.0.0.1:7000; exchange 10",
                "connect EPERM",
                "deny egress tcp app -> vault 127.0.0.1:7000 deny default-deny by ",
            )
            .by("app"),
            attempt(
                "a socket that listened before",
                "open 2 1 0 10; bind 10 127.0.0.1:6100; listen 10; unspec 10; \
                 connect 10 127.0.0.1:7000; exchange 10",
                "connect EPERM",
                "deny egress tcp app -> vault 127.0.0.1:7000 deny default-deny by ",
            )
            .by("app"),
        ];
        Ground::new(sandbox).play(&closed_rogue(), &attempts);
    });
}

#[test]
fn two_that_call_each_other_are_both_judged() {
    scene("simultaneous", |sandbox| {
        // What the first calls is nobody's port: the host's, which both may ask.
        let host = ("egress", "to = [{ entity = \"host\" }]");
        let script = "open 2 1 0 10; bind 10 127.0.0.1:6101; deaf 10; begin 10 127.0.0.1:6102; hear 10; \
             b open 2 1 0 11; b bind 11 127.0.0.1:6102; b connect 11 127.0.0.1:6101; \
             finish 10; send 10; b receive 11";
        let attempts = [attempt(
            "a simultaneous open",
            script,
            "connect EPERM",
            "deny egress tcp vault -> rogue 127.0.0.1:6101 deny default-deny by ",
        )
        .not_for_free()];
        let policy = rules(&[host])
            + &ringfence_tests::policy::policy("vault", "", &[host])
                .replace("name = \"vault\"", "name = \"vault-out\"");
        Ground::new(sandbox).play(&policy, &attempts);
    });
}

#[test]
fn an_address_that_was_somebody_elses_is_judged_as_whose_it_is() {
    scene("second-hand", |sandbox| {
        let ground = Ground::new(sandbox);
        ground.near().sysctl("net/ipv4/tcp_tw_reuse", "1");
        let record = format!("{TO_VAULT} peer by ");
        let attempts = [
            attempt(
                "a connection in TIME_WAIT",
                "c open 2 1 0 12; c bind 12 127.0.0.1:6110; c connect 12 127.0.0.1:7000; c exchange 12; \
                 c close 12; open 2 1 0 10; bind 10 127.0.0.1:6110; run sleep 1.2; \
                 connect 10 127.0.0.1:7000; exchange 10",
                "connect EPERM",
                &record,
            ),
            attempt(
                "a port that is shared with who may",
                "c open 2 1 0 12; c option 12 1 15 01000000; c bind 12 127.0.0.1:6111; \
                 open 2 1 0 10; option 10 1 15 01000000; bind 10 127.0.0.1:6111; \
                 connect 10 127.0.0.1:7000; exchange 10",
                "connect EPERM",
                &record,
            ),
        ];
        ground.play(&open_rogue(), &attempts);
    });
}
