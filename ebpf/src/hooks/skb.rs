//! `cgroup_skb/ingress` and `egress`: every packet of every socket in the guarded tree.

use aya_ebpf::{bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};
use core::ptr::read_volatile;
use ringfence_common::abi::{event::Hook, tuple::TCP};

use crate::{
    answer,
    datagram::{self, Fate},
    maps::is_armed,
    sock::{self, SOCK_RAW, SOCK_STREAM},
    tcp,
};

#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    match decide(ctx.skb.skb, Hook::Ingress) {
        Fate::Refuse | Fate::Hold if is_armed() => 0,
        Fate::Pass | Fate::Refuse | Fate::Hold => 1,
    }
}

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    match decide(ctx.skb.skb, Hook::Egress) {
        // EPERM in the sender.
        Fate::Refuse if is_armed() => 0,
        // Dropped with "congestion notification": the sender sees no error (`include/linux/bpf-cgroup.h`).
        Fate::Hold if is_armed() => 2,
        Fate::Pass | Fate::Refuse | Fate::Hold => 1,
    }
}

#[inline(always)]
fn decide(skb: *mut __sk_buff, hook: Hook) -> Fate {
    // The kernel runs these programs for full sockets only (`__cgroup_bpf_run_filter_skb`); a packet
    // of TIME_WAIT carries a kernel socket, which is outside every guarded cgroup but the root.
    let Some(sk) = sock::full_socket(skb) else {
        return Fate::Pass;
    };
    // SAFETY: `sk` is a full socket.
    let (kind, protocol) = unsafe {
        (
            read_volatile(&raw const (*sk).type_),
            read_volatile(&raw const (*sk).protocol),
        )
    };
    if kind == SOCK_RAW && hook as u8 == Hook::Egress as u8 && answer::is_one(sk) {
        return Fate::Pass;
    }
    if kind != SOCK_STREAM || protocol != u32::from(TCP) {
        let fate = datagram::packet(skb, sk, hook);
        if hook as u8 == Hook::Ingress as u8 && matches!(fate, Fate::Refuse) {
            answer::offer_to(skb, sk);
        }
        return fate;
    }
    if tcp::packet(skb, sk, hook) {
        Fate::Pass
    } else {
        Fate::Refuse
    }
}
