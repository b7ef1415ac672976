//! The decision: look-ups around `ringfence_common::logic::verdict`.

use aya_ebpf::maps::lpm_trie::Key;
use core::ptr::{read_volatile, write_volatile};
use ringfence_common::{
    abi::{
        Decision, Direction, Header, Identity, Layer, Reason, RuleEntry, RuleKey, SlotKey, Tuple,
        Verdict, identity,
        rule::{DENY_EGRESS, DENY_INGRESS, DENY_LISTEN, SELECTED, TIER_PEER_CIDR},
        settings::{DENY_UNSELECTED, DRAFT_MODE, MAX_FAILSAFE},
        socket::PEER_VERIFIED,
        tuple::{ICMP, ICMPV6},
    },
    logic::{
        address::policy_words,
        failsafe, stamp,
        verdict::{Outcome, Question, collect_into, is_agents_call, merge, outcome},
    },
};

use crate::{
    maps::{CIDRS, FAILSAFE, HEADERS, RULES, RuleTable, SETTINGS},
    peer::Peer,
    sock::words,
};

/// What one identity's policy is asked.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Ask {
    /// Addresses and protocol.
    pub tuple: Tuple,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub now: u64,
    /// Whose policy.
    pub identity: Identity,
    /// Identity of the other end.
    pub peer: Identity,
    /// Generation that this run of the program judges by.
    pub generation: u32,
    /// 1 = the peer's identity is proved.
    pub verified: u8,
    /// [`Direction`] as a number.
    pub direction: u8,
    /// Zero.
    pub pad: u16,
}

impl Ask {
    /// Sets the other end.
    #[inline(always)]
    pub fn set_peer(&mut self, peer: Peer) {
        self.peer = peer.identity;
        self.verified = u8::from(peer.verified);
    }

    /// Sets the other end of a flow that was judged before: one that closed its socket meanwhile is
    /// still who it was.
    #[inline(always)]
    pub fn set_known_peer(&mut self, peer: Peer, before: &Decision) {
        self.set_peer(peer);
        if peer.missing && before.flags & PEER_VERIFIED != 0 {
            self.peer = before.peer;
        }
    }

    #[inline(always)]
    fn direction(&self) -> Direction {
        match self.direction {
            1 => Direction::Egress,
            2 => Direction::Ingress,
            _ => Direction::Listen,
        }
    }

    /// The port that rules are about: the type for ICMP, else the port of the end that was called.
    #[inline(always)]
    fn port(&self) -> u16 {
        let icmp = self.tuple.protocol == ICMP || self.tuple.protocol == ICMPV6;
        if icmp || self.direction == Direction::Egress as u8 {
            self.tuple.remote_port
        } else {
            self.tuple.local_port
        }
    }
}

/// Judges and writes the decision. In draft mode a deny becomes an audit verdict.
#[inline(always)]
pub fn judge(ask: &Ask, decision: &mut Decision) {
    let _ = ringfence_judge(ask, decision);
}

/// [`judge`] as a global function: the verifier checks it once, not anew for every state in which it
/// is called (kernel 5.12 for pointer arguments).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ringfence_judge(ask: *const Ask, decision: *mut Decision) -> i32 {
    // SAFETY: the verifier makes sure that a pointer which is not null has its type's size behind it.
    let (Some(ask), Some(decision)) = (unsafe { ask.as_ref() }, unsafe { decision.as_mut() })
    else {
        return -1;
    };
    decide(ask, decision);
    0
}

#[inline(always)]
fn decide(ask: &Ask, decision: &mut Decision) {
    let flags = SETTINGS.get(0).map_or(0, |settings| settings.flags);
    decision.peer = ask.peer;
    decision.generation = ask.generation;
    decision.direction = ask.direction;
    decision.flags = if ask.verified != 0 { PEER_VERIFIED } else { 0 };
    if let Some(reason) = by_identity(ask.identity) {
        let found = fixed(or_failsafe(ask, reason));
        return settle(decision, found, found, flags);
    }
    if is_agents_call(ask.direction(), ask.peer, ask.verified != 0) {
        let own = fixed(Reason::AllowedOwnChannel);
        return settle(decision, own, own, flags);
    }
    let slot = SlotKey {
        identity: ask.identity,
        slot: ask.generation & 1,
    };
    // Every workload has one: without it is who is none any more.
    // SAFETY: the value is copied at once; a slot is written only while no program reads it.
    let Some(header) = (unsafe { HEADERS.get(slot).copied() }) else {
        let gone = fixed(or_failsafe(ask, Reason::DeniedNoIdentity));
        return settle(decision, gone, gone, flags);
    };
    let mut found = RuleEntry::default();
    find(&header, slot, ask, &mut found);
    conclude(ask, &header, &found, decision);
}

