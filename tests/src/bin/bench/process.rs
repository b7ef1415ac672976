//! A process of the bench in a cgroup, a network namespace and on a CPU of its own.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigSet, Signal},
    signalfd::SignalFd,
};
use ringfence_tests::program;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes the signals that would end this process: whoever asks [`check`] next panics, and all that was made is
/// removed on the way out.
pub fn take_signals() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().unwrap();
    let received = SignalFd::new(&signals).unwrap();
    let _ = thread::spawn(move || {
        if received.read_signal().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
}

/// Raises the limit of open files, usually 1,024, to `wanted` for this process and those that it starts; the limit
/// then. Where root may not raise the hard limit, the soft one goes up to that.
pub fn raise_open_files(wanted: u64) -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft >= wanted {
        return soft;
    }
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        return wanted;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

/// Panics where the user wants an end.
#[track_caller]
pub fn check() {
    assert!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
}

/// Where a process runs.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub cgroup: &'a Path,
    pub netns: &'a Path,
    pub cpu: usize,
}

impl Place<'_> {
    /// A command there; it ends with this thread.
    pub fn command(&self, program: &OsStr, arguments: &[OsString]) -> Command {
        let mut command = Command::new(program::own("ringfence-traffic"));
        let _ = command
            .arg("--cgroup")
            .arg(self.cgroup)
            .arg("--netns")
            .arg(self.netns)
            .args(["run", "taskset", "--cpu-list"])
            .arg(self.cpu.to_string())
            .arg(program)
            .args(arguments);
        command
    }
}

/// A worker that takes commands; killed when dropped.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it and waits until it is ready.
    pub fn start(place: Place<'_>, role: &str) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut child = place
            .command(own.as_os_str(), &["worker".into(), role.into()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut worker = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(worker.line(), "ready", "{role}");
        worker
    }

    /// Tells it to begin; [`Self::answer`] waits for the end.
    pub fn tell(&mut self, line: &str) {
        check();
        writeln!(self.input, "{line}").unwrap();
    }

    /// Figure and number of operations.
    #[track_caller]
    pub fn answer(&mut self) -> (f64, u64) {
        let line = self.line();
        check();
        let (figure, operations) = line.split_once(' ').unwrap();
        let figure = figure.parse().unwrap_or_else(|_| panic!("{line}"));
        (figure, operations.parse().unwrap())
    }

    /// Both.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> (f64, u64) {
        self.tell(line);
        self.answer()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A program that is killed when dropped.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _status = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit};

    use super::raise_open_files;

    #[test]
    fn the_limit_of_open_files_rises_to_what_is_wanted_and_never_falls() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
        assert_eq!(raise_open_files(hard), hard);
        assert_eq!(raise_open_files(1), hard);
    }
}
