//! `cgroup/sock_release`: nothing is decided here; it marks where the last descriptor of a socket
//! without connection goes, so that its flows can end at once instead of by time-out.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use core::ptr::read_volatile;
use ringfence_common::abi::{Decision, Tuple, event, event::Hook, tuple::TCP};

use crate::{
    emit::{self, What},
    maps::SOCKETS,
    sock::{self, SOCK_STREAM},
};

/// Kernel 5.9; the return code is not looked at.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the context is the hook's own; each read has the field's width.
    let (kind, protocol) = unsafe {
        (
            read_volatile(&raw const (*ctx.sock).type_),
            read_volatile(&raw const (*ctx.sock).protocol),
        )
    };
    if kind == SOCK_STREAM && protocol == u32::from(TCP) {
        return 1;
    }
    if let Some(state) = SOCKETS.get(ctx.sock.cast()) {
        let tuple = Tuple {
            protocol: protocol as u8,
            ..Tuple::default()
        };
        let what = What::new(event::RELEASE, Hook::SockRelease);
        let cookie = sock::cookie(ctx.sock.cast());
        emit::send(what, cookie, &tuple, &state.owner, &Decision::default());
    }
    1
}
