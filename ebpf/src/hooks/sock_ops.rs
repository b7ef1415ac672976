//! `sock_ops`: when TCP connections open and end, with their final byte counters, and when listeners end whose owners
//! were not judged when they asked for the port.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_SOCK_OPS_TIMEOUT_INIT, bpf_sock_ops,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use core::ptr::read_volatile;
use ringfence_common::abi::{
    Decision, Direction, SocketState, Tuple, event,
    event::Hook,
    identity,
    socket::{
        BOUND_UNJUDGED, FIN_RECEIVED, FIN_SENT, PASSIVE, PHASE_CLOSED, PHASE_DENIED, PHASE_NEW,
        PHASE_OPEN, PHASE_OPENING,
    },
};

use crate::{
    emit::{self, Totals, What},
    handoff, identity as who,
    maps::{SETTINGS, SOCKETS, generation},
    policy::{self, Ask, passes},
    refusal, sock,
};

/// TCP states (`include/net/tcp_states.h`).
const FIN_WAIT1: u32 = 4;
const CLOSE: u32 = 7;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

#[sock_ops]
pub fn ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => watch(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => active(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => passive(&ctx),
        BPF_SOCK_OPS_STATE_CB => changed(&ctx),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listens(&ctx),
        BPF_SOCK_OPS_TIMEOUT_INIT => first_timeout(&ctx),
        _ => {}
    }
    1
}

/// A SYN that will be held is sent again soon, not after a second: the agent's answer takes milliseconds.
/// (One that was let pass is of a socket whose handshake is under way.)
#[inline(always)]
fn first_timeout(ctx: &SockOpsContext) {
    let Some(state) = state_of(ctx, false) else {
        return;
    };
    if state.phase == PHASE_NEW
        && let Some(settings) = SETTINGS.get(0)
    {
        ctx.set_reply(settings.hold_ticks);
    }
}

/// Asks the kernel to call for each change of state.
#[inline(always)]
fn watch(ctx: &SockOpsContext) {
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    // It fails for a socket that is no longer full only.
    let _ = ctx.set_cb_flags(flags.cast_signed());
}

#[inline(always)]
fn state_of<'a>(ctx: &SockOpsContext, create: bool) -> Option<&'a mut SocketState> {
    // SAFETY: the context is the hook's own; the field is null when the socket is not a full one.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    if create {
        SOCKETS.get_or_create(sk.cast())
    } else {
        SOCKETS.get(sk.cast())
    }
}

#[inline(always)]
fn active(ctx: &SockOpsContext) {
    let Some(state) = state_of(ctx, false) else {
        return;
    };
    if state.phase != PHASE_OPENING {
        return;
    }
    state.phase = PHASE_OPEN;
    let mut tuple = Tuple::default();
    sock::of_ops(ctx.ops, &mut tuple);
    opened(ctx, &tuple, state);
}

#[inline(always)]
fn passive(ctx: &SockOpsContext) {
    watch(ctx);
    let Some(state) = state_of(ctx, true) else {
        return;
    };
    let mut tuple = Tuple::default();
    sock::of_ops(ctx.ops, &mut tuple);
    // What the listener's storage said about its own flow is not this socket's.
    state.phase = PHASE_NEW;
    state.marks = PASSIVE;
    state.fin_end = 0;
    state.opened_ns = sock::now();
    match handoff::take(&tuple, generation()) {
        Some(decision) if passes(&decision) => {
            state.decision = decision;
            state.phase = PHASE_OPEN;
            opened(ctx, &tuple, state);
        }
        // The next packet is judged and opens the flow.
        _ => {
            state.decision = Decision {
                direction: Direction::Ingress as u8,
                ..Decision::default()
            };
        }
    }
}

#[inline(always)]
fn opened(ctx: &SockOpsContext, tuple: &Tuple, state: &SocketState) {
    let what = What::new(event::OPEN, Hook::SockOps);
    emit::send(
        what,
        sock::cookie(ctx.ops.cast()),
        tuple,
        &state.owner,
        &state.decision,
    );
}

/// Of who was not judged when it asked for the port, the end is watched.
#[inline(always)]
fn listens(ctx: &SockOpsContext) {
    if state_of(ctx, false).is_some_and(|state| state.marks & BOUND_UNJUDGED != 0) {
        watch(ctx);
    }
}

