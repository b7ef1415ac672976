//! Numbers of rules: equal on every host and over recompilations, as long as the rule keeps its
//! policy, section and position.

use std::collections::BTreeMap;

use super::{RuleSource, identity::hash};
use crate::model::PolicySet;

/// One past the highest rule number; 0 means no rule.
const END: u32 = 1 << 31;

/// Number of every rule, by position of the policy in the set and of the rule in the policy.
pub(super) struct RuleIds {
    ids: Vec<Vec<u32>>,
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
        let mut taken = std::collections::HashSet::with_capacity(names.len());
        for (policy, section, number, place) in names {
            let mut id = 1 + hash(format!("{policy}\0{section}").as_bytes()) % (END - 1);
            while !taken.insert(id) {
                id = 1 + id % (END - 1);
            }
            if let Some(slot) = ids.get_mut(number).and_then(|rules| rules.get_mut(place)) {
                *slot = id;
            }
        }
        Self { ids }
    }

    /// Numbers of the rules of the policy at this position.
    pub(super) fn of_policy(&self, number: usize) -> &[u32] {
        self.ids.get(number).map_or(&[], Vec::as_slice)
    }

    pub(super) fn sources(&self, set: &PolicySet) -> BTreeMap<u32, RuleSource> {
        let mut sources = BTreeMap::new();
        for (number, policy) in set.policies.iter().enumerate() {
            for (rule, &id) in policy.rules.iter().zip(self.of_policy(number)) {
                let source = RuleSource {
                    policy: policy.name.clone(),
                    section: rule.section.place(rule.index),
                    file: policy.file.clone(),
                    line: rule.line,
                    draft: policy.draft,
                };
                let _ = sources.insert(id, source);
            }
        }
        sources
    }
}
