//! From valid policy to the tables that the kernel looks up.
//!
//! Owns the layout of a workload's [`Table`], the numbers of rules and of address classes, and the
//! identities of a deployment without a controller. Never reads a clock: [`Context`] brings the time.
//! The same input gives the same output, whatever the order of documents.

mod address;
mod identity;
mod next;
mod rule_id;
mod table;
#[cfg(test)]
mod tests;

pub use identity::{derive_identities, derive_identity};
pub use next::Compilation;

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;
use ringfence_common::abi::{CidrKey, Header, Identity, RuleEntry, RuleKey, identity::is_workload};
use time::OffsetDateTime;

use self::rule_id::RuleIds;
use crate::model::{Identities, PolicySet};

/// Entries of one workload's table at most; its address prefixes are bounded by the same number.
pub const MAX_ENTRIES: usize = 1_000_000;

/// What a compilation needs besides the policy.
///
/// `now` and `boot_now_ns` must have been read at the same moment. Pass the same pair again until
/// the wall clock is set (derive a later `now` by adding the time passed to both): a pair read anew
/// differs by some nanoseconds, and every table with a `not-after` would count as changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Wall clock.
    pub now: OffsetDateTime,
    /// `CLOCK_BOOTTIME` at that moment, nanoseconds.
    pub boot_now_ns: u64,
    /// A workload that no policy selects is denied.
    pub deny_unselected: bool,
}

/// Everything that the kernel and `explain` need of a policy. Copies share what they have in common: to copy them and to
/// compare two of which one was made from the other costs what differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// Tables of the workloads that a policy selects or that may not talk to themselves.
    pub tables: OrdMap<Identity, Arc<Table>>,
    /// Where each rule number comes from.
    pub rules: OrdMap<u32, Arc<RuleSource>>,
    /// When to compile again, because a policy's `not-before` passes.
    pub next_change: Option<OffsetDateTime>,
    /// A workload that no policy selects is denied.
    pub deny_unselected: bool,
    /// Name of each workload.
    pub names: Arc<BTreeMap<Identity, String>>,
}

/// Policy of one workload, as it stands in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Which look-ups a direction needs, and what holds when none hits.
    pub header: Header,
    /// Merged rules by key.
    pub entries: BTreeMap<RuleKey, RuleEntry>,
    /// Address prefixes with their class, from `FIRST_CIDR`; classes are local to the table.
    pub cidrs: BTreeMap<CidrKey, u32>,
}

/// Where a rule stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleSource {
    /// Its number.
    pub id: u32,
    /// Name of its policy.
    pub policy: String,
    /// Section and position: `egress[0]`, `deny-ingress[1]`.
    pub section: String,
    /// Document.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// The policy is a draft.
    pub draft: bool,
}

/// Why a policy can't be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The identities don't cover the policy.
    #[error(
        "workload {0:?} has no identity; fetch the identities anew or derive them from this policy"
    )]
    IdentityMissing(String),
    /// The identity is reserved or beyond the range of workloads.
    #[error(
        "workload {workload:?} has identity {identity}, outside 256 to 16777215; allocate another"
    )]
    IdentityOutOfRange {
        /// Name.
        workload: String,
        /// Its number.
        identity: Identity,
    },
    /// Two workloads have one number.
    #[error("workloads {first:?} and {second:?} both have identity {identity}; rename one of them")]
    IdentityCollision {
        /// Name.
        first: String,
        /// The other name.
        second: String,
        /// Their number.
        identity: Identity,
    },
    /// A table outgrows what the kernel is given.
    #[error(
        "workload {workload:?} needs too many {what} (more than {MAX_ENTRIES}); use fewer peers, ports or nested ranges in the policies that select it"
    )]
    TooLarge {
        /// Name.
        workload: String,
        /// `entries`, `address prefixes` or `address classes`.
        what: &'static str,
    },
}

/// Compiles a policy for every workload it selects.
///
/// # Errors
/// See [`CompileError`]; nothing is compiled in part.
pub fn compile(
    set: &PolicySet,
    identities: &Identities,
    context: &Context,
) -> Result<Compiled, CompileError> {
    compile_within(set, identities, context, MAX_ENTRIES).map(|(compiled, _)| compiled)
}

/// The same, and whether every rule has the number that its name gives it.
fn compile_within(
    set: &PolicySet,
    identities: &Identities,
    context: &Context,
    limit: usize,
) -> Result<(Compiled, bool), CompileError> {
    let names = names(set, identities)?;
    let ids = RuleIds::new(set);
    let prepare = table::Prepare {
        workloads: &set.workloads,
        identities,
        context,
    };
    let prepared: Vec<_> = (0..)
        .zip(&set.policies)
        .map(|(number, policy)| prepare.policy(policy, ids.of_policy(number)))
        .collect();

    let mut selecting: Vec<Vec<usize>> = vec![Vec::new(); set.workloads.len()];
    for (number, policy) in set.policies.iter().enumerate() {
        for workload in set.workloads.select(&policy.applies_to) {
            if let Some(policies) = selecting.get_mut(workload) {
                policies.push(number);
            }
        }
    }

    let mut tables = Vec::with_capacity(set.workloads.len());
    for (workload, policies) in set.workloads.iter().zip(&selecting) {
        let Some(&identity) = identities.get(&workload.name) else {
            return Err(CompileError::IdentityMissing(workload.name.clone()));
        };
        let selected = policies.iter().filter_map(|&number| prepared.get(number));
        tables.push((identity, Arc::new(table::build(workload, selected, limit)?)));
    }
    let compiled = Compiled {
        tables: tables.into_iter().collect(),
        rules: ids.sources(set),
        next_change: next_change(set, context),
        deny_unselected: context.deny_unselected,
        names: Arc::new(names),
    };
    Ok((compiled, ids.as_named()))
}

/// When the first policy begins to hold that does not yet.
fn next_change(set: &PolicySet, context: &Context) -> Option<OffsetDateTime> {
    let moments = set.policies.iter().filter_map(|policy| policy.not_before);
    moments.filter(|&from| from > context.now).min()
}

fn names(
    set: &PolicySet,
    identities: &Identities,
) -> Result<BTreeMap<Identity, String>, CompileError> {
    let mut names = BTreeMap::<Identity, String>::new();
    for workload in &set.workloads {
        let name = &workload.name;
        let Some(&identity) = identities.get(name) else {
            return Err(CompileError::IdentityMissing(name.clone()));
        };
        if !is_workload(identity) {
            return Err(CompileError::IdentityOutOfRange {
                workload: name.clone(),
                identity,
            });
        }
        if let Some(first) = names.insert(identity, name.clone()) {
            return Err(CompileError::IdentityCollision {
                first,
                second: name.clone(),
                identity,
            });
        }
    }
    Ok(names)
}
