//! A daemon under test: started, waited for until it says READY, signalled, ended.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::{net::UnixDatagram, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::{
    poll::{PATIENCE, poll},
    program,
};

/// Lines of a log that a failure shows.
const TAIL: usize = 60;
/// Between two looks at what may have changed.
const TICK: Duration = Duration::from_millis(50);

/// A running daemon. Killed when dropped; a panicking test shows its log.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    /// Keeps the notify socket read, as systemd does.
    _notify: Arc<()>,
}

impl Daemon {
    /// Starts `name` with `arguments`, its files in `dir`, and waits until it is ready.
    ///
    /// # Errors
    /// It ended before; the error tells how, and the log.
    pub fn start(name: &str, arguments: &[OsString], dir: &Path) -> Result<Self, Ended> {
        Self::launch(&[], name, arguments, dir)
    }

    /// The same by `launcher`: what the traffic tool is told before the program's path; `run` where it is empty.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn launch(
        launcher: &[OsString],
        name: &str,
        arguments: &[OsString],
        dir: &Path,
    ) -> Result<Self, Ended> {
        let run = ["run".into()];
        let launcher = if launcher.is_empty() { &run } else { launcher };
        let socket = dir.join("notify.sock");
        let _stale = fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).unwrap();
        notify.set_read_timeout(Some(TICK)).unwrap();
        let (sender, ready) = mpsc::channel();
        let alive = Arc::new(());
        let weak = Arc::downgrade(&alive);
        let _reader = thread::spawn(move || listen(&notify, &sender, &weak));
        let log = dir.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(program::own("ringfence-traffic"))
            .args(launcher)
            .arg(program::product(name))
            .args(arguments)
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut daemon = Self {
            name: name.to_owned(),
            child,
            log,
            _notify: alive,
        };
        let deadline = Instant::now() + *PATIENCE;
        loop {
            if ready.recv_timeout(TICK).is_ok() {
                return Ok(daemon);
            }
            if let Ok(Some(status)) = daemon.child.try_wait() {
                let log = daemon.log();
                return Err(Ended { status, log });
            }
            assert!(
                Instant::now() < deadline,
                "{name} is not ready within {:?}\n{}",
                *PATIENCE,
                daemon.log()
            );
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal. After `SIGSTOP` waits until every thread has stopped: one of them takes the signal, and the
    /// others go on until it does.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
        if signal == Signal::SIGSTOP {
            let _stopped = waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED).unwrap();
        }
    }

    /// Waits for its end; panics if it doesn't come.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = poll(|| self.child.try_wait().unwrap());
        status.unwrap_or_else(|| panic!("{} goes on\n{}", self.name, self.log()))
    }

    /// Kills it without a chance to tidy up.
    pub fn kill(&mut self) {
        let _ended_before = self.child.kill();
        let status = self.child.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "{} ended by itself\n{}",
            self.name,
            self.log()
        );
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
        if thread::panicking() {
            show(&self.name, &self.log());
        }
    }
}

/// A daemon that ended before it was ready.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it wrote.
    pub log: String,
}

/// Reads what the daemon tells systemd, until `alive` is gone.
fn listen(notify: &UnixDatagram, ready: &mpsc::Sender<()>, alive: &Weak<()>) {
    let mut message = [0; 4096];
    while alive.strong_count() > 0 {
        let length = notify.recv(&mut message).unwrap_or(0);
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
        if text.lines().any(|line| line == "READY=1") {
            let _nobody_waits = ready.send(());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failing test shows what it knows")]
fn show(name: &str, log: &str) {
    // What the loader says about each instruction helps nobody here.
    let own = |line: &&str| {
        !["aya_obj", "aya::", "h2::"]
            .iter()
            .any(|other| line.contains(other))
    };
    let lines: Vec<_> = log.lines().filter(own).collect();
    let first = lines.len().saturating_sub(TAIL);
    eprintln!("--- log of {name}, last lines");
    for line in lines.iter().skip(first) {
        eprintln!("{line}");
    }
    eprintln!("---");
}
