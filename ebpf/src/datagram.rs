//! UDP, ICMP and everything else without a connection: a flow is one peer of one socket, and replies,
//! and only replies, pass.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use ringfence_common::{
    abi::{
        Count, Decision, Direction, FlowKey, Owner, Reason, SocketState, Tuple, Verdict,
        event::Hook,
        identity,
        tuple::{ICMP, ICMPV6, UDP},
    },
    logic::{
        address::is_mapped,
        packet::{Packet, is_echo, is_echo_reply, parse_into},
    },
};

use crate::{
    cached, flows, identity as who,
    maps::{SOCKETS, count, generation},
    peer::{self, Peer},
    policy::{self, Ask, passes},
    refusal, sender, sides,
    sock::{self, LOOPBACK, Skb, words},
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
    /// 1 = it goes to this host, where nobody receives it (any more).
    pub peer_gone: u32,
}

/// Judges a datagram of a full socket.
#[inline(never)]
pub fn packet(skb: *mut __sk_buff, sk: *mut bpf_sock, hook: Hook) -> Fate {
    let mut seen = Seen::default();
    let unreadable = look_at(skb, hook, &mut seen);
    if unreadable != 0 {
        return unparsed(skb, sk, hook, &seen, unreadable);
    }
    let Some(state) = SOCKETS.get_or_create(sk.cast()) else {
        return Fate::Refuse;
    };
    let ready = who::ready(skb, &mut state.owner);
    seen.ask.now = sock::now();
    seen.ask.generation = generation();
    seen.ask.identity = state.owner.identity;
    if !find_peer(skb, hook, &state.owner, &mut seen) && !receiver_allows(&mut seen, &state.owner) {
        return Fate::Refuse;
    }
    if let Some(entry) = flows::find(&seen.key)
        && flows::stands(entry, &seen)
    {
        flows::account(entry, &seen, hook);
        return Fate::Pass;
    }
    if ready && seen.ask.peer != identity::PENDING {
        state.held = 0;
    } else {
        if !policy::is_failsafe(&seen.ask) && who::may_wait(&mut state.held, seen.ask.now) {
            return Fate::Hold;
        }
        // Whoever the other one is: refused as pending.
        seen.ask.identity = identity::PENDING;
    }
    judge(&mut seen, state, hook)
}

#[inline(never)]
fn judge(seen: &mut Seen, state: &SocketState, hook: Hook) -> Fate {
    if let Some(entry) = flows::find(&seen.key) {
        if passes(&entry.decision) {
            // A flow that passed keeps the direction of its first packet, and its peer when it is gone.
            seen.ask.direction = entry.decision.direction;
            if seen.peer_gone != 0 {
                seen.ask.peer = entry.decision.peer;
            }
        } else if flows::was_ours(entry, seen.ask.now) {
            // A late answer to a flow that was refused meanwhile belongs to it, not to a flow of the peer's.
            seen.ask.direction = Direction::Egress as u8;
        }
    } else if is_connected(seen, state) {
        // Its flow found no room, or was idle for long.
        seen.ask.direction = Direction::Egress as u8;
    }
    let mut decision = Decision::default();
    if seen.ask.direction == Direction::Ingress as u8 {
        sides::inbound(&mut seen.ask, &mut decision);
        if decision.reason == Reason::AllowedByRule as u8 && seen.ask.peer == identity::UNKNOWN {
            // A rule for every peer is not for one that can't be told.
            let (who, generation) = (seen.ask.identity, seen.ask.generation);
            policy::judge_socket(who, generation, Reason::DeniedNoIdentity, &mut decision);
            decision.direction = Direction::Ingress as u8;
        }
        // The sender may have asked for somebody else who shares the port.
        if hook as u8 == Hook::Ingress as u8
            && passes(&decision)
            && identity::is_workload(seen.ask.peer)
            && seen.ask.verified != 0
        {
            sides::add_peer(&mut seen.ask, &mut decision);
        }
    } else {
        policy::judge(&seen.ask, &mut decision);
    }
    flows::judged(seen, &state.owner, &mut decision, hook);
    fate(&decision)
}

/// Whether the datagram is of the peer that the socket is connected to, with a verdict that holds.
#[inline(always)]
fn is_connected(seen: &Seen, state: &SocketState) -> bool {
    let tuple = &seen.ask.tuple;
    tuple.protocol == UDP
        && state.called == sock::digest(words(&tuple.remote), tuple.remote_port)
        && state.decision.direction == Direction::Egress as u8
        && cached::allows(&state.decision, seen.ask.generation)
}

