//! Who asks: from the current process, or from a socket's cgroup where there is no process.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_skb_cgroup_id},
    },
};
use core::ptr::write_volatile;
use ringfence_common::abi::{
    CgroupEntry, Count, ExecutableKey, Identity, Owner, ProcessKey,
    event::Hook,
    executable::{ANY_UID, GROUPED, MEMBER},
    identity,
};

use crate::{
    cgroup, emit, groups,
    maps::{EXECUTABLES, PROCESSES, SETTINGS, count, generation},
    task,
};

/// `SocketState::held` counts 2^20 ns.
const HELD_SHIFT: u32 = 20;
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
    owner.generation = generation();
    owner.executable = ExecutableKey::default();
    let executable = task::executable();
    if let Some(key) = executable {
        owner.executable = key;
    } else if task::is_kernel_thread() {
        owner.tgid = 0;
    }
    let Some(base) = cgroup::of_current::<COUNTED>(cgroup) else {
        owner.class = 0;
        owner.identity = if task::is_agent(owner.tgid) {
            identity::AGENT
        } else {
            identity::UNKNOWN
        };
        return;
    };
    if task::is_agent(owner.tgid) {
        owner.class = base.class;
        owner.identity = identity::AGENT;
        return;
    }
    let gid = (bpf_get_current_uid_gid() >> 32) as u32;
    in_cgroup(base, executable.is_some(), gid, owner);
}

/// Fills in class and identity of the current process in a cgroup; the rest of the owner is there.
#[inline(always)]
pub fn in_cgroup(base: CgroupEntry, readable: bool, gid: u32, owner: &mut Owner) {
    owner.class = base.class;
    owner.identity = if base.class == 0 || owner.tgid == 0 {
        base.identity
    } else if !readable {
        count(Count::ExecutableUnreadable);
        identity::UNKNOWN
    } else if let Some(class) = groups::class_of_current(base.class, gid) {
        owner.class = class;
        by_process(base.identity, owner).unwrap_or(identity::PENDING)
    } else {
        count(Count::GroupsUnreadable);
        identity::UNKNOWN
    };
}

/// Makes sure that a packet's socket has an owner, who may have been pending; answers whether the owner
/// can be judged. An owner who was found stays, also one of whom nobody could say who he is
/// ([`identity::UNKNOWN`]): the cgroup of the socket says less.
#[inline(never)]
pub fn ready(skb: *mut __sk_buff, owner: &mut Owner) -> bool {
    if owner.cgroup == 0 {
        // No process has made or used the socket since the programs were attached, and the agent could not adopt it, such
        // as the kernel's own: it is what its cgroup stands for without process rules.
        owner.identity = identity::PENDING;
        owner.tgid = 0;
        // SAFETY: the context is the hook's own.
        owner.cgroup = unsafe { bpf_skb_cgroup_id(skb) };
    }
    settle_or(owner, |cgroup| {
        // SAFETY: as above.
        let is_sockets = unsafe { bpf_skb_cgroup_id(skb) } == cgroup;
        is_sockets.then(|| cgroup::above_packet(skb)).flatten()
    });
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

/// Finds the owner's identity anew where it was pending or was found under another generation: the agent
/// may have judged its executable or seen its cgroup, and the policy may say that it is someone else.
#[inline(always)]
pub fn settle(owner: &mut Owner) {
    settle_or(owner, |_| None);
}

/// The same where `unknown` may say, for an owner who is pending, what a cgroup stands for that the agent has not seen: some lie
/// deeper than it follows.
#[inline(always)]
fn settle_or(owner: &mut Owner, unknown: impl FnOnce(u64) -> Option<CgroupEntry>) {
    let generation = generation();
    let pending = owner.identity == identity::PENDING;
    if (!pending && owner.generation == generation) || owner.identity == identity::AGENT {
        return;
    }
    let known = cgroup::lookup(owner.cgroup);
    // A cgroup that is not known (yet, or any more) decides nothing about who was found.
    let Some(base) = known.or_else(|| pending.then(|| unknown(owner.cgroup)).flatten()) else {
        return;
    };
    let class = owner.class;
    let identity = if base.class == 0 || owner.tgid == 0 {
        owner.class = base.class;
        base.identity
    } else if base.class & GROUPED != 0 && class & !MEMBER != base.class {
        // Which of these groups the process is in was not asked then: the agent says it (adoption).
        identity::PENDING
    } else {
        if base.class & GROUPED == 0 {
            owner.class = base.class;
        }
        match by_process(base.identity, owner) {
            Some(identity) => identity,
            // The agent has forgotten the executable, and its process may be gone: what was found holds.
            None if !pending && class != 0 => owner.identity,
            None => identity::PENDING,
        }
    };
    // SAFETY: fields of the socket's storage. Another CPU that sees the generation sees the identity.
    unsafe {
        write_volatile(&raw mut owner.identity, identity);
        write_volatile(&raw mut owner.generation, generation);
    }
}

/// What process rules say of an owner in a cgroup of identity `base`; nothing while its executable is not
/// judged.
#[inline(always)]
fn by_process(base: Identity, owner: &Owner) -> Option<Identity> {
    let executable = if owner.executable.device == ExecutableKey::FOREIGN.device {
        0
    } else {
        // SAFETY: values are copied at once.
        unsafe { EXECUTABLES.get(owner.executable).copied() }?
    };
    let key = ProcessKey {
        class: owner.class,
        executable,
        uid: owner.uid,
    };
    if let Some(found) = find(key) {
        return Some(found);
    }
    // Groups that change nothing are not in the table.
    if owner.class & GROUPED != 0
        && let Some(found) = find(ProcessKey {
            class: owner.class & !MEMBER,
            ..key
        })
    {
        return Some(found);
    }
    Some(base)
}

/// Of the user, or else of any user.
#[inline(always)]
fn find(mut key: ProcessKey) -> Option<Identity> {
    // SAFETY: as above.
    if let Some(found) = unsafe { PROCESSES.get(key).copied() } {
        return Some(found);
    }
    key.uid = ANY_UID;
    // SAFETY: as above.
    unsafe { PROCESSES.get(key).copied() }
}
