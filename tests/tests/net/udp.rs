//! UDP: connected and unconnected, both families; replies pass, and only replies.

use ringfence_tests::{
    Agent, Sandbox,
    policy::{policy, workloads},
    scene,
};

use crate::common::Side;

fn text() -> String {
    let rule = |other: &str, key: &str| {
        format!("{key} = [{{ workload = \"{other}\" }}]\nports = [\"5300/udp\"]")
    };
    workloads(&["web", "dns"])
        + &policy(
            "web",
            "default-deny = [\"ingress\"]",
            &[("egress", &rule("dns", "to"))],
        )
        + &policy(
            "dns",
            "default-deny = [\"egress\"]",
            &[("ingress", &rule("web", "from"))],
        )
}

#[test]
fn udp_over_ipv4_follows_the_allow_list_and_replies_pass() {
    scene("udp4", |sandbox| replies(sandbox, "127.0.0.1"));
}

#[test]
fn udp_over_ipv6_follows_the_allow_list_and_replies_pass() {
    scene("udp6", |sandbox| replies(sandbox, "[::1]"));
}

fn replies(sandbox: &Sandbox, host: &str) {
    let (web, dns) = (sandbox.actor("web"), sandbox.actor("dns"));
    let (right, wrong) = (format!("{host}:5300"), format!("{host}:5301"));
    let serve = || {
        let right = dns.serve(&["udp", &right, "--reply", "9"]);
        (right, dns.serve(&["udp", &wrong]))
    };
    let before = serve();
    for address in [&right, &wrong] {
        for unconnected in [&[][..], &["--unconnected"]] {
            let _ = web.udp(address, unconnected).expect_ok("without the agent");
        }
    }
    drop(before);

    let agent = Agent::start(sandbox, &text());
    let servers = serve();
    let mut expected = Vec::new();
    for (options, step) in [
        (&["--send", "4", "--expect", "9"][..], "connect"),
        (&["--send", "4", "--expect", "9", "--unconnected"], "send"),
    ] {
        let passed = web.udp(&right, options).expect_ok("web asks dns");
        for (direction, rule, by) in [
            ("egress", "web/egress[0]", web.by(passed.pid)),
            ("ingress", "dns/ingress[0]", dns.by(servers.0.pid())),
        ] {
            let side = Side {
                flow: &format!("{direction} udp web -> dns {right}"),
                decision: &format!("allow rule-allow {rule}"),
                bytes: "4/9",
                by,
            };
            expected.extend(side.lines());
        }
        let refused = web
            .udp(&wrong, options)
            .expect_refused(step, "web asks another port");
        expected.push(format!(
            "deny egress udp web -> dns {wrong} deny default-deny {}",
            web.by(refused.pid)
        ));
    }
    // Flows of the server end with its socket.
    drop(servers);
    agent.assert_log(&expected);
    agent.assert_counters();
}

#[test]
fn who_may_be_asked_may_not_ask() {
    scene("udp-unsolicited", |sandbox| {
        let (web, dns) = (sandbox.actor("web"), sandbox.actor("dns"));
        let agent = Agent::start(sandbox, &text());
        let _dns = dns.serve(&["udp", "127.0.0.1:5300"]);
        let _web = web.serve(&["udp", "127.0.0.1:7000"]);
        let _ = web
            .udp("127.0.0.1:5300", &["--source", "127.0.0.1:7001"])
            .expect_ok("web asks dns");
        for options in [&[][..], &["--unconnected"]] {
            let outcome = dns.udp("127.0.0.1:7000", options);
            assert!(
                outcome.error.as_deref() == Some("EPERM"),
                "dns asks web: {outcome:?}"
            );
        }
        let log = agent.log();
        let denied = log.iter().map(ringfence_tests::flows::line).filter(|line| {
            line.starts_with("deny egress udp dns -> web 127.0.0.1:7000 deny default-deny")
        });
        assert_eq!(denied.count(), 2, "{log:#?}");
        agent.assert_counters();
    });
}
