//! `cgroup/setsockopt`: the options by which frames would pass the devices' hook, see [`super::frame`].

use aya_ebpf::{bindings::bpf_sockopt, macros::cgroup_sockopt, programs::SockoptContext};
use core::ptr::{read_volatile, write_volatile};
use ringfence_common::abi::{Owner, event::Hook};

use super::{Call, frame};
use crate::acting;

/// `SOL_PACKET`, `PACKET_QDISC_BYPASS` (`include/uapi/linux/if_packet.h`).
const SOL_PACKET: i32 = 263;
const PACKET_QDISC_BYPASS: i32 = 20;
/// `SOL_XDP`, `XDP_UMEM_REG`: without it an XDP socket sends nothing (`include/uapi/linux/if_xdp.h`).
const SOL_XDP: i32 = 283;
const XDP_UMEM_REG: i32 = 4;

#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    decide(ctx.sockopt).code()
}

#[inline(always)]
fn decide(ctx: *mut bpf_sockopt) -> Call {
    // SAFETY: the context is the hook's own; each field is read with its width. A length of zero says that
    // the kernel shall take the value from the caller, whatever its size.
    let (level, name) = unsafe {
        let option = (
            read_volatile(&raw const (*ctx).level),
            read_volatile(&raw const (*ctx).optname),
        );
        write_volatile(&raw mut (*ctx).optlen, 0);
        option
    };
    match (level, name) {
        (SOL_PACKET, PACKET_QDISC_BYPASS) | (SOL_XDP, XDP_UMEM_REG) => {}
        _ => return Call::Allow,
    }
    let mut owner = Owner::default();
    if !acting::current(&mut owner) {
        return Call::Allow;
    }
    frame::judge(Hook::Setsockopt, 0, &owner)
}
