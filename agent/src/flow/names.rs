//! Names of identities and rules, for one policy.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use imbl::OrdMap;
use ringfence_common::abi::Identity;
use ringfence_policy::{
    compile::{Compiled, RuleSource},
    model::{Identities, PolicySet, RESERVED, Workloads},
};

/// Who an identity is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// Its number.
    pub identity: Identity,
    /// Name of the workload or of the reserved identity; `unknown(N)` for any other number.
    pub name: String,
    /// Labels of the workload.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// Names of one generation. Records keep what they need of it, so it can be dropped.
#[derive(Clone, Debug, Default)]
pub struct Names {
    workloads: Workloads,
    identities: Arc<Identities>,
    parties: Arc<HashMap<Identity, Arc<Party>>>,
    rules: OrdMap<u32, Arc<RuleSource>>,
}

impl Names {
    /// The names of another policy, in which workloads may be the same.
    #[must_use]
    pub fn next(&self, set: &PolicySet, identities: &Arc<Identities>, compiled: &Compiled) -> Self {
        let same = set.workloads.is(&self.workloads) && Arc::ptr_eq(identities, &self.identities);
        let parties = if same && !self.parties.is_empty() {
            Arc::clone(&self.parties)
        } else {
            Arc::new(parties(&set.workloads, identities))
        };
        Self {
            workloads: set.workloads.clone(),
            identities: Arc::clone(identities),
            parties,
            rules: compiled.rules.clone(),
        }
    }

    /// Who `identity` is.
    #[must_use]
    pub fn party(&self, identity: Identity) -> Arc<Party> {
        let known = self.parties.get(&identity).cloned();
        known.unwrap_or_else(|| {
            Arc::new(Party {
                identity,
                name: reserved(identity)
                    .map_or_else(|| format!("unknown({identity})"), str::to_owned),
                labels: Arc::default(),
            })
        })
    }

    /// Where rule `id` stands; `None` for 0, which is no rule.
    #[must_use]
    pub fn rule(&self, id: u32) -> Option<Arc<RuleSource>> {
        if id == 0 {
            return None;
        }
        let known = self.rules.get(&id).cloned();
        Some(known.unwrap_or_else(|| {
            Arc::new(RuleSource {
                id,
                ..RuleSource::default()
            })
        }))
    }
}

fn parties(workloads: &Workloads, identities: &Identities) -> HashMap<Identity, Arc<Party>> {
    let reserved = RESERVED.into_iter().map(|(name, identity)| Party {
        identity,
        name: name.to_owned(),
        labels: Arc::default(),
    });
    let workloads = workloads.iter().filter_map(|workload| {
        Some(Party {
            identity: *identities.get(&workload.name)?,
            name: workload.name.clone(),
            labels: Arc::clone(&workload.labels),
        })
    });
    reserved
        .chain(workloads)
        .map(|party| (party.identity, Arc::new(party)))
        .collect()
}

/// Name of a reserved identity.
fn reserved(identity: Identity) -> Option<&'static str> {
    let named = |(_, number): &&(&str, Identity)| *number == identity;
    RESERVED.iter().find(named).map(|(name, _)| *name)
}
