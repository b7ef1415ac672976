//! `cgroup/setsockopt`: the options by which frames would pass the devices' hook, see [`super::frame`].

use aya_ebpf::{bindings::bpf_sockopt, macros::cgroup_sockopt, programs::SockoptContext};
use core::ptr::{read_volatile, write_volatile};
use ringfence_common::abi::{Owner, Reason, event::Hook};

use super::{Call, judge_unseen};
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
    take_as_a_whole(ctx);
    // SAFETY: the context is the hook's own; each field is read with its width.
    let (level, name) = unsafe {
        (
            read_volatile(&raw const (*ctx).level),
            read_volatile(&raw const (*ctx).optname),
        )
    };
    match (level, name) {
        (SOL_PACKET, PACKET_QDISC_BYPASS) | (SOL_XDP, XDP_UMEM_REG) => {}
        _ => return Call::Allow,
    }
    let mut owner = Owner::default();
    if !acting::current(&mut owner) {
        return Call::Allow;
    }
    judge_unseen(Hook::Setsockopt, Reason::DeniedFrame, 0, &owner)
}

/// Makes the kernel take a value from the caller that is longer than what programs see of it (a page): before
/// Linux 6.4 it would refuse it. Any other is left as it is, with what programs of cgroups below made of it.
#[inline(always)]
fn take_as_a_whole(ctx: *mut bpf_sockopt) {
    // SAFETY: the context is the hook's own; each field is read and written with its width.
    unsafe {
        let from = read_volatile(&raw const (*ctx).__bindgen_anon_2.optval) as u64;
        let end = read_volatile(&raw const (*ctx).__bindgen_anon_3.optval_end) as u64;
        let length = i64::from(read_volatile(&raw const (*ctx).optlen));
        if length > end.wrapping_sub(from).cast_signed() {
            // "The original value" (`__cgroup_bpf_run_filter_setsockopt`).
            write_volatile(&raw mut (*ctx).optlen, 0);
        }
    }
}
