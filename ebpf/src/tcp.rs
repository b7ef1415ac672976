//! TCP: the verdict stands in the socket's storage, and every packet checks that it is still good.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use core::ptr::{read_volatile, write_volatile};
use ringfence_common::{
    abi::{
        Count, Decision, Direction, FlowKey, Reason, SocketState, Tuple, event,
        event::Hook,
        identity,
        socket::{
            FIN_RECEIVED, FIN_SENT, PEER_VERIFIED, PHASE_CLOSED, PHASE_DENIED, PHASE_NEW,
            PHASE_OPEN, PHASE_OPENING, REVOKED,
        },
        tuple::TCP,
    },
    logic::packet::{FIN, Packet, RST, SYN, parse_into},
};

use crate::{
    cached,
    emit::{self, What},
    identity as who, listener,
    maps::{SOCKETS, count, generation},
    peer::{self, Peer},
    policy::{self, Ask, passes},
    refusal, sides,
    sock::{self, LISTEN, LOOPBACK, SYN_SENT, Skb, words},
};

/// Whether a packet of a TCP socket passes.
#[inline(always)]
pub fn packet(skb: *mut __sk_buff, sk: *mut bpf_sock, hook: Hook) -> bool {
    // SAFETY: `sk` is a full socket.
    let tcp_state = unsafe { read_volatile(&raw const (*sk).state) };
    if tcp_state == LISTEN {
        return listener::packet(skb, sk, hook);
    }
    let generation = generation();
    if hook as u8 == Hook::Egress as u8 && !sock::is_plain(skb) && is_detour(skb, sk, generation) {
        return false;
    }
    if let Some(state) = SOCKETS.get(sk.cast()) {
        let fresh = cached::allows(&state.decision, generation) && is_as_near(skb, state);
        if fresh && state.phase == PHASE_OPEN {
            // Where the peer closed first, its FIN is known already.
            let waits = state.marks & (FIN_SENT | FIN_RECEIVED) == FIN_SENT;
            if waits && hook as u8 == Hook::Ingress as u8 {
                watch_fin(skb, state);
            }
            return true;
        }
        if fresh && state.phase == PHASE_OPENING && is_as_called(skb, sk, state, hook) {
            return true;
        }
        if state.phase == PHASE_DENIED && state.decision.generation == generation {
            return is_farewell(skb, sk, hook);
        }
    }
    // Of a client that is gone before anybody was judged: who it was can't be told.
    let unjudged = SOCKETS
        .get(sk.cast())
        .is_none_or(|state| state.phase == PHASE_NEW);
    if unjudged && hook as u8 == Hook::Ingress as u8 && is_farewell(skb, sk, hook) {
        return true;
    }
    rejudge(skb, sk, hook, generation) || is_farewell(skb, sk, hook)
}

/// Whether the packet only ends a connection: a reset from the peer, who may be gone by now, or our own one
/// of a connection that was revoked, so that its other end on another host learns of it. (On this host that end
/// is judged itself.)
#[inline(never)]
fn is_farewell(skb: *mut __sk_buff, sk: *mut bpf_sock, hook: Hook) -> bool {
    if hook as u8 == Hook::Egress as u8 {
        let revoked = SOCKETS
            .get(sk.cast())
            .is_some_and(|state| state.decision.flags & REVOKED != 0);
        if !revoked || sock::device(skb) == LOOPBACK {
            return false;
        }
    }
    let mut packet = Packet::default();
    let parsed = parse_into(&Skb(skb), &mut packet).is_ok();
    parsed && packet.tcp_flags & RST != 0 && packet.payload == 0 && packet.detour == 0
}

/// Whether the packet stays on this host as its decision says: an address of this host may be reached
/// through a device all the same (another scope, `SO_BINDTODEVICE`), and then is somebody else's.
#[inline(always)]
fn is_as_near(skb: *mut __sk_buff, state: &SocketState) -> bool {
    (sock::device(skb) == LOOPBACK) == (state.decision.flags & PEER_VERIFIED != 0)
}

