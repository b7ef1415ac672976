//! SHA-256 of executables.
//!
//! A digest is believed as long as the key of the file stays the same, so it is only taken where a
//! change of the content changes the key.

use std::{
    io::{self, Read},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::statfs::{
    FUSE_SUPER_MAGIC, FsType, HUGETLBFS_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, fstatfs,
};
use sha2::{Digest, Sha256};

use super::file::Executable;

/// Kernels before 6.13 stamp changes with the time of the last tick, at least every 10 ms: of a file
/// younger than this a second change may leave the key as it is.
const TICK: Duration = Duration::from_millis(20);

/// `RAMFS_MAGIC` (`include/uapi/linux/magic.h`).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Digest of an executable; `None` where it can't be believed or the file is too large.
///
/// # Errors
/// The file can't be read or changed meanwhile: it is not judged.
pub(super) fn digest(executable: &Executable, limit: u64) -> io::Result<Option<[u8; 32]>> {
    if executable.bytes > limit || !is_believable(executable)? {
        tracing::warn!(
            inode = executable.key.inode,
            bytes = executable.bytes,
            limit,
            "executable is too large, or on a file system that hides changes: no sha256 selector \
             matches it"
        );
        return Ok(None);
    }
    settle(executable);
    let mut file = executable.reopen()?.take(limit.saturating_add(1));
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 131_072];
    loop {
        let length = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        sha.update(buffer.get(..length).unwrap_or_default());
    }
    if !executable.is_unchanged() {
        return Err(io::Error::other("the file changed while it was read"));
    }
    Ok(Some(sha.finalize().into()))
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
