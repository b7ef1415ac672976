//! Cgroups with names that nobody expects, made while traffic flows.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use ringfence_tests::{
    Agent, Sandbox,
    policy::{policy, workload},
    poll::until,
    scene,
};

use crate::common::{assert_allowed, assert_refused};

/// Below the directory that the workload covers.
fn odd(sandbox: &Sandbox) -> Vec<PathBuf> {
    let long = "n".repeat(255);
    let deep = ["d".repeat(90).as_str(); 40].join("/");
    let names: [&[u8]; 9] = [
        b"tab\tand space ",
        b" \"quoted\" 'twice'",
        b"back\\slash\\012",
        "\u{202e}\u{1f512}\u{e9}\u{301}".as_bytes(),
        b"not\xff\xfeutf-8",
        b"*?[a-z]{x,y}",
        b"...",
        long.as_bytes(),
        deep.as_bytes(),
    ];
    let jobs = sandbox.cgroup("jobs");
    names
        .map(|name| jobs.join(std::ffi::OsStr::from_bytes(name)))
        .to_vec()
}

#[test]
fn a_cgroup_with_any_name_and_depth_is_judged_like_others() {
    scene("odd-names", |sandbox| {
        let (job, free) = (sandbox.actor("job"), sandbox.actor("free"));
        let text = workload("job", "cgroup = \"/jobs/**\"")
            + &policy("job", "", &[("egress", "ports = [\"81/tcp\"]")]);
        let agent = Agent::start(sandbox, &text);
        let cgroups = odd(sandbox);
        assert!(cgroups.last().unwrap().as_os_str().len() > 3_600);
        // A line break is refused by the kernel (`cgroup_mkdir`): `/proc/PID/cgroup` has lines.
        let error = fs::create_dir(sandbox.cgroup("jobs").join("new\nline")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let _traffic = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = assert_allowed(&free, "127.0.0.1:82", &[]);
                }
            });
            let judge = || {
                for cgroup in &cgroups {
                    fs::create_dir_all(cgroup).unwrap();
                    let inside = job.at(cgroup);
                    let passed = inside.tcp("127.0.0.1:81", &["--timeout-ms", "4000"]);
                    assert!(
                        passed.failed("connect", "ECONNREFUSED"),
                        "{}: {passed:?}",
                        cgroup.display()
                    );
                    let refused = inside.tcp("127.0.0.1:82", &["--timeout-ms", "4000"]);
                    assert!(
                        matches!(refused.error.as_deref(), Some("EPERM" | "ECONNABORTED")),
                        "{}: {refused:?}",
                        cgroup.display()
                    );
                }
            };
            let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge));
            done.store(true, Ordering::Relaxed);
            judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        for cgroup in &cgroups {
            let _ = assert_refused(&job.at(cgroup), "127.0.0.1:82", &[]);
        }
        agent.assert_counters();
    });
}

#[test]
fn processes_that_are_gone_before_they_are_read_are_judged_all_the_same() {
    scene("odd-brief", |sandbox| {
        let names: Vec<String> = (0..40).map(|number| format!("brief{number}")).collect();
        let first = sandbox.actor("first").in_cgroup(sandbox, "app");
        let text = workload(
            "first",
            &format!("cgroup = \"/app\", exe = \"{}\"", first.program().display()),
        ) + &workload("rest", "cgroup = \"/app\"")
            + &policy("first", "", &[("egress", "ports = [\"81/tcp\"]")])
            + &policy("rest", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        for name in &names {
            // A datagram is sent, and the process is gone with its executable.
            let brief = sandbox.actor(name).in_cgroup(sandbox, "app");
            let outcome = brief.udp("127.0.0.1:83", &["--timeout-ms", "1"]);
            assert!(
                !outcome.ok() && outcome.error.as_deref() != Some("ECONNREFUSED"),
                "{outcome:?}"
            );
            fs::remove_file(brief.program()).unwrap();
        }
        let _ = assert_allowed(&first, "127.0.0.1:81", &[]);
        let late = sandbox.actor("late").in_cgroup(sandbox, "app");
        until("a later one is judged", || {
            late.tcp("127.0.0.1:81", &["--timeout-ms", "2000"])
                .failed("connect", "EPERM")
        });
        assert_eq!(
            agent
                .metrics()
                .sum("ringfence_kernel_events_total", &[("kind", "lost")]),
            0
        );
    });
}
