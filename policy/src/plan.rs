//! What to change in the kernel to go from one compiled policy to the next: plain data, which the
//! agent's datapath applies.

use ringfence_common::abi::Identity;

use crate::compile::Compiled;

/// Changes between two compiled policies, ordered by identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Tables that are new or differ.
    pub replace: Vec<Identity>,
    /// Tables that are gone.
    pub remove: Vec<Identity>,
}

impl Plan {
    /// Whether the kernel already has everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replace.is_empty() && self.remove.is_empty()
    }
}

/// Compares the tables; `deny_unselected` is a setting, not a table, and is not looked at.
#[must_use]
pub fn plan(old: &Compiled, new: &Compiled) -> Plan {
    let changed = new
        .tables
        .iter()
        .filter(|(identity, table)| old.tables.get(*identity) != Some(*table));
    let gone = old
        .tables
        .keys()
        .filter(|identity| !new.tables.contains_key(*identity));
    Plan {
        replace: changed.map(|(&identity, _)| identity).collect(),
        remove: gone.copied().collect(),
    }
}
