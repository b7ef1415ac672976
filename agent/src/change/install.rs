//! A confirmed change into the policy directory.
//!
//! Each file is replaced by rename, so that it is the old one or the new one, whoever reads. Of several files some may be
//! written when the agent is killed: the journal says so, and the next start writes them all again.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ringfence_documents::{Naming, ReadError};
use thiserror::Error;

use super::{Files, difference, files};

/// Rights of a file that is new.
const MODE: u32 = 0o644;

/// Why the directory does not hold the change.
#[derive(Debug, Error)]
pub enum InstallError {
    /// It is not there, or can't be written to.
    #[error(
        "{}: {error}; the policy directory must be one that the agent may write to (a ConfigMap is none: change it where it \
         comes from)",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file can't be written or removed.
    #[error("cannot write {}: {error}; check the directory and its free space", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else has changed it since.
    #[error(
        "{} was changed in {} after the change was applied; roll back (`ringfence policy rollback`), then apply again",
        names.join(", "), directory.display()
    )]
    Changed {
        /// The directory.
        directory: PathBuf,
        /// The files.
        names: Vec<String>,
    },
    /// It can't be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
}

/// What the directory holds; nothing where it holds no document.
///
/// # Errors
/// It can't be read.
pub fn held(directory: &Path) -> Result<Files, ReadError> {
    match ringfence_documents::read(directory, Naming::File) {
        Ok(documents) => Ok(files(&documents)),
        Err(ReadError::Empty(_)) => Ok(Files::new()),
        Err(error) => Err(error),
    }
}

/// Whether the directory can be changed; changes nothing.
///
/// # Errors
/// [`InstallError::Directory`].
pub fn check(directory: &Path) -> Result<(), InstallError> {
    nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).map_err(|errno| {
        InstallError::Directory {
            path: directory.to_owned(),
            error: errno.into(),
        }
    })
}

/// Whether the files that differ between `before` and `after` are still as they were `before`.
///
/// # Errors
/// [`InstallError::Changed`] or [`InstallError::Unreadable`].
pub fn unchanged(directory: &Path, before: &Files, after: &Files) -> Result<(), InstallError> {
    let now = held(directory)?;
    let (changed, removed) = difference(before, after);
    let names: Vec<String> = changed
        .into_iter()
        .chain(removed)
        .filter(|name| now.get(name) != before.get(name))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(InstallError::Changed {
        directory: directory.to_owned(),
        names,
    })
}

/// Writes what differs between `before` and `after`. Doing it twice does no harm.
///
/// # Errors
/// [`InstallError::File`]; some of the files may be written.
pub fn install(directory: &Path, before: &Files, after: &Files) -> Result<(), InstallError> {
    let (changed, removed) = difference(before, after);
    for name in &changed {
        let text = after.get(name).map(String::as_str).unwrap_or_default();
        let path = directory.join(name);
        replace(directory, &path, name, text)
            .map_err(|error| InstallError::File { path, error })?;
    }
    for name in &removed {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(InstallError::File { path, error });
            }
            Ok(()) | Err(_) => {}
        }
    }
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| InstallError::Directory {
            path: directory.to_owned(),
            error,
        })
}

/// A hidden file first: those are no documents.
fn replace(directory: &Path, path: &Path, name: &str, text: &str) -> io::Result<()> {
    let mode = fs::metadata(path).map_or(MODE, |found| found.permissions().mode() & 0o777);
    let temporary = directory.join(format!(".{name}.ringfence"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        // Whatever the umask.
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: what matters is the first error.
        let _ = fs::remove_file(&temporary);
    }
    written
}
