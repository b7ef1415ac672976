//! What the kernel maps must hold, and what the kernel makes of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};
use ringfence_common::abi::{
    CgroupEntry, ChildKey, ClassGroups, ExecutableKey, Identity, ProcessKey,
    cgroup::{NAME_BYTES, OTHERS},
    executable::{ANY_UID, GROUPED, MEMBER},
    identity::{PENDING, UNKNOWN},
};

use super::{
    containers::{ContainerFacts, Containers, container_of},
    executables::Executables,
    groups::Groups,
    placement::Placement,
    tree::Tree,
};

/// Entries of `children` at most: three quarters of what the map holds, so that those which are new have room before
/// others go.
const MOST_CHILDREN: usize = 98_304;

/// What the kernel maps must hold. Copies share what they have in common: to copy them and to compare two that
/// differ in little costs little, however much they hold.
///
/// Write `processes` and `groups`, then `executables`, `children`, `cgroups`, and remove in the opposite order: an entry
/// is never there before what it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `CGROUPS`: every known cgroup by id.
    pub cgroups: OrdMap<u64, CgroupEntry>,
    /// `CHILDREN`: cgroups that may come to be.
    pub children: OrdMap<ChildKey, CgroupEntry>,
    /// `EXECUTABLES`: class of every judged executable.
    pub executables: OrdMap<ExecutableKey, u32>,
    /// `PROCESSES`.
    pub processes: OrdMap<ProcessKey, Identity>,
    /// `GROUPS`: by process class.
    pub groups: OrdMap<u32, ClassGroups>,
    /// Not for the kernel: what runtimes have said of the containers in these cgroups.
    pub containers: Arc<BTreeMap<PathBuf, ContainerFacts>>,
}

impl Tables {
    /// Everything anew.
    pub(super) fn build(
        tree: &Tree,
        containers: &Containers,
        placement: &mut Placement,
        executables: &Executables,
    ) -> Self {
        let mut tables = Self::default();
        for (id, _) in tree.iter() {
            let _ = tables.set_cgroup(id, tree, containers, placement);
        }
        tables.executables = executables
            .keys()
            .filter_map(|key| Some((key, placement.executable(&executables.facts(&key)?))))
            .collect();
        tables.processes.clone_from(placement.processes());
        tables.containers = Arc::new(containers.facts_by_path());
        tables.groups.clone_from(placement.groups());
        tables
    }

    /// What a runtime has said of the container that the cgroup at a path belongs to.
    #[must_use]
    pub fn container(&self, cgroup: &Path) -> Option<&ContainerFacts> {
        let (prefix, _) = container_of(cgroup)?;
        self.containers.get(prefix)
    }

    /// Enters a cgroup; returns whether something changed.
    pub(super) fn set_cgroup(
        &mut self,
        id: u64,
        tree: &Tree,
        containers: &Containers,
        placement: &mut Placement,
    ) -> bool {
        let Some((mut entry, mut children)) = placement.member(id, tree, containers) else {
            return false;
        };
        let before = self.children_of(id);
        if self.children.len() - before.len() + children.len() > MOST_CHILDREN {
            children.clear();
            entry.below = OTHERS;
        }
        let same = before.iter().copied().eq(children.iter().copied());
        if !same {
            for (key, _) in &before {
                let _ = self.children.remove(key);
            }
            self.children.extend(children);
        }
        self.cgroups.insert(id, entry) != Some(entry) || !same
    }

    /// Removes a cgroup; returns whether it was there.
    pub(super) fn remove_cgroup(&mut self, id: u64) -> bool {
        for (key, _) in self.children_of(id) {
            let _ = self.children.remove(&key);
        }
        self.cgroups.remove(&id).is_some()
    }

    fn children_of(&self, parent: u64) -> Vec<(ChildKey, CgroupEntry)> {
        let name = |byte| ChildKey {
            parent,
            name: [byte; NAME_BYTES],
        };
        let found = self.children.range(name(0)..=name(u8::MAX));
        found.map(|(key, entry)| (*key, *entry)).collect()
    }

