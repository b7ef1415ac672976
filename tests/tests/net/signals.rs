//! An agent that is sent signals at a bad moment.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ringfence_tests::{
    Agent,
    policy::{policy, workload},
    program, scene,
};

use crate::common::{assert_allowed, assert_refused};

fn web() -> String {
    workload("web", "cgroup = \"/web\"") + &policy("web", "", &[("egress", "ports = [\"81/tcp\"]")])
}

#[test]
fn an_agent_that_is_told_to_reload_while_it_starts_starts() {
    scene("hangup", |sandbox| {
        let web_actor = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &web());
        agent.kill();
        let config = agent.config().display().to_string();
        let (done, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let _nagging = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for pid in agents_with(&config) {
                        let _gone = kill(pid, Signal::SIGHUP);
                        let _ = sent.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let _enough = AtTheEnd(&done);
            agent.restart();
        });
        assert!(
            sent.into_inner() > 0,
            "it was ready before the first signal"
        );
        let _ = assert_allowed(&web_actor, "127.0.0.1:81", &[]);
        let _ = assert_refused(&web_actor, "127.0.0.1:82", &[]);
        // It still reads its policies.
        agent.set_policy(&web().replace("81/tcp", "82/tcp"));
        let _ = assert_refused(&web_actor, "127.0.0.1:81", &[]);
    });
}

/// Says so when it goes, also with a panic.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Agents that run with a configuration and have taken over SIGHUP.
fn agents_with(config: &str) -> Vec<Pid> {
    const HANGUP: u64 = 1 << (Signal::SIGHUP as u32 - 1);
    let caught = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let pids = names.filter(|pid| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = command.split('\0').any(|word| word == config);
        ours && caught(pid).is_some_and(|signals| signals & HANGUP != 0)
    });
    pids.filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
        .collect()
}

#[test]
fn a_command_gives_up_on_an_agent_that_does_not_answer() {
    scene("silent-agent", |sandbox| {
        let web_actor = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &web());
        agent.daemon().signal(Signal::SIGSTOP);
        let asked = Command::new(program::product("ringfence"))
            .arg("status")
            .arg("--socket")
            .arg(agent.socket())
            .output()
            .unwrap();
        // What the kernel knows holds meanwhile.
        let _ = assert_refused(&web_actor, "127.0.0.1:82", &[]);
        agent.daemon().signal(Signal::SIGCONT);
        let error = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(!asked.status.success(), "{error}");
        assert!(
            error.contains("does not answer") && error.contains("10 s"),
            "{error}"
        );
        agent.assert_counters();
    });
}