/// Whether the packet may go past its destination and its owner must not do that.
#[inline(never)]
fn is_detour(skb: *mut __sk_buff, sk: *mut bpf_sock, generation: u32) -> bool {
    let mut packet = Packet::default();
    let parsed = parse_into(&Skb(skb), &mut packet).is_ok();
    if parsed && packet.detour == 0 {
        return false;
    }
    let Some(state) = SOCKETS.get(sk.cast()) else {
        return true;
    };
    let mut decision = Decision::default();
    policy::judge_socket(
        state.owner.identity,
        generation,
        Reason::DeniedDetour,
        &mut decision,
    );
    if passes(&decision) {
        return false;
    }
    let mut ask = Ask {
        now: sock::now(),
        direction: Direction::Egress as u8,
        ..Ask::default()
    };
    sock::connected(sk, &mut ask.tuple);
    let flow = flow(skb, &ask.tuple);
    refusal::record(Hook::Egress, &flow, &ask, &state.owner, &decision);
    true
}

/// The key by which a refusal of the packet's socket and peer is remembered.
#[inline(always)]
pub fn flow(skb: *mut __sk_buff, tuple: &Tuple) -> FlowKey {
    let mut flow = FlowKey {
        cookie: sock::cookie(skb.cast()),
        remote_port: tuple.remote_port,
        protocol: TCP,
        ..FlowKey::default()
    };
    sock::set(&mut flow.remote, words(&tuple.remote));
    flow
}

/// Whether the handshake is with whom `connect` was judged by. Another program may have put a different
/// destination in its place, and on this host a port may have several listeners, of which the kernel
/// chooses when the SYN arrives.
#[inline(never)]
fn is_as_called(skb: *mut __sk_buff, sk: *mut bpf_sock, state: &SocketState, hook: Hook) -> bool {
    let mut tuple = Tuple::default();
    sock::connected(sk, &mut tuple);
    if hook as u8 == Hook::Egress as u8 {
        return sock::digest(words(&tuple.remote), tuple.remote_port) == state.called;
    }
    if sock::device(skb) != LOOPBACK {
        return true;
    }
    let peer = peer::on_this_host(skb.cast(), &tuple);
    if peer.missing {
        return !is_answer(skb);
    }
    peer.identity == state.decision.peer
}

/// Whether a packet for a calling socket is somebody's SYN-ACK, not the kernel's RST. Who answers but
/// can't be found (its socket is bound to a device) is nobody.
#[inline(never)]
fn is_answer(skb: *mut __sk_buff) -> bool {
    let mut packet = Packet::default();
    parse_into(&Skb(skb), &mut packet).is_err() || packet.tcp_flags & SYN != 0
}

/// Remembers where the peer's FIN ends, so that the final byte counter can leave it out.
#[inline(never)]
fn watch_fin(skb: *mut __sk_buff, state: &mut SocketState) {
    let mut packet = Packet::default();
    if parse_into(&Skb(skb), &mut packet).is_ok() && packet.tcp_flags & FIN != 0 {
        state.fin_end = packet.sequence.wrapping_add(packet.payload).wrapping_add(1);
    }
}

