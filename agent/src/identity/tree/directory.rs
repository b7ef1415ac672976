//! Directories of the hierarchy by descriptor.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Component, Path},
};

use nix::{
    dir::Dir,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

/// For directories, which are never reached through a link.
pub(super) fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// Names on a path.
pub(in crate::identity) fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            None
        }
    })
}

/// Names of the subdirectories. A second open file, because reading moves its position.
pub(super) fn list(directory: &OwnedFd) -> nix::Result<BTreeSet<OsString>> {
    let mut dir = Dir::from_fd(openat(directory, ".", flags(), Mode::empty())?)?;
    let mut names = BTreeSet::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let directory = matches!(entry.file_type(), None | Some(nix::dir::Type::Directory));
        if directory && name != b"." && name != b".." {
            let _ = names.insert(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}
