//! What is forgotten when too many executables are remembered.
//!
//! Whoever can make files can make any number of executables and run them. So those go first of which one user has
//! more than others; what he has made to be forgotten is his own. Files of his [subordinate](Subordinates) ids are his
//! too.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_common::abi::ExecutableKey;

use super::{super::Subordinates, Executables};

/// Files of root that never make room for files of others are half of all: only root makes those.
const ROOTS_SHARE: usize = 2;

/// Executables that were dropped for lack of room since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many.
    pub number: u64,
    /// Of the last time, the user of whom there were most.
    pub owner: Option<u32>,
}

impl Executables {
    /// Forgets a quarter where there are too many: of whoever has most, what was not asked for longest. What a path
    /// names stays.
    pub(super) fn make_room(&mut self) -> BTreeSet<ExecutableKey> {
        if self.known.len() <= self.most {
            return BTreeSet::new();
        }
        self.make_room_among(&Subordinates::of_host())
    }

    /// The same where there are too many, and users have these subordinate ids.
    pub(super) fn make_room_among(
        &mut self,
        subordinates: &Subordinates,
    ) -> BTreeSet<ExecutableKey> {
        let mut by_owner: BTreeMap<u32, Vec<(u64, ExecutableKey)>> = BTreeMap::new();
        let others = self.known.iter();
        for (key, known) in others.filter(|(key, _)| !self.named.contains_key(*key)) {
            let list = by_owner
                .entry(subordinates.holder(known.owner))
                .or_default();
            list.push((known.last_asked, *key));
        }
        for (owner, list) in &mut by_owner {
            list.sort_unstable();
            if *owner == 0 {
                list.truncate(list.len().saturating_sub(self.most / ROOTS_SHARE));
            }
        }
        let all: usize = by_owner.values().map(Vec::len).sum();
        let quarter = (all / 4).max(1);
        let share = share(&by_owner.values().map(Vec::len), quarter);
        let most = by_owner.iter().max_by_key(|(_, list)| list.len());
        self.forgotten.owner = most.map(|(owner, _)| *owner);
        let mut over: Vec<(u64, ExecutableKey)> = by_owner
            .values()
            .flat_map(|list| list.iter().take(list.len().saturating_sub(share)))
            .copied()
            .collect();
        // Of many with as much as another, more than a quarter would go.
        over.sort_unstable();
        over.truncate(quarter);
        let dropped: BTreeSet<ExecutableKey> = over.into_iter().map(|(_, key)| key).collect();
        self.forgotten.number += u64::try_from(dropped.len()).unwrap_or(u64::MAX);
        self.known.retain(|key, _| !dropped.contains(key));
        dropped
    }
}

/// The largest number that everybody may keep, so that `number` go at least.
fn share(lengths: &(impl Iterator<Item = usize> + Clone), number: usize) -> usize {
    let mut within = (0, lengths.clone().max().unwrap_or(0));
    while within.0 < within.1 {
        let middle = (within.0 + within.1).div_ceil(2);
        let over: usize = lengths
            .clone()
            .map(|length| length.saturating_sub(middle))
            .sum();
        within = if over >= number {
            (middle, within.1)
        } else {
            (within.0, middle - 1)
        };
    }
    within.0
}
