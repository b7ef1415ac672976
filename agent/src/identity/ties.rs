//! Ties: workloads between which nothing decides.

use std::{collections::BTreeMap, fmt};

use ringfence_common::abi::{Identity, identity::UNKNOWN};

use super::{spec::Spec, specificity::Best};

/// What becomes of workloads that are tied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTie {
    /// They are refused, and those before stay.
    Refuse,
    /// They are taken, as they were in force before a cgroup came up that both match: processes that both
    /// claim are of no workload and not allowed.
    Deny,
}

/// Two workloads that are equally specific for the same process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tie {
    /// One workload.
    pub first: String,
    /// The other one.
    pub second: String,
    /// Where they meet: a cgroup, or an executable, a user and groups.
    pub place: String,
    /// They ask for different groups: whether there is a process in all of them is up to the host.
    pub by_group: bool,
}

impl fmt::Display for Tie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "workloads {:?} and {:?} match {} equally closely",
            self.first, self.second, self.place
        )
    }
}

/// Ties by the pair of workloads, one example each.
#[derive(Clone, Debug, Default)]
pub(super) struct Ties(BTreeMap<(usize, usize), Tie>);

impl Ties {
    /// Identity of the most specific workload, if any; `UNKNOWN` where two are tied.
    pub fn decide(
        &mut self,
        best: Best,
        specs: &[Spec],
        place: impl FnOnce() -> String,
    ) -> Option<Identity> {
        let winner = specs.get(best.workload()?)?;
        if let Some((a, b)) = best.tie() {
            self.add(a, b, specs, place);
            return Some(UNKNOWN);
        }
        Some(winner.identity)
    }

    /// Every tie.
    pub fn iter(&self) -> impl Iterator<Item = &Tie> {
        self.0.values()
    }

    /// Notes a tie between two workloads.
    pub fn add(&mut self, a: usize, b: usize, specs: &[Spec], place: impl FnOnce() -> String) {
        let pair = (a.min(b), a.max(b));
        let (Some(first), Some(second)) = (specs.get(pair.0), specs.get(pair.1)) else {
            return;
        };
        let _ = self.0.entry(pair).or_insert_with(|| {
            let tie = Tie {
                first: first.name.clone(),
                second: second.name.clone(),
                place: place(),
                by_group: first.condition.groups != second.condition.groups,
            };
            if tie.by_group {
                // Any two workloads with a group each: said once for all of them in the status.
                tracing::debug!(%tie, "equally specific workloads");
            } else {
                tracing::warn!(
                    first = tie.first,
                    second = tie.second,
                    place = tie.place,
                    "equally specific workloads: such processes are of no workload and not allowed"
                );
            }
            tie
        });
    }
}
