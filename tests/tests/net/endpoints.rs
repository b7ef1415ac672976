//! Where workloads listen: as sockets come and go, in every network namespace, up to the controller.

use std::collections::BTreeSet;

use ringfence_proto::text::listening;
use ringfence_tests::{
    Agent, Controller, Running,
    namespace::Namespace,
    policy::{policy, workload, workloads},
    poll::until,
    scene,
};

use crate::common::three_tiers;

/// Workload, socket and namespace of every endpoint, without the namespace's number: 0 is the first one.
fn endpoints(agent: &Agent) -> BTreeSet<(String, String)> {
    let found = agent.client().endpoints().unwrap();
    found
        .iter()
        .map(|it| (it.workload.clone(), listening(it)))
        .collect()
}

fn expected(list: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    let owned = list
        .iter()
        .map(|(name, socket)| ((*name).to_owned(), (*socket).to_owned()));
    owned.collect()
}

#[track_caller]
fn assert_endpoints(agent: &Agent, list: &[(&str, &str)]) {
    assert_eq!(endpoints(agent), expected(list));
}

#[test]
fn endpoints_come_and_go_with_their_sockets() {
    scene("endpoints", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let (other, stranger) = (sandbox.actor("other"), sandbox.stranger("stranger"));
        // What listened before the agent came is adopted.
        let old = web.start(&["listen", "tcp", "127.0.0.1:7001"]);
        let agent = Agent::start(sandbox, &workloads(&["web", "db"]));
        until("the adopted listener is an endpoint", || {
            endpoints(&agent) == expected(&[("web", "tcp 127.0.0.1:7001")])
        });

        let listen = |actor: &ringfence_tests::Actor, protocol, address| -> Running {
            let mut held = actor.start(&["listen", protocol, address]);
            let _ready = held.line().expect_ok("a socket");
            held
        };
        let v4 = listen(&web, "tcp", "0.0.0.0:7002");
        let v6 = listen(&web, "tcp", "[::1]:7003");
        let both = listen(&db, "tcp", "[::]:7004");
        let udp4 = listen(&db, "udp", "127.0.0.1:7005");
        let udp6 = listen(&db, "udp", "[::1]:7006");
        // Of no workload: guarded, and not guarded.
        let _others = [
            listen(&other, "tcp", "127.0.0.1:7007"),
            listen(&stranger, "tcp", "127.0.0.1:7008"),
        ];
        // A connection is no endpoint, and a UDP socket that is connected is none.
        let _client = other.start(&["hold", "127.0.0.1:7002", "--wait"]);
        let all = [
            ("web", "tcp 127.0.0.1:7001"),
            ("web", "tcp 0.0.0.0:7002"),
            ("web", "tcp [::1]:7003"),
            ("db", "tcp [::]:7004"),
            ("db", "udp 127.0.0.1:7005"),
            ("db", "udp [::1]:7006"),
        ];
        assert_endpoints(&agent, &all);
        let found = agent.client().endpoints().unwrap();
        let dual: Vec<_> = found
            .iter()
            .filter(|it| it.dual_stack)
            .map(listening)
            .collect();
        assert_eq!(dual, ["tcp [::]:7004"]);
        let known = agent.client().workloads().unwrap();
        for endpoint in &found {
            let owner = known.iter().find(|it| it.name == endpoint.workload);
            assert_eq!(owner.map(|it| it.identity), Some(endpoint.identity));
        }

        drop((old, v4, v6, udp4));
        assert_endpoints(&agent, &[("db", "tcp [::]:7004"), ("db", "udp [::1]:7006")]);
        drop((both, udp6));
        assert_endpoints(&agent, &[]);
    });
}

#[test]
fn a_workload_in_another_network_namespace_has_its_endpoints_there() {
    scene("endpoints-netns", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let agent = Agent::start(sandbox, &workloads(&["web", "db"]));
        let elsewhere = Namespace::new();
        let there = db.in_namespace(&elsewhere);
        // The same address and port, twice: they are told apart by their namespaces.
        let mut held: Vec<_> = [(&web, "tcp"), (&there, "tcp"), (&there, "udp")]
            .map(|(actor, protocol)| actor.start(&["listen", protocol, "127.0.0.1:7100"]))
            .into();
        for socket in &mut held {
            let _ready = socket.line().expect_ok("a socket");
        }
        let found = agent.client().endpoints().unwrap();
        let of = |name: &str| {
            let of = found.iter().filter(|it| it.workload == name);
            of.map(|it| it.namespace).collect::<Vec<_>>()
        };
        assert!(
            matches!((of("web").as_slice(), of("db").as_slice()), ([here], [a, b]) if a == b && here != a),
            "{found:?}"
        );
        drop(held);
        assert_endpoints(&agent, &[]);
        // The agent does not keep the namespace alive: nothing stands for it any more.
        let number = std::fs::read_link(elsewhere.path()).unwrap();
        drop(elsewhere);
        until("the namespace is let go", || {
            let _look = agent.client().endpoints().unwrap();
            let entries = std::fs::read_dir("/proc").unwrap().flatten();
            let mut links =
                entries.filter_map(|it| std::fs::read_link(it.path().join("ns/net")).ok());
            !links.any(|link| link == number)
        });
    });
}

