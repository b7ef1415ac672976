//! What a cgroup stands for: its entry, or for one that the agent has not seen (yet, or because it is
//! dead) what its name says, or the same as the cgroup above it. Where neither is sure, nothing is guessed.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id},
};
use ringfence_common::abi::{
    CgroupEntry, ChildKey, Count,
    cgroup::{CONTAINER_NAME_BYTES, CONTAINERS, MAX_LEVEL, NAME_BYTES, OTHERS},
    identity,
};

use crate::{
    maps::{CGROUPS, CHILDREN, count},
    task,
};

const PENDING: CgroupEntry = CgroupEntry {
    identity: identity::PENDING,
    class: 0,
    below: 0,
};

/// The entry of a cgroup that the agent has seen.
#[inline(always)]
pub fn lookup(cgroup: u64) -> Option<CgroupEntry> {
    // SAFETY: the value is copied at once; an entry is never written in place by a program.
    unsafe { CGROUPS.get(cgroup).copied() }
}

/// What the current process's cgroup stands for; `COUNTED` says whether a walk to an ancestor counts.
#[inline(always)]
pub fn of_current<const COUNTED: bool>(cgroup: u64) -> Option<CgroupEntry> {
    if let Some(entry) = lookup(cgroup) {
        return Some(entry);
    }
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
        Name::Short if above.entry.below & OTHERS == 0 => Some(above.entry),
        Name::Long if above.entry.below & (OTHERS | CONTAINERS) == 0 => Some(above.entry),
        Name::Short | Name::Long | Name::Unreadable => Some(PENDING),
    }
}

/// What the cgroup of a packet's socket stands for.
#[inline(always)]
pub fn of_packet(skb: *mut __sk_buff, cgroup: u64) -> Option<CgroupEntry> {
    lookup(cgroup).or_else(|| above_packet(skb))
}

/// What the cgroup of a packet's socket, which the agent has not seen, stands for by what lies above it. There is no process
/// whose cgroup's name could be read.
#[inline(always)]
pub fn above_packet(skb: *mut __sk_buff) -> Option<CgroupEntry> {
    count(Count::AncestorWalk);
    // SAFETY: the context is the hook's own; the helper answers 0 for a level that the cgroup does not have.
    let above = walk(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })?;
    Some(if above.entry.below == 0 {
        above.entry
    } else {
        PENDING
    })
}

/// What the current task's cgroup stands for, read from its directories alone; false outside the guarded
/// tree. An unknown name is not looked up: where it may matter, the answer is pending.
#[inline(never)]
pub fn of_task(node: u64, into: &mut CgroupEntry) -> bool {
    let mut node = node;
    for level in 0..=MAX_LEVEL {
        let Some(entry) = task::node_id(node).and_then(lookup) else {
            let Some(above) = task::node_above(node) else {
                return false;
            };
            node = above;
            continue;
        };
        let unsure = level > 0 && entry.below != 0;
        *into = if unsure { PENDING } else { entry };
        return true;
    }
    // Deeper than anything that is followed, wherever that is.
    *into = PENDING;
    true
}

/// What is known of the name of a cgroup.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Name {
    Known,
    /// It holds no container's id.
    Short,
    /// It may hold one.
    Long,
    Unreadable,
}

/// Looks up the current task's cgroup by its name.
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
    let Some(length) = task::cgroup_name(cgroup, &mut key.name) else {
        return Name::Unreadable;
    };
    // SAFETY: the value is copied at once.
    match unsafe { CHILDREN.get(&key).copied() } {
        Some(entry) => {
            *child = entry;
            Name::Known
        }
        None if length < CONTAINER_NAME_BYTES as u64 => Name::Short,
        None => Name::Long,
    }
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
