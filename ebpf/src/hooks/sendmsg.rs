//! cgroup/sendmsg4 and sendmsg6: egress of unconnected UDP.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use ringfence_common::{
    abi::{Decision, Direction, event::Hook, identity},
    logic::address::destination_words,
};

use super::{Call, Caller, caller, connect::find_peer};
use crate::{
    datagram::Seen,
    emit, flows,
    maps::generation,
    policy::{self, passes},
    sock,
};

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    decide(ctx.sock_addr, false).code()
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    decide(ctx.sock_addr, true).code()
}

#[inline(always)]
fn decide(ctx: *mut bpf_sock_addr, is_v6: bool) -> Call {
    let Some(Caller {
        sk,
        state,
        protocol,
    }) = caller(ctx)
    else {
        return Call::Refuse;
    };
    let cookie = sock::cookie(ctx.cast());
    if state.owner.identity == identity::PENDING {
        // The datagram is held at egress.
        emit::ask_about(&state.owner, Hook::Sendmsg, cookie);
        return Call::Allow;
    }
    let mut seen = Seen::default();
    seen.ask.identity = state.owner.identity;
    seen.ask.direction = Direction::Egress as u8;
    seen.ask.generation = generation();
    seen.ask.now = sock::now();
    let address = destination_words(sock::user_address(ctx, is_v6));
    sock::set(&mut seen.ask.tuple.remote, address);
    sock::set(&mut seen.key.remote, address);
    seen.ask.tuple.remote_port = sock::user_port(ctx);
    seen.ask.tuple.protocol = protocol;
    seen.key.cookie = cookie;
    seen.key.remote_port = seen.ask.tuple.remote_port;
    seen.key.protocol = protocol;
    sock::bound(sk, &mut seen.ask.tuple);
    if let Some(pass) = flows::cached(&seen) {
        return if pass { Call::Allow } else { Call::Refuse };
    }
    let _ = find_peer(ctx, state.owner.netns, &mut seen.ask);
    let mut decision = Decision::default();
    policy::judge(&seen.ask, &mut decision);
    if passes(&decision) {
        return Call::Allow;
    }
    // One that passes is recorded by its packet, with its real addresses.
    flows::judged(&seen, &state.owner, &mut decision, Hook::Sendmsg);
    Call::Refuse
}
