//! How many cgroups are followed: of all, and of each user or container to whom a subtree was handed.
//!
//! A cgroup that is not followed is an unknown one: the kernel takes its processes for what its name says, or for
//! pending.

use std::{
    collections::{BTreeSet, HashMap},
    os::fd::OwnedFd,
    path::Path,
};

use super::{DEEPEST, Tree, directory::is_parent};
use crate::identity::containers::container_of;

/// All: three quarters of what the map holds, so that those which are new have room before others go.
pub const MOST: usize = 98_304;
/// Below one cgroup that was handed to a user, or is a container's.
pub const MOST_DELEGATED: usize = 8_192;

/// Counts cgroups.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    most_delegated: usize,
    all: usize,
    /// By the cgroup that was handed.
    delegated: HashMap<u64, usize>,
    /// Those of which some were left out; 0 = of all.
    crowded: BTreeSet<u64>,
    /// Those below which nothing is followed because they are the deepest, and something is.
    deep: BTreeSet<u64>,
    left_out: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(MOST, MOST_DELEGATED)
    }
}

impl Room {
    /// For so many.
    pub fn new(most: usize, most_delegated: usize) -> Self {
        Self {
            most,
            most_delegated,
            all: 0,
            delegated: HashMap::new(),
            crowded: BTreeSet::new(),
            deep: BTreeSet::new(),
            left_out: 0,
        }
    }

    /// Counts a cgroup, if there is room; `delegated` is the cgroup that was handed, 0 = none.
    pub fn enter(&mut self, delegated: u64) -> bool {
        let own = self.delegated.get(&delegated).copied().unwrap_or(0);
        let full = if self.all >= self.most {
            Some(0)
        } else {
            (delegated != 0 && own >= self.most_delegated).then_some(delegated)
        };
        if let Some(full) = full {
            let _ = self.crowded.insert(full);
            self.left_out += 1;
            return false;
        }
        self.all += 1;
        if delegated != 0 {
            let _ = self.delegated.insert(delegated, own + 1);
        }
        true
    }

    /// Counts one less; whether those that were left out deserve another look.
    pub fn leave(&mut self, delegated: u64) -> bool {
        self.all = self.all.saturating_sub(1);
        let mut own = 0;
        if let Some(count) = self.delegated.get_mut(&delegated) {
            *count = count.saturating_sub(1);
            own = *count;
        }
        if own == 0 {
            let _ = self.delegated.remove(&delegated);
        }
        // Not one by one: a look is at the whole tree.
        let free = |count: usize, most: usize| count <= most / 4 * 3;
        (self.crowded.contains(&0) && free(self.all, self.most))
            || (self.crowded.contains(&delegated) && free(own, self.most_delegated))
    }

    /// The whole tree is looked at anew.
    pub fn look_again(&mut self) {
        self.crowded.clear();
    }

    /// One more counts as another's, if he has room for it. Else it stays counted as it was.
    pub fn hand_over(&mut self, from: u64, to: u64) -> bool {
        let own = self.delegated.get(&to).copied().unwrap_or(0);
        if to != 0 && own >= self.most_delegated {
            let _ = self.crowded.insert(to);
            self.left_out += 1;
            return false;
        }
        if let Some(count) = self.delegated.get_mut(&from) {
            *count = count.saturating_sub(1);
        }
        if to != 0 {
            let _ = self.delegated.insert(to, own + 1);
        }
        true
    }

    /// So many lie below a cgroup below which nothing is followed.
    pub fn deeper(&mut self, id: u64, number: usize) {
        if number == 0 {
            let _ = self.deep.remove(&id);
            return;
        }
        let _ = self.deep.insert(id);
        self.left_out += u64::try_from(number).unwrap_or(u64::MAX);
    }

    /// How often one was left out.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// One of the places where some are.
    pub fn crowded(&self) -> Option<u64> {
        self.crowded.first().copied()
    }

    /// One of those below which nothing is followed, and something is.
    pub fn deep(&self) -> Option<u64> {
        self.deep.first().copied()
    }
}

impl Tree {
    /// Cgroups that are not followed because there are too many or they lie too deep, and where: below a cgroup that
    /// was handed to a user, else below the root.
    pub fn left_out(&self) -> (u64, Option<&Path>) {
        let deep = || Some(self.nodes.get(&self.room.deep()?)?.delegated);
        let place = self.room.crowded().or_else(deep);
        let place = place.and_then(|id| match id {
            0 => Some(Path::new("/")),
            id => self.path(id),
        });
        (self.room.left_out(), place)
    }

    /// Whether nothing below a cgroup is followed.
    pub(super) fn is_deepest(&self, id: u64) -> bool {
        self.level(id) == Some(DEEPEST)
    }

    /// Something came or went below a cgroup below which nothing is followed.
    pub(super) fn look_below(&mut self, directory: &OwnedFd, id: u64) {
        self.room.deeper(id, usize::from(is_parent(directory)));
    }

    /// Which handed cgroup one belongs to that is made right below `parent`: below that of a container, its root makes
    /// cgroups.
    pub(super) fn delegated(&self, parent: u64) -> u64 {
        self.nodes.get(&parent).map_or(0, |above| {
            if above.delegated != 0 {
                return above.delegated;
            }
            let is_container = || container_of(&above.path).is_some();
            let handed = above.owner != 0 || is_container();
            if handed { parent } else { 0 }
        })
    }
}
