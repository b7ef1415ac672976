//! The agent has too few descriptors, too little memory, or another clock.

use std::{fs, os::unix::net::UnixStream, path::PathBuf, process::Command};

use ringfence_tests::{Agent, Options, poll::until, sandbox::cgroup2_mount, scene};

use crate::common::{Pair, Side};

/// Descriptors that a process has open.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn limit(pid: u32, descriptors: usize) {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string()])
        .arg(format!("--nofile={descriptors}:"))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn an_agent_without_descriptors_goes_on_and_answers_when_it_has_some() {
    scene("descriptors", |sandbox| {
        let pair = Pair::new(sandbox);
        let mut agent = Agent::start(sandbox, &Side::Old.policy());
        let pid = agent.daemon().pid();
        limit(pid, descriptors(pid) + 8);
        let flood: Vec<_> = (0..100)
            .map_while(|_| UnixStream::connect(agent.socket()).ok())
            .collect();
        until("connections can't be accepted", || {
            agent.daemon().log().contains("could not be accepted")
        });
        assert_eq!(pair.side(), Side::Old);
        drop(flood);
        until("it answers", || agent.client().status().is_ok());
        assert!(agent.daemon().is_alive());
        limit(pid, 4096);
        agent.set_policy(&Side::New.policy());
        assert_eq!(pair.side(), Side::New);
    });
}

/// A cgroup with little memory, of version 1 where the hybrid layout has the controller there; removed when it is dropped.
struct Memory(PathBuf);

impl Memory {
    /// `None` where there is no memory controller.
    fn new(name: &str, bytes: u64) -> Option<Self> {
        let first = PathBuf::from("/sys/fs/cgroup/memory");
        let (root, limit) = if first.join("memory.limit_in_bytes").exists() {
            (first, "memory.limit_in_bytes")
        } else {
            (cgroup2_mount(), "memory.max")
        };
        let path = root.join(format!("ringfence-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let memory = Self(path);
        let limit = memory.0.join(limit);
        if !limit.exists() {
            return None;
        }
        fs::write(limit, bytes.to_string()).unwrap();
        Some(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        until("nobody is in the memory cgroup", || {
            fs::remove_dir(&self.0).is_ok()
        });
    }
}

#[test]
fn an_agent_that_runs_out_of_memory_leaves_its_policy_in_force() {
    scene("memory", |sandbox| {
        let Some(memory) = Memory::new("memory", 8 << 20) else {
            ringfence_tests::scene::skip("needs a memory controller");
            return;
        };
        let pair = Pair::new(sandbox);
        let _echo = sandbox
            .actor("db")
            .serve(&["tcp", "127.0.0.1:9100", "--echo"]);
        let mut agent = Agent::start(sandbox, &Side::Old.policy());
        let mut stream = pair.web().hold("127.0.0.1:9100");
        let pid = agent.daemon().pid();
        fs::write(memory.0.join("cgroup.procs"), pid.to_string()).unwrap();
        // More than it may have.
        let padding = format!("# {}\n", "x".repeat(16 << 20));
        agent.write_policy(&(Side::New.policy() + &padding));
        agent.reload();
        let ended = agent.daemon().wait();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&ended),
            Some(9),
            "{ended:?}"
        );
        assert_eq!(pair.side(), Side::Old, "without an agent");
        assert!(stream.is_alive(), "cut by the end of the agent");
        agent.write_policy(&Side::Old.policy());
        agent.restart();
        assert_eq!(pair.side(), Side::Old, "after a restart");
        assert!(stream.is_alive(), "cut by the restart");
        agent.set_policy(&Side::New.policy());
        assert_eq!(pair.side(), Side::New);
    });
}

#[test]
fn an_agent_with_another_boot_time_than_the_kernel_programs_does_not_start() {
    scene("time", |sandbox| {
        let shifted = [
            "run",
            "unshare",
            "--time",
            "--boottime",
            "86400",
            "--fork",
            "--kill-child",
        ];
        let options = Options {
            launcher: shifted.iter().map(Into::into).collect(),
            ..Options::default()
        };
        let Err(ended) = Agent::try_start(sandbox, &options, &Side::Old.policy()) else {
            panic!("it has started");
        };
        let log = &ended.log;
        assert!(
            log.contains("time namespace") && log.contains("86400"),
            "{log}"
        );
        assert!(!sandbox.pins().exists());
    });
}
