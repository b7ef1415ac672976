//! cgroup/connect4 and connect6: egress of TCP and of connected datagram sockets. Where the listener
//! is on this host its ingress rules are judged here too, so that a refusal is immediate.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use ringfence_common::{
    abi::{
        Decision, Direction, SocketState, Verdict, event,
        event::Hook,
        identity,
        socket::{DECIDED_BY_PEER, PHASE_NEW, PHASE_OPENING},
        tuple::{ICMP, ICMPV6, TCP},
    },
    logic::address::{Words, destination_words, is_unspecified_words},
};

use super::{Call, Caller, caller};
use crate::{
    emit::{self, What},
    maps::generation,
    peer::{self, Peer},
    policy::{self, Ask, passes},
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
    }) = caller(ctx)
    else {
        return Call::Refuse;
    };
    state.phase = PHASE_NEW;
    state.marks = 0;
    if protocol == ICMP || protocol == ICMPV6 {
        // The type is not known yet: the packets are judged.
        return Call::Allow;
    }
    if state.owner.identity == identity::PENDING {
        // The handshake is held at egress until the agent has judged the executable.
        emit::ask_about(&state.owner, Hook::Connect, sock::cookie(ctx.cast()));
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
        judge_listener(state, &mut ask);
    }
    if passes(&state.decision) {
        if protocol == TCP {
            state.opened_ns = ask.now;
            state.phase = PHASE_OPENING;
        }
        return Call::Allow;
    }
    let cookie = sock::cookie(ctx.cast());
    let what = What::new(event::DENY, Hook::Connect);
    emit::send(what, cookie, &ask.tuple, &state.owner, &state.decision);
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

/// Asks the listener's policy about the same connection, seen from its side; `ask` is turned round
/// and back again.
#[inline(never)]
fn judge_listener(state: &mut SocketState, ask: &mut Ask) {
    let (local, remote) = (words(&ask.tuple.local), words(&ask.tuple.remote));
    let unbound = is_unspecified_words(local);
    // An unbound socket that calls an address of its own host is given that same address.
    let caller = if unbound { remote } else { local };
    turn(ask, remote, caller, Direction::Ingress);
    let mut decision = Decision::default();
    policy::judge(ask, &mut decision);
    join(&mut state.decision, &decision);
    turn(
        ask,
        words(&ask.tuple.remote),
        words(&ask.tuple.local),
        Direction::Egress,
    );
}

#[inline(always)]
fn turn(ask: &mut Ask, local: Words, remote: Words, direction: Direction) {
    (ask.identity, ask.peer) = (ask.peer, ask.identity);
    let tuple = &mut ask.tuple;
    (tuple.local_port, tuple.remote_port) = (tuple.remote_port, tuple.local_port);
    sock::set(&mut tuple.local, local);
    sock::set(&mut tuple.remote, remote);
    ask.direction = direction as u8;
    ask.verified = 1;
}

/// Adds the listener's verdict: what either side refuses is refused.
#[inline(always)]
fn join(ours: &mut Decision, theirs: &Decision) {
    if theirs.verdict != Verdict::Allow as u8 && ours.verdict == Verdict::Allow as u8 {
        ours.verdict = theirs.verdict;
        ours.reason = theirs.reason;
        ours.rule = theirs.rule;
        ours.until = theirs.until;
        ours.flags |= DECIDED_BY_PEER;
    }
    if theirs.draft_verdict != Verdict::Allow as u8 && ours.draft_verdict == Verdict::Allow as u8 {
        ours.draft_verdict = theirs.draft_verdict;
        ours.draft_reason = theirs.draft_reason;
        ours.draft_rule = theirs.draft_rule;
    }
}
