//! SHA-256 of executables.
//!
//! A digest is believed as long as the key of the file stays the same, so it is only taken where a
//! change of the content changes the key.

use std::{
    fs::File,
    io::{self, Read},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::statfs::{
    FUSE_SUPER_MAGIC, FsType, HUGETLBFS_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, fstatfs,
};
use ringfence_common::abi::ExecutableKey;
use sha2::{Digest as _, Sha256};

use super::file::Executable;

/// Kernels before 6.13 stamp changes with the time of the last tick, at least every 10 ms: of a file
/// younger than this a second change may leave the key as it is.
const TICK: Duration = Duration::from_millis(20);

/// `RAMFS_MAGIC` (`include/uapi/linux/magic.h`).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// Bytes that are read before another file gets its turn.
const SLICE: u64 = 1 << 20;

/// A digest; `None` where no `sha256` selector may match.
pub(super) type Digest = Option<[u8; 32]>;

/// A file that is being hashed.
#[derive(Debug)]
pub(super) struct Hashing {
    executable: Executable,
    file: Option<File>,
    sha: Sha256,
    read: u64,
    asked: Instant,
}

impl Hashing {
    /// Begins; `None` where the digest can't be believed or the file is too large.
    ///
    /// # Errors
    /// The file system doesn't say what it is.
    pub fn new(executable: Executable, limit: u64) -> io::Result<Option<Self>> {
        if executable.bytes > limit || !is_believable(&executable)? {
            tracing::warn!(
                inode = executable.key.inode,
                bytes = executable.bytes,
                limit,
                "executable is too large, or on a file system that hides changes: no sha256 selector \
                 matches it"
            );
            return Ok(None);
        }
        Ok(Some(Self {
            executable,
            file: None,
            sha: Sha256::new(),
            read: 0,
            asked: Instant::now(),
        }))
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
    /// The file can't be read or changed meanwhile: it is not judged.
    pub fn advance(&mut self) -> io::Result<Digest> {
        let mut file = if let Some(file) = self.file.take() {
            file
        } else {
            settle(&self.executable);
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

/// The server of a FUSE mount can show another content at each read. The lower file of an overlay
/// can be changed beneath it; who mounts one without being root can only show files of his own. What is
/// in memory alone keeps its change time when it is written through a mapping that was read before
/// (`vma_wants_writenotify`: pages that are never written back are writable from the first read on).
fn is_believable(executable: &Executable) -> io::Result<bool> {
    let kind = fstatfs(&executable.descriptor)?.filesystem_type();
    let owner_can_hide = [
        OVERLAYFS_SUPER_MAGIC,
        TMPFS_MAGIC,
        HUGETLBFS_MAGIC,
        RAMFS_MAGIC,
    ]
    .contains(&kind);
    Ok(kind != FUSE_SUPER_MAGIC && (!owner_can_hide || executable.uid == 0))
}

/// Waits until a further change gets another change time.
fn settle(executable: &Executable) {
    let changed = Duration::new(executable.key.ctime_sec, executable.key.ctime_nsec);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let age = now.ok().and_then(|now| now.checked_sub(changed));
    if let Some(left) = age.and_then(|age| TICK.checked_sub(age)) {
        thread::sleep(left);
    }
}
