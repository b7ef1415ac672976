//! SHA-256 of executables.
//!
//! A digest is believed as long as the key of the file stays the same, so it is only taken where a
//! change of the content changes the key: where the file system sees to that, and of a file that a process runs. As long as
//! one does, nobody has the file open for writing or mapped so (`deny_write_access` of execve(2)); whoever opens it later
//! and writes changes its time. A mapping from before may be written without that.

use std::{
    fs::File,
    io::{self, Read},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::statfs::{
        FUSE_SUPER_MAGIC, FsType, HUGETLBFS_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, fstatfs,
    },
};
use ringfence_common::abi::ExecutableKey;
use sha2::{Digest as _, Sha256};

use super::{file::Executable, mounts::Mounts};

/// Kernels before 6.13 stamp changes with the time of the last tick, at least every 10 ms: of a file
/// younger than this a second change may leave the key as it is.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// `RAMFS_MAGIC` (`include/uapi/linux/magic.h`).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// Bytes that are read before another file gets its turn.
const SLICE: u64 = 1 << 20;

/// A digest; `None` where no `sha256` selector may match.
pub(super) type Digest = Option<[u8; 32]>;

/// Why no `sha256` selector matches a file, whatever is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoDigest {
    /// It is larger than the limit.
    TooLarge,
    /// Its content may change without a trace.
    Hidden,
}

impl NoDigest {
    /// For the log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "it is larger than [agent] hash-limit",
            Self::Hidden => "its file system hides changes of its content",
        }
    }
}

/// A file that is being hashed.
#[derive(Debug)]
pub(super) struct Hashing {
    executable: Executable,
    file: Option<File>,
    sha: Sha256,
    read: u64,
    asked: Instant,
    /// Who runs it, until that was looked at.
    runner: Option<u32>,
}

impl Hashing {
    /// Begins with the executable of a process. `own` are the agent's mounts.
    ///
    /// # Errors
    /// The file system doesn't say what it is, or the process runs it no more.
    pub fn new(
        executable: Executable,
        tgid: u32,
        limit: u64,
        own: &Mounts,
    ) -> io::Result<Result<Self, NoDigest>> {
        if executable.bytes > limit {
            return Ok(Err(NoDigest::TooLarge));
        }
        if !is_believable(&executable, own)? {
            return Ok(Err(NoDigest::Hidden));
        }
        let mut hashing = Self::begin(executable, Some(tgid));
        if hashing.unsettled(SystemTime::now()).is_none() {
            // At once: the process may end before its turn comes.
            hashing.check_runner()?;
        }
        Ok(Ok(hashing))
    }

    /// The same of a file that nobody can write, or that this process runs.
    pub(super) fn begin(executable: Executable, runner: Option<u32>) -> Self {
        Self {
            executable,
            file: None,
            sha: Sha256::new(),
            read: 0,
            asked: Instant::now(),
            runner,
        }
    }

    /// How long it must be waited until a further change gets another change time; `None` where it need not.
    pub fn unsettled(&self, now: SystemTime) -> Option<Duration> {
        let key = &self.executable.key;
        let changed = Duration::new(key.ctime_sec, key.ctime_nsec);
        let now = now.duration_since(UNIX_EPOCH);
        let age = now.ok().and_then(|now| now.checked_sub(changed));
        age.and_then(|age| TICK.checked_sub(age))
            .filter(|left| !left.is_zero())
    }

    fn check_runner(&mut self) -> io::Result<()> {
        match self.runner.take() {
            Some(tgid) if !self.executable.is_run_by(tgid) => Err(io::Error::other(
                "nobody is known to run it any more, and so it may be open for writing",
            )),
            _ => Ok(()),
        }
    }

    /// Key of the file.
    pub fn key(&self) -> ExecutableKey {
        self.executable.key
    }

    /// User whose file it is.
    pub fn owner(&self) -> u32 {
        self.executable.uid
    }

    /// Bytes that are left to read.
    pub fn left(&self) -> u64 {
        self.executable.bytes.saturating_sub(self.read)
    }

    /// When it was begun.
    pub fn asked(&self) -> Instant {
        self.asked
    }

    /// Reads on to the end.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn finish(mut self) -> io::Result<[u8; 32]> {
        loop {
            if let Some(digest) = self.advance()? {
                return Ok(digest);
            }
        }
    }

    /// Reads one slice; the digest when that was the last one.
    ///
    /// # Errors
    /// The file can't be read or changed meanwhile, or the process has ended before a change could be seen: it is not judged.
    pub fn advance(&mut self) -> io::Result<Digest> {
        let mut file = if let Some(file) = self.file.take() {
            file
        } else {
            if let Some(left) = self.unsettled(SystemTime::now()) {
                thread::sleep(left);
            }
            self.check_runner()?;
            self.executable.reopen()?
        };
        let mut buffer = vec![0; 131_072];
        let end = self.read + SLICE;
        while self.read < end {
            let length = match file.read(&mut buffer) {
                Ok(0) => return self.end().map(Some),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.sha.update(buffer.get(..length).unwrap_or_default());
            self.read += u64::try_from(length).unwrap_or(u64::MAX);
            if self.read > self.executable.bytes {
                return Err(changed());
            }
        }
        self.file = Some(file);
        Ok(None)
    }

    fn end(&mut self) -> io::Result<[u8; 32]> {
        if !self.executable.is_unchanged() {
            return Err(changed());
        }
        Ok(std::mem::take(&mut self.sha).finalize().into())
    }
}

fn changed() -> io::Error {
    io::Error::other("the file changed while it was read")
}

/// The server of a FUSE mount can show another content at each read. What is in memory alone keeps its change time when it
/// is written through a mapping that was read before (`vma_wants_writenotify`: pages that are never written back are writable
/// from the first read on), and of an overlay the kernel compares a copy of the change time that such writes leave as it is. So
/// files in memory are believed that nobody can write any more, and root's on a file system that the host has mounted; on an
/// overlay there is no digest.
fn is_believable(executable: &Executable, own: &Mounts) -> io::Result<bool> {
    let kind = fstatfs(&executable.descriptor)?.filesystem_type();
    if [FUSE_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC].contains(&kind) {
        return Ok(false);
    }
    if ![TMPFS_MAGIC, HUGETLBFS_MAGIC, RAMFS_MAGIC].contains(&kind) {
        return Ok(true);
    }
    let is_hosts = own.by_device(executable.key.device).is_some();
    Ok((executable.uid == 0 && is_hosts) || is_sealed(executable))
}

/// Whether nobody can write it any more (`memfd_create`(2), `F_SEAL_WRITE`).
fn is_sealed(executable: &Executable) -> bool {
    let sealed = |file: File| fcntl(&file, FcntlArg::F_GET_SEALS).ok();
    let seals = executable.reopen().ok().and_then(sealed);
    seals.is_some_and(|seals| SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_WRITE))
}
