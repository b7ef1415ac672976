//! Keys by which the kernel recognises an executable and a process.

use super::abi_type;

/// The user part of a [`ProcessKey`] that stands for every user not listed.
pub const ANY_UID: u32 = u32::MAX;

/// Bit of a process class: some of its workloads ask for groups, which `GROUPS` names.
pub const GROUPED: u32 = 1 << 31;
/// Groups that the workloads of one process class ask for, at most.
pub const MAX_GROUPS: usize = 8;
/// Bits that are zero in the number of a [`GROUPED`] class. In the class of a process the lowest says
/// that it is in the first of the class's groups, and so on.
pub const MEMBER: u32 = (1 << MAX_GROUPS) - 1;
/// No group, in [`ClassGroups`].
pub const NO_GID: u32 = u32::MAX;

/// An executable as the kernel sees it. The change time is in the key, so that a file changed in
/// place is another executable than the one that was judged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutableKey {
    /// Inode number.
    pub inode: u64,
    /// Change time, whole seconds.
    pub ctime_sec: u64,
    /// Change time, nanoseconds within the second.
    pub ctime_nsec: u32,
    /// Device in the kernel's own encoding (`dev_t`: 12 bits major, 20 bits minor).
    pub device: u32,
}
abi_type!(ExecutableKey, size = 24, align = 8);

impl ExecutableKey {
    /// Any executable whose file system a user answers for (FUSE, or mounted in a user namespace): that
    /// user decides what inode, time and content it shows, so no selector names it.
    pub const FOREIGN: Self = Self {
        inode: u64::MAX,
        ctime_sec: u64::MAX,
        ctime_nsec: u32::MAX,
        device: u32::MAX,
    };
}

/// Key of `PROCESSES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Process class of the cgroup, with the process's [`MEMBER`] bits.
    pub class: u32,
    /// Executable class, 0 = an executable that no selector names.
    pub executable: u32,
    /// User id, or [`ANY_UID`].
    pub uid: u32,
}
abi_type!(ProcessKey, size = 12, align = 4);

/// Value of `GROUPS`: the groups that the workloads of a process class ask for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassGroups {
    /// Group ids in the initial user namespace, ascending, then [`NO_GID`].
    pub gids: [u32; MAX_GROUPS],
}
abi_type!(ClassGroups, size = 32, align = 4);
