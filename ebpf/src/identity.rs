//! Who asks: from the current process, or from a socket's cgroup where there is no process.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_get_current_uid_gid, bpf_probe_read_kernel,
        generated::{
            bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id,
            bpf_probe_read_kernel_str, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id,
        },
    },
};
use core::{ffi::c_void, ptr::read_volatile};
use ringfence_common::abi::{
    CgroupEntry, ChildKey, Count, ExecutableKey, Identity, Offsets, Owner, ProcessKey,
    cgroup::{MAX_LEVEL, NAME_BYTES, OTHERS},
    event::Hook,
    executable::ANY_UID,
    identity,
};

use crate::{
    emit,
    maps::{CGROUPS, CHILDREN, EXECUTABLES, PROCESSES, SETTINGS, count},
};

/// `FUSE_SUPER_MAGIC` (`fs/fuse/inode.c`).
const FUSE: u64 = 0x6573_5546;
/// `SocketState::held` counts 2^20 ns.
const HELD_SHIFT: u32 = 20;
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
};

/// Fills in the owner that the current process stands for; `netns` is left alone.
#[inline(always)]
pub fn current(owner: &mut Owner) {
    let _ = ringfence_current(owner);
}

/// [`current`] as a global function, which the verifier checks once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ringfence_current(owner: *mut Owner) -> i32 {
    // SAFETY: the verifier makes sure that a pointer which is not null has its type's size behind it.
    let Some(owner) = (unsafe { owner.as_mut() }) else {
        return -1;
    };
    fill::<true>(owner);
    0
}

/// [`current`] where a program starts, for which the tracepoint fires on the whole host: most cgroups are
/// outside the guarded tree, and that they are not known is not counted.
#[inline(never)]
pub fn starting(owner: &mut Owner) {
    fill::<false>(owner);
}

#[inline(always)]
fn fill<const COUNTED: bool>(owner: &mut Owner) {
    // SAFETY: helpers without arguments.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    owner.cgroup = cgroup;
    owner.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    owner.uid = bpf_get_current_uid_gid() as u32;
    owner.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    owner.executable = ExecutableKey::default();
    let base = lookup(cgroup).or_else(|| unseen::<COUNTED>(cgroup));
    let Some(base) = base else {
        owner.class = 0;
        owner.identity = if is_agent(owner.tgid) {
            identity::AGENT
        } else {
            identity::UNKNOWN
        };
        return;
    };
    owner.class = base.class;
    owner.identity = if is_agent(owner.tgid) {
        identity::AGENT
    } else if base.identity == identity::PENDING {
        // For the day when the cgroup is known and has process rules.
        owner.executable = executable().unwrap_or_default();
        identity::PENDING
    } else if base.class == 0 {
        base.identity
    } else if let Some(key) = executable() {
        owner.executable = key;
        by_process(base, &key, owner.uid)
    } else if is_kernel_thread() {
        base.identity
    } else {
        count(Count::ExecutableUnreadable);
        identity::UNKNOWN
    };
}

/// Makes sure that a packet's socket has an owner, who may have been pending; answers whether the owner
/// can be judged.
#[inline(never)]
pub fn ready(skb: *mut __sk_buff, owner: &mut Owner) -> bool {
    if owner.identity == identity::UNKNOWN {
        of_packet(skb, owner);
    }
    settle(owner);
    if owner.identity == identity::PENDING {
        // Asked again by every packet that is held: a question can be lost.
        emit::ask_about(owner, Hook::Egress, 0);
        return false;
    }
    true
}

/// Whether a packet that can't be judged yet is held, not refused: for a bounded time.
#[inline(always)]
pub fn may_wait(held: &mut u32, now: u64) -> bool {
    count(Count::Pending);
    let now = ((now >> HELD_SHIFT) as u32).max(1);
    if *held == 0 {
        *held = now;
        return true;
    }
    let limit = SETTINGS.get(0).map_or(0, |settings| settings.pending_ns);
    u64::from(now.wrapping_sub(*held)) << HELD_SHIFT < limit
}

/// Identity of a pending owner, now that the agent may have judged its executable or seen its cgroup.
#[inline(always)]
pub fn settle(owner: &mut Owner) {
    if owner.identity != identity::PENDING {
        return;
    }
    // A cgroup that is not known (yet, or any more) decides nothing.
    let Some(base) = lookup(owner.cgroup) else {
        return;
    };
    owner.class = base.class;
    owner.identity = if base.class == 0 || owner.tgid == 0 {
        base.identity
    } else {
        by_process(base, &owner.executable, owner.uid)
    };
}

/// Fills in the owner of a socket that no process has made or used since the programs were attached
/// and that the agent could not adopt, such as the kernel's own: what its cgroup stands for without
/// process rules.
#[inline(always)]
fn of_packet(skb: *mut __sk_buff, owner: &mut Owner) {
    // SAFETY: the context is the hook's own.
    let cgroup = unsafe { bpf_skb_cgroup_id(skb) };
    owner.cgroup = cgroup;
    owner.tgid = 0;
    let base = lookup(cgroup).or_else(|| {
        count(Count::AncestorWalk);
        // SAFETY: as above; 0 for a level that the cgroup does not have.
        let above = walk(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })?;
        // There is no process whose cgroup's name could be read.
        Some(if above.entry.below == 0 {
            above.entry
        } else {
            PENDING
        })
    });
    let base = base.unwrap_or_default();
    owner.class = base.class;
    owner.identity = base.identity;
}

