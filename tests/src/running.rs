//! A process of the traffic tool that goes on while the test does other things.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use crate::{Outcome, poll::PATIENCE};

/// Lines so far, and whether there will be more.
type Lines = (Mutex<(Vec<Outcome>, bool)>, Condvar);

/// A running process; it is killed when dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Lines>,
    /// Lines that were handed out.
    seen: usize,
}

impl Running {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::<Lines>::default();
        let output = child.stdout.take().unwrap();
        let to = Arc::clone(&lines);
        let _reader = thread::spawn(move || read(output, &to));
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            seen: 0,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output; panics if none comes.
    #[track_caller]
    pub fn line(&mut self) -> Outcome {
        let deadline = Instant::now() + *PATIENCE;
        let (lines, changed) = &*self.lines;
        let mut guard = lines.lock().unwrap();
        loop {
            if let Some(outcome) = guard.0.get(self.seen) {
                self.seen += 1;
                return outcome.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !guard.1 && !left.is_zero(),
                "process {} wrote only {:?}",
                self.child.id(),
                guard.0
            );
            guard = changed.wait_timeout(guard, left).unwrap().0;
        }
    }

    /// The last line, once the process has ended.
    #[track_caller]
    #[must_use]
    pub fn last(mut self) -> Outcome {
        let mut outcome = self.line();
        loop {
            let (lines, changed) = &*self.lines;
            let mut guard = lines.lock().unwrap();
            let deadline = Instant::now() + *PATIENCE;
            while guard.0.len() == self.seen && !guard.1 {
                let left = deadline.saturating_duration_since(Instant::now());
                assert!(!left.is_zero(), "still running after {:?}", guard.0);
                guard = changed.wait_timeout(guard, left).unwrap().0;
            }
            let Some(next) = guard.0.get(self.seen) else {
                let _status = self.child.wait();
                return outcome;
            };
            outcome = next.clone();
            self.seen += 1;
        }
    }

    /// The lines so far that were not handed out.
    #[must_use]
    pub fn unread(&self) -> Vec<Outcome> {
        let lines = self.lines.0.lock().unwrap();
        lines.0.get(self.seen..).unwrap_or_default().to_vec()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes a line to its standard input.
    pub fn go_on(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Tells a puppet what to do next, and returns what came of it.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> Outcome {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.line()
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(output: ChildStdout, to: &Lines) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let outcome = serde_json::from_str(&line).unwrap_or_else(|_| Outcome {
            step: "garbled".to_owned(),
            error: Some(line),
            ..Outcome::default()
        });
        to.0.lock().unwrap().0.push(outcome);
        to.1.notify_all();
    }
    to.0.lock().unwrap().1 = true;
    to.1.notify_all();
}
