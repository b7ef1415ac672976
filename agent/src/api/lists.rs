//! Workloads and policies in force, and which selects which.

use std::collections::{BTreeMap, HashMap};

use ringfence_policy::model::{Policy, PolicySet, Workload};
use ringfence_proto::v1;

use super::{
    PolicyView,
    convert::{date, selects},
};

/// Which policies select which workloads, by position; both lists are ordered.
struct Selections {
    policies_of: Vec<Vec<String>>,
    workloads_of: Vec<Vec<String>>,
}

/// The answer to `ListWorkloads`.
pub(super) fn workloads(view: &PolicyView) -> v1::ListWorkloadsResponse {
    let selections = selections(&view.set);
    let workloads = view.set.workloads.iter().zip(selections.policies_of);
    v1::ListWorkloadsResponse {
        workloads: workloads
            .map(|(workload, policies)| one_workload(view, workload, policies))
            .collect(),
    }
}

/// The answer to `ListPolicies`.
pub(super) fn policies(view: &PolicyView) -> v1::ListPoliciesResponse {
    let selections = selections(&view.set);
    let policies = view.set.policies.iter().zip(selections.workloads_of);
    v1::ListPoliciesResponse {
        policies: policies
            .map(|(policy, workloads)| one_policy(policy, workloads))
            .collect(),
    }
}

fn one_workload(view: &PolicyView, workload: &Workload, policies: Vec<String>) -> v1::Workload {
    v1::Workload {
        name: workload.name.clone(),
        identity: view.identities.get(&workload.name).copied().unwrap_or(0),
        labels: BTreeMap::clone(&workload.labels).into_iter().collect(),
        selectors: workload.selectors.iter().map(ToString::to_string).collect(),
        cgroups: view.cgroups.of(&workload.name).map(str::to_owned).collect(),
        location: format!("{}:{}", workload.file, workload.line),
        policies,
    }
}

fn one_policy(policy: &Policy, workloads: Vec<String>) -> v1::Policy {
    v1::Policy {
        name: policy.name.clone(),
        mode: if policy.draft { "draft" } else { "enforce" }.to_owned(),
        applies_to: policy.applies_to.clone().into_iter().collect(),
        workloads,
        rules: u32::try_from(policy.rules.len()).unwrap_or(u32::MAX),
        not_before: policy.not_before.map(date),
        not_after: policy.not_after.map(date),
        location: format!("{}:{}", policy.file, policy.line),
    }
}

/// Looks policies up by one of their labels, so that the cost follows what is selected.
fn selections(set: &PolicySet) -> Selections {
    let mut by_label: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (position, policy) in set.policies.iter().enumerate() {
        if let Some((key, value)) = policy.applies_to.first_key_value() {
            by_label.entry((key, value)).or_default().push(position);
        }
    }
    let mut selections = Selections {
        policies_of: vec![Vec::new(); set.workloads.len()],
        workloads_of: vec![Vec::new(); set.policies.len()],
    };
    for (workload, policies_of) in set.workloads.iter().zip(&mut selections.policies_of) {
        let labels = workload.labels.iter();
        let candidates =
            labels.filter_map(|(key, value)| by_label.get(&(key.as_str(), value.as_str())));
        for position in candidates.flatten() {
            let Some(policy) = set.policies.get(*position) else {
                continue;
            };
            if selects(policy, workload) {
                policies_of.push(policy.name.clone());
                if let Some(workloads) = selections.workloads_of.get_mut(*position) {
                    workloads.push(workload.name.clone());
                }
            }
        }
        policies_of.sort();
    }
    selections
}
