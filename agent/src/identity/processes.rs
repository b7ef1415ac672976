//! `PROCESSES`: which identity a process class, an executable class and a user add up to.
//!
//! The table holds the outcome of the specificity rule for every combination that some workload
//! asks for, so that the kernel only looks up. It grows with the combinations that match, not with
//! the product of all classes and executables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::Arc,
};

use ringfence_common::abi::{Identity, ProcessKey, executable::ANY_UID};

use super::{
    classes::Classes,
    matching::{Candidates, Spec},
    specificity::{Best, Condition, Place, Specificity},
    ties::Ties,
};

/// What is known of an executable, as far as selectors ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Facts {
    /// Paths of selectors that name it.
    pub paths: BTreeSet<PathBuf>,
    /// Its digest, where a selector names that.
    pub digest: Option<[u8; 32]>,
}

/// Content of the map.
pub(super) type ProcessTable = BTreeMap<ProcessKey, Identity>;

/// One workload in a process class: all that decides its part of the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    specificity: Specificity,
    identity: Identity,
    condition: Arc<Condition>,
}

type Ranked = Vec<(Specificity, usize)>;

/// The workloads of a class by the first thing that they ask of the executable.
#[derive(Clone, Debug, Default)]
struct Index {
    paths: HashMap<PathBuf, Ranked>,
    digests: HashMap<[u8; 32], Ranked>,
    any: Ranked,
}

/// Process classes, executable classes and the table that they span.
#[derive(Debug)]
pub(super) struct Processes {
    table: ProcessTable,
    /// Per workload.
    conditions: Vec<Arc<Condition>>,
    /// The workloads that every cgroup may hold.
    everywhere: Index,
    /// Stands for the meaning of `everywhere` in the classes.
    everywhere_hash: u64,
    classes: Classes<(u64, Vec<Member>)>,
    by_candidates: HashMap<Candidates, u32>,
    indexes: BTreeMap<u32, Index>,
    executables: Classes<Facts>,
}

impl Processes {
    /// Without any class.
    pub fn new(specs: &[Spec], ties: &mut Ties) -> Self {
        let conditions = specs.iter().map(|spec| Arc::new(spec.condition.clone()));
        let mut processes = Self {
            table: ProcessTable::new(),
            conditions: conditions.collect(),
            everywhere: Index::default(),
            everywhere_hash: 0,
            classes: Classes::new(),
            by_candidates: HashMap::new(),
            indexes: BTreeMap::new(),
            executables: Classes::new(),
        };
        let everywhere: Candidates = specs
            .iter()
            .enumerate()
            .filter(|(_, spec)| {
                spec.is_everywhere() && !spec.condition.is_empty() && spec.is_possible()
            })
            .map(|(workload, _)| (workload, Place::default()))
            .collect();
        let (index, meaning) = processes.index(&everywhere, specs);
        processes.check(index.all(), specs, ties);
        let mut hasher = DefaultHasher::new();
        meaning.hash(&mut hasher);
        processes.everywhere_hash = hasher.finish();
        processes.everywhere = index;
        processes
    }

    /// The table as it is now.
    pub fn table(&self) -> &ProcessTable {
        &self.table
    }

    /// Class of cgroups that may hold these workloads, all of which have conditions, besides those
    /// of every cgroup; 0 where there is none at all.
    pub fn class(&mut self, candidates: Candidates, specs: &[Spec], ties: &mut Ties) -> u32 {
        if candidates.is_empty() && self.everywhere.all().next().is_none() {
            return 0;
        }
        if let Some(class) = self.by_candidates.get(&candidates) {
            return *class;
        }
        let (index, meaning) = self.index(&candidates, specs);
        let (class, new) = self.classes.number(&(self.everywhere_hash, meaning));
        let _ = self.by_candidates.insert(candidates, class);
        if new {
            if index
                .all()
                .any(|(specificity, _)| specificity.is_placeless())
            {
                self.check(index.all().chain(self.everywhere.all()), specs, ties);
            } else {
                self.check(index.all(), specs, ties);
            }
            let key = ProcessKey {
                class,
                executable: 0,
                uid: ANY_UID,
            };
            let both = [&self.everywhere, &index];
            fill(key, both, &Facts::default(), specs, &mut self.table, ties);
            for (executable, facts) in self.executables.iter() {
                let key = ProcessKey { executable, ..key };
                fill(key, both, facts, specs, &mut self.table, ties);
            }
            let _ = self.indexes.insert(class, index);
        }
        class
    }

