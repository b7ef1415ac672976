//! Identities into the maps: writes the difference between what the resolver wants and what is there.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use imbl::{OrdMap, ordmap::DiffItem};
use ringfence_common::abi::{
    CgroupEntry, ChildKey, ClassGroups, ExecutableKey, Identity, LocalKey, ProcessKey, names,
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
    /// program meets no half of a change.
    ///
    /// # Errors
    /// [`DatapathError::Full`] or [`DatapathError::Map`].
    pub fn apply(&mut self, tables: &Tables) -> Result<(), DatapathError> {
        self.processes.add(&tables.processes)?;
        self.groups.add(&tables.groups)?;
        self.executables.add(&tables.executables)?;
        self.children.add(&tables.children)?;
        self.cgroups.add(&tables.cgroups)?;
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

    /// Adds the addresses that are local to some network namespace or broadcast there; where the list is complete, others
    /// are removed.
    ///
    /// # Errors
    /// [`DatapathError::Full`] or [`DatapathError::Map`].
    pub fn set_local_addresses(
        &mut self,
        wanted: &OrdMap<LocalKey, u8>,
        complete: bool,
    ) -> Result<(), DatapathError> {
        self.local_addresses.add(wanted)?;
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
        let map: HashMap<MapData, K, V> = maps::open(directory, name)?;
        let held = map.iter().flatten().collect();
        Ok(Self { name, map, held })
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
        let held = self.held.clone();
        for change in held.diff(wanted) {
            if let DiffItem::Remove(key, _) = change {
                absent_is_fine(self.map.remove(key), self.name)?;
                let _ = self.held.remove(key);
            }
        }
        // Equal by now: from here on both share their memory, and the next comparison is short.
        self.held = wanted.clone();
        Ok(())
    }
}
