//! UDP, ICMP and everything else without a connection: a bounded flow map keyed by socket and peer,
//! so that replies, and only replies, pass.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use ringfence_common::{
    abi::{
        Count, Decision, Direction, FlowEntry, FlowKey, Owner, Reason, SocketState, event,
        event::Hook,
        identity,
        socket::REVOKED,
        tuple::{ICMP, ICMPV6},
    },
    logic::packet::{Packet, is_echo, is_echo_reply, parse_into},
};

use crate::{
    emit::{self, What},
    identity as who,
    maps::{FLOWS, SOCKETS, count, generation},
    policy::{self, Ask, is_fresh, passes},
    sock::{self, Skb, words},
    tcp::peer_of_packet,
};

/// What becomes of a datagram.
#[must_use]
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Fate {
    /// Passes.
    Pass,
    /// Refused: the sender gets EPERM.
    Refuse,
    /// Dropped silently, because its executable is not judged yet.
    Hold,
}

/// A datagram and what is asked about it.
#[derive(Default)]
pub struct Seen {
    /// The flow it belongs to.
    pub key: FlowKey,
    /// The question.
    pub ask: Ask,
    /// Payload bytes.
    pub payload: u32,
}

/// Judges a datagram of a full socket.
#[inline(never)]
pub fn packet(skb: *mut __sk_buff, sk: *mut bpf_sock, going_out: bool) -> Fate {
    let mut seen = Seen::default();
    let unreadable = look_at(skb, going_out, &mut seen);
    if unreadable != 0 {
        return unparsed(sk, unreadable);
    }
    seen.ask.generation = generation();
    if let Some(entry) = FLOWS.get_ptr_mut(seen.key) {
        // SAFETY: an entry is integers only; several CPUs may count at once and lose a packet.
        let entry = unsafe { &mut *entry };
        let owner = SOCKETS
            .get(sk.cast())
            .map_or(0, |state| state.owner.identity);
        let here = direction(going_out);
        // A refusal of the peer's call is not one of ours.
        let counts = passes(&entry.decision) || entry.decision.direction == here;
        if counts && entry.owner == owner && is_fresh(&entry.decision, seen.ask.generation) {
            account(entry, seen.payload, going_out);
            return fate(&entry.decision);
        }
    }
    let Some(state) = prepare(skb, sk, going_out, &mut seen) else {
        return Fate::Refuse;
    };
    if state.owner.identity == identity::PENDING || seen.ask.peer == identity::PENDING {
        return Fate::Hold;
    }
    let mut decision = Decision::default();
    policy::judge(&seen.ask, &mut decision);
    let hook = if going_out {
        Hook::Egress
    } else {
        Hook::Ingress
    };
    remember(&seen, &state.owner, &mut decision, hook);
    fate(&decision)
}

/// Fills in who asks and who is asked.
#[inline(never)]
fn prepare<'a>(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    going_out: bool,
    seen: &mut Seen,
) -> Option<&'a SocketState> {
    let state = SOCKETS.get_or_create(sk.cast())?;
    if !who::ready(skb, &mut state.owner) {
        return Some(state);
    }
    seen.ask.identity = state.owner.identity;
    seen.ask.now = sock::now();
    let peer = peer_of_packet(skb, &seen.ask.tuple);
    seen.ask.direction = direction(going_out);
    let Some(entry) = FLOWS.get_ptr_mut(seen.key) else {
        seen.ask.set_peer(peer);
        return Some(state);
    };
    // SAFETY: as above.
    let before = unsafe { &(*entry).decision };
    // A flow that passed keeps the direction of its first packet.
    if passes(before) {
        seen.ask.direction = before.direction;
    }
    seen.ask.set_known_peer(peer, before);
    Some(state)
}

/// Parses the packet; answers 0 or the number of the reason why it can't be judged.
#[inline(never)]
fn look_at(skb: *mut __sk_buff, going_out: bool, seen: &mut Seen) -> u8 {
    let mut packet = Packet::default();
    if parse_into(&Skb(skb), &mut packet).is_err() {
        count(Count::PacketMalformed);
        return Reason::DeniedMalformed as u8;
    }
    if packet.fragment != 0 {
        return Reason::DeniedFragment as u8;
    }
    seen.payload = packet.payload;
    let tuple = &mut seen.ask.tuple;
    tuple.protocol = packet.protocol;
    if going_out {
        sock::set(&mut tuple.local, words(&packet.source));
        sock::set(&mut tuple.remote, words(&packet.destination));
    } else {
        sock::set(&mut tuple.local, words(&packet.destination));
        sock::set(&mut tuple.remote, words(&packet.source));
    }
    // For ICMP the source port is the echo identifier and the destination port the type, both ways.
    if going_out || is_icmp(packet.protocol) {
        tuple.local_port = packet.source_port;
        tuple.remote_port = packet.destination_port;
    } else {
        tuple.local_port = packet.destination_port;
        tuple.remote_port = packet.source_port;
    }
    let key = &mut seen.key;
    key.cookie = sock::cookie(skb.cast());
    sock::set(&mut key.remote, words(&tuple.remote));
    key.remote_port = tuple.remote_port;
    key.protocol = tuple.protocol;
    if is_icmp(packet.protocol) && is_echo(packet.protocol, packet.destination_port as u8) {
        let reply = is_echo_reply(packet.protocol, packet.destination_port);
        key.remote_port = packet.source_port;
        // A reply belongs to the request that went the other way.
        key.echo = if going_out == reply {
            Direction::Ingress as u8
        } else {
            Direction::Egress as u8
        };
    }
    0
}

