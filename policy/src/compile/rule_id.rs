//! Numbers of rules: equal on every host and over recompilations, as long as the rule keeps its
//! policy, section and position.

use std::{collections::HashSet, sync::Arc};

use imbl::OrdMap;

use super::{RuleSource, identity::hash};
use crate::model::{Policy, PolicySet};

/// One past the highest rule number; 0 means no rule.
const END: u32 = 1 << 31;

/// Number of every rule, by position of the policy in the set and of the rule in the policy.
pub(super) struct RuleIds {
    ids: Vec<Vec<u32>>,
    as_named: bool,
}

impl RuleIds {
    pub(super) fn new(set: &PolicySet) -> Self {
        Self::with_hash(set, hash)
    }

    /// With another hash, so that tests can make collisions.
    pub(super) fn with_hash(set: &PolicySet, hash: impl Fn(&[u8]) -> u32) -> Self {
        let mut names: Vec<(&str, String, usize, usize)> = Vec::new();
        let mut ids = Vec::with_capacity(set.policies.len());
        for (number, policy) in set.policies.iter().enumerate() {
            for (place, rule) in policy.rules.iter().enumerate() {
                let section = rule.section.place(rule.index);
                names.push((&policy.name, section, number, place));
            }
            ids.push(vec![0; policy.rules.len()]);
        }
        // Collisions are settled in the order of names, not of documents.
        names.sort_unstable();
        let mut taken = HashSet::with_capacity(names.len());
        let mut as_named = true;
        for (policy, section, number, place) in names {
            let mut id = number_of(policy, &section, &hash);
            while !taken.insert(id) {
                as_named = false;
                id = 1 + id % (END - 1);
            }
            if let Some(slot) = ids.get_mut(number).and_then(|rules| rules.get_mut(place)) {
                *slot = id;
            }
        }
        Self { ids, as_named }
    }

    /// Numbers of the rules of the policy at this position.
    pub(super) fn of_policy(&self, number: usize) -> &[u32] {
        self.ids.get(number).map_or(&[], Vec::as_slice)
    }

    /// Whether no two names gave the same number.
    pub(super) const fn as_named(&self) -> bool {
        self.as_named
    }

    pub(super) fn sources(&self, set: &PolicySet) -> OrdMap<u32, Arc<RuleSource>> {
        let policies = (0..).zip(&set.policies);
        let all = policies.flat_map(|(number, policy)| sources(policy, self.of_policy(number)));
        all.collect()
    }
}

/// The numbers of a policy's rules where no other rule's name gives the same number.
pub(super) fn named(policy: &Policy) -> Vec<u32> {
    let rules = policy.rules.iter();
    rules
        .map(|rule| number_of(&policy.name, &rule.section.place(rule.index), hash))
        .collect()
}

/// Where the rules of a policy stand, each with its number.
pub(super) fn sources(
    policy: &Policy,
    ids: &[u32],
) -> impl Iterator<Item = (u32, Arc<RuleSource>)> {
    policy.rules.iter().zip(ids).map(|(rule, &id)| {
        let source = RuleSource {
            id,
            policy: policy.name.clone(),
            section: rule.section.place(rule.index),
            file: policy.file.clone(),
            line: rule.line,
            draft: policy.draft,
        };
        (id, Arc::new(source))
    })
}

fn number_of(policy: &str, section: &str, hash: impl Fn(&[u8]) -> u32) -> u32 {
    1 + hash(format!("{policy}\0{section}").as_bytes()) % (END - 1)
}
