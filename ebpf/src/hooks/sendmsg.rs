//! cgroup/sendmsg4 and sendmsg6: egress of unconnected UDP.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use ringfence_common::{
    abi::{Decision, Direction, Owner, event::Hook, identity},
    logic::address::destination_words,
};

use super::{Call, caller, connect::find_peer};
use crate::{
    datagram::Seen,
    emit, flows,
    maps::generation,
    peer,
    policy::{self, passes},
    sender, sock,
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
    let Some(caller) = caller(ctx) else {
        return Call::Refuse;
    };
    let mut seen = Seen::default();
    let address = destination_words(sock::user_address(ctx, is_v6));
    sock::set(&mut seen.ask.tuple.remote, address);
    sock::set(&mut seen.key.remote, address);
    seen.ask.tuple.remote_port = sock::user_port(ctx);
    seen.ask.tuple.protocol = caller.protocol;
    sock::bound(caller.sk, &mut seen.ask.tuple);
    let call = if caller.unknown {
        Call::Allow
    } else {
        judge(ctx, &caller.state.owner, &mut seen)
    };
    let owner = &caller.state.owner;
    if call == Call::Allow && peer::is_group(owner.netns, &seen.ask.tuple.remote) {
        sender::note_to_group(&seen.ask.tuple, owner);
    }
    call
}

#[inline(always)]
fn judge(ctx: *mut bpf_sock_addr, owner: &Owner, seen: &mut Seen) -> Call {
    let cookie = sock::cookie(ctx.cast());
    if owner.identity == identity::PENDING {
        // The datagram is held at egress.
        emit::ask_about(owner, Hook::Sendmsg, cookie);
        return Call::Allow;
    }
    seen.ask.identity = owner.identity;
    seen.ask.direction = Direction::Egress as u8;
    seen.ask.generation = generation();
    seen.ask.now = sock::now();
    seen.key.cookie = cookie;
    seen.key.remote_port = seen.ask.tuple.remote_port;
    seen.key.protocol = seen.ask.tuple.protocol;
    // Where it is an answer, and the policy has changed since, the packet is judged by the direction of its flow.
    if flows::is_allowed(seen) || flows::is_answered(seen) {
        return Call::Allow;
    }
    let _ = find_peer(ctx, owner.netns, &mut seen.ask);
    let mut decision = Decision::default();
    policy::judge(&seen.ask, &mut decision);
    if passes(&decision) {
        return Call::Allow;
    }
    // One that passes is recorded by its packet, with its real addresses.
    flows::judged(seen, owner, &mut decision, Hook::Sendmsg);
    Call::Refuse
}
