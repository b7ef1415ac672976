//! What the kernel says about the programs and maps of an agent.

use std::{collections::BTreeSet, fs, os::fd::AsRawFd as _, path::Path};

use aya::{maps::MapInfo, programs::loaded_programs};

/// Bytes of one instruction (`struct bpf_insn`).
const INSTRUCTION: u32 = 8;

/// A loaded program.
#[derive(Clone, Debug)]
pub struct Program {
    /// At most 15 bytes, as the kernel keeps it.
    pub name: String,
    /// After the verifier's changes, before the JIT compiler (`xlated_prog_len`).
    pub instructions: u32,
    /// Looked at by the verifier (`verified_insns`); 0 where the kernel does not say (before 5.16).
    pub verified: u32,
    /// Pages it keeps, bytes.
    pub memory: u64,
    /// How often it ran while statistics were on.
    pub runs: u64,
    /// For how long, nanoseconds.
    pub run_time_ns: u64,
}

/// A pinned map.
#[derive(Clone, Debug)]
pub struct Map {
    /// Its name.
    pub name: String,
    /// Most entries it may hold; bytes of a ring buffer.
    pub entries: u32,
    /// Memory that it has at present, bytes: `memlock` of its `fdinfo`, exact since Linux 6.4, before it an estimate
    /// of a full map.
    pub memory: u64,
}

/// The programs that use one of the maps that are pinned below `pins`, by name.
#[must_use]
pub fn programs(pins: &Path) -> Vec<Program> {
    let pinned: BTreeSet<u32> = infos(pins).iter().map(|(_, info)| info.id()).collect();
    let mut found = Vec::new();
    // One that is gone between being listed and being asked is none of a running agent.
    for info in loaded_programs().flatten() {
        let maps = info.map_ids().ok().flatten().unwrap_or_default();
        if maps.iter().any(|id| pinned.contains(id)) {
            found.push(Program {
                name: info.name_as_str().unwrap_or_default().to_owned(),
                instructions: info.size_translated().unwrap_or(0) / INSTRUCTION,
                verified: info.verified_instruction_count().unwrap_or(0),
                memory: info.memory_locked().unwrap_or(0).into(),
                runs: info.run_count(),
                run_time_ns: u64::try_from(info.run_time().as_nanos()).unwrap(),
            });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// The maps that are pinned below `pins`, by name.
#[must_use]
pub fn maps(pins: &Path) -> Vec<Map> {
    let mut found: Vec<_> = infos(pins)
        .into_iter()
        .map(|(name, info)| Map {
            name,
            entries: info.max_entries(),
            memory: memory(&info),
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// `MAJOR.MINOR` of the running kernel.
#[must_use]
pub fn series() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.trim().split(['.', '-']);
    let mut next = || numbers.next().unwrap_or_default();
    format!("{}.{}", next(), next())
}

fn infos(pins: &Path) -> Vec<(String, MapInfo)> {
    let versions = fs::read_dir(pins).into_iter().flatten().flatten();
    let files = versions.flat_map(|version| fs::read_dir(version.path()).into_iter().flatten());
    files
        .flatten()
        .filter_map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            Some((name, MapInfo::from_pin(file.path()).ok()?))
        })
        .collect()
}

fn memory(info: &MapInfo) -> u64 {
    let fd = info.fd().unwrap();
    let fd = std::os::fd::AsFd::as_fd(&fd).as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}