/// Judges a socket whose cached verdict is missing, outdated or expired.
#[inline(never)]
fn rejudge(skb: *mut __sk_buff, sk: *mut bpf_sock, hook: Hook, generation: u32) -> bool {
    let Some(state) = SOCKETS.get_or_create(sk.cast()) else {
        return false;
    };
    let mut ask = Ask {
        generation,
        ..Ask::default()
    };
    if !fill(skb, sk, hook, state, &mut ask) {
        return false;
    }
    let calling = is_calling(sk);
    let mut decision = Decision::default();
    policy::judge(&ask, &mut decision);
    if calling {
        state.called = sock::digest(words(&ask.tuple.remote), ask.tuple.remote_port);
        if passes(&decision) && sock::device(skb) == LOOPBACK {
            sides::add_peer(&mut ask, &mut decision);
        }
    }
    let pass = passes(&decision);
    let phase = state.phase;
    let was_live = phase == PHASE_OPEN || phase == PHASE_OPENING;
    if was_live {
        count(Count::Rejudged);
        if !pass {
            decision.flags |= REVOKED;
        }
    }
    // A handshake that was held is open when it has succeeded: sock_ops records that.
    let live = if calling { PHASE_OPENING } else { PHASE_OPEN };
    // Another CPU believes a fresh decision only in a live phase: a deny changes the phase first.
    // SAFETY: both are fields of the socket's storage.
    unsafe {
        if !pass && phase != PHASE_CLOSED {
            write_volatile(&raw mut state.phase, PHASE_DENIED);
        }
        cached::replace(&raw mut state.decision, &decision);
        if pass && phase != PHASE_CLOSED && phase != PHASE_OPENING {
            write_volatile(&raw mut state.phase, live);
        }
    }
    if pass && phase == PHASE_NEW {
        state.opened_ns = ask.now;
    }
    if pass && phase == PHASE_NEW && !calling {
        record(skb, event::OPEN, hook, &ask.tuple, state);
    } else if !pass && phase != PHASE_DENIED && phase != PHASE_CLOSED {
        record(skb, event::DENY, hook, &ask.tuple, state);
    }
    pass
}

/// Fills in the question but for the generation; false for a packet that is held.
#[inline(never)]
fn fill(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    hook: Hook,
    state: &mut SocketState,
    ask: &mut Ask,
) -> bool {
    let ready = who::ready(skb, &mut state.owner);
    ask.now = sock::now();
    ask.identity = state.owner.identity;
    sock::connected(sk, &mut ask.tuple);
    ask.direction = direction(skb, state, &ask.tuple) as u8;
    let peer = peer_of_packet(skb, &ask.tuple);
    if is_calling(sk) && hook as u8 == Hook::Ingress as u8 && is_answer(skb) {
        ask.set_peer(peer.or_unknown());
    } else {
        ask.set_known_peer(peer, &state.decision);
    }
    if ready && ask.peer != identity::PENDING {
        state.held = 0;
        return true;
    }
    if !policy::is_failsafe(ask) && who::may_wait(&mut state.held, ask.now) {
        return false;
    }
    // Whoever the other one is: refused as pending.
    ask.identity = identity::PENDING;
    true
}

/// Whether the socket waits for the answer to its SYN.
#[inline(always)]
fn is_calling(sk: *mut bpf_sock) -> bool {
    // SAFETY: `sk` is a full socket.
    unsafe { read_volatile(&raw const (*sk).state) == SYN_SENT }
}

#[inline(never)]
fn record(skb: *mut __sk_buff, kind: u8, hook: Hook, tuple: &Tuple, state: &SocketState) {
    // The agent resets what is revoked, and who waits for an answer to a SYN: that it must be told.
    let refused = kind == event::DENY && state.decision.flags & REVOKED == 0;
    let mut kind = kind;
    if refused && !refusal::may_record(&state.owner) {
        if hook as u8 != Hook::Egress as u8 {
            return;
        }
        kind = event::ABORT;
    }
    let cookie = sock::cookie(skb.cast());
    emit::send(
        What::new(kind, hook),
        cookie,
        tuple,
        &state.owner,
        &state.decision,
    );
}

/// Who opened the connection. A socket that was adopted without that knowledge is inbound when its
/// local port has a listener.
#[inline(always)]
fn direction(skb: *mut __sk_buff, state: &SocketState, tuple: &Tuple) -> Direction {
    if state.decision.direction == Direction::Egress as u8 {
        return Direction::Egress;
    }
    if state.decision.direction == Direction::Ingress as u8 {
        return Direction::Ingress;
    }
    if peer::has_listener(skb.cast(), tuple) {
        Direction::Ingress
    } else {
        Direction::Egress
    }
}

/// The peer of a packet: traffic between addresses of one network namespace always crosses its
/// loopback device, so the device tells whether the other socket is here.
#[inline(always)]
pub fn peer_of_packet(skb: *mut __sk_buff, tuple: &Tuple) -> Peer {
    if sock::device(skb) == LOOPBACK {
        peer::on_this_host(skb.cast(), tuple)
    } else {
        Peer::WORLD
    }
}
