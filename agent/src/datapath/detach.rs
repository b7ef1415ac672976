//! `ringfence detach`: ends enforcement by removing what agents have pinned, whatever their version.
//!
//! Removes what carries a name of Ringfence below a directory of a version, and nothing else. Links go
//! first, those that judge frames and packets before those that give sockets their owners: nobody is judged by
//! half of a policy. Refuses while an agent holds a lock, because it would attach again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirEntry},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use super::{
    frames, links,
    lock::{self, LockError},
    mount::{self, MountError},
    pins, syscall,
};
use crate::identity::root;
use nix::unistd::geteuid;

/// Why enforcement can't be ended.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The caller may not.
    #[error("only root may end enforcement; run `sudo ringfence detach`")]
    NotRoot,
    /// An agent runs.
    #[error(
        "an agent{} holds {}; stop it first (systemctl stop ringfence), then detach",
        holder.map_or_else(String::new, |pid| format!(" (process {pid})")),
        path.display()
    )]
    Running {
        /// What it has locked.
        path: PathBuf,
        /// Its process number, where it is known.
        holder: Option<u32>,
    },
    /// A lock can't be looked at.
    #[error(transparent)]
    Lock(LockError),
    /// The directory can't hold pins.
    #[error(
        "{} is not on a bpffs, so nothing of Ringfence is pinned there; name the agent's pin-dir \
         with --pin-dir",
        path.display()
    )]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// The file system can't be told.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Something can't be read.
    #[error("cannot read {}: {source}; run it as root where the agent ran", path.display())]
    Read {
        /// The directory or pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something can't be removed.
    #[error(
        "cannot remove {}: {source}; what was attached by it may still be in force: make the file \
         system writable, then detach again",
        path.display()
    )]
    Remove {
        /// The directory or pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What was removed, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// By version, in ascending order; versions of which nothing was there are left out.
    pub versions: Vec<Version>,
    /// What lies there and is not Ringfence's, in the order of paths.
    pub left: Vec<PathBuf>,
}

/// What was removed of one version of the ABI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub number: u32,
    /// Hooks, in the order in which they were removed.
    pub hooks: Vec<Hook>,
    /// Devices whose frames were judged.
    pub devices: usize,
    /// Maps.
    pub maps: Vec<String>,
}

/// A hook that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program.
    pub name: String,
    /// Id of the cgroup it was attached to; 0 if that was gone or it was detached before.
    pub cgroup_id: u64,
    /// Where that cgroup is, if it can be seen from here.
    pub cgroup: Option<PathBuf>,
}

/// Removes what a start has made below `pin_dir` that failed before anything was attached. Where something
/// judges traffic, all of it stays.
pub fn tidy(pin_dir: &Path) {
    let Ok(versions) = pins::versions(pin_dir) else {
        return;
    };
    let attached = versions.iter().any(|(_, version)| {
        fs::read_dir(version.join(pins::LINKS)).is_ok_and(|mut links| links.next().is_some())
    });
    if attached {
        return;
    }
    if let Err(error) = detach(pin_dir, None) {
        tracing::warn!(%error, "what a start has made that failed is not removed");
    }
}

/// Removes the hooks and maps of every version below `pin_dir`; `state_dir` is the agent's, if that
/// is known. When it returns, nothing that was pinned there judges traffic any more.
///
/// # Errors
/// An agent runs, or something can't be read or removed; what was removed by then stays removed.
pub fn detach(pin_dir: &Path, state_dir: Option<&Path>) -> Result<Detached, DetachError> {
    if !geteuid().is_root() {
        return Err(DetachError::NotRoot);
    }
    // Also where there are no pins: an agent whose pins were removed is about to pin again.
    let _state = state_dir
        .map(lock::known_state)
        .transpose()
        .map_err(running)?;
    if !pin_dir.try_exists().map_err(cannot_read(pin_dir))? {
        return Ok(Detached::default());
    }
    if !mount::on_bpffs(pin_dir)? {
        return Err(DetachError::NotBpffs {
            path: pin_dir.into(),
        });
    }
    let _pins = lock::pins(pin_dir).map_err(running)?;
    let mut versions = Vec::new();
    let found = pins::versions(pin_dir).map_err(cannot_read(pin_dir))?;
    for (number, path) in &found {
        let version = Version {
            number: *number,
            devices: frames::remove(path).map_err(cannot_remove(&path.join(frames::DIRECTORY)))?,
            hooks: remove_links(&path.join(pins::LINKS))?,
            maps: Vec::new(),
        };
        versions.push(version);
    }
    for (version, (_, path)) in versions.iter_mut().zip(&found) {
        version.maps = remove_maps(path)?;
        for directory in [&path.join(frames::DIRECTORY), &path.join(pins::LINKS), path] {
            remove_directory(directory)?;
        }
    }
    let left = left_below(pin_dir, &found)?;
    remove_directory(pin_dir)?;
    versions.retain(|version| !version.hooks.is_empty() || !version.maps.is_empty());
    find_cgroups(&mut versions);
    Ok(Detached { versions, left })
}

