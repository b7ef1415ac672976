//! TCP at a listener: the SYN, the ACK that ends the handshake, and the SYN-ACK that it sends.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use ringfence_common::{
    abi::{Count, Decision, Direction, Tuple, event::Hook},
    logic::packet::{Packet, parse_into},
};

use crate::{
    answer, handoff, identity as who,
    maps::{SOCKETS, count, generation},
    policy::{self, Ask, passes},
    refusal, sides,
    sock::{self, Skb},
    tcp,
};

/// Whether a packet of a listening socket passes.
#[inline(never)]
pub fn packet(skb: *mut __sk_buff, sk: *mut bpf_sock, hook: Hook) -> bool {
    let mut ask = Ask::default();
    if !look_at(skb, hook, &mut ask.tuple) {
        return false;
    }
    ask.generation = generation();
    ask.direction = Direction::Ingress as u8;
    // The SYN that this SYN-ACK answers was judged on this CPU just before.
    if hook as u8 == Hook::Egress as u8 && handoff::passed(&ask.tuple, ask.generation) {
        return true;
    }
    let Some(state) = SOCKETS.get_or_create(sk.cast()) else {
        return false;
    };
    ask.now = sock::now();
    if who::ready(skb, &mut state.owner) {
        state.held = 0;
    } else if !policy::is_failsafe(&ask) && who::may_wait(&mut state.held, ask.now) {
        return false;
    }
    ask.identity = state.owner.identity;
    ask.set_peer(tcp::peer_of_packet(skb, &ask.tuple).or_unknown());
    let mut decision = Decision::default();
    sides::inbound(&mut ask, &mut decision);
    if passes(&decision) {
        handoff::leave(&ask.tuple, &decision);
        return true;
    }
    let flow = tcp::flow(skb, &ask.tuple);
    refusal::record(Hook::Ingress, &flow, &ask, &state.owner, &decision);
    if hook as u8 == Hook::Ingress as u8 {
        answer::offer(skb, state.owner.netns);
    }
    false
}

#[inline(never)]
fn look_at(skb: *mut __sk_buff, hook: Hook, tuple: &mut Tuple) -> bool {
    let mut packet = Packet::default();
    if parse_into(&Skb(skb), &mut packet).is_err() {
        count(Count::PacketMalformed);
        return false;
    }
    sock::of_packet(&packet, hook, tuple);
    true
}
