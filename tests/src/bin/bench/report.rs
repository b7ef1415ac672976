//! All that one run measured; the JSON file holds exactly this.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    changes::Change,
    flat::Series,
    hooks::{Hook, Map, Size},
    load::Load,
    paired::Paired,
    scale::Scale,
};

/// A run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub paired: Vec<Paired>,
    pub hooks: Vec<Hook>,
    pub programs: Vec<Size>,
    pub maps: Vec<Map>,
    pub load: Vec<Load>,
    pub changes: Vec<Change>,
    pub scale: Vec<Scale>,
    pub flat: Vec<Series>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// On what, and of which code. Nothing that tells whose machine it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub processors: usize,
    pub model: String,
    pub memory_mib: u64,
    pub kernel: String,
    pub commit: String,
    /// Of one minute, before the run.
    pub load: f64,
    pub quick: bool,
}

impl Machine {
    /// This one.
    pub fn read(commit: &str, quick: bool) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = value(&text("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let load = text("/proc/loadavg");
        Self {
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            model: value(&text("/proc/cpuinfo"), "model name").unwrap_or_default(),
            memory_mib: kib / 1_024,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: commit.to_owned(),
            load: load
                .split(' ')
                .next()
                .and_then(|it| it.parse().ok())
                .unwrap_or(0.0),
            quick,
        }
    }
}

impl Report {
    /// From a file.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} is not of this bench: {error}", path.display()))
    }

    /// Into a file.
    pub fn write(&self, path: &Path) {
        let text = serde_json::to_string_pretty(self).unwrap();
        fs::write(path, text + "\n")
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}
