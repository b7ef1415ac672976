//! Directories of the hierarchy by descriptor.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    ops::ControlFlow,
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

/// Names of the subdirectories.
pub(super) fn list(directory: &OwnedFd) -> nix::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    each(directory, |name| {
        let _ = names.insert(OsString::from_vec(name.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// Whether there is a subdirectory.
pub(super) fn is_parent(directory: &OwnedFd) -> bool {
    let mut found = false;
    let read = each(directory, |_| {
        found = true;
        ControlFlow::Break(())
    });
    read.is_ok() && found
}

/// Calls for each name of a subdirectory. Reads by a second open file, because reading moves its position.
fn each(directory: &OwnedFd, mut call: impl FnMut(&[u8]) -> ControlFlow<()>) -> nix::Result<()> {
    let mut dir = Dir::from_fd(openat(directory, ".", flags(), Mode::empty())?)?;
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let directory = matches!(entry.file_type(), None | Some(nix::dir::Type::Directory));
        if directory && name != b"." && name != b".." && call(name).is_break() {
            break;
        }
    }
    Ok(())
}
