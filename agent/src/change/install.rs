//! A confirmed change into the policy directory.
//!
//! Each file is replaced by rename, so that it is the old one or the new one, whoever reads. Several are all written before
//! the first takes its place, and are put back when one can't. Of several some may be there when the agent is killed: the
//! journal says so, and the next start puts the change into force from there and writes it again.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ringfence_documents::{Naming, ReadError};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
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
    /// Some files are written, and can't be put back.
    #[error(
        "{cause}; {} can't be put back either: do it by hand, or make room and apply again",
        names.join(", ")
    )]
    Half {
        /// What failed first.
        cause: Box<InstallError>,
        /// The files.
        names: Vec<String>,
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
    /// Somebody else has changed what a confirmed change was to write, of which nothing is written.
    #[error(
        "{} was changed in {} by somebody else before the confirmed change was written: the change is given up, and the \
         directory counts as it stands; if the change is still wanted, apply it again (`ringfence policy apply`)",
        names.join(", "), directory.display()
    )]
    Overtaken {
        /// The directory.
        directory: PathBuf,
        /// The files.
        names: Vec<String>,
    },
    /// The same, and some of it is written: the directory is neither policy.
    #[error(
        "{} was changed in {} by somebody else when {} was written already, and nothing more is written; `ringfence policy \
         rollback` puts {} back, and then the directory counts as it stands",
        names.join(", "), directory.display(), written.join(", "), written.join(", ")
    )]
    Mixed {
        /// The directory.
        directory: PathBuf,
        /// The files of somebody else.
        names: Vec<String>,
        /// Those of the change.
        written: Vec<String>,
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

/// Writes a confirmed change that an earlier try may have written in part, unless somebody else has changed its files.
///
/// # Errors
/// [`InstallError::Overtaken`] or [`InstallError::Mixed`], and nothing is written; or as [`install`].
pub fn finish(directory: &Path, before: &Files, after: &Files) -> Result<(), InstallError> {
    // One that is gone for a while is nobody's change.
    check(directory)?;
    let Standing { written, others } = standing(directory, before, after)?;
    if others.is_empty() {
        return install(directory, before, after);
    }
    let (directory, names) = (directory.to_owned(), others);
    Err(if written.is_empty() {
        tidy(&directory, before, after);
        InstallError::Overtaken { directory, names }
    } else {
        InstallError::Mixed {
            directory,
            names,
            written,
        }
    })
}

/// Puts back those files that hold the change already; what somebody else has changed stays.
///
/// # Errors
/// As [`install`].
pub fn put_back(directory: &Path, before: &Files, after: &Files) -> Result<(), InstallError> {
    // One that is gone for a while may come back with a part of the change.
    let _there = fs::metadata(directory).map_err(|error| InstallError::Directory {
        path: directory.to_owned(),
        error,
    })?;
    let Standing { written, .. } = standing(directory, before, after)?;
    let of = |files: &Files| -> Files {
        let all = files.iter().filter(|(name, _)| written.contains(*name));
        all.map(|(name, text)| (name.clone(), text.clone()))
            .collect()
    };
    if !written.is_empty() {
        install(directory, &of(after), &of(before))?;
    }
    tidy(directory, before, after);
    Ok(())
}

/// Removes what is behind hidden names, also from a try that was cut off.
fn tidy(directory: &Path, before: &Files, after: &Files) {
    let (changed, removed) = difference(before, after);
    for name in changed.iter().chain(&removed) {
        // Best effort: hidden files are no documents.
        let _ = fs::remove_file(hidden(directory, name));
    }
}

/// The files of a change that are no longer as they were before.
struct Standing {
    /// As they are after it.
    written: Vec<String>,
    /// As somebody else made them.
    others: Vec<String>,
}

fn standing(directory: &Path, before: &Files, after: &Files) -> Result<Standing, InstallError> {
    let (changed, removed) = difference(before, after);
    let (mut written, mut others) = (Vec::new(), Vec::new());
    for name in changed.into_iter().chain(removed) {
        let path = directory.join(&name);
        if is(&path, before.get(&name)).map_err(failed(&path))? {
            continue;
        }
        if is(&path, after.get(&name)).map_err(failed(&path))? {
            written.push(name);
        } else {
            others.push(name);
        }
    }
    Ok(Standing { written, others })
}

/// Whether a file holds this text, or is not there.
fn is(path: &Path, text: Option<&String>) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(text.is_none()),
        Err(error) => Err(error),
        // A pipe would make the reader wait.
        Ok(found) => match text {
            Some(text) if found.is_file() && found.len() == text.len() as u64 => {
                Ok(fs::read(path)? == text.as_bytes())
            }
            Some(_) | None => Ok(false),
        },
    }
}

