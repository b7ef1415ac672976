//! Who acts at hooks that know no process by their helpers, on any kernel: read from the current task's own
//! structures.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_cgroup_id};
use ringfence_common::abi::{CgroupEntry, Owner, identity};

use core::ptr::read_volatile;

use crate::{
    cgroup, identity as who,
    maps::{SOCKETS, generation},
    sock, task,
};

/// Fills in the owner that the current task stands for; false outside the guarded tree.
#[inline(never)]
pub fn current(owner: &mut Owner) -> bool {
    let Some(node) = task::cgroup_node() else {
        return false;
    };
    let mut base = CgroupEntry::default();
    if !cgroup::of_task(node, &mut base) {
        return false;
    }
    owner.cgroup = task::node_id(node).unwrap_or(0);
    as_task(base, owner);
    true
}

/// Fills in who sends a frame: the cgroup in which its socket was made, and where that holds several
/// workloads the process that sends from there; false outside the guarded tree. A frame that came in by a
/// device before is passed on, by whatever task runs just then: its sender is who was noted where it was sent.
#[inline(never)]
pub fn sending(skb: *mut __sk_buff, owner: &mut Owner) -> bool {
    // SAFETY: the context is the hook's own.
    let cgroup = unsafe { bpf_skb_cgroup_id(skb) };
    let Some(base) = cgroup::of_packet(skb, cgroup) else {
        return false;
    };
    owner.cgroup = cgroup;
    // SAFETY: as above.
    let is_passed_on = unsafe { read_volatile(&raw const (*skb).ingress_ifindex) } != 0;
    if !is_passed_on && task::cgroup_node().and_then(task::node_id) == Some(cgroup) {
        as_task(base, owner);
        if base.class != 0 {
            note(skb, owner);
        }
        return true;
    }
    if is_passed_on && base.class != 0 && noted(skb, owner) {
        return true;
    }
    owner.class = base.class;
    owner.generation = generation();
    // Which of several it is can't be told.
    owner.identity = if base.class == 0 {
        base.identity
    } else {
        identity::UNKNOWN
    };
    true
}

/// Leaves who sends with the socket, for devices further on.
#[inline(never)]
fn note(skb: *mut __sk_buff, owner: &Owner) {
    if let Some(sk) = sock::full_socket(skb)
        && let Some(state) = SOCKETS.get_or_create(sk.cast())
    {
        state.owner = *owner;
    }
}

/// Fills in who sent last by the socket, as he is now; false where nobody was noted.
#[inline(never)]
fn noted(skb: *mut __sk_buff, owner: &mut Owner) -> bool {
    let Some(sk) = sock::full_socket(skb) else {
        return false;
    };
    let Some(state) = SOCKETS.get(sk.cast()) else {
        return false;
    };
    who::settle(&mut state.owner);
    *owner = state.owner;
    true
}

#[inline(never)]
fn as_task(base: CgroupEntry, owner: &mut Owner) {
    owner.generation = generation();
    owner.comm = task::command().unwrap_or_default();
    let executable = task::executable();
    let Some(task) = task::credentials() else {
        owner.identity = identity::UNKNOWN;
        return;
    };
    owner.uid = task.uid;
    owner.tgid = task.tgid;
    if let Some(key) = executable {
        owner.executable = key;
    } else if task::is_kernel_thread() {
        owner.tgid = 0;
    }
    who::in_cgroup(base, executable.is_some(), task.gid, owner);
}
