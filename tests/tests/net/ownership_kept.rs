//! What a socket keeps: a flow belongs to whoever opened it, whoever uses the socket later, over a restart
//! of the agent too.

use ringfence_tests::{
    Agent,
    flows::line,
    policy::{policy, workloads},
    poll::until,
    scene,
};

use crate::ownership_stage::{BAD, By, GOOD, Played, Stage, assert_one, last_of};

/// What the script does after `a` has connected; its last step uses the connection.
pub struct Row {
    what: &'static str,
    script: &'static str,
}

pub const fn row(what: &'static str, script: &'static str) -> Row {
    Row { what, script }
}

const CGROUP: &[Row] = &[
    row(
        "fork",
        "a socket tcp 10; a connect 10 {tcp}; a fork; a cgroup {b}; a exchange 10",
    ),
    row(
        "a move after connect",
        "a socket tcp 10; a connect 10 {tcp}; a cgroup {b}; a exchange 10",
    ),
    row(
        "a thread",
        "a socket tcp 10; a connect 10 {tcp}; a thread exchange 10",
    ),
    row(
        "dup",
        "a socket tcp 10; a connect 10 {tcp}; a dup 10 11; a close 10; a dup 11 10; a exchange 10",
    ),
    row(
        "TCP passed",
        "a socket tcp 10; a connect 10 {tcp}; b mailbox {box}; a give {box} 10; a close 10; b take 10; b exchange 10",
    ),
    row(
        "connected UDP passed",
        "a socket udp 10; a connect 10 {udp}; a exchange 10; b mailbox {box}; a give {box} 10; a close 10; b take 10; b exchange 10",
    ),
    row(
        "setns after connect",
        "a socket tcp 10; a connect 10 {tcp}; a netns {netns}; a exchange 10",
    ),
];

const EXECUTABLE: &[Row] = &[
    row(
        "exec",
        "a socket tcp 10; a connect 10 {tcp}; a exec {b.exe}; a exchange 10",
    ),
    row(
        "exec with connected UDP",
        "a socket udp 10; a connect 10 {udp}; a exchange 10; a exec {b.exe}; a exchange 10",
    ),
];

const USER: &[Row] = &[
    row(
        "setuid",
        "a uid {a.uid}; a socket tcp 10; a connect 10 {tcp}; a uid {b.uid}; a exchange 10",
    ),
    row(
        "the effective user alone",
        "a uid {a.uid}; a socket tcp 10; a connect 10 {tcp}; a euid {b.uid}; a exchange 10",
    ),
    row(
        "a thread with a user of its own",
        "a uid {a.uid}; a socket tcp 10; a connect 10 {tcp}; a thread uid {b.uid} exchange 10",
    ),
];

const GROUP: &[Row] = &[
    row(
        "setgroups",
        "a groups {a.gid}; a socket tcp 10; a connect 10 {tcp}; a groups {b.gid}; a exchange 10",
    ),
    row(
        "setgroups with connected UDP",
        "a groups {a.gid}; a socket udp 10; a connect 10 {udp}; a exchange 10; a groups {b.gid}; a exchange 10",
    ),
    row(
        "setgid",
        "a gid {a.gid}; a socket tcp 10; a connect 10 {tcp}; a gid {b.gid}; a exchange 10",
    ),
    row(
        "the effective group alone",
        "a gid {a.gid}; a socket tcp 10; a connect 10 {tcp}; a egid {b.gid}; a exchange 10",
    ),
];

#[test]
fn a_connection_is_whoever_opened_its_by_cgroup() {
    scene("kept-cgroup", |sandbox| {
        play(&Stage::new(sandbox, By::Cgroup), CGROUP);
    });
}

#[test]
fn a_connection_is_whoever_opened_its_by_executable() {
    scene("kept-exe", |sandbox| {
        play(&Stage::new(sandbox, By::Executable), EXECUTABLE);
    });
}

#[test]
fn a_connection_is_whoever_opened_its_by_user() {
    scene("kept-user", |sandbox| {
        play(&Stage::new(sandbox, By::User), USER);
    });
}

#[test]
fn a_connection_is_whoever_opened_its_by_group() {
    scene("kept-group", |sandbox| {
        play(&Stage::new(sandbox, By::Group), GROUP);
    });
}

