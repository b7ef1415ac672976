//! The table of one workload: its header, entries and address prefixes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use ringfence_common::{
    abi::{
        Direction, Header, Identity, Layer, RuleEntry, RuleKey,
        identity::FIRST_CIDR,
        rule::{
            ALLOW_SELF, DENY_EGRESS, DENY_INGRESS, DENY_LISTEN, FLAG_VERIFIED, PEER_ANY, SELECTED,
            TIER_ANY_PROTOCOL, TIER_PEER_ANY, TIER_PEER_CIDR, TIER_PEER_IDENTITY,
            TIER_PEER_VERIFIED,
        },
    },
    logic::{port, verdict},
};

use super::{CompileError, Context, Table, address::Ranges};
use crate::model::{Identities, Peer, Policy, Ports, Rule, RuleKind, Workload, Workloads};

/// A policy with its peers resolved to identities, once for all workloads that it selects.
pub(super) struct PreparedPolicy<'a> {
    draft: bool,
    flags: u16,
    rules: Vec<PreparedRule<'a>>,
}

struct PreparedRule<'a> {
    direction: Direction,
    /// What it adds to each of its keys.
    entry: RuleEntry,
    /// Peer identity (or `PEER_ANY`) and flags.
    peers: Vec<(Identity, u8)>,
    ranges: Vec<(IpNet, &'a [IpNet])>,
    ports: Vec<PortKey>,
}

#[derive(Clone, Copy)]
struct PortKey {
    protocol: u8,
    port: u16,
    prefix: u8,
}

/// What a policy is resolved with.
pub(super) struct Prepare<'p> {
    pub(super) workloads: &'p Workloads,
    pub(super) identities: &'p Identities,
    pub(super) context: &'p Context,
}

impl Prepare<'_> {
    /// Resolves a policy whose rules have these numbers.
    pub(super) fn policy<'a>(&self, policy: &'a Policy, ids: &[u32]) -> PreparedPolicy<'a> {
        let started = policy
            .not_before
            .is_none_or(|from| from <= self.context.now);
        let until = policy
            .not_after
            .map_or(u64::MAX, |end| boot_time(end, self.context));
        let rules = policy.rules.iter().zip(ids);
        PreparedPolicy {
            draft: policy.draft,
            flags: flags(policy),
            rules: rules
                .filter(|_| started)
                .map(|(rule, &id)| PreparedRule {
                    direction: rule.section.direction,
                    entry: entry(rule.section.kind, policy.draft, id, until),
                    peers: self.peers(rule),
                    ranges: ranges(rule),
                    ports: ports(rule.ports.as_deref()),
                })
                .collect(),
        }
    }

    /// Keys of the peers that are judged by identity.
    fn peers(&self, rule: &Rule) -> Vec<(Identity, u8)> {
        let listed = match (&rule.peers, rule.section.direction) {
            (None, _) | (_, Direction::Listen) => return vec![(PEER_ANY, 0)],
            (Some(listed), _) => listed,
        };
        let mut keys = Vec::new();
        for peer in listed {
            match peer {
                Peer::Labels { labels, verified } => {
                    for position in self.workloads.select(labels) {
                        if let Some(workload) = self.workloads.get(position) {
                            keys.extend(self.key(&workload.name, *verified));
                        }
                    }
                }
                Peer::Workload { name, verified } => keys.extend(self.key(name, *verified)),
                Peer::Cidr { .. } => {}
                Peer::Entity(identity) => keys.push((*identity, 0)),
            }
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn key(&self, workload: &str, verified: bool) -> Option<(Identity, u8)> {
        let flags = if verified { FLAG_VERIFIED } else { 0 };
        self.identities
            .get(workload)
            .map(|&identity| (identity, flags))
    }
}

/// Merges the policies that select `workload`; `limit` bounds entries, prefixes and classes.
pub(super) fn build<'p, 'a: 'p>(
    workload: &Workload,
    policies: impl Iterator<Item = &'p PreparedPolicy<'a>>,
    limit: usize,
) -> Result<Table, CompileError> {
    let too_large = |what| CompileError::TooLarge {
        workload: workload.name.clone(),
        what,
    };
    let mut table = Table::default();
    let mut address_ranges = Ranges::default();
    let mut with_ranges = Vec::new();
    if workload.allow_self {
        table.header.enforced |= ALLOW_SELF;
        table.header.draft |= ALLOW_SELF;
    }
    for policy in policies {
        table.header.draft |= policy.flags;
        if !policy.draft {
            table.header.enforced |= policy.flags;
        }
        // A rule without ports says nothing, and its addresses need no class.
        for rule in policy.rules.iter().filter(|rule| !rule.ports.is_empty()) {
            for &(peer, flags) in &rule.peers {
                insert(&mut table, rule, peer, flags);
                if table.entries.len() > limit {
                    return Err(too_large("entries"));
                }
            }
            for &(net, except) in &rule.ranges {
                address_ranges.add(with_ranges.len(), net, except);
                if address_ranges.len() > limit {
                    return Err(too_large("address prefixes"));
                }
            }
            if !rule.ranges.is_empty() {
                with_ranges.push(rule);
            }
        }
    }
    let classes = address_ranges
        .classes(limit)
        .ok_or_else(|| too_large("address classes"))?;
    for (class, members) in (FIRST_CIDR..).zip(&classes.members) {
        for rule in members.iter().filter_map(|&rule| with_ranges.get(rule)) {
            insert(&mut table, rule, class, 0);
            if table.entries.len() > limit {
                return Err(too_large("entries"));
            }
        }
    }
    table.cidrs = classes.prefixes;
    add_tiers(&mut table.header, &table.entries);
    Ok(table)
}

