//! Who owns a socket: whoever connects, binds or names a destination last. Each row of
//! docs/ownership.md where the socket is judged anew has a script here, or in `ownership_uring` where it takes that.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use ringfence_tests::scene;

use crate::ownership_stage::{BAD, By, GOOD, NAMES, Stage, assert_one};

/// A way of using a socket, the part whose workload decides and the part whose program is recorded.
pub struct Row {
    what: &'static str,
    script: &'static str,
    decides: char,
    program: char,
}

pub const fn row(what: &'static str, script: &'static str, decides: char, program: char) -> Row {
    Row {
        what,
        script,
        decides,
        program,
    }
}

/// Recorded under the name of the kernel's polling thread.
pub const POLLER: char = 'p';

const CGROUP: &[Row] = &[
    row("a call", "a socket tcp 10; a connect 10 {tcp}", 'a', 'a'),
    row(
        "dup",
        "a socket tcp 10; a dup 10 11; a close 10; a connect 11 {tcp}",
        'a',
        'a',
    ),
    row(
        "a second thread",
        "a socket tcp 10; a thread connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "fork, then the child calls",
        "a socket tcp 10; a fork; a connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "fork into another cgroup",
        "a socket tcp 10; a fork; a cgroup {b}; a connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "vfork",
        "a socket tcp 10; a vfork connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "vfork after a move",
        "a socket tcp 10; a cgroup {b}; a vfork connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "a move before connect",
        "a socket tcp 10; a cgroup {b}; a connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "a move before connected UDP",
        "a socket udp 10; a cgroup {b}; a connect 10 {udp}",
        'b',
        'a',
    ),
    row(
        "a move before a datagram",
        "a socket udp 10; a cgroup {b}; a sendto 10 {udp}",
        'b',
        'a',
    ),
    row(
        "TCP passed before connect",
        "a socket tcp 10; b mailbox {box}; a give {box} 10; a close 10; b take 10; b connect 10 {tcp}",
        'b',
        'b',
    ),
    row(
        "TCP bound, then passed",
        "a socket tcp 10; a bind 10 127.0.0.1:0; b mailbox {box}; a give {box} 10; b take 10; b connect 10 {tcp}",
        'b',
        'b',
    ),
    row(
        "UDP passed",
        "a socket udp 10; b mailbox {box}; a give {box} 10; a close 10; b take 10; b sendto 10 {udp}",
        'b',
        'b',
    ),
    row(
        "UDP passed, then connected",
        "a socket udp 10; b mailbox {box}; a give {box} 10; b take 10; b connect 10 {udp}",
        'b',
        'b',
    ),
    row(
        "setns after socket",
        "a socket tcp 10; a netns {netns}; a connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "another network namespace",
        "a netns {netns}; a socket tcp 10; a connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "a socket passed from another network namespace",
        "a netns {netns}; a socket tcp 10; b mailbox {box}; a give {box} 10; b take 10; b connect 10 {tcp}",
        'b',
        'b',
    ),
];

const EXECUTABLE: &[Row] = &[
    row("a call", "a socket tcp 10; a connect 10 {tcp}", 'a', 'a'),
    row(
        "exec before connect",
        "a socket tcp 10; a exec {b.exe}; a connect 10 {tcp}",
        'b',
        'b',
    ),
    row(
        "exec before a datagram",
        "a socket udp 10; a exec {b.exe}; a sendto 10 {udp}",
        'b',
        'b',
    ),
    row(
        "fork and exec",
        "a socket tcp 10; a fork; a exec {b.exe}; a connect 10 {tcp}",
        'b',
        'b',
    ),
    row(
        "vfork",
        "a socket tcp 10; a vfork connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "TCP passed before connect",
        "a socket tcp 10; b mailbox {box}; a give {box} 10; b take 10; b connect 10 {tcp}",
        'b',
        'b',
    ),
];

