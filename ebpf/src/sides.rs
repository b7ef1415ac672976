//! Judgements that ask more than one list: who listens also needs the port, and on this host both ends
//! of a connection have a say.

use ringfence_common::{
    abi::{Decision, Direction, Verdict, socket::DECIDED_BY_PEER},
    logic::address::is_unspecified_words,
};

use crate::{
    policy::{self, Ask, passes},
    sock::{self, words},
};

/// Judges a flow that comes in. A port taken without `bind`, or before the executable was judged, is
/// judged here too; `ask.direction` says afterwards which list decided.
#[inline(never)]
pub fn inbound(ask: &mut Ask, decision: &mut Decision) {
    if policy::restricts_listen(ask.identity, ask.generation) {
        ask.direction = Direction::Listen as u8;
        policy::judge(ask, decision);
        let refused = !passes(decision);
        ask.direction = Direction::Ingress as u8;
        if refused && !policy::is_failsafe(ask) {
            ask.direction = Direction::Listen as u8;
            return;
        }
    }
    ask.direction = Direction::Ingress as u8;
    policy::judge(ask, decision);
}

/// Adds to the caller's verdict what the peer's policy says about the same flow, seen from its side.
/// What either side refuses is refused.
#[inline(never)]
pub fn add_peer(ask: &mut Ask, decision: &mut Decision) {
    let mut theirs = Decision::default();
    turn_round(ask);
    policy::judge(ask, &mut theirs);
    turn_round(ask);
    join(decision, &theirs);
}

/// Asks the other end's question, or from there one's own again. An unbound socket that calls an address
/// of its own host is given that same address.
#[inline(never)]
fn turn_round(ask: &mut Ask) {
    (ask.identity, ask.peer) = (ask.peer, ask.identity);
    ask.direction = if ask.direction == Direction::Egress as u8 {
        Direction::Ingress as u8
    } else {
        Direction::Egress as u8
    };
    ask.verified = 1;
    let tuple = &mut ask.tuple;
    (tuple.local_port, tuple.remote_port) = (tuple.remote_port, tuple.local_port);
    let (local, remote) = (words(&tuple.local), words(&tuple.remote));
    let caller = if is_unspecified_words(local) {
        remote
    } else {
        local
    };
    sock::set(&mut tuple.local, remote);
    sock::set(&mut tuple.remote, caller);
}

#[inline(always)]
fn join(ours: &mut Decision, theirs: &Decision) {
    if theirs.verdict != Verdict::Allow as u8 && ours.verdict == Verdict::Allow as u8 {
        ours.verdict = theirs.verdict;
        ours.reason = theirs.reason;
        ours.rule = theirs.rule;
        ours.flags |= DECIDED_BY_PEER;
        policy::stamp(ours, theirs.until);
    }
    if theirs.draft_verdict != Verdict::Allow as u8 && ours.draft_verdict == Verdict::Allow as u8 {
        ours.draft_verdict = theirs.draft_verdict;
        ours.draft_reason = theirs.draft_reason;
        ours.draft_rule = theirs.draft_rule;
    }
}
