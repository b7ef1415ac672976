//! Names of identities and rules, for one policy.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ringfence_common::abi::Identity;
use ringfence_policy::{
    compile::Compiled,
    model::{Identities, PolicySet, RESERVED},
};

/// Who an identity is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// Its number.
    pub identity: Identity,
    /// Name of the workload or of the reserved identity; `unknown(N)` for any other number.
    pub name: String,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
}

/// Where a rule stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub id: u32,
    /// Name of its policy.
    pub policy: String,
    /// Section and position, as in `egress[0]`.
    pub section: String,
    /// Document and line, as in `web.toml:12`.
    pub location: String,
}

/// Names of one generation. Records keep what they need of it, so it can be dropped.
#[derive(Clone, Debug, Default)]
pub struct Names {
    parties: HashMap<Identity, Arc<Party>>,
    rules: HashMap<u32, Arc<Rule>>,
}

impl Names {
    /// The names of a compiled policy.
    #[must_use]
    pub fn new(set: &PolicySet, identities: &Identities, compiled: &Compiled) -> Self {
        let reserved = RESERVED.into_iter().map(|(name, identity)| Party {
            identity,
            name: name.to_owned(),
            labels: BTreeMap::new(),
        });
        let workloads = set.workloads.iter().filter_map(|workload| {
            Some(Party {
                identity: *identities.get(&workload.name)?,
                name: workload.name.clone(),
                labels: workload.labels.clone(),
            })
        });
        let rules = compiled.rules.iter().map(|(id, source)| Rule {
            id: *id,
            policy: source.policy.clone(),
            section: source.section.clone(),
            location: format!("{}:{}", source.file, source.line),
        });
        Self {
            parties: reserved
                .chain(workloads)
                .map(|party| (party.identity, Arc::new(party)))
                .collect(),
            rules: rules.map(|rule| (rule.id, Arc::new(rule))).collect(),
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
                labels: BTreeMap::new(),
            })
        })
    }

    /// Where rule `id` stands; `None` for 0, which is no rule.
    #[must_use]
    pub fn rule(&self, id: u32) -> Option<Arc<Rule>> {
        if id == 0 {
            return None;
        }
        let known = self.rules.get(&id).cloned();
        Some(known.unwrap_or_else(|| {
            Arc::new(Rule {
                id,
                ..Rule::default()
            })
        }))
    }
}

/// Name of a reserved identity.
fn reserved(identity: Identity) -> Option<&'static str> {
    let named = |(_, number): &&(&str, Identity)| *number == identity;
    RESERVED.iter().find(named).map(|(name, _)| *name)
}