const USER: &[Row] = &[
    row(
        "a call",
        "a uid {a.uid}; a socket tcp 10; a connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "setuid between socket and connect",
        "a uid {a.uid}; a socket tcp 10; a uid {b.uid}; a connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "setuid between socket and a datagram",
        "a uid {a.uid}; a socket udp 10; a uid {b.uid}; a sendto 10 {udp}",
        'b',
        'a',
    ),
    row(
        "the effective user alone",
        "a uid {a.uid}; a socket tcp 10; a euid {b.uid}; a connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "a thread with a user of its own",
        "a uid {a.uid}; a socket tcp 10; a thread uid {b.uid} connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "the other threads of such a process",
        "a uid {a.uid}; a socket tcp 10; a thread uid {b.uid} socket udp 11; a connect 10 {tcp}",
        'a',
        'a',
    ),
];

const GROUP: &[Row] = &[
    row(
        "a call",
        "a groups {a.gid}; a socket tcp 10; a connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "setgroups between socket and connect",
        "a groups {a.gid}; a socket tcp 10; a groups {b.gid}; a connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "setgroups between socket and a datagram",
        "a groups {a.gid}; a socket udp 10; a groups {b.gid}; a sendto 10 {udp}",
        'b',
        'a',
    ),
    row(
        "setgid between socket and connect",
        "a gid {a.gid}; a socket tcp 10; a gid {b.gid}; a connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "the effective group alone",
        "a gid {a.gid}; a socket tcp 10; a egid {b.gid}; a connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "a thread with groups of its own",
        "a groups {a.gid}; a socket tcp 10; a thread groups {b.gid} connect 10 {tcp}",
        'b',
        'a',
    ),
];

#[test]
fn who_uses_a_socket_owns_it_by_cgroup() {
    scene("own-cgroup", |sandbox| {
        play(&Stage::new(sandbox, By::Cgroup), CGROUP);
    });
}

#[test]
fn who_uses_a_socket_owns_it_by_executable() {
    scene("own-exe", |sandbox| {
        play(&Stage::new(sandbox, By::Executable), EXECUTABLE);
    });
}

#[test]
fn who_uses_a_socket_owns_it_by_user() {
    scene("own-user", |sandbox| {
        play(&Stage::new(sandbox, By::User), USER);
    });
}

#[test]
fn who_uses_a_socket_owns_it_by_group() {
    scene("own-group", |sandbox| {
        play(&Stage::new(sandbox, By::Group), GROUP);
    });
}

pub fn play(stage: &Stage<'_>, rows: &[Row]) {
    for row in rows {
        for a in [GOOD, BAD] {
            let _ = stage.play(row.script, a).last.expect_ok(row.what);
        }
    }
    let agent = stage.agent();
    for row in rows {
        for a in [GOOD, BAD] {
            let decides = if row.decides == 'a' { a } else { 1 - a };
            let outcome = stage.play(row.script, a).last;
            let program = match row.program {
                'a' => NAMES[a].to_owned(),
                'b' => NAMES[1 - a].to_owned(),
                _ => format!("iou-sqp-{}", outcome.pid),
            };
            let program: String = program.chars().take(15).collect();
            let by = format!(" by {program}[{}]", outcome.pid);
            let (protocol, place) = if row.script.ends_with("{udp}") {
                ("udp", "127.0.0.1:5300")
            } else {
                ("tcp", "127.0.0.1:5432")
            };
            let what = format!("{} with a = {}", row.what, NAMES[a]);
            let start = if decides == GOOD {
                let _ = outcome.expect_ok(&what);
                if protocol == "udp" && row.script.contains("connect") {
                    // It is recorded with its first datagram.
                    continue;
                }
                format!("open egress {protocol} good -> db {place} allow rule-allow good/egress[0]")
            } else {
                assert!(
                    outcome.error.as_deref() == Some("EPERM"),
                    "{what}: {outcome:?}"
                );
                format!("deny egress {protocol} bad -> db {place} deny default-deny")
            };
            assert_one(&agent, &what, &start, &by);
        }
    }
    agent.assert_counters();
}
