//! Resident memory of the agent over time.

use std::{
    fmt::{Display, Formatter, Result},
    fs,
    time::Instant,
};

/// Looks that count towards the slope begin after so many: what a new agent fills at first is no leak.
const SETTLING: u32 = 20;

/// What was seen, and the sums of a straight line through it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    begun: Option<Instant>,
    looks: u32,
    last_kib: f64,
    most_kib: f64,
    count: f64,
    time: f64,
    kib: f64,
    time_time: f64,
    time_kib: f64,
}

impl Memory {
    /// Looks once.
    pub fn note(&mut self, pid: u32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let Some(kib) =
            line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u32>().ok())
        else {
            return;
        };
        let kib = f64::from(kib);
        self.last_kib = kib;
        self.most_kib = self.most_kib.max(kib);
        self.looks += 1;
        if self.looks <= SETTLING {
            return;
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        self.count += 1.0;
        self.time += minutes;
        self.kib += kib;
        self.time_time += minutes * minutes;
        self.time_kib += minutes * kib;
    }

    /// KiB a minute by least squares; nothing while too little was seen.
    #[must_use]
    pub fn slope(&self) -> Option<f64> {
        let spread = self.count * self.time_time - self.time * self.time;
        let enough = self.count >= 30.0 && spread > 0.0;
        enough.then(|| (self.count * self.time_kib - self.time * self.kib) / spread)
    }
}

impl Display for Memory {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        write!(
            to,
            "{} KiB resident, {} KiB at most, ",
            self.last_kib, self.most_kib
        )?;
        match self.slope() {
            Some(slope) => write!(to, "{slope:+.1} KiB a minute"),
            None => write!(to, "too short to tell whether it grows"),
        }
    }
}