/// Writes what differs between `before` and `after`: all of it or nothing. Doing it twice does no harm.
///
/// # Errors
/// [`InstallError::File`] or [`InstallError::Directory`], and the directory is as it was; or [`InstallError::Half`].
pub fn install(directory: &Path, before: &Files, after: &Files) -> Result<(), InstallError> {
    let (changed, removed) = difference(before, after);
    let installed = stage(directory, &changed, after).and_then(|()| {
        let mut done = Vec::new();
        let result = swap_all(directory, &changed, &removed, &mut done);
        result.map_err(|cause| match undo(directory, before, &done) {
            Ok(()) => cause,
            Err(names) => InstallError::Half {
                cause: Box::new(cause),
                names,
            },
        })
    });
    tidy(directory, before, after);
    installed?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| InstallError::Directory {
            path: directory.to_owned(),
            error,
        })
}

/// Where a file is before it takes its place, and what it replaced afterwards.
fn hidden(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}.ringfence"))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> InstallError {
    |error| InstallError::File {
        path: path.to_owned(),
        error,
    }
}

/// Writes every file behind a hidden name: what comes after needs no more room for it.
fn stage(directory: &Path, changed: &[String], after: &Files) -> Result<(), InstallError> {
    for name in changed {
        let path = directory.join(name);
        let text = after.get(name).map(String::as_str).unwrap_or_default();
        write(&path, &hidden(directory, name), text).map_err(failed(&path))?;
    }
    Ok(())
}

fn write(path: &Path, hidden: &Path, text: &str) -> io::Result<()> {
    let mode = fs::metadata(path).map_or(MODE, |found| found.permissions().mode() & 0o777);
    match fs::remove_file(hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(hidden)?;
    file.write_all(text.as_bytes())?;
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Puts each file into its place, and takes away those that go. `done` says how far it came.
fn swap_all(
    directory: &Path,
    changed: &[String],
    removed: &[String],
    done: &mut Vec<String>,
) -> Result<(), InstallError> {
    for name in changed {
        let path = directory.join(name);
        swap(&hidden(directory, name), &path).map_err(failed(&path))?;
        done.push(name.clone());
    }
    for name in removed {
        let path = directory.join(name);
        match fs::rename(&path, hidden(directory, name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => {
                moved.map_err(failed(&path))?;
                done.push(name.clone());
            }
        }
    }
    Ok(())
}

/// In one step, whoever reads; what was there is behind the hidden name then, where the file system can do that.
fn swap(hidden: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, hidden, CWD, path, RenameFlags::EXCHANGE) {
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(hidden, path),
        swapped => Ok(swapped?),
    }
}

/// Puts back what was there before; the names of those that can't be.
fn undo(directory: &Path, before: &Files, done: &[String]) -> Result<(), Vec<String>> {
    let put_back = |name: &&String| {
        let (path, hidden) = (directory.join(name), hidden(directory, name));
        let moved = fs::rename(&hidden, &path);
        match (moved, before.get(*name)) {
            (Ok(()), _) => Ok(()),
            (Err(_), None) => fs::remove_file(&path),
            (Err(_), Some(text)) => {
                write(&path, &hidden, text).and_then(|()| fs::rename(&hidden, &path))
            }
        }
    };
    let lost = done.iter().filter(|name| put_back(name).is_err());
    let lost: Vec<String> = lost.cloned().collect();
    if lost.is_empty() { Ok(()) } else { Err(lost) }
}
