//! Ports that nobody asked for, and calls to who no longer takes them.

use ringfence_tests::{Agent, Running, flows::line, scene};

use crate::{
    attempt::attempt,
    ground::{Ground, closed_rogue, open_rogue, rules},
};

#[test]
fn a_port_that_was_not_asked_for_is_judged_when_somebody_calls() {
    scene("unbound", |sandbox| {
        // IP_LOCAL_PORT_RANGE (`ip(7)`) makes the kernel choose 40000.
        let attempts = [attempt(
            "listen without bind",
            "b open 2 1 0 11; b option 11 0 51 409c409c; b listen 11; open 2 1 0 10; \
             begin 10 127.0.0.1:40000; finish 10; b accept 11 12; send 10; b receive 12",
            "finish timeout",
            "deny listen tcp - -> rogue 127.0.0.1:40000 deny default-deny by ",
        )
        .by("free")
        .with("rogue")
        .not_for_free()];
        let only = ("listen", "ports = [\"8080/tcp\"]");
        Ground::new(sandbox).play(&rules(&[only]), &attempts);
    });
}

/// The far host calls again with the addresses and ports of a connection that was allowed.
#[test]
fn a_tuple_that_was_allowed_once_is_judged_anew() {
    scene("tuple", |sandbox| {
        let ground = Ground::new(sandbox);
        let world = ("ingress", "from = [{ entity = \"world\" }]");
        let [mut server, mut far] = [ground.actor("rogue").puppet(), ground.actor("far").puppet()];
        for step in ["open 2 1 0 11", "bind 11 10.99.0.1:7100", "listen 11"] {
            let _ = server.ask(step).expect_ok(step);
        }
        let agent = Agent::start(sandbox, &rules(&[world]));
        let call = |far: &mut Running, port: u16| {
            for step in [
                "open 2 1 0 10",
                &format!("bind 10 10.99.0.2:{port}"),
                "begin 10 10.99.0.1:7100",
            ] {
                let _ = far.ask(step).expect_ok(step);
            }
            far.ask("finish 10")
        };
        // The server closes first and keeps the connection in TIME_WAIT; then twice, with the policy unchanged.
        for _ in 0..2 {
            let _ = call(&mut far, 6120).expect_ok("an allowed call");
            for step in ["accept 11 12", "close 12"] {
                let _ = server.ask(step).expect_ok(step);
            }
            let ended = far.ask("receive 10");
            assert!(ended.error.is_some(), "{ended:?}");
            for step in ["close 10", "run sleep 0.1"] {
                let _ = far.ask(step).expect_ok(step);
            }
        }
        // One that is open when the policy changes.
        let _ = call(&mut far, 6121).expect_ok("an allowed call");
        let _ = server.ask("accept 11 12").expect_ok("accept");
        agent.set_policy(&rules(&[("ingress", "from = []")]));
        // SO_LINGER without time: the far host forgets the connection at once.
        for step in ["option 10 1 13 0100000000000000", "close 10"] {
            let _ = far.ask(step).expect_ok(step);
        }
        for port in [6120, 6121] {
            let refused = call(&mut far, port);
            assert!(refused.failed("finish", "timeout"), "{port}: {refused:?}");
            let _ = far.ask("close 10").expect_ok("close");
        }
        let expected = "deny ingress tcp world -> rogue 10.99.0.1:7100 deny default-deny ";
        let mut denied = agent.settled(3, |flow| line(flow).starts_with(expected));
        denied.sort_by_key(|flow| flow.source.as_ref().map(|source| source.port));
        let found = denied
            .iter()
            .map(|flow| (flow.source.as_ref().map_or(0, |it| it.port), flow.revoked));
        let found: Vec<_> = found.collect();
        // The one that was cut, then each of the two once.
        assert_eq!(found, [(6120, false), (6121, true), (6121, false)]);
        agent.assert_counters();
    });
}

/// Neither a reset nor an ICMP error tells a caller that is refused whether somebody listens.
#[test]
fn a_refused_caller_hears_nothing() {
    scene("silence", |sandbox| {
        // An unreachable port of this host is answered by the kernel, which nothing guards.
        let silent = "connect 10 10.99.0.1:7001; exchange 10";
        let attempts = [
            attempt(
                "UDP",
                &format!("open 2 2 0 10; {silent}"),
                "receive timeout",
                "deny ingress udp world -> vault 10.99.0.1:7001 deny default-deny by ",
            ),
            attempt(
                "TCP",
                "open 2 1 0 10; begin 10 10.99.0.1:7000; finish 10; exchange 10",
                "finish timeout",
                "deny ingress tcp world -> vault 10.99.0.1:7000 deny default-deny by ",
            ),
        ]
        .map(|attempt| attempt.by("far").not_for_free());
        Ground::new(sandbox).play(&closed_rogue(), &attempts);
    });
}

/// Who shares a port (`SO_REUSEPORT`) gets the connections that wait at another listener when that closes, or
/// by a more exact address all of them.
#[test]
fn a_port_that_another_workload_listens_on_is_not_shared() {
    scene("taken-port", |sandbox| {
        let share = |address: &str, rogues: &str| {
            format!(
                "b open 2 1 0 11; b option 11 1 15 01000000; b bind 11 {address}; b listen 11; \
                 open 2 1 0 10; option 10 1 15 01000000; bind 10 {rogues}; c open 2 1 0 12"
            )
        };
        let attempts = [
            (
                "to be given what waits there",
                share("127.0.0.1:7200", "127.0.0.1:7200")
                    + "; c connect 12 127.0.0.1:7200; listen 10; b close 11",
                "127.0.0.1:7200",
            ),
            (
                "the same by IPv6",
                share("[::1]:7201", "[::1]:7201").replace("open 2 ", "open 10 ")
                    + "; c connect 12 [::1]:7201; listen 10; b close 11",
                "[::1]:7201",
            ),
            (
                "by a more exact address",
                share("0.0.0.0:7202", "127.0.0.1:7202")
                    + "; listen 10; c connect 12 127.0.0.1:7202",
                "127.0.0.1:7202",
            ),
        ]
        .map(|(what, script, port)| {
            attempt(
                what,
                &format!("{script}; accept 10 13; c send 12; receive 13"),
                "bind EPERM",
                &format!("deny listen tcp - -> rogue {port} deny port-deny by "),
            )
            .not_for_free()
        });
        let ground = Ground::new(sandbox);
        ground.near().sysctl("net/ipv4/tcp_migrate_req", "1");
        ground.play(&closed_rogue(), &attempts);
    });
}

#[test]
fn a_port_is_shared_within_a_workload_and_with_whom_no_policy_selects() {
    scene("shared-within", |sandbox| {
        let ground = Ground::new(sandbox);
        let agent = Agent::start(sandbox, &open_rogue());
        for (owner, other, address, ok) in [
            ("vault", "vault", "127.0.0.1:7210", true),
            ("free", "rogue", "127.0.0.1:7211", true),
            ("rogue", "free", "127.0.0.1:7212", false),
        ] {
            let [mut owner, mut other] = [owner, other].map(|name| ground.actor(name).puppet());
            let bind = format!("bind 10 {address}");
            for part in [&mut owner, &mut other] {
                for step in ["open 2 1 0 10", "option 10 1 15 01000000"] {
                    let _ = part.ask(step).expect_ok(step);
                }
            }
            for step in [&bind, "listen 10"] {
                let _ = owner.ask(step).expect_ok(step);
            }
            let shared = other.ask(&bind);
            assert_eq!(shared.ok(), ok, "{address}: {shared:?}");
        }
        agent.assert_counters();
    });
}
