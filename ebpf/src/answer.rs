//! What who is refused hears: an error number of `connect` on this host, and for what comes from elsewhere
//! an answer that the agent sends. These programs only tell it what came, and no more often than may be
//! answered; nothing that is decided depends on it.
//!
//! Only the first packet of somebody who can be answered: a SYN or a datagram, whole, without options, for
//! this host alone. So nothing is ever sent in answer to a reset, an ICMP message or a packet for many.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_set_retval,
};
use core::ptr::read_volatile;
use ringfence_common::{
    abi::{
        Answering, Count, Refuser,
        answer::HEAD_BYTES,
        identity,
        tuple::{TCP, UDP},
    },
    logic::{
        address::is_mapped,
        bucket,
        packet::{ACK, Bytes, FIN, Packet, RST, SYN, parse_into},
    },
};

use crate::{
    maps::{ANSWERED, SOCKETS, SOURCES, UNANSWERED, count, is_armed},
    peer,
    sock::{self, LOOPBACK, Skb, words},
};

/// `PACKET_HOST` (`include/uapi/linux/if_packet.h`).
const TO_US: u32 = 0;
/// Bytes that an answer to IPv4 needs: a header and 8 bytes behind it.
const HEAD_V4: usize = 28;

/// Set by the loader from the configuration.
#[unsafe(no_mangle)]
static ANSWERING: Answering = Answering {
    local_errno: 0,
    remote: 0,
    burst: 0,
    source_burst: 0,
    interval_ns: 0,
    source_interval_ns: 0,
};

#[inline(always)]
fn configured() -> Answering {
    // SAFETY: the loader writes the constant before the program is loaded; the verifier knows its value, so
    // that what is off is dead code, also a helper that the kernel does not have.
    unsafe { read_volatile(&raw const ANSWERING) }
}

/// Makes `connect` end with the error number that is configured, instead of `EPERM`, when the program
/// refuses (`bpf_set_retval`, for these programs since Linux 6.1).
#[inline(always)]
pub fn as_configured() {
    let errno = configured().local_errno;
    if errno != 0 && is_armed() {
        // SAFETY: the helper takes a number. It fails for what is no error number: `EPERM` stays.
        let _ = unsafe { bpf_set_retval(errno.cast_signed().wrapping_neg()) };
    }
}

/// Whether a raw socket is one that the agent sends answers by: they are no flows.
#[inline(always)]
pub fn is_one(sk: *mut bpf_sock) -> bool {
    configured().remote != 0
        && SOCKETS
            .get(sk.cast())
            .is_some_and(|state| state.owner.identity == identity::AGENT)
}

/// [`offer`] for a datagram of this socket.
#[inline(always)]
pub fn offer_to(skb: *mut __sk_buff, sk: *mut bpf_sock) {
    if configured().remote == 0 {
        return;
    }
    if let Some(state) = SOCKETS.get(sk.cast()) {
        tell(skb, state.owner.netns);
    }
}

/// Tells the agent of a packet that was refused on its way in to a socket of this network namespace.
#[inline(always)]
pub fn offer(skb: *mut __sk_buff, netns: u64) {
    if configured().remote != 0 {
        tell(skb, netns);
    }
}

#[inline(never)]
fn tell(skb: *mut __sk_buff, netns: u64) {
    // SAFETY: the context is the hook's own.
    let kind = unsafe { read_volatile(&raw const (*skb).pkt_type) };
    if sock::device(skb) == LOOPBACK || kind != TO_US || netns == 0 || !is_armed() {
        return;
    }
    let mut packet = Packet::default();
    if parse_into(&Skb(skb), &mut packet).is_err() || !is_answered(&packet) {
        return;
    }
    if peer::is_group(netns, &packet.destination) || peer::is_local(netns, &packet.source) {
        return;
    }
    if may_answer(&packet.source) {
        send(skb, netns, &packet);
    } else {
        count(Count::AnswerSuppressed);
    }
}

/// Whether the packet opens a connection or is a datagram, and is the whole of it.
#[inline(always)]
fn is_answered(packet: &Packet) -> bool {
    if packet.fragment != 0 || packet.detour != 0 {
        return false;
    }
    match packet.protocol {
        TCP => packet.tcp_flags & (SYN | ACK | RST | FIN) == SYN,
        UDP => true,
        _ => false,
    }
}

/// Whether there may be one more answer, to this source and at all. CPUs that ask at once are told yes a
/// time too often; the agent counts exactly.
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, of which there are 512 bytes"
)]
fn may_answer(source: &[u8; 16]) -> bool {
    let now = sock::now();
    let at = configured();
    let [high, low, _, last] = words(source);
    // An IPv4 address, or the 64 bits of an IPv6 one that name a network: a host has the others to itself.
    let key = if is_mapped(words(source)) {
        u64::from(last) << 32
    } else {
        u64::from(low) << 32 | u64::from(high)
    };
    if let Some(source) = SOURCES.get_ptr_mut(&key) {
        // SAFETY: a map value of plain integers.
        let source = unsafe { &mut *source };
        if !bucket::take(source, now, at.source_burst, at.source_interval_ns) {
            return false;
        }
    } else {
        let first = Refuser {
            at_ns: now,
            left: at.source_burst.saturating_sub(1),
        };
        // The map evicts instead of being full; should it fail, the source is not bounded apart from the others.
        let _ = SOURCES.insert(&key, &first, 0);
    }
    let Some(all) = ANSWERED.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: as above.
    let all = unsafe { &mut *all };
    bucket::take(all, now, at.burst, at.interval_ns)
}

#[inline(always)]
fn send(skb: *mut __sk_buff, netns: u64, packet: &Packet) {
    let Some(mut entry) = UNANSWERED.reserve(0) else {
        count(Count::AnswerSuppressed);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation holds one `Unanswered`; every field is written before it is submitted.
    let complete = unsafe {
        (*record).time_ns = sock::now();
        (*record).netns = netns;
        (*record).device = sock::device(skb);
        (*record).acknowledge = packet.sequence.wrapping_add(packet.payload).wrapping_add(1);
        (*record).head = [0; HEAD_BYTES];
        let head = &mut (*record).head;
        if is_mapped(words(&packet.source)) {
            let (v4, _) = head.split_at_mut_unchecked(HEAD_V4);
            Skb(skb).load::<HEAD_V4>(0, &mut *v4.as_mut_ptr().cast())
        } else {
            Skb(skb).load::<HEAD_BYTES>(0, head)
        }
    };
    if complete {
        entry.submit(0);
    } else {
        entry.discard(0);
    }
}
