//! Owners of sockets that are older than the agent, wherever they are.

use ringfence_tests::{
    Actor, Agent, Running, Sandbox,
    namespace::Namespace,
    policy::{policy, workloads},
    scene,
};

use crate::{common::assert_refused, ownership_stage::assert_one};

const DB: &str = "127.0.0.1:5432";

fn text() -> String {
    let allowed = [(
        "egress",
        "to = [{ workload = \"db\" }]\nports = [\"5432/tcp\"]",
    )];
    workloads(&["good", "bad", "db"])
        + &policy("good", "", &allowed)
        + &policy("bad", "default-deny = [\"egress\"]", &[])
}

#[test]
fn sockets_of_another_network_namespace_are_adopted() {
    scene("adopt-netns", |sandbox| {
        let other = Namespace::new();
        let there = |name| sandbox.actor(name).in_namespace(&other);
        let [good, bad, db] = ["good", "bad", "db"].map(there);
        let _server = db.serve(&["tcp", DB, "--echo"]);
        let mut allowed = good.hold(DB);
        let forbidden = bad.hold(DB);
        let agent = Agent::start(sandbox, &text());
        let cut = forbidden.last();
        assert!(!cut.ok(), "{cut:?}");
        // That the listener is db's is known there, too.
        let _ = good.tcp(DB, &[]).expect_ok("good calls db");
        let _ = assert_refused(&bad, DB, &[]);
        assert!(allowed.is_alive(), "an allowed flow was cut");
        agent.assert_counters();
    });
}

#[test]
fn a_listener_outside_the_guarded_tree_is_the_host() {
    scene("adopt-host", |sandbox| {
        let (good, stranger) = (sandbox.actor("good"), sandbox.stranger("stranger"));
        let _server = stranger.serve(&["tcp", DB, "--echo"]);
        let _ = good.tcp(DB, &[]).expect_ok("without the agent");
        let agent = Agent::start(sandbox, &text());
        let refused = assert_refused(&good, DB, &[]);
        let expected = format!(
            "deny egress tcp good -> host {DB} deny default-deny {}",
            good.by(refused.pid)
        );
        agent.assert_log(&[expected]);
        agent.assert_counters();
    });
}

/// `from` does `first` with a socket and leaves it in the mailbox of `to`: nobody holds it.
fn left_in_mailbox(sandbox: &Sandbox, from: &Actor, to: &Actor, first: &[&str]) -> Running {
    let (mut giver, mut taker) = (from.puppet(), to.puppet());
    let mailbox = sandbox.files().join(format!("box{}", taker.pid()));
    let mailbox = mailbox.display();
    let _ = taker
        .ask(&format!("mailbox {mailbox}"))
        .expect_ok("a mailbox");
    let give = format!("give {mailbox} 10");
    for step in [first, &[&give, "close 10"]].concat() {
        let _ = giver.ask(step).expect_ok(step);
    }
    taker
}

#[test]
fn a_socket_in_flight_when_the_agent_starts_is_whoever_calls_with_it() {
    scene("adopt-first", |sandbox| {
        let [good, bad, db] = ["good", "bad", "db"].map(|name| sandbox.actor(name));
        let _server = db.serve(&["tcp", DB, "--echo"]);
        let first = ["socket tcp 10"];
        let mut takers = [(&bad, &good), (&good, &bad)]
            .map(|(from, to)| left_in_mailbox(sandbox, from, to, &first));
        let agent = Agent::start(sandbox, &text());
        for (index, taker) in takers.iter_mut().enumerate() {
            let _ = taker.ask("take 10").expect_ok("the socket");
            let outcome = taker.ask(&format!("connect 10 {DB}"));
            assert_eq!(outcome.ok(), index == 0, "{outcome:?}");
            let (start, by) = if index == 0 {
                ("open egress tcp good -> db", good.by(outcome.pid))
            } else {
                ("deny egress tcp bad -> db", bad.by(outcome.pid))
            };
            assert_one(&agent, "who called", start, &by);
        }
        agent.assert_counters();
    });
}

#[test]
fn a_connection_in_flight_when_the_agent_starts_is_judged_by_its_cgroup() {
    scene("adopt-mailbox", |sandbox| {
        let [good, bad, db] = ["good", "bad", "db"].map(|name| sandbox.actor(name));
        let _server = db.serve(&["tcp", DB, "--echo"]);
        let connect = format!("connect 10 {DB}");
        let first = ["socket tcp 10", &connect, "exchange 10"];
        let mut takers = [(&good, &bad), (&bad, &good)]
            .map(|(from, to)| left_in_mailbox(sandbox, from, to, &first));
        let agent = Agent::start(sandbox, &text());
        for (index, taker) in takers.iter_mut().enumerate() {
            let _ = taker.ask("take 10").expect_ok("the connection");
            let outcome = taker.ask("exchange 10");
            assert_eq!(outcome.ok(), index == 0, "{outcome:?}");
        }
        agent.assert_counters();
    });
}
