//! `cgroup/post_bind4` and `post_bind6`: run when the kernel has given a socket its port, and only then. Nothing is
//! judged here; who asked for the port while the socket still had another one owns it now.

use aya_ebpf::{
    helpers::generated::bpf_get_netns_cookie, macros::cgroup_sock, programs::SockContext,
};
use ringfence_common::abi::{
    event::Hook,
    identity,
    socket::{BINDS_AGAIN, BOUND_UNJUDGED},
};

use super::Call;
use crate::{emit, identity as who, maps::SOCKETS, sock, task};

#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    bound(&ctx).code()
}

#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    bound(&ctx).code()
}

#[inline(always)]
fn bound(ctx: &SockContext) -> Call {
    let Some(state) = SOCKETS.get(ctx.sock.cast()) else {
        return Call::Allow;
    };
    if state.marks & BINDS_AGAIN == 0 || task::is_kernel_thread() {
        return Call::Allow;
    }
    state.marks &= !(BINDS_AGAIN | BOUND_UNJUDGED);
    who::current(&mut state.owner);
    // SAFETY: the context is the hook's own.
    state.owner.netns = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
    if state.owner.identity == identity::PENDING {
        state.marks |= BOUND_UNJUDGED;
        emit::ask_about(&state.owner, Hook::Bind, sock::cookie(ctx.sock.cast()));
    }
    Call::Allow
}
