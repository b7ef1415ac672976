//! `cgroup/sock_create`: gives the socket its first owner, and refuses the kinds of sockets that the
//! other hooks can't judge flow by flow.

use aya_ebpf::{
    helpers::generated::bpf_get_netns_cookie, macros::cgroup_sock, programs::SockContext,
};
use aya_log_ebpf::debug;
use core::ptr::read_volatile;
use ringfence_common::abi::{Decision, Reason, Tuple, event::Hook, identity};

use super::Call;
use crate::{
    emit, identity as who,
    maps::{SOCKETS, generation},
    policy::{self, passes},
    refusal,
    sock::{self, AF_INET, AF_INET6, SOCK_RAW},
};

/// IANA numbers, and Linux's own for MPTCP (`include/uapi/linux/in.h`).
const DCCP: u32 = 33;
const SCTP: u32 = 132;
const UDPLITE: u32 = 136;
const MPTCP: u32 = 262;
const SMC: u32 = 256;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    decide(&ctx).code()
}

#[inline(always)]
fn decide(ctx: &SockContext) -> Call {
    // SAFETY: the context is the hook's own; each read has the field's width.
    let (family, kind, protocol) = unsafe {
        (
            read_volatile(&raw const (*ctx.sock).family),
            read_volatile(&raw const (*ctx.sock).type_),
            read_volatile(&raw const (*ctx.sock).protocol),
        )
    };
    if family != AF_INET && family != AF_INET6 {
        return Call::Allow;
    }
    let Some(state) = SOCKETS.get_or_create(ctx.sock.cast()) else {
        return Call::Refuse;
    };
    who::current(&mut state.owner);
    // SAFETY: the context is the hook's own.
    state.owner.netns = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
    let reason = match (kind, protocol) {
        (SOCK_RAW, _) => Reason::DeniedRawSocket,
        (_, DCCP | SCTP | UDPLITE | MPTCP | SMC) => Reason::DeniedProtocol,
        _ => return Call::Allow,
    };
    if state.owner.identity == identity::PENDING {
        emit::ask_about(
            &state.owner,
            Hook::SockCreate,
            sock::cookie(ctx.sock.cast()),
        );
    }
    let mut decision = Decision::default();
    policy::judge_socket(state.owner.identity, generation(), reason, &mut decision);
    if passes(&decision) {
        return Call::Allow;
    }
    debug!(
        ctx,
        "sock_create refused: identity {} type {} protocol {}",
        state.owner.identity,
        kind,
        protocol
    );
    // The record's protocol field holds what fits; MPTCP (262) shows as 6, the protocol on the wire.
    let protocol = if protocol == MPTCP { 6 } else { protocol as u8 };
    let tuple = Tuple {
        protocol,
        ..Tuple::default()
    };
    decision.peer = identity::UNKNOWN;
    let cookie = sock::cookie(ctx.sock.cast());
    refusal::of_call(Hook::SockCreate, cookie, &tuple, &state.owner, &decision);
    Call::Refuse
}