pub fn play(stage: &Stage<'_>, rows: &[Row]) {
    for row in rows {
        let _ = stage.play(row.script, BAD).last.expect_ok(row.what);
    }
    let mut agent = stage.agent();
    let mut held = Vec::new();
    for row in rows {
        let (refused, passed) = stage.play_until_refused(row.script, BAD);
        assert!(
            !passed && !refused.last.ok(),
            "{}: {:?}",
            row.what,
            refused.last
        );
        let played = stage.play(row.script, GOOD);
        assert!(played.last.ok(), "{}: {:?}", row.what, played.last);
        held.push((row, played));
    }
    use_all(&mut held, "while it is allowed");
    agent.assert_counters();
    agent.kill();
    use_all(&mut held, "without an agent");
    agent.restart();
    use_all(&mut held, "after a restart");
    agent.set_policy(&stage.policy(BAD));
    for (row, played) in &mut held {
        let last = last_of(row.script);
        until(row.what, || !played.step(last).ok());
    }
    let cut = agent
        .log()
        .iter()
        .map(line)
        .filter(|line| line.contains(" revoked "))
        .count();
    assert!(
        cut >= rows.len(),
        "{cut} of {} are recorded as revoked",
        rows.len()
    );
}

#[track_caller]
fn use_all(held: &mut [(&Row, Played)], when: &str) {
    for (row, played) in held {
        let outcome = played.step(last_of(row.script));
        assert!(outcome.ok(), "{} {when}: {outcome:?}", row.what);
    }
}

#[test]
fn a_socket_that_is_handed_on_answers_for_what_its_new_owner_sends() {
    scene("in-flight", |sandbox| {
        let stage = Stage::new(sandbox, By::Cgroup);
        // The datagram is answered while nobody holds the socket but the mailbox.
        let in_flight = "a socket udp 10; b mailbox {box}; a sendto 10 {udp}; a give {box} 10; a close 10; \
                         b take 10; b receive 10";
        let named = "a socket udp 10; a connect 10 {udp}; a exchange 10; b mailbox {box}; a give {box} 10; \
                     b take 10; b sendto 10 {udp}";
        for script in [in_flight, named] {
            let _ = stage.play(script, GOOD).last.expect_ok("without an agent");
        }
        let agent = stage.agent();
        let mut played = stage.play(in_flight, GOOD);
        assert!(
            played.last.ok(),
            "the answer to what good sent: {:?}",
            played.last
        );
        let outcome = played
            .step("b sendto 10 {udp}")
            .expect_refused("sendto", "bad sends");
        assert_one(
            &agent,
            "bad sends",
            "deny egress udp bad -> db 127.0.0.1:5300 deny default-deny",
            &format!(" by bad[{}]", outcome.pid),
        );
        // Who names a destination owns a connected socket too, and what follows without one is its own.
        let mut played = stage.play(named, GOOD);
        assert!(played.last.failed("sendto", "EPERM"), "{:?}", played.last);
        let outcome = played.step("b send 10");
        assert!(outcome.failed("send", "EPERM"), "{outcome:?}");
        // It is good's again when good names one.
        let _ = played.step("a sendto 10 {udp}").expect_ok("good sends");
        let _ = played.step("b exchange 10").expect_ok("the flow is good's");
        agent.assert_counters();
    });
}

#[test]
fn a_connection_outlives_the_cgroup_that_it_was_opened_in() {
    scene("gone", |sandbox| {
        let db = sandbox.actor("db");
        let _server = db.serve(&["tcp", "127.0.0.1:5432", "--echo"]);
        let free = sandbox.cgroup("free");
        let text = |ports: &str| {
            let rules = [("egress", &*format!("ports = [\"{ports}\"]"))];
            workloads(&["brief", "free", "db"]) + &policy("brief", "", &rules)
        };
        let mut agent = Agent::start(sandbox, &text("5432/tcp"));
        let mut puppet = sandbox.actor("brief").puppet();
        for step in [
            "socket tcp 10",
            "connect 10 127.0.0.1:5432",
            &format!("cgroup {}", free.display()),
            "exchange 10",
        ] {
            let _ = puppet.ask(step).expect_ok(step);
        }
        std::fs::remove_dir(sandbox.cgroup("brief")).unwrap();
        agent.kill();
        agent.restart();
        let _ = puppet.ask("exchange 10").expect_ok("after a restart");
        agent.set_policy(&text("5433/tcp"));
        until("the flow is cut", || !puppet.ask("exchange 10").ok());
        let by = format!(" revoked by brief[{}]", puppet.pid());
        let start = "deny egress tcp brief -> db 127.0.0.1:5432 deny default-deny";
        assert_one(&agent, "what brief opened", start, &by);
        let _ = puppet.ask("socket tcp 11").expect_ok("a socket");
        let _ = puppet.ask("connect 11 127.0.0.1:5432").expect_ok("as free");
    });
}
