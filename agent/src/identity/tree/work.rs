//! What is still to be looked at, in steps of one name each.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    os::fd::OwnedFd,
    sync::Arc,
};

use inotify::WatchDescriptor;

use super::Tree;
use crate::identity::watch::{Batch, Watcher};

/// What is still to be looked at.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Names that events gave, by directory.
    dirty: HashMap<WatchDescriptor, BTreeSet<OsString>>,
    /// Names in open directories, the next one last. Depth first, so that few descriptors are open at a time.
    names: Vec<(Arc<OwnedFd>, OsString, u64)>,
}

impl Tree {
    /// Takes what a batch names; [`Self::work`] looks at it.
    pub fn take(&mut self, batch: Batch) {
        for watch in &batch.dropped {
            let _ = self.work.dirty.remove(watch);
            if let Some(id) = self.watched.remove(watch)
                && let Some(node) = self.nodes.get_mut(&id)
            {
                node.watch = None;
            }
        }
        for (watch, names) in batch.dirty {
            if self.watched.contains_key(&watch) {
                self.work.dirty.entry(watch).or_default().extend(names);
            }
        }
    }

    /// Whether something that a batch named, or that lies below it, was not looked at yet.
    pub fn is_behind(&self) -> bool {
        !self.work.dirty.is_empty() || !self.work.names.is_empty()
    }

    /// Looks at names, at most about `most`; returns the ids that came, went or moved.
    pub fn work(&mut self, watcher: &Watcher, most: usize) -> BTreeSet<u64> {
        let mut changed = BTreeSet::new();
        let mut left = most;
        self.go_on(watcher, &mut left, &mut changed);
        while left > 0
            && let Some(watch) = self.work.dirty.keys().next().cloned()
        {
            left -= 1;
            let names = self.work.dirty.remove(&watch).unwrap_or_default();
            self.open_again(&watch, names, watcher, &mut changed);
            self.go_on(watcher, &mut left, &mut changed);
        }
        changed
    }

    /// Opens a directory in which names are to be looked at, unless its path now leads to another one.
    fn open_again(
        &mut self,
        watch: &WatchDescriptor,
        names: BTreeSet<OsString>,
        watcher: &Watcher,
        changed: &mut BTreeSet<u64>,
    ) {
        let id = self.watched.get(watch).copied();
        let Some((id, path)) = id.and_then(|id| Some((id, self.path(id)?))) else {
            return;
        };
        let Ok(directory) = self.open(path) else {
            return;
        };
        if !self.is_owned(&directory, id, watcher, changed) {
            return;
        }
        let directory = Arc::new(directory);
        // An event of the directory itself has no name.
        let names = names.into_iter().filter(|name| !name.is_empty());
        let names = names.map(|name| (Arc::clone(&directory), name, id));
        self.work.names.extend(names);
    }

    /// Looks at the names that are waiting and at what lies below them.
    pub(super) fn go_on(
        &mut self,
        watcher: &Watcher,
        left: &mut usize,
        changed: &mut BTreeSet<u64>,
    ) {
        while *left > 0
            && let Some((directory, name, parent)) = self.work.names.pop()
        {
            *left -= 1;
            if let Some((child, id)) = self.look(&directory, &name, parent, watcher, changed) {
                self.descend(child, id, watcher, changed);
            }
        }
    }

    /// Brings what lies right below an open directory up to date as far as what is gone; the rest is put first in
    /// the line.
    pub(super) fn descend(
        &mut self,
        directory: OwnedFd,
        id: u64,
        watcher: &Watcher,
        changed: &mut BTreeSet<u64>,
    ) {
        let directory = Arc::new(directory);
        let names = self.enter(&directory, id, watcher, changed).into_iter();
        let names = names.map(|name| (Arc::clone(&directory), name, id));
        self.work.names.extend(names);
    }
}