fn insert(table: &mut Table, rule: &PreparedRule<'_>, peer: Identity, flags: u8) {
    for ports in &rule.ports {
        let key = RuleKey {
            peer,
            port: ports.port,
            protocol: ports.protocol,
            prefix: ports.prefix,
            direction: rule.direction as u8,
            flags,
            ..RuleKey::default()
        };
        let merged = table.entries.entry(key).or_default();
        verdict::merge(&mut merged.enforced, &rule.entry.enforced);
        verdict::merge(&mut merged.draft, &rule.entry.draft);
    }
}

fn add_tiers(header: &mut Header, entries: &BTreeMap<RuleKey, RuleEntry>) {
    let [egress, ingress, listen] = &mut header.tiers;
    for key in entries.keys() {
        let tiers = match key.direction {
            1 => &mut *egress,
            2 => &mut *ingress,
            _ => &mut *listen,
        };
        *tiers |= match (key.peer, key.flags) {
            (PEER_ANY, _) => TIER_PEER_ANY,
            (_, FLAG_VERIFIED) => TIER_PEER_VERIFIED,
            (FIRST_CIDR.., _) => TIER_PEER_CIDR,
            _ => TIER_PEER_IDENTITY,
        };
        *tiers |= match key.protocol {
            0 => TIER_ANY_PROTOCOL,
            _ => 1 << key.prefix,
        };
    }
}

fn ranges(rule: &Rule) -> Vec<(IpNet, &[IpNet])> {
    if rule.section.direction == Direction::Listen {
        return Vec::new();
    }
    let mut ranges = Vec::new();
    for peer in rule.peers.iter().flatten() {
        if let Peer::Cidr { net, except } = peer {
            ranges.push((*net, except.as_slice()));
        }
    }
    ranges
}

fn ports(listed: Option<&[Ports]>) -> Vec<PortKey> {
    let Some(listed) = listed else {
        return vec![PortKey {
            protocol: 0,
            port: 0,
            prefix: 0,
        }];
    };
    let mut keys = Vec::new();
    for ports in listed {
        port::prefixes(ports.first, ports.last, |port, prefix| {
            keys.push(PortKey {
                protocol: ports.protocol,
                port,
                prefix,
            });
        });
    }
    keys
}

fn entry(kind: RuleKind, draft: bool, id: u32, until: u64) -> RuleEntry {
    let layer = match kind {
        RuleKind::Allow => Layer {
            allow_until: until,
            allow_rule: id,
            ..Layer::default()
        },
        RuleKind::Deny => Layer {
            deny_until: until,
            deny_rule: id,
            ..Layer::default()
        },
    };
    RuleEntry {
        enforced: if draft { Layer::default() } else { layer },
        draft: layer,
    }
}

/// What a layer's header says of a workload because this policy selects it.
fn flags(policy: &Policy) -> u16 {
    let with_rules = policy.rules.iter().map(|rule| rule.section.direction);
    let directions = with_rules.chain(policy.default_deny.iter().copied());
    directions.fold(SELECTED, |flags, direction| {
        flags
            | match direction {
                Direction::Egress => DENY_EGRESS,
                Direction::Ingress => DENY_INGRESS,
                Direction::Listen => DENY_LISTEN,
            }
    })
}

/// `end` in `CLOCK_BOOTTIME` nanoseconds; 1 when it has passed, so that it still counts as a rule.
fn boot_time(end: time::OffsetDateTime, context: &Context) -> u64 {
    let left = (end - context.now).whole_nanoseconds();
    if left <= 0 {
        return 1;
    }
    let until = i128::from(context.boot_now_ns) + left;
    // `u64::MAX` means without end.
    u64::try_from(until).unwrap_or(u64::MAX).min(u64::MAX - 1)
}