const PENDING: CgroupEntry = CgroupEntry {
    identity: identity::PENDING,
    class: 0,
    below: 0,
};

/// What a cgroup stands for that the agent has not seen yet, or will not see because it is dead: what its
/// name says, or the same as the cgroup above it. Where neither is sure, nothing is guessed.
#[inline(always)]
fn unseen<const COUNTED: bool>(cgroup: u64) -> Option<CgroupEntry> {
    if COUNTED {
        count(Count::AncestorWalk);
    }
    // SAFETY: the helper answers 0 for a level that the cgroup does not have.
    let above = walk(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })?;
    if above.entry.below == 0 {
        return Some(above.entry);
    }
    if above.child != cgroup {
        return Some(PENDING);
    }
    let mut child = PENDING;
    match named(above.id, cgroup, &mut child) {
        Name::Known => Some(child),
        Name::Other if above.entry.below & OTHERS == 0 => Some(above.entry),
        Name::Other | Name::Unreadable => Some(PENDING),
    }
}

/// What is known of the name of a cgroup.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Name {
    Known,
    Other,
    Unreadable,
}

/// Looks up the current task's cgroup by its name, read along `task->cgroups->dfl_cgrp->kn->name`.
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, of which there are 512 bytes"
)]
fn named(parent: u64, cgroup: u64, child: &mut CgroupEntry) -> Name {
    let mut key = ChildKey {
        parent,
        name: [0; NAME_BYTES],
    };
    // SAFETY: as in `executable`; the helper writes at most the name's bytes.
    let length = unsafe {
        let at = read_volatile(&raw const OFFSETS);
        let node = pointer(bpf_get_current_task(), at.task_cgroups)
            .and_then(|set| pointer(set, at.set_cgroup))
            .and_then(|cgroup| pointer(cgroup, at.cgroup_node));
        // Another one if the task was moved meanwhile.
        let Some(node) = node.filter(|node| read(*node, at.node_id) == Some(cgroup)) else {
            return Name::Unreadable;
        };
        let Some(name) = pointer(node, at.node_name) else {
            return Name::Unreadable;
        };
        let to = key.name.as_mut_ptr().cast();
        bpf_probe_read_kernel_str(to, NAME_BYTES as u32, name as *const c_void)
    };
    // A length of the whole buffer may be that of a longer name.
    if length <= 0 || length.cast_unsigned() >= NAME_BYTES as u64 {
        return Name::Unreadable;
    }
    // SAFETY: the value is copied at once.
    match unsafe { CHILDREN.get(&key).copied() } {
        Some(entry) => {
            *child = entry;
            Name::Known
        }
        None => Name::Other,
    }
}

#[inline(always)]
fn lookup(cgroup: u64) -> Option<CgroupEntry> {
    // SAFETY: the value is copied at once; an entry is never written in place by a program.
    unsafe { CGROUPS.get(cgroup).copied() }
}

/// The deepest known ancestor.
struct Above {
    entry: CgroupEntry,
    id: u64,
    /// The unknown cgroup right below it.
    child: u64,
}

#[inline(always)]
fn walk(ancestor: impl Fn(i32) -> u64) -> Option<Above> {
    let mut level = MAX_LEVEL.cast_signed();
    let mut child = 0;
    while level >= 0 {
        let id = ancestor(level);
        if id != 0 {
            if let Some(entry) = lookup(id) {
                return Some(Above { entry, id, child });
            }
            child = id;
        }
        level -= 1;
    }
    None
}

#[inline(always)]
fn by_process(base: CgroupEntry, key: &ExecutableKey, uid: u32) -> Identity {
    let executable = if key.device == ExecutableKey::FOREIGN.device {
        0
    } else {
        // SAFETY: values are copied at once.
        let Some(executable) = (unsafe { EXECUTABLES.get(key).copied() }) else {
            return identity::PENDING;
        };
        executable
    };
    let mut key = ProcessKey {
        class: base.class,
        executable,
        uid,
    };
    // SAFETY: as above.
    if let Some(found) = unsafe { PROCESSES.get(key).copied() } {
        return found;
    }
    key.uid = ANY_UID;
    // SAFETY: as above.
    unsafe { PROCESSES.get(key).copied() }.unwrap_or(base.identity)
}

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

/// Whether the current task has no memory of its own, and so runs no executable.
#[inline(always)]
fn is_kernel_thread() -> bool {
    // SAFETY: as in `executable`.
    unsafe {
        let at = read_volatile(&raw const OFFSETS);
        read::<u64>(bpf_get_current_task(), at.task_mm) == Some(0)
    }
}

/// Whether the current process is the agent: number and start time, so that a process which got the
/// dead agent's number is not taken for it.
#[inline(always)]
fn is_agent(tgid: u32) -> bool {
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
