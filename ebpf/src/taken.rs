//! Ports that somebody else has. The kernel lets sockets of one user share a TCP port (`SO_REUSEPORT`), and hands
//! connections that wait at a listener that closes to another one of them, with the owner that they had
//! (`net.ipv4.tcp_migrate_req`).
//!
//! Who is found is who listens: a port that is bound only is nobody's yet, and a listener that is bound to a
//! device is not looked for. A process that is not judged yet may be of the workload that listens in its own cgroup:
//! it may share that port, and who it is decides about each call. Until it is known nobody else may, but for who may
//! listen there by a rule. UDP is left out: receivers of a multicast share
//! their port, and each datagram is judged for who gets it.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release},
};
use core::{mem::zeroed, ptr::read_volatile};
use ringfence_common::abi::{
    Decision, Direction, Identity, Owner, Reason, Tuple, identity, socket::BOUND_UNJUDGED,
    tuple::TCP,
};

use crate::{
    identity as who,
    maps::{SOCKETS, generation},
    peer,
    policy::{self, passes},
    sock::{self, words},
    task,
};

/// Who listens on a port.
#[derive(Default)]
struct Listener {
    cgroup: u64,
    identity: Identity,
    /// 1 = its socket shares the port with others.
    shares: u16,
    /// 1 = it was not judged when it asked for the port.
    unjudged: u16,
}

/// Whether another workload, which a policy selects, listens on the port that is asked for: `local` of the
/// tuple. The decision says so then.
#[inline(never)]
pub fn by_another(
    ctx: *mut bpf_sock_addr,
    wanted: &Tuple,
    owner: &Owner,
    decision: &mut Decision,
) -> bool {
    if wanted.protocol != TCP || wanted.local_port == 0 || owner.identity == identity::AGENT {
        return false;
    }
    let mut there = Listener::default();
    find(ctx, wanted, &mut there);
    let undecided = there.identity == identity::PENDING;
    let same = if undecided || owner.identity == identity::PENDING {
        there.cgroup == owner.cgroup
    } else {
        there.identity == owner.identity
    };
    if same || !(undecided || identity::is_workload(there.identity)) {
        return false;
    }
    // Whoever was not judged when he took it keeps a port from nobody who has a right to it by a rule. If he has one, too,
    // they may share it.
    if there.unjudged != 0
        && owner.identity != identity::PENDING
        && policy::restricts_listen(owner.identity, generation())
    {
        return false;
    }
    // The device may be, or be in, a routing domain of its own (VRF), where the port is free. If it is not, the
    // kernel refuses by itself what is not shared.
    if there.shares == 0 && is_bound_to_device(ctx) {
        return false;
    }
    if undecided {
        policy::judge_socket(
            there.identity,
            generation(),
            Reason::DeniedPending,
            decision,
        );
    } else {
        policy::judge_port(there.identity, generation(), decision);
    }
    decision.direction = Direction::Listen as u8;
    !passes(decision)
}

/// Fills in who listens where the call asks for a port: the host, where nothing is known of the socket.
#[inline(never)]
fn find(ctx: *mut bpf_sock_addr, wanted: &Tuple, there: &mut Listener) {
    let mut call = Tuple {
        local_port: wanted.local_port,
        remote_port: wanted.local_port,
        protocol: TCP,
        ..Tuple::default()
    };
    sock::set(&mut call.remote, words(&wanted.local));
    // SAFETY: all bit patterns are valid; the helper checks context and length, and a socket that was found is
    // released on the only path.
    unsafe {
        let mut key = zeroed::<bpf_sock_tuple>();
        let length = peer::fill(&mut key, &call);
        let sk = bpf_sk_lookup_tcp(ctx.cast(), &raw mut key, length, u64::MAX, 0);
        if sk.is_null() {
            return;
        }
        if let Some(state) = SOCKETS.get(sk.cast()) {
            who::settle(&mut state.owner);
            there.identity = state.owner.identity;
            there.cgroup = state.owner.cgroup;
            there.unjudged = u16::from(state.marks & BOUND_UNJUDGED != 0);
            there.shares = u16::from(task::shares_port(sk));
        }
        let _ = bpf_sk_release(sk.cast());
    }
}

#[inline(always)]
fn is_bound_to_device(ctx: *mut bpf_sock_addr) -> bool {
    // SAFETY: the context is the hook's own, and its socket never null.
    unsafe {
        let sk: *mut bpf_sock = (*ctx).__bindgen_anon_1.sk;
        read_volatile(&raw const (*sk).bound_dev_if) != 0
    }
}
