//! The guarded root: which cgroup v2 directory everything is relative to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Component, Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{IdentityError, mounts::Mounts};

/// Turns the configured value into a checked directory; `auto` searches the mount table.
///
/// # Errors
/// No hierarchy is mounted, or the configured path is missing or is not on cgroup v2.
pub fn locate(configured: &str) -> Result<PathBuf, IdentityError> {
    let path = if configured == "auto" {
        find()?
    } else {
        PathBuf::from(configured)
    };
    check(&path)?;
    Ok(path)
}

/// The root of the cgroup v2 mount, unified or hybrid. Of several mounts the one that shows most of
/// the hierarchy: an agent in its own cgroup namespace sees the host's root as `/../..`.
///
/// # Errors
/// The mount table can't be read or has no whole cgroup v2 hierarchy.
pub fn find() -> Result<PathBuf, IdentityError> {
    let mounts = Mounts::own().map_err(|source| IdentityError::Read {
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    choose(&mounts).ok_or(IdentityError::NoCgroup2)
}

/// Checks that a path is a directory on cgroup v2.
///
/// # Errors
/// It is missing, can't be read, is no directory or lies on another file system.
pub fn check(path: &Path) -> Result<(), IdentityError> {
    if !metadata(path)?.is_dir() {
        return Err(IdentityError::NotDirectory { path: path.into() });
    }
    let stat = statfs(path).map_err(|errno| IdentityError::Read {
        path: path.into(),
        source: errno.into(),
    })?;
    if stat.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(IdentityError::NotCgroup2 { path: path.into() });
    }
    Ok(())
}

/// The 64-bit id by which the kernel knows a cgroup directory: its inode number.
///
/// # Errors
/// The directory is missing or can't be read.
pub fn cgroup_id(path: &Path) -> Result<u64, IdentityError> {
    metadata(path).map(|metadata| metadata.ino())
}

/// Where the cgroups with these ids are, as far as they can be seen from here.
#[must_use]
pub fn paths_of(ids: &BTreeSet<u64>) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let Ok(top) = find() else { return found };
    if let Ok(id) = cgroup_id(&top)
        && ids.contains(&id)
    {
        let _ = found.insert(id, top.clone());
    }
    let mut pending = vec![top];
    while let Some(directory) = pending.pop() {
        if found.len() == ids.len() {
            break;
        }
        // One that is removed meanwhile holds nothing.
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if ids.contains(&entry.ino()) {
                let _ = found.insert(entry.ino(), entry.path());
            }
            pending.push(entry.path());
        }
    }
    found
}

fn metadata(path: &Path) -> Result<fs::Metadata, IdentityError> {
    fs::metadata(path).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            IdentityError::NoRoot { path: path.into() }
        } else {
            IdentityError::Read {
                path: path.into(),
                source,
            }
        }
    })
}

fn choose(mounts: &Mounts) -> Option<PathBuf> {
    let whole = mounts.iter().filter(|mount| {
        mount.kind == "cgroup2"
            && mount
                .root
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::ParentDir))
    });
    let best = whole.max_by_key(|mount| {
        let above = mount.root.components().count();
        (above, std::cmp::Reverse(mount.point.as_os_str().len()))
    })?;
    Some(best.point.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str) -> Option<PathBuf> {
        choose(&Mounts::parse(text.as_bytes()))
    }

    #[test]
    fn hybrid_mount_is_found_among_version_1_mounts() {
        let text = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(chosen(text), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn host_hierarchy_wins_over_the_one_of_an_own_cgroup_namespace() {
        let text = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                    42 31 0:38 /../../.. /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(chosen(text), Some("/host/sys/fs/cgroup".into()));
    }

    #[test]
    fn part_of_a_hierarchy_is_not_taken_for_the_whole() {
        let text = "41 31 0:38 /machine /mnt rw - cgroup2 cgroup2 rw\n";
        assert_eq!(chosen(text), None);
    }

    #[test]
    fn what_is_no_cgroup2_directory_is_refused_with_a_remedy() {
        let cases = [
            ("/nonexistent/ringfence", "create it"),
            ("/proc", "not on cgroup v2"),
            ("/proc/self/stat", "not a directory"),
        ];
        for (path, remedy) in cases {
            let error = locate(path).map_err(|error| error.to_string());
            assert!(
                error.as_ref().is_err_and(|text| text.contains(remedy)),
                "{path}: {error:?}"
            );
        }
    }
}
