//! tc egress of a device: frames of `AF_PACKET` sockets, which no cgroup hook sees. They pass no rule, so
//! that who may not have raw sockets may not send them. Every other packet goes on. A frame that this host passes
//! on is judged again by each device that it leaves by, as whom it was sent by.

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use core::ptr::read_volatile;
use ringfence_common::abi::{Owner, Reason, event::Hook};

use super::{Call, judge_unseen};
use crate::{acting, sock};

/// `AF_PACKET`.
const AF_PACKET: u32 = 17;
/// What comes after this program decides (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`: the sender gets ENOBUFS.
const DROP: i32 = 2;

#[classifier]
pub fn ringfence_frame(ctx: TcContext) -> i32 {
    match decide(ctx.skb.skb) {
        Call::Allow => NEXT,
        Call::Refuse => DROP,
    }
}

#[inline(always)]
fn decide(skb: *mut __sk_buff) -> Call {
    // SAFETY: the context is the hook's own; the field is null where the packet has no socket.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    // SAFETY: the socket is not null; of any kind the family can be read.
    if sk.is_null() || unsafe { read_volatile(&raw const (*sk).family) } != AF_PACKET {
        return Call::Allow;
    }
    let mut owner = Owner::default();
    if !acting::sending(skb, &mut owner) {
        return Call::Allow;
    }
    let cookie = sock::cookie(skb.cast());
    judge_unseen(Hook::Frame, Reason::DeniedFrame, cookie, &owner)
}
