//! Policies that other systems are known to have misread.

use ringfence_tests::{
    Actor, Agent, Options, Sandbox,
    flows::line,
    policy::{Rule, policy, workload, workloads},
    scene,
};

const ALLOW: &str = "allow rule-allow web/egress[0]";
const DEFAULT: &str = "deny default-deny";

/// Rules, and addresses with what is decided about them.
type Table<'a> = (&'a [Rule<'a>], &'a [(&'a str, &'a str)]);

/// Calls each address, where nobody listens, and compares the decision in the flow log.
#[track_caller]
fn judge(agent: &Agent, web: &Actor, cases: &[(&str, &str)]) {
    for (address, decision) in cases {
        let outcome = web.tcp(address, &[]);
        let error = if decision.starts_with("allow") {
            "ECONNREFUSED"
        } else {
            "EPERM"
        };
        assert!(outcome.failed("connect", error), "{address}: {outcome:?}");
        let by = web.by(outcome.pid);
        let log = agent.log();
        let lines: Vec<_> = log
            .iter()
            .map(line)
            .filter(|it| it.ends_with(&by))
            .collect();
        let wanted = format!("-> host {address} {decision} ");
        assert!(
            matches!(&lines[..], [one] if one.contains(&wanted)),
            "{address}: {decision}\n{lines:#?}"
        );
    }
}

