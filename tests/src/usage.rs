//! Processor time and memory of a process.

use std::{fs, time::Duration};

/// Of a moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time since its start, in steps of 10 ms.
    pub processor: Duration,
    /// Resident now.
    pub resident_kib: u64,
}

impl Usage {
    /// Of a process that lives.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|it| it.parse::<u64>().ok());
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next());
        Self {
            processor: Duration::from_millis((ticks(11).unwrap() + ticks(12).unwrap()) * 10),
            resident_kib: kib.and_then(|it| it.parse().ok()).unwrap(),
        }
    }
}
