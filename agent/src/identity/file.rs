//! Executables as files: the key by which the kernel recognises one.
//!
//! `stat` and the kernel agree on inode number and change time. They disagree on the device of file
//! systems that give each subvolume a device of its own (btrfs): there the mount table has the one
//! that the kernel compares.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use ringfence_common::abi::ExecutableKey;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, statx};

use super::mounts::Mounts;

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
}

impl Executable {
    /// Follows links; `mounts` are those of the mount namespace that the path belongs to.
    pub fn open(path: &Path, mounts: &Mounts) -> io::Result<Self> {
        let descriptor = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let stat = stat(&descriptor)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Self {
            key: key(&stat, device(&stat, &descriptor, mounts)),
            uid: stat.stx_uid,
            bytes: stat.stx_size,
            descriptor,
        })
    }

    /// Whether the file still has the key.
    pub fn is_unchanged(&self) -> bool {
        stat(&self.descriptor).is_ok_and(|stat| key(&stat, self.key.device) == self.key)
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

fn device(stat: &Statx, descriptor: &OwnedFd, mounts: &Mounts) -> u32 {
    let device = kernel_device(stat.stx_dev_major, stat.stx_dev_minor);
    if mounts.by_device(device).is_some() {
        return device;
    }
    let mount = mount_id(descriptor).and_then(|id| mounts.by_id(id));
    mount.map_or(device, |mount| mount.device)
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
