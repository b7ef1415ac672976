//! One agent at a time: a lock on the state directory and one on the pin directory.
//!
//! Both are flock(2) locks, so they end with the process, however that ends. A pin directory that is
//! removed and made again is another one, to be locked again.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
};

use nix::sys::stat::{major, minor};

/// Name of the lock file in the state directory; it holds the agent's process number.
const FILE: &str = "agent.lock";

/// Why the locks can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error(
        "another agent{} uses {}; stop it first, or give this one its own state-dir and pin-dir",
        holder.map_or_else(String::new, |pid| format!(" (process {pid})")),
        path.display()
    )]
    Held {
        /// The directory or the lock file.
        path: PathBuf,
        /// Process number of the holder, where it is known.
        holder: Option<u32>,
    },
    /// The file or directory can't be used.
    #[error("cannot lock {}: {source}; it must exist and be writable for the agent", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The lock on a state directory, held for as long as it lives.
#[derive(Debug)]
#[must_use = "the lock ends when it is dropped"]
pub struct StateLock {
    _file: File,
}

/// The lock on a pin directory, held for as long as it lives.
#[derive(Debug)]
#[must_use = "the lock ends when it is dropped"]
pub struct PinLock {
    directory: File,
}

impl PinLock {
    /// Whether the locked directory is still the one at `path`.
    #[must_use]
    pub fn is_of(&self, path: &Path) -> bool {
        let of = |found: fs::Metadata| (found.dev(), found.ino());
        let there = fs::metadata(path).map(of);
        there.is_ok_and(|there| self.directory.metadata().is_ok_and(|own| of(own) == there))
    }
}

/// Locks `directory`, which is made if it does not exist. Does not wait. On a disk that is full or can't be written to
/// an old file is locked, or else the directory itself: a host is not left unguarded for want of space.
///
/// # Errors
/// If another process has the lock, or the directory can't be made or opened.
pub fn state(directory: &Path) -> Result<StateLock, LockError> {
    let path = directory.join(FILE);
    let failed = failure(&path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(&failed)?;
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path);
    let mut file = match made {
        Err(error) if is_unwritable(&error) => {
            unwritten(&path, &error);
            let mut file = open(&path).or_else(|_| open(directory)).map_err(&failed)?;
            lock_state(&mut file, &path)?;
            return Ok(StateLock { _file: file });
        }
        made => made.map_err(&failed)?,
    };
    lock_state(&mut file, &path)?;
    if let Err(error) = write(&mut file) {
        unwritten(&path, &error);
    }
    Ok(StateLock { _file: file })
}

/// Whether the disk is full or can't be written to.
fn is_unwritable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EROFS | libc::ENOSPC | libc::EDQUOT)
    )
}

fn unwritten(path: &Path, error: &io::Error) {
    tracing::warn!(
        path = %path.display(), %error,
        "the agent's process number is not kept; make room in the state directory, and let the agent write there"
    );
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// The same where an agent has been: makes nothing, and answers `None` where there was none.
///
/// # Errors
/// If another process has the lock, or the file can't be opened.
pub fn known_state(directory: &Path) -> Result<Option<StateLock>, LockError> {
    let path = directory.join(FILE);
    let mut file = match open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure(&path)(error)),
    };
    lock_state(&mut file, &path)?;
    Ok(Some(StateLock { _file: file }))
}

fn lock_state(file: &mut File, path: &Path) -> Result<(), LockError> {
    if locked(file).map_err(failure(path))? {
        return Ok(());
    }
    Err(LockError::Held {
        path: path.into(),
        holder: holder(file).or_else(|| written(file)),
    })
}

/// Locks a pin directory, which must exist. Does not wait.
///
/// # Errors
/// If another process has the lock, or the directory can't be opened.
pub fn pins(path: &Path) -> Result<PinLock, LockError> {
    let failed = failure(path);
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(path)
        .map_err(&failed)?;
    if !locked(&directory).map_err(&failed)? {
        return Err(LockError::Held {
            path: path.into(),
            holder: holder(&directory),
        });
    }
    Ok(PinLock { directory })
}

fn failure(path: &Path) -> impl Fn(io::Error) -> LockError {
    |source| LockError::Io {
        path: path.into(),
        source,
    }
}

fn locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn write(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", process::id())
}

