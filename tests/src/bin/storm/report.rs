//! What came of it.

use std::{
    fmt::{Display, Formatter, Result},
    fs,
    time::Duration,
};

use nix::libc::{ECONNABORTED, EPERM};

/// A call that takes longer than a SYN that is held once (50 ms), milliseconds.
const HELD_MS: u64 = 40;

/// Calls that may and are refused all the same, at most, of a thousand: what waits for longer than
/// `[agent] pending-seconds` is refused.
const REFUSED_OF_1000: usize = 10;

/// How the call of one process ended.
#[derive(Clone, Copy)]
pub struct Answer {
    index: usize,
    micros: u64,
    /// Error number, 0 = connected.
    error: i32,
}

impl Answer {
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        Some(Self {
            index: words.next()?.parse().ok()?,
            micros: words.next()?.parse().ok()?,
            error: words.next()?.parse().ok()?,
        })
    }
}

/// Whether the process with this number may call.
pub const fn is_good(index: usize) -> bool {
    index.is_multiple_of(2)
}

/// Processor time and memory of the agent.
#[derive(Clone, Copy)]
pub struct Usage {
    ticks: u64,
    resident_kib: u64,
    most_kib: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_ascii_whitespace()
            .collect();
        let ticks = |field: usize| {
            fields
                .get(field)
                .and_then(|it| it.parse::<u64>().ok())
                .unwrap()
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_ascii_whitespace()
                .nth(1)
                .unwrap()
                .parse()
                .unwrap()
        };
        Self {
            ticks: ticks(11) + ticks(12),
            resident_kib: kib("VmRSS:"),
            most_kib: kib("VmHWM:"),
        }
    }

    pub const fn since(self, before: &Self) -> Self {
        Self {
            ticks: self.ticks - before.ticks,
            ..self
        }
    }
}

pub struct Report {
    pub answers: Vec<Answer>,
    pub expected: usize,
    pub asked_rate: usize,
    pub took: Duration,
    /// Packets that were held.
    pub pending: u64,
    pub usage: Usage,
    pub lost: u64,
    pub flows: usize,
}

impl Report {
    fn count(&self, wanted: impl Fn(&Answer) -> bool) -> usize {
        self.answers.iter().filter(|answer| wanted(answer)).count()
    }

    /// Calls that passed and may not, or were refused at once and may; and processes without an answer.
    pub fn wrong(&self) -> usize {
        let silent = self.expected.saturating_sub(self.answers.len());
        silent
            + self.count(|it| !is_good(it.index) && ![EPERM, ECONNABORTED].contains(&it.error))
            + self.count(|it| is_good(it.index) && it.error == EPERM)
    }

    fn refused(&self) -> usize {
        self.count(|it| is_good(it.index) && it.error != 0)
    }

    /// Most calls that may and are refused.
    fn refused_at_most(&self) -> usize {
        self.count(|it| is_good(it.index)) * REFUSED_OF_1000 / 1_000
    }

    fn held(&self) -> usize {
        self.count(|it| it.micros >= HELD_MS * 1_000)
    }

    /// Why it proves nothing, or the wrong thing; empty where all is as it should be.
    pub fn faults(&self) -> Vec<String> {
        let passed = self.count(|it| is_good(it.index) && it.error == 0);
        let of_good = self.refused_at_most();
        let checks = [
            (self.answers.is_empty(), "no process has called".to_owned()),
            (self.wrong() > 0, format!("{} wrong verdicts", self.wrong())),
            (passed == 0, "none of those that may has passed".to_owned()),
            (
                self.refused() > of_good,
                format!("{} good ones refused, more than {of_good}", self.refused()),
            ),
            (
                self.pending == 0,
                "nothing was held: every cgroup was known before its process called".to_owned(),
            ),
        ];
        let failed = checks.into_iter().filter(|(failed, _)| *failed);
        failed.map(|(_, fault)| fault).collect()
    }

    fn durations(&self, good: bool) -> String {
        let all = self.answers.iter().filter(|it| is_good(it.index) == good);
        let mut micros: Vec<u64> = all.map(|it| it.micros).collect();
        micros.sort_unstable();
        let at = |part: usize| {
            let index = (micros.len() * part / 1_000).min(micros.len().saturating_sub(1));
            micros.get(index).copied().unwrap_or(0)
        };
        format!(
            "p50 {} us, p99 {} us, max {} us",
            at(500),
            at(990),
            at(1_000)
        )
    }
}

impl Display for Report {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        let per_second =
            f64::from(u32::try_from(self.answers.len()).unwrap_or(0)) / self.took.as_secs_f64();
        writeln!(
            to,
            "processes: {} of {}, {per_second:.0} a second ({} asked for) in {:.1} s",
            self.answers.len(),
            self.expected,
            self.asked_rate,
            self.took.as_secs_f64()
        )?;
        writeln!(to, "wrong verdicts: {}", self.wrong())?;
        let passed = self.count(|it| !is_good(it.index) && it.error == 0);
        writeln!(to, "bad ones that passed: {passed}")?;
        let first = self
            .answers
            .iter()
            .find(|it| !is_good(it.index) && ![0, EPERM, ECONNABORTED].contains(&it.error));
        if let Some(first) = first {
            writeln!(to, "bad ones with another error, such as {}", first.error)?;
        }
        writeln!(
            to,
            "good ones refused: {}, at most {} may be",
            self.refused(),
            self.refused_at_most()
        )?;
        writeln!(
            to,
            "held: {} calls took {HELD_MS} ms or longer; {} packets were held",
            self.held(),
            self.pending
        )?;
        writeln!(to, "connect of those that may: {}", self.durations(true))?;
        writeln!(
            to,
            "connect of those that may not: {}",
            self.durations(false)
        )?;
        writeln!(
            to,
            "agent: {:.2} s of processor time, {} KiB resident, {} KiB at most",
            std::time::Duration::from_millis(self.usage.ticks * 10).as_secs_f64(),
            self.usage.resident_kib,
            self.usage.most_kib
        )?;
        write!(
            to,
            "events lost: {}; flow records: {}",
            self.lost, self.flows
        )
    }
}

#[cfg(test)]
mod tests;
