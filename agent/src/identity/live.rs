//! Live processes as /proc shows them, for whoever asks about one or about all.
//!
//! Reads only; walks /proc only when it is asked to. A process may end at any moment: then it is left out
//! of a list, and [`LookError::Gone`] where it was asked for. Never waits for a FUSE server.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use ringfence_common::abi::ExecutableKey;
use thiserror::Error;

use super::{
    ContainerFacts, Groups, Tables,
    adopt::{self, Origin},
    file,
    mounts::Mounts,
    root::cgroup_id,
};

/// `PF_KTHREAD` (`include/linux/sched.h`).
const KERNEL_THREAD: u32 = 0x0020_0000;
const DELETED: &[u8] = b" (deleted)";

/// A process below the guarded root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Thread group id.
    pub tgid: u32,
    /// Command name; bytes that are not UTF-8 are replaced.
    pub comm: String,
    /// Real user id.
    pub uid: u32,
    /// Its groups.
    pub groups: Groups,
    /// cgroup below the guarded root, with a leading slash.
    pub cgroup: PathBuf,
    /// Its id; 0 when it has been removed.
    pub cgroup_id: u64,
    /// What it runs.
    pub program: Program,
    /// Inode number of its network namespace, 0 = not known.
    pub netns: u64,
    /// It has ended, and waits for its parent.
    pub ended: bool,
    /// What a runtime has said of its container.
    pub container: Option<ContainerFacts>,
}

/// The file that a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its path, without what the kernel adds.
    pub path: PathBuf,
    /// Where the file is.
    pub state: ProgramState,
    /// As the kernel knows it; `None` where it can't be read.
    pub key: Option<ExecutableKey>,
}

/// Where the file is that a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramState {
    /// At its path.
    OnDisk,
    /// Removed or replaced since.
    Deleted,
    /// In memory only.
    Memfd,
    /// In another mount namespace or root, where its path is another file than here.
    OtherMounts,
    /// On a file system that a user answers for.
    Foreign,
    /// There is none, or it can't be read.
    Unreadable,
}

/// Why a process can't be told about.
#[derive(Debug, Error)]
pub enum LookError {
    /// There is none of that number.
    #[error("there is no process {0}; it may have ended (the agent counts as the host does)")]
    Gone(u32),
    /// It is the kernel's own.
    #[error(
        "process {pid} ({comm}) is a thread of the kernel: it has no executable, and policy is about processes"
    )]
    KernelThread {
        /// Its number.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// It is not guarded.
    #[error(
        "process {pid} ({comm}) is outside of the guarded root {}: its cgroup is {}, and no policy concerns it; \
         see `cgroup-root` in the agent's configuration",
        root.display(), cgroup.display()
    )]
    Outside {
        /// Its number.
        pid: u32,
        /// Its command name.
        comm: String,
        /// Its cgroup, as the agent sees it.
        cgroup: PathBuf,
        /// The guarded root.
        root: PathBuf,
    },
    /// /proc or the cgroup tree doesn't say enough.
    #[error("processes can't be read: {0}; the agent needs the host's /proc and cgroup tree")]
    Unreadable(String),
}

/// Looks at processes; made anew for each question, so that nothing in it is old.
pub struct Processes {
    root: PathBuf,
    origin: Origin,
    own: Mounts,
    cgroups: HashMap<PathBuf, u64>,
    tables: Arc<Tables>,
}

impl Processes {
    /// Below a guarded root; `tables` say which of them are in containers.
    ///
    /// # Errors
    /// [`LookError::Unreadable`].
    pub fn new(root: &Path, tables: &Arc<Tables>) -> Result<Self, LookError> {
        let origin = Origin::find(root).ok_or_else(|| {
            let text = format!("{} is not below a visible cgroup2 mount", root.display());
            LookError::Unreadable(text)
        })?;
        let own = Mounts::own().map_err(|error| LookError::Unreadable(error.to_string()))?;
        Ok(Self {
            root: root.to_path_buf(),
            origin,
            own,
            cgroups: HashMap::new(),
            tables: Arc::clone(tables),
        })
    }

    /// One process, or the one that a thread belongs to.
    ///
    /// # Errors
    /// [`LookError`].
    pub fn one(&mut self, pid: u32) -> Result<Live, LookError> {
        let gone = || LookError::Gone(pid);
        let tgid = tgid_of(pid).ok_or_else(gone)?;
        let directory = directory(tgid);
        let stat = Stat::read(&directory).ok_or_else(gone)?;
        if stat.flags & KERNEL_THREAD != 0 {
            let comm = stat.comm;
            return Err(LookError::KernelThread { pid, comm });
        }
        let cgroup = adopt::cgroup_of(&directory).ok_or_else(gone)?;
        let Some(below) = self.below_root(&cgroup) else {
            return Err(LookError::Outside {
                pid,
                comm: stat.comm,
                cgroup,
                root: self.root.clone(),
            });
        };
        self.read(tgid, stat, below).ok_or_else(gone)
    }

