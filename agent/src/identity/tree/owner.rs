//! Who owns a cgroup, which can change: mostly it is made first and handed over afterwards.

use std::{collections::BTreeSet, os::fd::OwnedFd};

use nix::sys::stat::fstat;

use super::Tree;
use crate::identity::watch::Watcher;

impl Tree {
    /// Whether an open directory is the cgroup of that number, whose owner is taken in.
    pub(super) fn is_owned(
        &mut self,
        directory: &OwnedFd,
        id: u64,
        watcher: &Watcher,
        changed: &mut BTreeSet<u64>,
    ) -> bool {
        let stat = fstat(directory).ok().filter(|stat| stat.st_ino == id);
        if let Some(stat) = stat {
            self.set_owner(id, stat.st_uid, watcher, changed);
        }
        stat.is_some()
    }

    /// Takes in who owns a known cgroup now: what lies below is counted as his.
    pub(super) fn set_owner(
        &mut self,
        id: u64,
        owner: u32,
        watcher: &Watcher,
        changed: &mut BTreeSet<u64>,
    ) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut node.owner, owner) == owner {
            return;
        }
        let mut pending: Vec<u64> = node.children.values().copied().collect();
        while let Some(id) = pending.pop() {
            let Some(parent) = self.parent(id) else {
                continue;
            };
            let delegated = self.delegated(parent);
            let Some(node) = self.nodes.get_mut(&id) else {
                continue;
            };
            if node.delegated == delegated {
                continue;
            }
            if self.room.hand_over(node.delegated, delegated) {
                node.delegated = delegated;
                pending.extend(node.children.values());
            } else {
                self.forget(id, watcher, changed);
            }
        }
    }
}
