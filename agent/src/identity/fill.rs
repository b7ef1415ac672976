//! The part of `PROCESSES` that a process class and an executable class add up to, per user and groups.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use ringfence_common::abi::{Identity, ProcessKey, executable::ANY_UID};

use super::{
    groups::memberships,
    processes::{Facts, ProcessTable},
    spec::Spec,
    specificity::{Best, Condition, Specificity},
    ties::Ties,
};

type Ranked = Vec<(Specificity, usize)>;

/// The workloads of a class by the first thing that they ask of the executable.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    paths: HashMap<PathBuf, Ranked>,
    digests: HashMap<[u8; 32], Ranked>,
    any: Ranked,
}

impl Index {
    /// Adds a workload.
    pub fn add(&mut self, condition: &Condition, specificity: Specificity, workload: usize) {
        let list = if let Some(path) = condition.paths.first() {
            self.paths.entry(path.clone()).or_default()
        } else if let Some(digest) = condition.digests.first() {
            self.digests.entry(*digest).or_default()
        } else {
            &mut self.any
        };
        list.push((specificity, workload));
    }

    /// Every workload.
    pub fn all(&self) -> impl Iterator<Item = &(Specificity, usize)> {
        let named = self.paths.values().chain(self.digests.values());
        named.flatten().chain(&self.any)
    }

    /// Workloads that may match an executable.
    fn matching<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = &'a (Specificity, usize)> {
        let paths = facts.paths.iter().filter_map(|path| self.paths.get(path));
        let digest = facts
            .digest
            .as_ref()
            .and_then(|digest| self.digests.get(digest));
        paths.chain(digest).flatten().chain(&self.any)
    }
}

/// What the table of one class is made from.
pub(super) struct Sources<'a> {
    /// Its own workloads and those of every cgroup.
    pub indexes: [&'a Index; 2],
    /// The groups that they ask for, ascending.
    pub asked: &'a [u32],
    /// All workloads.
    pub specs: &'a [Spec],
}

/// A workload that asks nothing of the executable that the executable is not.
type Match<'a> = (Specificity, usize, &'a Condition);

impl Sources<'_> {
    /// Writes what the class and the executable class of a key add up to, per user. Groups in which a
    /// process is are written only where they change something: see `tables::find`.
    pub fn fill(&self, key: ProcessKey, facts: &Facts, table: &mut ProcessTable, ties: &mut Ties) {
        let matches: Vec<Match<'_>> = self
            .indexes
            .into_iter()
            .flat_map(|index| index.matching(facts))
            .filter_map(|(specificity, workload)| {
                let condition = &self.specs.get(*workload)?.condition;
                let digest = |asked| facts.digest.as_ref() == Some(asked);
                let holds =
                    condition.paths.is_subset(&facts.paths) && condition.digests.iter().all(digest);
                holds.then_some((*specificity, *workload, condition))
            })
            .collect();
        let mut of_none = BTreeMap::new();
        for (member, groups) in memberships(self.asked) {
            let outcome = self.outcome(&matches, facts, &groups, ties);
            if member != 0 && outcome == of_none {
                continue;
            }
            let class = key.class | member;
            let entries = outcome.iter();
            table.extend(entries.map(|(uid, identity)| {
                (
                    ProcessKey {
                        class,
                        uid: *uid,
                        ..key
                    },
                    *identity,
                )
            }));
            if member == 0 {
                of_none = outcome;
            }
        }
    }

    /// Identity per user, of processes in exactly these of the groups.
    fn outcome(
        &self,
        matches: &[Match<'_>],
        facts: &Facts,
        groups: &BTreeSet<u32>,
        ties: &mut Ties,
    ) -> BTreeMap<u32, Identity> {
        let mut anybody = Best::default();
        let mut by_user: BTreeMap<u32, Best> = BTreeMap::new();
        for (specificity, workload, condition) in matches {
            if !condition.groups.is_subset(groups) {
                continue;
            }
            match &condition.users {
                None => anybody.offer(*specificity, *workload),
                Some(users) => {
                    for user in users {
                        let best = by_user.entry(*user).or_default();
                        best.offer(*specificity, *workload);
                    }
                }
            }
        }
        for best in by_user.values_mut() {
            *best = anybody.or(*best);
        }
        let _ = by_user.insert(ANY_UID, anybody);
        let decided = by_user.into_iter().filter_map(|(uid, best)| {
            let place = || describe(&facts.paths, uid, groups);
            Some((uid, ties.decide(best, self.specs, place)?))
        });
        decided.collect()
    }
}

/// Processes in words.
pub(super) fn describe(paths: &BTreeSet<PathBuf>, uid: u32, groups: &BTreeSet<u32>) -> String {
    let mut text = String::from("processes");
    for path in paths {
        text = format!("{text} of {}", path.display());
    }
    if uid != ANY_UID {
        text = format!("{text} of user {uid}");
    }
    for gid in groups {
        text = format!("{text} in group {gid}");
    }
    text
}
