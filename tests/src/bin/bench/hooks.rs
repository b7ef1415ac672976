//! What the kernel programs cost by the kernel's own statistics (`BPF_ENABLE_STATS`), which end with this process.

use aya::sys::{Stats, enable_stats};
use ringfence_tests::kernel;
use serde::{Deserialize, Serialize};

use crate::{
    stage::{Family, Stage, Way},
    stats::float,
    worker::PLAIN,
};

/// A program under one kind of traffic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    pub program: String,
    pub traffic: String,
    /// Mean of one run, nanoseconds.
    pub run_ns: f64,
    /// For each operation: a connection, an exchange, 64 KiB of a stream.
    pub runs: f64,
}

/// A program as it was loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Size {
    pub program: String,
    pub instructions: u32,
    pub verified: u32,
    pub memory: u64,
}

/// A pinned map.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Map {
    pub name: String,
    pub entries: u32,
    pub memory: u64,
}

/// Bytes of a stream that count as one operation.
const OPERATION: u64 = 1 << 16;

/// Runs each kind of traffic for `millis` with statistics on.
pub fn costs(stage: &mut Stage, millis: u64) -> Vec<Hook> {
    let _on = enable_stats(Stats::RunTime).unwrap();
    let pins = stage.sandbox.pins();
    let mut found = Vec::new();
    for (kind, unit) in [("crr", 1), ("rr", 1), ("stream", OPERATION)] {
        let before = kernel::programs(&pins);
        let address = Way::Loopback.address(Family::V4, PLAIN);
        let line = format!("{kind} {address} {millis}");
        let (_, operations) = stage.client(Way::Loopback).ask(&line);
        // The last packets of the last connection.
        std::thread::sleep(std::time::Duration::from_millis(50));
        for (before, after) in before.iter().zip(kernel::programs(&pins)) {
            let runs = after.runs - before.runs;
            if runs > 0 {
                found.push(Hook {
                    program: after.name,
                    traffic: kind.to_owned(),
                    run_ns: float(after.run_time_ns - before.run_time_ns) / float(runs),
                    runs: float(runs) / float(operations / unit),
                });
            }
        }
    }
    found
}

/// Programs as they are loaded.
pub fn sizes(stage: &Stage) -> Vec<Size> {
    let programs = kernel::programs(&stage.sandbox.pins());
    let size = |program: kernel::Program| Size {
        program: program.name,
        instructions: program.instructions,
        verified: program.verified,
        memory: program.memory,
    };
    programs.into_iter().map(size).collect()
}

/// Pinned maps as they are now.
pub fn maps(stage: &Stage) -> Vec<Map> {
    let maps = kernel::maps(&stage.sandbox.pins());
    let map = |map: kernel::Map| Map {
        name: map.name,
        entries: map.entries,
        memory: map.memory,
    };
    maps.into_iter().map(map).collect()
}