    /// Every process below the guarded root that has not ended, by number.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn all(&mut self) -> Result<Vec<Live>, LookError> {
        let entries =
            fs::read_dir("/proc").map_err(|error| LookError::Unreadable(error.to_string()))?;
        let mut numbers: Vec<u32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers
            .into_iter()
            .filter_map(|tgid| {
                let directory = directory(tgid);
                let cgroup = adopt::cgroup_of(&directory)?;
                let below = self.below_root(&cgroup)?;
                let stat = Stat::read(&directory)?;
                let counts = stat.flags & KERNEL_THREAD == 0 && !stat.ended;
                counts.then(|| self.read(tgid, stat, below))?
            })
            .collect())
    }

    fn read(&mut self, tgid: u32, stat: Stat, cgroup: PathBuf) -> Option<Live> {
        let (uid, groups) = adopt::credentials(tgid)?;
        Some(Live {
            tgid,
            uid,
            groups,
            cgroup_id: self.cgroup_id(&cgroup),
            container: self.tables.container(&cgroup).cloned(),
            cgroup,
            program: self.program(tgid),
            netns: fs::metadata(file::directory(tgid).join("ns/net"))
                .map_or(0, |found| found.ino()),
            comm: stat.comm,
            ended: stat.ended,
        })
    }

    /// The kernel marks a cgroup that was removed while a process was still ending in it.
    fn below_root(&self, cgroup: &Path) -> Option<PathBuf> {
        let below = self.origin.below_root(cgroup)?;
        let bytes = below.as_os_str().as_bytes();
        let Some(bare) = bytes.strip_suffix(DELETED) else {
            return Some(below);
        };
        if cgroup_id(&self.place(&below)).is_ok() {
            return Some(below);
        }
        Some(PathBuf::from(OsStr::from_bytes(bare)))
    }

    fn place(&self, below: &Path) -> PathBuf {
        self.root.join(below.strip_prefix("/").unwrap_or(below))
    }

    fn cgroup_id(&mut self, path: &Path) -> u64 {
        if let Some(id) = self.cgroups.get(path) {
            return *id;
        }
        let id = cgroup_id(&self.place(path)).unwrap_or(0);
        let _ = self.cgroups.insert(path.to_path_buf(), id);
        id
    }

    fn program(&self, tgid: u32) -> Program {
        let link = file::directory(tgid).join("exe");
        let Ok(shown) = fs::read_link(&link) else {
            return Program {
                path: PathBuf::new(),
                state: ProgramState::Unreadable,
                key: None,
            };
        };
        let key = adopt::executable(tgid, &self.own);
        let bytes = shown.as_os_str().as_bytes();
        let removed = bytes.strip_suffix(DELETED);
        let bare = || PathBuf::from(OsStr::from_bytes(removed.unwrap_or(bytes)));
        let program = |path, state| Program { path, state, key };
        let Some(key) = key else {
            return program(bare(), ProgramState::Unreadable);
        };
        if key == ExecutableKey::FOREIGN {
            return program(bare(), ProgramState::Foreign);
        }
        if self.is_at(&shown, key) {
            return program(shown, ProgramState::OnDisk);
        }
        if removed.is_some_and(|path| path.starts_with(b"/memfd:")) {
            return program(bare(), ProgramState::Memfd);
        }
        if removed.is_some() {
            return program(bare(), ProgramState::Deleted);
        }
        program(shown, ProgramState::OtherMounts)
    }

    /// Whether the path leads, here, to the file with this key.
    fn is_at(&self, path: &Path, key: ExecutableKey) -> bool {
        !self.is_behind_fuse(path)
            && file::Executable::open(path, &self.own).is_ok_and(|file| file.key == key)
    }

    /// Whether a server would be asked on the way, which might never answer.
    fn is_behind_fuse(&self, path: &Path) -> bool {
        let fuse = |mount: &super::mounts::Mount| mount.is_fuse() && path.starts_with(&mount.point);
        self.own.iter().any(fuse)
    }
}

/// Descriptor and inode number of every socket that a process has open; none where it is gone.
#[must_use]
pub fn sockets_of(tgid: u32) -> Vec<(i32, u64)> {
    adopt::sockets(&file::directory(tgid).join("fd")).unwrap_or_default()
}

/// What `/proc/PID/stat` says (proc(5)); the command may hold blanks and parentheses.
struct Stat {
    comm: String,
    ended: bool,
    flags: u32,
}

impl Stat {
    fn read(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join("stat")).ok()?;
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let first_ended = matches!(fields.next()?, "Z" | "X" | "x");
        let flags = fields.nth(5)?.parse().ok()?;
        let threads: u32 = fields.nth(10)?.parse().ok()?;
        let ended = first_ended && threads <= 1;
        Some(Self { comm, ended, flags })
    }
}

fn directory(tgid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{tgid}"))
}

/// The process that a thread belongs to; /proc answers for threads too, though it does not list them.
fn tgid_of(pid: u32) -> Option<u32> {
    let text = fs::read(directory(pid).join("status")).ok()?;
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Tgid:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
