//! What the kernel knows of a cgroup.

use super::{Identity, abi_type};

/// Deepest cgroup level that the ancestor walk looks at (the root is level 0).
pub const MAX_LEVEL: u32 = 32;

/// Value of `CGROUPS`: the identity of the processes in a cgroup and in all unknown cgroups below it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupEntry {
    /// Identity when no process rule applies.
    pub identity: Identity,
    /// Process class: the set of workloads told apart by executable or user; 0 = none.
    pub class: u32,
}
abi_type!(CgroupEntry, size = 8, align = 4);
