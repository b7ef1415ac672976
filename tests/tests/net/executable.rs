//! Processes of one cgroup that are told apart by their executable.

use std::{fs, process::Command};

use ringfence_tests::{
    Agent, Options,
    flows::line,
    policy::{policy, workload, workloads},
    poll::until,
    scene,
};

use crate::common::{assert_allowed, assert_refused, by_content, sha256};

#[test]
fn a_program_that_starts_outside_the_guarded_tree_is_not_counted() {
    scene("exec-outside", |sandbox| {
        let agent = Agent::start(sandbox, &workloads(&["web"]));
        let walks = || {
            let metrics = agent.metrics();
            metrics.sum("ringfence_detours_total", &[("what", "ancestor-walk")])
        };
        let before = walks();
        for _ in 0..50 {
            assert!(Command::new("true").status().unwrap().success());
        }
        assert_eq!(walks(), before);
        agent.assert_counters();
    });
}

#[test]
fn a_copy_of_the_binary_is_another_process() {
    scene("executable", |sandbox| {
        let good = sandbox.actor("good").in_cgroup(sandbox, "app");
        let copy = sandbox.actor("copy").in_cgroup(sandbox, "app");
        let elsewhere = sandbox.actor("good").in_cgroup(sandbox, "elsewhere");
        let address = "127.0.0.1:81";
        for actor in [&good, &copy, &elsewhere] {
            let _ = assert_allowed(actor, address, &[]);
        }
        let selectors = format!("cgroup = \"/app\", exe = \"{}\"", good.program().display());
        let text = workload("good", &selectors)
            + &workload("rest", "cgroup = \"/app\"")
            + &workloads(&["elsewhere"])
            + &policy("good", "", &[("egress", "ports = [\"81/tcp\"]")])
            + &policy("rest", "default-deny = [\"egress\"]", &[])
            + &policy("elsewhere", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let passed = assert_allowed(&good, address, &[]);
        let outside = assert_refused(&elsewhere, address, &[]);
        // An executable that was not seen before is held until it is judged; it never passes.
        let first = copy.tcp(address, &["--timeout-ms", "3000"]);
        assert!(
            !first.ok() && first.error.as_deref() != Some("ECONNREFUSED"),
            "{first:?}"
        );
        let second = assert_refused(&copy, address, &[]);
        for (expected, pid) in [
            (
                "close egress tcp good -> host 127.0.0.1:81 allow rule-allow good/egress[0] unfinished 0/0B by good",
                passed.pid,
            ),
            (
                "deny egress tcp elsewhere -> host 127.0.0.1:81 deny default-deny by good",
                outside.pid,
            ),
            (
                "deny egress tcp rest -> host 127.0.0.1:81 deny default-deny by copy",
                first.pid,
            ),
            (
                "deny egress tcp rest -> host 127.0.0.1:81 deny default-deny by copy",
                second.pid,
            ),
        ] {
            let log = agent.log();
            let lines: Vec<_> = log.iter().map(line).collect();
            let expected = format!("{expected}[{pid}]");
            assert_eq!(
                lines.iter().filter(|it| **it == expected).count(),
                1,
                "{expected}\n{lines:#?}"
            );
        }
        agent.assert_counters();
    });
}

#[test]
fn a_held_call_that_comes_to_nothing_has_no_open_record() {
    scene("held", |sandbox| {
        let (api, db) = (sandbox.actor("api"), sandbox.actor("db"));
        let selectors = format!("cgroup = \"/api\", exe = \"{}\"", api.program().display());
        let text = workload("api", &selectors)
            + &workloads(&["db"])
            + &policy("db", "", &[("ingress", "from = [{ workload = \"api\" }]")]);
        let agent = Agent::start(sandbox, &text);
        let _server = db.serve(&["tcp", "127.0.0.1:5432"]);
        let _ = api.tcp("127.0.0.1:5432", &[]).expect_ok("api calls db");
        // Whether its executable is known by then is a race; that db refuses it is not.
        for round in 0..5 {
            let other = sandbox.actor(&format!("other{round}"));
            let other = other.in_cgroup(sandbox, "api");
            let outcome = other.tcp("127.0.0.1:5432", &["--timeout-ms", "4000"]);
            let error = outcome.error.as_deref();
            assert!(
                outcome.step == "connect" && matches!(error, Some("EPERM" | "ECONNABORTED")),
                "{outcome:?}"
            );
            let by = other.by(outcome.pid);
            let log = agent.log();
            let mut own = log.iter().map(line).filter(|line| line.ends_with(&by));
            assert!(
                own.all(|line| line.starts_with("deny ") || line.contains(" unfinished 0/0B ")),
                "{:#?}",
                log.iter().map(line).collect::<Vec<_>>()
            );
        }
        agent.assert_counters();
    });
}

#[test]
fn a_binary_that_was_changed_in_place_is_judged_anew() {
    scene("changed", |sandbox| {
        let app = sandbox.actor("app");
        let agent = Agent::start(sandbox, &by_content(&app));
        let _ = assert_allowed(&app, "127.0.0.1:81", &[]);
        // Bytes behind the end of the program change its digest, not what it does.
        let mut program = fs::read(app.program()).unwrap();
        program.push(0);
        fs::write(app.program(), program).unwrap();
        let first = app.tcp("127.0.0.1:81", &["--timeout-ms", "3000"]);
        assert!(
            !first.ok() && first.error.as_deref() != Some("ECONNREFUSED"),
            "{first:?}"
        );
        until("the changed binary is judged", || {
            app.tcp("127.0.0.1:81", &["--timeout-ms", "1000"])
                .failed("connect", "EPERM")
        });
        agent.assert_counters();
    });
}

#[test]
fn a_copy_on_a_file_system_of_a_user_namespace_has_no_digest() {
    scene("userns", |sandbox| {
        let app = sandbox.actor("app");
        let agent = Agent::start(sandbox, &by_content(&app));
        let _ = assert_allowed(&app, "127.0.0.1:81", &[]);
        let script = format!(
            "mount -t tmpfs none /mnt && cp '{}' /mnt/app && exec /mnt/app call tcp 127.0.0.1:81",
            app.program().display()
        );
        let unshared = [
            "run",
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
        ];
        let _ = app
            .run(&unshared)
            .expect_refused("connect", "the same bytes, served by a user");
        agent.assert_counters();
    });
}

#[test]
fn a_process_whose_first_thread_has_ended_is_judged() {
    scene("headless", |sandbox| {
        let app = sandbox.actor("app");
        let text = workload("app", &format!("exe = \"{}\"", app.program().display()))
            + &workload("rest", "cgroup = \"/app\"")
            + &policy("app", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let copy = sandbox.actor("copy").in_cgroup(sandbox, "app");
        let outcome = copy.run(&["headless", "tcp", "127.0.0.1:81"]);
        assert!(outcome.failed("connect", "ECONNREFUSED"), "{outcome:?}");
        let outcome = app.run(&["headless", "tcp", "127.0.0.1:81"]);
        assert!(outcome.failed("connect", "EPERM"), "{outcome:?}");
        agent.assert_counters();
    });
}

#[test]
fn an_executable_that_is_not_judged_yet_gets_no_raw_socket() {
    scene("pending-raw", |sandbox| {
        let app = sandbox.actor("app");
        let text = workload(
            "app",
            &format!("cgroup = \"/app\", exe = \"{}\"", app.program().display()),
        ) + &workload("rest", "cgroup = \"/app\"")
            + &policy("rest", "default-deny = [\"egress\"]", &[]);
        let _agent = Agent::start(sandbox, &text);
        for round in 0..5 {
            let fresh = sandbox
                .actor(&format!("fresh{round}"))
                .in_cgroup(sandbox, "app");
            let _ = fresh
                .run(&["socket", "raw4"])
                .expect_refused("socket", "a raw socket");
        }
    });
}

#[test]
fn a_large_executable_that_is_being_hashed_delays_nobody() {
    scene("hash", |sandbox| {
        let small = sandbox.actor("small");
        let digest = sha256(small.program());
        let text = |port: u16| {
            workload(
                "small",
                &format!("cgroup = \"/app\", sha256 = \"{digest}\""),
            ) + &workload("rest", "cgroup = \"/app\"")
                + &policy(
                    "small",
                    "",
                    &[("egress", &format!("ports = [\"{port}/tcp\"]"))],
                )
                + &policy("rest", "default-deny = [\"egress\"]", &[])
        };
        let options = Options {
            agent: "hash-limit = \"1024 GiB\"".to_owned(),
            ..Options::default()
        };
        let agent = Agent::start_with(sandbox, &options, &text(81));
        // A program with a tail of zeros takes no room, and minutes to hash.
        let large = sandbox.actor("large").in_cgroup(sandbox, "app");
        let file = fs::OpenOptions::new().write(true).open(large.program());
        file.and_then(|file| file.set_len(512 << 30)).unwrap();
        let first = large.tcp("127.0.0.1:81", &["--timeout-ms", "500"]);
        assert!(
            !first.ok() && first.error.as_deref() != Some("ECONNREFUSED"),
            "{first:?}"
        );
        let copy = sandbox.actor("copy").in_cgroup(sandbox, "app");
        until("a small executable is judged", || {
            copy.tcp("127.0.0.1:81", &["--timeout-ms", "1000"])
                .failed("connect", "ECONNREFUSED")
        });
        agent.set_policy(&text(82));
        let _ = assert_allowed(&copy, "127.0.0.1:82", &[]);
        let _ = assert_refused(&copy, "127.0.0.1:81", &[]);
        // Neither `small` nor `rest` until its digest is known.
        let last = large.tcp("127.0.0.1:82", &["--timeout-ms", "500"]);
        assert!(
            !last.ok() && !matches!(last.error.as_deref(), Some("ECONNREFUSED" | "EPERM")),
            "{last:?}"
        );
        agent.assert_counters();
    });
}
