//! What the kernel's own structures say of the current task. Their layout comes from the kernel's BTF; each
//! pointer that is followed goes through a helper that fails instead of faulting.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_get_current_task, bpf_probe_read_kernel, generated::bpf_probe_read_kernel_str},
};
use core::{ffi::c_void, ptr::read_volatile};
use ringfence_common::abi::{ExecutableKey, Offsets, cgroup::NAME_BYTES};

use crate::maps::SETTINGS;

/// `FUSE_SUPER_MAGIC` (`fs/fuse/inode.c`).
const FUSE: u64 = 0x6573_5546;
/// Nanoseconds in the unit of `/proc/PID/stat` (`USER_HZ` is 100 everywhere).
const TICK_NS: u64 = 10_000_000;

/// Set by the loader from the kernel's BTF.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    task_mm: 0,
    task_group_leader: 0,
    task_start: 0,
    mm_exe_file: 0,
    file_inode: 0,
    inode_number: 0,
    inode_super: 0,
    super_device: 0,
    super_magic: 0,
    super_user_ns: 0,
    user_ns_level: 0,
    inode_ctime_sec: 0,
    inode_ctime_nsec: 0,
    task_cgroups: 0,
    set_cgroup: 0,
    cgroup_node: 0,
    node_id: 0,
    node_name: 0,
    task_cred: 0,
    cred_groups: 0,
    groups_count: 0,
    groups_list: 0,
    task_tgid: 0,
    task_comm: 0,
    cred_uid: 0,
    cred_gid: 0,
    node_parent: 0,
    sock_reuseport_bit: 0,
};

/// Executable of the current task, read along `task->mm->exe_file->f_inode`.
#[inline(always)]
pub fn executable() -> Option<ExecutableKey> {
    // SAFETY: the loader writes the constant before the program is loaded; every pointer that is
    // followed goes through `bpf_probe_read_kernel`, which fails instead of faulting.
    unsafe {
        let at = read_volatile(&raw const OFFSETS);
        let task = bpf_get_current_task();
        let mm = pointer(task, at.task_mm)?;
        let file = pointer(mm, at.mm_exe_file)?;
        let inode = pointer(file, at.file_inode)?;
        let superblock = pointer(inode, at.inode_super)?;
        let user_ns = pointer(superblock, at.super_user_ns)?;
        let is_own = read::<u32>(user_ns, at.user_ns_level)? == 0;
        if !is_own || read::<u64>(superblock, at.super_magic)? == FUSE {
            return Some(ExecutableKey::FOREIGN);
        }
        Some(ExecutableKey {
            inode: read(inode, at.inode_number)?,
            ctime_sec: read(inode, at.inode_ctime_sec)?,
            // Since 6.13 the highest bit says that the time was queried (`I_CTIME_QUERIED`).
            ctime_nsec: read::<u32>(inode, at.inode_ctime_nsec)? & 0x7fff_ffff,
            device: read(superblock, at.super_device)?,
        })
    }
}

/// Whether others may have the port of a socket (`SO_REUSEPORT`); so it is where that can't be read.
#[inline(always)]
pub fn shares_port(sk: *const bpf_sock) -> bool {
    // SAFETY: as in `executable`; a socket begins with its `sock_common`, a pointer to which the verifier lets nobody
    // add.
    unsafe {
        let bit = read_volatile(&raw const OFFSETS).sock_reuseport_bit;
        let Ok(head) = bpf_probe_read_kernel(sk.cast::<c_void>().cast::<[u64; 4]>()) else {
            return true;
        };
        let [a, b, c, d] = head;
        let word = match bit / 64 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        };
        word >> (bit % 64) & 1 != 0
    }
}

/// Supplementary groups of the current task, read along `task->cred->group_info`: how many they are and
/// where they stand. Like the user, they are those that the task acts with (`current_cred`).
#[inline(always)]
pub fn groups() -> Option<(u32, u64)> {
    // SAFETY: as in `executable`.
    unsafe {
        let at = read_volatile(&raw const OFFSETS);
        let credentials = pointer(bpf_get_current_task(), at.task_cred)?;
        let groups = pointer(credentials, at.cred_groups)?;
        let count = read::<u32>(groups, at.groups_count)?;
        Some((count, groups + u64::from(at.groups_list)))
    }
}

/// Who the current task is, for hooks that lack the helpers.
#[derive(Clone, Copy)]
pub struct Credentials {
    /// Thread group id.
    pub tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
}

