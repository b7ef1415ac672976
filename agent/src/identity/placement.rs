//! Cgroup entries: the identity of a cgroup and the class of its processes.

use std::{collections::HashMap, ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use ringfence_common::abi::{
    CgroupEntry, ChildKey,
    cgroup::{CONTAINERS, NAMED, OTHERS},
    identity::{HOST, PENDING, UNKNOWN},
};
use ringfence_policy::model::{Identities, Workload};

use super::{
    IdentityError,
    containers::{Container, ContainerFacts, Containers},
    groups::Crowd,
    matching::{Candidates, Covered, Matcher},
    processes::{Facts, GroupTable, ProcessTable, Processes},
    spec::Spec,
    specificity::{Best, Specificity},
    ties::{Tie, Ties},
    tree::{Tree, directory::names},
};

/// One set of workloads with everything that follows from it.
pub(super) struct Placement {
    specs: Vec<Spec>,
    matcher: Matcher,
    /// By cgroup, so that one costs its own name and not its path.
    covered: HashMap<u64, Covered>,
    processes: Processes,
    ties: Ties,
    crowd: Option<Crowd>,
}

impl Placement {
    /// For the workloads of one policy generation.
    pub fn new(specs: Vec<Spec>) -> Result<Self, IdentityError> {
        let mut ties = Ties::default();
        Ok(Self {
            matcher: Matcher::new(&specs)?,
            processes: Processes::new(&specs, &mut ties),
            ties,
            crowd: None,
            covered: HashMap::new(),
            specs,
        })
    }

    /// The workloads.
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// Every tie that came up so far.
    pub fn ties(&self) -> impl Iterator<Item = &Tie> {
        self.ties.iter()
    }

    /// The first workloads found that ask for too many groups in one cgroup.
    pub fn crowd(&self) -> Option<&Crowd> {
        self.crowd.as_ref()
    }

    /// Content of `PROCESSES`.
    pub fn processes(&self) -> &ProcessTable {
        self.processes.table()
    }

    /// Content of `GROUPS`.
    pub fn groups(&self) -> &GroupTable {
        self.processes.groups()
    }

    /// Entry of the cgroup at a path below the guarded root.
    #[cfg(test)]
    pub fn entry(&mut self, path: &Path, containers: &Containers) -> CgroupEntry {
        let covered = self.matcher.covered(path);
        self.entry_of(path, &covered, containers)
    }

    fn entry_of(&mut self, path: &Path, covered: &Covered, containers: &Containers) -> CgroupEntry {
        let container = match containers.of(path) {
            Container::Asked if self.matcher.asks_containers() => {
                return CgroupEntry {
                    identity: PENDING,
                    class: 0,
                    below: 0,
                };
            }
            Container::Asked | Container::No => None,
            Container::Is(facts) => Some(facts),
        };
        let mut base = Best::default();
        let mut candidates = Candidates::new();
        for (workload, place) in self.matcher.among(covered, path, container) {
            let Some(spec) = self.specs.get(workload) else {
                continue;
            };
            if spec.condition.is_empty() {
                base.offer(Specificity::new(&spec.condition, place), workload);
            } else if spec.is_possible() {
                candidates.push((workload, place));
            }
        }
        let identity = self
            .ties
            .decide(base, &self.specs, || format!("cgroup {}", path.display()));
        let class = self
            .processes
            .class(candidates, &self.specs, &mut self.ties);
        match class {
            Ok(class) => CgroupEntry {
                identity: identity.unwrap_or(HOST),
                class,
                below: 0,
            },
            Err((workloads, groups)) => {
                self.note(Crowd {
                    workloads,
                    groups,
                    cgroup: path.display().to_string(),
                });
                CgroupEntry {
                    identity: UNKNOWN,
                    class: 0,
                    below: 0,
                }
            }
        }
    }

    fn note(&mut self, crowd: Crowd) {
        if self.crowd.is_none() {
            tracing::warn!(
                %crowd,
                "too many groups: processes of such a cgroup are of no workload and not allowed"
            );
            self.crowd = Some(crowd);
        }
    }

    /// [`Self::family`] of a cgroup of the tree; nothing where it is not there.
    pub fn member(
        &mut self,
        id: u64,
        tree: &Tree,
        containers: &Containers,
    ) -> Option<(CgroupEntry, Vec<(ChildKey, CgroupEntry)>)> {
        let covered = self.cover(id, tree)?;
        Some(self.family_of(id, tree.path(id)?, &covered, containers))
    }

    /// A cgroup is another one now, or none.
    pub fn forget(&mut self, id: u64) {
        let _ = self.covered.remove(&id);
    }

    /// Every cgroup may be another one now.
    pub fn forget_all(&mut self) {
        self.covered.clear();
    }

    /// Which patterns cover a cgroup of the tree: those of the one above, and those that match it itself.
    fn cover(&mut self, id: u64, tree: &Tree) -> Option<Covered> {
        let mut missing = Vec::new();
        let mut next = Some(id);
        let mut covered = None;
        while let Some(id) = next {
            covered = self.covered.get(&id).cloned();
            if covered.is_some() {
                break;
            }
            missing.push(id);
            next = tree.parent(id);
        }
        let mut covered = covered.unwrap_or_default();
        for id in missing.into_iter().rev() {
            covered = self
                .matcher
                .cover(&covered, tree.path(id)?, tree.level(id)?);
            let _ = self.covered.insert(id, covered.clone());
        }
        Some(covered)
    }

    /// Entry of the cgroup with a number, with what is below it, and the entries of cgroups that may come
    /// to be right below and would stand for someone else.
    #[cfg(test)]
    pub fn family(
        &mut self,
        id: u64,
        path: &Path,
        containers: &Containers,
    ) -> (CgroupEntry, Vec<(ChildKey, CgroupEntry)>) {
        let covered = self.matcher.covered(path);
        self.family_of(id, path, &covered, containers)
    }

    fn family_of(
        &mut self,
        id: u64,
        path: &Path,
        covered: &Covered,
        containers: &Containers,
    ) -> (CgroupEntry, Vec<(ChildKey, CgroupEntry)>) {
        let below = self.matcher.below(path, covered);
        let level = names(path).count();
        let level = u32::try_from(level + 1).unwrap_or(u32::MAX);
        let mut own = self.entry_of(path, covered, containers);
        let mut children = Vec::new();
        let (named, mut others) = (!below.names.is_empty(), below.others);
        for name in &below.names {
            let place = path.join(OsStr::from_bytes(name));
            let covered = self.matcher.cover(covered, &place, level);
            let child = self.entry_of(&place, &covered, containers);
            if child == own {
                continue;
            }
            match ChildKey::new(id, name) {
                Some(key) => children.push((key, child)),
                None => others = true,
            }
        }
        let inside = containers.of(path) != Container::No;
        own.below = if named { NAMED } else { 0 }
            | if others { OTHERS } else { 0 }
            | if self.matcher.asks_containers() && !inside {
                CONTAINERS
            } else {
                0
            };
        (own, children)
    }

    /// Whether some workload asks what a container runtime says.
    pub fn asks_containers(&self) -> bool {
        self.matcher.asks_containers()
    }

    /// Class of an executable.
    pub fn executable(&mut self, facts: &Facts) -> u32 {
        self.processes
            .executable(facts, &self.specs, &mut self.ties)
    }

    /// Numbers of the workloads that have cgroup selectors, all of which match a cgroup of the tree.
    pub fn members(
        &self,
        id: u64,
        tree: &Tree,
        containers: &Containers,
    ) -> impl Iterator<Item = usize> + use<> {
        let found = tree.path(id).map(|path| {
            let container = container(path, containers);
            match self.covered.get(&id) {
                Some(covered) => self.matcher.among(covered, path, container),
                None => self.matcher.candidates(path, container),
            }
        });
        let found = found.unwrap_or_default().into_iter();
        found.map(|(workload, _)| workload)
    }

    /// How often a path was compared with all patterns.
    #[cfg(test)]
    pub fn comparisons(&self) -> u64 {
        self.matcher.comparisons()
    }
}

/// What the runtime has said of the container that a path belongs to.
fn container<'f>(path: &Path, containers: &'f Containers) -> Option<&'f ContainerFacts> {
    match containers.of(path) {
        Container::Is(facts) => Some(facts),
        Container::Asked | Container::No => None,
    }
}

/// Reads workloads; `user` and `group` resolve names.
pub(super) fn specs(
    workloads: &[Arc<Workload>],
    identities: &Identities,
    user: impl Fn(&str) -> Option<u32>,
    group: impl Fn(&str) -> Option<u32>,
) -> Result<Vec<Spec>, IdentityError> {
    let specs = workloads.iter();
    specs
        .map(|workload| Spec::new(workload, identities, &user, &group))
        .collect()
}
