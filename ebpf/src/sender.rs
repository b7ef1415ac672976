//! Who really sent a datagram that stays on this host. A socket may name any local source address
//! (`IP_PKTINFO`), and it may be closed before its datagram arrives: neither makes it someone else.

use aya_ebpf::bindings::__sk_buff;
use ringfence_common::abi::{Identity, Owner, Sender, SenderKey, Tuple, identity};

use crate::{
    maps::SENDERS,
    peer,
    sock::{self, words},
};

/// A datagram on the loopback device arrives within this time of being sent.
const FLIGHT_NS: u64 = 1_000_000_000;
/// An address that changed hands is nobody's for this time.
const CONTESTED_NS: u64 = 10_000_000;

/// Notes at egress who sends.
#[inline(always)]
pub fn note(tuple: &Tuple, owner: &Owner) {
    let key = SenderKey {
        netns: owner.netns,
        tuple: *tuple,
    };
    put(&key, owner);
}

/// Notes who sends to a group: before there is a packet, because the copy of an IPv4 packet for this host
/// (`ip_mc_output`) meets no hook at egress. Its source address is not known yet, and a socket that is connected or
/// corked sends without a call that could note it: the note is believed of who has the socket.
#[inline(never)]
pub fn note_to_group(tuple: &Tuple, owner: &Owner) {
    let mut key = SenderKey {
        netns: owner.netns,
        tuple: *tuple,
    };
    sock::set(&mut key.tuple.local, [0; 4]);
    put(&key, owner);
}

#[inline(never)]
fn put(key: &SenderKey, owner: &Owner) {
    let mut sender = Sender {
        at_ns: sock::now(),
        identity: owner.identity,
        pad: 0,
    };
    if let Some(entry) = SENDERS.get_ptr_mut(key) {
        // SAFETY: a map value of plain integers.
        let entry = unsafe { &mut *entry };
        let just_now = sender.at_ns.wrapping_sub(entry.at_ns) < CONTESTED_NS;
        if just_now && entry.identity != owner.identity {
            if entry.identity == identity::UNKNOWN {
                return;
            }
            // Two send from one address at a time: whose datagram arrives first can't be told.
            sender.identity = identity::UNKNOWN;
        }
        *entry = sender;
    } else {
        // Without it a sender that closed is nobody, which no rule allows.
        let _ = SENDERS.insert(key, sender, 0);
    }
}

/// Who sent, as noted; `tuple` is the receiver's view.
#[inline(never)]
pub fn noted(tuple: &Tuple, netns: u64, to_group: bool) -> Option<Identity> {
    let mut key = SenderKey {
        netns,
        ..SenderKey::default()
    };
    turn(tuple, &mut key.tuple);
    if to_group {
        sock::set(&mut key.tuple.local, [0; 4]);
    }
    // SAFETY: the value is copied at once.
    let sender = unsafe { SENDERS.get(key).copied() }?;
    (sock::now().wrapping_sub(sender.at_ns) < FLIGHT_NS).then_some(sender.identity)
}

/// Whether the receiver will take the sender for who it is: the source address of the datagram leads
/// back to a socket of the same identity, or to none.
#[inline(never)]
pub fn is_itself(skb: *mut __sk_buff, tuple: &Tuple, identity: Identity) -> bool {
    let mut turned = Tuple::default();
    turn(tuple, &mut turned);
    let found = peer::on_this_host(skb.cast(), &turned);
    found.missing || found.identity == identity
}

#[inline(always)]
fn turn(tuple: &Tuple, turned: &mut Tuple) {
    sock::set(&mut turned.local, words(&tuple.remote));
    sock::set(&mut turned.remote, words(&tuple.local));
    turned.local_port = tuple.remote_port;
    turned.remote_port = tuple.local_port;
    turned.protocol = tuple.protocol;
}