/// The outcome of what was found. A function of its own, so that its stack and that of the look-ups are
/// the same.
#[inline(never)]
fn conclude(ask: &Ask, header: &Header, found: &RuleEntry, decision: &mut Decision) {
    let flags = SETTINGS.get(0).map_or(0, |settings| settings.flags);
    let itself = ask.peer == ask.identity;
    let direction = ask.direction();
    let deny_unselected = flags & DENY_UNSELECTED != 0;
    let enforced = outcome(
        &found.enforced,
        header.enforced,
        direction,
        itself,
        deny_unselected,
        ask.now,
    );
    let draft = outcome(
        &found.draft,
        header.draft,
        direction,
        itself,
        deny_unselected,
        ask.now,
    );
    if enforced.verdict == Verdict::Deny && is_failsafe(ask) {
        let safe = fixed(Reason::AllowedFailsafe);
        return settle(decision, safe, safe, flags);
    }
    settle(decision, enforced, draft, flags);
}

/// Whether a policy restricts the identity at all, so that sockets which can't be judged flow by flow
/// are refused to it.
#[inline(always)]
pub fn judge_socket(who: Identity, generation: u32, reason: Reason, decision: &mut Decision) {
    let flags = SETTINGS.get(0).map_or(0, |settings| settings.flags);
    decision.generation = generation;
    decision.direction = Direction::Egress as u8;
    if let Some(reason) = by_identity(who) {
        return settle(decision, fixed(reason), fixed(reason), flags);
    }
    let slot = SlotKey {
        identity: who,
        slot: generation & 1,
    };
    // SAFETY: as in `decide`.
    let Some(header) = (unsafe { HEADERS.get(slot).copied() }) else {
        let gone = fixed(Reason::DeniedNoIdentity);
        return settle(decision, gone, gone, flags);
    };
    let unselected = flags & DENY_UNSELECTED != 0;
    let layer = |bits: u16| {
        if bits & SELECTED == 0 {
            let reason = if unselected {
                Reason::DeniedUnselected
            } else {
                Reason::AllowedUnselected
            };
            return fixed(reason);
        }
        let restricted = bits & (DENY_EGRESS | DENY_INGRESS) != 0;
        fixed(if restricted {
            reason
        } else {
            Reason::AllowedDirection
        })
    };
    settle(decision, layer(header.enforced), layer(header.draft), flags);
}

/// Whether a policy selects the identity, so that its port is not for others.
#[inline(always)]
pub fn judge_port(who: Identity, generation: u32, decision: &mut Decision) {
    let flags = SETTINGS.get(0).map_or(0, |settings| settings.flags);
    decision.generation = generation;
    let slot = SlotKey {
        identity: who,
        slot: generation & 1,
    };
    // SAFETY: as in `decide`.
    let header = unsafe { HEADERS.get(slot).copied() }.unwrap_or_default();
    let layer = |bits: u16| {
        fixed(if bits & SELECTED == 0 {
            Reason::AllowedUnselected
        } else {
            Reason::DeniedPort
        })
    };
    settle(decision, layer(header.enforced), layer(header.draft), flags);
}

/// Whether the identity has rules about listening.
#[inline(always)]
pub fn restricts_listen(who: Identity, generation: u32) -> bool {
    let slot = SlotKey {
        identity: who,
        slot: generation & 1,
    };
    // SAFETY: the value is copied at once.
    let header = unsafe { HEADERS.get(slot).copied() }.unwrap_or_default();
    let [_, _, listen] = header.tiers;
    listen != 0 || (header.enforced | header.draft) & DENY_LISTEN != 0
}

/// Identities whose verdict no policy changes.
#[inline(always)]
fn by_identity(who: Identity) -> Option<Reason> {
    match who {
        identity::AGENT => Some(Reason::AllowedOwnChannel),
        identity::PENDING => Some(Reason::DeniedPending),
        identity::HOST => Some(Reason::AllowedHost),
        other if !identity::is_workload(other) => Some(Reason::DeniedNoIdentity),
        _ => None,
    }
}

#[inline(never)]
fn find(header: &Header, slot: SlotKey, ask: &Ask, found: &mut RuleEntry) {
    let [egress, ingress, listen] = header.tiers;
    if egress | ingress | listen == 0 {
        return;
    }
    let address_class = if (egress | ingress) & TIER_PEER_CIDR != 0 {
        address_class(slot, &ask.tuple.remote)
    } else {
        0
    };
    let question = Question {
        direction: ask.direction(),
        peer: ask.peer,
        verified: ask.verified != 0,
        address_class,
        protocol: ask.tuple.protocol,
        port: ask.port(),
    };
    // SAFETY: as above.
    let Some(table) = (unsafe { RULES.get(&slot) }) else {
        return;
    };
    let zero = opaque_zero();
    forget(&mut found.enforced, zero);
    forget(&mut found.draft, zero);
    collect_into(header, &question, found, |key, found| {
        probe(table, key, found, zero);
    });
}

/// Which of the policy's ranges an address is in, 0 = in none. A frame of its own: that of [`find`] is at the limit.
#[inline(never)]
fn address_class(slot: SlotKey, address: &[u8; 16]) -> u32 {
    let key = Key::new(128, policy_words(words(address)));
    // SAFETY: an inner map is replaced, never changed, while a slot is in use.
    let class = unsafe { CIDRS.get(&slot) }.and_then(|trie| trie.get(&key));
    class.copied().unwrap_or_default()
}

