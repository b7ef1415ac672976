//! Who would be who with other workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ringfence_common::abi::{ExecutableKey, Identity, Owner};
use ringfence_policy::model::{Identities, Workload};

use super::{Groups, IdentityError, Placement, Resolver, Tables, group, specs, user};
use crate::identity::{Asker, adopt, mounts::Mounts};

/// Who would be who.
#[derive(Clone, Debug, Default)]
pub struct Foreseen {
    /// What the kernel maps would hold.
    pub tables: Tables,
    /// Whether that can differ from what they hold.
    pub moves: bool,
    /// What the processes that were asked for run, and their groups.
    processes: BTreeMap<u32, (u32, Option<ExecutableKey>, Groups)>,
    root: u64,
}

impl Resolver {
    /// What these workloads would make of the host, and of the processes with these numbers. Nothing
    /// comes into force. An executable whose digest is not known is asked for, and pending in the answer.
    ///
    /// # Errors
    /// As [`Self::set_workloads`] where ties are refused.
    pub fn foresee(
        &self,
        workloads: &[Arc<Workload>],
        identities: &Identities,
        tgids: &BTreeSet<u32>,
    ) -> Result<Foreseen, IdentityError> {
        let root = self.root_id();
        let specs = specs(workloads, identities, user, group)?;
        if specs == self.placement.specs() {
            return Ok(Foreseen {
                tables: self.tables.clone(),
                root,
                ..Foreseen::default()
            });
        }
        let mut placement = Placement::new(specs)?;
        let mut executables = self.executables.with_specs(placement.specs());
        let _ = executables.refresh();
        let own = Mounts::own().unwrap_or_default();
        let mut processes = BTreeMap::new();
        for tgid in tgids {
            let Some((uid, groups)) = adopt::credentials(*tgid) else {
                continue;
            };
            let key = adopt::executable(*tgid, &own);
            if let Some(key) = key
                && executables.facts(&key).is_none()
            {
                let _ = executables.judge_process(key, *tgid, Asker::User(uid));
            }
            let _ = processes.insert(*tgid, (uid, key, groups));
        }
        let tables = Tables::build(&self.tree, &self.containers, &mut placement, &executables);
        let tie = placement.ties().find(|tie| !tie.by_group);
        let crowd = placement.crowd().cloned().map(IdentityError::Groups);
        let fault = tie.cloned().map(IdentityError::Tie).or(crowd);
        let foreseen = Foreseen {
            tables,
            moves: true,
            processes,
            root,
        };
        fault.map_or(Ok(foreseen), Err)
    }
}

impl Foreseen {
    /// Who would own a socket that has this owner.
    #[must_use]
    pub fn owner(&self, owner: &Owner) -> Identity {
        let process = self.processes.get(&owner.tgid);
        // Another process has the number now.
        let process = process.filter(|(uid, ..)| *uid == owner.uid);
        let noted = owner.executable != ExecutableKey::default();
        let key = noted
            .then_some(owner.executable)
            .or_else(|| process.and_then(|(_, key, _)| *key));
        let groups = process.map_or(Groups::Noted(owner.class), |(_, _, groups)| groups.clone());
        self.tables
            .resolve(owner.cgroup, self.root, key.as_ref(), owner.uid, &groups)
    }
}
