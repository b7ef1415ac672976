//! Addresses and ports that change hands: who is at one end of a flow is looked up, not remembered.

use std::{collections::BTreeMap, thread, time::Duration};

use ringfence_tests::{
    Agent,
    flows::line,
    policy::{policy, workloads},
    scene,
};

/// Only api may talk to db, and api to db only.
fn api_and_db() -> String {
    workloads(&["web", "api", "db"])
        + &policy(
            "api",
            "default-deny = [\"egress\"]",
            &[("egress", "to = [{ workload = \"db\" }]")],
        )
        + &policy("db", "", &[("ingress", "from = [{ workload = \"api\" }]")])
}

fn denials(agent: &Agent) -> Vec<String> {
    let mut lines: Vec<_> = agent.log().iter().map(line).collect();
    lines.retain(|line| line.starts_with("deny "));
    lines
}

#[test]
fn a_borrowed_source_address_does_not_make_a_sender_its_owner() {
    scene("borrowed", |sandbox| {
        let [web, api, db] = ["web", "api", "db"].map(|name| sandbox.actor(name));
        let serve = || {
            (
                api.serve(&["udp", "127.0.0.5:7000", "--silent"]),
                db.serve(&["udp", "127.0.0.1:5300", "--silent"]),
            )
        };
        let borrow = [
            "--unconnected",
            "--source",
            "127.0.0.6:7000",
            "--pretend",
            "127.0.0.5",
            "--timeout-ms",
            "200",
        ];
        let mut before = serve();
        let _ = web.udp("127.0.0.1:5300", &borrow);
        let taken = before.1.line().expect_ok("without the agent");
        assert_eq!(taken.peer, "127.0.0.5:7000".parse().ok(), "{taken:?}");
        drop(before);

        let agent = Agent::start(sandbox, &api_and_db());
        let _servers = serve();
        let refused = web
            .udp("127.0.0.1:5300", &borrow)
            .expect_refused("send", "a datagram with the address of api");
        assert_eq!(
            denials(&agent),
            [format!(
                "deny egress udp web -> db 127.0.0.1:5300 deny default-deny peer {}",
                web.by(refused.pid)
            )]
        );
        agent.assert_counters();
    });
}

#[test]
fn a_port_that_another_workload_took_over_is_judged_as_its_own() {
    scene("taken-over", |sandbox| {
        let [web, api, db] = ["web", "api", "db"].map(|name| sandbox.actor(name));
        let from = ["--source", "127.0.0.1:7000", "--timeout-ms", "300"];
        let server = db.serve(&["udp", "127.0.0.1:5300"]);
        for actor in [&api, &web] {
            let _ = actor
                .udp("127.0.0.1:5300", &from)
                .expect_ok("without the agent");
        }
        drop(server);
        let agent = Agent::start(sandbox, &api_and_db());
        let server = db.serve(&["udp", "127.0.0.1:5300"]);
        let _ = api
            .udp("127.0.0.1:5300", &from)
            .expect_ok("api asks db from port 7000");
        // db still knows the flow from port 7000; api does not have that port any more. (For 10 ms nobody
        // has: two senders with one address can't be told apart.)
        thread::sleep(Duration::from_millis(20));
        let outcome = web.udp("127.0.0.1:5300", &[&from[..], &["--unconnected"]].concat());
        assert!(outcome.failed("receive", "timeout"), "{outcome:?}");
        let by = db.by(server.pid());
        let expected =
            format!("deny ingress udp web -> db 127.0.0.1:5300 deny default-deny revoked {by}");
        assert_eq!(denials(&agent), [expected]);
        agent.assert_counters();
    });
}

#[test]
fn a_server_that_another_workload_replaced_is_judged_as_that() {
    scene("replaced", |sandbox| {
        let [web, api, db] = ["web", "api", "db"].map(|name| sandbox.actor(name));
        let call = ["call", "udp", "127.0.0.1:5300", "--twice"];
        let agent = Agent::start(sandbox, &api_and_db());
        let server = db.serve(&["udp", "127.0.0.1:5300"]);
        let mut caller = api.start(&call);
        let _ = caller.line().expect_ok("api asks db");
        drop(server);
        let _other = web.serve(&["udp", "127.0.0.1:5300"]);
        caller.go_on();
        let refused = caller.last().expect_refused("send", "api asks web");
        let by = api.by(refused.pid);
        let expected =
            format!("deny egress udp api -> web 127.0.0.1:5300 deny default-deny revoked {by}");
        assert_eq!(denials(&agent), [expected]);
        agent.assert_counters();
    });
}

#[test]
fn a_listener_that_shares_its_port_gets_only_calls_that_may_go_to_it() {
    scene("shared-port", |sandbox| {
        let [web, api, db] = ["web", "api", "db"].map(|name| sandbox.actor(name));
        // The kernel's choice among listeners depends on their order and on the port of the caller.
        let ports: Vec<_> = (8080..8104)
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let serve = || -> Vec<_> {
            let both = |(index, address): (usize, &String)| {
                let mut servers = [(&db, "1"), (&web, "2")];
                servers.rotate_left(index % 2);
                servers.map(|(actor, reply)| {
                    actor.serve(&["tcp", address, "--share", "--reply", reply])
                })
            };
            ports.iter().enumerate().flat_map(both).collect()
        };
        let calls = || {
            let each = |address: &String| [0; 4].map(|_| api.tcp(address, &[]));
            ports.iter().flat_map(each).collect::<Vec<_>>()
        };
        let before = serve();
        let (to_db, to_web): (Vec<_>, Vec<_>) = calls()
            .into_iter()
            .map(|outcome| outcome.expect_ok("without the agent").received)
            .partition(|received| *received == 1);
        assert!(!to_db.is_empty() && !to_web.is_empty());
        drop(before);

        // From then on web may not join db.
        let _servers = serve();
        let agent = Agent::start(sandbox, &api_and_db());
        let mut ends = BTreeMap::<_, usize>::new();
        for outcome in calls() {
            assert!(!outcome.ok() || outcome.received == 1, "{outcome:?}");
            *ends.entry(outcome.error).or_default() += 1;
        }
        let number = |error: Option<&str>| ends.get(&error.map(str::to_owned)).copied();
        let (passed, refused, cut) = (
            number(None).unwrap_or(0),
            number(Some("EPERM")).unwrap_or(0),
            number(Some("ECONNABORTED")).unwrap_or(0),
        );
        assert!(passed > 0 && refused > 0 && cut > 0, "{ends:?}");
        assert_eq!(passed + refused + cut, 96, "{ends:?}");
        assert_eq!(denials(&agent).len(), refused + cut);
        agent.assert_counters();
    });
}
