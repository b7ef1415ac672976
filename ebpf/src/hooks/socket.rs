//! `lsm_cgroup/socket_create` (optional): sockets of families that no cgroup hook sees. Who may not have raw sockets may
//! not have them, so that nobody who is restricted reads the packets of others.

use aya_ebpf::{macros::lsm_cgroup, programs::LsmContext};
use ringfence_common::abi::{Owner, Reason, event::Hook};

use super::{Call, judge_unseen};
use crate::acting;

/// Address families (`include/linux/socket.h`): those that other hooks judge, and those that stay on this host.
const AF_UNIX: i32 = 1;
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const AF_KEY: i32 = 15;
const AF_NETLINK: i32 = 16;
const AF_ALG: i32 = 38;
/// Those that send and read frames.
const AF_PACKET: i32 = 17;
const AF_XDP: i32 = 44;

#[lsm_cgroup(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    decide(&ctx).code()
}

#[inline(always)]
fn decide(ctx: &LsmContext) -> Call {
    // Arguments of `security_socket_create`.
    let (family, by_kernel): (i32, i32) = (ctx.arg(0), ctx.arg(3));
    let reason = match family {
        AF_UNIX | AF_INET | AF_INET6 | AF_KEY | AF_NETLINK | AF_ALG => return Call::Allow,
        AF_PACKET | AF_XDP => Reason::DeniedFrame,
        // AF_VSOCK, AF_SMC, AF_TIPC, AF_BLUETOOTH, AF_CAN and whatever comes.
        _ => Reason::DeniedProtocol,
    };
    let mut owner = Owner::default();
    if by_kernel != 0 || !acting::current(&mut owner) {
        return Call::Allow;
    }
    judge_unseen(Hook::Socket, reason, 0, &owner)
}
