//! What is known of a process beyond its number: executable and cgroup, best effort.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_common::abi::{ExecutableKey, Owner};
use tokio::sync::watch;

use crate::identity::Inventory;

/// Threads of a process that are looked at, where its first one has ended.
const THREADS: usize = 16;
/// Processes remembered at most; half of them are dropped at once.
const CAPACITY: usize = 8192;
/// How long an entry is believed without looking whether the process is still the same.
const BELIEVED: Duration = Duration::from_secs(1);

/// A process under one command name and executable: they change when another program is executed. (The
/// executable is zero where the cgroup has no process rules.)
type Key = (u32, [u8; 16], ExecutableKey);

#[derive(Clone)]
struct Entry {
    /// Start time in clock ticks; with the number it names a process for all time.
    started: u64,
    executable: Option<Arc<str>>,
    checked: Instant,
}

/// Executables by process, and cgroups by number. Owned by the reader of the ring buffer.
pub struct ProcessBook {
    proc: PathBuf,
    cgroups: watch::Receiver<Inventory>,
    // Two generations make a bounded cache that forgets what was not used lately.
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
}

impl ProcessBook {
    /// A book that knows the paths of `cgroups` by number (relative to the guarded root).
    #[must_use]
    pub fn new(cgroups: watch::Receiver<Inventory>) -> Self {
        Self {
            proc: PathBuf::from("/proc"),
            cgroups,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Path of the executable of a socket's owner. `None` if the process is gone, or executes another
    /// program than the one that the kernel saw.
    pub fn executable(&mut self, owner: &Owner) -> Option<Arc<str>> {
        if owner.tgid == 0 {
            return None;
        }
        let key = (owner.tgid, owner.comm, owner.executable);
        let known = self.young.get(&key).or_else(|| self.old.get(&key)).cloned();
        let now = Instant::now();
        if let Some(entry) = &known
            && now.duration_since(entry.checked) < BELIEVED
        {
            return entry.executable.clone();
        }
        let started = self.started(owner.tgid);
        let executable = match (known, started) {
            (Some(entry), None) => return entry.executable,
            (Some(entry), Some(started)) if entry.started == started => entry.executable,
            (_, Some(_)) => self.read(owner.tgid, &owner.executable),
            (None, None) => None,
        };
        let entry = Entry {
            started: started.unwrap_or(0),
            executable: executable.clone(),
            checked: now,
        };
        self.remember(key, entry);
        executable
    }

    /// Path of a cgroup below the guarded root.
    #[must_use]
    pub fn cgroup(&self, id: u64) -> Option<Arc<str>> {
        self.cgroups.borrow().path(id).cloned()
    }

    fn remember(&mut self, key: Key, entry: Entry) {
        if self.young.len() >= CAPACITY / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let _previous = self.young.insert(key, entry);
    }

    fn read(&self, tgid: u32, expected: &ExecutableKey) -> Option<Arc<str>> {
        let process = self.proc.join(tgid.to_string());
        let whole = process.join("exe");
        // Where the first thread has ended, another one tells.
        let link = if fs::read_link(&whole).is_ok() {
            whole
        } else {
            let mut threads = fs::read_dir(process.join("task")).ok()?.take(THREADS);
            threads.find_map(|thread| {
                let link = thread.ok()?.path().join("exe");
                fs::read_link(&link).ok().map(|_| link)
            })?
        };
        // The kernel and stat may name a device differently (overlay, btrfs), so it is not compared.
        let is_expected = *expected == ExecutableKey::default() || {
            let file = fs::metadata(&link).ok()?;
            file.ino() == expected.inode
                && u64::try_from(file.ctime()) == Ok(expected.ctime_sec)
                && u32::try_from(file.ctime_nsec()) == Ok(expected.ctime_nsec)
        };
        let path = fs::read_link(&link).ok().filter(|_| is_expected)?;
        Some(Arc::from(path.to_string_lossy()))
    }

    /// Field 22 of `/proc/PID/stat` (proc(5)); the command in field 2 may hold blanks and parentheses.
    fn started(&self, tgid: u32) -> Option<u64> {
        let stat = fs::read(self.proc.join(tgid.to_string()).join("stat")).ok()?;
        let after_command = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let fields = std::str::from_utf8(stat.get(after_command..)?).ok()?;
        fields.split_ascii_whitespace().nth(19)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic fails the test")]

    use super::*;

    fn book() -> ProcessBook {
        let (_sender, cgroups) = watch::channel(Inventory::new([], [(7, "/a", &[][..])]));
        ProcessBook::new(cgroups)
    }

    fn myself() -> Owner {
        Owner {
            tgid: std::process::id(),
            ..Owner::default()
        }
    }

    #[test]
    fn finds_the_executable_of_a_running_process() {
        let expected = std::env::current_exe().unwrap();
        let mut book = book();
        assert_eq!(book.executable(&myself()).as_deref(), expected.to_str());
        assert_eq!(book.executable(&myself()).as_deref(), expected.to_str());
    }

    #[test]
    fn another_program_than_the_kernel_saw_is_not_named() {
        let owner = Owner {
            executable: ExecutableKey {
                inode: 1,
                ..ExecutableKey::default()
            },
            ..myself()
        };
        assert_eq!(book().executable(&owner), None);
    }

    #[test]
    fn another_program_of_the_same_process_and_name_is_not_taken_for_the_first() {
        let mut book = book();
        assert!(book.executable(&myself()).is_some());
        let owner = Owner {
            executable: ExecutableKey {
                inode: 1,
                ..ExecutableKey::default()
            },
            ..myself()
        };
        assert_eq!(book.executable(&owner), None);
    }

    #[test]
    fn processes_that_are_gone_have_none() {
        let owner = Owner {
            tgid: u32::MAX,
            ..Owner::default()
        };
        assert_eq!(book().executable(&owner), None);
        assert_eq!(book().executable(&Owner::default()), None);
    }

    #[test]
    fn what_was_read_survives_the_end_of_the_process() {
        let mut book = book();
        let known = book.executable(&myself());
        book.proc = PathBuf::from("/nonexistent");
        for entry in book.young.values_mut() {
            entry.checked = Instant::now().checked_sub(BELIEVED).unwrap();
        }
        assert_eq!(book.executable(&myself()), known);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut book = book();
        book.proc = PathBuf::from("/nonexistent");
        for tgid in 1..20_000 {
            let owner = Owner {
                tgid,
                ..Owner::default()
            };
            assert_eq!(book.executable(&owner), None);
        }
        assert!(book.young.len() + book.old.len() <= CAPACITY);
    }

    #[test]
    fn cgroups_come_from_the_watch() {
        assert_eq!(book().cgroup(7).as_deref(), Some("/a"));
        assert_eq!(book().cgroup(8), None);
    }
}