/// Fills in the other end. Answers whether a receiver on this host will know who sends: a datagram that
/// it would take for somebody else's is judged by its policy here, where the sender is known.
#[inline(never)]
fn find_peer(skb: *mut __sk_buff, hook: Hook, owner: &Owner, seen: &mut Seen) -> bool {
    let tuple = &seen.ask.tuple;
    let coming = hook as u8 == Hook::Ingress as u8;
    let udp = tuple.protocol == UDP;
    if !coming && udp && peer::is_group(owner.netns, &tuple.remote) {
        // Nobody in particular. Each receiver on this host judges its copy, by who is noted.
        sender::note_to_group(tuple, owner);
        seen.ask.set_peer(Peer::WORLD);
        return true;
    }
    if sock::device(skb) != LOOPBACK {
        let peer = if coming && udp {
            by_device(skb, tuple, owner)
        } else {
            Peer::WORLD
        };
        seen.ask.set_peer(peer);
        return true;
    }
    if !udp {
        let peer = if is_icmp(tuple.protocol) {
            // The kernel answers.
            Peer::NOBODY
        } else {
            Peer::UNKNOWN
        };
        seen.ask.set_peer(peer);
        return true;
    }
    if coming {
        let to_group = peer::is_group(owner.netns, &tuple.local);
        let peer = sending(skb, tuple, owner, to_group);
        seen.ask.set_peer(peer.or_unknown());
        return true;
    }
    let peer = peer::on_this_host(skb.cast(), tuple);
    sender::note(tuple, owner);
    let known = peer.missing || sender::is_itself(skb, tuple, owner.identity);
    seen.ask.set_peer(peer);
    seen.peer_gone = u32::from(peer.missing);
    known
}

/// Who sent a datagram that comes by a device: somebody elsewhere. But what this host sends to a group
/// through a device comes back by it.
#[inline(never)]
fn by_device(skb: *mut __sk_buff, tuple: &Tuple, owner: &Owner) -> Peer {
    let may_be_back =
        peer::is_group(owner.netns, &tuple.local) && peer::is_local(owner.netns, &tuple.remote);
    if !may_be_back {
        return Peer::WORLD;
    }
    let peer = sending(skb, tuple, owner, true);
    if peer.missing && !is_mapped(words(&tuple.remote)) {
        // Each link has its own link-local addresses: this one is used there too.
        return Peer::WORLD;
    }
    peer.or_unknown()
}

/// Who on this host sent a datagram, whoever owns the source address now.
#[inline(never)]
fn sending(skb: *mut __sk_buff, tuple: &Tuple, owner: &Owner, to_group: bool) -> Peer {
    // By a call that names the group: a socket that is connected or corked sends without one.
    let by_call = to_group && is_mapped(words(&tuple.remote));
    if !by_call && let Some(identity) = sender::noted(tuple, owner.netns, to_group) {
        return Peer::proved(identity);
    }
    let peer = peer::on_this_host(skb.cast(), tuple);
    if by_call && let Some(identity) = sender::noted(tuple, owner.netns, to_group) {
        let agrees = !peer.missing && peer.identity == identity;
        return if agrees { peer } else { Peer::UNKNOWN };
    }
    // A socket that called the group sends without naming it.
    let called = to_group && peer.called == sock::digest(words(&tuple.local), tuple.local_port);
    // Any other sender without a note is not in the guarded tree.
    if peer.missing || called || peer.identity == identity::HOST {
        peer
    } else {
        Peer::UNKNOWN
    }
}

/// Whether the receiver's policy lets in who really sends.
#[inline(never)]
fn receiver_allows(seen: &mut Seen, owner: &Owner) -> bool {
    let mut decision = Decision {
        verdict: Verdict::Allow as u8,
        draft_verdict: Verdict::Allow as u8,
        ..Decision::default()
    };
    sides::add_peer(&mut seen.ask, &mut decision);
    if passes(&decision) {
        return true;
    }
    decision.direction = Direction::Egress as u8;
    decision.peer = seen.ask.peer;
    refusal::record(Hook::Egress, &seen.key, &seen.ask, owner, &decision);
    false
}

/// Parses the packet; answers 0 or the number of the reason why it can't be judged.
#[inline(never)]
fn look_at(skb: *mut __sk_buff, hook: Hook, seen: &mut Seen) -> u8 {
    let going_out = hook as u8 != Hook::Ingress as u8;
    let mut packet = Packet::default();
    if parse_into(&Skb(skb), &mut packet).is_err() {
        count(Count::PacketMalformed);
        return Reason::DeniedMalformed as u8;
    }
    sock::of_packet(&packet, hook, &mut seen.ask.tuple);
    if packet.fragment != 0 {
        return Reason::DeniedFragment as u8;
    }
    if packet.detour != 0 {
        return Reason::DeniedDetour as u8;
    }
    seen.payload = packet.payload;
    seen.ask.direction = if going_out {
        Direction::Egress as u8
    } else {
        Direction::Ingress as u8
    };
    let tuple = &mut seen.ask.tuple;
    if is_icmp(packet.protocol) {
        // The source port is the echo identifier and the destination port the type, both ways.
        tuple.local_port = packet.source_port;
        tuple.remote_port = packet.destination_port;
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

/// A packet that can't be judged passes only for an owner whom no policy restricts.
#[inline(never)]
fn unparsed(skb: *mut __sk_buff, sk: *mut bpf_sock, hook: Hook, seen: &Seen, reason: u8) -> Fate {
    let Some(state) = SOCKETS.get(sk.cast()) else {
        return Fate::Refuse;
    };
    let mut decision = Decision::default();
    let reason = Reason::from_number(reason).unwrap_or(Reason::DeniedMalformed);
    policy::judge_socket(state.owner.identity, generation(), reason, &mut decision);
    if !passes(&decision) {
        if hook as u8 == Hook::Ingress as u8 {
            decision.direction = Direction::Ingress as u8;
        }
        let cookie = sock::cookie(skb.cast());
        refusal::of_call(hook, cookie, &seen.ask.tuple, &state.owner, &decision);
    }
    fate(&decision)
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
fn is_icmp(protocol: u8) -> bool {
    protocol == ICMP || protocol == ICMPV6
}
