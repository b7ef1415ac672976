//! Connections that say nothing: a change that denies them resets them, whoever has opened them and in whatever state they are.

use ringfence_tests::{
    Agent, Running, Sandbox,
    policy::{policy, workload, workloads},
    poll::until,
    scene,
};

use crate::common::{Pair, Side};

const AT_DB: &str = "127.0.0.1:5432";

fn text(ports: &str) -> String {
    let to = format!("to = [{{ workload = \"db\" }}]\nports = [{ports}]");
    let from = format!("from = [{{ workload = \"web\" }}]\nports = [{ports}]");
    workloads(&["web", "db"])
        + &policy("web", "", &[("egress", &to)])
        + &policy("db", "", &[("ingress", &from)])
}

/// A state: its name, the descriptor at both ends, and what was done after the connection was there.
type State = (&'static str, &'static str, &'static [(Who, &'static str)]);

const STATES: [State; 5] = [
    ("established", "10", &[(Who::Db, "accept 3 10")]),
    ("not accepted", "11", &[]),
    (
        "FIN_WAIT2 and CLOSE_WAIT",
        "12",
        &[(Who::Db, "accept 3 12"), (Who::Web, "shutdown 12")],
    ),
    (
        "CLOSE_WAIT and FIN_WAIT2",
        "13",
        &[(Who::Db, "accept 3 13"), (Who::Db, "shutdown 13")],
    ),
    (
        "FIN_WAIT1",
        "14",
        &[
            (Who::Db, "accept 3 14"),
            (Who::Db, "deaf 14"),
            (Who::Web, "shutdown 14"),
        ],
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Web,
    Db,
}

/// Connections in all states, none of which says anything from here on. The one that is not accepted comes last in the
/// queue of the listener.
fn connect(sandbox: &Sandbox) -> [Running; 2] {
    let [mut web, mut db] = ["web", "db"].map(|name| sandbox.actor(name).puppet());
    for line in ["socket tcp 3", &format!("bind 3 {AT_DB}"), "listen 3"] {
        let _done = db.ask(line).expect_ok(line);
    }
    let mut states = STATES;
    states.sort_by_key(|(_, _, then)| then.is_empty());
    for (state, fd, then) in states {
        for line in [format!("socket tcp {fd}"), format!("connect {fd} {AT_DB}")] {
            let _done = web.ask(&line).expect_ok(state);
        }
        for (who, line) in then {
            let puppet = match who {
                Who::Web => &mut web,
                Who::Db => &mut db,
            };
            let _done = puppet.ask(line).expect_ok(state);
        }
    }
    [web, db]
}

/// Whether a socket was reset: a read says so, or (after the end of what the peer says) a write does. EPIPE of a write
/// says so where its own end has not said that it ends.
fn is_reset(puppet: &mut Running, fd: &str, has_ended: bool) -> bool {
    let said = puppet.ask(&format!("receive {fd}"));
    let reset = ["ECONNABORTED", "ECONNRESET", "EPIPE"];
    let by_read = said
        .error
        .as_deref()
        .is_some_and(|error| reset.contains(&error));
    by_read || {
        // The end of file comes before an error that was told already.
        let said = puppet.ask(&format!("send {fd}"));
        said.error
            .as_deref()
            .is_some_and(|error| reset.contains(&error) && (error != "EPIPE" || !has_ended))
    }
}

#[track_caller]
fn assert_all_reset(agent: &Agent, [web, db]: &mut [Running; 2]) {
    until("no flow is live", || agent.status().live_flows == 0);
    for (state, fd, then) in STATES {
        let has_ended = |whose: Who| {
            let mut steps = then.iter();
            steps.any(|(who, line)| *who == whose && line.starts_with("shutdown"))
        };
        assert!(
            is_reset(web, fd, has_ended(Who::Web)),
            "{state}: at the caller"
        );
        if !then.is_empty() {
            assert!(
                is_reset(db, fd, has_ended(Who::Db)),
                "{state}: at the server"
            );
        }
    }
}

#[test]
fn idle_connections_are_reset_in_every_state() {
    scene("idle", |sandbox| {
        let agent = Agent::start(sandbox, &text("\"5432/tcp\""));
        let mut puppets = connect(sandbox);
        until("all are live", || agent.status().live_flows == 10);
        agent.set_policy(&text("\"1/tcp\""));
        assert_all_reset(&agent, &mut puppets);
    });
}

#[test]
fn idle_connections_from_before_a_restart_are_reset_in_every_state() {
    scene("idle-restart", |sandbox| {
        let mut agent = Agent::start(sandbox, &text("\"5432/tcp\""));
        let mut puppets = connect(sandbox);
        until("all are live", || agent.status().live_flows == 10);
        agent.kill();
        agent.restart();
        until("all are known again", || agent.status().live_flows == 10);
        agent.set_policy(&text("\"1/tcp\""));
        assert_all_reset(&agent, &mut puppets);
    });
}

#[test]
fn idle_connections_from_before_the_first_start_are_reset_in_every_state() {
    scene("idle-first", |sandbox| {
        let mut puppets = connect(sandbox);
        let agent = Agent::start(sandbox, &text("\"5432/tcp\""));
        // The one that nobody has accepted has no owner yet at its server.
        until("all are known", || agent.status().live_flows >= 9);
        agent.set_policy(&text("\"1/tcp\""));
        assert_all_reset(&agent, &mut puppets);
    });
}

#[test]
fn a_stream_goes_on_through_a_thousand_changes() {
    scene("thousand", |sandbox| {
        let pair = Pair::new(sandbox);
        let agent = Agent::start(sandbox, &Side::Old.policy());
        let _echo = sandbox
            .actor("db")
            .serve(&["tcp", "127.0.0.1:9100", "--echo"]);
        // Each message is answered before the next is sent.
        let mut stream = pair.web().hold("127.0.0.1:9100");
        let mut side = Side::Old;
        for change in 1..=1_000 {
            side = side.other();
            agent.set_policy(&side.policy());
            assert!(stream.is_alive(), "cut by change {change}");
        }
        assert_eq!(pair.side(), side);
        assert!(stream.is_alive());
    });
}

#[test]
fn an_idle_connection_is_judged_as_who_its_ends_are_now() {
    scene("idle-renamed", |sandbox| {
        let agent = Agent::start(sandbox, &text("\"5432/tcp\""));
        for (name, direction) in [("web", "egress"), ("db", "ingress")] {
            let mut puppets = connect(sandbox);
            until("all are live", || agent.status().live_flows == 10);
            // Another workload in the same cgroup, and the other end is of no policy.
            let successor = format!("{name}-anew");
            let denied = workload(&successor, &format!("cgroup = \"/{name}\""))
                + &policy(
                    &successor,
                    &format!("default-deny = [\"{direction}\"]"),
                    &[],
                );
            agent.set_policy(&denied);
            assert_all_reset(&agent, &mut puppets);
            drop(puppets);
            agent.set_policy(&text("\"5432/tcp\""));
        }
    });
}
