//! Who is asked: the owner of the other socket when it is on this host and in this network
//! namespace, else the world.

use aya_ebpf::{
    bindings::bpf_sock_tuple,
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};
use core::{ffi::c_void, mem::zeroed};
use ringfence_common::{
    abi::{
        Identity, LocalKey, Tuple, identity,
        settings::{BROADCAST, OWN_ADDRESS},
        tuple::TCP,
    },
    logic::address::{is_group_words, is_loopback_words, is_mapped},
};

use crate::{
    maps::{LOCAL_ADDRESSES, SOCKETS},
    sock::{self, words},
};

/// The other end of a flow.
#[derive(Clone, Copy)]
pub struct Peer {
    /// Its identity.
    pub identity: Identity,
    /// It is proved: its socket is on this host.
    pub verified: bool,
    /// It should be on this host, but has no socket (any more).
    pub missing: bool,
    /// [`sock::digest`] of whom its socket called, 0 = nobody.
    pub called: u32,
}

impl Peer {
    /// Someone at an address that is not this host's.
    pub const WORLD: Self = Self {
        identity: identity::WORLD,
        verified: false,
        missing: false,
        called: 0,
    };
    /// Someone on this host who can't be told: no rule names it.
    pub const UNKNOWN: Self = Self::proved(identity::UNKNOWN);
    /// The kernel, which answers where no socket does.
    pub const NOBODY: Self = Self {
        identity: identity::HOST,
        verified: true,
        missing: true,
        called: 0,
    };

    /// The same where somebody must be there.
    #[inline(always)]
    pub const fn or_unknown(self) -> Self {
        if self.missing { Self::UNKNOWN } else { self }
    }

    /// Someone whose socket was seen on this host.
    #[inline(always)]
    pub const fn proved(identity: Identity) -> Self {
        Self {
            identity,
            verified: true,
            missing: false,
            called: 0,
        }
    }
}

/// Whether an address belongs to the network namespace with this cookie.
#[inline(always)]
pub fn is_local(netns: u64, address: &[u8; 16]) -> bool {
    is_loopback_words(words(address)) || listed(netns, address) == OWN_ADDRESS
}

/// Whether what is sent to the address may have several receivers, on this host and beyond.
#[inline(never)]
pub fn is_group(netns: u64, address: &[u8; 16]) -> bool {
    is_group_words(words(address)) || listed(netns, address) == BROADCAST
}

/// What the address is in the network namespace with this cookie; 0 = somewhere else.
#[inline(always)]
fn listed(netns: u64, address: &[u8; 16]) -> u8 {
    let mut key = LocalKey {
        netns,
        address: [0; 16],
    };
    sock::set(&mut key.address, words(address));
    // SAFETY: the value is copied at once.
    unsafe { LOCAL_ADDRESSES.get(key).copied() }.unwrap_or(0)
}

/// The peer of `tuple`, whose address is local to the network namespace of `ctx`. A socket without
/// state is the host's: it was made outside the guarded tree, or by the kernel.
#[inline(never)]
pub fn on_this_host(ctx: *mut c_void, tuple: &Tuple) -> Peer {
    // SAFETY: all bit patterns are valid; the helpers check context and length, and every socket that
    // was found is released on the only path.
    unsafe {
        let mut key = zeroed::<bpf_sock_tuple>();
        let length = fill(&mut key, tuple);
        let sk = if tuple.protocol == TCP {
            bpf_sk_lookup_tcp(ctx, &raw mut key, length, u64::MAX, 0)
        } else {
            bpf_sk_lookup_udp(ctx, &raw mut key, length, u64::MAX, 0)
        };
        if sk.is_null() {
            return Peer::NOBODY;
        }
        let mut peer = Peer::proved(identity::HOST);
        if let Some(state) = SOCKETS.get(sk.cast()) {
            crate::identity::settle(&mut state.owner);
            peer.identity = state.owner.identity;
            peer.called = state.called;
        }
        let _ = bpf_sk_release(sk.cast());
        peer
    }
}

/// Writes the tuple as the peer's socket would receive it: from the local end to the remote one.
#[inline(always)]
pub fn fill(key: &mut bpf_sock_tuple, tuple: &Tuple) -> u32 {
    let sport = tuple.local_port.to_be();
    let dport = tuple.remote_port.to_be();
    let (local, remote) = (words(&tuple.local), words(&tuple.remote));
    if is_mapped(remote) {
        // SAFETY: the variant that is written is the one whose length is returned.
        let v4 = unsafe { &mut key.__bindgen_anon_1.ipv4 };
        [_, _, _, v4.saddr] = local;
        [_, _, _, v4.daddr] = remote;
        v4.sport = sport;
        v4.dport = dport;
        return 12;
    }
    // SAFETY: as above.
    let v6 = unsafe { &mut key.__bindgen_anon_1.ipv6 };
    v6.saddr = local;
    v6.daddr = remote;
    v6.sport = sport;
    v6.dport = dport;
    36
}

/// Whether some socket listens on the local end of `tuple`.
#[inline(never)]
pub fn has_listener(ctx: *mut c_void, tuple: &Tuple) -> bool {
    let mut from_anyone = Tuple {
        remote_port: tuple.local_port,
        protocol: TCP,
        ..Tuple::default()
    };
    sock::set(&mut from_anyone.local, words(&tuple.remote));
    sock::set(&mut from_anyone.remote, words(&tuple.local));
    // SAFETY: as in `on_this_host`.
    unsafe {
        let mut key = zeroed::<bpf_sock_tuple>();
        let length = fill(&mut key, &from_anyone);
        let sk = bpf_sk_lookup_tcp(ctx, &raw mut key, length, u64::MAX, 0);
        if sk.is_null() {
            return false;
        }
        let listening = core::ptr::read_volatile(&raw const (*sk).state) == sock::LISTEN;
        let _ = bpf_sk_release(sk.cast());
        listening
    }
}
