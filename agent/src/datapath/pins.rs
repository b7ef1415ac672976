//! How pins are laid out: below the pin directory one directory for each version of the ABI, with the
//! maps in it, and the links below it.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use ringfence_common::abi::names;

use super::{
    error::DatapathError,
    links::Link,
    lock::{self, PinLock},
    maps as pinned, mount, syscall,
};

/// Directory of the links, below that of a version.
pub(super) const LINKS: &str = "links";

/// Every map that is pinned: what outlives the agent, and what the programs of one agent hand to those of the
/// next while they take turns.
pub fn maps() -> impl Iterator<Item = &'static str> {
    names::PINNED.into_iter()
}

/// Directory of a version.
pub(super) fn directory(pin_dir: &Path, version: u32) -> PathBuf {
    pin_dir.join(format!("v{version}"))
}

/// Makes the directory of a version and what belongs below it.
///
/// # Errors
/// [`DatapathError::Pin`].
pub(super) fn make(directory: &Path) -> Result<(), DatapathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory.join(LINKS))
        .map_err(|source| DatapathError::Pin {
            path: directory.into(),
            source,
        })
}

/// What must stay pinned, and how it is pinned again when someone has removed the pin: without it
/// enforcement would end with the agent.
pub(super) struct Keeper {
    lock: PinLock,
    maps: Vec<(&'static str, OwnedFd)>,
}

impl Keeper {
    /// Opens every map that is pinned in `directory`; `lock` is that on the pin directory.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn new(directory: &Path, lock: PinLock) -> Result<Self, DatapathError> {
        let open = |name| Ok((name, pinned::descriptor(directory, name)?));
        let maps = maps().map(open);
        Ok(Self {
            lock,
            maps: maps.collect::<Result<_, DatapathError>>()?,
        })
    }

    /// Pins what is not pinned any more in `directory`, which lies in `pin_dir`; links first, because
    /// they hold the maps. Answers how many pins were missing.
    ///
    /// # Errors
    /// [`DatapathError::Mount`], [`DatapathError::Lock`] or [`DatapathError::Pin`].
    pub fn restore(
        &mut self,
        pin_dir: &Path,
        directory: &Path,
        links: &[Link],
    ) -> Result<usize, DatapathError> {
        let missing: Vec<(PathBuf, BorrowedFd<'_>)> = links
            .iter()
            .map(|link| (directory.join(LINKS).join(link.name), link.as_fd()))
            .chain(
                self.maps
                    .iter()
                    .map(|(name, fd)| (directory.join(name), fd.as_fd())),
            )
            .filter(|(path, _)| fs::symlink_metadata(path).is_err())
            .collect();
        if missing.is_empty() && self.lock.is_of(pin_dir) {
            return Ok(0);
        }
        mount::bpffs(pin_dir)?;
        if !self.lock.is_of(pin_dir) {
            self.lock = lock::pins(pin_dir)?;
        }
        make(directory)?;
        for (path, fd) in &missing {
            syscall::pin(*fd, path).map_err(|source| DatapathError::Pin {
                path: path.clone(),
                source,
            })?;
        }
        Ok(missing.len())
    }
}

/// The versions that have pins, and their directories, in ascending order.
pub(super) fn versions(pin_dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(pin_dir)? {
        let entry = entry?;
        if let Some(version) = number(&entry.file_name())
            && entry.file_type()?.is_dir()
        {
            found.push((version, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The version that a directory of this name is for.
fn number(name: &OsStr) -> Option<u32> {
    let number: u32 = name.to_str()?.strip_prefix('v')?.parse().ok()?;
    // Not `v+2` nor `v02`.
    (*name == *format!("v{number}")).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_called_v_and_a_number_are_versions() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        for name in ["v2", "v10", "v02", "v+3", "v", "va", "2", "v4294967296"] {
            fs::create_dir(root.path().join(name))?;
        }
        fs::write(root.path().join("v3"), "")?;
        std::os::unix::fs::symlink("v2", root.path().join("v4"))?;
        let expected = [2, 10].map(|version| (version, directory(root.path(), version)));
        assert_eq!(versions(root.path())?, expected);
        Ok(())
    }
}
