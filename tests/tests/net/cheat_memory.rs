//! Programs that lie in memory alone: the approved content counts where nobody can write it any more.

use ringfence_tests::{Actor, Agent, Outcome, poll::until, scene};

use crate::{
    common::{assert_held, by_content},
    ownership_stage::assert_one,
};

const ADDRESS: &str = "127.0.0.1:81";
/// Arguments by which a copy that others could still write is run.
const OPEN: [&[&str]; 4] = [
    &[],
    &["--by-path"],
    &["--seal", "size"],
    &["--seal", "future-write"],
];
const SEALED: [&[&str]; 2] = [&["--seal", "write"], &["--seal", "write", "--by-path"]];

/// Calls from a copy of `program` in memory.
fn call(runner: &Actor, how: &[&str], program: &Actor) -> Outcome {
    let program = program.program().display().to_string();
    let call = [&program, "call", "tcp", ADDRESS, "--timeout-ms", "2000"];
    runner.run(&[&["memory"], how, &call].concat())
}

/// Until somebody says that it is refused, and that it never passes before; the process that was refused. Each copy is
/// another file, which is mostly held.
fn refused(runner: &Actor, how: &[&str], program: &Actor) -> u32 {
    let mut pid = 0;
    until(&format!("{how:?}"), || {
        let outcome = call(runner, how, program);
        assert_held("a copy in memory", &outcome);
        pid = outcome.pid;
        outcome.error.as_deref() != Some("timeout")
    });
    pid
}

#[test]
fn a_copy_in_memory_is_the_approved_content_only_where_it_is_sealed_against_writing() {
    scene("cheat-memfd", |sandbox| {
        let runner = sandbox.actor("runner").in_cgroup(sandbox, "app");
        let app = sandbox.actor("app");
        let all = || OPEN.iter().chain(&SEALED);
        for how in all() {
            let outcome = call(&runner, how, &app);
            assert!(
                outcome.failed("connect", "ECONNREFUSED"),
                "{how:?} without an agent: {outcome:?}"
            );
        }
        let agent = Agent::start(sandbox, &by_content(&app));
        for how in OPEN {
            let pid = refused(&runner, how, &app);
            let start = format!("deny egress tcp rest -> host {ADDRESS} deny default-deny");
            assert_one(&agent, "as the rest", &start, &format!("[{pid}]"));
        }
        for how in SEALED {
            let outcome = call(&runner, how, &app);
            assert!(
                outcome.failed("connect", "ECONNREFUSED"),
                "{how:?}: {outcome:?}"
            );
            let start = format!("close egress tcp app -> host {ADDRESS} allow rule-allow");
            let end = format!("[{}]", outcome.pid);
            assert_one(&agent, "as the approved", &start, &end);
        }
        // Another content does not become the approved one by a seal.
        let other = sandbox.actor("other");
        let mut bytes = std::fs::read(other.program()).unwrap();
        bytes.push(0);
        std::fs::remove_file(other.program()).unwrap();
        std::fs::write(other.program(), bytes).unwrap();
        let _pid = refused(&runner, SEALED[0], &other);
        agent.assert_counters();
    });
}