/// A listener ended whose owner was not judged when it asked for the port: records the refusal that `bind` could not
/// record. (Mostly the agent ends it; it looks for such listeners.) In three frames, for which there is room.
#[inline(always)]
fn gone_deaf(ctx: *mut bpf_sock_ops, state: &mut SocketState) {
    if state.marks & BOUND_UNJUDGED != 0 && is_known(state) && !may_listen(ctx, state) {
        refused(ctx, state);
    }
}

#[inline(never)]
fn is_known(state: &mut SocketState) -> bool {
    who::settle(&mut state.owner);
    state.owner.identity != identity::PENDING
}

/// Judges into the storage: nothing else is decided about a listener.
#[inline(never)]
fn may_listen(ctx: *mut bpf_sock_ops, state: &mut SocketState) -> bool {
    let mut ask = Ask {
        identity: state.owner.identity,
        direction: Direction::Listen as u8,
        generation: generation(),
        now: sock::now(),
        ..Ask::default()
    };
    listening(ctx, &mut ask.tuple);
    policy::judge(&ask, &mut state.decision);
    passes(&state.decision)
}

#[inline(never)]
fn refused(ctx: *mut bpf_sock_ops, state: &SocketState) {
    let mut tuple = Tuple::default();
    listening(ctx, &mut tuple);
    let cookie = sock::cookie(ctx.cast());
    refusal::of_call(Hook::Bind, cookie, &tuple, &state.owner, &state.decision);
}

/// Writes where a listener is bound.
#[inline(always)]
fn listening(ctx: *mut bpf_sock_ops, tuple: &mut Tuple) {
    sock::of_ops(ctx, tuple);
    tuple.remote = [0; 16];
    tuple.remote_port = 0;
}

#[inline(always)]
fn changed(ctx: &SockOpsContext) {
    let to = ctx.arg(1);
    let mark = match to {
        FIN_WAIT1 => FIN_SENT,
        LAST_ACK => FIN_SENT | FIN_RECEIVED,
        CLOSE_WAIT | CLOSING => FIN_RECEIVED,
        CLOSE => 0,
        // The kernel calls for every state, and the others say nothing.
        _ => return,
    };
    let Some(state) = state_of(ctx, false) else {
        return;
    };
    if to == CLOSE && ctx.arg(0) == sock::LISTEN {
        gone_deaf(ctx.ops, state);
    } else if to == CLOSE {
        closed(ctx.ops, state);
    } else {
        state.marks |= mark;
    }
}

#[inline(always)]
fn closed(ctx: *mut bpf_sock_ops, state: &mut SocketState) {
    let phase = state.phase;
    state.phase = PHASE_CLOSED;
    if phase == PHASE_NEW || phase == PHASE_CLOSED || state.opened_ns == 0 {
        return;
    }
    if phase == PHASE_DENIED && state.decision.flags & ringfence_common::abi::socket::REVOKED == 0 {
        return;
    }
    // SAFETY: the context is the hook's own; each read has the field's width.
    let (acked, received, una, nxt, rcv_nxt, srtt) = unsafe {
        (
            read_volatile(&raw const (*ctx).bytes_acked),
            read_volatile(&raw const (*ctx).bytes_received),
            read_volatile(&raw const (*ctx).snd_una),
            read_volatile(&raw const (*ctx).snd_nxt),
            read_volatile(&raw const (*ctx).rcv_nxt),
            read_volatile(&raw const (*ctx).srtt_us),
        )
    };
    let mut what = What::new(event::CLOSE, Hook::SockOps);
    // `srtt_us` is stored times eight (`struct tcp_sock`).
    let mut totals = Totals {
        opened_ns: state.opened_ns,
        rtt_us: srtt >> 3,
        ..Totals::default()
    };
    if phase == PHASE_OPENING {
        what = what.flagged(event::NEVER_ESTABLISHED);
    } else {
        // The kernel counts the sequence numbers of SYN and FIN as bytes (`tcp_snd_una_update`,
        // `tcp_rcv_nxt_update`): the SYN of an active socket, either side's FIN once acknowledged.
        let syn = u64::from(state.marks & PASSIVE == 0);
        let our_fin = u64::from(state.marks & FIN_SENT != 0 && una == nxt);
        let seen = state.fin_end != 0 && state.fin_end == rcv_nxt;
        let their_fin = u64::from(state.marks & FIN_RECEIVED != 0 || seen);
        totals.tx_bytes = acked.saturating_sub(syn + our_fin);
        totals.rx_bytes = received.saturating_sub(their_fin);
    }
    let mut tuple = Tuple::default();
    sock::of_ops(ctx, &mut tuple);
    emit::close(what, sock::cookie(ctx.cast()), &tuple, state, &totals);
}
