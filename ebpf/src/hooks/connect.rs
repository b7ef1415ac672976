//! cgroup/connect4 and connect6: egress of TCP and of connected datagram sockets. Where the listener
//! is on this host its ingress rules are judged here too, so that a refusal is immediate; the configuration
//! says with which error.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use ringfence_common::{
    abi::{
        Decision, Direction,
        event::Hook,
        identity,
        socket::{DECIDED_BY_PEER, PHASE_NEW, PHASE_OPENING},
        tuple::{ICMP, ICMPV6, TCP},
    },
    logic::address::destination_words,
};

use super::{Call, Caller, caller};
use crate::{
    answer, emit,
    maps::generation,
    peer::{self, Peer},
    policy::{self, Ask, passes},
    refusal, sides,
    sock::{self, words},
};

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    decide(ctx.sock_addr, false).code()
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    decide(ctx.sock_addr, true).code()
}

#[inline(always)]
fn decide(ctx: *mut bpf_sock_addr, is_v6: bool) -> Call {
    let Some(Caller {
        sk,
        state,
        protocol,
        unknown,
    }) = caller(ctx)
    else {
        return Call::Refuse;
    };
    state.phase = PHASE_NEW;
    state.marks = 0;
    state.held = 0;
    if protocol == ICMP || protocol == ICMPV6 {
        // The type is not known yet: the packets are judged.
        return Call::Allow;
    }
    if unknown || state.owner.identity == identity::PENDING {
        // The handshake is held at egress until the agent has judged the executable.
        if !unknown {
            emit::ask_about(&state.owner, Hook::Connect, sock::cookie(ctx.cast()));
        }
        state.decision = Decision {
            direction: Direction::Egress as u8,
            ..Decision::default()
        };
        return Call::Allow;
    }
    let mut ask = Ask {
        identity: state.owner.identity,
        direction: Direction::Egress as u8,
        generation: generation(),
        now: sock::now(),
        ..Ask::default()
    };
    sock::set(
        &mut ask.tuple.remote,
        destination_words(sock::user_address(ctx, is_v6)),
    );
    ask.tuple.remote_port = sock::user_port(ctx);
    ask.tuple.protocol = protocol;
    sock::bound(sk, &mut ask.tuple);
    let local = find_peer(ctx, state.owner.netns, &mut ask);
    if ask.peer == identity::PENDING {
        // The listener's executable is not judged yet: the handshake is held.
        state.decision = Decision {
            direction: Direction::Egress as u8,
            ..Decision::default()
        };
        return Call::Allow;
    }
    policy::judge(&ask, &mut state.decision);
    if local && passes(&state.decision) {
        sides::add_peer(&mut ask, &mut state.decision);
    }
    if passes(&state.decision) {
        state.called = sock::digest(words(&ask.tuple.remote), ask.tuple.remote_port);
        if protocol == TCP {
            state.opened_ns = ask.now;
            state.phase = PHASE_OPENING;
        }
        return Call::Allow;
    }
    if state.decision.flags & DECIDED_BY_PEER != 0 {
        answer::as_configured();
    }
    let cookie = sock::cookie(ctx.cast());
    refusal::of_call(
        Hook::Connect,
        cookie,
        &ask.tuple,
        &state.owner,
        &state.decision,
    );
    Call::Refuse
}

/// Fills in the other end; answers whether it is on this host.
#[inline(never)]
pub(super) fn find_peer(ctx: *mut bpf_sock_addr, netns: u64, ask: &mut Ask) -> bool {
    let local = peer::is_local(netns, &ask.tuple.remote);
    let peer = if local {
        peer::on_this_host(ctx.cast(), &ask.tuple)
    } else {
        Peer::WORLD
    };
    ask.set_peer(peer);
    local
}
