//! Ports that somebody else has. The kernel lets sockets of one user share a TCP port (`SO_REUSEPORT`), and hands
//! connections that wait at a listener that closes to another one of them, with the owner that they had
//! (`net.ipv4.tcp_migrate_req`).
//!
//! Who is found is who listens: a port that is bound only is nobody's yet, and a listener that is bound to a
//! device is not looked for. UDP is left out: receivers of a multicast share their port, and each datagram is
//! judged for who gets it.

use core::ffi::c_void;
use ringfence_common::abi::{Decision, Direction, Identity, Tuple, identity, tuple::TCP};

use crate::{
    maps::generation,
    peer,
    policy::{self, passes},
    sock::{self, words},
};

/// Whether another workload, which a policy selects, listens on the port that is asked for: `local` of the
/// tuple. The decision says so then.
#[inline(never)]
pub fn by_another(
    ctx: *mut c_void,
    wanted: &Tuple,
    who: Identity,
    decision: &mut Decision,
) -> bool {
    if wanted.protocol != TCP || wanted.local_port == 0 || who == identity::AGENT {
        return false;
    }
    let mut call = Tuple {
        local_port: wanted.local_port,
        remote_port: wanted.local_port,
        protocol: TCP,
        ..Tuple::default()
    };
    sock::set(&mut call.remote, words(&wanted.local));
    let there = peer::on_this_host(ctx, &call);
    if there.identity == who || !identity::is_workload(there.identity) {
        return false;
    }
    policy::judge_port(there.identity, generation(), decision);
    decision.direction = Direction::Listen as u8;
    !passes(decision)
}
