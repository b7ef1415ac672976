//! Settings that the programs read at run time.

use super::abi_type;

/// Never block: every deny becomes an audit verdict.
pub const DRAFT_MODE: u32 = 1;
/// A workload that no policy selects is denied.
pub const DENY_UNSELECTED: u32 = 2;

/// Entries of the failsafe list at most.
pub const MAX_FAILSAFE: usize = 32;

/// Value of `SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`DRAFT_MODE`], [`DENY_UNSELECTED`].
    pub flags: u32,
    /// Thread group id of the agent in the initial PID namespace.
    pub agent_tgid: u32,
    /// Start time of that process as in `/proc/PID/stat`: `CLOCK_BOOTTIME` in 1/100 s.
    pub agent_start: u64,
    /// Number of valid entries of `FAILSAFE`.
    pub failsafe_len: u32,
    /// Time until a SYN that is held is sent again, in the kernel's ticks (jiffies).
    pub hold_ticks: u32,
    /// What is pending is refused after this time, nanoseconds.
    pub pending_ns: u64,
    /// Zero, of which the verifier does not know that it is.
    pub zero: u64,
}
abi_type!(Settings, size = 40, align = 8);

/// One entry of `FAILSAFE`: inbound flows that no policy can cut.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailsafeEntry {
    /// Peer network, IPv4 mapped, bits beyond the prefix zero.
    pub address: [u8; 16],
    /// First local port.
    pub first_port: u16,
    /// Last local port.
    pub last_port: u16,
    /// Prefix length, 0 to 128.
    pub prefix: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 2],
}
abi_type!(FailsafeEntry, size = 24, align = 2);

/// Value of `LOCAL_ADDRESSES`: an address of the namespace itself.
pub const OWN_ADDRESS: u8 = 1;
/// Value of `LOCAL_ADDRESSES`: a broadcast address of a network that the namespace is in.
pub const BROADCAST: u8 = 2;

/// Key of `LOCAL_ADDRESSES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalKey {
    /// Network namespace cookie.
    pub netns: u64,
    /// Address that leads to that namespace, IPv4 mapped.
    pub address: [u8; 16],
}
abi_type!(LocalKey, size = 24, align = 8);

/// Where the fields stand in the running kernel's structures, in bytes; from its BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.group_leader`.
    pub task_group_leader: u32,
    /// `task_struct.start_boottime`.
    pub task_start: u32,
    /// `mm_struct.exe_file`.
    pub mm_exe_file: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `inode.i_ino`.
    pub inode_number: u32,
    /// `inode.i_sb`.
    pub inode_super: u32,
    /// `super_block.s_dev`.
    pub super_device: u32,
    /// `super_block.s_magic`.
    pub super_magic: u32,
    /// `super_block.s_user_ns`.
    pub super_user_ns: u32,
    /// `user_namespace.level`.
    pub user_ns_level: u32,
    /// Seconds of the inode's change time.
    pub inode_ctime_sec: u32,
    /// Nanoseconds of the inode's change time.
    pub inode_ctime_nsec: u32,
    /// `task_struct.cgroups`.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`.
    pub set_cgroup: u32,
    /// `cgroup.kn`.
    pub cgroup_node: u32,
    /// `kernfs_node.id`.
    pub node_id: u32,
    /// `kernfs_node.name`.
    pub node_name: u32,
    /// `task_struct.cred`.
    pub task_cred: u32,
    /// `cred.group_info`.
    pub cred_groups: u32,
    /// `group_info.ngroups`.
    pub groups_count: u32,
    /// `group_info.gid`.
    pub groups_list: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `cred.uid`.
    pub cred_uid: u32,
    /// `cred.gid`.
    pub cred_gid: u32,
    /// `kernfs_node.__parent`.
    pub node_parent: u32,
    /// `sock_common.skc_reuseport`, in bits.
    pub sock_reuseport_bit: u32,
}
abi_type!(Offsets, size = 112, align = 4);