fn remove_links(directory: &Path) -> Result<Vec<Hook>, DetachError> {
    let mut removed = Vec::new();
    for name in links::every().rev().map(|hook| hook.name) {
        let path = directory.join(name);
        let link = match syscall::open_pin(&path) {
            Ok(link) => link,
            Err(error) if is_absent(&error) => continue,
            Err(source) => return Err(DetachError::Read { path, source }),
        };
        // Another kind of object is someone else's, whatever it is called.
        let Ok(info) = syscall::link_info(link.as_fd()) else {
            continue;
        };
        if !info.is_cgroup() {
            continue;
        }
        syscall::link_detach(link.as_fd()).map_err(cannot_remove(&path))?;
        fs::remove_file(&path).map_err(cannot_remove(&path))?;
        removed.push(Hook {
            name: name.to_owned(),
            cgroup_id: info.cgroup,
            cgroup: None,
        });
    }
    Ok(removed)
}

fn remove_maps(directory: &Path) -> Result<Vec<String>, DetachError> {
    let mut removed = Vec::new();
    for name in pins::maps() {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => removed.push(name.to_owned()),
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(DetachError::Remove { path, source }),
        }
    }
    Ok(removed)
}

/// A directory that holds something of others stays.
fn remove_directory(path: &Path) -> Result<(), DetachError> {
    match fs::remove_dir(path) {
        Err(error)
            if !is_absent(&error)
                && !matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
                ) =>
        {
            Err(cannot_remove(path)(error))
        }
        _ => Ok(()),
    }
}

/// What is in the pin directory and in those of the versions, but for these themselves.
fn left_below(pin_dir: &Path, versions: &[(u32, PathBuf)]) -> Result<Vec<PathBuf>, DetachError> {
    let ours: BTreeSet<PathBuf> = versions
        .iter()
        .flat_map(|(_, path)| {
            [
                path.join(frames::DIRECTORY),
                path.join(pins::LINKS),
                path.clone(),
            ]
        })
        .collect();
    let mut left = Vec::new();
    for directory in ours.iter().map(PathBuf::as_path).chain([pin_dir]) {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries.collect::<io::Result<Vec<DirEntry>>>(),
            Err(error) if is_absent(&error) => continue,
            Err(error) => Err(error),
        };
        let entries = entries.map_err(cannot_read(directory))?;
        left.extend(entries.iter().map(DirEntry::path));
    }
    left.retain(|path| !ours.contains(path));
    left.sort();
    Ok(left)
}

fn find_cgroups(versions: &mut [Version]) {
    let hooks = versions.iter().flat_map(|version| &version.hooks);
    let ids: BTreeSet<u64> = hooks
        .map(|hook| hook.cgroup_id)
        .filter(|id| *id != 0)
        .collect();
    let paths: BTreeMap<u64, PathBuf> = root::paths_of(&ids);
    for hook in versions.iter_mut().flat_map(|version| &mut version.hooks) {
        hook.cgroup = paths.get(&hook.cgroup_id).cloned();
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn running(error: LockError) -> DetachError {
    match error {
        LockError::Held { path, holder } => DetachError::Running { path, holder },
        LockError::Io { .. } => DetachError::Lock(error),
    }
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> DetachError {
    |source| DetachError::Read {
        path: path.into(),
        source,
    }
}

fn cannot_remove(path: &Path) -> impl FnOnce(io::Error) -> DetachError {
    |source| DetachError::Remove {
        path: path.into(),
        source,
    }
}
