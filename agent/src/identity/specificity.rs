//! Which of two workloads that match the same process is the more specific one.
//!
//! [`Specificity`] compares, in this order:
//! 1. conditions on the process itself: how many of executable digest, executable path, user and group;
//! 2. a digest, then a path, then a user, before a group; then how many groups;
//! 3. [`Place`]: how many selectors look at the container, then where in the cgroup tree they take hold.
//!
//! Workloads that are equal in all of it are tied.

mod criterion;

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

/// Conditions on the process, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Condition {
    /// Paths that must all name the executable.
    pub paths: BTreeSet<PathBuf>,
    /// Digests that the executable must have.
    pub digests: BTreeSet<[u8; 32]>,
    /// Users of whom the process must be one; `None` is every user.
    pub users: Option<BTreeSet<u32>>,
    /// Groups in all of which the process must be.
    pub groups: BTreeSet<u32>,
}

impl Condition {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How closely selectors describe the place in the cgroup tree and the container there; zero for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// What they say of the container.
    pub container: u32,
    /// Level of the cgroup from which on they cover.
    pub depth: u32,
    /// Path components that they spell out.
    pub literal: u32,
    /// Path components that they spell out in part.
    pub partial: u32,
    /// systemd units that they name.
    pub units: u32,
    /// systemd slices that they name.
    pub slices: u32,
}

impl Place {
    /// What a glob spells out, without the depth at which it matched.
    pub fn of_glob(glob: &str) -> Self {
        let mut place = Self::default();
        for part in Path::new(glob).components() {
            let Component::Normal(part) = part else {
                continue;
            };
            let part = part.to_string_lossy();
            if !part.contains(['*', '?', '[', '{']) {
                place.literal += 1;
            } else if part.chars().any(char::is_alphanumeric) {
                place.partial += 1;
            }
        }
        place
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            container: self.container + other.container,
            depth: self.depth.max(other.depth),
            literal: self.literal + other.literal,
            partial: self.partial + other.partial,
            units: self.units + other.units,
            slices: self.slices + other.slices,
        }
    }
}

/// The whole comparison; greater is more specific.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Specificity {
    conditions: u8,
    digest: bool,
    path: bool,
    user: bool,
    groups: usize,
    place: Place,
}

impl Specificity {
    /// Of a workload with a condition, matched at a place.
    pub fn new(condition: &Condition, place: Place) -> Self {
        let digest = !condition.digests.is_empty();
        let path = !condition.paths.is_empty();
        let user = condition.users.is_some();
        let groups = condition.groups.len();
        let kinds = [digest, path, user, groups > 0].map(u8::from);
        Self {
            conditions: kinds.iter().sum(),
            digest,
            path,
            user,
            groups,
            place,
        }
    }

    /// Whether it says nothing of the place, so that a workload of every cgroup can be equal to it.
    pub fn is_placeless(&self) -> bool {
        self.place == Place::default()
    }
}

/// The most specific of the matches offered so far, and the one it is tied with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Best {
    found: Option<(Specificity, usize)>,
    tied: Option<usize>,
}

impl Best {
    /// Takes one more match: workload number and specificity.
    pub fn offer(&mut self, specificity: Specificity, workload: usize) {
        let Some((held, holder)) = self.found else {
            self.found = Some((specificity, workload));
            return;
        };
        if specificity > held {
            self.found = Some((specificity, workload));
            self.tied = None;
        } else if specificity == held && workload != holder {
            self.tied = Some(workload);
        }
    }

    /// The better of two.
    pub fn or(mut self, other: Self) -> Self {
        let Some((specificity, workload)) = other.found else {
            return self;
        };
        self.offer(specificity, workload);
        if self.found == other.found {
            self.tied = other.tied.or(self.tied);
        }
        self
    }

    /// Number of the workload that won; also where it is tied.
    pub fn workload(self) -> Option<usize> {
        self.found.map(|(_, workload)| workload)
    }

    /// The two workloads that are tied.
    pub fn tie(self) -> Option<(usize, usize)> {
        Some((self.workload()?, self.tied?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(path: bool, digest: bool, user: bool) -> Condition {
        Condition {
            paths: path.then(|| "/bin/x".into()).into_iter().collect(),
            digests: digest.then_some([1; 32]).into_iter().collect(),
            users: user.then(|| BTreeSet::from([1])),
            groups: BTreeSet::new(),
        }
    }

    fn in_groups(condition: Condition, count: u32) -> Condition {
        Condition {
            groups: (0..count).collect(),
            ..condition
        }
    }

    #[test]
    fn conditions_on_the_process_come_before_the_place_in_the_tree() {
        let place = |depth| Place {
            depth,
            ..Place::default()
        };
        let order = [
            Specificity::new(&condition(false, false, false), place(9)),
            Specificity::new(&in_groups(condition(false, false, false), 1), place(1)),
            Specificity::new(&in_groups(condition(false, false, false), 1), place(2)),
            Specificity::new(&in_groups(condition(false, false, false), 2), place(1)),
            Specificity::new(&condition(false, false, true), place(1)),
            Specificity::new(&condition(false, false, true), place(2)),
            Specificity::new(&condition(true, false, false), place(1)),
            Specificity::new(&condition(false, true, false), place(1)),
            Specificity::new(&in_groups(condition(false, false, true), 1), place(0)),
            Specificity::new(&in_groups(condition(true, false, false), 1), place(0)),
            Specificity::new(&condition(true, false, true), place(0)),
            Specificity::new(&condition(false, true, true), place(0)),
            Specificity::new(&condition(true, true, false), place(0)),
            Specificity::new(&in_groups(condition(false, true, true), 1), place(0)),
            Specificity::new(&condition(true, true, true), place(0)),
        ];
        assert!(order.is_sorted_by(|a, b| a < b), "{order:#?}");
    }

    #[test]
    fn glob_counts_components_spelled_out_and_in_part() {
        let cases = [
            ("/", 0, 0),
            ("/**", 0, 0),
            ("/a/*/b", 2, 0),
            ("/a/web-*", 1, 1),
            ("/a/[0-9]*", 1, 1),
            ("/system.slice/x.service", 2, 0),
        ];
        for (glob, literal, partial) in cases {
            let place = Place::of_glob(glob);
            assert_eq!((place.literal, place.partial), (literal, partial), "{glob}");
        }
    }

    #[test]
    fn merged_bests_keep_the_tie_of_the_winner_only() {
        let low = Specificity::new(&condition(false, false, true), Place::default());
        let high = Specificity::new(&condition(true, false, true), Place::default());
        let mut tied_low = Best::default();
        tied_low.offer(low, 1);
        tied_low.offer(low, 2);
        let mut clear_high = Best::default();
        clear_high.offer(high, 3);
        assert_eq!(tied_low.or(clear_high).tie(), None);
        assert_eq!(clear_high.or(tied_low).workload(), Some(3));
        assert_eq!(clear_high.or(tied_low).tie(), None);
        assert_eq!(Best::default().or(tied_low).tie(), Some((1, 2)));
    }
}
