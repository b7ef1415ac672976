//! One file per hook; each maps its verdict to the kernel's return code in one `match`.

mod bind;
mod connect;
mod exec;
mod frame;
mod post_bind;
mod sendmsg;
mod setsockopt;
mod skb;
mod sock_create;
mod sock_ops;
mod sock_release;
mod socket;

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_netns_cookie,
};
use ringfence_common::abi::{
    Decision, Owner, Reason, SocketState, Tuple,
    event::Hook,
    identity::{PENDING, UNKNOWN},
};

use crate::{
    emit, identity,
    maps::{SOCKETS, generation, is_armed},
    policy::{self, passes},
    refusal, task,
};

/// The socket of a bind, connect or sendmsg call.
struct Caller<'a> {
    /// The socket.
    sk: *mut bpf_sock,
    /// Its storage, with the current process as its owner.
    state: &'a mut SocketState,
    /// IANA protocol number.
    protocol: u8,
    /// A kernel thread calls for an owner whom only the packets will tell, by the cgroup of the socket.
    unknown: bool,
}

/// Makes the current process the owner of the call's socket; nothing when it can't have storage.
#[inline(always)]
fn caller<'a>(ctx: *mut bpf_sock_addr) -> Option<Caller<'a>> {
    // SAFETY: the context is the hook's own.
    let (sk, protocol) = unsafe {
        (
            (*ctx).__bindgen_anon_1.sk,
            read_volatile(&raw const (*ctx).protocol) as u8,
        )
    };
    let state = SOCKETS.get_or_create(sk.cast())?;
    // A thread of the kernel that works for a socket (an MPTCP subflow, a reconnecting file system) is not
    // its owner.
    let by_kernel = task::is_kernel_thread();
    if !by_kernel {
        identity::current(&mut state.owner);
    }
    // SAFETY: the context is the hook's own.
    state.owner.netns = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let unknown = by_kernel && state.owner.identity == UNKNOWN;
    Some(Caller {
        sk,
        state,
        protocol,
        unknown,
    })
}

/// A socket call is refused with EPERM or goes on.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Allow,
    Refuse,
}

impl Call {
    /// Return code of `cgroup/sock_create`, bind, connect, sendmsg, setsockopt and `lsm_cgroup` programs.
    #[inline(always)]
    fn code(self) -> i32 {
        match self {
            Self::Refuse if is_armed() => 0,
            Self::Allow | Self::Refuse => 1,
        }
    }
}

/// Whether the owner may use what the other hooks don't see; a refusal is recorded.
#[inline(always)]
fn judge_unseen(hook: Hook, reason: Reason, cookie: u64, owner: &Owner) -> Call {
    if owner.identity == PENDING {
        emit::ask_about(owner, hook, cookie);
    }
    let mut decision = Decision::default();
    policy::judge_socket(owner.identity, generation(), reason, &mut decision);
    if passes(&decision) {
        return Call::Allow;
    }
    refusal::of_call(hook, cookie, &Tuple::default(), owner, &decision);
    Call::Refuse
}
