//! What the kernel maps must hold, and what the kernel makes of it.

use std::collections::BTreeMap;

use ringfence_common::abi::{
    CgroupEntry, ExecutableKey, Identity, ProcessKey,
    executable::ANY_UID,
    identity::{PENDING, UNKNOWN, is_workload},
};

use super::{executables::Executables, placement::Placement, tree::Tree};

/// What the kernel maps must hold.
///
/// Write `processes`, then `executables`, then `cgroups`, and remove in the opposite order: an entry
/// is never there before what it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `CGROUPS`: every known cgroup by id.
    pub cgroups: BTreeMap<u64, CgroupEntry>,
    /// `EXECUTABLES`: class of every judged executable.
    pub executables: BTreeMap<ExecutableKey, u32>,
    /// `PROCESSES`.
    pub processes: BTreeMap<ProcessKey, Identity>,
}

impl Tables {
    /// Everything anew.
    pub(super) fn build(tree: &Tree, placement: &mut Placement, executables: &Executables) -> Self {
        let cgroups = tree
            .iter()
            .map(|(id, path)| (id, placement.entry(path)))
            .collect();
        let executables = executables
            .keys()
            .filter_map(|key| Some((key, placement.executable(&executables.facts(&key)?))))
            .collect();
        Self {
            cgroups,
            executables,
            processes: placement.processes().clone(),
        }
    }

    /// Whether sockets that are open may belong to someone else under `new`: a cgroup or a process rule
    /// stands for another identity, or a cgroup of a workload was not known until now (its sockets
    /// were given the identity of an ancestor).
    #[must_use]
    pub fn moves(&self, new: &Self) -> bool {
        let cgroup_moves = new
            .cgroups
            .iter()
            .any(|(id, entry)| match self.cgroups.get(id) {
                Some(before) => before != entry,
                None => entry.class != 0 || is_workload(entry.identity),
            });
        let process_moves = |(key, identity): (&ProcessKey, &Identity)| {
            self.processes
                .get(key)
                .is_some_and(|before| before != identity)
        };
        cgroup_moves || new.processes.iter().any(process_moves)
    }

    /// The kernel's steps from a process to its identity.
    pub(super) fn resolve(
        &self,
        cgroup: u64,
        root: u64,
        exe: Option<&ExecutableKey>,
        uid: u32,
    ) -> Identity {
        let cgroups = &self.cgroups;
        let entry = cgroups.get(&cgroup).or_else(|| cgroups.get(&root));
        let Some(entry) = entry else {
            return UNKNOWN;
        };
        if entry.class == 0 {
            return entry.identity;
        }
        let Some(exe) = exe else {
            return UNKNOWN;
        };
        let Some(executable) = self.executables.get(exe).copied() else {
            return PENDING;
        };
        let find = |uid| {
            let key = ProcessKey {
                class: entry.class,
                executable,
                uid,
            };
            self.processes.get(&key).copied()
        };
        find(uid)
            .or_else(|| find(ANY_UID))
            .unwrap_or(entry.identity)
    }
}