    /// These tables while `new` come into force: what stands for someone else then is pending meanwhile.
    /// `None` when nothing moves. A cgroup that was not known until now does not: the kernel takes it
    /// for what its name says, or for pending.
    #[must_use]
    pub fn on_the_way_to(&self, new: &Self) -> Option<Self> {
        let pending = |entry: &CgroupEntry| CgroupEntry {
            identity: PENDING,
            class: 0,
            ..*entry
        };
        let moves = |before: &CgroupEntry, entry: &CgroupEntry| {
            before.identity != PENDING
                && (before.identity, before.class) != (entry.identity, entry.class)
        };
        let cgroups = moved(&self.cgroups, &new.cgroups, moves);
        let children = moved(&self.children, &new.children, moves);
        let differs = |_: &u32, _: &u32| true;
        let processes = moved(&self.processes, &new.processes, differs);
        let executables = moved(&self.executables, &new.executables, differs);
        if cgroups.is_empty()
            && children.is_empty()
            && processes.is_empty()
            && executables.is_empty()
        {
            return None;
        }
        let mut way = new.clone();
        let hold = |(key, entry)| (key, pending(&entry));
        way.cgroups.extend(cgroups.into_iter().map(hold));
        way.children.extend(
            children
                .into_iter()
                .map(|(key, entry)| (key, pending(&entry))),
        );
        way.processes
            .extend(processes.into_keys().map(|key| (key, PENDING)));
        for key in executables.keys() {
            let _ = way.executables.remove(key);
        }
        Some(way)
    }

    /// Process class of a process in a cgroup; `None` where its groups decide that and are not known.
    pub(super) fn class_of(&self, cgroup: u64, groups: &Groups) -> Option<u32> {
        let class = self.cgroups.get(&cgroup).map_or(0, |entry| entry.class);
        groups.class(class, self.groups.get(&class))
    }

    /// The kernel's steps from a process to its identity; `root` is the cgroup id of the guarded root.
    #[must_use]
    pub fn resolve(
        &self,
        cgroup: u64,
        root: u64,
        exe: Option<&ExecutableKey>,
        uid: u32,
        groups: &Groups,
    ) -> Identity {
        let cgroups = &self.cgroups;
        let entry = match (cgroups.get(&cgroup), cgroups.get(&root)) {
            (Some(entry), _) => entry,
            (None, Some(root)) if root.below == 0 => root,
            (None, Some(_)) => return PENDING,
            (None, None) => return UNKNOWN,
        };
        if entry.class == 0 {
            return entry.identity;
        }
        let Some(exe) = exe else {
            return UNKNOWN;
        };
        let executable = match self.executables.get(exe) {
            Some(executable) => *executable,
            None if *exe == ExecutableKey::FOREIGN => 0,
            None => return PENDING,
        };
        let Some(class) = groups.class(entry.class, self.groups.get(&entry.class)) else {
            return UNKNOWN;
        };
        find(&self.processes, class, executable, uid).unwrap_or(entry.identity)
    }
}

/// What `PROCESSES` says of a process: of the groups that it is in, or else of any groups.
pub(super) fn find(
    processes: &OrdMap<ProcessKey, Identity>,
    class: u32,
    executable: u32,
    uid: u32,
) -> Option<Identity> {
    let grouped = class & GROUPED != 0;
    let classes = [Some(class), grouped.then_some(class & !MEMBER)];
    classes.into_iter().flatten().find_map(|class| {
        [uid, ANY_UID].into_iter().find_map(|uid| {
            let key = ProcessKey {
                class,
                executable,
                uid,
            };
            processes.get(&key).copied()
        })
    })
}

/// What is there before and now, and differs in a way that counts.
fn moved<K: Copy + Ord, V: Copy + PartialEq>(
    before: &OrdMap<K, V>,
    now: &OrdMap<K, V>,
    moves: impl Fn(&V, &V) -> bool,
) -> BTreeMap<K, V> {
    let changes = before.diff(now).filter_map(|item| match item {
        DiffItem::Update {
            old: (_, before),
            new: (key, now),
        } if moves(before, now) => Some((*key, *now)),
        DiffItem::Add(..) | DiffItem::Update { .. } | DiffItem::Remove(..) => None,
    });
    changes.collect()
}
