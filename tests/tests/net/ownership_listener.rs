//! A listener and what it accepts belong to whoever bound it, whoever takes the calls.

use ringfence_tests::{Agent, flows::line, scene};

use crate::ownership_stage::{BAD, By, GOOD, Stage, assert_one};

/// A way in which a listener gets to somebody else, who then takes a call of `c`.
struct Row {
    what: &'static str,
    script: &'static str,
}

const fn row(what: &'static str, script: &'static str) -> Row {
    Row { what, script }
}

const CGROUP: &[Row] = &[
    row(
        "a listener",
        "a socket tcp 10; a bind 10 {port}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "accept in a child of another cgroup",
        "a socket tcp 10; a bind 10 {port}; a listen 10; a fork; a cgroup {b}; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "a move before bind",
        "a cgroup {b}; a socket tcp 10; a cgroup {a}; a bind 10 {port}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "a move after listen",
        "a socket tcp 10; a bind 10 {port}; a listen 10; a cgroup {b}; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "a move between bind and listen",
        "a socket tcp 10; a bind 10 {port}; a cgroup {b}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "fork after bind, the child of another cgroup listens",
        "a socket tcp 10; a bind 10 {port}; a fork; a cgroup {b}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "a listener passed",
        "a socket tcp 10; a bind 10 {port}; a listen 10; b mailbox {box}; a give {box} 10; a close 10; b take 10; c socket tcp 20; c connect 20 {port}; b accept 10 11; c send 20; b receive 11",
    ),
];

const EXECUTABLE: &[Row] = &[
    row(
        "exec with a listener",
        "a socket tcp 10; a bind 10 {port}; a listen 10; a exec {b.exe}; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "exec between bind and listen",
        "a socket tcp 10; a bind 10 {port}; a exec {b.exe}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "fork after bind, the child runs another program and listens",
        "a socket tcp 10; a bind 10 {port}; a fork; a exec {b.exe}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "socket activation: descriptor 3 of a child",
        "a socket tcp 3; a bind 3 {port}; a listen 3; a fork; a exec {b.exe}; c socket tcp 20; c connect 20 {port}; a accept 3 11; c send 20; a receive 11",
    ),
];

const USER: &[Row] = &[
    row(
        "setuid after listen",
        "a uid {a.uid}; a socket tcp 10; a bind 10 {port}; a listen 10; a uid {b.uid}; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "setuid between bind and listen",
        "a uid {a.uid}; a socket tcp 10; a bind 10 {port}; a uid {b.uid}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "the effective user alone",
        "a uid {a.uid}; a socket tcp 10; a euid {b.uid}; a bind 10 {port}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
];

const GROUP: &[Row] = &[
    row(
        "setgroups after listen",
        "a groups {a.gid}; a socket tcp 10; a bind 10 {port}; a listen 10; a groups {b.gid}; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "setgroups between bind and listen",
        "a groups {a.gid}; a socket tcp 10; a bind 10 {port}; a groups {b.gid}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "setgid after listen",
        "a gid {a.gid}; a socket tcp 10; a bind 10 {port}; a listen 10; a gid {b.gid}; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
    row(
        "the effective group alone",
        "a gid {a.gid}; a socket tcp 10; a egid {b.gid}; a bind 10 {port}; a listen 10; c socket tcp 20; c connect 20 {port}; a accept 10 11; c send 20; a receive 11",
    ),
];

#[test]
fn a_listener_is_whoever_bound_its_by_cgroup() {
    scene("bound-cgroup", |sandbox| {
        listen(&Stage::new(sandbox, By::Cgroup), CGROUP);
    });
}

#[test]
fn a_listener_is_whoever_bound_its_by_executable() {
    scene("bound-exe", |sandbox| {
        listen(&Stage::new(sandbox, By::Executable), EXECUTABLE);
    });
}

#[test]
fn a_listener_is_whoever_bound_its_by_user() {
    scene("bound-user", |sandbox| {
        listen(&Stage::new(sandbox, By::User), USER);
    });
}

#[test]
fn a_listener_is_whoever_bound_its_by_group() {
    scene("bound-group", |sandbox| {
        listen(&Stage::new(sandbox, By::Group), GROUP);
    });
}

fn listen(stage: &Stage<'_>, rows: &[Row]) {
    for row in rows {
        for a in [GOOD, BAD] {
            let _ = stage.play(row.script, a).last.expect_ok(row.what);
        }
    }
    let agent = stage.agent();
    for row in rows {
        let (refused, passed) = stage.play_until_refused(row.script, BAD);
        assert!(
            !passed && refused.last.failed("connect", "EPERM"),
            "{}: {:?}",
            row.what,
            refused.last
        );
        let by = format!("by caller[{}]", refused.last.pid);
        let start = "deny egress tcp caller -> bad 127.0.0.1:7000 deny default-deny peer";
        assert_one(&agent, row.what, start, &by);
        drop(refused);
        let before = opened(&agent);
        let played = stage.play(row.script, GOOD);
        assert!(played.last.ok(), "{}: {:?}", row.what, played.last);
        assert_eq!(opened(&agent), before + 1, "{}", row.what);
    }
    agent.assert_counters();
}

/// Calls that `good`'s program took, as recorded.
fn opened(agent: &Agent) -> usize {
    let start =
        "open ingress tcp caller -> good 127.0.0.1:7000 allow rule-allow good/ingress[0] by good[";
    agent
        .log()
        .iter()
        .map(line)
        .filter(|line| line.starts_with(start))
        .count()
}
