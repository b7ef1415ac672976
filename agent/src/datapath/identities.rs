//! Identities into the maps: writes the difference between what the resolver wants and what is there.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use imbl::{OrdMap, ordmap::DiffItem};
use ringfence_common::abi::{
    CgroupEntry, ChildKey, ClassGroups, ExecutableKey, Identity, LocalKey, ProcessKey,
    cgroup::OTHERS, identity::PENDING, names,
};

use super::{
    error::{DatapathError, io_error},
    maps::{self, absent_is_fine, full},
};
use crate::identity::Tables;

/// The maps by which the kernel finds identities.
pub struct Identities {
    cgroups: Mirror<u64, CgroupEntry>,
    children: Mirror<ChildKey, CgroupEntry>,
    executables: Mirror<ExecutableKey, u32>,
    processes: Mirror<ProcessKey, Identity>,
    groups: Mirror<u32, ClassGroups>,
    local_addresses: Mirror<LocalKey, u8>,
}

impl Identities {
    /// Opens the pinned maps and reads what they hold.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        Ok(Self {
            cgroups: Mirror::open(directory, names::CGROUPS)?,
            children: Mirror::open(directory, names::CHILDREN)?,
            executables: Mirror::open(directory, names::EXECUTABLES)?,
            processes: Mirror::open(directory, names::PROCESSES)?,
            groups: Mirror::open(directory, names::GROUPS)?,
            local_addresses: Mirror::open(directory, names::LOCAL_ADDRESSES)?,
        })
    }

    /// Brings the maps in line. What is looked up last is written first, and removed last, so that a
    /// program meets no half of a change. Where a map has no room for both, what is to go goes first, and
    /// whoever that concerns is pending meanwhile.
    ///
    /// # Errors
    /// [`DatapathError::Full`]: it does not fit, and the maps hold what they held before; or [`DatapathError::Map`].
    pub fn apply(&mut self, tables: &Tables) -> Result<(), DatapathError> {
        let before = self.held();
        match self.add(tables) {
            Err(DatapathError::Full { name, .. }) => {
                tracing::debug!(name, "no room for what was and what is to be");
                if let Err(error) = self.replace(tables) {
                    self.replace(&before)?;
                    return Err(error);
                }
            }
            added => added?,
        }
        self.remove_others(tables)
    }

    /// The same with the others removed first. (An entry that is there can be replaced in a full map.)
    fn replace(&mut self, tables: &Tables) -> Result<(), DatapathError> {
        let held = self.cgroups.held.iter();
        let held = held.map(|(id, entry)| (*id, hold(entry))).collect();
        self.cgroups.add(&held)?;
        self.cgroups.retain(&tables.cgroups)?;
        self.children.retain(&tables.children)?;
        self.executables.retain(&tables.executables)?;
        self.groups.retain(&tables.groups)?;
        self.processes.retain(&tables.processes)?;
        self.add(tables)
    }

    fn add(&mut self, tables: &Tables) -> Result<(), DatapathError> {
        self.processes.add(&tables.processes)?;
        self.groups.add(&tables.groups)?;
        self.executables.add(&tables.executables)?;
        self.children.add(&tables.children)?;
        self.cgroups.add(&tables.cgroups)
    }

    fn remove_others(&mut self, tables: &Tables) -> Result<(), DatapathError> {
        self.cgroups.remove_others(&tables.cgroups)?;
        self.children.remove_others(&tables.children)?;
        self.executables.remove_others(&tables.executables)?;
        self.groups.remove_others(&tables.groups)?;
        self.processes.remove_others(&tables.processes)
    }

    /// What the maps hold.
    #[must_use]
    pub fn held(&self) -> Tables {
        Tables {
            cgroups: self.cgroups.held.clone(),
            children: self.children.held.clone(),
            executables: self.executables.held.clone(),
            processes: self.processes.held.clone(),
            groups: self.groups.held.clone(),
            ..Tables::default()
        }
    }

    /// Adds the addresses that are local to some network namespace or broadcast there; others are removed where the list
    /// is complete, or there is no room without.
    ///
    /// # Errors
    /// [`DatapathError::Full`] or [`DatapathError::Map`].
    pub fn set_local_addresses(
        &mut self,
        wanted: &OrdMap<LocalKey, u8>,
        complete: bool,
    ) -> Result<(), DatapathError> {
        match self.local_addresses.add(wanted) {
            Err(DatapathError::Full { .. }) => {
                self.local_addresses.retain(wanted)?;
                self.local_addresses.add(wanted)?;
            }
            added => added?,
        }
        if !complete {
            return Ok(());
        }
        self.local_addresses.remove_others(wanted)
    }
}

/// A hash map and what it is known to hold.
struct Mirror<K: Pod, V: Pod> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
    held: OrdMap<K, V>,
}

impl<K: Pod + Ord, V: Pod + PartialEq> Mirror<K, V> {
    fn open(directory: &Path, name: &'static str) -> Result<Self, DatapathError> {
        Ok(Self::of(name, maps::open(directory, name)?))
    }

    fn of(name: &'static str, map: HashMap<MapData, K, V>) -> Self {
        let held = map.iter().flatten().collect();
        Self { name, map, held }
    }

    fn add(&mut self, wanted: &OrdMap<K, V>) -> Result<(), DatapathError> {
        let held = self.held.clone();
        for change in held.diff(wanted) {
            let (DiffItem::Add(key, value)
            | DiffItem::Update {
                new: (key, value), ..
            }) = change
            else {
                continue;
            };
            self.map
                .insert(key, value, 0)
                .map_err(|error| full(io_error(error), self.name, wanted.len()))?;
            let _ = self.held.insert(*key, *value);
        }
        Ok(())
    }

    /// Removes what is not wanted; [`Self::add`] came before.
    fn remove_others(&mut self, wanted: &OrdMap<K, V>) -> Result<(), DatapathError> {
        self.retain(wanted)?;
        // Equal by now: from here on both share their memory, and the next comparison is short.
        self.held = wanted.clone();
        Ok(())
    }

    /// Removes what is not wanted.
    fn retain(&mut self, wanted: &OrdMap<K, V>) -> Result<(), DatapathError> {
        let held = self.held.clone();
        for change in held.diff(wanted) {
            if let DiffItem::Remove(key, _) = change {
                absent_is_fine(self.map.remove(key), self.name)?;
                let _ = self.held.remove(key);
            }
        }
        Ok(())
    }
}

/// An entry while what tells its processes or the cgroups below it apart may be gone: nobody is to be taken for what
/// the rest stands for.
fn hold(entry: &CgroupEntry) -> CgroupEntry {
    let mut held = *entry;
    if entry.class != 0 {
        (held.identity, held.class) = (PENDING, 0);
    }
    if entry.below != 0 {
        held.below = OTHERS;
    }
    held
}

#[cfg(test)]
mod tests;
