//! cgroup/bind4 and bind6: sets the owner and judges the right to a local port.

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::generated::bpf_get_netns_cookie, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use core::ptr::read_volatile;
use ringfence_common::abi::{Decision, Direction, Tuple, event, event::Hook, identity};

use super::Call;
use crate::{
    emit::{self, What},
    identity as who,
    maps::{SOCKETS, generation},
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

#[inline(always)]
fn decide(ctx: *mut bpf_sock_addr, is_v6: bool) -> Call {
    // SAFETY: the context is the hook's own.
    let (sk, protocol) = unsafe {
        (
            (*ctx).__bindgen_anon_1.sk,
            read_volatile(&raw const (*ctx).protocol) as u8,
        )
    };
    let Some(state) = SOCKETS.get_or_create(sk.cast()) else {
        return Call::Refuse;
    };
    who::current(&mut state.owner);
    // SAFETY: the context is the hook's own.
    state.owner.netns = unsafe { bpf_get_netns_cookie(ctx.cast()) };
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
