//! `PROCESSES`: which identity a process class, an executable class, a user and groups add up to.
//!
//! The table holds the outcome of the specificity rule for every combination that some workload
//! asks for, so that the kernel only looks up. It grows with the combinations that match, not with
//! the product of all classes and executables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{Hash, Hasher as _},
    path::PathBuf,
    sync::Arc,
};

use imbl::OrdMap;
use ringfence_common::abi::{ClassGroups, Identity, ProcessKey, executable::ANY_UID};

use super::{
    classes::{Classes, Form},
    fill::{Index, Sources, describe},
    groups,
    matching::Candidates,
    spec::Spec,
    specificity::{Condition, Place, Specificity},
    stable::Stable,
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
pub(super) type ProcessTable = OrdMap<ProcessKey, Identity>;

/// Content of `GROUPS`.
pub(super) type GroupTable = OrdMap<u32, ClassGroups>;

/// One workload in a process class: all that decides its part of the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    specificity: Specificity,
    identity: Identity,
    condition: Arc<Condition>,
}

/// Process classes, executable classes and the table that they span.
#[derive(Debug)]
pub(super) struct Processes {
    table: ProcessTable,
    groups: GroupTable,
    /// Per workload.
    conditions: Vec<Arc<Condition>>,
    /// The workloads that every cgroup may hold.
    everywhere: Index,
    /// Stands for the meaning of `everywhere` in the classes.
    everywhere_hash: u64,
    classes: Classes<(u64, Vec<Member>)>,
    by_candidates: HashMap<Candidates, u32>,
    indexes: BTreeMap<u32, (Index, Vec<u32>)>,
    executables: Classes<Facts>,
}

impl Processes {
    /// Without any class.
    pub fn new(specs: &[Spec], ties: &mut Ties) -> Self {
        let conditions = specs.iter().map(|spec| Arc::new(spec.condition.clone()));
        let mut processes = Self {
            table: ProcessTable::new(),
            groups: GroupTable::new(),
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
        let mut hasher = Stable::new();
        meaning.hash(&mut hasher);
        processes.everywhere_hash = hasher.finish();
        processes.everywhere = index;
        processes
    }

    /// The table as it is now.
    pub fn table(&self) -> &ProcessTable {
        &self.table
    }

    /// The groups that each class asks for.
    pub fn groups(&self) -> &GroupTable {
        &self.groups
    }

    /// Class of cgroups that may hold these workloads, all of which have conditions, besides those
    /// of every cgroup; 0 where there is none at all.
    ///
    /// # Errors
    /// They ask for too many groups: the names of those that do, and how many groups.
    pub fn class(
        &mut self,
        candidates: Candidates,
        specs: &[Spec],
        ties: &mut Ties,
    ) -> Result<u32, (BTreeSet<String>, usize)> {
        if candidates.is_empty() && self.everywhere.all().next().is_none() {
            return Ok(0);
        }
        if let Some(class) = self.by_candidates.get(&candidates) {
            return Ok(*class);
        }
        let (index, meaning) = self.index(&candidates, specs);
        let workloads = index.all().chain(self.everywhere.all());
        let asked = groups::asked(workloads.filter_map(|(_, workload)| specs.get(*workload)))?;
        let form = if asked.is_empty() {
            Form::Plain
        } else {
            Form::Grouped
        };
        let meaning = (self.everywhere_hash, meaning);
        let (class, new) = self.classes.number(&meaning, form);
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
            if form == Form::Grouped {
                let _ = self.groups.insert(class, groups::of_class(&asked));
            }
            let sources = Sources {
                indexes: [&self.everywhere, &index],
                asked: &asked,
                specs,
            };
            sources.fill(key, &Facts::default(), &mut self.table, ties);
            for (executable, facts) in self.executables.iter() {
                let key = ProcessKey { executable, ..key };
                sources.fill(key, facts, &mut self.table, ties);
            }
            let _ = self.indexes.insert(class, (index, asked));
        }
        Ok(class)
    }

    /// Class of an executable; 0 where no selector names it.
    pub fn executable(&mut self, facts: &Facts, specs: &[Spec], ties: &mut Ties) -> u32 {
        if *facts == Facts::default() {
            return 0;
        }
        let (executable, new) = self.executables.number(facts, Form::Plain);
        if new {
            for (class, (index, asked)) in &self.indexes {
                let key = ProcessKey {
                    class: *class,
                    executable,
                    uid: ANY_UID,
                };
                let sources = Sources {
                    indexes: [&self.everywhere, index],
                    asked,
                    specs,
                };
                sources.fill(key, facts, &mut self.table, ties);
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
                let Condition {
                    paths,
                    digests,
                    groups,
                    ..
                } = &**condition;
                let asked = (*specificity, paths, digests, uid, groups);
                if let Some(other) = seen.insert(asked, *workload) {
                    ties.add(other, *workload, specs, || describe(paths, uid, groups));
                }
            }
        }
    }
}
