//! Which cgroups there are and what they may hold, for display. Copies share what they have in common, so
//! that a change costs what it changes, however many cgroups there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};

use super::{containers::Containers, placement::Placement, tree::Tree};

/// Names of workloads.
type Workloads = Arc<[Arc<str>]>;

/// Every cgroup by number, and the topmost cgroups of each workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    cgroups: OrdMap<u64, Entry>,
    /// Cgroups that may hold a workload while the one above may not. Bytes that are not UTF-8 are replaced, so paths alone
    /// need not differ.
    workloads: OrdMap<Arc<str>, OrdSet<(Arc<str>, u64)>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: Arc<str>,
    /// What it is a topmost cgroup of.
    holds: Workloads,
}

impl Inventory {
    /// Of cgroups with their number, path and the workloads that they are a topmost cgroup of.
    #[must_use]
    pub fn new<'a>(
        workloads: impl IntoIterator<Item = &'a str>,
        cgroups: impl IntoIterator<Item = (u64, &'a str, &'a [&'a str])>,
    ) -> Self {
        let names = workloads.into_iter().map(Arc::from);
        let mut inventory = Self {
            cgroups: OrdMap::new(),
            workloads: names.map(|name| (name, OrdSet::new())).collect(),
        };
        for (id, path, holds) in cgroups {
            let holds = holds.iter().map(|name| (*name).into()).collect();
            inventory.insert(id, path.into(), holds);
        }
        inventory
    }

    /// Path of a cgroup below the guarded root, with a leading slash.
    #[must_use]
    pub fn path(&self, cgroup: u64) -> Option<&Arc<str>> {
        self.cgroups.get(&cgroup).map(|entry| &entry.path)
    }

    /// The topmost cgroups that may hold processes of a workload, in order. A workload that may be in any cgroup has the
    /// guarded root.
    pub fn of(&self, workload: &str) -> impl Iterator<Item = &str> {
        let found = self.workloads.get(workload).into_iter().flatten();
        found.map(|(path, _)| &**path)
    }

    /// How many workloads there are.
    #[must_use]
    pub fn workloads(&self) -> usize {
        self.workloads.len()
    }

    fn insert(&mut self, id: u64, path: Arc<str>, holds: Workloads) {
        self.remove(id);
        for name in &*holds {
            let cgroups = self.workloads.entry(Arc::clone(name)).or_default();
            let _ = cgroups.insert((Arc::clone(&path), id));
        }
        let _ = self.cgroups.insert(id, Entry { path, holds });
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.cgroups.remove(&id) else {
            return;
        };
        for name in &*entry.holds {
            if let Some(cgroups) = self.workloads.get_mut(name) {
                let _ = cgroups.remove(&(Arc::clone(&entry.path), id));
            }
        }
    }
}

/// Keeps an [`Inventory`] true to the tree.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    inventory: Inventory,
    /// The same sets of workloads again and again.
    sets: BTreeMap<BTreeSet<usize>, Workloads>,
}

impl Keeper {
    /// Of every cgroup of a tree.
    pub fn new(tree: &Tree, containers: &Containers, placement: &Placement) -> Self {
        let mut keeper = Self {
            inventory: Inventory::new(placement.specs().iter().map(|spec| &*spec.name), []),
            sets: BTreeMap::new(),
        };
        let everywhere = placement.specs().iter().filter(|spec| spec.is_everywhere());
        for spec in everywhere {
            let cgroups = keeper.inventory.workloads.entry(spec.name.as_str().into());
            let _ = cgroups.or_default().insert(("/".into(), tree.root_id()));
        }
        for (id, _) in tree.iter() {
            keeper.update(id, tree, containers, placement);
        }
        keeper
    }

    /// Looks at one cgroup again.
    pub fn update(&mut self, id: u64, tree: &Tree, containers: &Containers, placement: &Placement) {
        let Some(path) = tree.path(id) else {
            self.inventory.remove(id);
            return;
        };
        let candidates =
            |id| -> BTreeSet<usize> { placement.members(id, tree, containers).collect() };
        let mut holds = candidates(id);
        if !holds.is_empty()
            && let Some(parent) = tree.parent(id)
        {
            holds.retain({
                let above = candidates(parent);
                move |workload| !above.contains(workload)
            });
        }
        let named = self.sets.entry(holds).or_insert_with_key(|holds| {
            let specs = holds.iter().filter_map(|it| placement.specs().get(*it));
            specs.map(|spec| spec.name.as_str().into()).collect()
        });
        let named = Arc::clone(named);
        self.inventory
            .insert(id, path.to_string_lossy().into(), named);
    }

    /// As it is now.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_was_and_names_are_given_up_with_their_cgroup() {
        let both: &[&str] = &["a", "b"];
        let mut inventory = Inventory::new(["a", "b", "c"], [(1, "/x", both), (2, "/x", &["a"])]);
        let before = inventory.clone();
        inventory.remove(1);
        inventory.insert(2, "/y".into(), Arc::from(["b".into()]));
        let of =
            |inventory: &Inventory, name| inventory.of(name).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of(&before, "a"), ["/x", "/x"]);
        assert_eq!(of(&before, "b"), ["/x"]);
        assert!(of(&inventory, "a").is_empty());
        assert_eq!(of(&inventory, "b"), ["/y"]);
        let path = |cgroup| inventory.path(cgroup).map(|path| &**path);
        assert_eq!((path(1), path(2)), (None, Some("/y")));
        assert_eq!((before.workloads(), inventory.workloads()), (3, 3));
        assert!(of(&inventory, "nobody").is_empty());
    }
}