/// The rules of `web`, and what they decide.
#[track_caller]
fn misread(sandbox: &Sandbox, tables: &[Table<'_>]) {
    let web = sandbox.actor("web");
    let text = |rules| workloads(&["web", "api"]) + &policy("web", "", rules);
    let without = workloads(&["web", "api"]);
    let agent = Agent::start(sandbox, &without);
    for (rules, cases) in tables {
        for (address, _) in *cases {
            judge(&agent, &web, &[(address, "allow unselected-allow")]);
        }
        agent.set_policy(&text(rules));
        judge(&agent, &web, cases);
        agent.set_policy(&without);
    }
    agent.assert_counters();
}

#[test]
fn a_group_without_members_is_nobody_and_not_everybody() {
    scene("groups", |sandbox| {
        let nobody = "to = [{ labels = { app = \"gone\" } }]";
        let tables: &[Table<'_>] = &[
            (&[("egress", nobody)], &[("127.0.0.1:81", DEFAULT)]),
            (&[("egress", "to = []")], &[("127.0.0.1:81", DEFAULT)]),
            (&[("egress", "ports = []")], &[("127.0.0.1:81", DEFAULT)]),
        ];
        misread(sandbox, tables);
    });
}

#[test]
fn a_range_of_ports_hides_no_other_rule() {
    scene("port-ranges", |sandbox| {
        let denied = "deny rule-deny web/deny-egress[0]";
        let tables: &[Table<'_>] = &[
            (
                &[
                    ("egress", "ports = [\"8000-8100/tcp\"]"),
                    ("deny-egress", "ports = [\"8080/tcp\"]"),
                ],
                &[
                    ("127.0.0.1:8079", ALLOW),
                    ("127.0.0.1:8080", denied),
                    ("127.0.0.1:8081", ALLOW),
                ],
            ),
            (
                &[
                    ("egress", "ports = [\"8080/tcp\"]"),
                    ("deny-egress", "ports = [\"8000-8100/tcp\"]"),
                ],
                &[("127.0.0.1:8080", denied), ("127.0.0.1:8101", DEFAULT)],
            ),
            (
                &[
                    (
                        "egress",
                        "to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]",
                    ),
                    (
                        "egress",
                        "to = [{ entity = \"host\" }]\nports = [\"8000-8100/udp\"]",
                    ),
                ],
                &[("127.0.0.1:8080", DEFAULT)],
            ),
            (
                &[("egress", "ports = [\"65535/tcp\", \"1/tcp\"]")],
                &[
                    ("127.0.0.1:65535", ALLOW),
                    ("127.0.0.1:65534", DEFAULT),
                    ("127.0.0.1:1", ALLOW),
                ],
            ),
            (
                &[
                    ("egress", "ports = [\"1-65535/tcp\"]"),
                    ("deny-egress", "ports = [\"32768-65535/tcp\"]"),
                ],
                &[("127.0.0.1:32767", ALLOW), ("127.0.0.1:32768", denied)],
            ),
        ];
        misread(sandbox, tables);
    });
}

#[test]
fn of_ranges_that_overlap_every_one_counts() {
    scene("overlaps", |sandbox| {
        let denied = "deny rule-deny web/deny-egress[0]";
        let to = |cidr: &str| format!("to = [{{ cidr = \"{cidr}\" }}]");
        let (all, wide, narrow) = (to("127.0.0.0/8"), to("127.2.0.0/16"), to("127.2.2.0/24"));
        let (wide_81, narrow_82) = (
            wide.clone() + "\nports = [\"81/tcp\"]",
            narrow.clone() + "\nports = [\"82/tcp\"]",
        );
        let except = "to = [{ cidr = \"127.0.0.0/8\", except = [\"127.2.0.0/16\"] }]";
        let tables: &[Table<'_>] = &[
            (
                &[
                    ("egress", &all),
                    ("egress", &narrow),
                    ("deny-egress", &wide),
                ],
                &[
                    ("127.2.2.1:81", denied),
                    ("127.2.1.1:81", denied),
                    ("127.3.0.1:81", ALLOW),
                ],
            ),
            (
                &[("egress", &wide_81), ("egress", &narrow_82)],
                &[
                    ("127.2.2.1:81", ALLOW),
                    ("127.2.2.1:82", "allow rule-allow web/egress[1]"),
                    ("127.2.1.1:82", DEFAULT),
                ],
            ),
            (
                &[("egress", except), ("egress", &narrow)],
                &[
                    ("127.2.2.1:81", "allow rule-allow web/egress[1]"),
                    ("127.2.1.1:81", DEFAULT),
                    ("127.3.0.1:81", ALLOW),
                ],
            ),
        ];
        misread(sandbox, tables);
    });
}

/// Times as far away as can be written, whose distance in nanoseconds is more than 64 bits hold.
#[test]
fn a_time_far_away_does_not_wrap_round() {
    scene("far-times", |sandbox| {
        let web = sandbox.actor("web");
        let text = |key: &str| workloads(&["web"]) + &policy("web", key, &[("egress", "")]);
        let agent = Agent::start(sandbox, &workloads(&["web"]));
        for (key, decision) in [
            ("not-after = 9999-12-31T23:59:59Z", ALLOW),
            ("not-before = 9999-12-31T23:59:59Z", DEFAULT),
            ("not-before = 0001-01-01T00:00:00Z", ALLOW),
            (
                "not-after = 0001-01-01T00:00:00Z",
                "deny expired-deny web/egress[0]",
            ),
        ] {
            agent.set_policy(&text(key));
            judge(&agent, &web, &[("127.0.0.1:81", decision)]);
        }
        agent.assert_counters();
    });
}

#[test]
fn a_label_that_is_missing_is_no_match() {
    scene("labels", |sandbox| {
        let [web, api] = ["web", "api"].map(|name| sandbox.actor(name));
        let both = "to = [{ labels = { app = \"api\", tier = \"front\" } }]";
        let front = |name: &str| {
            workload(name, &format!("cgroup = \"/{name}\""))
                .replace(" }\nmatch", ", tier = \"front\" }\nmatch")
        };
        let plain = |name: &str| workload(name, &format!("cgroup = \"/{name}\""));
        let rules = policy("web", "", &[("egress", both)]);
        let selecting = rules.replace("{ app = \"web\" }", "{ app = \"web\", tier = \"front\" }");
        let _server = api.serve(&["tcp", "127.0.0.1:8080"]);
        let agent = Agent::start(sandbox, &(plain("web") + &front("api") + &rules));
        let _ = web
            .tcp("127.0.0.1:8080", &[])
            .expect_ok("a peer with both labels");
        agent.set_policy(&(plain("web") + &plain("api") + &rules));
        let refused = web.tcp("127.0.0.1:8080", &[]);
        let refused = refused.expect_refused("connect", "a peer with one of two labels");
        let expected = format!(
            "deny egress tcp web -> api 127.0.0.1:8080 deny default-deny {}",
            web.by(refused.pid)
        );
        let log: Vec<_> = agent.log().iter().map(line).collect();
        assert!(log.contains(&expected), "{expected}\n{log:#?}");
        // The policy is not for who lacks a label that it asks for: nothing restricts it.
        agent.set_policy(&(plain("web") + &plain("api") + &selecting));
        let _ = web.tcp("127.0.0.1:8080", &[]).expect_ok("not selected");
        agent.assert_counters();
    });
}

#[test]
fn what_is_left_when_a_policy_or_its_workload_goes_is_never_half() {
    scene("leavers", |sandbox| {
        let web = sandbox.actor("web");
        let options = Options {
            agent: "unselected = \"deny\"".to_owned(),
            ..Options::default()
        };
        let to_api = [(
            "egress",
            "to = [{ workload = \"api\" }, { entity = \"host\" }]",
        )];
        let whole = workloads(&["web", "api"]) + &policy("web", "", &to_api);
        let agent = Agent::start_with(sandbox, &options, &whole);
        judge(&agent, &web, &[("127.0.0.1:81", ALLOW)]);
        // The policy is gone and the workload is not: what the agent says about those without.
        agent.set_policy(&workloads(&["web", "api"]));
        judge(&agent, &web, &[("127.0.0.1:81", "deny unselected-deny")]);
        agent.set_policy(&whole);
        // The workload that a rule names is gone: refused whole, and the policy before stays.
        let broken = workloads(&["web"]) + &policy("web", "", &to_api);
        let error = agent.refuse_policy(&broken);
        assert!(error.contains("\"api\""), "{error}");
        let cases = [("127.0.0.1:81", ALLOW), ("127.0.0.1:82", ALLOW)];
        judge(&agent, &web, &cases);
        agent.assert_counters();
    });
}
