//! Executables as files: the key by which the kernel recognises one.
//!
//! `stat` and the kernel agree on inode number and change time. They disagree on the device of file
//! systems that give each subvolume a device of its own (btrfs): there the mount table has the one
//! that the kernel compares.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use ringfence_common::abi::ExecutableKey;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, statx};

use super::mounts::{Mount, Mounts};

/// Threads of a process that are looked at, where its first one has ended.
const THREADS: usize = 16;

/// An open executable (not opened for reading) and its key.
#[derive(Debug)]
pub(super) struct Executable {
    /// Descriptor, `O_PATH`.
    pub descriptor: OwnedFd,
    /// The key.
    pub key: ExecutableKey,
    /// Owner of the file.
    pub uid: u32,
    /// Size, bytes.
    pub bytes: u64,
    /// Device, as `stat` tells it.
    device: u32,
}

impl Executable {
    /// Follows links; `mounts` are those of the mount namespace that the path belongs to.
    pub fn open(path: &Path, mounts: &Mounts) -> io::Result<Self> {
        let (descriptor, stat) = open_file(path)?;
        let device = device_of(&stat);
        let device = mounts.by_device(device).map_or_else(
            || {
                let mount = mount_id(&descriptor).and_then(|id| mounts.by_id(id));
                mount.map_or(device, |mount| mount.device)
            },
            |mount| mount.device,
        );
        Ok(Self::new(descriptor, &stat, device))
    }

    /// What a process runs, if that is the file with this key; `own` are the agent's mounts. No mount table of others is
    /// read where the key says what is asked for.
    ///
    /// # Errors
    /// The process has ended or runs something else, or its mount table is too long.
    pub fn running(tgid: u32, key: ExecutableKey, own: &Mounts) -> io::Result<Self> {
        let (descriptor, stat) = open_file(&directory(tgid).join("exe"))?;
        let other = || io::Error::other("the process runs another executable now");
        if self::key(&stat, key.device) != key {
            return Err(other());
        }
        if device_of(&stat) != key.device && mount(tgid, &descriptor, own)?.device != key.device {
            return Err(other());
        }
        Ok(Self::new(descriptor, &stat, key.device))
    }

    /// What a process runs, with the mount that it is on: one of the agent's `own` where the file system is among them.
    ///
    /// # Errors
    /// As [`Self::running`].
    pub fn of_process(tgid: u32, own: &Mounts) -> io::Result<(Self, Mount)> {
        let (descriptor, stat) = open_file(&directory(tgid).join("exe"))?;
        let mount = match own.by_device(device_of(&stat)) {
            Some(mount) => mount.clone(),
            None => mount(tgid, &descriptor, own)?,
        };
        Ok((Self::new(descriptor, &stat, mount.device), mount))
    }

    fn new(descriptor: OwnedFd, stat: &Statx, device: u32) -> Self {
        Self {
            key: key(stat, device),
            uid: stat.stx_uid,
            bytes: stat.stx_size,
            device: device_of(stat),
            descriptor,
        }
    }

    /// Where it lies, for who reads it.
    pub fn path(&self) -> PathBuf {
        let link = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        fs::read_link(link).unwrap_or_default()
    }

    /// Whether the file still has the key.
    pub fn is_unchanged(&self) -> bool {
        stat(&self.descriptor).is_ok_and(|stat| key(&stat, self.key.device) == self.key)
    }

    /// Whether a process runs it, unchanged, now.
    pub fn is_run_by(&self, tgid: u32) -> bool {
        let exe = open_file(&directory(tgid).join("exe"));
        exe.is_ok_and(|(_, stat)| {
            key(&stat, self.key.device) == self.key && device_of(&stat) == self.device
        })
    }

    /// The file, opened for reading.
    pub fn reopen(&self) -> io::Result<fs::File> {
        fs::File::open(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()))
    }
}

/// What is known of the file without asking a server (FUSE, NFS), which might never answer.
fn stat(descriptor: &OwnedFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(statx(descriptor, "", flags, StatxFlags::BASIC_STATS)?)
}

fn key(stat: &Statx, device: u32) -> ExecutableKey {
    ExecutableKey {
        inode: stat.stx_ino,
        ctime_sec: stat.stx_ctime.tv_sec.cast_unsigned(),
        ctime_nsec: stat.stx_ctime.tv_nsec,
        device,
    }
}

fn open_file(path: &Path) -> io::Result<(OwnedFd, Statx)> {
    let descriptor = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let stat = stat(&descriptor)?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok((descriptor, stat))
}

/// The mount of a file that a process runs.
fn mount(tgid: u32, descriptor: &OwnedFd, own: &Mounts) -> io::Result<Mount> {
    let id = mount_id(descriptor).ok_or(io::ErrorKind::NotFound)?;
    own.by_id(id)
        .map_or_else(|| Mount::of(tgid, id), |mount| Ok(mount.clone()))
}

fn device_of(stat: &Statx) -> u32 {
    kernel_device(stat.stx_dev_major, stat.stx_dev_minor)
}

/// `MKDEV` of the kernel: 12 bits major, 20 bits minor.
fn kernel_device(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

fn mount_id(descriptor: impl AsFd) -> Option<u64> {
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    id.trim().parse().ok()
}

/// Where /proc tells of what a process runs: of a thread that goes on, where the first one has ended.
pub(super) fn directory(tgid: u32) -> PathBuf {
    let whole = PathBuf::from(format!("/proc/{tgid}"));
    let runs = |directory: &PathBuf| fs::read_link(directory.join("exe")).is_ok();
    if runs(&whole) {
        return whole;
    }
    let threads = fs::read_dir(whole.join("task")).into_iter().flatten();
    let mut threads = threads.take(THREADS).flatten().map(|thread| thread.path());
    threads.find(runs).unwrap_or(whole)
}
