//! What the kernel knows of a cgroup.

use super::{Identity, abi_type};

/// Deepest cgroup level that the ancestor walk looks at (the root is level 0).
pub const MAX_LEVEL: u32 = 32;

/// Bytes of the longest cgroup name that is a [`ChildKey`], with the NUL that ends it.
pub const NAME_BYTES: usize = 128;

/// `CHILDREN` holds names of cgroups directly below that stand for someone else.
pub const NAMED: u32 = 1;
/// A cgroup below of any other name may stand for someone else too.
pub const OTHERS: u32 = 2;

/// Value of `CGROUPS` and `CHILDREN`: who the processes in a cgroup are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupEntry {
    /// Identity when no process rule applies.
    pub identity: Identity,
    /// Process class: the set of workloads told apart by executable, user or group; 0 = none.
    pub class: u32,
    /// Which unknown cgroups below are not the same: [`NAMED`], [`OTHERS`].
    pub below: u32,
}
abi_type!(CgroupEntry, size = 12, align = 4);

/// Key of `CHILDREN`: a cgroup that may come to be.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildKey {
    /// cgroup id of its parent.
    pub parent: u64,
    /// Its name, filled up with NUL.
    pub name: [u8; NAME_BYTES],
}
abi_type!(ChildKey, size = 136, align = 8);

impl ChildKey {
    /// The key of a name; nothing for a name that is too long.
    #[must_use]
    pub fn new(parent: u64, name: &[u8]) -> Option<Self> {
        let mut key = Self {
            parent,
            name: [0; NAME_BYTES],
        };
        let (text, _end) = key.name.split_at_mut(NAME_BYTES - 1);
        text.get_mut(..name.len())?.copy_from_slice(name);
        Some(key)
    }
}
