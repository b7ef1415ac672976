//! cgroup/bind4 and bind6: sets the owner and judges the right to a local port.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use ringfence_common::abi::{Decision, Direction, Tuple, event, event::Hook, identity};

use super::{Call, Caller, caller};
use crate::{
    emit::{self, What},
    maps::generation,
    policy::{self, Ask, passes},
    sock,
};

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    decide(ctx.sock_addr, false).code()
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    decide(ctx.sock_addr, true).code()
}

/// Whether the call's socket has a local port.
#[inline(always)]
fn is_bound(ctx: *mut bpf_sock_addr) -> bool {
    // SAFETY: the context is the hook's own, and its socket never null.
    let sk: *mut bpf_sock = unsafe { (*ctx).__bindgen_anon_1.sk };
    let mut bound = Tuple::default();
    sock::bound(sk, &mut bound);
    bound.local_port != 0
}

#[inline(always)]
fn decide(ctx: *mut bpf_sock_addr, is_v6: bool) -> Call {
    // The kernel refuses what is bound already (`__inet_bind`): such a call makes nobody the owner.
    if is_bound(ctx) {
        return Call::Allow;
    }
    let Some(Caller {
        state, protocol, ..
    }) = caller(ctx)
    else {
        return Call::Refuse;
    };
    let local_port = sock::user_port(ctx);
    if state.owner.identity == identity::PENDING {
        emit::ask_about(&state.owner, Hook::Bind, sock::cookie(ctx.cast()));
        return Call::Allow;
    }
    if local_port == 0 {
        // An ephemeral port; should the socket listen on it, the first packet is judged.
        return Call::Allow;
    }
    let mut ask = Ask {
        tuple: Tuple {
            local_port,
            protocol,
            ..Tuple::default()
        },
        identity: state.owner.identity,
        direction: Direction::Listen as u8,
        generation: generation(),
        now: sock::now(),
        ..Ask::default()
    };
    sock::set(&mut ask.tuple.local, sock::user_address(ctx, is_v6));
    let mut decision = Decision::default();
    policy::judge(&ask, &mut decision);
    if passes(&decision) {
        return Call::Allow;
    }
    let what = What::new(event::DENY, Hook::Bind);
    emit::send(
        what,
        sock::cookie(ctx.cast()),
        &ask.tuple,
        &state.owner,
        &decision,
    );
    Call::Refuse
}
