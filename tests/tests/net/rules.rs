//! How rules combine: ranges, exceptions, deny over allow, defaults, a workload and itself.

use ringfence_tests::{
    Agent, Options, Sandbox,
    policy::{policy, workload, workloads},
    scene,
};

use crate::common::{assert_allowed, assert_refused, start_after, unanswered};

/// Calls each address as `web` and compares outcome and record with the decision expected there.
#[track_caller]
fn judge(sandbox: &Sandbox, options: &Options, text: &str, cases: &[(&str, &str)]) {
    let web = sandbox.actor("web");
    for (address, _) in cases {
        let _ = assert_allowed(&web, address, &[]);
    }
    let agent = Agent::start_with(sandbox, options, text);
    let mut expected = Vec::new();
    for (address, decision) in cases {
        let flow = format!("web -> host {address}");
        expected.push(if decision.starts_with("allow") {
            let outcome = assert_allowed(&web, address, &[]);
            unanswered(&flow, decision, &web.by(outcome.pid))
        } else {
            let outcome = assert_refused(&web, address, &[]);
            format!("deny egress tcp {flow} {decision} {}", web.by(outcome.pid))
        });
    }
    agent.assert_log(&expected);
    agent.assert_counters();
}

fn web(keys: &str, rules: &[(&str, &str)]) -> String {
    workloads(&["web"]) + &policy("web", keys, rules)
}

#[test]
fn a_range_of_addresses_is_allowed_without_its_exceptions() {
    scene("cidr", |sandbox| {
        let rule = "to = [{ cidr = \"127.2.0.0/16\", except = [\"127.2.9.0/24\"] }]";
        let text = web("", &[("egress", rule)]);
        let cases = [
            ("127.2.0.0:81", "allow rule-allow web/egress[0]"),
            ("127.2.8.255:81", "allow rule-allow web/egress[0]"),
            ("127.2.9.0:81", "deny default-deny"),
            ("127.2.9.255:81", "deny default-deny"),
            ("127.2.10.0:81", "allow rule-allow web/egress[0]"),
            ("127.3.0.1:81", "deny default-deny"),
            ("127.1.255.255:81", "deny default-deny"),
        ];
        judge(sandbox, &Options::default(), &text, &cases);
    });
}

#[test]
fn a_range_of_ports_includes_both_ends() {
    scene("ports", |sandbox| {
        let text = web(
            "",
            &[(
                "egress",
                "ports = [\"8000-8100/tcp\", \"443/tcp\", \"9000/udp\"]",
            )],
        );
        let allow = "allow rule-allow web/egress[0]";
        let cases = [
            ("127.0.0.1:7999", "deny default-deny"),
            ("127.0.0.1:8000", allow),
            ("127.0.0.1:8063", allow),
            ("127.0.0.1:8100", allow),
            ("127.0.0.1:8101", "deny default-deny"),
            ("127.0.0.1:443", allow),
            ("127.0.0.1:9000", "deny default-deny"),
        ];
        judge(sandbox, &Options::default(), &text, &cases);
    });
}

#[test]
fn deny_beats_allow_even_if_the_allow_is_more_specific() {
    scene("deny-wins", |sandbox| {
        let rules = [
            (
                "egress",
                "to = [{ cidr = \"127.2.0.1/32\" }]\nports = [\"81/tcp\"]",
            ),
            ("egress", ""),
            ("deny-egress", "to = [{ cidr = \"127.2.0.0/16\" }]"),
        ];
        let cases = [
            ("127.2.0.1:81", "deny rule-deny web/deny-egress[0]"),
            ("127.3.0.1:81", "allow rule-allow web/egress[1]"),
        ];
        judge(sandbox, &Options::default(), &web("", &rules), &cases);
    });
}

#[test]
fn default_deny_needs_no_rule() {
    scene("default-deny", |sandbox| {
        let text = web("default-deny = [\"egress\"]", &[]);
        judge(
            sandbox,
            &Options::default(),
            &text,
            &[("127.0.0.1:81", "deny default-deny")],
        );
    });
}

#[test]
fn a_direction_that_no_policy_restricts_is_open() {
    scene("direction", |sandbox| {
        let text = web("default-deny = [\"ingress\"]", &[]);
        judge(
            sandbox,
            &Options::default(),
            &text,
            &[("127.0.0.1:81", "allow direction-allow")],
        );
    });
}

#[test]
fn an_empty_list_of_peers_matches_nobody() {
    scene("empty", |sandbox| {
        let text = web("", &[("egress", "to = []")]);
        judge(
            sandbox,
            &Options::default(),
            &text,
            &[("127.0.0.1:81", "deny default-deny")],
        );
    });
}

#[test]
fn the_host_is_a_peer_of_its_own() {
    scene("entity-host", |sandbox| {
        let rules = [
            (
                "egress",
                "to = [{ entity = \"host\" }]\nports = [\"81/tcp\"]",
            ),
            (
                "egress",
                "to = [{ entity = \"world\" }]\nports = [\"82/tcp\"]",
            ),
        ];
        let cases = [
            ("127.0.0.1:81", "allow rule-allow web/egress[0]"),
            ("127.0.0.1:82", "deny default-deny"),
        ];
        judge(sandbox, &Options::default(), &web("", &rules), &cases);
    });
}

#[test]
fn a_workload_without_policy_is_allowed_by_default() {
    scene("unselected-allow", |sandbox| {
        let text = workloads(&["web"]);
        judge(
            sandbox,
            &Options::default(),
            &text,
            &[("127.0.0.1:81", "allow unselected-allow")],
        );
    });
}

#[test]
fn a_workload_without_policy_is_denied_where_the_agent_says_so() {
    scene("unselected-deny", |sandbox| {
        let options = Options {
            agent: "unselected = \"deny\"".to_owned(),
            ..Options::default()
        };
        judge(
            sandbox,
            &options,
            &workloads(&["web"]),
            &[("127.0.0.1:81", "deny unselected-deny")],
        );
    });
}

#[test]
fn a_workload_may_talk_to_itself_unless_it_says_no() {
    scene("self", |sandbox| {
        let one = sandbox.actor("one");
        let keys = "default-deny = [\"ingress\", \"egress\"]";
        let text = |allow: bool| {
            let selectors = "cgroup = \"/one\"";
            workload("one", selectors).trim_end().to_owned()
                + &format!("\nallow-self = {allow}\n\n")
                + &policy("one", keys, &[])
        };
        let agent = start_after(sandbox, &one, &["127.0.0.1:81"], &text(true));
        let _server = one.serve(&["tcp", "127.0.0.1:80"]);
        let _ = one.tcp("127.0.0.1:80", &[]).expect_ok("a call to itself");
        // Nobody is there: the host, not the workload.
        let _ = assert_refused(&one, "127.0.0.1:81", &[]);
        agent.set_policy(&text(false));
        let refused = assert_refused(&one, "127.0.0.1:80", &[]);
        let log = agent.log();
        let lines: Vec<_> = log.iter().map(ringfence_tests::flows::line).collect();
        let expected = format!(
            "deny egress tcp one -> one 127.0.0.1:80 deny default-deny {}",
            one.by(refused.pid)
        );
        assert!(lines.contains(&expected), "{expected}\n{lines:#?}");
        let passed = lines
            .iter()
            .filter(|line| line.contains("one -> one 127.0.0.1:80 allow self-allow"))
            .count();
        assert_eq!(passed, 4, "{lines:#?}");
        agent.assert_counters();
    });
}
