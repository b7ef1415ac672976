//! The file system that pins live on.
//!
//! Owns mounting bpffs and making the pin directory; never unmounts and never removes anything. The
//! directory belongs to the agent alone: whoever can write to it can replace what is enforced.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

/// Where bpffs is mounted by custom, and by systemd.
const CUSTOMARY: &str = "/sys/fs/bpf";

/// Why there is no place for pins.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Not a path that can be walked safely.
    #[error("pin-dir {} must be absolute and must not contain `..`", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The directory lies on another file system.
    #[error(
        "pin-dir {} is not on a bpffs; mount one above it (mount -t bpf bpf DIR) or choose a \
         pin-dir below /sys/fs/bpf",
        path.display()
    )]
    NotBpffs {
        /// The path.
        path: PathBuf,
    },
    /// Mounting failed.
    #[error(
        "cannot mount bpffs on {}: {source}; run the agent with CAP_SYS_ADMIN in the host's mount \
         namespace, or mount it before (mount -t bpf bpf {})",
        path.display(),
        path.display()
    )]
    Mount {
        /// Mount point.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pin directory can't be made or looked at.
    #[error("cannot use pin-dir {}: {source}; the agent must run as root", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else made the pin directory, or one above it.
    #[error(
        "{} is not a directory of the agent's own user; remove it or choose another pin-dir",
        path.display()
    )]
    Foreign {
        /// The path.
        path: PathBuf,
    },
}

/// Looks whether [`bpffs`] will find `path` on a bpffs, or can mount one for it; changes nothing.
///
/// # Errors
/// If the path is not plain, can't be looked at, or lies on another file system.
pub fn check(path: &Path) -> Result<(), MountError> {
    plain(path)?;
    if on_bpffs(path)? || path.starts_with(CUSTOMARY) {
        return Ok(());
    }
    Err(MountError::NotBpffs { path: path.into() })
}

/// Makes sure that `path` is a directory on a bpffs that only the agent's user can enter. Mounts
/// bpffs on `/sys/fs/bpf` if `path` is below it and nothing is mounted there.
///
/// # Errors
/// If it can't be, or if the directory is somebody else's.
pub fn bpffs(path: &Path) -> Result<(), MountError> {
    check(path)?;
    if !on_bpffs(path)? {
        mount_customary()?;
        if !on_bpffs(path)? {
            return Err(MountError::NotBpffs { path: path.into() });
        }
    }
    directory(path)
}

fn plain(path: &Path) -> Result<(), MountError> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.components().all(plain) {
        return Ok(());
    }
    Err(MountError::Path { path: path.into() })
}

/// Whether the path, or its nearest ancestor that exists, is on a bpffs.
///
/// # Errors
/// It can't be looked at.
pub fn on_bpffs(path: &Path) -> Result<bool, MountError> {
    for ancestor in path.ancestors() {
        match statfs(ancestor) {
            Ok(found) => return Ok(found.filesystem_type() == BPF_FS_MAGIC),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failure(path)(errno.into())),
        }
    }
    Ok(false)
}

fn mount_customary() -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("bpf"),
        CUSTOMARY,
        Some("bpf"),
        flags,
        Some("mode=0700"),
    )
    .map_err(|errno| MountError::Mount {
        path: CUSTOMARY.into(),
        source: errno.into(),
    })?;
    tracing::info!(path = CUSTOMARY, "bpffs mounted");
    Ok(())
}

fn directory(path: &Path) -> Result<(), MountError> {
    let failed = failure(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(&failed)?;
    for part in path.ancestors() {
        // The mount point itself is root's and may be shared with others.
        if !part.parent().map_or(Ok(false), on_bpffs)? {
            break;
        }
        let found = fs::symlink_metadata(part).map_err(&failed)?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            return Err(MountError::Foreign { path: part.into() });
        }
        if part == path && found.mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(&failed)?;
        }
    }
    Ok(())
}

fn failure(path: &Path) -> impl Fn(io::Error) -> MountError {
    |source| MountError::Directory {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, os::unix::fs::chown, thread};

    use nix::{
        mount::{MntFlags, umount2},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    type TestResult = Result<(), Box<dyn Error + Send + Sync>>;

    /// Runs a test in a mount namespace that ends with it, where bpffs is not mounted.
    fn alone(test: impl FnOnce() -> TestResult + Send) -> TestResult {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            while umount2(CUSTOMARY, MntFlags::MNT_DETACH).is_ok() {}
            test()
        };
        let ended = thread::scope(|scope| scope.spawn(run).join());
        ended.map_err(|_| "the test panicked")?
    }

    #[test]
    fn bpffs_is_mounted_once_and_the_directory_is_private() -> TestResult {
        alone(|| {
            let path = Path::new("/sys/fs/bpf/ringfence/test");
            assert!(!on_bpffs(path)?);
            check(path)?;
            assert!(!on_bpffs(path)?, "a check mounts nothing");
            bpffs(path)?;
            assert!(on_bpffs(path)?);
            let inode = fs::metadata(path)?.ino();
            for part in path.ancestors().take(3) {
                // The kernel adds the sticky bit to the mount point.
                assert_eq!(fs::metadata(part)?.mode() & 0o777, 0o700, "{part:?}");
            }
            // Again, and with permissions that someone widened.
            fs::set_permissions(path, Permissions::from_mode(0o755))?;
            bpffs(path)?;
            let found = fs::metadata(path)?;
            assert_eq!((found.ino(), found.mode() & 0o7777), (inode, 0o700));
            Ok(())
        })
    }

    #[test]
    fn bpffs_anywhere_is_used_and_other_file_systems_are_refused() -> TestResult {
        let root = tempfile::tempdir()?;
        alone(|| {
            let point = root.path().join("mounted");
            fs::create_dir(&point)?;
            let pins = point.join("a/b");
            for refused in [check(&pins), bpffs(&pins)] {
                assert!(
                    matches!(refused, Err(MountError::NotBpffs { .. })),
                    "{refused:?}"
                );
            }
            let nothing = None::<&str>;
            mount(nothing, &point, Some("bpf"), MsFlags::empty(), nothing)?;
            check(&pins)?;
            assert!(!pins.exists(), "a check makes nothing");
            bpffs(&pins)?;
            assert!(pins.is_dir());
            Ok(())
        })
    }

    #[test]
    fn directory_of_another_user_and_links_are_refused() -> TestResult {
        alone(|| {
            let theirs = Path::new("/sys/fs/bpf/theirs");
            bpffs(theirs)?;
            chown(theirs, Some(65534), None)?;
            let link = Path::new("/sys/fs/bpf/link");
            std::os::unix::fs::symlink("/sys/fs/bpf/target", link)?;
            fs::create_dir("/sys/fs/bpf/target")?;
            for path in [theirs, &theirs.join("below"), link, &link.join("below")] {
                let refused = bpffs(path);
                assert!(
                    matches!(refused, Err(MountError::Foreign { .. })),
                    "{refused:?}"
                );
            }
            Ok(())
        })
    }

    #[test]
    fn path_that_is_not_plain_is_refused() {
        for path in ["sys/fs/bpf/x", "/sys/fs/bpf/../../../etc", ""] {
            let refused = bpffs(Path::new(path));
            assert!(
                matches!(refused, Err(MountError::Path { .. })),
                "{refused:?}"
            );
        }
    }
}