/// Remembers the decision and records it, unless the same was recorded for this flow before.
#[inline(never)]
fn remember(seen: &Seen, owner: &Owner, decision: &mut Decision, hook: Hook) {
    let pass = passes(decision);
    let going_out = hook as u8 != Hook::Ingress as u8;
    if let Some(entry) = FLOWS.get_ptr_mut(seen.key) {
        // SAFETY: as above.
        let entry = unsafe { &mut *entry };
        let passed = passes(&entry.decision);
        count(Count::Rejudged);
        if passed && !pass {
            decision.flags |= REVOKED;
        }
        let same = passed == pass && entry.decision.direction == decision.direction;
        entry.decision = *decision;
        entry.owner = owner.identity;
        account(entry, seen.payload, going_out);
        if same {
            return;
        }
    } else {
        store(seen, owner, decision, going_out);
    }
    let kind = if pass { event::OPEN } else { event::DENY };
    emit::send(
        What::new(kind, hook),
        seen.key.cookie,
        &seen.ask.tuple,
        owner,
        decision,
    );
}

#[inline(never)]
fn store(seen: &Seen, owner: &Owner, decision: &Decision, going_out: bool) {
    let mut entry = FlowEntry {
        decision: *decision,
        opened_ns: seen.ask.now,
        seen_ns: seen.ask.now,
        tx_bytes: 0,
        rx_bytes: 0,
        tx_packets: 0,
        rx_packets: 0,
        tuple: seen.ask.tuple,
        owner: owner.identity,
        pad: 0,
    };
    account(&mut entry, seen.payload, going_out);
    if FLOWS.insert(seen.key, entry, 0).is_err() {
        count(Count::FlowMapFull);
    }
}

/// What the flow map says about a datagram that a process is about to send.
#[inline(never)]
pub fn cached(seen: &Seen) -> Option<bool> {
    let entry = FLOWS.get_ptr_mut(seen.key)?;
    // SAFETY: as above.
    let entry = unsafe { &mut *entry };
    if !is_fresh(&entry.decision, seen.ask.generation) || entry.owner != seen.ask.identity {
        return None;
    }
    let pass = passes(&entry.decision);
    if !pass {
        if entry.decision.direction != Direction::Egress as u8 {
            return None;
        }
        account(entry, 0, true);
    }
    Some(pass)
}

/// Remembers and records that a datagram was refused before it was sent. (One that passes is recorded
/// by its packet, with its real addresses.)
#[inline(always)]
pub fn refuse(seen: &Seen, owner: &Owner, decision: &mut Decision) {
    remember(seen, owner, decision, Hook::Sendmsg);
}

/// A packet that can't be judged passes only for an owner whom no policy restricts.
#[inline(always)]
fn unparsed(sk: *mut bpf_sock, reason: u8) -> Fate {
    let Some(state) = SOCKETS.get(sk.cast()) else {
        return Fate::Refuse;
    };
    let mut decision = Decision::default();
    let reason = Reason::from_number(reason).unwrap_or(Reason::DeniedMalformed);
    policy::judge_socket(state.owner.identity, generation(), reason, &mut decision);
    fate(&decision)
}

/// Who opens a flow whose first packet goes this way.
#[inline(always)]
fn direction(going_out: bool) -> u8 {
    if going_out {
        Direction::Egress as u8
    } else {
        Direction::Ingress as u8
    }
}

#[inline(always)]
fn fate(decision: &Decision) -> Fate {
    if passes(decision) {
        Fate::Pass
    } else {
        Fate::Refuse
    }
}

#[inline(always)]
fn account(entry: &mut FlowEntry, payload: u32, going_out: bool) {
    entry.seen_ns = sock::now();
    if going_out {
        entry.tx_bytes += u64::from(payload);
        entry.tx_packets += 1;
    } else {
        entry.rx_bytes += u64::from(payload);
        entry.rx_packets += 1;
    }
}

#[inline(always)]
fn is_icmp(protocol: u8) -> bool {
    protocol == ICMP || protocol == ICMPV6
}