/// [`Credentials`] of the current task, read along `task->cred`.
#[inline(always)]
pub fn credentials() -> Option<Credentials> {
    // SAFETY: as in `executable`.
    unsafe {
        let at = read_volatile(&raw const OFFSETS);
        let task = bpf_get_current_task();
        let credentials = pointer(task, at.task_cred)?;
        Some(Credentials {
            tgid: read(task, at.task_tgid)?,
            uid: read(credentials, at.cred_uid)?,
            gid: read(credentials, at.cred_gid)?,
        })
    }
}

/// Command name of the current task.
#[inline(always)]
pub fn command() -> Option<[u8; 16]> {
    // SAFETY: as in `executable`.
    unsafe {
        let at = read_volatile(&raw const OFFSETS);
        read(bpf_get_current_task(), at.task_comm)
    }
}

/// The directory of the current task's cgroup, `task->cgroups->dfl_cgrp->kn`.
#[inline(always)]
pub fn cgroup_node() -> Option<u64> {
    // SAFETY: as in `executable`.
    unsafe {
        let at = read_volatile(&raw const OFFSETS);
        let set = pointer(bpf_get_current_task(), at.task_cgroups)?;
        let cgroup = pointer(set, at.set_cgroup)?;
        pointer(cgroup, at.cgroup_node)
    }
}

/// cgroup id of a directory.
#[inline(always)]
pub fn node_id(node: u64) -> Option<u64> {
    // SAFETY: as in `executable`.
    unsafe { read(node, read_volatile(&raw const OFFSETS).node_id) }
}

/// The directory above one.
#[inline(always)]
pub fn node_above(node: u64) -> Option<u64> {
    // SAFETY: as in `executable`.
    unsafe { pointer(node, read_volatile(&raw const OFFSETS).node_parent) }
}

/// Whether the current task has no memory of its own, and so runs no executable.
#[inline(always)]
pub fn is_kernel_thread() -> bool {
    // SAFETY: as in `executable`.
    unsafe {
        let at = read_volatile(&raw const OFFSETS);
        read::<u64>(bpf_get_current_task(), at.task_mm) == Some(0)
    }
}

/// Whether the current process is the agent: number and start time, so that a process which got the
/// dead agent's number is not taken for it.
#[inline(always)]
pub fn is_agent(tgid: u32) -> bool {
    let Some(settings) = SETTINGS.get(0) else {
        return false;
    };
    if settings.agent_tgid != tgid || tgid == 0 {
        return false;
    }
    // SAFETY: as in `executable`.
    unsafe {
        let at = read_volatile(&raw const OFFSETS);
        let started = pointer(bpf_get_current_task(), at.task_group_leader)
            .and_then(|leader| read::<u64>(leader, at.task_start));
        started.is_some_and(|started| started / TICK_NS == settings.agent_start)
    }
}

/// Writes the name of the current task's cgroup, read along `task->cgroups->dfl_cgrp->kn->name`, and
/// answers its length; nothing when it is not the cgroup with this id (any more), or the name too long.
#[inline(always)]
pub fn cgroup_name(cgroup: u64, name: &mut [u8; NAME_BYTES]) -> Option<u64> {
    // SAFETY: as in `executable`; the helper writes at most the name's bytes.
    let length = unsafe {
        let at = read_volatile(&raw const OFFSETS);
        let node = pointer(bpf_get_current_task(), at.task_cgroups)
            .and_then(|set| pointer(set, at.set_cgroup))
            .and_then(|cgroup| pointer(cgroup, at.cgroup_node));
        let node = node.filter(|node| read(*node, at.node_id) == Some(cgroup))?;
        let from = pointer(node, at.node_name)?;
        bpf_probe_read_kernel_str(
            name.as_mut_ptr().cast(),
            NAME_BYTES as u32,
            from as *const c_void,
        )
    };
    // It counts the NUL. A length of the whole buffer may be that of a longer name.
    (length > 0 && length.cast_unsigned() < NAME_BYTES as u64).then(|| length.cast_unsigned() - 1)
}

/// One group of a list at an address.
#[inline(always)]
pub fn group(list: u64, index: u32) -> Option<u32> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((list + 4 * u64::from(index)) as *const u32).ok() }
}

#[inline(always)]
unsafe fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T).ok() }
}

#[inline(always)]
unsafe fn pointer(base: u64, offset: u32) -> Option<u64> {
    // SAFETY: as above.
    unsafe { read::<u64>(base, offset) }.filter(|address| *address != 0)
}
