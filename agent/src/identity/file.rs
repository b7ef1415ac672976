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
    sys::stat::{FileStat, Mode, SFlag, fstat, major, minor},
};
use ringfence_common::abi::ExecutableKey;

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
        let stat = fstat(&descriptor)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Self {
            key: key(&stat, device(&stat, &descriptor, mounts)),
            uid: stat.st_uid,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            descriptor,
        })
    }

    /// Whether the file still has the key.
    pub fn is_unchanged(&self) -> bool {
        fstat(&self.descriptor).is_ok_and(|stat| key(&stat, self.key.device) == self.key)
    }

    /// The file, opened for reading.
    pub fn reopen(&self) -> io::Result<fs::File> {
        fs::File::open(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()))
    }
}

fn key(stat: &FileStat, device: u32) -> ExecutableKey {
    ExecutableKey {
        inode: stat.st_ino,
        ctime_sec: stat.st_ctime.cast_unsigned(),
        ctime_nsec: u32::try_from(stat.st_ctime_nsec).unwrap_or(0),
        device,
    }
}

fn device(stat: &FileStat, descriptor: &OwnedFd, mounts: &Mounts) -> u32 {
    let device = kernel_device(stat.st_dev);
    if mounts.by_device(device).is_some() {
        return device;
    }
    let mount = mount_id(descriptor).and_then(|id| mounts.by_id(id));
    mount.map_or(device, |mount| mount.device)
}

/// `MKDEV` of the kernel: 12 bits major, 20 bits minor.
fn kernel_device(device: u64) -> u32 {
    let encoded = major(device) << 20 | minor(device);
    u32::try_from(encoded).unwrap_or(u32::MAX)
}

fn mount_id(descriptor: impl AsFd) -> Option<u64> {
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    id.trim().parse().ok()
}
