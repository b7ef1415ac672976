//! What a socket keeps: a flow belongs to whoever opened it, whoever uses the socket later, over a restart
//! of the agent too; a listener and what it accepts to whoever bound it.

use ringfence_tests::{
    Agent,
    flows::line,
    policy::{policy, workloads},
    poll::until,
    scene,
};

use crate::ownership_stage::{BAD, By, GOOD, Played, Stage, assert_one};

/// What the script does after `a` has connected; its last line uses the connection.
struct Row {
    what: &'static str,
    script: &'static [&'static str],
}

const CGROUP: &[Row] = &[
    Row {
        what: "fork",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a fork",
            "a cgroup {b}",
            "a exchange 10",
        ],
    },
    Row {
        what: "a move after connect",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a cgroup {b}",
            "a exchange 10",
        ],
    },
    Row {
        what: "a thread",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a thread exchange 10",
        ],
    },
    Row {
        what: "dup",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a dup 10 11",
            "a close 10",
            "a dup 11 10",
            "a exchange 10",
        ],
    },
    Row {
        what: "TCP passed",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "b mailbox {box}",
            "a give {box} 10",
            "a close 10",
            "b take 10",
            "b exchange 10",
        ],
    },
    Row {
        what: "connected UDP passed",
        script: &[
            "a socket udp 10",
            "a connect 10 {udp}",
            "a exchange 10",
            "b mailbox {box}",
            "a give {box} 10",
            "a close 10",
            "b take 10",
            "b exchange 10",
        ],
    },
    Row {
        what: "io_uring after a move",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a cgroup {b}",
            "a uring plain send 10",
            "a receive 10",
            "a exchange 10",
        ],
    },
    Row {
        what: "io_uring, polled after a move",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a cgroup {b}",
            "a uring polled send 10",
            "a receive 10",
            "a exchange 10",
        ],
    },
    Row {
        what: "setns after connect",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a netns {netns}",
            "a exchange 10",
        ],
    },
];

const EXECUTABLE: &[Row] = &[
    Row {
        what: "exec",
        script: &[
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a exec {b.exe}",
            "a exchange 10",
        ],
    },
    Row {
        what: "exec with connected UDP",
        script: &[
            "a socket udp 10",
            "a connect 10 {udp}",
            "a exchange 10",
            "a exec {b.exe}",
            "a exchange 10",
        ],
    },
];

const USER: &[Row] = &[
    Row {
        what: "setuid",
        script: &[
            "a uid {a.uid}",
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a uid {b.uid}",
            "a exchange 10",
        ],
    },
    Row {
        what: "a thread with a user of its own",
        script: &[
            "a uid {a.uid}",
            "a socket tcp 10",
            "a connect 10 {tcp}",
            "a thread uid {b.uid} exchange 10",
        ],
    },
];

#[test]
fn a_connection_is_whoever_opened_its_by_cgroup() {
    scene("kept-cgroup", |sandbox| {
        play(&Stage::new(sandbox, By::Cgroup), CGROUP)
    });
}

#[test]
fn a_connection_is_whoever_opened_its_by_executable() {
    scene("kept-exe", |sandbox| {
        play(&Stage::new(sandbox, By::Executable), EXECUTABLE)
    });
}

#[test]
fn a_connection_is_whoever_opened_its_by_user() {
    scene("kept-user", |sandbox| {
        play(&Stage::new(sandbox, By::User), USER)
    });
}

fn play(stage: &Stage<'_>, rows: &[Row]) {
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
        let last = row.script.last().unwrap();
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
        let outcome = played.step(row.script.last().unwrap());
        assert!(outcome.ok(), "{} {when}: {outcome:?}", row.what);
    }
}

/// `a` binds; then somebody else has the listener and takes the call.
const LISTENERS: &[Row] = &[
    Row {
        what: "a listener",
        script: &[
            "a socket tcp 10",
            "a bind 10 {port}",
            "a listen 10",
            "c socket tcp 20",
            "c connect 20 {port}",
            "a accept 10 11",
            "c send 20",
            "a receive 11",
        ],
    },
    Row {
        what: "accept in a child of another cgroup",
        script: &[
            "a socket tcp 10",
            "a bind 10 {port}",
            "a listen 10",
            "a fork",
            "a cgroup {b}",
            "c socket tcp 20",
            "c connect 20 {port}",
            "a accept 10 11",
            "c send 20",
            "a receive 11",
        ],
    },
    Row {
        what: "a move after listen",
        script: &[
            "a socket tcp 10",
            "a bind 10 {port}",
            "a listen 10",
            "a cgroup {b}",
            "c socket tcp 20",
            "c connect 20 {port}",
            "a accept 10 11",
            "c send 20",
            "a receive 11",
        ],
    },
    Row {
        what: "a move between bind and listen",
        script: &[
            "a socket tcp 10",
            "a bind 10 {port}",
            "a cgroup {b}",
            "a listen 10",
            "c socket tcp 20",
            "c connect 20 {port}",
            "a accept 10 11",
            "c send 20",
            "a receive 11",
        ],
    },
    Row {
        what: "a listener passed",
        script: &[
            "a socket tcp 10",
            "a bind 10 {port}",
            "a listen 10",
            "b mailbox {box}",
            "a give {box} 10",
            "a close 10",
            "b take 10",
            "c socket tcp 20",
            "c connect 20 {port}",
            "b accept 10 11",
            "c send 20",
            "b receive 11",
        ],
    },
];

const ACTIVATED: &[Row] = &[
    Row {
        what: "exec with a listener",
        script: &[
            "a socket tcp 10",
            "a bind 10 {port}",
            "a listen 10",
            "a exec {b.exe}",
            "c socket tcp 20",
            "c connect 20 {port}",
            "a accept 10 11",
            "c send 20",
            "a receive 11",
        ],
    },
    Row {
        what: "socket activation: descriptor 3 of a child",
        script: &[
            "a socket tcp 3",
            "a bind 3 {port}",
            "a listen 3",
            "a fork",
            "a exec {b.exe}",
            "c socket tcp 20",
            "c connect 20 {port}",
            "a accept 3 11",
            "c send 20",
            "a receive 11",
        ],
    },
];

#[test]
fn a_listener_is_whoever_bound_its_by_cgroup() {
    scene("bound-cgroup", |sandbox| {
        listen(&Stage::new(sandbox, By::Cgroup), LISTENERS)
    });
}

#[test]
fn a_listener_is_whoever_bound_its_by_executable() {
    scene("bound-exe", |sandbox| {
        listen(&Stage::new(sandbox, By::Executable), ACTIVATED)
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

#[test]
fn a_socket_that_is_handed_on_answers_for_what_its_new_owner_sends() {
    scene("in-flight", |sandbox| {
        let stage = Stage::new(sandbox, By::Cgroup);
        let pass = ["b mailbox {box}", "a give {box} 10", "b take 10"];
        // The datagram is answered while nobody holds the socket but the mailbox.
        let in_flight = [
            "a socket udp 10",
            "b mailbox {box}",
            "a sendto 10 {udp}",
            "a give {box} 10",
            "a close 10",
            "b take 10",
            "b receive 10",
        ];
        let named = [
            &["a socket udp 10", "a connect 10 {udp}", "a exchange 10"],
            &pass[..],
            &["b sendto 10 {udp}"],
        ]
        .concat();
        for script in [&in_flight[..], &named] {
            let _ = stage.play(script, GOOD).last.expect_ok("without an agent");
        }
        let agent = stage.agent();
        let mut played = stage.play(&in_flight, GOOD);
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
        let mut played = stage.play(&named, GOOD);
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
