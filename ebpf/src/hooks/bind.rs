//! cgroup/bind4 and bind6: sets the owner and judges the right to a local port.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_netns_cookie,
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use core::ptr::read_volatile;
use ringfence_common::abi::{
    Decision, Direction, Identity, Owner, Tuple,
    event::Hook,
    identity,
    socket::{BINDS_AGAIN, BOUND_UNJUDGED},
    tuple::TCP,
};

use super::{Call, Caller, caller};
use crate::{
    emit, identity as who,
    maps::{SOCKETS, generation},
    policy::{self, Ask, passes},
    refusal, sock, taken,
};

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    decide(ctx.sock_addr, false).code()
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    decide(ctx.sock_addr, true).code()
}

/// Leaves to [`super::post_bind`] who owns the socket.
#[inline(always)]
fn binds_again(ctx: *mut bpf_sock_addr) -> Call {
    // SAFETY: as in `is_bound`.
    let Some(state) = SOCKETS.get_or_create(unsafe { (*ctx).__bindgen_anon_1.sk.cast() }) else {
        return Call::Refuse;
    };
    state.marks |= BINDS_AGAIN;
    Call::Allow
}

/// Whether the call's socket has a local port.
#[inline(never)]
fn is_bound(ctx: *mut bpf_sock_addr) -> bool {
    // SAFETY: the context is the hook's own, and its socket never null.
    let sk: *mut bpf_sock = unsafe { (*ctx).__bindgen_anon_1.sk };
    let mut bound = Tuple::default();
    sock::bound(sk, &mut bound);
    bound.local_port != 0
}

#[inline(always)]
fn decide(ctx: *mut bpf_sock_addr, is_v6: bool) -> Call {
    let bound = is_bound(ctx);
    let mut decision = Decision::default();
    let mut owner = Owner::default();
    who::current(&mut owner);
    if !may_bind(ctx, owner.identity, is_v6, &mut decision)
        || is_taken(ctx, &owner, is_v6, &mut decision)
    {
        if owner.identity == identity::PENDING {
            // It may be who listens there: asked at once, so that it may try again.
            emit::ask_about(&owner, Hook::Bind, 0);
        }
        record(ctx, is_v6, &mut owner, &decision);
        return Call::Refuse;
    }
    // The kernel refuses what is bound already (`__inet_bind`): such a call makes nobody the owner. But another
    // thread may take the port away before the kernel looks (`connect` with `AF_UNSPEC`): hook and call take the
    // socket's lock one after the other. So it is judged all the same, and owns the socket when it has succeeded.
    if bound {
        return binds_again(ctx);
    }
    // Only now: who is refused takes nothing over.
    let Some(Caller {
        state, protocol, ..
    }) = caller(ctx)
    else {
        return Call::Refuse;
    };
    state.marks &= !BOUND_UNJUDGED;
    if state.owner.identity == identity::PENDING {
        if protocol == TCP && sock::user_port(ctx) != 0 {
            state.marks |= BOUND_UNJUDGED;
        }
        emit::ask_about(&state.owner, Hook::Bind, sock::cookie(ctx.cast()));
    }
    Call::Allow
}

/// Whether the policy of an identity lets it have the port. An ephemeral one, and what is not judged yet, is
/// judged when it listens, by the first packet.
#[inline(never)]
fn may_bind(
    ctx: *mut bpf_sock_addr,
    identity: Identity,
    is_v6: bool,
    decision: &mut Decision,
) -> bool {
    if identity == identity::PENDING || sock::user_port(ctx) == 0 {
        return true;
    }
    let mut ask = Ask {
        identity,
        direction: Direction::Listen as u8,
        generation: generation(),
        now: sock::now(),
        ..Ask::default()
    };
    port(ctx, is_v6, &mut ask.tuple);
    policy::judge(&ask, decision);
    passes(decision)
}

/// Whether the port is another workload's.
#[inline(never)]
fn is_taken(ctx: *mut bpf_sock_addr, owner: &Owner, is_v6: bool, decision: &mut Decision) -> bool {
    let mut wanted = Tuple::default();
    port(ctx, is_v6, &mut wanted);
    taken::by_another(ctx, &wanted, owner, decision)
}

#[inline(never)]
fn record(ctx: *mut bpf_sock_addr, is_v6: bool, owner: &mut Owner, decision: &Decision) {
    // SAFETY: the context is the hook's own.
    owner.netns = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let mut tuple = Tuple::default();
    port(ctx, is_v6, &mut tuple);
    refusal::of_call(
        Hook::Bind,
        sock::cookie(ctx.cast()),
        &tuple,
        owner,
        decision,
    );
}

/// Writes what the call asks for.
#[inline(always)]
fn port(ctx: *mut bpf_sock_addr, is_v6: bool, tuple: &mut Tuple) {
    sock::set(&mut tuple.local, sock::user_address(ctx, is_v6));
    tuple.local_port = sock::user_port(ctx);
    // SAFETY: the context is the hook's own.
    tuple.protocol = unsafe { read_volatile(&raw const (*ctx).protocol) } as u8;
}