/// What the holder wrote; its process number in its own PID namespace.
fn written(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    let _ = file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that has the lock, as the kernel knows it.
fn holder(file: &File) -> Option<u32> {
    let found = file.metadata().ok()?;
    let file = format!(
        "{:02x}:{:02x}:{}",
        major(found.dev()),
        minor(found.dev()),
        found.ino()
    );
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 1234 00:1f:42 0 EOF
        let mut fields = line.split_whitespace().skip(1);
        let flock = fields.next()? == "FLOCK";
        let pid = fields.nth(2)?.parse().ok()?;
        (flock && fields.next()? == file && pid != 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    type TestResult = Result<(), Box<dyn Error>>;

    fn hold(state_dir: &Path, pin_dir: &Path) -> Result<(StateLock, PinLock), LockError> {
        Ok((state(state_dir)?, pins(pin_dir)?))
    }

    fn holder_of<T>(result: Result<T, LockError>) -> Option<(PathBuf, Option<u32>)> {
        match result {
            Err(LockError::Held { path, holder }) => Some((path, holder)),
            Ok(_) | Err(LockError::Io { .. }) => None,
        }
    }

    #[test]
    fn second_agent_is_refused_and_told_who_holds_the_lock() -> TestResult {
        let root = tempfile::tempdir()?;
        let (state, pins) = (root.path().join("a/state"), root.path().join("pins"));
        fs::create_dir(&pins)?;
        let own = Some(process::id());

        let first = hold(&state, &pins)?;
        let file = state.join(FILE);
        assert_eq!(fs::read_to_string(&file)?, format!("{}\n", process::id()));
        assert_eq!(holder_of(hold(&state, &pins)), Some((file.clone(), own)));
        let elsewhere = root.path().join("b");
        assert_eq!(
            holder_of(hold(&elsewhere, &pins)),
            Some((pins.clone(), own))
        );
        let again = root.path().join("again");
        fs::rename(&pins, &again)?;
        assert!(first.1.is_of(&again) && !first.1.is_of(&pins));
        fs::create_dir(&pins)?;
        assert!(!first.1.is_of(&pins), "another directory of that name");
        fs::remove_dir(&pins)?;
        fs::rename(&again, &pins)?;
        // The refused one left nothing locked.
        let other_pins = root.path().join("other");
        fs::create_dir(&other_pins)?;
        drop(hold(&elsewhere, &other_pins)?);

        assert_eq!(holder_of(known_state(&state)), Some((file, own)));

        drop(first);
        drop(hold(&elsewhere, &pins)?);
        assert!(known_state(&state)?.is_some());
        // The holder's number stays for whoever asks next.
        let kept = fs::read_to_string(state.join(FILE))?;
        assert_eq!(kept, format!("{}\n", process::id()));
        let nowhere = root.path().join("nowhere");
        assert!(known_state(&nowhere)?.is_none());
        assert!(!nowhere.exists());
        Ok(())
    }

    #[test]
    fn holder_is_read_from_the_file_where_the_kernel_does_not_tell() -> TestResult {
        let mut file = tempfile::tempfile()?;
        assert_eq!(holder(&file), None);
        write(&mut file)?;
        file.rewind()?;
        assert_eq!(written(&mut file), Some(process::id()));
        Ok(())
    }

    #[test]
    fn a_state_directory_that_is_full_or_read_only_is_locked_all_the_same() -> TestResult {
        let root = tempfile::tempdir()?;
        let told = |error: &dyn Error| error.to_string();
        let test = || -> Result<_, String> {
            let nothing = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).map_err(|e| told(&e))?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(nothing, "/", nothing, private, nothing).map_err(|e| told(&e))?;
            let mut outcomes = Vec::new();
            for (name, kept) in [("new", false), ("old", true)] {
                let state = root.path().join(name);
                fs::create_dir(&state).map_err(|e| told(&e))?;
                let size = Some("size=64k");
                mount(nothing, &state, Some("tmpfs"), MsFlags::empty(), size)
                    .map_err(|e| told(&e))?;
                if kept {
                    fs::write(state.join(FILE), "").map_err(|e| told(&e))?;
                }
                let filled = fs::write(state.join("filler"), vec![0; 1 << 20]);
                let full = super::state(&state).map_err(|e| told(&e))?;
                let second = super::state(&state);
                outcomes.push(filled.is_err() && matches!(second, Err(LockError::Held { .. })));
                drop(full);
                let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                mount(nothing, &state, nothing, read_only, nothing).map_err(|e| told(&e))?;
                let locked = super::state(&state).map_err(|e| told(&e))?;
                let second = super::state(&state);
                outcomes.push(matches!(second, Err(LockError::Held { .. })));
                drop(locked);
            }
            Ok(outcomes)
        };
        // In a thread, whose mount namespace ends with it.
        let outcome = std::thread::scope(|scope| scope.spawn(test).join());
        assert_eq!(outcome.map_err(|_| "panicked")?, Ok(vec![true; 4]));
        Ok(())
    }

    #[test]
    fn missing_pin_directory_is_an_error_that_names_it() -> TestResult {
        let root = tempfile::tempdir()?;
        let pins = root.path().join("pins");
        let found = hold(root.path(), &pins);
        assert!(
            matches!(&found, Err(LockError::Io { path, .. }) if *path == pins),
            "{found:?}"
        );
        Ok(())
    }

    #[test]
    fn directory_on_bpffs_can_be_locked() -> TestResult {
        let root = tempfile::tempdir()?;
        let point = root.path().join("bpf");
        fs::create_dir(&point)?;
        let test = || -> Result<_, String> {
            let text = |error: &dyn Error| error.to_string();
            let nothing = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).map_err(|e| text(&e))?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(nothing, "/", nothing, private, nothing).map_err(|e| text(&e))?;
            mount(nothing, &point, Some("bpf"), MsFlags::empty(), nothing).map_err(|e| text(&e))?;
            let pins = point.join("pins");
            fs::create_dir(&pins).map_err(|e| text(&e))?;
            let first = hold(&root.path().join("a"), &pins).map_err(|e| text(&e))?;
            let second = holder_of(hold(&root.path().join("b"), &pins));
            drop(first);
            drop(hold(&root.path().join("b"), &pins).map_err(|e| text(&e))?);
            Ok(second == Some((pins, Some(process::id()))))
        };
        // In a thread, whose mount namespace ends with it.
        let told = std::thread::scope(|scope| scope.spawn(test).join());
        assert_eq!(told.map_err(|_| "panicked")?, Ok(true));
        Ok(())
    }
}
