//! Compiling again at the price of what has changed.
//!
//! A table follows from its workload, the policies that select it, the identities of its peers and the time. While workloads
//! and identities stay the same, only the tables of workloads are built that a policy selects or selected which is new,
//! gone or bound to a time. Everything else is compiled as a whole, and keeps the tables that come out as before.

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;
use ringfence_common::abi::Identity;

use super::{
    CompileError, Compiled, Context, MAX_ENTRIES, Table, compile_within, next_change,
    rule_id::{named, sources},
    table::{Prepare, build},
};
use crate::model::{Identities, PolicySet, carries};

/// With more workloads than this, to look for the policies of each costs more than to compile everything.
const FEW: usize = 64;

/// A compiled policy with what it was compiled from.
#[derive(Clone, Debug, Default)]
pub struct Compilation {
    /// The policy.
    pub set: Arc<PolicySet>,
    /// Identity of each workload.
    pub identities: Arc<Identities>,
    /// Its tables.
    pub compiled: Arc<Compiled>,
    context: Option<Context>,
    /// Every rule has the number that its name gives it.
    as_named: bool,
}

impl Compilation {
    /// Compiles another policy, in which much is as in this one. The outcome is that of [`super::compile`].
    ///
    /// # Errors
    /// As [`super::compile`].
    pub fn next(
        &self,
        set: PolicySet,
        identities: Arc<Identities>,
        context: &Context,
    ) -> Result<Self, CompileError> {
        let (compiled, as_named) = match self.changed(&set, &identities, context)? {
            Some(compiled) => (compiled, true),
            None => self.whole(&set, &identities, context)?,
        };
        Ok(Self {
            set: Arc::new(set),
            identities,
            compiled: Arc::new(compiled),
            context: Some(*context),
            as_named,
        })
    }

    fn whole(
        &self,
        set: &PolicySet,
        identities: &Identities,
        context: &Context,
    ) -> Result<(Compiled, bool), CompileError> {
        let (mut compiled, as_named) = compile_within(set, identities, context, MAX_ENTRIES)?;
        share(&mut compiled.tables, &self.compiled.tables);
        share(&mut compiled.rules, &self.compiled.rules);
        Ok((compiled, as_named))
    }

    /// Nothing where only all of it can tell.
    fn changed(
        &self,
        set: &PolicySet,
        identities: &Arc<Identities>,
        context: &Context,
    ) -> Result<Option<Compiled>, CompileError> {
        let before = &*self.set;
        let comparable = self.as_named
            && set.workloads.is(&before.workloads)
            && Arc::ptr_eq(identities, &self.identities)
            && self
                .context
                .is_some_and(|before| before.deny_unselected == context.deny_unselected);
        if !comparable {
            return Ok(None);
        }
        let (gone, new) = before.difference(set);
        let mut rules = self.compiled.rules.clone();
        for id in gone.iter().flat_map(|policy| named(policy)) {
            let _ = rules.remove(&id);
        }
        for policy in &new {
            for (id, source) in sources(policy, &named(policy)) {
                let source = match self.compiled.rules.get(&id) {
                    Some(before) if *before == source => Arc::clone(before),
                    _ => source,
                };
                if rules.insert(id, source).is_some() {
                    return Ok(None);
                }
            }
        }
        let changed = gone.iter().chain(&new);
        let stale: BTreeSet<usize> = changed
            .flat_map(|policy| set.workloads.select(&policy.applies_to))
            .collect();
        if stale.len() > FEW {
            return Ok(None);
        }
        let tables = self.rebuilt(set, &stale, context)?;
        Ok(Some(Compiled {
            tables,
            rules,
            next_change: next_change(set, context),
            ..(*self.compiled).clone()
        }))
    }

    /// The tables, with those of these workloads built anew.
    fn rebuilt(
        &self,
        set: &PolicySet,
        stale: &BTreeSet<usize>,
        context: &Context,
    ) -> Result<OrdMap<Identity, Arc<Table>>, CompileError> {
        let mut tables = self.compiled.tables.clone();
        let workloads: Vec<_> = stale
            .iter()
            .filter_map(|at| set.workloads.get(*at))
            .collect();
        let prepare = Prepare {
            workloads: &set.workloads,
            identities: &self.identities,
            context,
        };
        let mut selecting = vec![Vec::new(); workloads.len()];
        let mut prepared = Vec::new();
        for policy in &set.policies {
            let mut selects = false;
            for (workload, policies) in workloads.iter().zip(&mut selecting) {
                if carries(workload, &policy.applies_to) {
                    policies.push(prepared.len());
                    selects = true;
                }
            }
            if selects {
                prepared.push(prepare.policy(policy, &named(policy)));
            }
        }
        for (workload, policies) in workloads.iter().zip(&selecting) {
            let Some(identity) = self.identities.get(&workload.name) else {
                return Err(CompileError::IdentityMissing(workload.name.clone()));
            };
            let selected = policies.iter().filter_map(|number| prepared.get(*number));
            let table = build(workload, selected, MAX_ENTRIES)?;
            if tables.get(identity).is_none_or(|before| **before != table) {
                let _ = tables.insert(*identity, Arc::new(table));
            }
        }
        Ok(tables)
    }
}

/// Takes what is equal from the former one.
fn share<K: Copy + Ord, V: PartialEq>(map: &mut OrdMap<K, Arc<V>>, former: &OrdMap<K, Arc<V>>) {
    for (key, value) in former {
        if let Some(new) = map.get_mut(key)
            && new == value
        {
            new.clone_from(value);
        }
    }
}
