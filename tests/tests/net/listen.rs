//! The right to a local port.

use ringfence_tests::{
    Agent,
    flows::line,
    policy::{policy, workloads},
    scene,
};

#[test]
fn a_port_without_a_listen_rule_is_refused_at_bind() {
    scene("listen", |sandbox| {
        let web = sandbox.actor("web");
        let cases = [
            ("tcp", "127.0.0.1:8080", None),
            ("tcp", "[::1]:8080", None),
            ("tcp", "127.0.0.1:0", None),
            ("tcp", "127.0.0.1:8081", Some("default-deny")),
            ("tcp", "[::1]:8081", Some("default-deny")),
            ("udp", "127.0.0.1:8080", Some("default-deny")),
            (
                "tcp",
                "127.0.0.1:9005",
                Some("rule-deny web/deny-listen[0]"),
            ),
        ];
        let bind = |protocol, address| web.run(&["bind", protocol, address]);
        for (protocol, address, _) in cases {
            let _ = bind(protocol, address).expect_ok("without the agent");
        }
        let rules = [
            ("listen", "ports = [\"8080/tcp\", \"9000-9010/tcp\"]"),
            ("deny-listen", "ports = [\"9005/tcp\"]"),
        ];
        let agent = Agent::start(sandbox, &(workloads(&["web"]) + &policy("web", "", &rules)));
        let mut expected = Vec::new();
        for (protocol, address, denied) in cases {
            let outcome = bind(protocol, address);
            match denied {
                None => assert!(outcome.ok(), "{protocol} {address}: {outcome:?}"),
                Some(reason) => {
                    let outcome = outcome.expect_refused("bind", address);
                    expected.push(format!(
                        "deny listen {protocol} - -> web {address} deny {reason} {}",
                        web.by(outcome.pid)
                    ));
                }
            }
        }
        agent.assert_log(&expected);
        agent.assert_counters();
    });
}

/// The kernel refuses the second call after the hook has run, unless another thread takes the port away from
/// the socket between the two (`connect` with `AF_UNSPEC`).
#[test]
fn a_port_is_judged_at_bind_though_the_socket_has_one() {
    scene("listen-twice", |sandbox| {
        let web = sandbox.actor("web");
        let rules = [("listen", "ports = [\"8080/tcp\", \"8090/tcp\"]")];
        let agent = Agent::start(sandbox, &(workloads(&["web"]) + &policy("web", "", &rules)));
        let mut puppet = web.puppet();
        for step in ["open 2 1 0 10", "bind 10 127.0.0.1:8080"] {
            let _ = puppet.ask(step).expect_ok(step);
        }
        let allowed = puppet.ask("bind 10 127.0.0.1:8090");
        assert!(allowed.failed("bind", "EINVAL"), "{allowed:?}");
        let _ = puppet
            .ask("bind 10 127.0.0.1:8081")
            .expect_refused("bind", "a second port");
        let by = web.by(puppet.pid());
        agent.assert_log(&[format!(
            "deny listen tcp - -> web 127.0.0.1:8081 deny default-deny {by}"
        )]);
        agent.assert_counters();
    });
}

#[test]
fn a_datagram_to_a_port_that_was_not_asked_for_is_judged_as_listening() {
    scene("listen-udp", |sandbox| {
        let [web, caller] = ["web", "caller"].map(|name| sandbox.actor(name));
        let rules = [("listen", "ports = [\"1-1023/udp\"]")];
        let text = workloads(&["web", "caller"]) + &policy("web", "", &rules);
        let serve = || {
            let mut server = web.start(&["serve", "udp", "127.0.0.1:0"]);
            let address = server.line().expect_ok("an ephemeral port").local.unwrap();
            (server, address.to_string())
        };
        let (server, address) = serve();
        let _ = caller.udp(&address, &[]).expect_ok("without the agent");
        drop(server);
        let agent = Agent::start(sandbox, &text);
        let (server, address) = serve();
        let outcome = caller.udp(&address, &["--timeout-ms", "300"]);
        assert!(outcome.failed("receive", "timeout"), "{outcome:?}");
        let log = agent.log();
        let mut lines = log.iter().map(line);
        let by = web.by(server.pid());
        let expected = format!("deny listen udp - -> web {address} deny default-deny {by}");
        assert!(lines.any(|line| line == expected), "{expected}\n{log:#?}");
        // What it asks itself is answered.
        let other = caller.serve(&["udp", "127.0.0.1:7000"]);
        let _ = web.udp("127.0.0.1:7000", &[]).expect_ok("web asks");
        drop(other);
        agent.assert_counters();
    });
}