/// Looks up one key and merges what it says. The entry stays in memory (volatile): kept in registers
/// over the loops it would cost twice its size in spill slots.
#[inline(always)]
fn probe(table: &RuleTable, key: &RuleKey, found: &mut RuleEntry, zero: u64) {
    // SAFETY: an inner map is replaced, never changed, while its slot is in use; its words are an entry.
    let entry = unsafe {
        let words = table.get(key).map(core::ptr::from_ref);
        words.and_then(|words| words.cast::<RuleEntry>().as_ref())
    };
    if let Some(entry) = entry {
        merge_in_memory(&mut found.enforced, &entry.enforced, zero);
        merge_in_memory(&mut found.draft, &entry.draft, zero);
    }
}

#[inline(always)]
fn merge_in_memory(into: &mut Layer, from: &Layer, zero: u64) {
    // SAFETY: a reference is valid for reads and writes.
    unsafe {
        let mut layer = read_volatile(into);
        merge(&mut layer, from);
        forget(&mut layer, zero);
        write_volatile(into, layer);
    }
}

/// A zero of which the verifier does not know that it is one.
#[inline(always)]
fn opaque_zero() -> u64 {
    // SAFETY: the field is a plain integer in a map value.
    SETTINGS.get(0).map_or(0, |settings| unsafe {
        read_volatile(&raw const settings.zero)
    })
}

/// Makes the verifier forget what it derived about the values: it would keep the ranges that each
/// comparison leaves behind and explore the loops once for every combination of them.
#[inline(always)]
fn forget(layer: &mut Layer, zero: u64) {
    layer.deny_until ^= zero;
    layer.allow_until ^= zero;
    layer.deny_rule ^= zero as u32;
    layer.allow_rule ^= zero as u32;
}

/// The reason, or the failsafe list where it refuses what nobody may refuse.
#[inline(always)]
fn or_failsafe(ask: &Ask, reason: Reason) -> Reason {
    let refused = reason as u8 >= Reason::DeniedByRule as u8;
    let inbound = ask.direction != Direction::Egress as u8;
    if refused && inbound && ringfence_failsafe(ask) != 0 {
        Reason::AllowedFailsafe
    } else {
        reason
    }
}

/// Whether the failsafe list lets the flow in, whoever is called.
#[inline(always)]
pub fn is_failsafe(ask: &Ask) -> bool {
    ask.direction == Direction::Ingress as u8 && ringfence_failsafe(ask) != 0
}

/// Whether the list names an inbound flow, or a port to listen on: 1 or 0. A global function, which the
/// verifier checks once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ringfence_failsafe(ask: *const Ask) -> i32 {
    // SAFETY: the verifier makes sure that a pointer which is not null has its type's size behind it.
    let Some(ask) = (unsafe { ask.as_ref() }) else {
        return 0;
    };
    let (tuple, listens) = (&ask.tuple, ask.direction == Direction::Listen as u8);
    let length = SETTINGS.get(0).map_or(0, |settings| settings.failsafe_len);
    let mut index = 0;
    while index < MAX_FAILSAFE as u32 && index < length {
        if let Some(entry) = FAILSAFE.get(index)
            && (failsafe::covers(entry, &tuple.remote, tuple.protocol, tuple.local_port)
                || (listens && failsafe::names(entry, tuple.protocol, tuple.local_port)))
        {
            return 1;
        }
        index += 1;
    }
    0
}

#[inline(always)]
fn fixed(reason: Reason) -> Outcome {
    let verdict = if (reason as u8) < Reason::DeniedByRule as u8 {
        Verdict::Allow
    } else {
        Verdict::Deny
    };
    Outcome {
        verdict,
        reason,
        rule: 0,
        until: u64::MAX,
    }
}

#[inline(always)]
fn settle(decision: &mut Decision, enforced: Outcome, draft: Outcome, flags: u32) {
    decision.rule = enforced.rule;
    decision.draft_rule = draft.rule;
    decision.reason = enforced.reason as u8;
    decision.draft_reason = draft.reason as u8;
    decision.draft_verdict = draft.verdict as u8;
    decision.verdict = match enforced.verdict {
        Verdict::Deny if flags & DRAFT_MODE != 0 => Verdict::Audit as u8,
        verdict @ (Verdict::Allow | Verdict::Deny | Verdict::Audit) => verdict as u8,
    };
    stamp(decision, enforced.until);
}

/// Sets the expiry, in nanoseconds; verdict, generation, peer and direction are final.
#[inline(always)]
pub fn stamp(decision: &mut Decision, until: u64) {
    let about = stamp::about(decision);
    decision.until = stamp::stamped(until, decision.generation, about, passes(decision));
}

/// Whether a decision lets the packet pass.
#[inline(always)]
pub fn passes(decision: &Decision) -> bool {
    decision.verdict == Verdict::Allow as u8 || decision.verdict == Verdict::Audit as u8
}
