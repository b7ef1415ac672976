//! TCP on one host: the allow list, the listener's own policy, the records of both sides.

use ringfence_tests::{
    Agent, Sandbox,
    policy::{policy, workloads},
    scene,
};

use crate::common::{Side, three_tiers};

#[test]
fn tcp_over_ipv4_follows_the_allow_list() {
    scene("tcp4", |sandbox| allow_list(sandbox, "127.0.0.1"));
}

#[test]
fn tcp_over_ipv6_follows_the_allow_list() {
    scene("tcp6", |sandbox| allow_list(sandbox, "[::1]"));
}

fn allow_list(sandbox: &Sandbox, host: &str) {
    let (web, api, db) = (
        sandbox.actor("web"),
        sandbox.actor("api"),
        sandbox.actor("db"),
    );
    let (at_api, at_db) = (format!("{host}:8080"), format!("{host}:5432"));
    let serve = || {
        let api = api.serve(&["tcp", &at_api, "--reply", "7"]);
        (api, db.serve(&["tcp", &at_db, "--reply", "70000"]))
    };
    let before = serve();
    for (caller, address) in [
        (&web, &at_api),
        (&api, &at_db),
        (&web, &at_db),
        (&db, &at_api),
    ] {
        let _ = caller
            .tcp(address, &[])
            .expect_ok("a call without the agent");
    }
    drop(before);

    let agent = Agent::start(sandbox, &three_tiers());
    let servers = serve();
    let to_api = web.tcp(&at_api, &["--send", "3", "--expect", "7"]);
    let to_api = to_api.expect_ok("web calls api");
    let to_db = api.tcp(&at_db, &["--send", "100000", "--expect", "70000"]);
    let to_db = to_db.expect_ok("api calls db");
    let skip = web
        .tcp(&at_db, &[])
        .expect_refused("connect", "web calls db");
    let back = db
        .tcp(&at_api, &[])
        .expect_refused("connect", "db calls api");
    let port = web.tcp(&format!("{host}:8081"), &[]);
    let port = port.expect_refused("connect", "web calls another port");

    let mut expected = vec![
        format!(
            "deny egress tcp web -> db {at_db} deny default-deny {}",
            web.by(skip.pid)
        ),
        format!(
            "deny egress tcp db -> api {at_api} deny default-deny {}",
            db.by(back.pid)
        ),
        format!(
            "deny egress tcp web -> host {host}:8081 deny default-deny {}",
            web.by(port.pid)
        ),
    ];
    for (direction, by) in [
        ("egress", web.by(to_api.pid)),
        ("ingress", api.by(servers.0.pid())),
    ] {
        let owner = if direction == "egress" { "web" } else { "api" };
        let side = Side {
            flow: &format!("{direction} tcp web -> api {at_api}"),
            decision: &format!("allow rule-allow {owner}/{direction}[0]"),
            bytes: "3/7",
            by,
        };
        expected.extend(side.lines());
    }
    for (direction, by) in [
        ("egress", api.by(to_db.pid)),
        ("ingress", db.by(servers.1.pid())),
    ] {
        let owner = if direction == "egress" { "api" } else { "db" };
        let side = Side {
            flow: &format!("{direction} tcp api -> db {at_db}"),
            decision: &format!("allow rule-allow {owner}/{direction}[0]"),
            bytes: "100000/70000",
            by,
        };
        expected.extend(side.lines());
    }
    agent.assert_log(&expected);
    agent.assert_counters();
}

#[test]
fn a_listener_that_does_not_want_the_caller_is_an_immediate_eperm() {
    scene("listener", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let serve = || db.serve(&["tcp", "127.0.0.1:5432"]);
        let before = serve();
        let _ = web
            .tcp("127.0.0.1:5432", &[])
            .expect_ok("without the agent");
        drop(before);

        // Nothing restricts what web opens.
        let text = workloads(&["web", "api", "db"])
            + &policy("db", "", &[("ingress", "from = [{ workload = \"api\" }]")]);
        let agent = Agent::start(sandbox, &text);
        let _server = serve();
        let refused = web
            .tcp("127.0.0.1:5432", &[])
            .expect_refused("connect", "web calls db");
        let stranger = sandbox
            .stranger("stranger")
            .tcp("127.0.0.1:5432", &["--timeout-ms", "1500"]);
        assert!(stranger.failed("connect", "timeout"), "{stranger:?}");

        agent.assert_log_of(
            &[format!(
                "deny egress tcp web -> db 127.0.0.1:5432 deny default-deny peer {}",
                web.by(refused.pid)
            )],
            |flow| {
                flow.process
                    .as_ref()
                    .is_some_and(|process| process.pid == refused.pid)
            },
        );
        agent.assert_counters();
    });
}
