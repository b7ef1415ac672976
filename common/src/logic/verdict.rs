//! From map entries to a verdict. Deny wins over allow whatever is more specific; the order of
//! entries never matters, because [`merge`] is commutative, associative and idempotent.

use super::port::{LENGTHS, mask};
use crate::abi::{
    Direction, Header, Identity, Layer, Reason, RuleEntry, RuleKey, Verdict,
    identity::AGENT,
    rule::{
        ALLOW_SELF, DENY_EGRESS, DENY_INGRESS, DENY_LISTEN, FLAG_VERIFIED, PEER_ANY, SELECTED,
        TIER_ANY_PROTOCOL, TIER_PEER_ANY, TIER_PEER_CIDR, TIER_PEER_IDENTITY, TIER_PEER_VERIFIED,
        TIER_PORTS,
    },
};

/// What is asked of one identity's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Egress, ingress or listen.
    pub direction: Direction,
    /// Identity of the peer.
    pub peer: Identity,
    /// The peer's identity is proved.
    pub verified: bool,
    /// Class of the peer's address in this identity's trie, 0 = none of its CIDRs covers it.
    pub address_class: Identity,
    /// IANA protocol number.
    pub protocol: u8,
    /// Egress: the peer's port; ingress and listen: the local port; ICMP: the type.
    pub port: u16,
}

/// Answer of one layer (enforced, or with the draft policies added).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// Allow or deny.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Rule that decided, 0 = none.
    pub rule: u32,
    /// Holds before this time (`CLOCK_BOOTTIME`, nanoseconds).
    pub until: u64,
}

/// Whether the agent calls, whom no policy cuts off: its controller may be a workload of the same host.
#[inline(always)]
#[must_use]
pub const fn is_agents_call(direction: Direction, peer: Identity, verified: bool) -> bool {
    !matches!(direction, Direction::Egress) && peer == AGENT && verified
}

/// Adds what `from` says to `into`. Of two rules the one that holds longer counts, of equal ones the
/// lower number.
#[inline(always)]
pub fn merge(into: &mut Layer, from: &Layer) {
    if from.deny_until > into.deny_until
        || (from.deny_until == into.deny_until && from.deny_rule < into.deny_rule)
    {
        into.deny_until = from.deny_until;
        into.deny_rule = from.deny_rule;
    }
    if from.allow_until > into.allow_until
        || (from.allow_until == into.allow_until && from.allow_rule < into.allow_rule)
    {
        into.allow_until = from.allow_until;
        into.allow_rule = from.allow_rule;
    }
}

/// Looks up every key that can cover the question and merges what is found.
#[inline(always)]
pub fn collect(
    header: &Header,
    question: &Question,
    lookup: impl FnMut(&RuleKey, &mut RuleEntry),
) -> RuleEntry {
    let mut found = RuleEntry::default();
    collect_into(header, question, &mut found, lookup);
    found
}

/// [`collect`] into an entry that the caller zeroed.
#[inline(always)]
pub fn collect_into(
    header: &Header,
    question: &Question,
    found: &mut RuleEntry,
    mut lookup: impl FnMut(&RuleKey, &mut RuleEntry),
) {
    let [egress, ingress, listen] = header.tiers;
    let tiers = match question.direction {
        Direction::Egress => egress,
        Direction::Ingress => ingress,
        Direction::Listen => listen,
    };
    let mut class = 0;
    while class < 4 {
        let (tier, peer, flags) = match class {
            0 => (TIER_PEER_ANY, PEER_ANY, 0),
            1 => (TIER_PEER_IDENTITY, question.peer, 0),
            2 => (TIER_PEER_VERIFIED, question.peer, FLAG_VERIFIED),
            _ => (TIER_PEER_CIDR, question.address_class, 0),
        };
        class += 1;
        let known = class == 1 || peer != PEER_ANY;
        let proved = flags & FLAG_VERIFIED == 0 || question.verified;
        if tiers & tier != 0 && known && proved {
            let mut key = RuleKey {
                peer,
                direction: question.direction as u8,
                protocol: question.protocol,
                flags,
                ..RuleKey::default()
            };
            collect_ports(tiers, &mut key, question.port, found, &mut lookup);
        }
    }
}

/// Looks up the keys of one peer. A function of its own in the kernel, where all of them together would
/// need more stack than there is.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn collect_ports(
    tiers: u32,
    key: &mut RuleKey,
    port: u16,
    found: &mut RuleEntry,
    lookup: &mut impl FnMut(&RuleKey, &mut RuleEntry),
) {
    for prefix in LENGTHS {
        if (tiers & TIER_PORTS) >> prefix & 1 != 0 {
            key.port = mask(port, prefix);
            key.prefix = prefix;
            lookup(key, found);
        }
    }
    if tiers & TIER_ANY_PROTOCOL != 0 {
        key.protocol = 0;
        key.port = 0;
        key.prefix = 0;
        lookup(key, found);
    }
}

/// Precedence of one layer. `header_flags` are the layer's flags of the [`Header`] (of an identity
/// without one: [`ALLOW_SELF`]); `now` is `CLOCK_BOOTTIME` in nanoseconds.
#[inline(always)]
pub fn outcome(
    layer: &Layer,
    header_flags: u16,
    direction: Direction,
    to_itself: bool,
    deny_unselected: bool,
    now: u64,
) -> Outcome {
    let without_end = |verdict, reason| Outcome {
        verdict,
        reason,
        rule: 0,
        until: u64::MAX,
    };
    if layer.deny_until > now {
        return Outcome {
            verdict: Verdict::Deny,
            reason: Reason::DeniedByRule,
            rule: layer.deny_rule,
            until: layer.deny_until,
        };
    }
    if layer.allow_until > now {
        return Outcome {
            verdict: Verdict::Allow,
            reason: Reason::AllowedByRule,
            rule: layer.allow_rule,
            until: layer.allow_until,
        };
    }
    if to_itself && header_flags & ALLOW_SELF != 0 {
        return without_end(Verdict::Allow, Reason::AllowedSelf);
    }
    if header_flags & SELECTED == 0 {
        return if deny_unselected {
            without_end(Verdict::Deny, Reason::DeniedUnselected)
        } else {
            without_end(Verdict::Allow, Reason::AllowedUnselected)
        };
    }
    let default_deny = match direction {
        Direction::Egress => DENY_EGRESS,
        Direction::Ingress => DENY_INGRESS,
        Direction::Listen => DENY_LISTEN,
    };
    if header_flags & default_deny == 0 {
        return without_end(Verdict::Allow, Reason::AllowedDirection);
    }
    if layer.allow_until != 0 {
        return Outcome {
            verdict: Verdict::Deny,
            reason: Reason::DeniedExpired,
            rule: layer.allow_rule,
            until: u64::MAX,
        };
    }
    without_end(Verdict::Deny, Reason::DeniedDefault)
}