    /// Class of an executable; 0 where no selector names it.
    pub fn executable(&mut self, facts: &Facts, specs: &[Spec], ties: &mut Ties) -> u32 {
        if *facts == Facts::default() {
            return 0;
        }
        let (executable, new) = self.executables.number(facts);
        if new {
            for (class, index) in &self.indexes {
                let key = ProcessKey {
                    class: *class,
                    executable,
                    uid: ANY_UID,
                };
                let both = [&self.everywhere, index];
                fill(key, both, facts, specs, &mut self.table, ties);
            }
        }
        executable
    }

    fn index(&self, candidates: &Candidates, specs: &[Spec]) -> (Index, Vec<Member>) {
        let mut index = Index::default();
        let mut meaning = Vec::with_capacity(candidates.len());
        for (workload, place) in candidates {
            let Some((condition, spec)) = self.conditions.get(*workload).zip(specs.get(*workload))
            else {
                continue;
            };
            let specificity = Specificity::new(condition, *place);
            index.add(condition, specificity, *workload);
            meaning.push(Member {
                specificity,
                identity: spec.identity,
                condition: Arc::clone(condition),
            });
        }
        (index, meaning)
    }

    /// Finds workloads that ask for the same thing, even if no executable is like that now.
    fn check<'a>(
        &self,
        candidates: impl Iterator<Item = &'a (Specificity, usize)>,
        specs: &[Spec],
        ties: &mut Ties,
    ) {
        let mut seen = HashMap::new();
        for (specificity, workload) in candidates {
            let Some(condition) = self.conditions.get(*workload) else {
                continue;
            };
            let users = condition.users.as_ref();
            let listed = users.into_iter().flatten().copied();
            for uid in listed.chain(users.is_none().then_some(ANY_UID)) {
                let asked = (*specificity, &condition.paths, &condition.digests, uid);
                if let Some(other) = seen.insert(asked, *workload) {
                    ties.add(other, *workload, specs, || describe(&condition.paths, uid));
                }
            }
        }
    }
}

impl Index {
    fn add(&mut self, condition: &Condition, specificity: Specificity, workload: usize) {
        let list = if let Some(path) = condition.paths.first() {
            self.paths.entry(path.clone()).or_default()
        } else if let Some(digest) = condition.digests.first() {
            self.digests.entry(*digest).or_default()
        } else {
            &mut self.any
        };
        list.push((specificity, workload));
    }

    fn all(&self) -> impl Iterator<Item = &(Specificity, usize)> {
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

/// Writes what a class (its own workloads and those of every cgroup) and an executable class add up
/// to, per user.
fn fill(
    key: ProcessKey,
    indexes: [&Index; 2],
    facts: &Facts,
    specs: &[Spec],
    table: &mut ProcessTable,
    ties: &mut Ties,
) {
    let mut anybody = Best::default();
    let mut by_user: BTreeMap<u32, Best> = BTreeMap::new();
    for (specificity, workload) in indexes.into_iter().flat_map(|index| index.matching(facts)) {
        let Some(Spec { condition, .. }) = specs.get(*workload) else {
            continue;
        };
        if !condition.paths.is_subset(&facts.paths)
            || !condition
                .digests
                .iter()
                .all(|asked| facts.digest.as_ref() == Some(asked))
        {
            continue;
        }
        match &condition.users {
            None => anybody.offer(*specificity, *workload),
            Some(users) => {
                for user in users {
                    by_user
                        .entry(*user)
                        .or_default()
                        .offer(*specificity, *workload);
                }
            }
        }
    }
    let place = |uid| move || describe(&facts.paths, uid);
    if let Some(identity) = ties.decide(anybody, specs, place(ANY_UID)) {
        let _ = table.insert(key, identity);
    }
    for (uid, best) in by_user {
        if let Some(identity) = ties.decide(anybody.or(best), specs, place(uid)) {
            let _ = table.insert(ProcessKey { uid, ..key }, identity);
        }
    }
}

fn describe(paths: &BTreeSet<PathBuf>, uid: u32) -> String {
    let mut text = String::from("processes");
    for path in paths {
        text = format!("{text} of {}", path.display());
    }
    if uid != ANY_UID {
        text = format!("{text} of user {uid}");
    }
    text
}
