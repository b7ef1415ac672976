//! Attempts to pass for an approved process: its cgroup, its number, its loaded code.

use std::{fs, path::Path, thread, time::Duration};

use ringfence_tests::{
    Actor, Agent, Outcome,
    policy::{policy, workload, workloads},
    poll::until,
    scene,
};

use crate::{
    common::{assert_allowed, assert_refused},
    ownership_stage::assert_one,
};

const ADDRESS: &str = "127.0.0.1:81";
/// Changes what a program calls; see `preload.rs`.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preload.so"));
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
const RULES: (&str, &str) = ("egress", "ports = [\"81/tcp\"]");

#[test]
fn moving_to_another_cgroup_takes_privilege_and_is_recorded() {
    scene("cheat-move", |sandbox| {
        let bad = sandbox.actor("bad");
        let good = sandbox.cgroup("good");
        let text = workloads(&["good", "bad"])
            + &policy("good", "", &[RULES])
            + &policy("bad", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let moving = format!("cgroup {}", good.display());
        let mut user = bad.puppet();
        for step in ["uid 65534", "euid 65534"] {
            let _ = user.ask(step).expect_ok(step);
        }
        let outcome = user.ask(&moving);
        assert!(outcome.failed("cgroup", "EACCES"), "{outcome:?}");
        let _ = user.ask("socket tcp 10").expect_ok("a socket");
        let _ = user
            .ask(&format!("connect 10 {ADDRESS}"))
            .expect_refused("connect", "a user");

        let mut root = bad.puppet();
        let _ = root.ask(&moving).expect_ok("root moves itself");
        let _ = root.ask("socket tcp 10").expect_ok("a socket");
        let outcome = root.ask(&format!("connect 10 {ADDRESS}"));
        assert!(outcome.failed("connect", "ECONNREFUSED"), "{outcome:?}");
        let by = format!(" by bad[{}]", outcome.pid);
        let start = "close egress tcp good -> host 127.0.0.1:81 allow rule-allow good/egress[0]";
        assert_one(&agent, "its new workload", start, &by);
        agent.assert_counters();
    });
}

#[test]
fn a_delegated_cgroup_gives_its_user_what_may_be_below_it_and_no_more() {
    scene("cheat-delegated", |sandbox| {
        let bad = sandbox.actor("bad").in_cgroup(sandbox, "delegated/bad");
        let (inside, outside) = (sandbox.cgroup("delegated/good"), sandbox.cgroup("good"));
        let delegated = sandbox.cgroup("delegated");
        for cgroup in [&delegated, &inside, &sandbox.cgroup("delegated/bad")] {
            for file in ["", "cgroup.procs"] {
                std::os::unix::fs::chown(cgroup.join(file), Some(65_534), None).unwrap();
            }
        }
        let text = workload("good", "cgroup = \"/good\"")
            + &workload("delegated", "cgroup = \"/delegated\"")
            + &policy("good", "", &[RULES])
            + &policy("delegated", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let mut user = bad.puppet();
        for step in ["uid 65534", "euid 65534", "socket tcp 10"] {
            let _ = user.ask(step).expect_ok(step);
        }
        let outcome = user.ask(&format!("cgroup {}", outside.display()));
        assert!(outcome.failed("cgroup", "EACCES"), "{outcome:?}");
        // A name of its own choice below what was delegated is not the name above.
        let _ = user
            .ask(&format!("cgroup {}", inside.display()))
            .expect_ok("below");
        let _ = user
            .ask(&format!("connect 10 {ADDRESS}"))
            .expect_refused("connect", "a user");
        agent.assert_counters();
    });
}

#[test]
fn a_process_number_that_is_used_again_brings_nothing_along() {
    scene("cheat-pid", |sandbox| {
        let [good, bad] = ["good", "bad"].map(|name| sandbox.actor(name).in_cgroup(sandbox, "app"));
        let text = workload(
            "good",
            &format!("cgroup = \"/app\", exe = \"{}\"", good.program().display()),
        ) + &workload("bad", "cgroup = \"/app\"")
            + &policy("good", "", &[RULES])
            + &policy("bad", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        until("bad is known", || {
            bad.tcp(ADDRESS, &["--timeout-ms", "2000"])
                .failed("connect", "EPERM")
        });
        let [first, second] = [(&good, &bad), (&bad, &good)].map(|(before, after)| {
            let pid = before.tcp(ADDRESS, &[]).pid;
            (pid, reuse(after, pid))
        });
        let outcome = first.1.expect_refused("connect", "bad with good's number");
        let by = format!(" by bad[{}]", outcome.pid);
        assert_one(&agent, "bad", "deny egress tcp bad -> host", &by);
        assert!(second.1.failed("connect", "ECONNREFUSED"), "{:?}", second.1);
        let by = format!(" by good[{}]", second.0);
        assert_one(&agent, "good", "close egress tcp good -> host", &by);
        agent.assert_counters();
    });
}

/// Calls from a process with that number, once it is free; others take numbers meanwhile, too.
fn reuse(actor: &Actor, pid: u32) -> Outcome {
    for _ in 0..2_000 {
        if Path::new("/proc").join(pid.to_string()).exists() {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        fs::write(LAST_PID, (pid - 1).to_string()).unwrap();
        let puppet = actor.start(&["call", "tcp", ADDRESS]);
        let is_it = puppet.pid() == pid;
        let outcome = puppet.last();
        if is_it {
            return outcome;
        }
    }
    panic!("number {pid} was not given again");
}

#[test]
fn code_that_is_loaded_into_an_approved_program_has_its_identity_and_a_user_selector_limits_who_may()
 {
    scene("cheat-preload", |sandbox| {
        let good = sandbox.actor("good").in_cgroup(sandbox, "app");
        let program = good.program().display();
        let library = sandbox.files().join("preload.so");
        fs::write(&library, LIBRARY).unwrap();
        let library = library.display();
        let text = workload(
            "good",
            &format!("cgroup = \"/app\", exe = \"{program}\", uid = 0"),
        ) + &workload("rest", "cgroup = \"/app\"")
            + &policy("good", "", &[RULES])
            + &policy("rest", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let _ = assert_allowed(&good, ADDRESS, &[]);
        // The loaded code calls another port than the program does.
        let _ = assert_refused(&good, "127.0.0.1:82", &[]);
        let preload = format!("LD_PRELOAD={library} exec {program} call tcp 127.0.0.1:82");
        let outcome = good.run(&["run", "sh", "-ec", &preload]);
        assert!(outcome.failed("connect", "ECONNREFUSED"), "{outcome:?}");
        let start = "close egress tcp good -> host 127.0.0.1:81 allow rule-allow good/egress[0]";
        assert_one(&agent, "loaded code", start, &good.by(outcome.pid));
        let traced = good.run(&["traced", &program.to_string(), "call", "tcp", ADDRESS]);
        assert!(traced.failed("connect", "ECONNREFUSED"), "{traced:?}");
        let mut user = good.puppet();
        for step in ["uid 65534", "socket tcp 10"] {
            let _ = user.ask(step).expect_ok(step);
        }
        let _ = user
            .ask(&format!("connect 10 {ADDRESS}"))
            .expect_refused("connect", "another user");
        agent.assert_counters();
    });
}
