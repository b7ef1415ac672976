//! Many processes that call as soon as they are there, each in a cgroup made for it, half of them allowed:
//! `ringfence-storm [PROCESSES PER SECOND] [SECONDS]`.
//!
//! Run as root with `RINGFENCE_BIN_DIR` naming the directory of the agent. Traffic stays in a network
//! namespace made here. The exit code is 0 only if no verdict was wrong, some calls were
//! held, and hardly any that may was refused.
#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]
#![expect(clippy::print_stdout, reason = "the figures go to the terminal")]

mod born;
mod report;

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::wait::waitpid,
    unistd::Pid,
};
use report::{Answer, Report, Usage};
use ringfence_tests::{
    Agent, Outcome, Sandbox,
    policy::{policy, workload},
};

const ADDRESS: &str = "127.0.0.1:8080";
/// Threads that start processes. (A new process begins as a copy of this one: the smaller, the faster.)
const STARTERS: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["call", index, answers] => call(index, answers),
        ["serve"] => serve(),
        [] => storm(1_000, 30),
        [rate] => storm(rate.parse().unwrap(), 30),
        [rate, seconds, ..] => storm(rate.parse().unwrap(), seconds.parse().unwrap()),
    }
}

/// One process: how its call ended, in one write.
fn call(index: &str, answers: &str) -> ExitCode {
    let begun = Instant::now();
    let error = match TcpStream::connect(ADDRESS) {
        Ok(_stream) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    };
    let line = format!("{index} {} {error}\n", begun.elapsed().as_micros());
    let mut answers = File::options()
        .write(true)
        .open(format!("/proc/self/fd/{answers}"))
        .unwrap();
    answers.write_all(line.as_bytes()).unwrap();
    ExitCode::SUCCESS
}

fn serve() -> ExitCode {
    let listener = TcpListener::bind(ADDRESS).unwrap();
    let ready = Outcome {
        step: "listen".to_owned(),
        ..Outcome::default()
    };
    println!("{}", serde_json::json!(ready));
    for stream in listener.incoming() {
        drop(stream);
    }
    ExitCode::FAILURE
}

fn storm(rate: usize, seconds: usize) -> ExitCode {
    let text = workload("good", "cgroup = \"/jobs/good-*\"")
        + &workload("bad", "cgroup = \"/jobs/bad-*\"")
        + &policy("good", "", &[("egress", "ports = [\"8080/tcp\"]")])
        + &policy("bad", "default-deny = [\"egress\"]", &[]);
    let sandbox = Sandbox::new("storm-full");
    let mut agent = Agent::start(&sandbox, &text);
    let own = env::current_exe().unwrap().display().to_string();
    let mut server = sandbox.actor("server").start(&["run", &own, "serve"]);
    let _ready = server.line().expect_ok("a server");
    let pid = agent.daemon().pid();
    let before = (Usage::of(pid), pending(&agent));
    let begun = Instant::now();
    let answers = all(&sandbox, rate * seconds, rate);
    let took = begun.elapsed();
    // What is still in the ring buffer counts.
    let flows = agent.log().len();
    let report = Report {
        answers,
        expected: rate * seconds,
        asked_rate: rate,
        took,
        pending: pending(&agent) - before.1,
        usage: Usage::of(pid).since(&before.0),
        lost: lost(&agent),
        flows,
    };
    println!("{report}");
    drop(server);
    drop(agent);
    drop(sandbox);
    let faults = report.faults();
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    ExitCode::from(u8::from(!faults.is_empty()))
}

/// Starts all processes at their times, and waits for their ends.
fn all(sandbox: &Sandbox, number: usize, rate: usize) -> Vec<Answer> {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let jobs = sandbox.cgroup("jobs");
    let (next, jobs, writer) = (&next, &jobs, &writer);
    let (started, ended) = mpsc::channel();
    thread::scope(|scope| {
        let collector = scope.spawn(move || {
            let lines = BufReader::new(File::from(reader)).lines();
            let answers = lines.map_while(Result::ok);
            let answers = answers.filter_map(|line| Answer::parse(&line));
            answers.take(number).collect()
        });
        for _ in 0..STARTERS {
            let started = started.clone();
            let _starter = scope.spawn(move || {
                let netns = File::open(sandbox.namespace().path()).unwrap();
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= number {
                        return;
                    }
                    wait_until(begun, index, rate);
                    started.send(start(jobs, index, writer)).unwrap();
                }
            });
        }
        drop(started);
        for (pid, cgroup) in ended {
            let _status = waitpid(pid, None).unwrap();
            // The kernel may still be taking the process out of it: the sandbox removes what is left.
            let _left = fs::remove_dir(&cgroup);
        }
        collector.join().unwrap()
    })
}

fn wait_until(begun: Instant, index: usize, rate: usize) {
    let due = Duration::from_micros(u64::try_from(index * 1_000_000 / rate).unwrap());
    if let Some(left) = due.checked_sub(begun.elapsed()) {
        thread::sleep(left);
    }
}

fn start(jobs: &Path, index: usize, answers: &OwnedFd) -> (Pid, PathBuf) {
    let name = if report::is_good(index) {
        "good"
    } else {
        "bad"
    };
    let cgroup = jobs.join(format!("{name}-{index}"));
    fs::create_dir(&cgroup).unwrap();
    (born::start_in(&cgroup, index, answers), cgroup)
}

fn pending(agent: &Agent) -> u64 {
    agent.status().counts.get("pending").copied().unwrap_or(0)
}

fn lost(agent: &Agent) -> u64 {
    let metrics = agent.metrics();
    metrics.sum("ringfence_kernel_events_total", &[("kind", "lost")])
        + metrics.sum("ringfence_flow_records_lost_total", &[])
}
