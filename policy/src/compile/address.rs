//! Address classes: the class of a prefix stands for the set of rules whose ranges cover it.
//!
//! The longest prefix of the trie decides the class, so every prefix carries the rules of all the
//! prefixes around it: nested ranges get the union, an exception gets the rest.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv6Net};
use ringfence_common::{
    abi::{CidrKey, identity::FIRST_CIDR},
    logic::address::{in_network, map_v4},
};

/// Ranges of one table, each owned by a rule (its position in the table's list).
#[derive(Default)]
pub(super) struct Ranges {
    nodes: BTreeMap<Node, Change>,
    count: usize,
}

/// Ordered so that a prefix comes right before all that it contains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    address: [u8; 16],
    prefix: u8,
}

/// What changes at a prefix: ranges (by number) that begin to cover, ranges that end.
#[derive(Default)]
struct Change {
    begin: Vec<(usize, usize)>,
    end: Vec<usize>,
}

/// Prefixes with their class and, per class (from `FIRST_CIDR` on), the rules that it stands for.
pub(super) struct Classes {
    pub(super) prefixes: BTreeMap<CidrKey, u32>,
    pub(super) members: Vec<BTreeSet<usize>>,
}

impl Ranges {
    /// Adds a range of the rule at this position of the table's list.
    pub(super) fn add(&mut self, rule: usize, net: IpNet, except: &[IpNet]) {
        let range = self.count;
        self.count += 1;
        let node = Node::from(net);
        self.nodes
            .entry(node)
            .or_default()
            .begin
            .push((range, rule));
        let mut end = |node| self.nodes.entry(node).or_default().end.push(range);
        for &excepted in except {
            // One that isn't inside would end a range that never began there.
            if net.contains(&excepted) {
                end(Node::from(excepted));
            }
        }
        // IPv4 stands mapped inside the IPv6 space, but no IPv6 range is meant to cover it.
        let mapped = Node {
            address: map_v4([0; 4]),
            prefix: 96,
        };
        if matches!(net, IpNet::V6(_)) && node.contains(mapped) {
            end(mapped);
        }
    }

    /// Number of prefixes so far.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Numbers the classes. `None`: there are more than `limit` memberships.
    pub(super) fn classes(&self, limit: usize) -> Option<Classes> {
        let mut prefixes = BTreeMap::new();
        let mut numbers = BTreeMap::<BTreeSet<usize>, u32>::new();
        let mut members = Vec::new();
        let mut memberships = 0;
        // The prefixes around the current one, each with the ranges (and their rules) that cover it.
        let mut around: Vec<(Node, BTreeMap<usize, usize>)> = Vec::new();
        for (&node, change) in &self.nodes {
            while around
                .last()
                .is_some_and(|(outer, _)| !outer.contains(node))
            {
                let _ = around.pop();
            }
            let outer = around.last().map(|(_, covering)| covering);
            let mut covering = outer.cloned().unwrap_or_default();
            covering.extend(change.begin.iter().copied());
            for range in &change.end {
                let _ = covering.remove(range);
            }
            let rules: BTreeSet<usize> = covering.values().copied().collect();
            let outer_rules = outer.map(|ranges| ranges.values().copied().collect());
            let redundant = rules == outer_rules.unwrap_or_default();
            around.push((node, covering));
            if redundant {
                continue;
            }
            let class = if let Some(&class) = numbers.get(&rules) {
                class
            } else {
                memberships += rules.len() + 1;
                if memberships > limit {
                    return None;
                }
                let class = FIRST_CIDR + u32::try_from(members.len()).ok()?;
                members.push(rules.clone());
                let _ = numbers.insert(rules, class);
                class
            };
            let _ = prefixes.insert(CidrKey::from(node), class);
        }
        Some(Classes { prefixes, members })
    }
}

impl Node {
    fn contains(self, other: Self) -> bool {
        self.prefix <= other.prefix && in_network(&other.address, &self.address, self.prefix)
    }
}

impl From<IpNet> for Node {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(v4) => Self {
                address: map_v4(v4.network().octets()),
                prefix: v4.prefix_len() + 96,
            },
            IpNet::V6(v6) => Self {
                address: Ipv6Net::network(&v6).octets(),
                prefix: v6.prefix_len(),
            },
        }
    }
}

impl From<Node> for CidrKey {
    fn from(node: Node) -> Self {
        Self {
            prefix: u32::from(node.prefix),
            address: node.address,
        }
    }
}