#[test]
fn processes_of_one_cgroup_own_their_listeners_by_executable() {
    scene("endpoints-exe", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let db = db.in_cgroup(sandbox, "shared");
        let web = web.in_cgroup(sandbox, "shared");
        let exe =
            |actor: &ringfence_tests::Actor| format!("exe = \"{}\"", actor.program().display());
        let agent = Agent::start(
            sandbox,
            &(workload("web", &exe(&web)) + &workload("db", &exe(&db))),
        );
        let mut held = [
            web.start(&["listen", "tcp", "127.0.0.1:7200"]),
            db.start(&["listen", "tcp", "127.0.0.1:7201"]),
            web.start(&["listen", "udp", "127.0.0.1:7202"]),
            db.start(&["listen", "udp", "[::1]:7203"]),
        ];
        for socket in &mut held {
            let _ready = socket.line().expect_ok("a socket");
        }
        let all = [
            ("web", "tcp 127.0.0.1:7200"),
            ("db", "tcp 127.0.0.1:7201"),
            ("web", "udp 127.0.0.1:7202"),
            ("db", "udp [::1]:7203"),
        ];
        until("each listener has its owner", || {
            endpoints(&agent) == expected(&all)
        });
        // A policy that turns the names round turns the owners round.
        let swapped = workload("web", &exe(&db)) + &workload("db", &exe(&web));
        agent.set_policy(&swapped);
        let all = [
            ("db", "tcp 127.0.0.1:7200"),
            ("web", "tcp 127.0.0.1:7201"),
            ("db", "udp 127.0.0.1:7202"),
            ("web", "udp [::1]:7203"),
        ];
        until("the owners follow the policy", || {
            endpoints(&agent) == expected(&all)
        });
    });
}

#[test]
fn the_controller_sees_endpoints_while_the_agent_is_connected() {
    scene("endpoints-sync", |sandbox| {
        let (web, db) = (sandbox.actor("web"), sandbox.actor("db"));
        let mut controller = Controller::start(sandbox, &three_tiers());
        let mut agent = Agent::start_with(sandbox, &controller.options(), "");
        let first = db.serve(&["tcp", "127.0.0.1:5432"]);
        let seen = |controller: &Controller| {
            let found = controller.endpoints();
            let rows = found.as_array().cloned().unwrap_or_default();
            rows.iter()
                .map(|row| {
                    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
                    assert_eq!(text("host"), "test-host");
                    format!(
                        "{} {}:{}/{}",
                        text("workload"),
                        text("address"),
                        row["port"],
                        row["protocol"]
                    )
                })
                .collect::<Vec<_>>()
        };
        until("the listener is known to the controller", || {
            seen(&controller) == ["db 127.0.0.1:5432/6"]
        });
        let second = web.start(&["listen", "udp", "[::1]:5353"]);
        until("a change follows", || {
            seen(&controller) == ["db 127.0.0.1:5432/6", "web ::1:5353/17"]
        });
        assert_eq!(controller.agent().get("endpoints"), Some(&2.into()));
        drop(first);
        until("a socket that is closed goes", || {
            seen(&controller) == ["web ::1:5353/17"]
        });

        assert!(controller.stop(), "{}", controller.daemon().log());
        controller.restart();
        until("a controller that starts anew gets all of them", || {
            seen(&controller) == ["web ::1:5353/17"]
        });
        agent.kill();
        until("they go with the agent", || seen(&controller).is_empty());
        drop(second);
    });
}

#[test]
fn a_listener_that_policy_refuses_is_no_endpoint() {
    scene("endpoints-listen", |sandbox| {
        let web = sandbox.actor("web");
        let rules = [("listen", "ports = [\"8080/tcp\"]")];
        let agent = Agent::start(sandbox, &(workloads(&["web"]) + &policy("web", "", &rules)));
        let _refused = web
            .run(&["bind", "tcp", "127.0.0.1:8081"])
            .expect_refused("bind", "a port without a rule");
        let mut held = web.start(&["listen", "tcp", "127.0.0.1:8080"]);
        let _ready = held.line().expect_ok("a port with a rule");
        assert_endpoints(&agent, &[("web", "tcp 127.0.0.1:8080")]);
    });
}
